// Package console is the guard's web face: each lane as a large panel, what can
// be done now as buttons and keys, and the last entries of the journal. It is
// served by the appliance itself and asks no other host for anything.
//
// The console never touches a barrier: an action goes to the lane as a command
// that names the presentation it answers, and a late one is refused.
package console

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"gatehouse/edge"
	"gatehouse/edge/console/accounts"
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
	Listen    string   // host:port; port 0 = any
	Gate      string   // its name, for people
	Language  string   // of the site
	Languages []string // of the resident's display, in their order; nil = the site's, then Chinese and English
	Location  *time.Location
	Tips      map[string][]string // what an idle display tells, by language
	Volume    []Loudness          // of the display, by the time of day; nil = the usual
	// Certificates prove the gate to browsers. nil = plain HTTP, which is for
	// listening on the machine itself.
	Certificates *Certificates
}

// Deps are the parts the console looks at.
type Deps struct {
	Lanes   Lanes
	Journal Journal
	Passes  Passes
	People  *accounts.Accounts // nil = they could not be opened: public pages only
	Text    *text.Catalogue
	Clock   edge.Clock             // nil = the machine's
	Sync    func() edge.SyncStatus // nil = the gate stands alone
	Devices func() []edge.DeviceHealth
	// Versions says what the gate runs and goes by. nil = the page says nothing.
	Versions func(ctx context.Context) edge.Versions
	// Raw gives what the devices gave last, as it came, and goes on watching for a
	// while. nil = nothing is shown.
	Raw func() []edge.RawDevice
	// Test has a device of a lane tried; a refusal is an edge.Refusal. nil = no buttons.
	Test  func(ctx context.Context, t edge.DeviceTest) error
	Rules func() Rules // what is in force; nil = the page says nothing
	// Explain says why a decision was what it was; false when its policy is not kept
	// here. nil = no explanations.
	Explain func(ctx context.Context, e *edge.Entry, in *text.Printer) (edge.Explanation, bool)
	// Origin names the journal, for references to its entries.
	Origin func() string
	// Proof proves that an entry is in the journal, under a head of now. nil = none.
	Proof func(ctx context.Context, seq uint64) (edge.Proof, edge.Head, error)
	// Plan is the emergency plan in force, nil for none.
	Plan func() *edge.PlanFacts
	// Head is the tree head over all of the journal. nil = none.
	Head func(ctx context.Context) (edge.Head, error)
	// Inside lists who is believed inside; ResetPositions makes all positions
	// unknown, on the word of two persons and with the code of a reason.
	Inside         func(ctx context.Context) ([]edge.Inside, error)
	ResetPositions func(ctx context.Context, actor, second, why string) error
	// Record journals that somebody has logged in or looked at personal data;
	// what was looked at is shown only once it is recorded. nil = not recorded.
	Record func(ctx context.Context, k edge.Kind, actor string, data any) error
	Log    *slog.Logger
}

//go:embed assets
var assets embed.FS

// pageLanguages are those that the pages are complete in.
var pageLanguages = []string{"zh-Hans", "en"}

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

	once  *once
	meter *meter
	again time.Duration // holdsEvery
	slow  time.Duration // slowReader
	beat  time.Duration // heartbeat

	mu       sync.Mutex
	watchers int
	pieces   map[string]*piece
	views    map[string]time.Time // of personal data, by session and right
}

// New opens the console's port.
func New(cfg Config, deps Deps) (*Console, error) {
	c := &Console{cfg: cfg, deps: deps, pieces: map[string]*piece{}, views: map[string]time.Time{}, once: newOnce(), meter: newMeter(), again: holdsEvery, slow: slowReader, beat: heartbeat}
	if len(c.cfg.Languages) == 0 {
		c.cfg.Languages = clean(cfg.Language)
		for _, l := range pageLanguages {
			if l != cfg.Language {
				c.cfg.Languages = append(c.cfg.Languages, l)
			}
		}
	}
	if c.cfg.Location == nil {
		c.cfg.Location = time.UTC
	}
	var err error
	if c.pages, err = loadPages(deps.Text, pageLanguages); err != nil {
		return nil, fmt.Errorf("cannot read the console's pages: %w", err)
	}
	if c.ln, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("cannot open the console on %s: %w (another program may use the port; see console.listen)", cfg.Listen, err)
	}
	return c, nil
}

// Addr is where the console listens.
func (c *Console) Addr() string { return c.ln.Addr().String() }

// URL is where the guard's page is.
func (c *Console) URL() string {
	if c.cfg.Certificates == nil {
		return "http://" + c.Addr() + "/"
	}
	return "https://" + c.Addr() + "/"
}

// Close gives the port back when Run was never called.
func (c *Console) Close() error { return c.ln.Close() }

