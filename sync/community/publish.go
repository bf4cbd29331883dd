package community

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"

	"filippo.io/age"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// Changes is what an import does, or would do.
type Changes struct {
	New, Changed, Gone, Same int64
	Version                  int64 // of the registry afterwards
}

// ImportOptions say how a roster is imported.
type ImportOptions struct {
	DryRun    bool
	DropLocal bool             // forget what gates changed by themselves: the file is right
	MaxGone   float64          // share of the passes that may go, 0 to 1; more is refused
	Progress  func(rows int64) // called now and then
}

// ErrTooManyGone says that an import would remove more passes than allowed: most
// often the file is half of what it should be.
var ErrTooManyGone = errors.New("too many passes would go")

// maxErrors is how many rows may be wrong before reading ends.
const maxErrors = 20

// errDry ends the transaction of a dry run.
var errDry = errors.New("dry run")

// ImportRoster makes the rows the site's roster, all or nothing, and publishes it
// in chunks that are encrypted once for the whole site. Chunks that have not
// changed stay as they are, so gates fetch the others only.
func (s *Server) ImportRoster(ctx context.Context, site string, rows iter.Seq2[edge.RosterRow, error], o ImportOptions) (Changes, error) {
	if err := wire.CheckName(site); err != nil {
		return Changes{}, err
	}
	var ch Changes
	err := s.store.write(ctx, func(tx *sql.Tx) error { return importRoster(ctx, tx, s.store.bulk, site, rows, o, &ch) })
	switch {
	case errors.Is(err, errDry):
		return ch, nil
	case err != nil:
		return ch, fmt.Errorf("cannot import the roster of %s: %w", site, err)
	}
	s.tell()
	if err := s.store.bulk.scrub(ctx, s.store.w); err != nil {
		s.log.Warn("rows that the roster has lost are still on the medium", "site", site, "error", err)
	}
	return ch, nil
}

func (s *Server) tell() {
	select {
	case s.published <- struct{}{}:
	default:
	}
}

