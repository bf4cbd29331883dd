// Package console is the guard's web face: each lane as a large panel, what can
// be done now as buttons and keys, and the last entries of the journal. It is
// served by the appliance itself and asks no other host for anything.
//
// The console never touches a barrier: an action goes to the lane as a command
// that names the presentation it answers, and a late one is refused.
package console

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/text"
)

// Lanes is what the console needs of the lanes.
type Lanes interface {
	Views() []edge.LaneView
	// Watch yields a view whenever one changes; a slow reader gets the latest.
	Watch(ctx context.Context) <-chan edge.LaneView
	Do(ctx context.Context, a edge.Action) error
}

// Journal is what the console needs of the journal.
type Journal interface {
	Size() uint64
	Read(ctx context.Context, from uint64, maxEntries, maxBytes int) ([]edge.Stored, error)
	Get(ctx context.Context, seq uint64) (edge.Stored, error)
}

// Passes finds a pass for somebody who has left the card at home, and
// withdraws or restores one.
type Passes interface {
	Find(ctx context.Context, q edge.PassQuery) ([]edge.Pass, error)
	SetStatus(ctx context.Context, id edge.PassID, status edge.PassStatus, reason, actor string) error
}

// Config is what the console is told.
type Config struct {
	Listen    string // host:port; port 0 = any
	Gate      string // its name, for people
	Language  string // of the site
	Languages []string
	Code      string // who shows it may act; see Handler
	Location  *time.Location
}

// Deps are the parts the console looks at.
type Deps struct {
	Lanes   Lanes
	Journal Journal
	Passes  Passes
	Text    *text.Catalogue
	Sync    func() edge.SyncStatus // nil = the gate stands alone
	Devices func() []edge.DeviceHealth
	Rules   func() Rules // what is in force; nil = the page says nothing
	// Record journals that somebody has logged in or looked at personal data;
	// what was looked at is shown only once it is recorded. nil = not recorded.
	Record func(ctx context.Context, k edge.Kind, actor string, data any) error
	Log    *slog.Logger
}

//go:embed assets
var assets embed.FS

// Limits on what a request may hold and how many may watch.
const (
	maxForm     = 16 << 10
	maxWatchers = 64
	lastEntries = 30
)

// Console serves the pages. New starts nothing but the listener, so that its
// address is known before Run.
type Console struct {
	cfg  Config
	deps Deps
	ln   net.Listener

	pages map[string]*template.Template // by language

	mu       sync.Mutex
	watchers int
	pieces   map[string]piece
}

// New opens the console's port.
func New(cfg Config, deps Deps) (*Console, error) {
	c := &Console{cfg: cfg, deps: deps, pieces: map[string]piece{}}
	if len(c.cfg.Languages) == 0 {
		c.cfg.Languages = []string{"zh-Hans", "en"}
	}
	if c.cfg.Location == nil {
		c.cfg.Location = time.UTC
	}
	var err error
	if c.pages, err = loadPages(deps.Text, c.cfg.Languages); err != nil {
		return nil, fmt.Errorf("cannot read the console's pages: %w", err)
	}
	if c.ln, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("cannot open the console on %s: %w (another program may use the port; see console.listen)", cfg.Listen, err)
	}
	return c, nil
}

// Addr is where the console listens.
func (c *Console) Addr() string { return c.ln.Addr().String() }

// URL is the guard's link.
func (c *Console) URL() string { return "http://" + c.Addr() + "/?code=" + c.cfg.Code }

// Close gives the port back when Run was never called.
func (c *Console) Close() error { return c.ln.Close() }

