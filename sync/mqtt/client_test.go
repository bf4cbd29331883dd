package mqtt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gatehouse/sync/broker"
	"gatehouse/sync/mqtt"
)

func start(t *testing.T) *broker.Broker {
	t.Helper()
	b, err := broker.Start(t.TempDir(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	return b
}

// client makes a client that is not running yet.
func client(t *testing.T, url, id string, will *mqtt.Message) *mqtt.Client {
	t.Helper()
	c, err := mqtt.New(mqtt.Config{URL: url, ClientID: id, MinBackoff: 10 * time.Millisecond, MaxBackoff: 100 * time.Millisecond, Will: will}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run runs a client and returns what ends it and a channel of its connections.
func run(t *testing.T, c *mqtt.Client) (stop func(), up chan context.Context) {
	t.Helper()
	up = make(chan context.Context, 100)
	c.OnConnect(func(ctx context.Context) { up <- ctx })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
		done <- context.Canceled
	}
	t.Cleanup(stop)
	return stop, up
}

func want[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(2 * time.Minute):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

func TestMessagesArriveInOrderAndAfterTheBrokerCameBack(t *testing.T) {
	b := start(t)
	got := make(chan string, 1000)
	r := client(t, b.URL(), "receiver", nil)
	r.Subscribe("a/+/c", func(topic string, payload []byte) { got <- topic + " " + string(payload) })
	_, rUp := run(t, r)
	s := client(t, b.URL(), "sender", nil)
	_, sUp := run(t, s)
	for life := range 2 {
		conn := want(t, rUp, "connection of the receiver")
		want(t, sUp, "connection of the sender")
		for i := range 300 {
			if err := s.Publish(t.Context(), "a/b/c", fmt.Append(nil, i), false); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 300 {
			if m := want(t, got, "message"); m != fmt.Sprintf("a/b/c %d", i) {
				t.Fatalf("message %d is %q", i, m)
			}
		}
		if life == 1 {
			break
		}
		b.Stop()
		<-conn.Done()
		for s.Connected() {
			<-time.After(time.Millisecond)
		}
		if err := s.Publish(t.Context(), "a/b/c", nil, false); !errors.Is(err, mqtt.ErrOffline) {
			t.Errorf("publishing without a broker: %v", err)
		}
		if err := b.Restart(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWillOnOrderlyEnd(t *testing.T) {
	b := start(t)
	got := make(chan string, 10)
	r := client(t, b.URL(), "receiver", nil)
	r.Subscribe("status", func(_ string, payload []byte) { got <- string(payload) })
	_, up := run(t, r)
	want(t, up, "connection")
	s := client(t, b.URL(), "sender", &mqtt.Message{Topic: "status", Payload: []byte("offline"), Retained: true})
	stop, up := run(t, s)
	want(t, up, "connection")
	if err := s.Publish(t.Context(), "status", []byte("online"), true); err != nil {
		t.Fatal(err)
	}
	stop()
	if a, b := want(t, got, "status"), want(t, got, "status"); a != "online" || b != "offline" {
		t.Errorf("statuses %q, %q", a, b)
	}
}

// A broker that takes the connection and says nothing must hold up neither a
// publisher nor the end.
func TestSilentBroker(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	c := client(t, "mqtt://"+l.Addr().String(), "c", nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer want(t, accepted, "connection").Close()
	if err := c.Publish(t.Context(), "x", nil, false); !errors.Is(err, mqtt.ErrOffline) {
		t.Errorf("Publish: %v", err)
	}
	cancel()
	if err := want(t, done, "end"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A broker that stops reading and answering (packets dropped, not refused) holds a
// publisher up no longer than its context.
func TestBlackHoleHoldsNobodyUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 1024)
		if _, err := c.Read(buf); err != nil {
			return
		}
		if _, err := c.Write([]byte{0x20, 2, 0, 0}); err != nil { // CONNACK, accepted
			return
		}
		<-t.Context().Done() // reads nothing more
	}()
	c := client(t, "mqtt://"+l.Addr().String(), "c", nil)
	_, up := run(t, c)
	want(t, up, "connection")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	payload := bytes.Repeat([]byte{'x'}, 1<<20)
	for err == nil {
		err = c.Publish(ctx, "x", payload, false)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Publish: %v", err)
	}
}

func TestNew(t *testing.T) {
	for _, u := range []string{"", "http://x", "mqtt://", "mqtt://%zz", "host:1883"} {
		if _, err := mqtt.New(mqtt.Config{URL: u, ClientID: "c"}, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%q was taken", u)
		}
	}
	if _, err := mqtt.New(mqtt.Config{URL: "mqtt://h"}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("no client id was taken")
	}
}
