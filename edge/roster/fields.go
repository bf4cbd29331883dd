package roster

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"gatehouse/edge"
)

// field is one thing a column can say.
type field struct {
	name    string
	doc     string
	many    bool     // several columns may say it
	headers []string // normalised
	set     func(*parser, string) error
}

// parser gathers one row.
type parser struct {
	o        Options
	serial   bool // numbers in date columns are spreadsheet days
	row      edge.RosterRow
	entrance string
}

// fields is the one table of columns. Headers are compared as normalHeader
// leaves them.
var fields = []field{
	{"pass", "the pass's number, assigned by the site", false, []string{"pass", "passid", "passno", "passnumber", "id", "编号", "通行证", "通行证号", "通行证编号", "证号", "人员编号", "住户编号"},
		func(p *parser, s string) error { n, err := id(s); p.row.Pass.ID = edge.PassID(n); return err }},
	{"card", "card numbers, several separated by a space or semicolon", true, []string{"card", "cards", "cardno", "cardnumber", "credential", "卡", "卡号", "门禁卡", "门禁卡号", "ic卡号", "id卡号"},
		(*parser).cards},
	{"name", "the holder's name; masked before it is stored", false, []string{"name", "holder", "fullname", "姓名", "名字", "持卡人", "住户姓名"},
		func(p *parser, s string) error { p.row.Pass.Name = Mask(s); return nil }},
	{"category", "resident, worker, visitor, courier, medic, ...", false, []string{"category", "type", "kind", "类别", "类型", "人员类别", "人员类型"},
		func(p *parser, s string) (err error) { p.row.Pass.Category, err = word(s, categories, true); return }},
	{"status", "active, suspended, lost or foreign", false, []string{"status", "state", "状态", "卡状态"},
		func(p *parser, s string) error {
			v, err := word(s, statuses, false)
			p.row.Pass.Status = edge.PassStatus(v)
			return err
		}},
	{"reason", "why it is suspended", false, []string{"reason", "原因", "停用原因"},
		func(p *parser, s string) error { p.row.Pass.Reason = s; return nil }},
	{"household", "the household's number; made from building and unit when absent", false, []string{"household", "householdid", "householdno", "户号", "户编号", "家庭编号"},
		func(p *parser, s string) error {
			n, err := id(s)
			p.row.Household.ID = edge.HouseholdID(n)
			return err
		}},
	{"building", "building", false, []string{"building", "block", "楼", "楼栋", "楼号", "楼幢", "幢", "栋", "栋号"},
		func(p *parser, s string) error { p.row.Pass.Building = s; return nil }},
	{"entrance", "entrance or stair of the building; put before the unit", false, []string{"entrance", "stair", "单元", "单元号"},
		func(p *parser, s string) error { p.entrance = s; return nil }},
	{"unit", "flat", false, []string{"unit", "flat", "room", "apartment", "房号", "室号", "房间", "房间号", "门牌", "门牌号"},
		func(p *parser, s string) error { p.row.Pass.Unit = s; return nil }},
	{"area", "the area of the site that the household lies in", false, []string{"area", "zone", "区域", "片区"},
		func(p *parser, s string) error { p.row.Household.Area = s; return nil }},
	{"areas", "where the pass is valid; empty = everywhere", false, []string{"areas", "validareas", "通行区域", "可通行区域"},
		func(p *parser, s string) error { p.row.Pass.Areas = list(s); return nil }},
	{"members", "persons in the household", false, []string{"members", "persons", "人数", "家庭人数", "户内人数"},
		func(p *parser, s string) (err error) { p.row.Household.Members, err = count(s); return }},
	{"groups", "groups the holder is in", false, []string{"groups", "group", "分组", "组", "组别"},
		func(p *parser, s string) error { p.row.Pass.Groups = list(s); return nil }},
	{"from", "first day or moment of validity", false, []string{"from", "validfrom", "start", "有效期起", "开始日期", "生效日期", "起始日期"},
		func(p *parser, s string) (err error) { p.row.Pass.From, _, err = p.date(s); return }},
	{"until", "last day of validity (that day included), or the moment it ends", false, []string{"until", "validuntil", "validto", "expires", "end", "有效期", "有效期止", "有效期至", "截止日期", "到期日期", "失效日期"},
		func(p *parser, s string) (err error) { p.row.Pass.Until, err = p.end(s); return }},
	{"hours", "daily hours, 06:00-22:30; may span midnight", false, []string{"hours", "时段", "通行时段", "时间段"},
		func(p *parser, s string) (err error) { p.row.Pass.Hours, err = hours(s); return }},
	{"dependants", "persons who may come along", false, []string{"dependants", "dependents", "随行", "随行人数"},
		func(p *parser, s string) (err error) { p.row.Pass.Dependants, err = count(s); return }},
	{"max_uses", "entries it is good for", false, []string{"maxuses", "uses", "次数", "可用次数"},
		func(p *parser, s string) (err error) { p.row.Pass.MaxUses, err = count(s); return }},
	{"escort", "only with an escort: yes or no", false, []string{"escort", "陪同", "需陪同"},
		func(p *parser, s string) (err error) { p.row.Pass.Escort, err = yes(s); return }},
	{"care", "elderly, alone, disabled, pregnant, dialysis", false, []string{"care", "careflags", "关怀", "关爱", "特殊情况"},
		func(p *parser, s string) error {
			for _, c := range list(s) {
				w, err := word(c, cares, false)
				if err != nil {
					return err
				}
				p.row.Pass.Care = append(p.row.Pass.Care, w)
			}
			return nil
		}},
	{"language", "BCP 47", false, []string{"language", "lang", "语言"},
		func(p *parser, s string) error { p.row.Pass.Language = s; return nil }},
	{"quarantine", "of the holder: home, observation or released", false, []string{"quarantine", "隔离", "隔离状态"},
		func(p *parser, s string) (err error) {
			p.row.Pass.Quarantine, err = word(s, quarantines, false)
			return
		}},
	{"quarantine_until", "end of the holder's quarantine", false, []string{"quarantineuntil", "隔离至", "隔离截止"},
		func(p *parser, s string) (err error) { p.row.Pass.QuarantineUntil, err = p.end(s); return }},
	{"home_quarantine", "of the whole household: yes or no", false, []string{"homequarantine", "householdquarantine", "居家隔离", "全户隔离"},
		func(p *parser, s string) (err error) { p.row.Household.Quarantine, err = yes(s); return }},
	{"home_quarantine_until", "end of the household's quarantine", false, []string{"homequarantineuntil", "居家隔离至"},
		func(p *parser, s string) (err error) { p.row.Household.QuarantineUntil, err = p.end(s); return }},
	{"test_at", "when the last test's sample was taken", false, []string{"testat", "testtime", "采样时间", "核酸采样时间", "核酸时间"},
		func(p *parser, s string) (err error) { p.row.Pass.TestAt, _, err = p.date(s); return }},
	{"test_result", "negative, positive or pending", false, []string{"testresult", "核酸结果", "检测结果"},
		func(p *parser, s string) (err error) { p.row.Pass.TestResult, err = word(s, results, false); return }},
	{"code", "health code: green, yellow or red", false, []string{"code", "healthcode", "健康码"},
		func(p *parser, s string) (err error) { p.row.Pass.Code, err = word(s, colours, false); return }},
	{"risk", "why the holder is on a risk list", false, []string{"risk", "风险"},
		func(p *parser, s string) error { p.row.Pass.Risk = s; return nil }},
	{"green", "medical green channel: yes or no", false, []string{"green", "greenchannel", "绿色通道", "就医绿色通道"},
		func(p *parser, s string) (err error) { p.row.Pass.Green, err = yes(s); return }},
	{"consent", "of a visitor's host: yes or no; empty = was not asked", false, []string{"consent", "hostconsent", "被访人同意", "户主同意"},
		func(p *parser, s string) error {
			ok, err := yes(s)
			if err != nil {
				return err
			}
			p.visit().Consent = edge.Denied
			if ok {
				p.visit().Consent = edge.Confirmed
			}
			return nil
		}},
	{"origin", "risk of where a visitor or courier comes from: low, medium or high", false, []string{"origin", "originrisk", "来源风险", "来源地风险"},
		func(p *parser, s string) (err error) { p.visit().Origin, err = word(s, risks, false); return }},
	{"purpose", "of a visit, in one word: family, repair, delivery, ...", false, []string{"purpose", "visitpurpose", "来访事由", "事由"},
		func(p *parser, s string) error { p.visit().Purpose = s; return nil }},
	{"vehicle", "opaque id of a vehicle, never its plate", false, []string{"vehicle", "vehicleid", "车辆编号"},
		func(p *parser, s string) error { p.row.Pass.Vehicle = s; return nil }},
}