// Run serves until ctx is done.
func (c *Console) Run(ctx context.Context) error {
	srv := &http.Server{
		Handler:           c.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(c.deps.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(c.ln) }()
	select {
	case <-ctx.Done():
	case err := <-done:
		return fmt.Errorf("console: %w", err)
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		_ = srv.Close()
	}
	<-done
	return ctx.Err()
}

// right says who may call a route.
type right int

const (
	public right = iota // anybody on the gate's network
	guard               // who has shown the code
)

type route struct {
	pattern string
	who     right
	handle  http.HandlerFunc
}

// routes is the one table of routes and who may call each.
func (c *Console) routes() []route {
	return []route{
		{"GET /{$}", guard, c.lanes},
		{"GET /live", guard, c.live},
		{"POST /act", guard, c.act},
		{"GET /passes", guard, c.passes},
		{"POST /passes", guard, c.changePass},
		{"GET /journal", guard, c.journal},
		{"GET /journal/{seq}", guard, c.entry},
		{"GET /devices", guard, c.devices},
		{"GET /rules", public, c.rules},
		{"GET /display/{lane}", public, c.display},
		{"GET /display/{lane}/live", public, c.displayLive},
		{"GET /assets/{name}", public, c.asset},
		{"GET /enter", public, c.enter},
		{"POST /enter", public, c.enter},
	}
}

// Handler is the console without its listener. Every route but the public
// ones wants the code, given once as ?code= and then kept in a cookie.
func (c *Console) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range c.routes() {
		h := r.handle
		if r.who == guard {
			h = c.guarded(h)
		}
		mux.HandleFunc(r.pattern, h)
	}
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		cross.Handler(mux).ServeHTTP(w, r)
	})
}

const cookie = "gatehouse"

type actorKey struct{}

func (c *Console) guarded(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if code := r.URL.Query().Get("code"); code != "" && r.Method == http.MethodGet && c.rightCode(code) {
			c.setCookie(w, "guard")
			// The code does not stay in the address bar, where a photograph finds it.
			http.Redirect(w, r, r.URL.Path, http.StatusSeeOther)
			return
		}
		if k, err := r.Cookie(cookie); err == nil {
			if actor, ok := c.actor(k.Value); ok {
				next(w, r.WithContext(context.WithValue(r.Context(), actorKey{}, actor)))
				return
			}
		}
		if r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html") {
			http.Redirect(w, r, "/enter", http.StatusSeeOther)
			return
		}
		http.Error(w, c.say(r, "console.enter_first"), http.StatusUnauthorized)
	}
}

func (c *Console) rightCode(code string) bool {
	return c.cfg.Code != "" && subtle.ConstantTimeCompare([]byte(code), []byte(c.cfg.Code)) == 1
}

// A session is the guard's name and a MAC of it under the code: it outlives a
// restart of the daemon, and ends when the code is changed.
func (c *Console) session(actor string) string {
	m := hmac.New(sha256.New, []byte(c.cfg.Code))
	m.Write([]byte("console session\x00" + actor))
	return actor + "." + hex.EncodeToString(m.Sum(nil))
}

func (c *Console) actor(session string) (string, bool) {
	actor, _, ok := strings.Cut(session, ".")
	if !ok || c.cfg.Code == "" || subtle.ConstantTimeCompare([]byte(session), []byte(c.session(actor))) != 1 {
		return "", false
	}
	return actor, true
}

func (c *Console) setCookie(w http.ResponseWriter, actor string) {
	http.SetCookie(w, &http.Cookie{Name: cookie, Value: c.session(actor), Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: 30 * 24 * 3600})
}

// record journals what must not happen unrecorded.
func (c *Console) record(ctx context.Context, k edge.Kind, actor string, data any) error {
	if c.deps.Record == nil {
		return nil
	}
	if err := c.deps.Record(ctx, k, actor, data); err != nil {
		c.deps.Log.Error("cannot record who looked or came", "actor", actor, "err", err)
		return err
	}
	return nil
}

func actorOf(r *http.Request) string {
	a, _ := r.Context().Value(actorKey{}).(string)
	return a
}

