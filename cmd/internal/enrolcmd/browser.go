package enrolcmd

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"image/png"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/boombuler/barcode"
	"github.com/boombuler/barcode/qr"

	"gatehouse/cmd/internal/backup"
	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/devicescmd"
	"gatehouse/cmd/internal/setupcmd"
	"gatehouse/edge/identity"
	firmwareconfig "gatehouse/firmware-config"
	"gatehouse/sync/wire"
)

//go:embed page.html
var pageSource string

const (
	browserTime = time.Hour
	watchTime   = "20s"
	wrongCodes  = 20       // tries before the page closes
	maxForm     = 64 << 10 // bytes
	cookie      = "setup"
)

// page is the set-up page for a browser: find, watch, paste. It is there for an
// hour, for whoever has the code that was printed where it was started.
type page struct {
	conf  string
	root  string // of the system whose service is set up
	code  string
	out   io.Writer
	log   *slog.Logger
	until time.Time
	view  *template.Template
	stop  context.CancelCauseFunc
	ctx   context.Context // of the page's life, for what goes on between requests

	busy sync.Mutex // devices have one user

	mu       sync.Mutex
	wrong    int
	found    string
	cfgErr   string
	text     string // that was refused
	saved    bool
	devices  string // what the service may open, or why it is not told
	asking   bool
	approved bool
	says     string
	enrolErr string
	line     string
	shown    string // the device's code
}

var errDone = errors.New("set up")

// browse serves the page until the device is approved, or the hour is over.
func (o *options) browse(ctx context.Context, out, errOut io.Writer) error {
	view, err := template.New("page").Parse(pageSource)
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.browser)
	if err != nil {
		return fmt.Errorf("cannot serve the page: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, browserTime)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	p := &page{conf: o.config, root: o.root, code: rand.Text()[:10], out: out, log: slog.New(slog.NewTextHandler(errOut, nil)), until: time.Now().Add(browserTime), view: view, stop: stop, ctx: ctx}
	s := &http.Server{Handler: p.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	for _, a := range addresses(l.Addr()) {
		fmt.Fprintf(out, "Open in a browser, within an hour:   http://%s/?code=%s\n", a, p.code)
	}
	select {
	case err := <-served:
		return fmt.Errorf("the page has ended: %w", err)
	case <-ctx.Done():
	}
	// Whoever looks at the page is to see how it ended.
	end, ended := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer ended()
	if err := errors.Join(s.Shutdown(end), ignoreClosed(<-served)); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errDone):
		cfg, err := config.Load(o.config)
		if err != nil {
			return err
		}
		return o.done(context.WithoutCancel(ctx), cfg, out)
	case errors.Is(cause, context.DeadlineExceeded):
		return errors.New("the hour is over: start it again when somebody is there")
	case errors.Is(cause, context.Canceled):
		return nil // by whoever started it
	default:
		return cause
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// addresses are those under which a browser may find the listener.
func addresses(a net.Addr) []string {
	t, ok := a.(*net.TCPAddr)
	if !ok || !t.IP.IsUnspecified() {
		return []string{a.String()}
	}
	all, _ := net.InterfaceAddrs()
	return reachable(all, t.Port)
}

// reachable are the addresses that another computer can have in its browser. While
// there is no network, the port and the code are shown with a word in the address's place.
func reachable(all []net.Addr, port int) (out []string) {
	for _, x := range all {
		if n, ok := x.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			out = append(out, net.JoinHostPort(n.IP.String(), fmt.Sprint(port)))
		}
	}
	if len(out) == 0 {
		out = append(out, fmt.Sprintf("ADDRESS-OF-THIS-DEVICE:%d", port))
	}
	return out
}

func (p *page) handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /{$}", p.show)
	m.HandleFunc("GET /code.png", p.picture)
	m.HandleFunc("POST /find", p.find)
	m.HandleFunc("POST /config", p.config)
	m.HandleFunc("POST /watch", p.watch)
	m.HandleFunc("POST /enrol", p.enrol)
	return http.NewCrossOriginProtection().Handler(p.known(m))
}

// known lets in who has the code: once in the address, then in a cookie.
func (p *page) known(next http.Handler) http.Handler {
	right := func(s string) bool { return subtle.ConstantTimeCompare([]byte(s), []byte(p.code)) == 1 }
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; frame-src 'self'; form-action 'self'; frame-ancestors 'self'")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "same-origin") // the address has the code in it
		h.Set("X-Content-Type-Options", "nosniff")
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if c, err := r.Cookie(cookie); err == nil && right(c.Value) {
			next.ServeHTTP(w, r)
			return
		}
		given := r.URL.Query().Get("code")
		if right(given) {
			http.SetCookie(w, &http.Cookie{Name: cookie, Value: p.code, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: int(browserTime.Seconds())})
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		if given != "" {
			p.mu.Lock()
			p.wrong++
			over := p.wrong >= wrongCodes
			p.mu.Unlock()
			if over {
				p.stop(errors.New("too many wrong codes: somebody is guessing; the page is closed"))
			}
		}
		http.Error(w, "This page wants the address with the code that the device has printed.", http.StatusForbidden)
	})
}

