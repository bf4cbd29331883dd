package console

import (
	"net/http"
	"strconv"

	"gatehouse/edge"
	"gatehouse/edge/console/accounts"
)

// roleChoice is a role that an account can have.
type roleChoice struct {
	Role  accounts.Role
	Named string
}

// peopleForm is what the form for a new account holds.
type peopleForm struct {
	Name, Number, Role, Card string
}

// people shows who has an account.
func (c *Console) people(w http.ResponseWriter, r *http.Request) {
	c.showPeople(w, r, map[string]any{"New": peopleForm{Role: string(accounts.Guard)}}, http.StatusOK)
}

func (c *Console) showPeople(w http.ResponseWriter, r *http.Request, data map[string]any, code int) {
	p := c.deps.Text.For(c.lang(r))
	list, err := c.deps.People.List(r.Context())
	if err == nil {
		// Who looked at whom is in the journal before it is on the screen.
		err = c.record(r.Context(), edge.KindAccess, actorOf(r), map[string]any{"page": "people"})
	}
	if err != nil {
		if _, shown := data["Message"]; !shown {
			data["Message"], code = c.why(r, err)
		}
		list = nil
	}
	var roles []roleChoice
	for _, x := range accounts.Roles() {
		if x != accounts.Inspector {
			roles = append(roles, roleChoice{x, p.T("role." + string(x))})
		}
	}
	if _, ok := data["New"]; !ok {
		data["New"] = peopleForm{Role: string(accounts.Guard)}
	}
	type row struct {
		accounts.Person
		Reset bool // by whoever looks
	}
	var rows []row
	for _, x := range list {
		rows = append(rows, row{x, c.mayReset(r, x)})
	}
	if data["Typed"] == nil {
		data["Typed"] = map[int64]*peopleForm{}
	}
	data["People"], data["Roles"] = rows, roles
	w.WriteHeader(code)
	c.render(w, r, "people.html", data)
}

// mayReset: a supervisor helps a guard who has forgotten the PIN at night; the
// rest is the manager's.
func (c *Console) mayReset(r *http.Request, of accounts.Person) bool {
	return c.may(r, changePeople) || (c.may(r, resetSecrets) && of.Role == accounts.Guard)
}

// addPerson makes an account with a PIN that serves once.
func (c *Console) addPerson(w http.ResponseWriter, r *http.Request) {
	f := peopleForm{Name: typed(r, "name"), Number: typed(r, "number"), Role: typed(r, "role"), Card: typed(r, "card")}
	number, err := int64(0), error(nil)
	if f.Number != "" {
		if number, err = strconv.ParseInt(f.Number, 10, 64); err != nil || number < 1 {
			err = accounts.ErrNumber
		}
	}
	data := map[string]any{"New": f}
	var p accounts.Person
	var pin string
	if err == nil {
		p, pin, err = c.deps.People.Add(r.Context(), actorOf(r), accounts.Person{Number: number, Name: f.Name, Role: accounts.Role(f.Role)}, "")
	}
	if err != nil {
		msg, code := c.why(r, err)
		data["Message"] = msg
		c.showPeople(w, r, data, code)
		return
	}
	delete(data, "New")
	data["Once"], data["OnceOf"] = pin, p
	if f.Card != "" {
		if err := c.deps.People.SetCard(r.Context(), actorOf(r), p.Number, f.Card); err != nil {
			data["Message"], _ = c.why(r, err)
		}
	}
	c.showPeople(w, r, data, http.StatusOK)
}

// changePerson does one thing to an account: gives it another name and role, a
// card, a PIN that serves once, or takes it away.
func (c *Console) changePerson(w http.ResponseWriter, r *http.Request) {
	number, err := strconv.ParseInt(r.PathValue("number"), 10, 64)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	ctx, data := r.Context(), map[string]any{}
	of, err := c.deps.People.Get(ctx, number)
	do := r.PostFormValue("do")
	switch {
	case err != nil:
	case do == "reset" && c.mayReset(r, of):
		var pin string
		if pin, err = c.deps.People.Reset(ctx, actorOf(r), number); err == nil {
			data["Once"], data["OnceOf"] = pin, of
		}
	case !c.may(r, changePeople):
		err = edge.ErrForbidden
	case do == "change":
		err = c.deps.People.Change(ctx, actorOf(r), number, r.PostFormValue("name"), accounts.Role(r.PostFormValue("role")))
	case do == "card":
		err = c.deps.People.SetCard(ctx, actorOf(r), number, r.PostFormValue("card"))
	case do == "remove":
		err = c.deps.People.Remove(ctx, actorOf(r), number)
	default:
		err = edge.ErrForbidden
	}
	code := http.StatusOK
	if err != nil {
		data["Message"], code = c.why(r, err)
		// What was typed stays in the form of that person.
		f := &peopleForm{Name: of.Name, Role: string(of.Role), Card: typed(r, "card")}
		if do == "change" {
			f.Name, f.Role = typed(r, "name"), typed(r, "role")
		}
		data["Typed"] = map[int64]*peopleForm{number: f}
	} else if data["Once"] == nil {
		data["Done"] = c.say(r, "console.changed")
	}
	c.showPeople(w, r, data, code)
}