// lang is the language of a request: chosen, else the browser's, else the site's.
func (c *Console) lang(r *http.Request) string {
	if k, err := r.Cookie("lang"); err == nil && slices.Contains(c.cfg.Languages, k.Value) {
		return k.Value
	}
	for part := range strings.SplitSeq(r.Header.Get("Accept-Language"), ",") {
		tag, _, _ := strings.Cut(strings.TrimSpace(part), ";")
		base, _, _ := strings.Cut(strings.ToLower(tag), "-")
		for _, l := range c.cfg.Languages {
			if lb, _, _ := strings.Cut(strings.ToLower(l), "-"); lb == base {
				return l
			}
		}
	}
	return c.cfg.Language
}

func (c *Console) say(r *http.Request, id string) string { return c.deps.Text.For(c.lang(r)).T(id) }

func (c *Console) enter(w http.ResponseWriter, r *http.Request) {
	msg, number := "", ""
	if r.Method == http.MethodPost {
		number = strings.TrimSpace(r.PostFormValue("number"))
		n, err := strconv.ParseUint(number, 10, 16)
		switch {
		case err != nil || n == 0:
			msg = c.say(r, "console.wrong_number")
		case !c.rightCode(strings.TrimSpace(r.PostFormValue("code"))):
			msg = c.say(r, "console.wrong_code")
		default:
			actor := "guard:" + strconv.FormatUint(n, 10)
			if err := c.record(r.Context(), edge.KindSession, actor, map[string]any{"action": "login"}); err != nil {
				msg = c.say(r, "console.failed")
				break
			}
			c.setCookie(w, actor)
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		w.WriteHeader(http.StatusForbidden)
	}
	c.render(w, r, "enter.html", map[string]any{"Message": msg, "Number": number})
}

func (c *Console) asset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	types := map[string]string{"console.css": "text/css; charset=utf-8", "console.js": "text/javascript; charset=utf-8"}
	if types[name] == "" {
		http.NotFound(w, r)
		return
	}
	b, err := assets.ReadFile("assets/" + name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", types[name])
	_, _ = w.Write(b)
}

func (c *Console) lanes(w http.ResponseWriter, r *http.Request) {
	if l := r.URL.Query().Get("lang"); slices.Contains(c.cfg.Languages, l) {
		http.SetCookie(w, &http.Cookie{Name: "lang", Value: l, Path: "/", SameSite: http.SameSiteStrictMode, MaxAge: 365 * 24 * 3600})
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	p := c.deps.Text.For(c.lang(r))
	data := map[string]any{"Status": c.status(p), "Entries": c.entries(r.Context(), p)}
	var lanes []panel
	for _, v := range c.deps.Lanes.Views() {
		lanes = append(lanes, newPanel(p, v))
	}
	data["Lanes"] = lanes
	c.render(w, r, "lanes.html", data)
}

func (c *Console) render(w http.ResponseWriter, r *http.Request, name string, data any) {
	lang := c.lang(r)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	err := c.pages[lang].ExecuteTemplate(w, name, page{Lang: lang, Gate: c.cfg.Gate, Actor: actorOf(r), Languages: c.cfg.Languages, Path: r.URL.Path, Data: data})
	if err != nil && r.Context().Err() == nil {
		c.deps.Log.Warn("cannot show a page", "page", name, "err", err)
	}
}

// live sends every change of a lane, of the status and of the last entries as
// server-sent events, as the very HTML that the page holds.
func (c *Console) live(w http.ResponseWriter, r *http.Request) {
	s := c.stream(w, r)
	if s == nil {
		return
	}
	defer s.close()
	p := c.deps.Text.For(c.lang(r))
	lane := func(v edge.LaneView) error {
		return s.html("lane", v.Lane, v.Version, "panel", func() any { return newPanel(p, v) })
	}
	views := c.deps.Lanes.Watch(r.Context())
	size := c.deps.Journal.Size()
	ticked := func() error {
		if err := s.html("status", "", 0, "status", func() any { return c.status(p) }); err != nil {
			return err
		}
		if now := c.deps.Journal.Size(); now != size {
			size = now
			return s.html("entries", "", now, "entries", func() any { return c.entries(context.WithoutCancel(r.Context()), p) })
		}
		return nil
	}
	if ticked() != nil {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-r.Context().Done():
			return
		case v, ok := <-views:
			if !ok {
				return
			}
			err = lane(v)
		case <-tick.C:
			err = ticked()
		}
		if err != nil {
			return
		}
	}
}

// act takes one action of a guard.
func (c *Console) act(w http.ResponseWriter, r *http.Request) {
	a, err := parseAction(r)
	a.Actor = actorOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch err := c.deps.Lanes.Do(r.Context(), a); {
	case err == nil:
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, edge.ErrLate):
		http.Error(w, c.say(r, "console.late"), http.StatusConflict)
	case errors.Is(err, edge.ErrForbidden):
		// What the lane says before the colon is the reason for this one refusal.
		why, _, _ := strings.Cut(err.Error(), ": "+edge.ErrForbidden.Error())
		http.Error(w, c.say(r, "console.forbidden")+" ("+why+")", http.StatusForbidden)
	default:
		c.deps.Log.Warn("cannot carry out an action", "lane", a.Lane, "action", a.Kind, "err", err)
		http.Error(w, c.say(r, "console.failed")+" "+err.Error(), http.StatusUnprocessableEntity)
	}
}