func importRoster(ctx context.Context, tx *sql.Tx, b bulk, site string, rows iter.Seq2[edge.RosterRow, error], o ImportOptions, ch *Changes) error {
	// A version has one content and one content key: who makes the next waits.
	if err := b.turn(ctx, tx, turnRegistry(site)); err != nil {
		return err
	}
	var identity string
	err := tx.QueryRowContext(ctx, `SELECT version, identity FROM registry WHERE site = $1`, site).Scan(&ch.Version, &identity)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if identity == "" {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return fmt.Errorf("cannot make a content key: %w", err)
		}
		identity = id.String()
	}
	was := ch.Version
	ch.Version = nextVersion(was)
	get, err := tx.PrepareContext(ctx, `SELECT row, version FROM roster WHERE site = $1 AND pass = $2`)
	if err != nil {
		return err
	}
	defer get.Close()
	put, err := tx.PrepareContext(ctx, `INSERT INTO roster (site, pass, row, version) VALUES ($1, $2, $3, $4)
		ON CONFLICT (site, pass) DO UPDATE SET row = excluded.row, version = excluded.version`)
	if err != nil {
		return err
	}
	defer put.Close()
	var n int64
	var bad []error
	for r, err := range rows {
		if err != nil {
			if bad = append(bad, err); len(bad) == maxErrors {
				break
			}
			continue
		}
		if r.Pass.ID < 1 || r.Pass.ID > edge.MaxID {
			return fmt.Errorf("line %d: pass id %d must be between 1 and %d", r.Line, r.Pass.ID, int64(edge.MaxID))
		}
		text, err := wire.Encode(wire.Row{Pass: r.Pass, Household: r.Household, Credentials: r.Credentials})
		if err != nil {
			return err
		}
		var was string
		var version int64
		err = get.QueryRowContext(ctx, site, int64(r.Pass.ID)).Scan(&was, &version)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			ch.New++
		case err != nil:
			return err
		case version == ch.Version:
			return fmt.Errorf("line %d: pass %d is there twice", r.Line, r.Pass.ID)
		case was == string(text):
			ch.Same++
		default:
			ch.Changed++
		}
		if _, err := put.ExecContext(ctx, site, int64(r.Pass.ID), string(text), ch.Version); err != nil {
			return err
		}
		if n++; o.Progress != nil && n%1000 == 0 {
			o.Progress(n)
		}
	}
	if len(bad) > 0 {
		return errors.Join(bad...)
	}
	res, err := tx.ExecContext(ctx, `DELETE FROM roster WHERE site = $1 AND version <> $2`, site, ch.Version)
	if err != nil {
		return err
	}
	if ch.Gone, err = res.RowsAffected(); err != nil {
		return err
	}
	if before := ch.Changed + ch.Same + ch.Gone; float64(ch.Gone) > o.MaxGone*float64(before) {
		return fmt.Errorf("%w: %d of %d", ErrTooManyGone, ch.Gone, before)
	}
	if o.DryRun {
		return errDry
	}
	if o.DropLocal {
		if err := dropLocal(ctx, tx, site); err != nil {
			return err
		}
	}
	if err := cutChunks(ctx, tx, site, identity, was, ch.Version); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO registry (site, version, rows, identity, at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (site) DO UPDATE SET version = excluded.version, rows = excluded.rows, at = excluded.at`,
		site, ch.Version, n, identity, time.Now().UnixMilli())
	return err
}

// nextVersion numbers what is published next: by the second, so that a server that was
// restored from a backup, or has lost its database, does not give a number that gates
// have seen on something else. They would keep what they have.
func nextVersion(last int64) int64 { return max(last+1, time.Now().Unix()) }

// A chunk ends after a pass whose id says so, one in chunkRows, so that a change
// moves no border but its own; or when it becomes too large.
const (
	chunkRows = 1024
	chunkMax  = 4 * chunkRows
)

func endsChunk(id int64) bool {
	x := uint64(id) * 0x9e3779b97f4a7c15
	x ^= x >> 32
	return x%chunkRows == 0
}

func cutChunks(ctx context.Context, tx *sql.Tx, site, identity string, was, version int64) error {
	id, err := age.ParseX25519Identity(identity)
	if err != nil {
		return fmt.Errorf("cannot read the content key: %w", err)
	}
	type chunk struct {
		first int64
		plain []byte
	}
	// First how far they were received, then the changes: what comes in between is in
	// the chunks and not said to be.
	received, err := receivedChanges(ctx, tx, site)
	if err != nil {
		return err
	}
	local, err := localChanges(ctx, tx, site)
	if err != nil {
		return err
	}
	// The chunks are made page by page: a statement that reads stays open on no
	// engine while another one writes in the same transaction.
	after := int64(0)
	diff := differ{ctx: ctx, tx: tx, site: site}
	for {
		var c chunk
		n, done := 0, false
		var sums []sum
		var texts [][]byte
		rows, err := tx.QueryContext(ctx, `SELECT pass, row FROM roster WHERE site = $1 AND pass > $2 ORDER BY pass LIMIT $3`, site, after, chunkMax)
		err = each(rows, err, func() error {
			var pass int64
			var text []byte
			if err := rows.Scan(&pass, &text); err != nil {
				return err
			}
			if done {
				return nil
			}
			if n == 0 {
				c.first = pass
			}
			n++
			after = pass
			if l, ok := local[pass]; ok {
				var err error
				if text, err = l.onto(text); err != nil {
					return err
				}
			}
			c.plain = append(append(c.plain, text...), '\n')
			sums, texts = append(sums, sum{pass, sha256.Sum256(text)}), append(texts, text)
			done = endsChunk(pass) || len(c.plain) > wire.MaxChunk/2
			return nil
		})
		if err != nil {
			return err
		}
		if err := diff.page(sums, texts, n == 0); err != nil {
			return err
		}
		if n == 0 {
			break
		}
		sum := sha256.Sum256(c.plain)
		var have []byte
		err = tx.QueryRowContext(ctx, `SELECT plain FROM chunk WHERE site = $1 AND first = $2`, site, c.first).Scan(&have)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if bytes.Equal(have, sum[:]) {
			_, err = tx.ExecContext(ctx, `UPDATE chunk SET version = $1 WHERE site = $2 AND first = $3`, version, site, c.first)
		} else {
			var data []byte
			if data, err = seal(pack(c.plain), id.Recipient()); err != nil {
				return err
			}
			_, err = tx.ExecContext(ctx, `INSERT INTO chunk (site, first, plain, hash, data, version) VALUES ($1, $2, $3, $4, $5, $6)
				ON CONFLICT (site, first) DO UPDATE SET plain = excluded.plain, hash = excluded.hash, data = excluded.data, version = excluded.version`,
				site, c.first, sum[:], wire.HashOf(data), data, version)
		}
		if err != nil {
			return err
		}
	}
	if _, err = tx.ExecContext(ctx, `DELETE FROM chunk WHERE site = $1 AND version <> $2`, site, version); err != nil {
		return err
	}
	if err := diff.finish(id, was, version); err != nil {
		return err
	}
	// What was received of the gates' own changes is in these chunks now.
	for _, r := range received {
		if _, err := tx.ExecContext(ctx, `UPDATE contains SET published = $1 WHERE log = $2`, int64(r.size), r.id); err != nil {
			return err
		}
	}
	return nil
}

// registry is what is published of the site's registry, all of one version, and the
// content identity that opens it; nil when nothing is, or no other version than have.
func (s *store) registry(ctx context.Context, site string, have int64) (*wire.RegistryRef, string, error) {
	var ref *wire.RegistryRef
	var identity string
	err := s.view(ctx, func(q querier) (err error) {
		ref, identity, err = registryIn(ctx, q, site, have)
		return err
	})
	return ref, identity, err
}

func registryIn(ctx context.Context, q querier, site string, have int64) (*wire.RegistryRef, string, error) {
	r := new(wire.RegistryRef)
	var identity string
	err := q.QueryRowContext(ctx, `SELECT version, rows, identity FROM registry WHERE site = $1`, site).Scan(&r.Version, &r.Rows, &identity)
	if errors.Is(err, sql.ErrNoRows) || err == nil && r.Version == have {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	if r.Chunks, err = chunks(ctx, q, site); err != nil {
		return nil, "", fmt.Errorf("its chunks: %w", err)
	}
	if r.Deltas, err = deltas(ctx, q, site, have, r.Version); err != nil {
		return nil, "", err
	}
	if r.Contains, err = contained(ctx, q, site); err != nil {
		return nil, "", fmt.Errorf("what it contains: %w", err)
	}
	return r, identity, nil
}

// chunks lists the hashes of the site's chunks in the order of the passes.
func chunks(ctx context.Context, q querier, site string) ([]string, error) {
	var out []string
	rows, err := q.QueryContext(ctx, `SELECT hash FROM chunk WHERE site = $1 ORDER BY first`, site)
	err = each(rows, err, func() error {
		var h string
		err := rows.Scan(&h)
		out = append(out, h)
		return err
	})
	return out, err
}

// publication finds a chunk or bundle by its hash; a nil payload when there is
// none.
func (s *store) publication(ctx context.Context, site, hash string) (topic string, payload []byte, err error) {
	err = s.r.QueryRowContext(ctx, `SELECT data FROM chunk WHERE site = $1 AND hash = $2`, site, hash).Scan(&payload)
	if err == nil || !errors.Is(err, sql.ErrNoRows) {
		return wire.RegistryTopic(site, hash), payload, err
	}
	err = s.r.QueryRowContext(ctx, `SELECT data FROM registry_delta WHERE site = $1 AND hash = $2`, site, hash).Scan(&payload)
	if err == nil || !errors.Is(err, sql.ErrNoRows) {
		return wire.RegistryTopic(site, hash), payload, err
	}
	err = s.r.QueryRowContext(ctx, `SELECT payload FROM policy WHERE site = $1 AND hash = $2`, site, hash).Scan(&payload)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil, nil
	}
	return wire.PolicyTopic(site, hash), payload, err
}

// publications gives, for each site, the versions of what is published.
func (s *store) publications(ctx context.Context) (map[string][3]int64, error) {
	out := map[string][3]int64{}
	rows, err := s.r.QueryContext(ctx, `SELECT site, version, 0 FROM registry UNION ALL SELECT site, MAX(at), 1 FROM policy GROUP BY site
		UNION ALL SELECT DISTINCT site, (SELECT COALESCE(MAX(number), 0) FROM trust), 2 FROM gate`)
	err = each(rows, err, func() error {
		var site string
		var version int64
		var which int
		if err := rows.Scan(&site, &version, &which); err != nil {
			return err
		}
		v := out[site]
		v[which] = version
		out[site] = v
		return nil
	})
	return out, err
}

func (s *store) gateNames(ctx context.Context, site string) ([]gateName, error) {
	var out []gateName
	rows, err := s.r.QueryContext(ctx, `SELECT site, name FROM gate WHERE site = $1 OR $1 = '' ORDER BY site, name`, site)
	err = each(rows, err, func() error {
		var n gateName
		err := rows.Scan(&n.site, &n.gate)
		out = append(out, n)
		return err
	})
	return out, err
}
