package app

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/device"
)

// reads gives one card after the other, then errors.
type reads struct {
	device.Scanner
	n   int
	err error
}

func (r *reads) Read(context.Context) (device.CardRead, error) {
	r.n++
	return device.CardRead{Format: device.FormatEM4100, Number: uint64(r.n), At: time.Now()}, r.err
}

type changes struct{ device.Contact }

func (changes) Watch(context.Context) (device.Change, error) {
	return device.Change{Active: true, Count: 3, At: time.Now()}, nil
}

// What devices give is kept while somebody looks, in bounds, and forgotten after.
func TestRawReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w rawWatch
		inner := &reads{}
		s := rawScanner{inner, w.device("in scanner")}
		beam := rawContact{changes{}, w.device("main beam")}
		sample := w.device("in thermometer").sampled
		all := func() {
			t.Helper()
			if r, err := s.Read(t.Context()); err != inner.err || err == nil && r.Number != uint64(inner.n) {
				t.Fatalf("the lane is given %+v, %v", r, err)
			}
			if c, err := beam.Watch(t.Context()); err != nil || !c.Active {
				t.Fatalf("the passage is given %+v, %v", c, err)
			}
			sample(device.Sample{Object: 34.2, Ambient: 21, HasAmbient: true, Image: make([]device.Celsius, 64), At: time.Now()}, nil)
		}
		all() // nobody looks
		if got := w.look(); len(got) != 3 || got[0].Serves != "in scanner" || got[0].Count+got[1].Count+got[2].Count != 0 {
			t.Fatalf("kept before anybody looked: %+v", got)
		}
		for range 3 * rawKept {
			all()
		}
		got := w.look()
		for _, d := range got {
			if d.Count != 3*rawKept || len(d.Last) != rawKept {
				t.Errorf("%s: %d kept of %d", d.Serves, len(d.Last), d.Count)
			}
		}
		if c := got[0].Last[rawKept-1].Card; c.Number != uint64(inner.n) {
			t.Errorf("the last card is %+v", c)
		}
		if x := got[2].Last[0].Sample; x.Object != 34.2 || x.Image != nil {
			t.Errorf("%+v", x)
		}
		inner.err = errors.New("garbled")
		all()
		if got := w.look()[0].Last[rawKept-1]; got.Err != "garbled" {
			t.Errorf("%+v", got)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_, _ = s.Read(gone) // the lane stops: no fault of the reader's
		if got := w.look()[0]; got.Count != 3*rawKept+1 {
			t.Errorf("%+v", got)
		}
		// Looking again and again holds it; a minute without forgets it.
		for range 4 {
			time.Sleep(rawFor - time.Second)
			if w.look()[0].Count == 0 {
				t.Fatal("forgotten while somebody looks")
			}
		}
		time.Sleep(rawFor + time.Second)
		synctest.Wait()
		if w.on.Load() {
			t.Error("it goes on")
		}
		all()
		if got := w.look()[0]; got.Count != 0 || len(got.Last) != 0 {
			t.Errorf("kept: %+v", got)
		}
		w.stop()
		if w.on.Load() || w.look()[0].Count != 0 {
			t.Error("it goes on after the end")
		}
		w.stop()
	})
}

// Nobody looking costs a device nothing that counts.
func TestRawReadingsAreFreeWhenNobodyLooks(t *testing.T) {
	var w rawWatch
	s, sample := rawScanner{&reads{}, w.device("in scanner")}, w.device("in thermometer").sampled
	beam := rawContact{changes{}, w.device("main beam")}
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		_, _ = s.Read(ctx)
		_, _ = beam.Watch(ctx)
		sample(device.Sample{}, nil)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRawReadings(b *testing.B) {
	for name, look := range map[string]bool{"nobody looks": false, "somebody looks": true} {
		b.Run(name, func(b *testing.B) {
			var w rawWatch
			sample := w.device("in thermometer").sampled
			if look {
				w.look()
				defer w.stop()
			}
			b.ReportAllocs()
			for b.Loop() {
				sample(device.Sample{Object: 34.2, Ambient: 21, HasAmbient: true}, nil)
			}
		})
	}
}