var kinds = []edge.ActionKind{edge.ActAdmit, edge.ActDeny, edge.ActRemeasure, edge.ActReading, edge.ActSecond, edge.ActConfirm, edge.ActAside,
	edge.ActRecall, edge.ActPlusOne, edge.ActPresent, edge.ActCall, edge.ActCancel, edge.ActLanguage, edge.ActClose, edge.ActOpen}

// parseAction reads an action from a form. Its errors are for people.
func parseAction(r *http.Request) (edge.Action, error) {
	if err := r.ParseForm(); err != nil {
		return edge.Action{}, fmt.Errorf("cannot read the form: %w", err)
	}
	f := r.PostForm
	a := edge.Action{Kind: edge.ActionKind(f.Get("kind")), Lane: f.Get("lane"), Reason: edge.Reason(f.Get("reason")),
		Field: f.Get("field"), Text: f.Get("text"), Identity: f.Get("identity"), Second: f.Get("second")}
	if !slices.Contains(kinds, a.Kind) {
		return a, fmt.Errorf("unknown action %q", a.Kind)
	}
	for _, s := range []string{a.Lane, string(a.Reason), a.Field, a.Text, a.Identity, a.Second} {
		if len(s) > 200 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return a, errors.New("a field is too long or holds control characters")
		}
	}
	var err error
	if s := f.Get("presentation"); s != "" {
		if a.Presentation, err = strconv.ParseUint(s, 10, 64); err != nil {
			return a, fmt.Errorf("presentation %q is not a number", s)
		}
	}
	if s := f.Get("pass"); s != "" {
		id, err := strconv.ParseInt(s, 10, 64)
		if err != nil || id < 1 || id > edge.MaxID {
			return a, fmt.Errorf("pass %q is not a pass's number", s)
		}
		a.Pass = edge.PassID(id)
	}
	if s := strings.ReplaceAll(strings.TrimSpace(f.Get("value")), ",", "."); s != "" {
		if a.Value, err = strconv.ParseFloat(s, 64); err != nil || a.Value != a.Value {
			return a, fmt.Errorf("%q is not a number", s)
		}
	}
	if (a.Kind == edge.ActReading || a.Kind == edge.ActSecond) && (a.Value < 20 || a.Value > 45) {
		return a, fmt.Errorf("a body temperature is between 20 and 45 degrees Celsius, not %v", a.Value)
	}
	return a, nil
}
