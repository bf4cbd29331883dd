package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// EM4100 is a 125 kHz tag: 8 bits of version, 32 of number.
type EM4100 [5]byte

func (t EM4100) String() string { return fmt.Sprintf("%X", t[:]) }

// RFID emulates an RDM6300 or ID-12 on a serial line.
type RFID struct {
	line *Serial
	id12 bool

	mu     sync.Mutex
	faults Faults
	rng    *rand.Rand
}

// Faults of an emulated serial reader, each a probability from 0 to 1 for every
// frame.
type Faults struct {
	Noise    float64 // random bytes before the frame
	Half     float64 // the frame breaks off
	Checksum float64 // a digit is wrong, the checksum is not
	Silent   bool    // nothing is sent at all
}

// RDM6300Period is the time between the repetitions of a held tag.
const RDM6300Period = 65 * time.Millisecond

// NewRDM6300 emulates an RDM6300: it repeats a held tag.
func NewRDM6300(line *Serial, seed uint64) *RFID {
	return &RFID{line: line, rng: rand.New(rand.NewPCG(seed, 1))}
}

// NewID12 emulates an ID-12: it sends a tag once.
func NewID12(line *Serial, seed uint64) *RFID {
	return &RFID{line: line, id12: true, rng: rand.New(rand.NewPCG(seed, 2))}
}

// SetFaults changes what goes wrong from now on.
func (r *RFID) SetFaults(f Faults) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = f
}

// Hold puts a tag into the field for a time and takes it out again.
func (r *RFID) Hold(ctx context.Context, tag EM4100, d time.Duration) error {
	if err := r.send(tag); err != nil {
		return err
	}
	end := time.NewTimer(d)
	defer end.Stop()
	again := time.NewTicker(RDM6300Period)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return nil
		case <-again.C:
			if r.id12 {
				continue
			}
			if err := r.send(tag); err != nil {
				return err
			}
		}
	}
}

// Run holds each tag of the channel for as long as people do, 200 to 600 ms,
// until the channel is closed or the context is done. A line that is unplugged
// loses tags, no more.
func (r *RFID) Run(ctx context.Context, tags <-chan EM4100) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case t, ok := <-tags:
			if !ok {
				return nil
			}
			r.mu.Lock()
			d := 200*time.Millisecond + time.Duration(r.rng.IntN(400))*time.Millisecond
			r.mu.Unlock()
			if err := r.Hold(ctx, t, d); err != nil && ctx.Err() != nil {
				return err
			}
		}
	}
}

// send sends a frame once, with the faults that are set.
func (r *RFID) send(tag EM4100) error {
	r.mu.Lock()
	f := r.frame(tag)
	silent := r.faults.Silent
	roll := func(p float64) bool { return p > 0 && r.rng.Float64() < p }
	if roll(r.faults.Checksum) {
		// Another hex digit, whatever stood there.
		i := 1 + r.rng.IntN(10)
		f[i] = "123456789ABCDEF0"[hexValue(f[i])]
	}
	if roll(r.faults.Half) {
		f = f[:1+r.rng.IntN(len(f)-1)]
	}
	if roll(r.faults.Noise) {
		noise := make([]byte, 1+r.rng.IntN(20))
		for i := range noise {
			noise[i] = byte(r.rng.Uint32())
		}
		f = append(noise, f...)
	}
	r.mu.Unlock()
	if silent {
		return nil
	}
	_, err := r.line.Write(f)
	return err
}

func hexValue(b byte) int {
	if b >= 'A' {
		return int(b-'A') + 10
	}
	return int(b - '0')
}

// frame is written from the data sheets, not with the driver's code.
func (r *RFID) frame(tag EM4100) []byte {
	var sum byte
	for _, b := range tag {
		sum ^= b
	}
	f := fmt.Appendf([]byte{0x02}, "%02X%02X%02X%02X%02X%02X", tag[0], tag[1], tag[2], tag[3], tag[4], sum)
	if r.id12 {
		f = append(f, 0x0D, 0x0A)
	}
	return append(f, 0x03)
}
