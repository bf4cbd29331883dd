package enrolcmd

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gatehouse/cmd/internal/app"
)

// From a browser: find, watch, paste.
func TestBrowser(t *testing.T) {
	e := newEstate(t)
	folder := gateFolder(t, "east")
	good, err := os.ReadFile(folder)
	if err != nil {
		t.Fatal(err)
	}
	// A system with the package: the page gives the service its devices.
	root := t.TempDir()
	conf := filepath.Join(root, "etc/gatehouse/gate.yaml")
	if err := os.MkdirAll(filepath.Join(root, "usr/lib/systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Dir(folder), filepath.Dir(conf)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "usr/lib/systemd/system/gatehouse.service"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(conf); err != nil { // the package ships none
		t.Fatal(err)
	}
	said := &lines{}
	addr := freeAddr(t)
	done := make(chan error, 1)
	go func() {
		done <- (&options{root: root, config: conf, browser: addr, wait: time.Hour}).run(t.Context(), said, io.Discard)
	}()
	var open string
	waitFor(t, "the page is there", func() bool {
		open = regexp.MustCompile(`http://\S+`).FindString(said.String())
		return open != ""
	})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	c := &http.Client{Jar: jar, Transport: tr}
	read := func(r *http.Response, err error) (string, int) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		return string(b), r.StatusCode
	}
	base := "http://" + addr
	for _, u := range []string{base, base + "/?code=WRONG", base + "/code.png"} {
		if _, status := read(c.Get(u)); status != http.StatusForbidden {
			t.Errorf("%s: %d", u, status)
		}
	}
	page, status := read(c.Get(open))
	if status != http.StatusOK || !strings.Contains(page, "gatehouse://") || !strings.Contains(page, "Find what is plugged in") {
		t.Fatalf("%d %s", status, page)
	}
	// Another page in the same browser cannot make it do anything.
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/config", strings.NewReader("text=x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if _, status := read(c.Do(r)); status != http.StatusForbidden {
		t.Errorf("a form of another page: %d", status)
	}
	if page, _ = read(c.PostForm(base+"/find", nil)); !strings.Contains(page, "Serial ports:") {
		t.Errorf("find: %s", page)
	}
	if page, _ = read(c.PostForm(base+"/config", url.Values{"text": {"community: lakeside\nsite: \"\"\n"}})); !strings.Contains(page, "gate.yaml:2") || !strings.Contains(page, "must be given") {
		t.Errorf("a wrong configuration: %s", page)
	}
	if _, err := os.Stat(conf); err == nil {
		t.Error("a wrong configuration was kept")
	}
	text := strings.ReplaceAll(string(good), "\n", "\r\n") // as browsers send it
	if page, _ = read(c.PostForm(base+"/config", url.Values{"text": {text}})); !strings.Contains(page, "Saved.") {
		t.Errorf("a good configuration: %s", page)
	}
	if !strings.Contains(page, "the service may open no device") {
		t.Errorf("the service's devices are not told: %s", page)
	}
	drop := filepath.Join(root, "etc/systemd/system/gatehouse.service.d/10-devices.conf")
	if _, err := os.Stat(drop); err != nil {
		t.Error(err)
	}
	if err := os.Remove(drop); err != nil {
		t.Error(err)
	}
	if kept, err := os.ReadFile(conf); err != nil || string(kept) != string(good) {
		t.Errorf("kept %q, %v", kept, err)
	}
	if page, _ = read(c.PostForm(base+"/enrol", url.Values{"invitation": {"https://elsewhere"}})); !strings.Contains(page, "not an invitation") {
		t.Errorf("no invitation: %s", page)
	}
	inv := strings.TrimSpace(e.must(t, "invite", "--site", "north"))
	read(c.PostForm(base+"/enrol", url.Values{"invitation": {inv + "\r\n"}}))
	var code string
	waitFor(t, "the page shows the code and what the server says", func() bool {
		page, _ = read(c.Get(base))
		code = regexp.MustCompile(`[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}`).FindString(page)
		return code != "" && strings.Contains(page, "waiting for approval")
	})
	if png, status := read(c.Get(base + "/code.png")); status != http.StatusOK || !strings.HasPrefix(png, "\x89PNG") {
		t.Errorf("the picture: %d", status)
	}
	if !strings.Contains(said.String(), "AGE-SECRET-KEY-1") || strings.Contains(page, "AGE-SECRET") {
		t.Error("the recovery key belongs on the terminal, and not on a page without encryption")
	}
	e.must(t, "gates", "approve", "north/east", code)
	waitFor(t, "the page says that it is approved", func() bool {
		page, _ = read(c.Get(base))
		return strings.Contains(page, "is gate east of site north now")
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(drop); err != nil {
		t.Errorf("enrolling gives the service nothing: %v", err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(conf), "state/keys/tls.pem")); err != nil {
		t.Error(err)
	}
	start(t, conf, app.Options{TrustClock: true}).receipted(t)
}

func TestBrowserClosesWhenSomebodyGuesses(t *testing.T) {
	conf := gateFolder(t, "east")
	addr := freeAddr(t)
	said := &lines{}
	done := make(chan error, 1)
	go func() { done <- enroll(t.Context(), said, conf, "--browser", addr) }()
	waitFor(t, "the page is there", func() bool { return strings.Contains(said.String(), "http://") })
	tr := &http.Transport{DisableKeepAlives: true}
	c := &http.Client{Transport: tr}
	for range wrongCodes {
		r, err := c.Get("http://" + addr + "/?code=GUESS")
		if err != nil {
			break
		}
		_ = r.Body.Close()
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "guessing") {
		t.Errorf("%v", err)
	}
}