// Run serves until ctx is done.
func (c *Console) Run(ctx context.Context) error {
	handler := c.Handler()
	if c.cfg.Certificates != nil {
		secure := handler
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.TLS == nil {
				c.plain(w, r, secure)
				return
			}
			secure.ServeHTTP(w, r)
		})
	}
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(c.deps.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	done, ln := make(chan error, 1), c.ln
	if x := c.cfg.Certificates; x != nil {
		srv.TLSConfig = x.config()
		f := newFront(c.ln, srv.TLSConfig)
		ln = f
		fctx, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() { defer close(ended); _ = f.run(fctx) }()
		defer func() { stop(); _ = c.ln.Close(); <-ended }()
	}
	go func() { done <- srv.Serve(ln) }()
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

// Handler is the console without its listener.
func (c *Console) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range c.routes() {
		mux.HandleFunc(r.pattern, c.guarded(r))
	}
	cross := http.NewCrossOriginProtection()
	// Without what it held: another site must not have a person send it again.
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, c.say(r, "forms.foreign"), http.StatusForbidden)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if c.chooseLanguage(w, r) {
			return
		}
		cross.Handler(mux).ServeHTTP(w, r)
	})
}

// chooseLanguage keeps the language that any page is asked for with ?lang=, and
// shows the page again without it.
func (c *Console) chooseLanguage(w http.ResponseWriter, r *http.Request) bool {
	q := r.URL.Query()
	l := q.Get("lang")
	if r.Method != http.MethodGet || !slices.Contains(pageLanguages, l) {
		return false
	}
	http.SetCookie(w, &http.Cookie{Name: "lang", Value: l, Path: "/", SameSite: http.SameSiteStrictMode, MaxAge: 365 * 24 * 3600})
	q.Del("lang")
	// Of the address only what cannot lead to another host.
	to := url.URL{Path: "/" + strings.TrimLeft(r.URL.Path, "/\\"), RawQuery: q.Encode()}
	http.Redirect(w, r, to.String(), http.StatusSeeOther)
	return true
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

// lang is the language of a request: chosen, else the browser's, else the site's.
func (c *Console) lang(r *http.Request) string {
	if k, err := r.Cookie("lang"); err == nil && slices.Contains(pageLanguages, k.Value) {
		return k.Value
	}
	for part := range strings.SplitSeq(r.Header.Get("Accept-Language"), ",") {
		tag, _, _ := strings.Cut(strings.TrimSpace(part), ";")
		base, _, _ := strings.Cut(strings.ToLower(tag), "-")
		for _, l := range pageLanguages {
			if lb, _, _ := strings.Cut(strings.ToLower(l), "-"); lb == base {
				return l
			}
		}
	}
	if slices.Contains(pageLanguages, c.cfg.Language) {
		return c.cfg.Language
	}
	return "en"
}

func (c *Console) say(r *http.Request, id string) string { return c.deps.Text.For(c.lang(r)).T(id) }

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

func (c *Console) lanes(w http.ResponseWriter, r *http.Request) { c.showLanes(w, r, "") }

func (c *Console) showLanes(w http.ResponseWriter, r *http.Request, message string) {
	p := c.deps.Text.For(c.lang(r))
	data := map[string]any{"Message": message, "Status": c.status(p), "Entries": c.entries(r.Context(), p)}
	var lanes []panel
	for _, v := range c.deps.Lanes.Views() {
		lanes = append(lanes, c.panel(p, v))
	}
	data["Lanes"] = lanes
	c.render(w, r, "lanes.html", data)
}

func (c *Console) render(w http.ResponseWriter, r *http.Request, name string, data any) {
	lang := c.lang(r)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	err := c.pages[lang].ExecuteTemplate(w, name, c.page(r, lang, data))
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
		return s.html("lane", v.Lane, v.Version, "panel", func() any { return c.panel(p, v) })
	}
	// The journal may be slow; the lanes do not wait for it.
	var reading sync.WaitGroup
	defer reading.Wait()
	read := make(chan []byte, 1)
	entries := func(size uint64) {
		// Whoever makes the piece makes it for all who watch: it does not end with
		// this stream.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), slowReader)
		defer cancel()
		b, err := c.piece(s.lang, "entries", "", size, "entries", func() any {
			if list := c.entries(ctx, p); list != nil {
				return list
			}
			return nil
		})
		if err != nil && !errors.Is(err, errNothing) {
			c.deps.Log.Warn("cannot show the last entries", "err", err)
		}
		read <- b
	}
	views := c.deps.Lanes.Watch(r.Context())
	size, busy := c.deps.Journal.Size(), false
	ticked := func() error {
		if now := c.deps.Journal.Size(); now != size && !busy {
			size, busy = now, true
			reading.Go(func() { entries(now) })
		}
		return s.html("status", "", 0, "status", func() any { return c.status(p) })
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
		case b := <-read:
			busy = false
			if b == nil {
				size = math.MaxUint64 // once more at the next tick
				break
			}
			err = s.write(b)
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
		c.actRefused(w, r, c.inWords(r, err), http.StatusBadRequest)
		return
	}
	// The second person is who has proved to be there, not who was typed.
	if r.PostForm.Get("second") != "" {
		p, err := c.secondPerson(r)
		if err != nil {
			msg, code := c.why(r, err)
			c.actRefused(w, r, msg, code)
			return
		}
		a.Second = p.Actor()
	}
	switch err := c.deps.Lanes.Do(r.Context(), a); {
	case err == nil:
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, edge.ErrLate):
		c.actRefused(w, r, c.late(r, err), http.StatusConflict)
	case errors.Is(err, edge.ErrForbidden):
		c.actRefused(w, r, strings.TrimSpace(c.say(r, "console.forbidden")+" "+c.inWords(r, err)), http.StatusForbidden)
	default:
		c.deps.Log.Warn("cannot carry out an action", "lane", a.Lane, "action", a.Kind, "err", err)
		c.actRefused(w, r, c.say(r, "console.failed"), http.StatusUnprocessableEntity)
	}
}

