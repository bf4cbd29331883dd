package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// Config says how to reach the broker. Zero durations take the defaults.
type Config struct {
	URL                string // mqtt://host:1883 or mqtts://host:8883
	ClientID           string // unique at the broker
	Username, Password string
	TLS                *tls.Config // for mqtts; nil = the system's authorities
	KeepAlive          time.Duration
	MinBackoff         time.Duration // between attempts to connect, doubled each time
	MaxBackoff         time.Duration
	Will               *Message // what the broker says when this client is gone; said on an orderly end too
	Inflight           int      // messages on their way to the broker; 0 = 64
}

// Message is one message to be published.
type Message struct {
	Topic    string
	Payload  []byte
	Retained bool
}

const (
	connectTimeout = 15 * time.Second // for dialling, TLS and CONNACK
	writeTimeout   = 20 * time.Second // for one packet
	farewell       = 2 * time.Second  // for the last message of an orderly end
	queued         = 256              // messages received and not handled yet
	stable         = 10 * time.Second // a connection that lived so long sets the back-off back
)

// ErrOffline: there is no connection now.
var ErrOffline = errors.New("not connected to the broker")

// Client keeps one connection to a broker for as long as Run runs.
type Client struct {
	cfg  Config
	log  *slog.Logger
	addr string
	tls  *tls.Config

	subs      []subscription
	onConnect []func(context.Context)

	in chan received // to the one goroutine that handles messages

	mu   sync.Mutex
	conn *connection // nil: offline
	err  error       // why
	up   time.Time
}

type subscription struct {
	filter string
	f      func(topic string, payload []byte)
}

// received is a message that was not handled yet.
type received struct {
	topic   string
	payload []byte
}

// outgoing is a message for the connection; done is closed when the library
// reports it as complete, whatever that means.
type outgoing struct {
	Message
	done chan struct{}
}

// connection is one life of the connection. Its parts end with ctx.
type connection struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	paho   paho.Client
	out    chan outgoing
	slots  chan struct{}
}

// New checks the configuration. It connects nowhere.
func New(cfg Config, log *slog.Logger) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("broker address %q: %w", cfg.URL, err)
	}
	c := &Client{cfg: cfg, log: log, in: make(chan received, queued)}
	port := "1883"
	switch u.Scheme {
	case "mqtt", "tcp":
	case "mqtts", "ssl", "tls":
		port = "8883"
		c.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if cfg.TLS != nil {
			c.tls = cfg.TLS.Clone()
		}
		if c.tls.ServerName == "" {
			c.tls.ServerName = u.Hostname()
		}
	default:
		return nil, fmt.Errorf("broker address %q: want mqtt://host:port or mqtts://host:port", cfg.URL)
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("broker address %q: no host", cfg.URL)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	c.addr = net.JoinHostPort(u.Hostname(), port)
	if cfg.ClientID == "" {
		return nil, errors.New("the broker needs a client id")
	}
	def(&c.cfg.KeepAlive, 30*time.Second)
	def(&c.cfg.MinBackoff, 250*time.Millisecond)
	def(&c.cfg.MaxBackoff, 30*time.Second)
	if c.cfg.Inflight <= 0 {
		c.cfg.Inflight = 64
	}
	return c, nil
}

func def(d *time.Duration, v time.Duration) {
	if *d <= 0 {
		*d = v
	}
}

// Subscribe adds a subscription, at quality of service 1. It is for before Run. f
// is called for one message at a time, in the order of arrival; a slow f holds the
// broker up.
func (c *Client) Subscribe(filter string, f func(topic string, payload []byte)) {
	c.subs = append(c.subs, subscription{filter, f})
}

// OnConnect adds a function that is called after each connection, once all
// subscriptions stand; its context ends with the connection. It is for before Run.
func (c *Client) OnConnect(f func(ctx context.Context)) { c.onConnect = append(c.onConnect, f) }

// Connected reports whether there is a connection now.
func (c *Client) Connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn != nil
}

// State tells since when there is a connection, or why there is none.
func (c *Client) State() (since time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.up, c.err
}

// Publish hands a message to the connection, at quality of service 1. It waits
// while too many others are on their way, not longer than ctx, and fails at once
// with ErrOffline when there is no connection. That it returns nil proves nothing.
func (c *Client) Publish(ctx context.Context, topic string, payload []byte, retained bool) error {
	return c.publish(ctx, outgoing{Message: Message{topic, payload, retained}})
}

