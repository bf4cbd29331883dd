package console

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"gatehouse/edge"
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
	Secret      bool // is typed again
}

// fields are those of a posted form, in a fixed order.
func fields(r *http.Request) []field {
	var out []field
	for name, values := range r.PostForm {
		if name == "once" || len(name) > 60 {
			continue
		}
		for _, v := range values {
			f := field{Name: name, Value: v, Secret: secretField(name)}
			if f.Secret {
				f.Value = ""
			}
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b field) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func secretField(name string) bool {
	return strings.HasPrefix(name, "secret") || strings.HasSuffix(name, "_pin") || name == "old"
}

// stale shows a form again that was sent twice, or comes from a page of another
// session: nothing has changed, and what was typed is still there.
func (c *Console) stale(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		http.Error(w, c.say(r, "people.stale"), http.StatusConflict)
		return
	}
	w.WriteHeader(http.StatusConflict)
	c.render(w, r, "stale.html", map[string]any{"Fields": fields(r), "To": r.URL.Path})
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

// parse reads a form, or says in the person's language why not.
func (c *Console) parse(w http.ResponseWriter, r *http.Request) bool {
	if err := r.ParseForm(); err != nil {
		http.Error(w, c.say(r, "people.too_big"), http.StatusRequestEntityTooLarge)
		return false
	}
	return true
}
