package downlink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"filippo.io/age"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// maxKey bounds the encrypted identity's plain text.
const maxKey = 1 << 10

func (d *Downlink) chunkDir() string { return filepath.Join(d.cfg.Dir, "chunks") }

// chunk keeps a chunk that is needed, encrypted as it came. It survives a restart,
// so a registry that comes over a bad link is not begun again.
func (d *Downlink) chunk(ctx context.Context, hash string, payload []byte) error {
	if d.registry == nil || !isHash(hash) || len(payload) > wire.MaxChunk || !slices.Contains(d.parts(), hash) || wire.HashOf(payload) != hash {
		return nil
	}
	path := filepath.Join(d.chunkDir(), hash)
	if exists(path) {
		return nil
	}
	// Not synced: what a power cut leaves is known by its hash when it is read.
	err := os.WriteFile(path+".new", payload, 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("cannot keep a chunk of the registry: %w", err)
	}
	return d.arrived(ctx, hash)
}

// errPart is a chunk that is not what its name says; it is fetched again.
type errPart struct{ hash string }

func (e errPart) Error() string { return "chunk " + e.hash + " is damaged on the medium" }

// applyRegistry puts the registry in force when all its chunks are here.
func (d *Downlink) applyRegistry(ctx context.Context) error {
	ref := d.registry
	if ref == nil {
		return nil
	}
	for _, h := range d.parts() {
		if !isHash(h) {
			d.registry = nil
			return d.refuse(ctx, edge.KindRegistry, "registry", fmt.Errorf("%w: chunk %.80q", wire.ErrMalformed, h))
		}
		if !exists(filepath.Join(d.chunkDir(), h)) {
			return nil
		}
	}
	// Whatever comes of it is not tried again before the server speaks of it again.
	d.registry = nil
	key, err := d.cfg.Open(bytes.NewReader(ref.Key), maxKey)
	if err != nil {
		return d.refuse(ctx, edge.KindRegistry, "registry", fmt.Errorf("its key is not for this device: %w", err))
	}
	id, err := age.ParseX25519Identity(string(key))
	if err != nil {
		return d.refuse(ctx, edge.KindRegistry, "registry", errors.New("its key is no age identity"))
	}
	var contains []edge.EntryRef
	for _, m := range ref.Contains {
		if m.Next > 0 {
			contains = append(contains, edge.EntryRef{Gate: m.Gate, Epoch: m.Epoch, Seq: m.Next - 1})
		}
	}
	if steps := d.steps(ref); len(steps) > 0 {
		if err := d.step(ctx, steps, id, contains); err != nil {
			if ctx.Err() != nil {
				return err
			}
			d.log.Warn("the registry's deltas do not fit, the whole of it is fetched", "version", ref.Version, "err", err)
			d.whole, d.registry = ref.Version, ref
			return d.askNow(ctx)
		}
		d.log.Info("a registry is in force", "version", ref.Version, "deltas", len(steps))
		return d.sweep(ref.Chunks)
	}
	if err := d.cfg.Registry.Replace(ctx, ref.Version, d.rows(ref, id), contains); err != nil {
		var part errPart
		if errors.As(err, &part) {
			d.registry = ref
			return errors.Join(err, os.Remove(filepath.Join(d.chunkDir(), part.hash)), d.askNow(ctx))
		}
		if ctx.Err() != nil {
			return err
		}
		return d.refuse(ctx, edge.KindRegistry, "registry", fmt.Errorf("version %d: %w", ref.Version, err))
	}
	d.log.Info("a registry is in force", "version", ref.Version, "passes", ref.Rows)
	return d.sweep(ref.Chunks)
}

// sweep removes chunks that are in no registry of now; the others stay, so that the
// next version needs only what has changed.
func (d *Downlink) sweep(keep []string) error {
	files, err := os.ReadDir(d.chunkDir())
	if err != nil {
		return fmt.Errorf("cannot sweep the chunks: %w", err)
	}
	known := map[string]bool{}
	for _, h := range keep {
		known[h] = true
	}
	var errs []error
	for _, f := range files {
		if !known[f.Name()] {
			errs = append(errs, os.Remove(filepath.Join(d.chunkDir(), f.Name())))
		}
	}
	return errors.Join(errs...)
}

// rows reads all chunks, one at a time in memory.
func (d *Downlink) rows(ref *wire.RegistryRef, id age.Identity) iter.Seq2[edge.RosterRow, error] {
	return func(yield func(edge.RosterRow, error) bool) {
		n := int64(0)
		for _, hash := range ref.Chunks {
			plain, err := d.readChunk(hash, id)
			if err != nil {
				yield(edge.RosterRow{}, err)
				return
			}
			for line := range bytes.Lines(plain) {
				var r wire.Row
				if err := json.Unmarshal(line, &r); err != nil {
					yield(edge.RosterRow{}, fmt.Errorf("%w: row %d: %w", wire.ErrMalformed, n+1, err))
					return
				}
				n++
				if !yield(edge.RosterRow{Line: int(n), Pass: r.Pass, Household: r.Household, Credentials: r.Credentials}, nil) {
					return
				}
			}
		}
		if n != ref.Rows {
			yield(edge.RosterRow{}, fmt.Errorf("%w: %d rows, the manifest says %d", wire.ErrMalformed, n, ref.Rows))
		}
	}
}

func (d *Downlink) readChunk(hash string, id age.Identity) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(d.chunkDir(), hash))
	if err != nil {
		return nil, fmt.Errorf("cannot read a chunk of the registry: %w", err)
	}
	if wire.HashOf(b) != hash {
		return nil, errPart{hash}
	}
	r, err := age.Decrypt(bytes.NewReader(b), id)
	if err != nil {
		return nil, fmt.Errorf("cannot decrypt a chunk of the registry: %w", err)
	}
	packed, err := io.ReadAll(io.LimitReader(r, wire.MaxChunk+1))
	if err != nil {
		return nil, fmt.Errorf("cannot decrypt a chunk of the registry: %w", err)
	}
	return wire.Expand(packed, wire.MaxChunk)
}
