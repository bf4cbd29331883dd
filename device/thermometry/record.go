package thermometry

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"gatehouse/device"
)

// A recording of raw samples is text, one line for each: milliseconds since its
// beginning, object, ambient ("-" where the sensor has none), and the range in
// millimetres when it is known. What follows # is a comment.
//
//	1042.317 36.41 23.87
//	1142.402 36.43 23.88 640
//
// It holds no person: times and temperatures only. Still, with a camera's or the
// journal's times it becomes personal; so it has an end.

// recordMost is the size at which a recording ends: a day of ten samples in a
// second is 25 MB.
const recordMost = 64 << 20

var (
	errRecordOver = errors.New("its time is over")
	errRecordFull = errors.New("it has reached 64 MB")
)

// WriteSample writes a sample as a recording's line.
func WriteSample(w io.Writer, since time.Duration, s device.Sample) (int, error) {
	ambient := "-"
	if s.HasAmbient {
		ambient = strconv.FormatFloat(float64(s.Ambient), 'f', -1, 64)
	}
	line := fmt.Sprintf("%.3f %s %s", float64(since.Microseconds())/1000, strconv.FormatFloat(float64(s.Object), 'f', -1, 64), ambient)
	if s.Range > 0 {
		line += " " + strconv.Itoa(s.Range)
	}
	return io.WriteString(w, line+"\n")
}

// ReadSamples reads a recording. The samples' times count from the Unix epoch.
func ReadSamples(r io.Reader) ([]device.Sample, error) {
	var out []device.Sample
	sc := bufio.NewScanner(r)
	for line := 1; sc.Scan(); line++ {
		text, _, _ := strings.Cut(sc.Text(), "#")
		f := strings.Fields(text)
		if len(f) == 0 {
			continue
		}
		s, err := parseSample(f)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if n := len(out); n > 0 && s.At.Before(out[n-1].At) {
			return nil, fmt.Errorf("line %d: time runs backwards", line)
		}
		out = append(out, s)
	}
	return out, sc.Err()
}

func parseSample(f []string) (device.Sample, error) {
	var s device.Sample
	if len(f) < 3 || len(f) > 4 {
		return s, errors.New("want milliseconds, object, ambient and perhaps a range")
	}
	number := func(what, text string, lo, hi float64) (float64, error) {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || !(v >= lo && v <= hi) {
			return 0, fmt.Errorf("%q is no %s", text, what)
		}
		return v, nil
	}
	ms, err := number("time in milliseconds", f[0], 0, 1e12)
	if err != nil {
		return s, err
	}
	object, err := number("temperature", f[1], -273.15, 5000)
	if err != nil {
		return s, err
	}
	s.At, s.Object = time.Unix(0, 0).UTC().Add(time.Duration(ms*1e6)), device.Celsius(object)
	if f[2] != "-" {
		ambient, err := number("temperature", f[2], -273.15, 5000)
		if err != nil {
			return s, err
		}
		s.Ambient, s.HasAmbient = device.Celsius(ambient), true
	}
	if len(f) == 4 {
		mm, err := number("range in millimetres", f[3], 1, 1e6)
		if err != nil {
			return s, err
		}
		s.Range = int(mm)
	}
	return s, nil
}

// recorder writes a thermometer's samples to a file for a while.
type recorder struct {
	f     *os.File
	w     *bufio.Writer
	begun time.Time
	d     time.Duration
	size  int
}

func newRecorder(path string, d time.Duration, h device.Health) (*recorder, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	r := &recorder{f: f, w: bufio.NewWriter(f), begun: time.Now(), d: d}
	_, err = fmt.Fprintf(r.w, "# raw samples of %s (%s at %s), from %s, milliseconds, object, ambient\n", h.Name, h.Driver, h.Where, r.begun.UTC().Format(time.RFC3339))
	return r, err
}

// add writes a sample; an error is the recording's end.
func (r *recorder) add(s device.Sample) error {
	since := s.At.Sub(r.begun)
	if since > r.d {
		return errors.Join(errRecordOver, r.close())
	}
	n, err := WriteSample(r.w, max(0, since), s)
	if r.size += n; err == nil && r.size > recordMost {
		err = errRecordFull
	}
	if err != nil {
		return errors.Join(err, r.close())
	}
	return nil
}

func (r *recorder) close() error {
	if r == nil {
		return nil
	}
	return errors.Join(r.w.Flush(), r.f.Close())
}

// Replay runs the pipeline on a recording and writes what it makes of it, a
// line for each thing that happens: who comes, what is read, who goes.
func Replay(samples []device.Sample, c Config, w io.Writer) error {
	p := NewPipeline(c)
	was, unusable := false, false
	var read device.Quality // of the person who stands there
	say := func(at time.Time, format string, args ...any) error {
		_, err := fmt.Fprintf(w, "%10.1f s  %s\n", at.Sub(time.Unix(0, 0)).Seconds(), fmt.Sprintf(format, args...))
		return err
	}
	for _, s := range samples {
		p.Add(s)
		here, gen := p.Present()
		var err error
		if out, ambient := p.Unusable(); out != unusable {
			if unusable = out; out {
				err = say(s.At, "unusable here: ambient %.1f degC", float64(ambient))
			} else {
				err = say(s.At, "usable again: ambient %.1f degC", float64(ambient))
			}
		}
		if here != was {
			if was, read = here, ""; here {
				err = errors.Join(err, say(s.At, "person %d", gen))
			} else {
				err = errors.Join(err, say(s.At, "gone"))
			}
		}
		if r, ok := p.Reading(time.Time{}); ok && read != device.QualityOK && read != r.Quality {
			read = r.Quality
			err = errors.Join(err, say(s.At, "%s: raw %.2f, value %.2f, ambient %.2f degC, %d samples, profile %s", r.Quality, float64(r.Raw), float64(r.Value), float64(r.Ambient), r.Samples, r.Profile))
		}
		if p.Stuck() {
			return errors.Join(err, say(s.At, "stuck at %.2f degC", float64(s.Object)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
