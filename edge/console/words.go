package console

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"gatehouse/edge"
	"gatehouse/edge/text"
)

// valueWords says which words the codes of a fact, or of a part of an entry's data,
// are of. Where none is given they are looked for under "value.".
var valueWords = map[string]string{
	"pass.category": "category.", "pass.status": "status.", "holder.care": "care.", "temperature.state": "temperature.", "temperature.band": "band.", "temperature.second": "band.",
	"lane.level": "level.", "lane.direction": "direction.", "lane.degraded": "part.", "area.tier": "tier.", "guard.identity": "identity.",

	"data.state": "device.", "data.alert": "alert.", "data.action": "action.", "data.why": "inside.why_", "data.view": "view.", "data.page": "view.", "data.from": "clock.", "data.to": "clock.", "data.clock": "clock.",
	"data.identity": "identity.", "data.test": "test.", "data.status": "command.", "data.role": "role.", "data.reason": "reason.",
}

// valueInWords puts one value of a fact into words.
func valueInWords(p *text.Printer, name string, v any) string {
	switch v := v.(type) {
	case bool:
		return p.T("explain." + strconv.FormatBool(v))
	case json.Number:
		// Numbers with a fraction are measured; the others count or name something.
		if f, err := v.Float64(); err == nil && strings.Contains(v.String(), ".") {
			return p.Number(f, len(v.String())-strings.Index(v.String(), ".")-1)
		}
		return v.String()
	case string:
		if strings.HasPrefix(name, "data.") && (name == "data.second" || name == "data.of" || name == "data.by") {
			v = actorInWords(p, v)
		}
		for _, id := range []string{valueWords[name] + v, "value." + name + "." + v, "value." + v} {
			if id != v && p.Has(id) {
				return p.T(id)
			}
		}
		return v
	case []any:
		var out []string
		for _, x := range v {
			out = append(out, valueInWords(p, name, x))
		}
		return strings.Join(out, p.T("list.and"))
	case nil:
		return p.T("explain.empty")
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

// nameInWords is what a fact is called. Counters and marks have the policy's own
// names.
func nameInWords(p *text.Printer, name string) string {
	if p.Has("fact." + name) {
		return p.T("fact." + name)
	}
	group, rest, _ := strings.Cut(name, ".")
	switch group {
	case "counters":
		of, part, _ := strings.Cut(rest, ".")
		return p.T("fact.counter."+part, "Name", of)
	case "marks":
		return p.T("fact.mark", "Name", rest)
	}
	return name
}

// flat lists what a JSON object holds, under names with dots.
func flat(b []byte, prefix string, each func(name string, v any)) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return
	}
	var walk func(name string, v any)
	walk = func(name string, v any) {
		m, ok := v.(map[string]any)
		if !ok {
			each(name, v)
			return
		}
		for k, v := range m {
			walk(strings.TrimPrefix(name+"."+k, "."), v)
		}
	}
	walk(prefix, v)
}

// factsInWords lists what the decision saw.
func factsInWords(p *text.Printer, f *edge.Facts) []fact {
	b, err := json.Marshal(f)
	if err != nil {
		return nil
	}
	var out []fact
	flat(b, "", func(name string, v any) { out = append(out, fact{nameInWords(p, name), valueInWords(p, name, v)}) })
	slices.SortFunc(out, func(a, b fact) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// dataInWords lists what only entries of this kind hold. What there are no words
// for is shown as it is.
func (c *Console) dataInWords(p *text.Printer, e *edge.Entry) []fact {
	var out []fact
	flat(e.Data, "data", func(name string, v any) {
		f := fact{strings.TrimPrefix(name, "data."), valueInWords(p, name, v)}
		if p.Has(name) {
			f.Name = p.T(name)
		}
		if s, ok := v.(string); ok && name == "data.error" {
			f.Value = troubleInWords(p, s)
		}
		out = append(out, f)
	})
	slices.SortFunc(out, func(a, b fact) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// actorInWords names whoever has caused an entry: "guard:7" is guard 7.
func actorInWords(p *text.Printer, actor string) string {
	role, number, ok := strings.Cut(actor, ":")
	switch {
	case ok && p.Has("role."+role):
		return p.T("role."+role) + " " + word(p, "actor.", number)
	case p.Has("actor." + actor):
		return p.T("actor." + actor)
	}
	return actor
}

// troubles are what systems say when something does not work, by a part of it.
var troubles = []struct{ part, id string }{
	{"no such file or directory", "trouble.absent"}, {"no such device", "trouble.absent"}, {"not found", "trouble.absent"},
	{"permission denied", "trouble.permission"}, {"device or resource busy", "trouble.busy"}, {"input/output error", "trouble.io"},
	{"remote i/o error", "trouble.io"}, {"no space left", "trouble.full"},
	{"connection refused", "trouble.refused"}, {"no route to host", "trouble.unreachable"}, {"network is unreachable", "trouble.unreachable"}, {"no such host", "trouble.name"},
	{"i/o timeout", "trouble.timeout"}, {"deadline exceeded", "trouble.timeout"}, {"timed out", "trouble.timeout"}, {"x509", "trouble.certificate"}, {"certificate", "trouble.certificate"},
	{"not authorized", "trouble.login"}, {"bad user name", "trouble.login"}, {"eof", "trouble.ended"}, {"connection reset", "trouble.ended"}, {"broken pipe", "trouble.ended"},
}

// troubleInWords says what an error of a device or of the link comes to, with the
// error itself for who repairs it.
func troubleInWords(p *text.Printer, err string) string {
	for _, t := range troubles {
		if strings.Contains(strings.ToLower(err), t.part) {
			return p.T(t.id, "Error", err)
		}
	}
	return err
}

// gist is what an entry that is no decision says, in a few words.
func gist(p *text.Printer, e *edge.Entry) string {
	var d struct {
		Device, State, Alert, Action, View, Page, Name, Status string
		From, To                                               json.RawMessage
		On, Open                                               *bool
	}
	if len(e.Data) == 0 || json.Unmarshal(e.Data, &d) != nil {
		return ""
	}
	switch e.Kind {
	case edge.KindDevice:
		return strings.Join(clean(d.Device, word(p, "device.", d.State)), ": ")
	case edge.KindAlert:
		s := word(p, "alert.", d.Alert)
		if d.Open != nil && !*d.Open {
			s += p.T("alert.over")
		}
		return s
	case edge.KindFire:
		if d.On != nil {
			return p.T("fire." + strconv.FormatBool(*d.On))
		}
	case edge.KindAction, edge.KindSession, edge.KindAccount:
		if e.Outcome == "" && d.Action != "" {
			return word(p, "action.", d.Action)
		}
	case edge.KindAccess:
		return word(p, "view.", d.View+d.Page)
	case edge.KindCommand:
		return strings.Join(clean(d.Name, word(p, "command.", d.Status)), ": ")
	case edge.KindClock:
		var to string
		if json.Unmarshal(d.To, &to) == nil {
			return word(p, "clock.", to)
		}
	}
	return ""
}
