package console

import (
	"context"
	"net/http"
	"slices"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/console/accounts"
)

// right is something that may be done on the console.
type right string

const (
	public  right = "public"  // anybody on the gate's network
	session right = "session" // whoever has logged in, even to choose an own secret

	watch          right = "watch"           // see the lanes
	act            right = "act"             // answer for the people at a lane
	findPasses     right = "find_passes"     // look for somebody
	changePasses   right = "change_passes"   // suspend, report lost, restore
	readJournal    right = "read_journal"    // entries with their facts
	seeInside      right = "see_inside"      // who is believed inside
	resetPositions right = "reset_positions" // nobody is believed anywhere; two persons
	controlRoom    right = "control_room"    // counts, overrides, hours of fault
	seeDevices     right = "see_devices"     // health, clock, the way to the server
	seeRaw         right = "see_raw"         // what devices read, as it comes
	testDevices    right = "test_devices"    // lamp, buzzer, barrier
	seePeople      right = "see_people"      // who has an account
	resetSecrets   right = "reset_secrets"   // of guards; who may changePeople, of everybody
	changePeople   right = "change_people"   // make, change and remove accounts

	// Of pages that are to come.
	visitors right = "visitors" // the visitor desk
	printing right = "printing" // slips and temporary passes
	roster   right = "roster"   // imports and their difference
	charts   right = "charts"
	report   right = "report" // of a shift
)

// holders says who has which right. The inspector reads everything and changes
// nothing; the installer sees devices and nobody's data.
var holders = map[right][]accounts.Role{
	session:        {accounts.Guard, accounts.Supervisor, accounts.Manager, accounts.Installer, accounts.Inspector},
	watch:          {accounts.Guard, accounts.Supervisor, accounts.Manager, accounts.Inspector},
	act:            {accounts.Guard, accounts.Supervisor, accounts.Manager},
	findPasses:     {accounts.Guard, accounts.Supervisor, accounts.Manager, accounts.Inspector},
	changePasses:   {accounts.Guard, accounts.Supervisor, accounts.Manager},
	readJournal:    {accounts.Guard, accounts.Supervisor, accounts.Manager, accounts.Inspector},
	seeInside:      {accounts.Guard, accounts.Supervisor, accounts.Manager, accounts.Inspector},
	resetPositions: {accounts.Supervisor, accounts.Manager},
	controlRoom:    {accounts.Supervisor, accounts.Manager, accounts.Inspector},
	seeDevices:     {accounts.Guard, accounts.Supervisor, accounts.Manager, accounts.Installer, accounts.Inspector},
	seeRaw:         {accounts.Supervisor, accounts.Manager, accounts.Installer, accounts.Inspector},
	testDevices:    {accounts.Supervisor, accounts.Manager, accounts.Installer},
	seePeople:      {accounts.Supervisor, accounts.Manager, accounts.Inspector},
	resetSecrets:   {accounts.Supervisor, accounts.Manager},
	changePeople:   {accounts.Manager},
	visitors:       {accounts.Guard, accounts.Supervisor, accounts.Manager},
	printing:       {accounts.Guard, accounts.Supervisor, accounts.Manager},
	roster:         {accounts.Manager},
	charts:         {accounts.Supervisor, accounts.Manager, accounts.Inspector},
	report:         {accounts.Guard, accounts.Supervisor, accounts.Manager, accounts.Inspector},
}

// personal are the rights that show somebody's data on pages that name no single
// pass; that they were looked at is in the journal once an hour and session. Pages
// that name passes say which, each time.
var personal = []right{watch, readJournal, seeInside, controlRoom, seeRaw, visitors, report}

const viewedFor = time.Hour

func has(role accounts.Role, what right) bool {
	return what == public || slices.Contains(holders[what], role)
}

// route is one way to call the console.
type route struct {
	pattern string
	who     right
	class   class // how much of it; see limit.go
	handle  http.HandlerFunc
}

// routes is the one table of routes and who may call each.
func (c *Console) routes() []route {
	return []route{
		{"GET /{$}", watch, pages, c.lanes},
		{"GET /live", watch, streams, c.live},
		{"POST /act", act, acts, c.act},
		{"GET /passes", findPasses, pages, c.passes},
		{"POST /passes", changePasses, forms, c.changePass},
		{"GET /journal", readJournal, pages, c.journal},
		{"GET /journal/{seq}", readJournal, pages, c.entry},
		{"GET /journal/{seq}/proof", readJournal, pages, c.proofFile},
		{"GET /inside", seeInside, pages, c.inside},
		{"POST /inside", resetPositions, forms, c.resetAll},
		{"GET /control", controlRoom, pages, c.control},
		{"GET /devices", seeDevices, pages, c.devices},
		{"POST /devices", testDevices, forms, c.testDevice},
		{"GET /devices/raw", seeRaw, pages, c.raw},
		{"GET /devices/raw/live", seeRaw, streams, c.rawLive},
		{"GET /rules", public, pages, c.rules},
		{"GET /display/{$}", public, pages, c.anyDisplay},
		{"GET /display/{lane}", public, pages, c.display},
		{"GET /display/{lane}/live", public, streams, c.displayLive},
		{"GET /display/{lane}/rules.png", public, files, c.rulesCode},
		{"GET /assets/{name}", public, files, c.asset},
		{"GET /assets/voice/{name}", public, files, c.voice},

		{"GET /enter", public, pages, c.enter},
		{"POST /enter", public, logins, c.enter},
		{"GET /setup", public, pages, c.setup},
		{"POST /setup", public, logins, c.setup},
		{"GET /relief", session, pages, c.relief},
		{"POST /relief", session, logins, c.relief},
		{"POST /leave", session, forms, c.leave},
		{"GET /me", session, pages, c.me},
		{"POST /me", session, logins, c.me},
		{"GET /people", seePeople, pages, c.people},
		{"POST /people", changePeople, forms, c.addPerson},
		{"POST /people/{number}", resetSecrets, forms, c.changePerson},
		{"GET /inspector", public, pages, c.inspector},
		{"POST /inspector", public, logins, c.inspector},
		{"GET /ca", public, pages, c.ca},
		{"GET /ca.pem", public, files, c.caFile},
		{"GET /ca.crt", public, files, c.caFile},
	}
}

