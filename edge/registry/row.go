package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"gatehouse/edge"
	"gatehouse/edge/roster"
)

const (
	cardSize = 33 // of one credential in a pass's cards: hash and 1 where derived
	maxText  = 256
	maxCards = 16
)

func mask(name string) string { return roster.Mask(name) }

// card is one stored form of one card.
type card struct {
	hash    [32]byte
	derived bool
}

// prepared is a roster's row as it is stored.
type prepared struct {
	id, household        int64
	building, unit, name string
	body                 []byte
	cards                []card
	home                 []byte // the household's body, nil without one
}

// prepare checks a row and makes what is stored of it. Names are masked here
// too: not every roster came through package roster.
func (r *Registry) prepare(row edge.RosterRow) (prepared, error) {
	p := row.Pass
	if p.ID < 1 || p.ID > edge.MaxID {
		return prepared{}, fmt.Errorf("pass number %d is not from 1 to %d", p.ID, int64(edge.MaxID))
	}
	if p.Status == "" {
		p.Status = edge.PassActive
	}
	if !slices.Contains([]edge.PassStatus{edge.PassActive, edge.PassSuspended, edge.PassLost, edge.PassForeign}, p.Status) {
		return prepared{}, fmt.Errorf("pass %d: status %q is not active, suspended, lost or foreign", p.ID, p.Status)
	}
	if p.Category == "" {
		return prepared{}, fmt.Errorf("pass %d has no category", p.ID)
	}
	h := row.Household
	switch {
	case p.Household == 0:
		p.Household = h.ID
	case h.ID == 0:
		h = edge.Household{ID: p.Household, Building: p.Building, Unit: p.Unit}
	case h.ID != p.Household:
		return prepared{}, fmt.Errorf("pass %d is of household %d, but its row describes household %d", p.ID, p.Household, h.ID)
	}
	if p.Household < 0 || p.Household > edge.MaxID {
		return prepared{}, fmt.Errorf("pass %d: household number %d is not from 1 to %d", p.ID, p.Household, int64(edge.MaxID))
	}
	for _, s := range []string{p.Category, p.Reason, p.Building, p.Unit, p.Name, p.Language, p.Risk, p.Vehicle, h.Area} {
		if len(s) > maxText || !utf8.ValidString(s) {
			return prepared{}, fmt.Errorf("pass %d: a text of %d bytes is too long or damaged", p.ID, len(s))
		}
	}
	if len(row.Credentials) > maxCards {
		return prepared{}, fmt.Errorf("pass %d has %d cards, at most %d", p.ID, len(row.Credentials), maxCards)
	}
	out := prepared{id: int64(p.ID), household: int64(p.Household), building: p.Building, unit: p.Unit, name: mask(p.Name)}
	for _, c := range row.Credentials {
		for i, alias := range c.Aliases() {
			if i > 0 && !r.stores(alias) {
				continue
			}
			n := card{r.o.Keys[0].Hash(alias), i > 0}
			at := slices.IndexFunc(out.cards, func(c card) bool { return c.hash == n.hash })
			if at < 0 {
				out.cards = append(out.cards, n)
			} else if !n.derived {
				out.cards[at].derived = false
			}
		}
	}
	slices.SortFunc(out.cards, func(a, b card) int { return strings.Compare(string(a.hash[:]), string(b.hash[:])) })
	p.ID, p.Household, p.Building, p.Unit, p.Name = 0, 0, "", "", ""
	var err error
	if out.body, err = json.Marshal(p); err != nil {
		return prepared{}, fmt.Errorf("pass %d: %w", row.Pass.ID, err)
	}
	if h.ID != 0 {
		if out.home, err = json.Marshal(h); err != nil {
			return prepared{}, fmt.Errorf("household %d: %w", h.ID, err)
		}
	}
	return out, nil
}

// stores reports whether the site's readers give this form.
func (r *Registry) stores(c edge.Credential) bool {
	form, _, _ := strings.Cut(string(c), ":")
	return len(r.o.Forms) == 0 || slices.Contains(r.o.Forms, form)
}

func packCards(cards []card) []byte {
	b := make([]byte, 0, len(cards)*cardSize)
	for _, c := range cards {
		b = append(b, c.hash[:]...)
		if c.derived {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	return b
}

func unpackCards(b []byte) ([]card, error) {
	if len(b)%cardSize != 0 {
		return nil, errors.New("a pass's cards are damaged")
	}
	out := make([]card, 0, len(b)/cardSize)
	for ; len(b) > 0; b = b[cardSize:] {
		out = append(out, card{[32]byte(b[:32]), b[32] == 1})
	}
	return out, nil
}
