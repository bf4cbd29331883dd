package console

import (
	"context"
	"errors"
	"net/http"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/console/accounts"
)

// Cookies: who has logged in, and on which device somebody has before.
const (
	sessionCookie = "gatehouse"
	deviceCookie  = "gatehouse_device"
)

func (c *Console) who(r *http.Request) (accounts.Session, string, bool) {
	k, err := r.Cookie(sessionCookie)
	if err != nil {
		return accounts.Session{}, "", false
	}
	s, ok := c.session(r.Context(), k.Value)
	return s, k.Value, ok
}

func (c *Console) session(ctx context.Context, token string) (accounts.Session, bool) {
	if c.deps.People == nil {
		return accounts.Session{}, false
	}
	s, err := c.deps.People.Session(ctx, token)
	if err != nil && !errors.Is(err, edge.ErrUnknown) && ctx.Err() == nil {
		c.deps.Log.Error("cannot read who has logged in", "err", err)
	}
	return s, err == nil
}

func (c *Console) keep(w http.ResponseWriter, r *http.Request, name, value string, age time.Duration) {
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode, MaxAge: int(age.Seconds())})
}

// begun gives a browser what it keeps after a login.
func (c *Console) begun(w http.ResponseWriter, r *http.Request, t accounts.Token, s accounts.Session) {
	c.keep(w, r, sessionCookie, t.Session, 30*24*time.Hour)
	if t.Device != "" {
		c.keep(w, r, deviceCookie, t.Device, 365*24*time.Hour)
	}
	to := "/"
	switch {
	case s.MustChange:
		to = "/me"
	case !has(s.Role, watch):
		to = "/devices"
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func deviceOf(r *http.Request) string {
	if k, err := r.Cookie(deviceCookie); err == nil && len(k.Value) <= 100 {
		return k.Value
	}
	return ""
}

func (c *Console) loginOf(r *http.Request) accounts.Login {
	return accounts.Login{Who: r.PostFormValue("number"), Secret: r.PostFormValue("secret"), Device: deviceOf(r)}
}

// why puts an error of the accounts into words, with its status.
func (c *Console) why(r *http.Request, err error) (string, int) {
	var locked accounts.LockedError
	if errors.As(err, &locked) {
		return c.deps.Text.For(c.lang(r)).T("people.locked", "Count", int((locked.For+time.Second-1)/time.Second)), http.StatusTooManyRequests
	}
	for _, x := range []struct {
		err  error
		id   string
		code int
	}{
		{accounts.ErrWrong, "people.wrong", http.StatusForbidden},
		{accounts.ErrWeak, "people.weak", http.StatusUnprocessableEntity},
		{accounts.ErrName, "people.bad_name", http.StatusUnprocessableEntity},
		{accounts.ErrNumber, "people.bad_number", http.StatusUnprocessableEntity},
		{accounts.ErrTaken, "people.taken", http.StatusConflict},
		{accounts.ErrCard, "people.bad_card", http.StatusUnprocessableEntity},
		{accounts.ErrRole, "people.bad_role", http.StatusUnprocessableEntity},
		{accounts.ErrLast, "people.last", http.StatusConflict},
		{accounts.ErrManager, "people.last_manager", http.StatusConflict},
		{accounts.ErrSame, "people.same", http.StatusForbidden},
		{accounts.ErrReady, "people.ready", http.StatusConflict},
		{accounts.ErrTooMany, "people.too_many", http.StatusConflict},
		{accounts.ErrBusy, "people.busy", http.StatusServiceUnavailable},
		{edge.ErrForbidden, "people.not_theirs", http.StatusForbidden},
		{edge.ErrUnknown, "people.nobody", http.StatusNotFound},
		{errNoAccounts, "people.broken", http.StatusServiceUnavailable},
	} {
		if errors.Is(err, x.err) {
			return c.say(r, x.id), x.code
		}
	}
	if r.Context().Err() == nil {
		c.deps.Log.Error("the accounts do not answer", "err", err)
	}
	return c.say(r, "console.failed"), http.StatusServiceUnavailable
}

var errNoAccounts = errors.New("the accounts could not be opened")

// enter is the login.
func (c *Console) enter(w http.ResponseWriter, r *http.Request) {
	data := map[string]any{"Number": "", "Message": ""}
	if c.deps.People == nil {
		data["Message"], _ = c.why(r, errNoAccounts)
		w.WriteHeader(http.StatusServiceUnavailable)
		c.render(w, r, "enter.html", data)
		return
	}
	if fresh, err := c.deps.People.Fresh(r.Context()); err == nil && fresh && r.Method == http.MethodGet {
		http.Redirect(w, r, "/setup", http.StatusSeeOther)
		return
	}
	if r.Method == http.MethodPost {
		t, s, err := c.deps.People.Login(r.Context(), c.loginOf(r))
		if err == nil {
			c.begun(w, r, t, s)
			return
		}
		data["Number"] = typed(r, "number")
		c.refuse(w, r, data, err)
	}
	c.render(w, r, "enter.html", data)
}

// refuse puts why something was not done into a page's data, and its status into
// the answer.
func (c *Console) refuse(w http.ResponseWriter, r *http.Request, data map[string]any, err error) {
	msg, code := c.why(r, err)
	data["Message"] = msg
	w.WriteHeader(code)
}

// typed gives back to a form what somebody typed into it.
func typed(r *http.Request, field string) string {
	s := r.PostFormValue(field)
	if len(s) > 400 {
		s = s[:400]
	}
	return s
}

// setup makes the first manager, with the code of the first start.
func (c *Console) setup(w http.ResponseWriter, r *http.Request) {
	fresh := false
	if c.deps.People != nil {
		var err error
		if fresh, err = c.deps.People.Fresh(r.Context()); err != nil {
			c.deps.Log.Error("the accounts do not answer", "err", err)
		}
	}
	if !fresh {
		http.Redirect(w, r, "/enter", http.StatusSeeOther)
		return
	}
	data := map[string]any{"Message": "", "Name": typed(r, "name"), "Code": typed(r, "code")}
	if r.Method == http.MethodPost {
		err := errUnlike
		if r.PostFormValue("secret") == r.PostFormValue("secret2") {
			var t accounts.Token
			var s accounts.Session
			if t, s, err = c.deps.People.Setup(r.Context(), r.PostFormValue("code"), r.PostFormValue("name"), r.PostFormValue("secret")); err == nil {
				c.begun(w, r, t, s)
				return
			}
		}
		switch {
		case errors.Is(err, errUnlike):
			data["Message"] = c.say(r, "people.unlike")
			w.WriteHeader(http.StatusUnprocessableEntity)
		case errors.Is(err, accounts.ErrWrong):
			data["Message"] = c.say(r, "people.wrong_code")
			w.WriteHeader(http.StatusForbidden)
		default:
			c.refuse(w, r, data, err)
		}
	}
	c.render(w, r, "setup.html", data)
}

var errUnlike = errors.New("the secret was typed differently the second time")

// relief logs in who takes over at this tablet, and logs out who leaves.
func (c *Console) relief(w http.ResponseWriter, r *http.Request) {
	data := map[string]any{"Message": "", "Number": typed(r, "number")}
	if r.Method == http.MethodPost {
		t, s, err := c.deps.People.HandOver(r.Context(), loggedOf(r).token, c.loginOf(r))
		if err == nil {
			c.begun(w, r, t, s)
			return
		}
		c.refuse(w, r, data, err)
	}
	c.render(w, r, "relief.html", data)
}

// leave ends a session, once somebody else is there.
func (c *Console) leave(w http.ResponseWriter, r *http.Request) {
	if err := c.deps.People.Leave(r.Context(), loggedOf(r).token); err != nil {
		data := map[string]any{"Number": ""}
		c.refuse(w, r, data, err)
		c.render(w, r, "relief.html", data)
		return
	}
	c.keep(w, r, sessionCookie, "", -time.Second)
	http.Redirect(w, r, "/enter", http.StatusSeeOther)
}

// me lets a person choose their own secret.
func (c *Console) me(w http.ResponseWriter, r *http.Request) {
	p := personOf(r)
	data := map[string]any{"Message": "", "Must": p.MustChange, "Own": p.Role != accounts.Inspector}
	if r.Method == http.MethodPost {
		err := errUnlike
		if r.PostFormValue("secret") == r.PostFormValue("secret2") {
			if err = c.deps.People.SetOwn(r.Context(), p, r.PostFormValue("old"), r.PostFormValue("secret"), deviceOf(r)); err == nil {
				http.Redirect(w, r, "/", http.StatusSeeOther)
				return
			}
		}
		if errors.Is(err, errUnlike) {
			data["Message"] = c.say(r, "people.unlike")
			w.WriteHeader(http.StatusUnprocessableEntity)
		} else {
			c.refuse(w, r, data, err)
		}
	}
	c.render(w, r, "me.html", data)
}

// secondPerson verifies the second person of what two must do: the fields second
// and second_pin of a form.
func (c *Console) secondPerson(r *http.Request) (accounts.Person, error) {
	return c.deps.People.Second(r.Context(), personOf(r), accounts.Login{Who: r.PostFormValue("second"), Secret: r.PostFormValue("second_pin"), Device: deviceOf(r)})
}