type sessionKey struct{}

// logged is what a request carries once somebody is known to make it.
type logged struct {
	accounts.Session
	token string
}

func loggedOf(r *http.Request) logged {
	l, _ := r.Context().Value(sessionKey{}).(logged)
	return l
}

// personOf is who makes a request; without a role when nobody is known.
func personOf(r *http.Request) accounts.Person { return loggedOf(r).Person }

// actorOf names them as the journal does.
func actorOf(r *http.Request) string {
	if p := personOf(r); p.Role != "" {
		return p.Actor()
	}
	return ""
}

// may says whether whoever makes a request has a right.
func (c *Console) may(r *http.Request, what right) bool { return has(personOf(r).Role, what) }

// guarded lets through who has the route's right. A public route is told who
// calls it as well, for the page's navigation.
func (c *Console) guarded(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s, token, known := c.who(r)
		if known {
			r = r.WithContext(context.WithValue(r.Context(), sessionKey{}, logged{s, token}))
		}
		caller := address(r)
		if known {
			caller = token
		}
		r.Body = http.MaxBytesReader(w, r.Body, limits[rt.class].body)
		if c.meter != nil && !c.meter.allow(caller, rt.class) {
			c.tooMany(w, r)
			return
		}
		opens := r.Method == http.MethodGet && wantsPage(r)
		switch {
		case rt.who == public:
		case !known:
			if opens {
				http.Redirect(w, r, "/enter", http.StatusSeeOther)
				return
			}
			c.turnAway(w, r, turnedAway{say: "people.enter_first", code: http.StatusUnauthorized, first: "/enter", firstSays: "console.enter"})
			return
		case s.MustChange && rt.who != session:
			if opens {
				http.Redirect(w, r, "/me", http.StatusSeeOther)
				return
			}
			c.turnAway(w, r, turnedAway{say: "people.choose_first", code: http.StatusForbidden, first: "/me", firstSays: "people.choose"})
			return
		case !has(s.Role, rt.who):
			if wantsPage(r) {
				w.WriteHeader(http.StatusForbidden)
				c.render(w, r, "forbidden.html", nil)
				return
			}
			http.Error(w, c.say(r, "people.not_yours"), http.StatusForbidden)
			return
		}
		if r.Method == http.MethodPost && !c.parse(w, r) {
			return
		}
		// Who answers for the people at a lane sees them also when the journal takes
		// nothing more: then they are needed most.
		if r.Method == http.MethodGet && slices.Contains(personal, rt.who) && c.viewed(r, token, rt.who) != nil && (rt.who != watch || !has(s.Role, act)) {
			c.turnAway(w, r, turnedAway{say: "people.not_recorded", code: http.StatusServiceUnavailable})
			return
		}
		if rt.class == forms && !c.once.take(token, r.PostForm.Get("once")) {
			c.stale(w, r)
			return
		}
		if rt.class == streams && c.meter != nil {
			end := c.meter.begin(caller, known)
			if end == nil {
				http.Error(w, c.say(r, "console.too_many"), http.StatusServiceUnavailable)
				return
			}
			defer end()
		}
		if rt.class == streams && rt.who != public {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			stop := c.whileLogged(ctx, cancel, token)
			defer stop()
			r = r.WithContext(ctx)
		}
		rt.handle(w, r)
	}
}

// viewed journals that somebody looks at a kind of personal data, before they see
// it.
func (c *Console) viewed(r *http.Request, token string, what right) error {
	key := token + "\x00" + string(what)
	c.mu.Lock()
	at, ok := c.views[key]
	c.mu.Unlock()
	if ok && time.Since(at) < viewedFor {
		return nil
	}
	if err := c.record(r.Context(), edge.KindAccess, actorOf(r), map[string]any{"view": string(what)}); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.views) >= maxCallers {
		clear(c.views) // what is forgotten is journalled once more
	}
	c.views[key] = time.Now()
	return nil
}

// holdsEvery is how often a stream asks whether its session still holds.
const holdsEvery = 5 * time.Second

// whileLogged ends a stream when its session ends.
func (c *Console) whileLogged(ctx context.Context, cancel context.CancelFunc, token string) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(c.again)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				if _, ok := c.session(ctx, token); !ok {
					cancel()
					return
				}
			}
		}
	}()
	return func() { cancel(); <-done }
}