func (p *parser) visit() *edge.Visit {
	if p.row.Pass.Visit == nil {
		p.row.Pass.Visit = &edge.Visit{}
	}
	return p.row.Pass.Visit
}

var (
	risks      = map[string]string{"low": "low", "medium": "medium", "high": "high", "低": "low", "中": "medium", "高": "high", "低风险": "low", "中风险": "medium", "高风险": "high"}
	categories = map[string]string{"居民": "resident", "住户": "resident", "业主": "resident", "租户": "resident", "家属": "resident",
		"工作人员": "worker", "员工": "worker", "物业": "worker", "保安": "worker", "访客": "visitor", "来访": "visitor",
		"快递": "courier", "外卖": "courier", "配送": "courier", "医护": "medic", "医务": "medic", "医生": "medic", "志愿者": "volunteer", "外来": "outsider"}
	statuses = map[string]string{"正常": "active", "有效": "active", "启用": "active", "active": "active", "ok": "active",
		"停用": "suspended", "暂停": "suspended", "冻结": "suspended", "注销": "suspended", "suspended": "suspended",
		"挂失": "lost", "遗失": "lost", "丢失": "lost", "lost": "lost", "外来": "foreign", "外小区": "foreign", "foreign": "foreign"}
	cares = map[string]string{"老人": "elderly", "高龄": "elderly", "elderly": "elderly", "独居": "alone", "alone": "alone", "残疾": "disabled", "disabled": "disabled",
		"孕妇": "pregnant", "pregnant": "pregnant", "透析": "dialysis", "dialysis": "dialysis"}
	quarantines = map[string]string{"居家": "home", "居家隔离": "home", "home": "home", "观察": "observation", "居家观察": "observation", "observation": "observation",
		"解除": "released", "已解除": "released", "released": "released", "无": "", "否": "", "no": "", "none": ""}
	results = map[string]string{"阴性": "negative", "阴": "negative", "negative": "negative", "阳性": "positive", "阳": "positive", "positive": "positive", "待出": "pending", "未出": "pending", "pending": "pending"}
	colours = map[string]string{"绿": "green", "绿码": "green", "green": "green", "黄": "yellow", "黄码": "yellow", "yellow": "yellow", "红": "red", "红码": "red", "red": "red"}
	yesNo   = map[string]string{"是": "yes", "有": "yes", "需": "yes", "y": "yes", "yes": "yes", "true": "yes", "1": "yes", "√": "yes", "否": "", "无": "", "不": "", "n": "", "no": "", "false": "", "0": "", "×": ""}
)

