package community

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// An entry of a refused fork, or of a damaged journal, comes within an entry of the
// epoch that carries it over. What can be asked of it, what it changed and how long
// it is kept is that of the entry within: its row is as if it had come by itself.

// maxUnwrap is how often an entry may have been carried over to be looked into.
const maxUnwrap = 16

// unwrapper finds the columns of what the entries of one batch carry.
type unwrapper struct {
	open func(r io.Reader, limit int64) ([]byte, error)
	now  int64
	// at says where an entry of a former epoch is in this one, by how often it was
	// carried over and the sequence that it had.
	at  map[former]uint64
	err error // the first sealed run that could not be opened
}

type former struct {
	level int
	seq   uint64
}

// unwrap puts the columns of what an entry carries in the place of its own.
func (u *unwrapper) unwrap(seq uint64, c *columns) {
	if string(c.kind) != string(edge.KindCarried) {
		return
	}
	x := *c
	for level := 1; level <= maxUnwrap; level++ {
		was, inner, sealed := carriedIn(x.data)
		switch {
		case sealed.Sealed != nil:
			u.run(seq, &x, sealed)
			*c = x
			return
		case inner == nil || scanColumns(inner, &x) != nil || len(x.kind) == 0:
			return
		}
		if u.at == nil {
			u.at = map[former]uint64{}
		}
		u.at[former{level, was}] = seq
		if string(x.kind) == string(edge.KindCarried) {
			continue
		}
		if x.of >= 0 {
			// What it refers to has another number here; what came in an earlier batch is
			// not known.
			if to, ok := u.at[former{level, uint64(x.of)}]; ok {
				x.of = int64(to)
			} else {
				x.of = -1
			}
		}
		*c = x
		return
	}
}

// carriedIn reads the data of an entry that carries another one, or a sealed run.
func carriedIn(data []byte) (seq uint64, entry []byte, run edge.Carried) {
	s := scanner{b: data}
	var n, count int64
	var sealed []byte
	err := s.object(func(key []byte) error {
		var err error
		switch string(key) {
		case "seq":
			n, err = s.integer()
		case "entry":
			entry, err = s.value()
		case "count":
			count, err = s.integer()
		case "sealed":
			sealed, err = s.text()
		default:
			err = s.skip()
		}
		return err
	})
	if err != nil || n < 0 || count < 0 {
		return 0, nil, run
	}
	if entry == nil && len(sealed) > 0 {
		if run.Sealed, err = base64.StdEncoding.DecodeString(string(sealed)); err != nil {
			return 0, nil, edge.Carried{}
		}
		run.Seq, run.Count = uint64(n), uint64(count)
	}
	return uint64(n), entry, run
}

// run takes the time of the newest entry of a sealed run, and what its entries
// changed. The row stays that of the run: all that is in it was past its retention
// at the gate, and goes as a whole when the newest is past it here.
func (u *unwrapper) run(seq uint64, c *columns, run edge.Carried) {
	entries, err := openRun(u.open, run)
	if err != nil {
		if u.err == nil {
			u.err = err
		}
		return
	}
	var newest int64
	var deltas []byte
	for _, e := range entries {
		var x columns
		if scanColumns(e.Line, &x) != nil {
			continue
		}
		in := unwrapper{open: u.open, now: u.now}
		in.unwrap(seq, &x)
		x.clean()
		newest = max(newest, plausible(x.time, u.now))
		if d := bytes.Trim(x.deltas, " \t\r\n"); len(d) > 2 && d[0] == '[' {
			if len(deltas) > 0 {
				deltas = append(deltas, ',')
			}
			deltas = append(deltas, d[1:len(d)-1]...)
		}
		c.changes = append(c.changes, x.changes...)
		if string(x.kind) == string(edge.KindRegistry) && x.data != nil {
			c.changes = append(c.changes, x.data)
		}
	}
	if newest > 0 {
		c.time = newest
	}
	if len(deltas) > 0 {
		c.deltas = append(append([]byte{'['}, deltas...), ']')
	}
}

// openRun opens a sealed run that was carried over.
func openRun(open func(r io.Reader, limit int64) ([]byte, error), run edge.Carried) ([]edge.Stored, error) {
	if open == nil {
		return nil, errors.New("entries are sealed to the community, and this server has not its key")
	}
	if len(run.Sealed) > wire.MaxSealed {
		return nil, errors.New("sealed run is too long")
	}
	plain, err := open(bytes.NewReader(run.Sealed), wire.MaxSealed)
	if err != nil {
		return nil, err
	}
	return edge.SealedEntries(run.Seq, run.Count, plain)
}

func (s *Server) unseal(run edge.Carried) ([]edge.Stored, error) { return openRun(s.cfg.Open, run) }
