// Package estate makes up a residential estate: people with passes, cards and
// households, and what they do at its gates. Equal seeds make equal estates.
// The demo, the crash tests and the benchmarks live on it. Nobody in it is real.
package estate

import (
	"fmt"
	"math/rand/v2"
	"time"

	"gatehouse/edge"
)

// Trait is what is out of the ordinary about a person.
type Trait string

const (
	Ordinary   Trait = ""
	Fever      Trait = "fever"      // above the threshold, confirmed by a second instrument
	Warm       Trait = "warm"       // too near to the threshold to tell; lower at the second look
	Expired    Trait = "expired"    // the pass has ended
	Lost       Trait = "lost"       // the card was reported lost
	Suspended  Trait = "suspended"  // withdrawn
	Unknown    Trait = "unknown"    // a card that nobody issued
	Foreign    Trait = "foreign"    // another estate's card
	Quarantine Trait = "quarantine" // the household is in home quarantine
	WalksAway  Trait = "walks away" // admitted, but does not go through
	Tailgated  Trait = "tailgated"  // somebody follows through on this card
	Mother     Trait = "mother"     // comes with a child
	NoSensor   Trait = "no sensor"  // does not step up to the thermometer
	Forgot     Trait = "forgot"     // has left the card at home
)

// Person is one resident, worker or stranger.
type Person struct {
	Row   edge.RosterRow // no pass in it (ID 0) for people the estate does not know
	Card  [5]byte        // EM4100: version byte and number
	Trait Trait
	Body  float64 // forehead skin, degrees Celsius, at the first look
	Later float64 // at a second look after a rest
}

// Household is the people behind one door.
type Household struct {
	edge.Household
	People []*Person
}

// Estate is who lives there.
type Estate struct {
	Households []*Household
	People     []*Person // with a pass
	Strangers  []*Person // without
	rng        *rand.Rand
	nextCard   uint32
}

// Options say how large it is.
type Options struct {
	Residents  int
	Households int
	Now        time.Time // validity of passes is set around it
	// Incidents is the share of people with a Trait, 0 to 1.
	Incidents float64
}

// names by language: family and given, of the made-up people.
var names = []struct {
	lang          string
	weight        int
	family, given []string
	order         bool // family name first, no space
}{
	{"zh-Hans", 82, []string{"王", "李", "张", "刘", "陈", "杨", "赵", "黄", "周", "吴", "徐", "孙", "胡", "朱", "高", "林", "何", "郭", "马", "罗", "欧阳", "司马"},
		[]string{"伟", "芳", "秀英", "敏", "静", "丽", "强", "磊", "军", "洋", "勇", "艳", "杰", "娟", "涛", "明", "超", "秀兰", "霞", "平", "刚", "桂英", "子涵", "欣怡", "浩然"}, true},
	{"en", 6, []string{"Okafor", "Smith", "Novak", "Brown", "Walker", "Singh"}, []string{"Grace", "Tom", "Eva", "Peter", "Amara", "Raj"}, false},
	{"ko", 3, []string{"김", "이", "박", "최", "정"}, []string{"민준", "서연", "지훈", "수빈"}, true},
	{"ja", 3, []string{"佐藤", "鈴木", "高橋", "田中"}, []string{"陽菜", "蓮", "翔太", "美咲"}, true},
	{"ru", 2, []string{"Иванова", "Петров", "Соколова"}, []string{"Анна", "Олег", "Мария"}, false},
	{"fr", 2, []string{"Lefèvre", "Dubois", "N'Diaye"}, []string{"Chloé", "Amadou", "Luc"}, false},
	{"es", 1, []string{"García", "Núñez"}, []string{"Lucía", "José"}, false},
	{"ar", 1, []string{"الحسن", "يوسف"}, []string{"ليلى", "عمر"}, false},
}

