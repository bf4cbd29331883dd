package roster

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/xuri/excelize/v2"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"
	"pgregory.net/rapid"

	"gatehouse/edge"
)

var shanghai = time.FixedZone("CST", 8*3600)

func read(t testing.TB, data []byte, o Options) (rows []edge.RosterRow, errs []string) {
	t.Helper()
	for r, err := range Open("list", bytes.NewReader(data), int64(len(data)), o) {
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error of type %T: %v", err, err)
			}
			errs = append(errs, err.Error())
			continue
		}
		rows = append(rows, r)
	}
	return rows, errs
}

const plainList = "编号,姓名,类别,楼栋,单元,房号,卡号,有效期至,身份证号\n" +
	"7,王小明,业主,1号楼,2,301,0013530444,2022-04-30,310101199001011234\n" +
	"8,Grace Okafor,快递,,,,0013530445;0013530446,长期,\n"

func wantPlain() []edge.RosterRow {
	h := HouseholdOf("1号楼", "2-301")
	return []edge.RosterRow{
		{Line: 2, Pass: edge.Pass{ID: 7, Household: h, Category: "resident", Status: edge.PassActive, Name: "王*明", Building: "1号楼", Unit: "2-301",
			Until: time.Date(2022, 5, 1, 0, 0, 0, 0, shanghai).UnixMilli()},
			Household: edge.Household{ID: h, Building: "1号楼", Unit: "2-301"}, Credentials: []edge.Credential{"w34:13530444"}},
		{Line: 3, Pass: edge.Pass{ID: 8, Category: "courier", Status: edge.PassActive, Name: "G* O*"},
			Credentials: []edge.Credential{"w34:13530445", "w34:13530446"}},
	}
}

func TestEncodingsAndSeparators(t *testing.T) {
	gb, err := simplifiedchinese.GB18030.NewEncoder().String(plainList)
	if err != nil {
		t.Fatal(err)
	}
	u16, err := unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewEncoder().String(strings.ReplaceAll(plainList, ",", "\t"))
	if err != nil {
		t.Fatal(err)
	}
	semi := strings.ReplaceAll(strings.ReplaceAll(plainList, ";", " "), ",", ";")
	for _, c := range []struct{ name, data, format string }{
		{"utf-8", plainList, "CSV, UTF-8, comma"},
		{"utf-8 with a mark", "\ufeff" + plainList, "CSV, UTF-8, comma"},
		{"gb18030", gb, "CSV, GB18030, comma"},
		{"utf-16 from a spreadsheet", u16, "CSV, UTF-16, tab"},
		{"semicolons", semi, "CSV, UTF-8, semicolon"},
		{"tabs and CRLF", strings.ReplaceAll(strings.ReplaceAll(plainList, ",", "\t"), "\n", "\r\n"), "CSV, UTF-8, tab"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := Options{CardForm: "em-dec10", Location: shanghai}
			rows, errs := read(t, []byte(c.data), o)
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			if d := cmp.Diff(wantPlain(), rows); d != "" {
				t.Error(d)
			}
			l, err := Inspect("list", strings.NewReader(c.data), int64(len(c.data)), o)
			if err != nil || l.Format != c.format || l.Header != 1 {
				t.Errorf("layout %+v, %v; want %s", l, err, c.format)
			}
			if last := l.Columns[len(l.Columns)-1]; last.Field != "" {
				t.Errorf("the document number's column is read as %q", last.Field)
			}
		})
	}
}

