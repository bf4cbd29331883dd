// Package broker is an MQTT broker within the process: for the demo, for a small
// site whose community server brings its own broker, and for tests. It is
// nats-server with its MQTT listener, which can later run as a cluster.
package broker

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Broker is a running broker. It can be stopped and started again on the same
// address and folder.
type Broker struct {
	dir, host string
	port      int // 0 until the first start has chosen one
	o         Options

	mu  sync.Mutex
	srv *server.Server
}

// ready bounds how long a start may take; it takes some 30 ms.
const ready = 10 * time.Second

// Start starts a broker that keeps its sessions below dir and listens for MQTT on
// addr (host:port, port 0 = any).
func Start(dir, addr string) (*Broker, error) { return StartWith(dir, addr, Options{}) }

// StartWith is Start with options.
func StartWith(dir, addr string, o Options) (*Broker, error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("cannot start the broker on %q: %w", addr, err)
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("cannot start the broker on %q: %w", addr, err)
	}
	b := &Broker{dir: dir, host: host, port: int(port), o: o}
	if err := b.Restart(); err != nil {
		return nil, err
	}
	return b, nil
}

// Addr is where MQTT clients connect, host:port.
func (b *Broker) Addr() string { return net.JoinHostPort(b.host, strconv.Itoa(b.port)) }

// URL is Addr with its scheme.
func (b *Broker) URL() string {
	if b.o.TLS != nil {
		return "mqtts://" + b.Addr()
	}
	return "mqtt://" + b.Addr()
}

// Stop ends the broker and all its connections. It may be called again.
func (b *Broker) Stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.srv != nil {
		b.srv.Shutdown()
		b.srv.WaitForShutdown()
		b.srv = nil
	}
}

// Restart starts a stopped broker on the same address.
func (b *Broker) Restart() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.srv != nil {
		return errors.New("the broker is running already")
	}
	port := b.port
	if port == 0 {
		port = server.RANDOM_PORT
	}
	o := &server.Options{
		ServerName: "gatehouse", // MQTT sessions need a name that stays
		Host:       "127.0.0.1", // the listener for its own protocol is not used
		Port:       server.RANDOM_PORT,
		JetStream:  true,
		StoreDir:   b.dir,
		NoSigs:     true,
		NoLog:      true,
		MaxPayload: 16 << 20,
		MQTT:       server.MQTTOpts{Host: b.host, Port: port, TLSConfig: b.o.TLS, TLSTimeout: 10},
	}
	if b.o.Check != nil {
		o.CustomClientAuthentication = checker{b.o.Check}
	}
	srv, err := server.NewServer(o)
	if err != nil {
		return fmt.Errorf("cannot start the broker: %w", err)
	}
	srv.Start()
	if !srv.ReadyForConnections(ready) {
		srv.Shutdown()
		srv.WaitForShutdown()
		return fmt.Errorf("the broker does not come up on %s", b.Addr())
	}
	b.port = o.MQTT.Port // chosen now, kept for the next start
	b.srv = srv
	return nil
}
