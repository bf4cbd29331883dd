package console

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

var built = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func certificates(t *testing.T, dir string, c edge.Clock) *Certificates {
	t.Helper()
	x, err := OpenCertificates(CertificateOptions{Dir: dir, Gate: "东门", Names: []string{"gate.estate.example"}, Clock: c, Build: built, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func leaf(t *testing.T, c *Certificates) *x509.Certificate {
	t.Helper()
	k, err := c.Get(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	return k.Leaf
}

// What a browser does with the certificate, for a name, at a time.
func verify(c *Certificates, l *x509.Certificate, name string, at time.Time) error {
	pool := x509.NewCertPool()
	pool.AddCert(c.ca)
	_, err := l.Verify(x509.VerifyOptions{Roots: pool, DNSName: name, CurrentTime: at})
	return err
}

func TestOwnCertificate(t *testing.T) {
	dir := t.TempDir()
	clk := clock.NewFake(built, 480)
	s := clk.Now()
	s.Clock = edge.ClockUnset
	clk.Set(s)
	c := certificates(t, dir, clk)
	first := leaf(t, c)
	if !first.NotBefore.Equal(built) {
		t.Errorf("without a clock it begins at %v, want the build date %v", first.NotBefore, built)
	}
	for name, at := range map[string]time.Time{"127.0.0.1": built.Add(time.Hour), "gate.estate.example": built.Add(2 * 365 * 24 * time.Hour), "localhost": built} {
		if err := verify(c, first, name, at); err != nil {
			t.Errorf("%s at %v: %v", name, at, err)
		}
	}
	if d := first.NotAfter.Sub(first.NotBefore); d > 825*24*time.Hour {
		t.Errorf("good for %v, which some systems refuse", d)
	}
	// The daemon starts anew: the tablets' trust stays.
	again := certificates(t, dir, clk)
	if again.Fingerprint() != c.Fingerprint() || len(c.Fingerprint()) != 95 {
		t.Errorf("another CA: %s", again.Fingerprint())
	}
	if st, err := os.Stat(filepath.Join(dir, "console-ca.pem")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if leaf(t, c) != first {
		t.Error("a new one for each connection")
	}
	// The clock is trusted now, two years later: a certificate of today.
	s.Time, s.Clock = built.Add(2*365*24*time.Hour).UnixMilli(), edge.ClockServer
	clk.Set(s)
	second := leaf(t, c)
	now := time.UnixMilli(s.Time)
	if second == first || !second.NotBefore.Equal(now.Add(-slack).Truncate(time.Second)) || verify(c, second, "127.0.0.1", now) != nil {
		t.Errorf("from %v until %v at %v", second.NotBefore, second.NotAfter, now)
	}
	clk.Advance(leafLife - renewBefore - time.Hour)
	if leaf(t, c) != second {
		t.Error("renewed too early")
	}
	clk.Advance(2 * time.Hour)
	if third := leaf(t, c); third == second || verify(c, third, "127.0.0.1", time.UnixMilli(clk.Now().Time).Add(300*24*time.Hour)) != nil {
		t.Error("not renewed before its end")
	}
	// Who trusts the CA trusts it for this gate and nothing else.
	for _, foreign := range []struct {
		dns []string
		ip  net.IP
	}{{[]string{"bank.example"}, nil}, {nil, net.IPv4(8, 8, 8, 8)}} {
		k := *second
		k.DNSNames, k.IPAddresses = foreign.dns, nil
		if foreign.ip != nil {
			k.IPAddresses = []net.IP{foreign.ip}
		}
		der, err := x509.CreateCertificate(nil, &k, c.ca, c.leaf.Leaf.PublicKey, c.key)
		if err != nil {
			t.Fatal(err)
		}
		forged, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		name := append(foreign.dns, "8.8.8.8")[0]
		var invalid x509.CertificateInvalidError
		if err := verify(c, forged, name, time.UnixMilli(clk.Now().Time)); !errors.As(err, &invalid) || invalid.Reason != x509.CANotAuthorizedForThisName {
			t.Errorf("a forged certificate for %s: %v", name, err)
		}
	}
	// A damaged file is an error with what to do.
	for _, damage := range []string{"", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if err := os.WriteFile(filepath.Join(dir, "console-ca.pem"), []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenCertificates(CertificateOptions{Dir: dir, Clock: clk}); err == nil || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%q: %v", damage, err)
		}
	}
}

func TestGivenCertificate(t *testing.T) {
	dir := t.TempDir()
	write := func(cn string) {
		own := certificates(t, t.TempDir(), clock.NewFake(built, 0))
		own.o.Names = append(own.o.Names, cn+".gate.estate.example")
		l := leaf(t, own)
		key, err := x509.MarshalPKCS8PrivateKey(own.leaf.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		for name, block := range map[string]*pem.Block{"c.pem": {Type: "CERTIFICATE", Bytes: l.Raw}, "k.pem": {Type: "PRIVATE KEY", Bytes: key}} {
			if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	o := CertificateOptions{Cert: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "k.pem"), Log: slog.New(slog.DiscardHandler)}
	if _, err := OpenCertificates(o); err == nil || !strings.Contains(err.Error(), "c.pem") {
		t.Errorf("no file: %v", err)
	}
	write("one")
	c, err := OpenCertificates(o)
	if err != nil {
		t.Fatal(err)
	}
	one := leaf(t, c)
	if c.Own() {
		t.Error("it counts as the gate's own")
	}
	write("two")
	c.read = time.Time{}
	if two := leaf(t, c); two.Equal(one) {
		t.Error("a renewed file is not read")
	}
	two := leaf(t, c)
	if err := os.WriteFile(o.Cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.read = time.Time{}
	if got := leaf(t, c); !got.Equal(two) {
		t.Error("a damaged file takes the good certificate away")
	}
}

// One port speaks TLS and sends plain HTTP there; in the clear there is how to
// trust the gate, and the display of the machine itself.
func TestFront(t *testing.T) {
	c := newConsole(t, newStreet())
	x := certificates(t, t.TempDir(), clock.NewFake(time.Now(), 0))
	c.cfg.Certificates = x
	c.slow, c.beat = 3*time.Second, 3500*time.Millisecond
	serve(t, c)
	pool := x509.NewCertPool()
	pool.AddCert(x.ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true, DisableKeepAlives: true}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(transport.CloseIdleConnections)
	get := func(url string) (*http.Response, string) {
		t.Helper()
		r, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r, string(b)
	}
	if r, body := get("https://" + c.Addr() + "/enter"); r.StatusCode != 200 || r.ProtoMajor != 2 || !strings.Contains(body, `name="secret"`) {
		t.Errorf("%s %s", r.Proto, r.Status)
	}
	for path, want := range map[string]int{"/": 307, "/enter": 307, "/journal/3?x=1": 307, "/inside": 307, "/rules/": 307, "/rules": 200, "/ca": 200, "/ca.crt": 200, "/ca.pem": 200, "/assets/console.css": 200, "/display/east-in": 200, "/display/": 307} {
		r, body := get("http://" + c.Addr() + path)
		if path == "/display/" { // a screen that was not told its lane gets the first, without TLS as well
			if to := r.Header.Get("Location"); r.StatusCode != want || to != "/display/east-in" {
				t.Errorf("%s: %d %s", path, r.StatusCode, to)
			}
			continue
		}
		if r.StatusCode != want || (want == 307 && r.Header.Get("Location") != "https://"+c.Addr()+path) {
			t.Errorf("%s: %d %s", path, r.StatusCode, r.Header.Get("Location"))
		}
		switch path {
		case "/ca":
			if !strings.Contains(body, x.Fingerprint()) || !strings.Contains(body, "https://"+c.Addr()+"/enter") {
				t.Errorf("the page lacks the fingerprint or the way on")
			}
		case "/rules":
			if !strings.Contains(body, "现行规则") || strings.Contains(body, `href="/journal"`) {
				t.Errorf("the rules in the clear: %s", body)
			}
		case "/ca.crt":
			if got, err := x509.ParseCertificate([]byte(body)); err != nil || !got.Equal(x.ca) {
				t.Errorf("%v", err)
			}
		case "/ca.pem":
			if strings.Contains(body, "PRIVATE") {
				t.Fatal("the key is given away")
			}
		}
	}
	// A PIN is not taken in the clear.
	r, err := client.PostForm("http://"+c.Addr()+"/enter", url.Values{"number": {"7"}, "secret": {pin}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusForbidden || len(r.Cookies()) != 0 {
		t.Errorf("a PIN in the clear: %s", r.Status)
	}
	r, err = client.PostForm("https://"+c.Addr()+"/enter", url.Values{"number": {"7"}, "secret": {pin}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if k := r.Header.Values("Set-Cookie"); r.StatusCode != http.StatusSeeOther || len(k) != 2 || !strings.Contains(k[0], "; Secure") || !strings.Contains(k[1], "; Secure") {
		t.Errorf("%s %v", r.Status, k)
	}
	// The display of another machine goes to TLS as well.
	far := httptest.NewRequest("GET", "http://gate/display/east-in", nil)
	far.RemoteAddr = "192.168.1.9:4711"
	w := httptest.NewRecorder()
	if c.plain(w, far, c.Handler()); w.Code != http.StatusTemporaryRedirect {
		t.Errorf("the display in the clear to another machine: %d", w.Code)
	}
	// A quiet stream lives on, over HTTP/2 as well, for longer than a slow reader has.
	quiet, err := client.Get("https://" + c.Addr() + "/display/east-in/live")
	if err != nil {
		t.Fatal(err)
	}
	events, beats := bufio.NewScanner(quiet.Body), 0
	for beats < 2 && events.Scan() {
		if events.Text() == "event: alive" {
			beats++
		}
	}
	if _ = quiet.Body.Close(); beats < 2 || quiet.ProtoMajor != 2 {
		t.Errorf("%s: ended after %d signs of life: %v", quiet.Proto, beats, events.Err())
	}
	// Who opens connections and says nothing keeps nobody out.
	var silent []net.Conn
	for range 2 * maxSilent {
		k, err := net.Dial("tcp", c.Addr())
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, k)
	}
	for _, k := range silent {
		_ = k.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, "GET", "https://"+c.Addr()+"/enter", nil)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := client.Do(req); err == nil {
			_ = r.Body.Close()
			break
		} else if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}
