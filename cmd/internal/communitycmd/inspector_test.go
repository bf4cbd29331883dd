package communitycmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"gatehouse/edge/console/accounts"
)

// The authority issues, the inspector's device answers, a gate lets in: each with
// its own command, and no network between them.
func TestInspector(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	must := func(args ...string) string {
		t.Helper()
		out, err := do(ctx, dir, args...)
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return strings.TrimSuffix(out, "\n")
	}
	authority, mine := filepath.Join(dir, "authority"), filepath.Join(dir, "mine")
	key := must("inspector", "key", "--keys", mine)
	cred := must("inspector", "issue", "--keys", authority, "--name", "city.example", "--key", key, "--inspector", "Zhou", "--number", "12", "--valid", "48h") + "\n"
	file := filepath.Join(dir, "credential.txt")
	if err := os.WriteFile(file, []byte(cred), 0o600); err != nil {
		t.Fatal(err)
	}
	trust := must("trust", "--authority", "city.example", "--keys", authority)
	v, err := note.NewVerifier(strings.Fields(trust)[0])
	if err != nil {
		t.Fatal(err)
	}
	a, err := accounts.Open(ctx, filepath.Join(dir, "accounts.db"), accounts.Options{Community: "test.example", Site: "s", Gate: "g", Authorities: func() []note.Verifier { return []note.Verifier{v} }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	answer := must("inspector", "answer", "--keys", mine, "--credential", file, a.Challenge())
	if _, s, err := a.Inspect(ctx, answer); err != nil || s.Actor() != "inspector:12" || s.Name != "Zhou" {
		t.Errorf("%+v %v", s, err)
	}
	for _, bad := range [][]string{
		{"inspector", "issue", "--keys", authority, "--name", "city.example", "--key", "x", "--inspector", "Zhou", "--number", "12"},
		{"inspector", "issue", "--keys", authority, "--name", "city.example", "--key", key, "--inspector", "Zhou", "--number", "0"},
		{"inspector", "issue", "--keys", authority, "--name", "city.example", "--key", key, "--inspector", "Zhou", "--number", "1", "--valid", "20000h"},
		{"inspector", "issue", "--keys", authority, "--name", "city.example", "--key", key},
		{"inspector", "answer", "--keys", mine, "--credential", filepath.Join(dir, "nowhere"), "a/b/c D"},
		{"inspector", "answer", "--keys", mine, "--credential", file, "nonsense"},
		{"inspector", "revoke"},
	} {
		if _, err := do(ctx, dir, bad...); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}