// late says that an action came too late, and whose answer counts.
func (c *Console) late(r *http.Request, err error) string {
	p := c.deps.Text.For(c.lang(r))
	var first edge.Late
	switch {
	case !errors.As(err, &first):
		return p.T("console.late")
	case first.By == actorOf(r):
		return p.T("console.late_own", "What", p.T("outcome."+string(first.Outcome)))
	case first.By == "system":
		return p.T("console.late_time", "What", p.T("outcome."+string(first.Outcome)))
	}
	return p.T("console.late_by", "Who", c.actorName(r.Context(), p, first.By), "What", p.T("outcome."+string(first.Outcome)))
}

// actorName is what the guards call an actor: by name where it is one of them.
func (c *Console) actorName(ctx context.Context, p *text.Printer, actor string) string {
	role, number, _ := strings.Cut(actor, ":")
	n, err := strconv.ParseInt(number, 10, 64)
	switch {
	case number == "panel":
		return p.T("console.panel")
	case err != nil:
		return actor
	}
	if c.deps.People != nil {
		if who, err := c.deps.People.Get(ctx, n); err == nil && string(who.Role) == role {
			return who.Name
		}
	}
	return word(p, "role.", role) + " " + number
}

// actRefused says why an action was not done: to the page's script, or on the
// page itself where there is none.
func (c *Console) actRefused(w http.ResponseWriter, r *http.Request, message string, code int) {
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		w.WriteHeader(code)
		c.showLanes(w, r, message)
		return
	}
	http.Error(w, message, code)
}

var kinds = []edge.ActionKind{edge.ActAdmit, edge.ActDeny, edge.ActRemeasure, edge.ActReading, edge.ActSecond, edge.ActConfirm, edge.ActAside,
	edge.ActRecall, edge.ActPlusOne, edge.ActPresent, edge.ActCall, edge.ActComing, edge.ActCancel, edge.ActLanguage, edge.ActClose, edge.ActOpen}

// parseAction reads an action from a form. What it refuses is an edge.Refusal.
func parseAction(r *http.Request) (edge.Action, error) {
	f := r.PostForm
	a := edge.Action{Kind: edge.ActionKind(f.Get("kind")), Lane: f.Get("lane"), Reason: edge.Reason(f.Get("reason")),
		Field: f.Get("field"), Text: f.Get("text"), Identity: f.Get("identity"), Second: f.Get("second")}
	if !slices.Contains(kinds, a.Kind) {
		return a, edge.Refuse("unknown", "unknown action %q", a.Kind)
	}
	for _, s := range []string{a.Lane, string(a.Reason), a.Field, a.Text, a.Identity, a.Second} {
		if len(s) > 200 || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
			return a, edge.Refuse("text", "a field is too long or holds control characters")
		}
	}
	var err error
	if s := f.Get("presentation"); s != "" {
		if a.Presentation, err = strconv.ParseUint(s, 10, 64); err != nil {
			return a, edge.Refuse("number", "presentation %q is not a number", s)
		}
	}
	if s := f.Get("pass"); s != "" {
		id, err := strconv.ParseInt(s, 10, 64)
		if err != nil || id < 1 || id > edge.MaxID {
			return a, edge.Refuse("number", "pass %q is not a pass's number", s)
		}
		a.Pass = edge.PassID(id)
	}
	if s := strings.ReplaceAll(strings.TrimSpace(f.Get("value")), ",", "."); s != "" {
		if a.Value, err = strconv.ParseFloat(s, 64); err != nil || a.Value != a.Value {
			return a, edge.Refuse("number", "%q is not a number", s)
		}
	}
	if (a.Kind == edge.ActReading || a.Kind == edge.ActSecond) && (a.Value < 20 || a.Value > 45) {
		return a, edge.Refuse("temperature", "a body temperature is between 20 and 45 degrees Celsius, not %v", a.Value)
	}
	return a, nil
}
