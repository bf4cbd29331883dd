package app

import (
	"time"

	"gatehouse/edge/console"
)

// loudness is the display's, as the configuration has checked it.
func loudness(byTime map[string]int) []console.Loudness {
	var out []console.Loudness
	for from, percent := range byTime {
		if t, err := time.Parse("15:04", from); err == nil {
			out = append(out, console.Loudness{From: t.Hour()*60 + t.Minute(), Percent: percent})
		}
	}
	return out
}
