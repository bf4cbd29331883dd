package bus

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Chunk is what came from a serial line at one time.
type Chunk struct {
	At    time.Duration // since the recording began
	Bytes []byte
}

// Recorder writes a recording of a serial line: text, one line for each chunk,
// milliseconds and hex ("1042.317 0233433030434537353443434203"), comments
// behind #. Its Tap goes into SerialConfig.
type Recorder struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
	err   error
}

// NewRecorder begins a recording; about becomes its first line.
func NewRecorder(w io.Writer, about string) *Recorder {
	r := &Recorder{w: w, start: time.Now()}
	_, r.err = fmt.Fprintf(w, "# %s\n", strings.ReplaceAll(about, "\n", " "))
	return r
}

// Tap records a chunk.
func (r *Recorder) Tap(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	_, r.err = fmt.Fprintf(r.w, "%.3f %x\n", float64(time.Since(r.start).Microseconds())/1000, b)
}

// Err is the first error of writing.
func (r *Recorder) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// ReadRecording reads what a Recorder wrote.
func ReadRecording(r io.Reader) ([]Chunk, error) {
	var out []Chunk
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for line := 1; sc.Scan(); line++ {
		text, _, _ := strings.Cut(sc.Text(), "#")
		f := strings.Fields(text)
		if len(f) == 0 {
			continue
		}
		if len(f) != 2 {
			return nil, fmt.Errorf("line %d: want milliseconds and hex", line)
		}
		ms, err := strconv.ParseFloat(f[0], 64)
		if err != nil || !(ms >= 0 && ms < 1e12) {
			return nil, fmt.Errorf("line %d: %q is not a time in milliseconds", line, f[0])
		}
		b, err := hex.DecodeString(f[1])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		at := time.Duration(ms * float64(time.Millisecond))
		if len(out) > 0 && at < out[len(out)-1].At {
			return nil, fmt.Errorf("line %d: time runs backwards", line)
		}
		out = append(out, Chunk{at, b})
	}
	return out, sc.Err()
}
