package journal

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"gatehouse/edge"
	"gatehouse/edge/sqlite"
)

// Salvage begins again when the journal's file is damaged. The file is set aside
// under the name aside, as it is; a new one begins with an epoch that follows the
// damaged one. Counters and what peers changed are taken over where they can be
// read, so that quotas go on to hold; positions are unknown. The gate can work at
// once; Recover then carries the entries over that the server has not receipted.
type Salvage struct {
	Aside  string // the damaged file's new name
	Epoch  edge.Epoch
	Acked  uint64 // as far as the server had it; 0 also when that cannot be read
	Cells  int
	Reason string
}

// SetAside moves a damaged journal away and opens a new one in its place.
func SetAside(ctx context.Context, path, aside string, why error, o Options) (*Journal, *Salvage, error) {
	for _, end := range []string{"-wal", "-shm", ""} { // the file itself last: until then it is found damaged again
		if err := os.Rename(path+end, aside+end); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("cannot set the damaged journal aside: %w", err)
		}
	}
	s := &Salvage{Aside: aside, Reason: why.Error()}
	old, err := sqlite.ReadDamaged(aside)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot set the damaged journal aside: %w", err)
	}
	defer old.Close()
	var epoch, acked string
	// What cannot be read is not known: that is no reason to stop.
	if old.QueryRowContext(ctx, "SELECT CAST(v AS TEXT) FROM meta WHERE k='epoch'").Scan(&epoch) == nil {
		s.Epoch, _ = edge.ParseEpoch(epoch)
	}
	if old.QueryRowContext(ctx, "SELECT CAST(v AS TEXT) FROM meta WHERE k='acked'").Scan(&acked) == nil {
		s.Acked, _ = strconv.ParseUint(acked, 10, 64)
	}
	o.follows = &lineage{Parent: s.Epoch, Forked: s.Acked, Size: s.Acked, Why: "the journal's file was damaged: " + s.Reason}
	j, err := Open(ctx, path, o)
	if err != nil {
		return nil, nil, err
	}
	if s.Cells, err = j.takeCells(ctx, old); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("cannot take over the counters: %w", err), j.Close())
	}
	return j, s, nil
}

// takeCells copies the counters, with the marks of what peers changed: all that can
// be read of both, or of neither.
func (j *Journal) takeCells(ctx context.Context, old *sql.DB) (n int, err error) {
	type peer struct {
		gate, epoch string
		seq         int64
	}
	var peers []peer
	cells := map[edge.Cell]*oldCell{}
	rows, err := old.QueryContext(ctx, "SELECT gate, epoch, seq FROM peer")
	if err != nil {
		return 0, nil
	}
	for rows.Next() {
		var p peer
		if rows.Scan(&p.gate, &p.epoch, &p.seq) == nil {
			peers = append(peers, p)
		}
	}
	if errors.Join(rows.Err(), rows.Close()) != nil {
		return 0, nil
	}
	// One that an older version has left lacks nothing, and has no seq.
	var seqs int
	seq := "-1"
	if old.QueryRowContext(ctx, "SELECT count(*) FROM pragma_table_info('cell') WHERE name='seq'").Scan(&seqs) == nil && seqs > 0 {
		seq = "seq"
	}
	if rows, err = old.QueryContext(ctx, "SELECT subject, name, bucket, local, peers, at, peers_at, version, "+seq+" FROM cell"); err != nil {
		return 0, nil
	}
	for rows.Next() {
		var c edge.Cell
		var x oldCell
		if rows.Scan(&c.Subject, &c.Name, &c.Bucket, &x.local, &x.peers, &x.at, &x.peersAt, &x.version, &x.seq) == nil {
			cells[c] = &x
		}
	}
	if errors.Join(rows.Err(), rows.Close()) != nil && len(cells) == 0 {
		return 0, nil
	}
	if seqs > 0 {
		replayOld(ctx, old, cells)
	}
	if err := j.storeCells(ctx); err != nil {
		return 0, err
	}
	j.write.Lock()
	defer j.write.Unlock()
	return len(cells), j.tx(ctx, func() error {
		for _, p := range peers {
			if _, err := j.conn.ExecContext(ctx, "INSERT OR REPLACE INTO peer(gate, epoch, seq) VALUES(?, ?, ?)", p.gate, p.epoch, p.seq); err != nil {
				return err
			}
		}
		for c, x := range cells {
			// The reset of the new epoch stays as it is.
			if _, err := j.conn.ExecContext(ctx, "INSERT OR IGNORE INTO cell(subject, name, bucket, local, peers, at, peers_at, version) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
				c.Subject, c.Name, c.Bucket, x.local, x.peers, x.at, x.peersAt, x.version); err != nil {
				return err
			}
		}
		return nil
	})
}