func workbook(t testing.TB, cells map[string]any) []byte {
	t.Helper()
	f := excelize.NewFile()
	defer f.Close()
	for at, v := range cells {
		if err := f.SetCellValue("Sheet1", at, v); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := f.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWorkbook(t *testing.T) {
	rows, errs := read(t, workbook(t, map[string]any{
		"A1": "幸福小区人员名单", "A3": "编号", "B3": "姓名", "C3": "楼栋", "D3": "房号", "E3": "卡号（10位）", "F3": "有效期至", "G3": "开始日期",
		"A4": 7, "B4": "王小明", "C4": "1号楼", "D4": 301, "E4": "0013530444", "F4": time.Date(2022, 4, 30, 0, 0, 0, 0, time.UTC), "G4": time.Date(2022, 4, 1, 6, 30, 0, 0, time.UTC),
		"A6": 9, "B6": "李娜", "E6": 13530445, "A7": 10, "E7": "1.3530445E+19", "A8": "x", "E8": "0000000001",
	}), Options{CardForm: "em-dec10", Location: shanghai})
	h := HouseholdOf("1号楼", "301")
	want := []edge.RosterRow{{Line: 4, Pass: edge.Pass{ID: 7, Household: h, Category: "resident", Status: edge.PassActive, Name: "王*明", Building: "1号楼", Unit: "301",
		From:  time.Date(2022, 4, 1, 6, 30, 0, 0, shanghai).UnixMilli(),
		Until: time.Date(2022, 5, 1, 0, 0, 0, 0, shanghai).UnixMilli()},
		Household: edge.Household{ID: h, Building: "1号楼", Unit: "301"}, Credentials: []edge.Credential{"w34:13530444"}}}
	if d := cmp.Diff(want, rows); d != "" {
		t.Error(d)
	}
	for i, w := range []string{"list: E6 (卡号（10位）): \"13530445\" has 8 digits, 10 on the card: the spreadsheet has dropped the leading zeros",
		"list: E7 (卡号（10位）): \"1.3530445E+19\" is a number that the spreadsheet has rounded", "list: A8 (编号): \"x\" is not a whole number"} {
		if i >= len(errs) || !strings.HasPrefix(errs[i], w) {
			t.Errorf("error %d: want %q, have %q", i, w, errs)
		}
	}
}

func TestErrorsNameTheCell(t *testing.T) {
	for _, c := range []struct{ name, data, want string }{
		{"lost zeros", "编号,卡号\n1,13530444\n", `list: row 2, column 2 (卡号): "13530444" has 8 digits, 10 on the card: the spreadsheet has dropped the leading zeros; format the column as text and type it again (0013530444)`},
		{"rounded", "编号,卡号\n1,1.35E+07\n", `list: row 2, column 2 (卡号): "1.35E+07" is a number that the spreadsheet has rounded`},
		{"no card", "编号,卡号\n1,\n", `list: row 2, column 2 (卡号): the card number is missing`},
		{"no number", "编号,卡号\n,0013530444\n", `list: row 2, column 1 (编号): the pass's number is missing`},
		{"no header", "a,b\nc,d\n", `list: no header row in the first 10 rows`},
		{"no pass column", "姓名,卡号\nx,0013530444\n", `list: row 1: no column with the pass's number`},
		{"no card column", "姓名,编号\nx,1\n", `list: row 1: no column with card numbers`},
		{"twice", "编号,卡号,姓名,name\n", `list: row 1, column 4 (name): columns 3 and 4 are both "name"`},
		{"quote", "编号,卡号\n1,\"00135\n", `list: row 2: extraneous or missing " in quoted-field`},
		{"date", "编号,卡号,until\n1,0013530444,30.4.\n", `list: row 2, column 3 (until): "30.4." is not a date`},
		{"status", "编号,卡号,状态\n1,0013530444,怪\n", `list: row 2, column 3 (状态): "怪" is not known; known are`},
		{"category", "编号,卡号,类别\n1,0013530444,怪\n", `list: row 2, column 3 (类别): "怪" is not known`},
		{"hours", "编号,卡号,hours\n1,0013530444,morning\n", `list: row 2, column 3 (hours): "morning" is not a time slot`},
		{"backwards", "编号,卡号,from,until\n1,0013530444,2022-05-01,2022-04-01\n", `list: row 2: the validity ends before it begins`},
		{"household", "编号,卡号,居家隔离\n1,0013530444,是\n", `list: row 2: the row says something of a household, but not which`},
		{"empty", "", `list: the file is empty`},
		{"xls", "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1xxxx", `list: an old .xls workbook`},
		{"binary", "\x7fELF\x00\x00", `list: this is not a text file`},
		{"damaged workbook", "PK\x03\x04 but no more", `list: cannot read the workbook`},
		{"damaged text", "编号,卡号,姓名\n1,0013530444,王小明你好世界一二三四五六七八九十\xff\n", `list: row 2, column 3 (姓名): the text is damaged`},
		{"no end", "编号,卡号\n1,\"" + strings.Repeat("x", 3<<20), `list: a record of more than 1048576 bytes`},
		{"wide", "编号,卡号\n1,0013530444" + strings.Repeat(",", 300) + "\n", `list: row 2: 302 columns`},
	} {
		t.Run(c.name, func(t *testing.T) {
			rows, errs := read(t, []byte(c.data), Options{CardForm: "em-dec10"})
			if len(rows) != 0 || len(errs) != 1 || !strings.HasPrefix(errs[0], c.want) {
				t.Errorf("%d rows, errors %q\nwant %q", len(rows), errs, c.want)
			}
		})
	}
}

func TestAllErrorsOfARowAndTheRestIsRead(t *testing.T) {
	rows, errs := read(t, []byte("编号,卡号,状态,有效期至\n0,1.3E+9,怪,nie\n2,0013530444,挂失,2022年4月3日\n"), Options{CardForm: "em-dec10"})
	if len(errs) != 4 || len(rows) != 1 || rows[0].Pass.Status != edge.PassLost {
		t.Errorf("%d errors %q, rows %+v", len(errs), errs, rows)
	}
}

func TestMapping(t *testing.T) {
	data := []byte("Ausweis|x,Karte,Notiz\n1,206/30028,geheim\n")
	if _, errs := read(t, data, Options{CardForm: "w26"}); len(errs) != 1 {
		t.Errorf("unknown headers gave %q", errs)
	}
	rows, errs := read(t, data, Options{CardForm: "w26", Mapping: map[string]string{"Ausweis|x": "pass", "KARTE": "card"}})
	if len(errs) > 0 || len(rows) != 1 || rows[0].Credentials[0] != "w26:206/30028" {
		t.Errorf("%+v %q", rows, errs)
	}
	if _, errs := read(t, data, Options{Mapping: map[string]string{"Karte": "cardd"}}); len(errs) != 1 || !strings.Contains(errs[0], `cannot be read as "cardd"`) {
		t.Errorf("a wrong field name gave %q", errs)
	}
}

func TestEveryFieldReads(t *testing.T) {
	rows, errs := read(t, []byte("pass,card,name,category,status,reason,household,building,entrance,unit,area,areas,members,groups,from,until,hours,dependants,max uses,escort,care,language,quarantine,quarantine until,home quarantine,home quarantine until,test at,test result,code,risk,green,vehicle,consent,origin,purpose\n"+
		"1,em:3C00CE754C,Ann,medic,suspended,moved,44,B1,2,301,north,north;gym,4,staff;night,2022-04-01,2022-04-30 18:00,22:30~06:00,2,5,yes,elderly 透析,fr,home,2022-05-01,是,20220502,2022-04-20 08:15,阴性,green,list-a,1,v7,no,中风险,repair\n"), Options{})
	at := func(s string) int64 {
		tm, err := time.Parse("2006-01-02 15:04", s)
		if err != nil {
			t.Fatal(err)
		}
		return tm.UnixMilli()
	}
	want := []edge.RosterRow{{Line: 2, Credentials: []edge.Credential{"em:3C00CE754C"},
		Pass: edge.Pass{ID: 1, Household: 44, Category: "medic", Status: edge.PassSuspended, Reason: "moved", Name: "A*", Building: "B1", Unit: "2-301", Language: "fr",
			Groups: []string{"staff", "night"}, Areas: []string{"north", "gym"}, From: at("2022-04-01 00:00"), Until: at("2022-04-30 18:00"), Hours: "22:30-06:00", Dependants: 2, MaxUses: 5, Escort: true,
			Care: []string{"elderly", "dialysis"}, Quarantine: "home", QuarantineUntil: at("2022-05-02 00:00"), TestAt: at("2022-04-20 08:15"), TestResult: "negative", Code: "green", Risk: "list-a", Green: true, Vehicle: "v7",
			Visit: &edge.Visit{Consent: edge.Denied, Origin: "medium", Purpose: "repair"}},
		Household: edge.Household{ID: 44, Area: "north", Building: "B1", Unit: "2-301", Members: 4, Quarantine: true, QuarantineUntil: at("2022-05-03 00:00")}}}
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if d := cmp.Diff(want, rows); d != "" {
		t.Error(d)
	}
	if n := len(Describe()); n != 35 {
		t.Errorf("%d fields described; this test knows 35: add the new one here", n)
	}
}

func TestMask(t *testing.T) {
	for in, want := range map[string]string{"王小明": "王*明", "王明": "王*", "王": "*", "欧阳子涵": "欧**涵", "Grace Okafor": "G* O*", "Okafor": "O*",
		"김민준": "김*준", "佐藤 陽菜": "佐* 陽*", "Иванова Анна": "И* А*", "王*明": "王*明", "G* O*": "G* O*", "": "", "É́tienne": "É́*"} {
		if got := Mask(in); got != want {
			t.Errorf("Mask(%q) = %q, want %q", in, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "name")
		m := Mask(s)
		if Mask(m) != m {
			t.Fatalf("masking %q twice: %q, %q", s, m, Mask(m))
		}
		letters := func(s string) int {
			return utf8.RuneCountInString(strings.ReplaceAll(strings.Join(strings.Fields(s), ""), "*", ""))
		}
		if n := letters(s); n > 3 && !strings.Contains(strings.TrimSpace(s), " ") && letters(m) == n {
			if m != "" && strings.ContainsAny(s, "abcdefghijklmnopqrstuvwxyz") {
				t.Fatalf("%q shows all its letters: %q", s, m)
			}
		}
	})
}

// What is written as CSV comes back, in either encoding.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 30).Draw(t, "rows")
		gb := rapid.Bool().Draw(t, "gb18030")
		var b strings.Builder
		b.WriteString("编号,卡号,姓名,楼栋,房号\n")
		for i := range n {
			fmt.Fprintf(&b, "%d,%010d,王小%d,%d号楼,%d\n", i+1, 1000+i, i, i%7, 100+i)
		}
		data := b.String()
		if gb {
			var err error
			if data, err = simplifiedchinese.GB18030.NewEncoder().String(data); err != nil {
				t.Fatal(err)
			}
		}
		i := 0
		for r, err := range Open("list", strings.NewReader(data), int64(len(data)), Options{CardForm: "em-dec10"}) {
			if err != nil {
				t.Fatal(err)
			}
			if int(r.Pass.ID) != i+1 || r.Line != i+2 || r.Credentials[0] != edge.Credential(fmt.Sprintf("w34:%d", 1000+i)) || r.Pass.Building != fmt.Sprintf("%d号楼", i%7) {
				t.Fatalf("row %d: %+v", i, r)
			}
			i++
		}
		if i != n {
			t.Fatalf("%d of %d rows", i, n)
		}
	})
}