// Fields are the names that a mapping may use.
func Fields() []string {
	var out []string
	for i := range fields {
		out = append(out, fields[i].name)
	}
	return out
}

// Describe gives each field's name, meaning and the headers it is known by.
func Describe() [][3]string {
	var out [][3]string
	for i := range fields {
		f := &fields[i]
		out = append(out, [3]string{f.name, f.doc, strings.Join(f.headers, " ")})
	}
	return out
}

func fieldNamed(name string) *field {
	for i := range fields {
		if fields[i].name == name {
			return &fields[i]
		}
	}
	return nil
}

// fieldOf finds the field of a normalised header. A number after it tells
// several columns of one kind apart: 卡号2.
func fieldOf(h string) *field {
	if h == "" {
		return nil
	}
	for i := range fields {
		if slices.Contains(fields[i].headers, h) {
			return &fields[i]
		}
	}
	if t := strings.TrimRight(h, "0123456789"); t != h {
		if f := fieldOf(t); f != nil && f.many {
			return f
		}
	}
	return nil
}

// normalHeader drops what people put around a header: case, spaces, marks,
// and a remark in brackets.
func normalHeader(s string) string {
	s = strings.ToLower(norm.NFKC.String(s))
	if i := strings.IndexByte(s, '('); i > 0 {
		s = s[:i]
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return -1
	}, s)
}