// oldCell is a row of a damaged journal's cells.
type oldCell struct{ local, peers, at, peersAt, version, seq int64 }

// replayOld adds to a damaged journal's cells what entries have changed that the
// table lacks, as far as they can be read: see Journal.replay.
func replayOld(ctx context.Context, old *sql.DB, cells map[edge.Cell]*oldCell) {
	var from, base int64
	if old.QueryRowContext(ctx, "SELECT v, coalesce((SELECT v FROM meta WHERE k='base'), 0) FROM meta WHERE k='cells'").Scan(&from, &base) != nil {
		return
	}
	for {
		var seq uint64
		var kept []byte
		if old.QueryRowContext(ctx, "SELECT seq, line FROM entry WHERE seq >= ? ORDER BY seq LIMIT 1", from).Scan(&seq, &kept) != nil {
			return
		}
		from = int64(seq) + 1
		line, err := unpack(kept)
		if err != nil {
			continue
		}
		e, err := edge.DecodeEntry(line)
		if err != nil {
			continue
		}
		for _, d := range e.Deltas {
			x := cells[d.Cell]
			if x == nil {
				x = &oldCell{seq: -1}
				cells[d.Cell] = x
			}
			switch {
			case int64(seq)+base <= x.seq:
				continue
			case d.Op == edge.OpSet:
				x.local = d.Value
			default:
				x.local += d.Value
			}
			x.at = e.Stamp.Time
			x.version++
		}
	}
}

// Recovered says what became of the damaged journal's entries.
type Recovered struct {
	Carried uint64
	Lost    uint64 // sequences within the damaged file that could not be read
}

// farthest is how far beyond the last readable entry others are looked for.
const farthest = 1 << 20

// Recover carries what can be read of the damaged journal's unreceipted entries
// into this one, verbatim, in small transactions beside the gate's work. One that
// was interrupted begins again where it was, known by the entries carried.
func (j *Journal) Recover(ctx context.Context, s *Salvage) (Recovered, error) {
	var r Recovered
	old, err := sqlite.ReadDamaged(s.Aside)
	if err != nil {
		return r, fmt.Errorf("cannot read the damaged journal: %w", err)
	}
	defer old.Close()
	done, err := j.carried(ctx)
	if err != nil {
		return r, err
	}
	var batch [][]byte
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := j.append(ctx, batch, nil)
		r.Carried += uint64(len(batch))
		batch = nil
		return err
	}
	for seq, jump, gap := s.Acked, uint64(1), uint64(0); jump < farthest; {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		var line []byte
		var at uint64
		err := old.QueryRowContext(ctx, "SELECT seq, line FROM entry WHERE seq >= ? ORDER BY seq LIMIT 1", int64(seq)).Scan(&at, &line)
		if err == nil {
			line, err = unpack(line)
		}
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return r, flush()
		case ctx.Err() != nil:
			return r, ctx.Err()
		case err != nil || !json.Valid(line):
			// A page that cannot be read: farther and farther beyond it.
			seq, gap = seq+jump, gap+jump
			jump *= 2
			continue
		}
		r.Lost += gap + at - seq
		seq, jump, gap = at+1, 1, 0
		if done[sha256.Sum256(line)] {
			continue
		}
		e := &edge.Entry{Kind: edge.KindCarried, Of: -1, Actor: "system", Stamp: j.o.Clock.Now(), Data: fmt.Appendf(nil, `{"seq":%d,"entry":%s}`, at, line)}
		text, err := e.AppendJSON(nil)
		if err != nil {
			r.Lost++
			continue
		}
		if batch = append(batch, pack(text)); len(batch) == carryAtOnce {
			if err := flush(); err != nil {
				return r, err
			}
		}
	}
	return r, flush()
}

// carried are the lines that an earlier Recover has carried over.
func (j *Journal) carried(ctx context.Context) (map[[32]byte]bool, error) {
	out := map[[32]byte]bool{}
	_, err := j.each(ctx, 0, func(_ edge.Stored, e *edge.Entry) {
		var d struct {
			Entry json.RawMessage `json:"entry"`
		}
		if e.Kind == edge.KindCarried && json.Unmarshal(e.Data, &d) == nil {
			out[sha256.Sum256(d.Entry)] = true
		}
	})
	return out, err
}

// append commits lines that are packed already.
func (j *Journal) append(ctx context.Context, lines [][]byte, meta map[string]any) error {
	j.write.Lock()
	defer j.write.Unlock()
	r := &request{lines: lines}
	if err := j.commit(ctx, []*request{r}, meta); err != nil {
		return err
	}
	return r.err
}
