package communitycmd

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	firmwareconfig "gatehouse/firmware-config"
)

// The city's headquarters and the estate's community each have a key; the estate's
// policy is signed at the one and countersigned at the other, by files.
func TestTwoSignatures(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	city := filepath.Join(dir, "city-keys")
	sample := func(name, as string) string {
		src, err := firmwareconfig.Samples.ReadFile("policies/" + name)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, as)
		if err := os.WriteFile(path, src, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(want string, args ...string) string {
		t.Helper()
		out, err := do(ctx, dir, args...)
		switch {
		case err != nil && (want == "" || !strings.Contains(err.Error(), want)):
			t.Fatalf("%q: %v", args, err)
		case err == nil && want != "":
			t.Fatalf("%q: no error, want %q", args, want)
		}
		return out
	}
	save := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cityFile := sample("city.yaml", "city.yaml") // it asks for its own signature
	ownFile := sample("closed-estate.yaml", "own.yaml")

	if line := run("", "trust", "--authority", "city.example", "--keys", city); !strings.HasPrefix(line, "city.example+") {
		t.Errorf("the authority's line is %q", line)
	}
	cityBundle := save("city.bundle", run("", "policy", "sign", cityFile, "--site", "*"))
	ownBundle := save("own.bundle", run("", "policy", "sign", ownFile, "--site", "estate", "--above", cityFile))
	countersign := func(path string) string {
		return run("", "policy", "countersign", path, "--name", "city.example", "--keys", city)
	}
	run("", "policy", "push", save("city.signed", countersign(cityBundle)), "--site", "estate")
	run("asks for its own signature", "policy", "push", ownBundle, "--site", "estate")
	run("asks for its own signature", "policy", "push", ownFile, "--site", "estate")
	run("not a policy bundle", "policy", "countersign", ownFile, "--name", "city.example", "--keys", city)
	both := save("own.signed", countersign(ownBundle))
	run("signed for", "policy", "push", both, "--site", "other")
	run("", "policy", "push", both, "--site", "estate")
	run("must be above", "policy", "push", both, "--site", "estate")
	list := strings.Split(strings.TrimSpace(run("", "policy", "list", "--site", "estate")), "\n")
	if len(list) != 2 || !strings.HasPrefix(list[0], "city ") || !strings.HasPrefix(list[1], "(the site's own) ") {
		t.Errorf("in force:\n%s", strings.Join(list, "\n"))
	}
}

// A site without a gate may be prepared; a mistyped one is told.
func TestPushToASiteWithoutGates(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	src, err := firmwareconfig.Samples.ReadFile("policies/city.yaml")
	if err != nil {
		t.Fatal(err)
	}
	src = bytes.Replace(src, []byte("countersigned: true"), []byte("countersigned: false"), 1)
	roster, city := filepath.Join(dir, "r.csv"), filepath.Join(dir, "city.yaml")
	if err := errors.Join(os.WriteFile(city, src, 0o600), os.WriteFile(roster, []byte("pass,household,category,card\n1,1,resident,em:3C00CE754C\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := do(ctx, dir, "roster", "import", roster, "--site", "estate"); err != nil {
		t.Fatal(err)
	}
	for site, warning := range map[string]string{
		"estate": "",
		"estaet": "warning: no gate or roster of site \"estaet\" is known, did you mean \"estate\"? (known are: estate)\n",
	} {
		c := New("test")
		var out, told bytes.Buffer
		c.SetOut(&out)
		c.SetErr(&told)
		c.SetArgs([]string{"policy", "push", city, "--site", site, "--store", filepath.Join(dir, "c.db"), "--community", "test.example"})
		if err := c.ExecuteContext(ctx); err != nil || !strings.Contains(out.String(), "published to the gates of "+site) || told.String() != warning {
			t.Errorf("%s: %v, %q, %q", site, err, out.String(), told.String())
		}
	}
	// A roster alone makes a site known.
	if out, err := do(ctx, dir, "erase", "--site", "estate", "--pass", "1"); err != nil || !strings.HasPrefix(out, "0 entries") {
		t.Errorf("%s %v", out, err)
	}
	empty := t.TempDir()
	if _, err := do(ctx, empty, "erase", "--site", "estate", "--pass", "1"); err == nil || !strings.Contains(err.Error(), "this store has none yet") {
		t.Errorf("an empty store: %v", err)
	}
	if out, err := do(ctx, empty, "verify"); err != nil || out != "nothing is stored yet\n" {
		t.Errorf("an empty store: %q %v", out, err)
	}
}
