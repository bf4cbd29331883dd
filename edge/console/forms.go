package console

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/text"
)

// once makes every form that changes something good for one time: a post that is
// sent again, by a thumb, a browser's reload or somebody who has recorded it,
// changes nothing a second time. A form's token belongs to one session and one
// run of the daemon; with another, the person is asked whether to send it again,
// and nothing of what they typed is lost.
type once struct {
	key   [32]byte
	began time.Time

	mu   sync.Mutex
	used map[string]time.Duration // when, since began
}

const (
	onceLife = 12 * time.Hour
	maxUsed  = 4096
)

func newOnce() *once {
	o := &once{began: time.Now(), used: map[string]time.Duration{}}
	rand.Read(o.key[:])
	return o
}

func (o *once) mac(session string, body []byte) []byte {
	m := hmac.New(sha256.New, o.key[:])
	m.Write([]byte(session + "\x00"))
	m.Write(body)
	return m.Sum(nil)[:16]
}

// token is the time in seconds and a random number, with their MAC.
func (o *once) token(session string) string {
	body := binary.BigEndian.AppendUint32(nil, uint32(time.Since(o.began)/time.Second))
	body = append(body, rand.Text()[:16]...)
	return base64.RawURLEncoding.EncodeToString(append(body, o.mac(session, body)...))
}

// take uses a token up.
func (o *once) take(session, token string) bool {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != 36 {
		return false
	}
	body, now := raw[:20], time.Since(o.began)
	made := time.Duration(binary.BigEndian.Uint32(body)) * time.Second
	if subtle.ConstantTimeCompare(raw[20:], o.mac(session, body)) != 1 || now-made > onceLife {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.used[string(body)]; ok {
		return false
	}
	if len(o.used) >= maxUsed {
		oldest := ""
		for k, at := range o.used {
			if oldest == "" || at < o.used[oldest] {
				oldest = k
			}
		}
		delete(o.used, oldest)
	}
	o.used[string(body)] = now
	return true
}

// field is what somebody typed into a form that is shown again.
type field struct {
	Name, Value string
	Label       string // "" = nothing that a person typed or chose
	Shown       string // Value in words
	Secret      bool   // is typed again
}

// keptOf is how much of a field is given back when a form was too big.
const keptOf = 200

// fields are those of a posted form, in a fixed order.
func (c *Console) fields(r *http.Request, cut bool) []field {
	p := c.deps.Text.For(c.lang(r))
	var out []field
	for name, values := range r.PostForm {
		if name == "once" || len(name) > 60 {
			continue
		}
		for _, v := range values {
			f := field{Name: name, Value: v, Secret: secretField(name)}
			if f.Secret {
				f.Value = ""
			} else if runes := []rune(strings.ToValidUTF8(v, "")); cut && len(runes) > keptOf {
				f.Value = string(runes[:keptOf])
			}
			if p.Has("field." + name) {
				f.Label, f.Shown = p.T("field."+name), c.shown(p, name, f.Value)
			}
			out = append(out, f)
		}
	}
	slices.SortStableFunc(out, func(a, b field) int { return strings.Compare(a.Name, b.Name) })
	return out[:min(len(out), 40)]
}

// shown puts what was chosen into words.
func (c *Console) shown(p *text.Printer, name, v string) string {
	switch {
	case name == "lane":
		return c.laneName(v)
	case name == "status" && v == "":
		return p.T("console.restore")
	case name == "status":
		return word(p, "status.", v)
	case name == "role", name == "test":
		return word(p, name+".", v)
	case name == "why":
		return word(p, "inside.why_", v)
	}
	return v
}

func secretField(name string) bool {
	return strings.HasPrefix(name, "secret") || strings.HasSuffix(name, "_pin") || name == "old"
}

func wantsPage(r *http.Request) bool { return strings.Contains(r.Header.Get("Accept"), "text/html") }

// turnedAway is why a request did not reach its handler.
type turnedAway struct {
	say  string // the message's id
	code int
	cut  bool // not all of the form could be read, so it must not be sent again
	// What must come first, and on which page.
	first, firstSays string
}

// turnAway says in the person's language why a request is not followed: to a
// script in a line, else in a page that keeps what was typed, to be sent again.
func (c *Console) turnAway(w http.ResponseWriter, r *http.Request, t turnedAway) {
	if !wantsPage(r) {
		http.Error(w, c.say(r, t.say), t.code)
		return
	}
	to := url.URL{Path: "/" + strings.TrimLeft(r.URL.Path, "/\\")} // of the address only what cannot lead to another host
	data := map[string]any{"Message": c.say(r, t.say), "Back": to.String(), "Cut": t.cut, "First": t.first, "FirstSays": t.firstSays}
	if r.Method == http.MethodPost {
		if r.PostForm == nil {
			_, _ = readForm(r) // of a body that cannot be read what can be
		}
		data["Posted"], data["Fields"] = true, c.fields(r, t.cut)
		if !c.mayOpen(r.URL.Path) {
			data["Back"] = "/"
		}
	} else {
		to.RawQuery = r.URL.RawQuery
	}
	data["To"] = to.String()
	w.WriteHeader(t.code)
	c.render(w, r, "refused.html", data)
}

// mayOpen reports whether a form's address is a page too.
func (c *Console) mayOpen(path string) bool {
	return slices.ContainsFunc(c.routes(), func(rt route) bool { return rt.pattern == "GET "+path })
}

// stale shows a form again that was sent twice, or comes from a page of another
// session: nothing has changed, and what was typed is still there.
func (c *Console) stale(w http.ResponseWriter, r *http.Request) {
	c.turnAway(w, r, turnedAway{say: "people.stale", code: http.StatusConflict})
}

// inWords says in the person's language why something was refused.
func (c *Console) inWords(r *http.Request, err error) string {
	var x edge.Refusal
	p := c.deps.Text.For(c.lang(r))
	if !errors.As(err, &x) || !p.Has("refused."+x.Code) {
		return ""
	}
	return p.T("refused." + x.Code)
}

// readForm reads a posted form; of one that is too big, or no form, what there is of
// it.
func readForm(r *http.Request) (big bool, err error) {
	body, err := io.ReadAll(r.Body)
	var most *http.MaxBytesError
	if err != nil && !errors.As(err, &most) {
		return false, err
	}
	if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/x-www-form-urlencoded" {
		body = nil
	}
	if i := bytes.LastIndexByte(body, '%'); most != nil && i >= 0 && len(body)-i < 3 {
		body = body[:i] // it was cut within an escape
	}
	r.PostForm, err = url.ParseQuery(string(body))
	r.Form = maps.Clone(r.PostForm)
	for k, v := range r.URL.Query() {
		r.Form[k] = append(r.Form[k], v...)
	}
	return most != nil, err
}

// parse reads a form, or says in the person's language why not.
func (c *Console) parse(w http.ResponseWriter, r *http.Request) bool {
	switch big, err := readForm(r); {
	case big:
		c.turnAway(w, r, turnedAway{say: "people.too_big", code: http.StatusRequestEntityTooLarge, cut: true})
	case err != nil:
		c.turnAway(w, r, turnedAway{say: "refused.text", code: http.StatusBadRequest, cut: true})
	default:
		return true
	}
	return false
}
