package community

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"gatehouse/edge"
)

// Count says what is stored of one epoch of one gate.
type Count struct {
	Site       string     `json:"site"`
	Gate       string     `json:"gate"`
	Epoch      edge.Epoch `json:"epoch"`
	Parent     edge.Epoch `json:"parent,omitempty"` // 0 = none
	Forked     uint64     `json:"forked,omitempty"` // where it forked from its parent
	Size       uint64     `json:"size"`             // what the receipt says
	Stored     uint64     `json:"stored"`           // different entries
	Destroyed  uint64     `json:"destroyed"`        // past their retention, or erased; there is a record
	Missing    uint64     `json:"missing"`          // below size, neither stored nor destroyed
	Duplicated uint64     `json:"duplicated"`       // stored more than once
	First      int64      `json:"first"`            // UTC ms of the first batch
	Last       int64      `json:"last"`             // UTC ms of the last batch
}

// Counts counts what is stored of a gate, or of all of a site, or of all when
// both are empty. It counts rows, and believes no mark.
func (s *Server) Counts(ctx context.Context, site, gate string) ([]Count, error) {
	var out []Count
	rows, err := s.store.r.QueryContext(ctx, `SELECT g.site, g.name, l.epoch, l.parent, l.forked, l.size, l.first_at, l.last_at, l.purged,
		(SELECT COUNT(*) FROM entry e WHERE e.log = l.id AND e.seq >= 0 AND e.seq < l.size),
		(SELECT COUNT(DISTINCT seq) FROM entry e WHERE e.log = l.id AND e.seq >= 0 AND e.seq < l.size)
		FROM log l JOIN gate g ON g.id = l.gate WHERE (g.site = $1 OR $1 = '') AND (g.name = $2 OR $2 = '') ORDER BY g.site, g.name, l.id`, site, gate)
	err = each(rows, err, func() error {
		var c Count
		var epoch, parent string
		var forked, size, purged, all, different int64
		if err := rows.Scan(&c.Site, &c.Gate, &epoch, &parent, &forked, &size, &c.First, &c.Last, &purged, &all, &different); err != nil {
			return err
		}
		var err error
		if c.Epoch, err = edge.ParseEpoch(epoch); err != nil {
			return err
		}
		if parent != "" {
			if c.Parent, err = edge.ParseEpoch(parent); err != nil {
				return err
			}
		}
		c.Forked, c.Size, c.Stored = uint64(forked), uint64(size), uint64(different)
		c.Destroyed = uint64(purged)
		// Rows of entries that were destroyed, or never came, are for Verify to name.
		c.Missing, c.Duplicated = uint64(max(0, size-different-purged)), uint64(max(0, all-different))
		out = append(out, c)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot count entries: %w", err)
	}
	return out, nil
}

// Repeated is how many entries came again after they were stored.
func (s *Server) Repeated() uint64 { return s.repeated.Load() }

// keyName is the name under which the log's device signs.
func (l *gateLog) keyName() string {
	for _, k := range l.gate.keys {
		if k.Public == l.public {
			return k.Name
		}
	}
	return l.gate.name
}

// logOf finds one epoch of a gate.
func (s *Server) logOf(ctx context.Context, site, gate string, e edge.Epoch) (*gateLog, error) {
	g, err := s.store.gateOf(ctx, s.store.r, site, gate)
	if err != nil {
		return nil, err
	}
	if g == nil {
		return nil, fmt.Errorf("gate %s/%s: %w", site, gate, edge.ErrUnknown)
	}
	l, err := s.store.log(ctx, g, e)
	if err == nil && l == nil {
		err = fmt.Errorf("epoch %s of %s/%s: %w", e, site, gate, edge.ErrUnknown)
	}
	return l, err
}

// content reads one entry's exact bytes and its blind.
func (s *Server) content(ctx context.Context, l *gateLog, seq uint64) ([]byte, edge.Blind, error) {
	if seq >= l.tree.size {
		return nil, edge.Blind{}, fmt.Errorf("entry %d of %s: %w", seq, l.name(), edge.ErrUnknown)
	}
	start := seq &^ (edge.BlockSize - 1)
	var line []byte
	var blind edge.Blind
	err := s.store.pieces(ctx, s.store.r, l.id, start, seq+1, func(p *piece) error {
		if seq >= p.first+uint64(p.count) {
			return nil
		}
		lines, err := p.lines()
		if err != nil {
			return err
		}
		line = lines[seq-p.first]
		blind, _ = p.blindOf(int(seq - p.first))
		return nil
	})
	if err == nil && len(line) == 0 {
		err = edge.ErrPurged
	}
	if err != nil {
		return nil, edge.Blind{}, fmt.Errorf("entry %d of %s: %w", seq, l.name(), err)
	}
	return line, blind, nil
}

// Entry reads one entry's exact bytes.
func (s *Server) Entry(ctx context.Context, site, gate string, e edge.Epoch, seq uint64) ([]byte, error) {
	l, err := s.logOf(ctx, site, gate, e)
	if err != nil {
		return nil, err
	}
	line, _, err := s.content(ctx, l, seq)
	return line, err
}

// Filter chooses entries. Empty fields do not restrict.
type Filter struct {
	Site, Gate    string
	Kind, Outcome string
	Rule, Reason  string
	Pass          edge.PassID
	Household     edge.HouseholdID
	From, To      int64 // UTC ms, To exclusive; 0 = open
	Limit         int   // the newest so many; 0 = 100
}

// Row is what can be asked of an entry without opening its block.
type Row struct {
	Site         string     `json:"site"`
	Gate         string     `json:"gate"`
	Epoch        edge.Epoch `json:"epoch"`
	Seq          uint64     `json:"seq"`
	Time         int64      `json:"t"` // UTC ms
	Kind         string     `json:"kind"`
	Lane         string     `json:"lane,omitempty"`
	Presentation int64      `json:"p,omitempty"`
	Of           *int64     `json:"of,omitempty"`
	Actor        string     `json:"actor,omitempty"`
	Pass         int64      `json:"pass,omitempty"`
	Household    int64      `json:"household,omitempty"`
	Category     string     `json:"category,omitempty"`
	Outcome      string     `json:"outcome,omitempty"`
	Rule         string     `json:"rule,omitempty"`
	Reason       string     `json:"reason,omitempty"`
	Result       string     `json:"result,omitempty"`
}

// Query finds entries, the newest first.
func (s *Server) Query(ctx context.Context, f Filter) ([]Row, error) {
	if f.Limit == 0 {
		f.Limit = 100
	}
	var where []string
	var args []any
	and := func(cond string, skip bool, v any) {
		if !skip {
			args = append(args, v)
			where = append(where, cond+" $"+strconv.Itoa(len(args)))
		}
	}
	and("g.site =", f.Site == "", f.Site)
	and("g.name =", f.Gate == "", f.Gate)
	and("e.kind =", f.Kind == "", f.Kind)
	and("e.outcome =", f.Outcome == "", f.Outcome)
	and("e.rule =", f.Rule == "", f.Rule)
	and("e.reason =", f.Reason == "", f.Reason)
	and("e.pass =", f.Pass == 0, int64(f.Pass))
	and("e.household =", f.Household == 0, int64(f.Household))
	and("e.at >=", f.From == 0, f.From)
	and("e.at <", f.To == 0, f.To)
	cond := ""
	if len(where) > 0 {
		cond = "WHERE " + strings.Join(where, " AND ")
	}
	args = append(args, f.Limit)
	var out []Row
	rows, err := s.store.r.QueryContext(ctx, `SELECT g.site, g.name, l.epoch, e.seq, e.at, e.kind, COALESCE(e.lane, ''), COALESCE(e.presentation, 0), e.of,
		COALESCE(e.actor, ''), COALESCE(e.pass, 0), COALESCE(e.household, 0), COALESCE(e.category, ''), COALESCE(e.outcome, ''), COALESCE(e.rule, ''),
		COALESCE(e.reason, ''), COALESCE(e.result, '')
		FROM entry e JOIN log l ON l.id = e.log JOIN gate g ON g.id = l.gate `+cond+` ORDER BY e.at DESC, e.log, e.seq DESC LIMIT $`+strconv.Itoa(len(args)), args...)
	err = each(rows, err, func() error {
		var r Row
		var epoch string
		var seq int64
		if err := rows.Scan(&r.Site, &r.Gate, &epoch, &seq, &r.Time, &r.Kind, &r.Lane, &r.Presentation, &r.Of, &r.Actor, &r.Pass, &r.Household,
			&r.Category, &r.Outcome, &r.Rule, &r.Reason, &r.Result); err != nil {
			return err
		}
		r.Seq = uint64(seq)
		var err error
		r.Epoch, err = edge.ParseEpoch(epoch)
		out = append(out, r)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot find entries: %w", err)
	}
	return out, nil
}

// Export calls f with every line that is stored of one epoch, in order; what was
// destroyed is left out.
func (s *Server) Export(ctx context.Context, site, gate string, e edge.Epoch, f func(seq uint64, line []byte) error) error {
	l, err := s.logOf(ctx, site, gate, e)
	if err != nil {
		return err
	}
	return s.store.pieces(ctx, s.store.r, l.id, 0, l.tree.size, func(p *piece) error {
		lines, err := p.lines()
		if err != nil {
			return fmt.Errorf("block at %d: %w", p.first, err)
		}
		for i, line := range lines {
			if len(line) == 0 {
				continue
			}
			if err := f(p.first+uint64(i), line); err != nil {
				return err
			}
		}
		return nil
	})
}

// ExportPerson calls f with every line that is stored about one pass, by gate and
// epoch, in order.
func (s *Server) ExportPerson(ctx context.Context, site string, pass edge.PassID, f func(line []byte) error) error {
	logs, err := s.store.logsOf(ctx, site)
	for i := 0; err == nil && i < len(logs); i++ {
		a := edge.NewAbout(pass)
		a.Open = s.unseal
		err = s.store.about(ctx, logs[i].id, 0, logs[i].size, a, func(_ uint64, _ *edge.Entry, line []byte) error { return f(line) })
	}
	if err != nil {
		return fmt.Errorf("cannot export pass %d of %s: %w", pass, site, err)
	}
	return nil
}

// Device is a gate with one of its devices' keys.
type Device struct {
	Site, Gate string
	GateKey
	Status   string // the gate's last status message, JSON
	StatusAt int64  // UTC ms
}

// Devices lists the gates of a site, or of all, with their keys.
func (s *Server) Devices(ctx context.Context, site string) ([]Device, error) {
	var out []Device
	rows, err := s.store.r.QueryContext(ctx, `SELECT g.site, g.name, k.name, k.public, k.age, k.state, k.since, k.by, g.status, g.status_at
		FROM gate g JOIN gate_key k ON k.gate = g.id WHERE g.site = $1 OR $1 = '' ORDER BY g.site, g.name, k.since`, site)
	err = each(rows, err, func() error {
		var d Device
		var public []byte
		if err := rows.Scan(&d.Site, &d.Gate, &d.Name, &public, &d.Age, &d.State, &d.Since, &d.By, &d.Status, &d.StatusAt); err != nil {
			return err
		}
		if len(public) != len(d.Public) {
			return fmt.Errorf("gate %s/%s: stored key has %d bytes", d.Site, d.Gate, len(public))
		}
		d.Public = [32]byte(public)
		out = append(out, d)
		return nil
	})
	return out, err
}

// Alert is something a person should look at: one row for one matter. One without
// a gate is of the server itself.
type Alert struct {
	Site  string `json:"site"`
	Gate  string `json:"gate"`
	Kind  string `json:"kind"`
	About string `json:"about,omitempty"`
	Text  string `json:"text"`
	First int64  `json:"first"` // UTC ms
	Last  int64  `json:"last"`
	Times int64  `json:"times"`
}

// Alerts lists what a person should look at, the latest first.
func (s *Server) Alerts(ctx context.Context, site string) ([]Alert, error) {
	var out []Alert
	if a, err := s.store.timeAlert(ctx); err != nil {
		return nil, fmt.Errorf("cannot read the alerts: %w", err)
	} else if a != nil {
		out = append(out, *a)
	}
	rows, err := s.store.r.QueryContext(ctx, `SELECT g.site, g.name, a.kind, a.about, a.text, a.first, a.last, a.times
		FROM alert a JOIN gate g ON g.id = a.gate WHERE g.site = $1 OR $1 = '' ORDER BY a.last DESC, g.site, g.name, a.kind`, site)
	err = each(rows, err, func() error {
		var a Alert
		err := rows.Scan(&a.Site, &a.Gate, &a.Kind, &a.About, &a.Text, &a.First, &a.Last, &a.Times)
		out = append(out, a)
		return err
	})
	return out, err
}
