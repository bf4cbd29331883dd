package thermometry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Drift watches whether a thermometer's readings move as a whole. People's
// temperatures of one day have a median that stays within a tenth of a degree
// or two; when the median of a day differs from that of the week before, the
// thermometer, its window or its place has changed.
//
// It keeps a histogram and medians: no reading, no person.
type Drift struct {
	Day  string      `json:"day"`  // of the histogram, local time
	Bins map[int]int `json:"bins"` // tenths of a degree -> readings
	Past []float64   `json:"past"` // medians of the days before, oldest first
}

const (
	driftLeast = 30  // readings that make a day
	driftDays  = 7   // days that a day is compared with
	driftFirst = 3   // days before anything is compared
	driftMost  = 0.3 // degC
)

// Add takes a reading. At a day's first reading the day before is closed: moved
// is then true, and alarm says what has moved, if anything.
func (d *Drift) Add(value float64, at time.Time) (moved bool, alarm string) {
	day := at.Format(time.DateOnly)
	if d.Day != day {
		if n := d.readings(); n >= driftLeast {
			moved = true
			median := d.median(n)
			if len(d.Past) >= driftFirst {
				past := slices.Sorted(slices.Values(d.Past))
				if usual := past[len(past)/2]; median-usual > driftMost || usual-median > driftMost {
					alarm = fmt.Sprintf("the median of %s was %.1f degC, that of the days before %.1f", d.Day, median, usual)
				}
			}
			if d.Past = append(d.Past, median); len(d.Past) > driftDays {
				d.Past = d.Past[1:]
			}
		}
		d.Day, d.Bins = day, map[int]int{}
	}
	d.Bins[int(value*10+0.5)]++
	return moved, alarm
}

func (d *Drift) readings() (n int) {
	for _, c := range d.Bins {
		n += c
	}
	return n
}

func (d *Drift) median(n int) float64 {
	bins := make([]int, 0, len(d.Bins))
	for b := range d.Bins {
		bins = append(bins, b)
	}
	slices.Sort(bins)
	for _, b := range bins {
		if n -= 2 * d.Bins[b]; n <= 0 {
			return float64(b) / 10
		}
	}
	return 0
}

// load takes up what was saved; a file that is not there is a beginning.
func (d *Drift) load(path string) error {
	if path == "" {
		return nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var got Drift
	if err == nil {
		err = json.Unmarshal(b, &got)
	}
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", path, err)
	}
	if got.Bins == nil {
		got.Bins = map[int]int{}
	}
	*d = got
	return nil
}

// save writes the state, whole or not at all.
func (d *Drift) save(path string) error {
	if path == "" {
		return nil
	}
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
