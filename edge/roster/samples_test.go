package roster

import (
	"bytes"
	"encoding/csv"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/xuri/excelize/v2"
	"golang.org/x/text/encoding/simplifiedchinese"

	"gatehouse/edge"
)

var update = flag.Bool("update", false, "write the sample rosters anew")

const samples = "../../firmware-config/samples"

// sampleRows are the shipped sample rosters: one list in three formats. Nobody
// in it is real.
var sampleRows = [][]string{
	{"编号", "姓名", "类别", "楼栋", "单元", "房号", "卡号", "有效期起", "有效期止", "通行时段", "关怀", "语言", "联系电话"},
	{"1001", "王小明", "业主", "1号楼", "1", "101", "0013530444", "2022-04-01", "2022-12-31", "", "", "", "000-0000"},
	{"1002", "李秀兰", "居民", "1号楼", "1", "101", "0013530445", "2022-04-01", "2022-12-31", "", "老人;独居", "", ""},
	{"1003", "欧阳子涵", "租户", "1号楼", "2", "203", "0013530446 0013530447", "2022-04-01", "长期", "", "", "", ""},
	{"1004", "Grace Okafor", "居民", "2号楼", "1", "502", "0013530448", "2022-04-01", "2022-12-31", "", "", "en", ""},
	{"1005", "김민준", "居民", "2号楼", "1", "601", "0013530449", "2022-04-01", "2022-12-31", "", "", "ko", ""},
	{"1006", "赵刚", "物业", "", "", "", "0013530450", "2022-04-01", "2022-12-31", "06:00-22:30", "", "", ""},
	{"1007", "孙勇", "快递", "", "", "", "0013530451", "2022-04-01", "2022-04-30", "08:00-20:00", "", "", ""},
	{"1008", "陈敏", "医护", "", "", "", "0013530452", "2022-04-01", "2022-12-31", "", "", "", ""},
}

func writeSamples(t *testing.T) {
	t.Helper()
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	if err := w.WriteAll(sampleRows); err != nil {
		t.Fatal(err)
	}
	gb, err := simplifiedchinese.GB18030.NewEncoder().Bytes(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	f := excelize.NewFile()
	defer f.Close()
	for i, r := range sampleRows {
		at, err := excelize.CoordinatesToCellName(1, i+2)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.SetSheetRow("Sheet1", at, &r); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.SetCellStr("Sheet1", "A1", "幸福小区出入证名单（样例）"); err != nil {
		t.Fatal(err)
	}
	var x bytes.Buffer
	if err := f.Write(&x); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(samples, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"roster-utf8.csv": b.Bytes(), "roster-gb18030.csv": gb, "roster.xlsx": x.Bytes()} {
		if err := os.WriteFile(filepath.Join(samples, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// The shipped samples are one roster in three formats, and all are read alike.
func TestSamples(t *testing.T) {
	if *update {
		writeSamples(t)
	}
	var first []edge.RosterRow
	for _, name := range []string{"roster-utf8.csv", "roster-gb18030.csv", "roster.xlsx"} {
		data, err := os.ReadFile(filepath.Join(samples, name))
		if err != nil {
			t.Fatal(err)
		}
		rows, errs := read(t, data, Options{CardForm: "em-dec10", Location: shanghai})
		if len(errs) > 0 || len(rows) != 8 {
			t.Fatalf("%s: %d rows, %q", name, len(rows), errs)
		}
		for i := range rows {
			want := i + 2
			if filepath.Ext(name) == ".xlsx" {
				want++ // the workbook has a title above its headers
			}
			if rows[i].Line != want {
				t.Errorf("%s: row %d is said to be on line %d, want %d", name, i, rows[i].Line, want)
			}
			rows[i].Line = 0
		}
		if first == nil {
			first = rows
			p := rows[2].Pass
			if p.Name != "欧**涵" || p.Unit != "2-203" || p.Until != 0 || p.From != time.Date(2022, 4, 1, 0, 0, 0, 0, shanghai).UnixMilli() || len(rows[2].Credentials) != 2 {
				t.Errorf("%+v", rows[2])
			}
		}
		if d := cmp.Diff(first, rows); d != "" {
			t.Errorf("%s differs: %s", name, d)
		}
	}
}
