package benchcmd

import (
	"fmt"
	"time"
)

// Verdict is what a figure means for somebody who has to decide.
type Verdict int

const (
	good Verdict = iota
	fair         // works; a person may notice
	bad          // should not guard a gate
)

func (v Verdict) String() string { return [...]string{"good", "fair", "BAD"}[v] }

// MarshalText gives the word.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// What people bear: a queue walks on while the barrier opens within a tenth of a
// second, and the lane takes the safe side when a commit takes its commit_deadline
// of two.
const (
	noticed  = 100 * time.Millisecond
	stall    = 500 * time.Millisecond
	memory   = 64 << 20
	wearHigh = 12_000 // bytes an entry: twice the aim; the journal alone
	slowWake = 10 * time.Second
)

func us(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%d us", d.Microseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

func quantiles(d []time.Duration) string {
	return fmt.Sprintf("p50 %s, p99 %s, worst %s", us(quantile(d, 50)), us(quantile(d, 99)), us(quantile(d, 100)))
}

func judgeMedium(syncs []time.Duration) Line {
	l := Line{Name: "medium: a durable write of 4 KiB", Value: quantiles(syncs)}
	worst, p99 := quantile(syncs, 100), quantile(syncs, 99)
	switch {
	case p99 > stall:
		l.Verdict, l.Say = bad, fmt.Sprintf("this medium stalls for %s again and again; use another", us(p99))
	case worst > stall:
		l.Verdict, l.Say = fair, fmt.Sprintf("this medium stalled for %s once; measure again, and use another if it comes again", us(worst))
	case p99 > noticed:
		l.Verdict, l.Say = fair, "slow: people will wait at the barrier now and then; a card of application class A2 is better"
	case quantile(syncs, 50) < 20*time.Microsecond:
		l.Verdict, l.Say = fair, "too quick to be true: this medium may say that it has written what a power cut destroys"
	default:
		l.Say = "nobody will notice it"
	}
	return l
}

func judgeCommit(own, bare, syncs []time.Duration) Line {
	l := Line{Name: "journal: a decision made durable", Value: quantiles(own), Floor: "a bare commit " + quantiles(bare)}
	share := float64(quantile(syncs, 50)) / float64(max(quantile(own, 50), 1))
	l.Say = fmt.Sprintf("%.2fx of a bare commit; %.0f %% of it is the medium", float64(quantile(own, 50))/float64(max(quantile(bare, 50), 1)), min(share, 1)*100)
	switch p99 := quantile(own, 99); {
	case p99 > stall:
		l.Verdict, l.Say = bad, l.Say+"; lanes would take the safe side instead of deciding"
	case p99 > noticed:
		l.Verdict, l.Say = fair, l.Say+"; people will notice"
	}
	return l
}

func judgeFlash(w written) Line {
	l := Line{Name: "medium: bytes for one entry", Value: fmt.Sprintf("%.0f written by the gate", w.process), Floor: fmt.Sprintf("%.0f of the entry itself", w.entry)}
	if w.medium >= 0 {
		l.Value += fmt.Sprintf(", %.0f reached the medium (of everybody)", w.medium)
	}
	// A busy gate has some thousand entries a day; a card of 16 GB bears some ten
	// terabytes.
	l.Say = fmt.Sprintf("%.1f GB in ten years at 2,000 entries a day", w.process*2000*3650/1e9)
	if w.process > wearHigh {
		l.Verdict, l.Say = fair, l.Say+"; more than it should be: is this file system compressed, encrypted or copied on write?"
	}
	if w.process == 0 {
		l.Say = "this file system does not count, or keeps everything in memory"
	}
	return l
}

func judgeDecisions(perSecond float64, each time.Duration) Line {
	l := Line{Name: "rules: decisions a second, closed estate", Value: fmt.Sprintf("%.0f, %s each", perSecond, each), Say: "more than any queue"}
	if perSecond < 200 {
		l.Verdict, l.Say = bad, "this processor is too slow for the rules, or is slowed down by heat or its supply"
	} else if perSecond < 2000 {
		l.Verdict, l.Say = fair, "slow, but quicker than people walk"
	}
	return l
}

func judgeStart(d time.Duration, passes int) Line {
	l := Line{Name: fmt.Sprintf("start: databases to first decision, %d passes", passes), Value: us(d), Say: "after a power cut the gate is back as soon as the board is"}
	if d > slowWake {
		l.Verdict, l.Say = bad, "after a power cut people would wait"
	} else if d > time.Second {
		l.Verdict, l.Say = fair, "add it to what the board takes to start"
	}
	return l
}

func judgeMemory(bytes uint64) Line {
	l := Line{Name: "memory: the most this run had", Value: fmt.Sprintf("%d MB", bytes>>20), Say: "fits on every board with 512 MB"}
	if bytes > 2*memory {
		l.Verdict, l.Say = fair, "more than it should be"
	}
	return l
}