// New makes an estate.
func New(seed uint64, o Options) *Estate {
	e := &Estate{rng: rand.New(rand.NewPCG(seed, 0x6761746568)), nextCard: 0x00A00000 + uint32(seed%9973)*16}
	if o.Households == 0 {
		o.Households = max(1, o.Residents*7/20)
	}
	now := o.Now.UnixMilli()
	const day = 24 * 3600 * 1000
	for h := range o.Households {
		building := h/28 + 1
		unit := fmt.Sprintf("%d-%02d%02d", h%28/14+1, h%14/2+1, h%2+1)
		e.Households = append(e.Households, &Household{Household: edge.Household{
			ID: edge.HouseholdID(h + 1), Area: "main", Building: fmt.Sprintf("%d号楼", building), Unit: unit}})
	}
	for id := 1; id <= o.Residents; id++ {
		// Everybody's door is filled once before any gets a second person.
		h := e.Households[(id-1)%len(e.Households)]
		if id > len(e.Households) {
			h = e.Households[e.rng.IntN(len(e.Households))]
		}
		p := &Person{Body: e.skin(), Card: e.card(0x3C)}
		p.Later = p.Body
		pass := edge.Pass{ID: edge.PassID(id), Household: h.ID, Category: "resident", Status: edge.PassActive,
			Building: h.Building, Unit: h.Unit, From: now - 90*day, Until: now + 90*day}
		pass.Name, pass.Language = e.name()
		switch v := e.rng.IntN(100); {
		case v < 6:
			pass.Category = "worker"
		case v < 8:
			pass.Category = "medic"
		case v < 12:
			pass.Category = "courier"
		case v < 15:
			pass.Category = "visitor"
			pass.Visit = &edge.Visit{Consent: edge.Confirmed, Origin: "low", Purpose: "family"}
			pass.Until = now + 2*day
		case v < 22:
			pass.Care = []string{[]string{"elderly", "alone", "disabled", "pregnant", "dialysis"}[e.rng.IntN(5)]}
		}
		if pass.Category == "worker" || pass.Category == "courier" || pass.Category == "medic" {
			// They serve the estate and live elsewhere: no door of theirs in it.
			pass.Household, pass.Building, pass.Unit = 0, "", ""
			h = nil
		}
		if h != nil {
			h.Members++
			h.People = append(h.People, p)
		}
		p.Row = edge.RosterRow{Pass: pass, Credentials: []edge.Credential{Credential(p.Card)}}
		if h != nil {
			p.Row.Household.ID = h.ID
		}
		if e.rng.Float64() < o.Incidents {
			e.give(p, h, now)
		}
		e.People = append(e.People, p)
	}
	for _, h := range e.Households {
		for _, p := range h.People {
			p.Row.Household = h.Household
		}
	}
	for i := range 40 {
		p := &Person{Trait: Unknown, Body: e.skin(), Card: e.card(0x3C)}
		if i%2 == 1 {
			p.Trait, p.Card = Foreign, e.card(0x7F)
		}
		p.Later = p.Body
		e.Strangers = append(e.Strangers, p)
	}
	return e
}

// give makes a person out of the ordinary.
func (e *Estate) give(p *Person, h *Household, now int64) {
	const day = 24 * 3600 * 1000
	traits := []Trait{Fever, Warm, Warm, Warm, Expired, Lost, Suspended, Quarantine, WalksAway, WalksAway, Tailgated, Tailgated, Mother, Mother, Mother, NoSensor, Forgot}
	p.Trait = traits[e.rng.IntN(len(traits))]
	pass := &p.Row.Pass
	switch p.Trait {
	case Fever:
		p.Body, p.Later = 37.9+e.rng.Float64()*0.8, 37.8+e.rng.Float64()*0.6
	case Warm:
		p.Body, p.Later = 37.15+e.rng.Float64()*0.1, 36.4
	case Expired:
		pass.Until = now - day
	case Lost:
		pass.Status = edge.PassLost
	case Suspended:
		pass.Status, pass.Reason = edge.PassSuspended, "moved out"
	case Quarantine:
		if h == nil {
			p.Trait = Ordinary
			return
		}
		h.Quarantine, h.QuarantineUntil = true, now+7*day
	case Mother:
		pass.Dependants = 1
	}
}

// Rows are the roster as the manager hands it in.
func (e *Estate) Rows() []edge.RosterRow {
	rows := make([]edge.RosterRow, 0, len(e.People)+len(e.Strangers)/2)
	for _, p := range e.People {
		rows = append(rows, p.Row)
	}
	// The neighbouring estate's cards are known as such.
	id := edge.PassID(len(e.People))
	for _, p := range e.Strangers {
		if p.Trait == Foreign {
			id++
			rows = append(rows, edge.RosterRow{
				Pass:        edge.Pass{ID: id, Category: "outsider", Status: edge.PassForeign},
				Credentials: []edge.Credential{Credential(p.Card)}})
		}
	}
	return rows
}

// Credential is the canonical form of an EM4100 card.
func Credential(card [5]byte) edge.Credential {
	return edge.Credential(fmt.Sprintf("em:%X", card[:]))
}

func (e *Estate) card(version byte) [5]byte {
	e.nextCard += 1 + e.rng.Uint32N(7)
	n := e.nextCard
	return [5]byte{version, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// skin is a healthy forehead indoors: about 36.3, well below any threshold.
func (e *Estate) skin() float64 {
	return min(36.75, max(35.6, 36.3+e.rng.NormFloat64()*0.15))
}

// name returns a masked name and the language of its bearer.
func (e *Estate) name() (string, string) {
	v := e.rng.IntN(100)
	for _, n := range names {
		if v -= n.weight; v >= 0 {
			continue
		}
		f, g := n.family[e.rng.IntN(len(n.family))], []rune(n.given[e.rng.IntN(len(n.given))])
		if n.order {
			return f + "*" + string(g[len(g)-1:]), n.lang
		}
		return string(g[:1]) + ". " + string([]rune(f)[:1]) + "***", n.lang
	}
	return "*", "en"
}
