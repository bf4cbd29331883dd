package console

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http"
	"strings"
	"time"
)

// front listens on one port for TLS and for plain HTTP: the first byte of a TLS
// connection is 22 (RFC 8446, section 5.1), and no method of HTTP begins with it.
// So whoever types the gate's address without https arrives where they are told
// of it.
type front struct {
	net.Listener
	tls   *tls.Config
	conns chan net.Conn
	slots chan struct{} // of connections that have not said yet what they are
	done  chan struct{}
}

// Limits of connections that have not yet said anything.
const (
	maxSilent = 64
	silence   = 5 * time.Second
)

// sendBuffer is what the kernel keeps for one connection. By itself it keeps some
// megabytes, which are minutes of a lane's changes: for so long nobody would see
// that a browser does not read.
const sendBuffer = 64 << 10

func newFront(ln net.Listener, c *tls.Config) *front {
	return &front{Listener: ln, tls: c, conns: make(chan net.Conn), slots: make(chan struct{}, maxSilent), done: make(chan struct{})}
}

// run accepts until the listener is closed.
func (f *front) run(ctx context.Context) error {
	defer close(f.done)
	for {
		c, err := f.Listener.Accept()
		if err != nil {
			return err
		}
		select {
		case f.slots <- struct{}{}:
		default:
			// Somebody opens connections and says nothing; the next one may be a guard's.
			_ = c.Close()
			continue
		}
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetWriteBuffer(sendBuffer) // without it everything works, slower to notice
		}
		go func() {
			defer func() { <-f.slots }()
			_ = c.SetReadDeadline(time.Now().Add(silence))
			p := &peeked{Conn: c, r: bufio.NewReaderSize(c, 4096)}
			first, err := p.r.Peek(1)
			if err != nil {
				_ = c.Close()
				return
			}
			_ = c.SetReadDeadline(time.Time{})
			var out net.Conn = p
			if first[0] == 22 {
				out = tls.Server(p, f.tls)
			}
			select {
			case f.conns <- out:
			case <-ctx.Done():
				_ = c.Close()
			}
		}()
	}
}

// Accept gives connections that have said what they are.
func (f *front) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

// peeked is a connection of which the first bytes were looked at.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// plain is what is served without TLS: how to come to trust the gate, the rules,
// which a resident's telephone reads without a warning about a certificate that it
// has no reason to know, and the resident's display to the screen that is connected to
// this very machine. None of it has personal data, and nobody is logged in here:
// their cookies are for TLS alone. For everything else the browser is sent to TLS.
// There is no HSTS: these pages must stay readable.
func (c *Console) plain(w http.ResponseWriter, r *http.Request, secure http.Handler) {
	path := r.URL.Path
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case reading && (path == "/ca" || path == "/ca.pem" || path == "/ca.crt" || path == "/rules" || strings.HasPrefix(path, "/assets/")):
		secure.ServeHTTP(w, r)
	case reading && strings.HasPrefix(path, "/display/") && fromHere(r):
		secure.ServeHTTP(w, r)
	case reading && r.Host != "":
		http.Redirect(w, r, "https://"+r.Host+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	default:
		http.Error(w, c.say(r, "ca.tls_only"), http.StatusForbidden)
	}
}

func fromHere(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

// ca explains the gate's certificate and how a tablet comes to trust it.
func (c *Console) ca(w http.ResponseWriter, r *http.Request) {
	data := map[string]any{"Own": false, "Secure": "/enter"}
	if x := c.cfg.Certificates; x != nil && x.Own() {
		data["Own"], data["Fingerprint"] = true, x.Fingerprint()
		if r.TLS == nil && r.Host != "" {
			data["Secure"] = "https://" + r.Host + "/enter"
		}
	}
	c.render(w, r, "ca.html", data)
}

// caFile is the CA's certificate to install: DER for telephones and Windows, PEM
// for the rest.
func (c *Console) caFile(w http.ResponseWriter, r *http.Request) {
	x := c.cfg.Certificates
	if x == nil || !x.Own() {
		http.NotFound(w, r)
		return
	}
	if strings.HasSuffix(r.URL.Path, ".pem") {
		w.Header().Set("Content-Type", "application/x-pem-file")
		w.Header().Set("Content-Disposition", `attachment; filename="gatehouse-ca.pem"`)
		_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: x.CA()})
		return
	}
	w.Header().Set("Content-Type", "application/x-x509-ca-cert")
	w.Header().Set("Content-Disposition", `attachment; filename="gatehouse-ca.crt"`)
	_, _ = w.Write(x.CA())
}
