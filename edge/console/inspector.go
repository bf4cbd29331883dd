package console

import (
	"errors"
	"net/http"

	"gatehouse/edge/console/accounts"
)

// inspector lets somebody in with the authority's credential: the page shows a
// challenge, the inspector's own device answers it. No account of the site is
// asked, and no network.
func (c *Console) inspector(w http.ResponseWriter, r *http.Request) {
	data := map[string]any{"Message": "", "Answer": "", "Challenge": ""}
	if c.deps.People == nil {
		c.refuse(w, r, data, errNoAccounts)
		c.render(w, r, "inspector.html", data)
		return
	}
	if r.Method == http.MethodPost {
		t, s, err := c.deps.People.Inspect(r.Context(), r.PostFormValue("answer"))
		if err == nil {
			c.begun(w, r, t, s)
			return
		}
		data["Answer"] = r.PostFormValue("answer")
		for _, x := range []struct {
			err error
			id  string
		}{{accounts.ErrExpired, "inspector.expired"}, {accounts.ErrEarly, "inspector.early"}, {accounts.ErrElsewhere, "inspector.elsewhere"},
			{accounts.ErrChallenge, "inspector.challenge"}, {accounts.ErrCredential, "inspector.unknown"}} {
			if errors.Is(err, x.err) {
				data["Message"] = c.say(r, x.id)
				w.WriteHeader(http.StatusForbidden)
				break
			}
		}
		if data["Message"] == "" {
			c.refuse(w, r, data, err)
		}
	}
	// A challenge that still waits for its answer is shown again: the answer may be
	// on its way.
	data["Challenge"] = r.PostFormValue("challenge")
	if !c.deps.People.Waits(r.PostFormValue("challenge")) {
		data["Challenge"] = c.deps.People.Challenge()
	}
	c.render(w, r, "inspector.html", data)
}
