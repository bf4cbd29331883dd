package community

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// described reads the page: columns as "table.column type", and its queries.
func described(t *testing.T) (columns map[string]bool, queries []string) {
	t.Helper()
	text, err := os.ReadFile("SCHEMA.md")
	if err != nil {
		t.Fatal(err)
	}
	columns = map[string]bool{}
	table := ""
	row := regexp.MustCompile(`^\| (\w+) \| (integer|text|bytes|time) \|`)
	for l := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(l), "### "); ok {
			table = strings.Trim(name, "`")
		} else if m := row.FindStringSubmatch(l); m != nil {
			columns[table+"."+m[1]+" "+m[2]] = true
		}
	}
	for _, m := range regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		queries = append(queries, m[1])
	}
	return columns, queries
}

// The page about the schema says what the migrated database is.
func TestSchemaIsAsDescribed(t *testing.T) {
	for name, where := range map[string]func(t *testing.T) string{
		"sqlite":   func(t *testing.T) string { return filepath.Join(t.TempDir(), "c.db") },
		"postgres": func(t *testing.T) string { return newCluster(t, "fsync=off").newDatabase(t, "page") },
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			s, b, _ := start(t, where(t))
			d := newDevice("estate", "east", 7, 1)
			register(t, s, d, "")
			d.addLines(10)
			d.want(t, d.send(t, b, 0, 10), 10)
			want, queries := described(t)
			catalogue := `SELECT m.name, c.name, c.type FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type IN ('table', 'view') AND m.name NOT LIKE 'sqlite%'`
			if name == "postgres" {
				catalogue = `SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns c JOIN pg_class k ON k.relname = c.table_name
					WHERE c.table_schema = 'public' AND NOT k.relispartition`
			}
			types := map[string]string{"INTEGER": "integer", "BIGINT": "integer", "TEXT": "text", "BLOB": "bytes", "BYTEA": "bytes", "TIMESTAMP WITH TIME ZONE": "time"}
			got := map[string]bool{}
			var table, column, typ sql.NullString
			rows, err := s.store.r.QueryContext(ctx, catalogue)
			err = each(rows, err, func() error {
				if err := rows.Scan(&table, &column, &typ); err != nil {
					return err
				}
				kind := types[strings.ToUpper(typ.String)]
				if name == "sqlite" && table.String == "entries" && column.String == "time" {
					kind = "time" // as text: SQLite has no type for it
				}
				if table.String != "goose_db_version" {
					got[table.String+"."+column.String+" "+kind] = true
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for c := range got {
				if !want[c] {
					t.Errorf("the page lacks %s", c)
				}
			}
			for c := range want {
				if !got[c] {
					t.Errorf("the database lacks %s", c)
				}
			}
			if len(queries) < 4 {
				t.Fatalf("%d queries found on the page", len(queries))
			}
			for i, q := range queries {
				n := 0
				rows, err := s.store.r.QueryContext(ctx, q)
				if err := each(rows, err, func() error { n++; return nil }); err != nil {
					t.Errorf("%s: %v", q, err)
				}
				if i < 3 && n == 0 {
					t.Errorf("%s finds nothing", q)
				}
			}
		})
	}
}
