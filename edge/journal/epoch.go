package journal

import (
	"context"
	"database/sql"
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
	bare   bool // its tables are gone, to make room
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
	rows, err := q.QueryContext(ctx, "SELECT epoch, forked, size, bare FROM former ORDER BY n")
	if err != nil {
		return nil, fmt.Errorf("cannot read the former epochs: %w", err)
	}
	defer rows.Close()
	var out []former
	for rows.Next() {
		var f former
		var epoch string
		if err := rows.Scan(&epoch, &f.Forked, &f.Size, &f.bare); err != nil {
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
// copied. The first forked entries stand, at the server; those after them are
// carried over verbatim, each within an entry of the new epoch, or sealed as they
// are. All of it is one transaction: after a power cut it has happened or it has
// not. The old epoch's tree stays here, so that its heads can still be proved, and
// so does its content until its retention ends. Positions are unknown afterwards:
// what happened beyond the fork is not known here.
func (j *Journal) NewEpoch(ctx context.Context, forked uint64, why string) error {
	j.purging.Lock()
	defer j.purging.Unlock()
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
	if forked > j.Size() {
		return fmt.Errorf("cannot begin an epoch after %d entries: the journal has %d", forked, j.Size())
	}
	epoch, err := j.randomEpoch()
	if err != nil {
		return err
	}
	now := j.o.Clock.Now()
	old, size := j.Epoch(), j.Size()
	block, blockAt, hasBlock := j.block, j.blockAt, j.hasBlock
	next, carried, lost := uint64(0), uint64(0), uint64(0)
	add := func(kind edge.Kind, data []byte, deltas ...edge.Delta) error {
		e := &edge.Entry{Kind: kind, Of: -1, Actor: "system", Stamp: now, Data: data, Deltas: deltas}
		line, err := e.AppendJSON(nil)
		if err != nil {
			return err
		}
		next++
		return j.insert(ctx, next-1, pack(line))
	}
	reset := edge.Delta{Cell: edge.Cell{Name: edge.CellReset, Subject: edge.SubjectReset}, Op: edge.OpSet, Value: now.Time}
	cellsStored := func() {}
	err = j.tx(ctx, func() error {
		if cellsStored, err = j.storeAllCells(ctx); err != nil {
			return err
		}
		if lost, err = j.missing(ctx, forked, size); err != nil {
			return err
		}
		for name, columns := range epochTables {
			for _, q := range []string{"ALTER TABLE " + name + " RENAME TO " + name + suffixOf(old), "CREATE TABLE " + name + columns} {
				if _, err := j.conn.ExecContext(ctx, q); err != nil {
					return err
				}
			}
		}
		for _, q := range []string{"DELETE FROM meta WHERE k IN ('receipt', 'start')", "UPDATE erasure SET tried=0", "UPDATE cell SET seq=-1 WHERE seq>=0"} {
			if _, err := j.conn.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		if _, err := j.conn.ExecContext(ctx, "INSERT INTO former(epoch, forked, size) VALUES(?, ?, ?)", old.String(), int64(forked), int64(size)); err != nil {
			return err
		}
		data, err := json.Marshal(lineage{Epoch: epoch, Parent: old, Forked: forked, Size: size, Lost: lost, Why: why})
		if err != nil {
			return err
		}
		if err := add(edge.KindEpoch, data, reset); err != nil {
			return err
		}
		if _, err := j.stmts.store.ExecContext(ctx, reset.Cell.Subject, reset.Cell.Name, reset.Cell.Bucket, reset.Value, now.Time, 1, 0); err != nil {
			return err
		}
		if err := j.carry(ctx, suffixOf(old), forked, size, func(data []byte) error { carried++; return add(edge.KindCarried, data) }); err != nil {
			return err
		}
		for k, v := range map[string]any{"epoch": epoch.String(), "acked": 0, "cells": int64(next)} {
			if _, err := j.stmts.meta.ExecContext(ctx, k, v); err != nil {
				return err
			}
		}
		_, err = j.conn.ExecContext(ctx, "UPDATE erasure SET upto=?", int64(next))
		return err
	})
	if err != nil {
		j.block, j.blockAt, j.hasBlock = block, blockAt, hasBlock
		return fmt.Errorf("cannot begin an epoch: %w", err)
	}
	j.log.Warn("a new epoch", "epoch", epoch, "parent", old, "forked", forked, "carried", carried, "lost", lost, "why", why)
	cellsStored()
	j.tabled = next
	j.epoch.Store(uint64(epoch))
	j.acked.Store(0)
	j.sealed, j.covered, j.tail = 0, 0, nil
	j.settled.Store(0)
	j.stale.Store(true)
	j.grow(next)
	return nil
}

// missing counts the entries from forked on whose content was destroyed: a server
// that has lost what it had receipted cannot get them from here.
func (j *Journal) missing(ctx context.Context, forked, size uint64) (uint64, error) {
	var here, sealed int64
	err := j.conn.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM entry WHERE seq>=?1), (SELECT coalesce(sum(first+count-max(first, ?1)), 0) FROM sealed WHERE first+count>?1)", int64(forked)).Scan(&here, &sealed)
	if err != nil {
		return 0, err
	}
	return size - forked - uint64(here+sealed), nil
}

// carry gives the data of the entries that carry over what follows the fork. What
// is carried is here once: its content in the old epoch goes, and the blinds stay
// with the block keys.
func (j *Journal) carry(ctx context.Context, suffix string, forked, size uint64, add func([]byte) error) error {
	for seq := forked; seq < size; seq++ {
		var line []byte
		err := j.conn.QueryRowContext(ctx, "SELECT line FROM entry"+suffix+" WHERE seq=?", int64(seq)).Scan(&line)
		if err == nil {
			if line, err = unpack(line); err != nil || !json.Valid(line) {
				j.log.Error("an entry is lost to the new epoch: it cannot be read", "seq", seq, "hint", "gatehouse journal verify says where the journal is damaged")
				continue
			}
			// By hand: an encoder would write the line's bytes in its own way.
			if err := add(fmt.Appendf(nil, `{"seq":%d,"entry":%s}`, seq, line)); err != nil {
				return err
			}
			continue
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("entry %d: %w", seq, err)
		}
		var first, count int64
		var data []byte
		err = j.conn.QueryRowContext(ctx, "SELECT first, count, data FROM sealed"+suffix+" WHERE first<=? ORDER BY first DESC LIMIT 1", int64(seq)).Scan(&first, &count, &data)
		if errors.Is(err, sql.ErrNoRows) || err == nil && int64(seq) >= first+count {
			continue // counted as lost
		}
		if err != nil {
			return fmt.Errorf("sealed entry %d: %w", seq, err)
		}
		text, err := json.Marshal(carriedSealed{Seq: uint64(first), Count: uint64(count), Sealed: data})
		if err != nil {
			return err
		}
		if err := add(text); err != nil {
			return err
		}
		seq = uint64(first+count) - 1
	}
	_, err := j.conn.ExecContext(ctx, "DELETE FROM entry"+suffix+" WHERE seq>=?", int64(forked))
	if err == nil {
		_, err = j.conn.ExecContext(ctx, "DROP TABLE sealed"+suffix)
	}
	return err
}

// carriedSealed is the data of an entry that carries a sealed run of a former
// epoch: the age file, as it was.
type carriedSealed struct {
	Seq    uint64 `json:"seq"` // of the first
	Count  uint64 `json:"count"`
	Sealed []byte `json:"sealed"`
}