// plain makes full-width digits and letters plain ones and trims the text.
func plain(s string) string {
	s = strings.TrimSpace(s)
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return strings.TrimSpace(norm.NFKC.String(s))
		}
	}
	return s
}

func broken(s string) bool { return !utf8.ValidString(s) || strings.ContainsRune(s, utf8.RuneError) }

func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" ,;/|、，；\t\n", r) })
}

// scientific is what a spreadsheet makes of a long number: 1.35E+07.
var scientific = regexp.MustCompile(`^\d+(\.\d+)?[eE]\+\d+$|^\d+\.\d+[eE]\d+$`)

func damaged(s string) error {
	if scientific.MatchString(s) {
		return fmt.Errorf("%q is a number that the spreadsheet has rounded: format the column as text and type it again", s)
	}
	return nil
}

func id(s string) (int64, error) {
	if err := damaged(s); err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 || n > edge.MaxID {
		return 0, fmt.Errorf("%q is not a whole number from 1 to %d", s, int64(edge.MaxID))
	}
	return n, nil
}

func count(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 1000 {
		return 0, fmt.Errorf("%q is not a whole number from 0 to 1000", s)
	}
	return n, nil
}

// identifier is a coded word that a policy may name.
var identifier = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)

// word turns what people write into the coded word. open allows words beyond
// the list, if they look like one.
func word(s string, known map[string]string, open bool) (string, error) {
	s = strings.ToLower(s)
	if v, ok := known[s]; ok {
		return v, nil
	}
	if open && identifier.MatchString(s) {
		return s, nil
	}
	var names []string
	for k := range known {
		names = append(names, k)
	}
	slices.Sort(names)
	return "", fmt.Errorf("%q is not known; known are %s", s, strings.Join(names, ", "))
}

func yes(s string) (bool, error) {
	v, err := word(s, yesNo, false)
	return v == "yes", err
}

// cards reads one cell with one or more card numbers. "206,30028" is one
// number, so a comma does not separate them.
func (p *parser) cards(s string) error {
	for _, c := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" ;|、；\t\n", r) }) {
		if err := damaged(c); err != nil {
			return err
		}
		if err := lostZeros(c, p.o.CardForm); err != nil {
			return err
		}
		cred, err := edge.ParseCredential(c, p.o.CardForm)
		if err != nil {
			return err
		}
		if !slices.Contains(p.row.Credentials, cred) {
			p.row.Credentials = append(p.row.Credentials, cred)
		}
	}
	if len(p.row.Credentials) > 16 {
		return fmt.Errorf("more than 16 cards on one pass")
	}
	return nil
}

// lostZeros tells a number whose leading zeros the spreadsheet has dropped
// from one that is wrong in another way: only digits are left, and too few.
func lostZeros(s, form string) error {
	var want int
	switch form {
	case "em-dec10", "em-hex":
		want = 10
	case "uid":
		want = len(s) + len(s)%2
		want = max(want, 8)
	}
	if len(s) >= want {
		return nil
	}
	for _, r := range s {
		if r < '0' || r > '9' {
			return nil
		}
	}
	return fmt.Errorf("%q has %d digits, %s on the card: the spreadsheet has dropped the leading zeros; format the column as text and type it again (%s)",
		s, len(s), strconv.Itoa(want), strings.Repeat("0", want-len(s))+s)
}

var dateLayouts = []struct {
	layout string
	day    bool // without a time of day
}{
	{"2006-1-2", true}, {"2006/1/2", true}, {"2006.1.2", true}, {"2006年1月2日", true}, {"20060102", true},
	{"2006-1-2 15:04", false}, {"2006-1-2 15:04:05", false}, {"2006/1/2 15:04", false}, {"2006/1/2 15:04:05", false}, {"2006年1月2日 15:04", false},
	{time.RFC3339, false}, {"2006-01-02T15:04", false},
}

