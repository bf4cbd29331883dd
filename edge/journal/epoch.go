package journal

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"gatehouse/edge"
)

func (j *Journal) randomEpoch() (edge.Epoch, error) {
	var b [8]byte
	if _, err := io.ReadFull(j.o.Rand, b[:]); err != nil {
		return 0, fmt.Errorf("cannot choose an epoch: %w", err)
	}
	return edge.Epoch(binary.BigEndian.Uint64(b[:])), nil
}

// lineage is the data of an epoch's first entry.
type lineage struct {
	Epoch  edge.Epoch `json:"epoch"`
	Parent edge.Epoch `json:"parent"`
	Forked uint64     `json:"forked"`         // how many entries of the parent stand
	Size   uint64     `json:"size"`           // how many it had here
	Lost   uint64     `json:"lost,omitempty"` // of those after Forked, how many are not carried: their content is not here any more
	Why    string     `json:"why"`
}

// former is an epoch that another one has followed on this medium.
type former struct {
	Epoch  edge.Epoch
	Forked uint64 // how many of its entries stand; those after it were carried over
	Size   uint64
	next   uint64 // those from here on are still to be carried over
	bare   bool   // its tables are gone, to make room

	carrying bool // next is not the end
}

func suffixOf(e edge.Epoch) string { return "_" + e.String() }

// epochTables are those that an epoch has for itself; sealed is only of the present one.
var epochTables = map[string]string{
	"entry":  "(seq INTEGER PRIMARY KEY, line BLOB, blind BLOB)",
	"block":  "(first INTEGER PRIMARY KEY, key BLOB)",
	"hash":   "(i INTEGER PRIMARY KEY, h BLOB NOT NULL)",
	"gone":   "(first INTEGER PRIMARY KEY, end INTEGER NOT NULL)",
	"sealed": "(first INTEGER PRIMARY KEY, count INTEGER NOT NULL, data BLOB NOT NULL)",
}

// formersOf lists the former epochs, the oldest first.
func formersOf(ctx context.Context, q querier) ([]former, error) {
	rows, err := q.QueryContext(ctx, "SELECT epoch, forked, size, coalesce(next, size), next IS NOT NULL, bare FROM former ORDER BY n")
	if err != nil {
		return nil, fmt.Errorf("cannot read the former epochs: %w", err)
	}
	defer rows.Close()
	var out []former
	for rows.Next() {
		var f former
		var epoch string
		if err := rows.Scan(&epoch, &f.Forked, &f.Size, &f.next, &f.carrying, &f.bare); err != nil {
			return nil, fmt.Errorf("cannot read the former epochs: %w", err)
		}
		if f.Epoch, err = edge.ParseEpoch(epoch); err != nil {
			return nil, fmt.Errorf("damaged: former epoch: %w", err)
		}
		out = append(out, f)
	}
	return out, rows.Err()
}