func (p *page) show(w http.ResponseWriter, _ *http.Request) {
	text, err := os.ReadFile(p.conf)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = firmwareconfig.Samples.ReadFile("gate-no-hardware.yaml") // something to begin with
	}
	if err != nil {
		text = []byte("# " + err.Error() + "\n")
	}
	p.mu.Lock()
	d := map[string]any{"Until": p.until.Format("15:04"), "Found": p.found, "Config": string(text), "ConfigError": p.cfgErr, "Saved": p.saved, "Devices": p.devices, "Waiting": p.asking && !p.approved,
		"Approved": p.approved, "Says": p.says, "EnrolError": p.enrolErr, "Line": p.line, "Code": p.shown, "Gate": "", "Site": ""}
	if p.text != "" {
		d["Config"] = p.text
	}
	p.saved = false
	approved := p.approved
	p.mu.Unlock()
	if cfg, err := config.Parse(p.conf, text); err == nil {
		d["Gate"], d["Site"] = cfg.Gate, cfg.Site
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := p.view.Execute(w, d); err != nil {
		p.log.Debug("cannot send the page", "err", err)
		return
	}
	if approved {
		p.stop(errDone) // it was seen
	}
}

// run runs one of the device commands and gives what it prints.
func (p *page) run(ctx context.Context, w io.Writer, args ...string) error {
	if !p.busy.TryLock() {
		return errors.New("the devices are being listened to already: wait a moment")
	}
	defer p.busy.Unlock()
	c := devicescmd.New()
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetOut(w)
	c.SetErr(w)
	c.SetArgs(args)
	return c.ExecuteContext(ctx)
}

func (p *page) find(w http.ResponseWriter, r *http.Request) {
	var out bytes.Buffer
	if err := p.run(r.Context(), &out, "find"); err != nil {
		fmt.Fprintln(&out, err)
	}
	p.mu.Lock()
	p.found = out.String()
	p.mu.Unlock()
	http.Redirect(w, r, "/#find", http.StatusSeeOther)
}

// flusher sends each line as it comes.
type flusher struct {
	w  io.Writer
	rc *http.ResponseController
}

func (f flusher) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	return n, errors.Join(err, f.rc.Flush())
}

func (p *page) watch(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	out := flusher{w, http.NewResponseController(w)}
	if err := p.run(r.Context(), out, "watch", "--config", p.conf, "--for", watchTime); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		fmt.Fprintln(out, err)
	}
	fmt.Fprintln(out, "That was it.")
}

// config checks a configuration and keeps it; the one before stays beside. The service
// is given the devices that it names.
func (p *page) config(w http.ResponseWriter, r *http.Request) {
	text := bytes.ReplaceAll([]byte(r.PostFormValue("text")), []byte("\r\n"), []byte("\n"))
	err := func() error {
		if _, err := config.Parse(p.conf, text); err != nil {
			return err
		}
		old, err := os.ReadFile(p.conf)
		switch {
		case err == nil && !bytes.Equal(old, text):
			err = os.WriteFile(p.conf+".before", old, 0o644)
		case errors.Is(err, fs.ErrNotExist):
			err = nil
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(p.conf+".new", text, 0o644); err != nil {
			return err
		}
		return os.Rename(p.conf+".new", p.conf)
	}()
	var devices bytes.Buffer
	if err == nil {
		if err := setupcmd.Refresh(r.Context(), &devices, p.conf, p.root); err != nil {
			fmt.Fprintf(&devices, "The service is not given these devices (sudo gatehouse setup does it): %v\n", err)
		}
	}
	p.mu.Lock()
	p.cfgErr, p.text, p.saved, p.devices = "", "", err == nil, devices.String()
	if err != nil {
		p.cfgErr, p.text = err.Error(), string(text)
	}
	p.mu.Unlock()
	http.Redirect(w, r, "/#config", http.StatusSeeOther)
}

// enrol begins to ask. It goes on between requests.
func (p *page) enrol(w http.ResponseWriter, r *http.Request) {
	defer http.Redirect(w, r, "/#enrol", http.StatusSeeOther)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asking {
		return
	}
	cfg, id, inv, err := p.prepare(r.PostFormValue("invitation"))
	if err != nil {
		p.enrolErr = err.Error()
		return
	}
	p.asking, p.enrolErr = true, ""
	p.shown = wire.ShowCode(wire.CodeOf(id.Signer().Public(), id.Recipient()))
	p.line = approveLine(cfg, p.shown)
	go func() {
		_, err := Ask(p.ctx, cfg, id, inv, func(s string) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.says = s
		}, p.log)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asking, p.approved = false, err == nil
		if err != nil {
			p.enrolErr = err.Error()
		}
	}()
}

func (p *page) prepare(text string) (*config.Gate, *identity.Identity, wire.Invitation, error) {
	var none wire.Invitation
	cfg, err := config.Load(p.conf)
	if err != nil {
		return nil, nil, none, err
	}
	if err := cfg.MayEnrol(); err != nil {
		return nil, nil, none, err
	}
	inv, err := Invitation(cfg, text)
	if err != nil {
		return nil, nil, none, err
	}
	id, err := Keys(cfg)
	if err != nil {
		return nil, nil, none, err
	}
	// On the terminal, not here: this page is not encrypted.
	return cfg, id, inv, backup.FirstKey(cfg, p.out)
}

func (p *page) picture(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	line := p.line
	p.mu.Unlock()
	if line == "" {
		http.Error(w, "no code yet", http.StatusNotFound)
		return
	}
	code, err := qr.Encode(line, qr.M, qr.Auto)
	if err == nil {
		code, err = barcode.Scale(code, 480, 480)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "image/png")
	_ = png.Encode(w, code) // a browser that has gone away
}
