package journal

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"

	"gatehouse/edge"
)

// localCell is what this gate's entries have made of a cell, while the table lacks
// it. The entries are on the medium, so nothing is lost with it: see replay.
type localCell struct {
	local, at int64
	bumps     uint64 // changes that the version in the table lacks
	seq       int64  // the last entry that changed it, counted on from Journal.base
}

// changed is the cell as changes since the table have left it; the ones of the commit
// under way first. The caller holds write.
func (j *Journal) changed(staged map[edge.Cell]localCell, c edge.Cell) (localCell, bool) {
	if x, ok := staged[c]; ok {
		return x, true
	}
	x, ok := j.cells[c]
	return x, ok
}

// stage applies an entry's delta. The caller holds write.
func (j *Journal) stage(ctx context.Context, staged map[edge.Cell]localCell, d edge.Delta, seq, at int64) error {
	seq += int64(j.base)
	x, ok := j.changed(staged, d.Cell)
	if !ok {
		var version uint64
		err := j.stmts.cell.QueryRowContext(ctx, d.Cell.Subject, d.Cell.Name, d.Cell.Bucket).Scan(&x.local, &x.seq, &version)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			x.seq = -1
		case err != nil:
			return fmt.Errorf("cannot read the cell %s of %s: %w", d.Cell.Name, d.Cell.Subject, err)
		case seq <= x.seq:
			return nil // the table has it: only when entries are replayed
		}
	}
	if d.Op == edge.OpSet {
		x.local = d.Value
	} else {
		x.local += d.Value
	}
	x.at, x.seq = at, seq
	x.bumps++
	staged[d.Cell] = x
	return nil
}

// keep takes over what a commit has staged.
func (j *Journal) keep(staged map[edge.Cell]localCell) {
	j.cellsMu.Lock()
	defer j.cellsMu.Unlock()
	maps.Copy(j.cells, staged)
}

// version is a cell's version with every change. The caller holds write.
func (j *Journal) version(ctx context.Context, staged map[edge.Cell]localCell, c edge.Cell) (uint64, error) {
	var local, seq int64
	var v uint64
	err := j.stmts.cell.QueryRowContext(ctx, c.Subject, c.Name, c.Bucket).Scan(&local, &seq, &v)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	x, _ := j.changed(staged, c)
	return v + x.bumps, nil
}

// Cells reads cells, in the order asked. A cell that was never set is zero.
//
// The table is read before what it lacks: what moves to the table in between gives a
// version older than the cell's, and never one that it will have again.
func (j *Journal) Cells(ctx context.Context, cells []edge.Cell) ([]edge.CellValue, error) {
	out := make([]edge.CellValue, len(cells))
	for i, c := range cells {
		v := &out[i]
		err := j.cell.QueryRowContext(ctx, c.Subject, c.Name, c.Bucket).Scan(&v.Local, &v.Peers, &v.At, &v.PeersAt, &v.Version)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, fmt.Errorf("cannot read the cell %s of %s: %w", c.Name, c.Subject, err)
		}
		j.cellsMu.RLock()
		x, ok := j.cells[c]
		j.cellsMu.RUnlock()
		if ok {
			v.Local, v.At = x.local, x.at
			v.Version += x.bumps
		}
	}
	return out, nil
}

func byCell(a, b edge.Cell) int {
	return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Bucket, b.Bucket))
}

// lacking are the cells that the table lacks changes of, in its order. The caller
// holds write.
func (j *Journal) lacking() []edge.Cell { return slices.SortedFunc(maps.Keys(j.cells), byCell) }

// storeAtOnce is how many cells a transaction stores, whoever waits for the writer.
const storeAtOnce = 32

// storeCells brings the table up to the entries there are now, in steps, so that a
// lane never waits long for the writer.
func (j *Journal) storeCells(ctx context.Context) error {
	j.write.Lock()
	todo, size := j.lacking(), j.size.Load()
	j.write.Unlock()
	for first := true; first || len(todo) > 0; first = false {
		n, err := j.storeSomeCells(ctx, todo, size)
		if err != nil {
			return err
		}
		todo = todo[n:]
	}
	return nil
}

func (j *Journal) storeSomeCells(ctx context.Context, todo []edge.Cell, size uint64) (n int, err error) {
	j.write.Lock()
	defer j.write.Unlock()
	if err := j.tx(ctx, func(ctx context.Context) error {
		for n = 0; n < len(todo) && (n < storeAtOnce || !j.waiting()); n++ {
			if err := j.storeCell(ctx, todo[n]); err != nil {
				return err
			}
		}
		if n < len(todo) {
			return nil
		}
		_, err := j.stmts.meta.ExecContext(ctx, "cells", int64(size))
		return err
	}); err != nil {
		return 0, err
	}
	j.stored(todo[:n])
	if n == len(todo) {
		j.tabled = size
	}
	return n, nil
}

// storeCell is done within a transaction; stored is to follow it.
func (j *Journal) storeCell(ctx context.Context, c edge.Cell) error {
	x, ok := j.cells[c]
	if !ok {
		return nil // erased since
	}
	_, err := j.stmts.store.ExecContext(ctx, c.Subject, c.Name, c.Bucket, x.local, x.at, int64(x.bumps), x.seq)
	return err
}

// stored forgets what the table has now.
func (j *Journal) stored(cells []edge.Cell) {
	j.cellsMu.Lock()
	defer j.cellsMu.Unlock()
	for _, c := range cells {
		delete(j.cells, c)
	}
}

// storeAllCells is storeCells within the caller's transaction. done is for when that
// is committed.
func (j *Journal) storeAllCells(ctx context.Context) (done func(), err error) {
	todo, size := j.lacking(), j.size.Load()
	for _, c := range todo {
		if err := j.storeCell(ctx, c); err != nil {
			return nil, err
		}
	}
	if _, err := j.stmts.meta.ExecContext(ctx, "cells", int64(size)); err != nil {
		return nil, err
	}
	return func() { j.stored(todo); j.tabled = size }, nil
}

// storeCellsAtOnce is storeCells for a caller who holds write.
func (j *Journal) storeCellsAtOnce(ctx context.Context) error {
	done := func() {}
	if err := j.tx(ctx, func(ctx context.Context) (err error) {
		done, err = j.storeAllCells(ctx)
		return err
	}); err != nil {
		return err
	}
	done()
	return nil
}

// replay derives what the table lacks from the entries, after a start. An entry that
// cannot be read is Verify's to name.
func (j *Journal) replay(ctx context.Context) error {
	staged := map[edge.Cell]localCell{}
	const some = 100
	for from, size := j.tabled, j.size.Load(); from < size; from += some {
		entries, err := readEntries(ctx, j.conn, "", from, min(size, from+some))
		if err != nil {
			return err
		}
		for _, s := range entries {
			e, ok := j.decode(s)
			if !ok {
				continue // and a counter may be wrong
			}
			for _, d := range e.Deltas {
				if err := j.stage(ctx, staged, d, int64(s.Seq), e.Stamp.Time); err != nil {
					return err
				}
			}
		}
	}
	j.keep(staged)
	return nil
}
