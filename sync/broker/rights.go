package broker

import (
	"crypto/tls"
	"crypto/x509"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// Options say who may connect. Without them everybody may do everything.
type Options struct {
	TLS   *tls.Config            // nil = no TLS
	Check func(c Client) *Rights // nil = everybody may; a nil result turns the client away
}

// Client is who wants to connect.
type Client struct {
	User, Password string
	Cert           *x509.Certificate // verified by TLS; nil = none
}

// Rights are the topics a client may write to and read, as MQTT filters. All
// stands for everything.
type Rights struct {
	Write, Read []string
	All         bool
}

// checker is the server's way to ask.
type checker struct{ check func(Client) *Rights }

func (k checker) Check(c server.ClientAuthentication) bool {
	o := c.GetOpts()
	who := Client{User: o.Username, Password: o.Password}
	if st := c.GetTLSConnectionState(); st != nil && len(st.VerifiedChains) > 0 {
		who.Cert = st.PeerCertificates[0]
	}
	r := k.check(who)
	if r == nil {
		return false
	}
	u := &server.User{Username: who.User}
	if !r.All {
		// The server's own subjects: what it sends for quality of service 1, and the
		// acknowledgements of it.
		u.Permissions = &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: append(subjects(r.Write), "$MQTT.>")},
			Subscribe: &server.SubjectPermission{Allow: append(subjects(r.Read), "$MQTT.sub.>")},
		}
	}
	c.RegisterUser(u)
	return true
}

// subjects are topics in the server's own form: levels are separated by dots, and
// a dot within a level is two slashes.
func subjects(topics []string) []string {
	var out []string
	for _, t := range topics {
		levels := strings.Split(t, "/")
		for i, l := range levels {
			switch l {
			case "+":
				levels[i] = "*"
			case "#":
				levels[i] = ">"
			default:
				levels[i] = strings.ReplaceAll(l, ".", "//")
			}
		}
		out = append(out, strings.Join(levels, "."))
	}
	return out
}