// NewEpoch begins a new life of the journal, because the server has another
// continuation of the present one: the medium was restored from an old image, or
// copied. The first forked entries stand, at the server; Carry brings those after
// them over. Beginning is one transaction: after a power cut it has happened or it
// has not. The old epoch's tree stays here, so that its heads can still be proved,
// and so does its content until its retention ends. Positions are unknown
// afterwards: what happened beyond the fork is not known here.
func (j *Journal) NewEpoch(ctx context.Context, forked uint64, why string) error {
	if forked > j.Size() {
		return fmt.Errorf("cannot begin an epoch after %d entries: the journal has %d", forked, j.Size())
	}
	j.purging.Lock()
	defer j.purging.Unlock()
	// Each epoch carries from the one before it, so that has to be whole; and what can
	// be done before the lanes are kept waiting is.
	if err := errors.Join(j.carryAll(ctx), j.storeCells(ctx), j.seal(ctx, j.Size())); err != nil {
		return fmt.Errorf("cannot begin an epoch: %w", err)
	}
	lost, err := j.missing(ctx, forked)
	if err != nil {
		return fmt.Errorf("cannot begin an epoch: %w", err)
	}
	j.life.Lock()
	defer j.life.Unlock()
	// The old tree must be whole, and appends go on until write is held.
	for {
		if err := j.seal(ctx, j.Size()); err != nil {
			return fmt.Errorf("cannot begin an epoch: %w", err)
		}
		j.sealing.Lock()
		j.write.Lock()
		if j.sealed == j.Size() {
			break
		}
		j.write.Unlock()
		j.sealing.Unlock()
	}
	defer j.sealing.Unlock()
	defer j.write.Unlock()
	epoch, err := j.randomEpoch()
	if err != nil {
		return err
	}
	now := j.o.Clock.Now()
	old, size := j.Epoch(), j.Size()
	block, blockAt, hasBlock := j.block, j.blockAt, j.hasBlock
	reset := edge.Delta{Cell: edge.Cell{Name: edge.CellReset, Subject: edge.SubjectReset}, Op: edge.OpSet, Value: now.Time}
	data, err := json.Marshal(lineage{Epoch: epoch, Parent: old, Forked: forked, Size: size, Lost: lost, Why: why})
	if err != nil {
		return err
	}
	line, err := (&edge.Entry{Kind: edge.KindEpoch, Of: -1, Actor: "system", Stamp: now, Data: data, Deltas: []edge.Delta{reset}}).AppendJSON(nil)
	if err != nil {
		return err
	}
	cellsStored := func() {}
	err = j.tx(ctx, func(ctx context.Context) error {
		if cellsStored, err = j.storeAllCells(ctx); err != nil {
			return err
		}
		for name, columns := range epochTables {
			for _, q := range []string{"ALTER TABLE " + name + " RENAME TO " + name + suffixOf(old), "CREATE TABLE " + name + columns} {
				if _, err := j.conn.ExecContext(ctx, q); err != nil {
					return err
				}
			}
		}
		for _, q := range []string{"DELETE FROM meta WHERE k IN ('receipt', 'start')", "UPDATE erasure SET tried=0, upto=1"} {
			if _, err := j.conn.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		if _, err := j.conn.ExecContext(ctx, "INSERT INTO former(epoch, forked, size, next) VALUES(?, ?, ?, ?)", old.String(), int64(forked), int64(size), int64(forked)); err != nil {
			return err
		}
		if err := j.insert(ctx, 0, pack(line)); err != nil {
			return err
		}
		if _, err := j.stmts.store.ExecContext(ctx, reset.Cell.Subject, reset.Cell.Name, reset.Cell.Bucket, reset.Value, now.Time, 1, int64(j.base+size)); err != nil {
			return err
		}
		for k, v := range map[string]any{"epoch": epoch.String(), "acked": 0, "cells": 1, "base": int64(j.base + size)} {
			if _, err := j.stmts.meta.ExecContext(ctx, k, v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		j.block, j.blockAt, j.hasBlock = block, blockAt, hasBlock
		return fmt.Errorf("cannot begin an epoch: %w", err)
	}
	j.log.Warn("a new epoch", "epoch", epoch, "parent", old, "forked", forked, "to_carry", size-forked-lost, "lost", lost, "why", why)
	cellsStored()
	j.base += size
	j.tabled = 1
	j.epoch.Store(uint64(epoch))
	j.acked.Store(0)
	j.sealed, j.covered, j.tail = 0, 0, nil
	j.settled.Store(0)
	j.stale.Store(true)
	j.grow(1)
	select {
	case j.forked <- struct{}{}:
	default:
	}
	return nil
}

// missing counts the entries from forked on whose content was destroyed: a server
// that has lost what it had receipted cannot get them from here. The caller holds
// purging.
func (j *Journal) missing(ctx context.Context, forked uint64) (uint64, error) {
	var size, here, sealed int64
	err := j.db.R.QueryRowContext(ctx, `SELECT (SELECT max(seq)+1 FROM entry), (SELECT count(*) FROM entry WHERE seq>=?1),
		(SELECT coalesce(sum(first+count-max(first, ?1)), 0) FROM sealed WHERE first+count>?1)`, int64(forked)).Scan(&size, &here, &sealed)
	if err != nil {
		return 0, err
	}
	return uint64(max(0, size-int64(forked)-here-sealed)), nil
}