// FuzzOpen: no input panics, and what is read is within the limits.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(plainList))
	gb, err := simplifiedchinese.GB18030.NewEncoder().String(plainList)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(gb))
	f.Add(workbook(f, map[string]any{"A1": "编号", "B1": "卡号", "A2": 1, "B2": "0013530444"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		for r, err := range Open("list", bytes.NewReader(data), int64(len(data)), Options{CardForm: "em-dec10"}) {
			if err == nil && (r.Pass.ID < 1 || r.Pass.ID > edge.MaxID || len(r.Credentials) == 0 || r.Line < 1 || r.Pass.Category == "" || !utf8.ValidString(r.Pass.Name)) {
				t.Fatalf("a row outside the limits: %+v", r)
			}
		}
	})
}

func BenchmarkCSV(b *testing.B) {
	var s strings.Builder
	s.WriteString("编号,卡号,姓名,楼栋,房号\n")
	const n = 10_000
	for i := range n {
		fmt.Fprintf(&s, "%d,%010d,王小明,%d号楼,%d\n", i+1, 1000+i, i%7, 100+i)
	}
	data := s.String()
	b.ReportAllocs()
	for b.Loop() {
		rows := 0
		for _, err := range Open("list", strings.NewReader(data), int64(len(data)), Options{CardForm: "em-dec10"}) {
			if err != nil {
				b.Fatal(err)
			}
			rows++
		}
		if rows != n {
			b.Fatal(rows)
		}
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "rows/s")
}