func (c *Client) publish(ctx context.Context, m outgoing) error {
	c.mu.Lock()
	n := c.conn
	c.mu.Unlock()
	if n == nil {
		return ErrOffline
	}
	select {
	case n.out <- m:
		return nil
	case <-n.ctx.Done():
		return ErrOffline
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run keeps connecting until ctx is done. It says farewell with the will.
func (c *Client) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	handling, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	parts.Go(func() { c.handle(handling) })
	pause := c.cfg.MinBackoff
	for ctx.Err() == nil {
		began := time.Now()
		err := c.live(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > stable {
			pause = c.cfg.MinBackoff
		}
		wait := pause/2 + rand.N(pause/2+1)
		c.mu.Lock()
		repeated := c.err != nil && c.err.Error() == err.Error()
		c.err = err
		c.mu.Unlock()
		if !repeated {
			c.log.Warn("no connection to the broker", "broker", c.addr, "err", err, "retry", wait.Round(time.Millisecond))
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		pause = min(2*pause, c.cfg.MaxBackoff)
	}
	return ctx.Err()
}

// live is one connection from dialling to its end.
func (c *Client) live(ctx context.Context) error {
	n := &connection{out: make(chan outgoing), slots: make(chan struct{}, c.cfg.Inflight)}
	n.ctx, n.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	defer n.cancel(nil)
	n.paho = paho.NewClient(c.options(ctx, n))
	t := n.paho.Connect()
	<-t.Done() // bounded by connectTimeout; the dial ends with ctx
	if err := t.Error(); err != nil {
		return fmt.Errorf("cannot connect: %w", err)
	}
	if err := c.subscribe(n); err != nil {
		n.paho.Disconnect(0)
		return err
	}
	c.mu.Lock()
	c.conn, c.err, c.up = n, nil, time.Now()
	c.mu.Unlock()
	c.log.Info("connected to the broker", "broker", c.addr)

	var parts sync.WaitGroup
	// Not waited for: the library may hold it for writeTimeout when the broker has
	// stopped reading. It touches nothing but this connection.
	go n.write()
	for _, f := range c.onConnect {
		parts.Go(func() { f(n.ctx) })
	}
	select {
	case <-ctx.Done():
		c.leave(n)
	case <-n.ctx.Done():
	}
	c.mu.Lock()
	c.conn = nil
	c.mu.Unlock()
	n.cancel(errors.New("stopped"))
	parts.Wait()
	n.paho.Disconnect(250)
	return context.Cause(n.ctx)
}

// leave says the will before an orderly end: the broker drops it then.
func (c *Client) leave(n *connection) {
	if c.cfg.Will == nil {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, farewell)
	defer cancel()
	m := outgoing{*c.cfg.Will, make(chan struct{})}
	if c.publish(ctx, m) != nil {
		return
	}
	select {
	case <-m.done:
	case <-ctx.Done():
	}
}

func (c *Client) options(ctx context.Context, n *connection) *paho.ClientOptions {
	o := paho.NewClientOptions()
	o.AddBroker("tcp://" + c.addr) // dialled by the function below
	o.SetProtocolVersion(4)
	o.SetClientID(c.cfg.ClientID)
	o.SetUsername(c.cfg.Username)
	o.SetPassword(c.cfg.Password)
	o.SetCleanSession(true)
	o.SetAutoReconnect(false)
	o.SetConnectRetry(false)
	o.SetOrderMatters(true)
	o.SetKeepAlive(c.cfg.KeepAlive)
	o.SetPingTimeout(max(c.cfg.KeepAlive/2, time.Second))
	o.SetConnectTimeout(connectTimeout)
	o.SetWriteTimeout(writeTimeout)
	if w := c.cfg.Will; w != nil {
		o.SetBinaryWill(w.Topic, w.Payload, 1, w.Retained)
	}
	o.SetConnectionLostHandler(func(_ paho.Client, err error) {
		n.cancel(fmt.Errorf("connection lost: %w", err))
	})
	o.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
		select {
		case c.in <- received{m.Topic(), m.Payload()}:
		case <-n.ctx.Done():
		}
	})
	o.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) {
		dctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		var d net.Dialer
		raw, err := d.DialContext(dctx, "tcp", c.addr)
		if err != nil {
			return nil, err
		}
		nc := raw
		if c.tls != nil {
			tc := tls.Client(raw, c.tls)
			if err := tc.HandshakeContext(dctx); err != nil {
				return nil, errors.Join(err, raw.Close())
			}
			nc = tc
		}
		// A handshake with a silent broker ends with ctx, not only in time.
		stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
		context.AfterFunc(n.ctx, func() { stop() })
		return &untilUp{Conn: nc, stop: stop}, nil
	})
	return o
}

// untilUp is a connection whose end with the client's context is called off when
// the handshake is over: paho then clears the deadline.
type untilUp struct {
	net.Conn
	stop func() bool
}

func (u *untilUp) SetDeadline(t time.Time) error {
	if t.IsZero() {
		u.stop()
	}
	return u.Conn.SetDeadline(t)
}

func (c *Client) subscribe(n *connection) error {
	if len(c.subs) == 0 {
		return nil
	}
	filters := map[string]byte{}
	for _, s := range c.subs {
		filters[s.filter] = 1
	}
	t := n.paho.SubscribeMultiple(filters, nil).(*paho.SubscribeToken)
	select {
	case <-t.Done():
	case <-n.ctx.Done():
		return context.Cause(n.ctx)
	case <-time.After(connectTimeout):
		return errors.New("the broker does not answer a subscription")
	}
	if err := t.Error(); err != nil {
		return fmt.Errorf("cannot subscribe: %w", err)
	}
	for filter, qos := range t.Result() {
		if qos > 2 {
			return fmt.Errorf("the broker refuses the subscription to %s", filter)
		}
	}
	return nil
}

// write hands messages to the library, which may block longer than a caller of
// Publish likes to.
func (n *connection) write() {
	for {
		select {
		case n.slots <- struct{}{}:
		case <-n.ctx.Done():
			return
		}
		select {
		case m := <-n.out:
			t := n.paho.Publish(m.Topic, 1, m.Retained, m.Payload)
			go func() {
				select {
				case <-t.Done():
				case <-n.ctx.Done():
				}
				if m.done != nil {
					close(m.done)
				}
				<-n.slots
			}()
		case <-n.ctx.Done():
			<-n.slots
			return
		}
	}
}

func (c *Client) handle(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-c.in:
			for _, s := range c.subs {
				if matches(s.filter, m.topic) {
					s.f(m.topic, m.payload)
				}
			}
		}
	}
}

// matches reports whether a topic is within a filter (MQTT 3.1.1 section 4.7).
func matches(filter, topic string) bool {
	for {
		f, frest, fmore := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, trest, tmore := strings.Cut(topic, "/")
		if f != "+" && f != t {
			return false
		}
		if !fmore || !tmore {
			return fmore == tmore || fmore && frest == "#"
		}
		filter, topic = frest, trest
	}
}
