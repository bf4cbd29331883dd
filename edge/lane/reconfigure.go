package lane

import "maps"

// Reconfigure takes over what of a configuration is no wiring: times, limits and
// the label. It holds for whoever comes next; deadlines that run keep running. It
// returns at once.
func (l *Lane) Reconfigure(c Config) {
	c.OnTimeout = maps.Clone(c.OnTimeout)
	l.post(func() {
		l.cfg.Label = c.Label
		l.cfg.Present, l.cfg.Measure, l.cfg.Refer, l.cfg.Parked = c.Present, c.Measure, c.Refer, c.Parked
		l.cfg.SecondPost, l.cfg.Held = c.SecondPost, c.Held
		l.cfg.Remeasures, l.cfg.Queue, l.cfg.OnTimeout = c.Remeasures, c.Queue, c.OnTimeout
		l.cfg.Deadline = c.Deadline
	})
}

// Reconfigure is as Lane.Reconfigure.
func (p *Passage) Reconfigure(c PassageConfig) {
	p.wide.Store(int64(c.OpenFor))
	p.post(func() { p.cfg.OpenFor, p.cfg.HeldOpen = c.OpenFor, c.HeldOpen })
}