// date reads a day or a moment in the site's time. day says which.
func (p *parser) date(s string) (ms int64, day bool, err error) {
	switch s {
	case "长期", "永久", "always", "forever":
		return 0, false, nil
	}
	if p.serial {
		if f, err := strconv.ParseFloat(s, 64); err == nil && f >= 1 && f < 2958466 {
			days, part := math.Modf(f)
			// Day 1 is 1900-01-01, and the calendar has a 1900-02-29 that never was.
			t := time.Date(1899, 12, 30, 0, 0, int(math.Round(part*86400)), 0, p.o.Location).AddDate(0, 0, int(days))
			return t.UnixMilli(), part == 0, nil
		}
	}
	for _, l := range dateLayouts {
		if t, err := time.ParseInLocation(l.layout, s, p.o.Location); err == nil {
			if y := t.Year(); y < 1900 || y > 9999 {
				break
			}
			return t.UnixMilli(), l.day, nil
		}
	}
	return 0, false, fmt.Errorf("%q is not a date; write 2022-04-30, 2022/4/30, 2022年4月30日, or with a time 2022-04-30 18:00", s)
}

// end is a date whose day counts in full.
func (p *parser) end(s string) (int64, error) {
	ms, day, err := p.date(s)
	if err != nil || !day {
		return ms, err
	}
	return time.UnixMilli(ms).In(p.o.Location).AddDate(0, 0, 1).UnixMilli(), nil
}

func hours(s string) (string, error) {
	a, b, ok := strings.Cut(strings.NewReplacer("~", "-", "至", "-", " ", "", "—", "-", "–", "-").Replace(s), "-")
	from, err1 := time.Parse("15:04", a)
	until, err2 := time.Parse("15:04", b)
	if !ok || err1 != nil || err2 != nil || from.Equal(until) {
		return "", fmt.Errorf("%q is not a time slot; write 06:00-22:30", s)
	}
	return from.Format("15:04") + "-" + until.Format("15:04"), nil
}

// finish fills in what follows from several columns.
func (p *parser) finish() error {
	pass, home := &p.row.Pass, &p.row.Household
	if p.entrance != "" {
		pass.Unit = strings.TrimSuffix(p.entrance, "单元") + "-" + pass.Unit
		pass.Unit = strings.TrimSuffix(pass.Unit, "-")
	}
	if pass.Category == "" {
		pass.Category = "resident"
	}
	if pass.Status == "" {
		pass.Status = edge.PassActive
	}
	if pass.From != 0 && pass.Until != 0 && pass.From >= pass.Until {
		return fmt.Errorf("the validity ends before it begins")
	}
	if home.ID == 0 && pass.Building != "" && pass.Unit != "" {
		home.ID = HouseholdOf(pass.Building, pass.Unit)
	}
	if home.ID == 0 {
		if home.Quarantine || home.Members != 0 {
			return fmt.Errorf("the row says something of a household, but not which: neither a household number nor building and unit")
		}
		*home = edge.Household{}
		return nil
	}
	pass.Household = home.ID
	home.Building, home.Unit = pass.Building, pass.Unit
	return nil
}

// HouseholdOf makes a household's number from its door, for rosters that
// have none. The same door has the same number for ever; that two doors of one
// site share one is as likely as 1 in 10,000 with a million doors, and the
// registry refuses it.
func HouseholdOf(building, unit string) edge.HouseholdID {
	h := sha256.Sum256([]byte(building + "\x00" + unit))
	return edge.HouseholdID(binary.BigEndian.Uint64(h[:8])>>12 | 1<<52)
}

// Mask hides most of a name: 王小明 is 王*明, 王明 is 王*, Grace Okafor is
// G* O*. What is masked stays as it is.
func Mask(name string) string {
	words := strings.Fields(norm.NFC.String(name))
	if len(words) != 1 {
		for i, w := range words {
			words[i] = initial(w) + "*"
		}
		return strings.Join(words, " ")
	}
	r := []rune(words[0])
	if !ideographic(r[0]) {
		return initial(words[0]) + "*"
	}
	switch len(r) {
	case 1:
		return "*"
	case 2:
		return string(r[0]) + "*"
	}
	return string(r[0]) + strings.Repeat("*", len(r)-2) + string(r[len(r)-1])
}

func ideographic(r rune) bool {
	return unicode.In(r, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana)
}

// initial is the first letter of a word with the marks that belong to it.
func initial(w string) string {
	r := []rune(w)
	if r[0] == '*' {
		return ""
	}
	n := 1
	for n < len(r) && unicode.Is(unicode.M, r[n]) {
		n++
	}
	return string(r[:n])
}
