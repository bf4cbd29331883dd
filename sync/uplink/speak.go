package uplink

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// renew makes a new nonce and has the status said.
func (u *Uplink) renew() {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	u.mu.Lock()
	u.nonces = [2]string{base64.RawURLEncoding.EncodeToString(b[:]), u.nonces[0]}
	u.mu.Unlock()
	u.Say()
}

// speak publishes the status, and a new nonce with it now and then. One that fails is
// said again soon: until the server has the nonce, the gate refuses its commands.
func (u *Uplink) speak(ctx context.Context) error {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			u.renew()
			continue
		case <-u.talk:
		case <-again:
		}
		again = nil
		if !u.t.Connected() {
			continue // said after the next connection
		}
		payload, err := wire.Encode(u.message())
		if err == nil {
			err = u.publish(ctx, wire.Status, payload, true)
		}
		if err != nil && ctx.Err() == nil {
			u.note(err)
			again = time.After(tailRetry)
		}
	}
}

func (u *Uplink) message() wire.StatusMessage {
	var m wire.StatusMessage
	if u.cfg.Status != nil {
		m = u.cfg.Status()
	}
	m.V, m.Online, m.Key = wire.Version, true, u.vkey
	m.Epoch, m.Size, m.Acked = u.j.Epoch(), u.j.Size(), u.j.Acked()
	m.Nonce, _ = u.Nonces()
	return m
}

const (
	alertsKept   = 100         // said again after a reconnection while not receipted
	tailRead     = 1000        // entries looked at once
	tailBytes    = 1 << 20     // of them
	tailRetry    = time.Second // after a failure
	maxAlertText = 800         // bytes of the reason of a refusal; the entry has all of it
	tailBack     = 10_000      // entries of former runs looked at; older alerts come with their entries
)

// saidAlert is an alert with the connection it was said in: in that one it need
// not be said again.
type saidAlert struct {
	wire.AlertMessage
	connection uint64
}

// watch looks at every new entry for what a person should see now, and says it at
// once: it must not wait behind a backlog. The alerts of an outage follow when the
// connection is back, before the backlog has drained.
func (u *Uplink) watch(ctx context.Context) error {
	epoch, next := u.j.Epoch(), u.j.Acked()
	if size := u.j.Size(); size > tailBack {
		next = max(next, size-tailBack)
	}
	var said []saidAlert
	for {
		grown, done := u.growth(ctx, next)
		repeat := false
		select {
		case <-ctx.Done():
		case <-grown:
		case <-u.repeat:
			repeat = true
		}
		done()
		select {
		case <-u.repeat: // both: first what was said before
			repeat = true
		default:
		}
		if e := u.j.Epoch(); e != epoch {
			epoch, next = e, 0
		}
		err := ctx.Err()
		if err != nil {
			return err
		}
		if repeat {
			acked := int64(u.j.Acked())
			said = slices.DeleteFunc(said, func(a saidAlert) bool { return a.Epoch != epoch || a.Seq < acked })
			for i := 0; err == nil && i < len(said); i++ {
				if now := u.connection.Load(); said[i].connection != now {
					if err = u.alert(ctx, said[i].AlertMessage); err == nil {
						said[i].connection = now
					}
				}
			}
		}
		if err == nil {
			next, said, err = u.look(ctx, epoch, next, said)
		}
		if err != nil {
			// Offline, mostly: a connection asks for a repetition.
			if err := sleep(ctx, tailRetry); err != nil {
				return err
			}
		}
	}
}

// look goes through some entries from next on and says their alerts.
func (u *Uplink) look(ctx context.Context, epoch edge.Epoch, next uint64, said []saidAlert) (uint64, []saidAlert, error) {
	entries, err := u.j.Read(ctx, next, tailRead, tailBytes)
	if err != nil {
		return next, said, err
	}
	for _, e := range entries {
		if a, ok := alertOf(e); ok {
			a.V, a.Epoch, a.Seq = wire.Version, epoch, int64(e.Seq)
			now := u.connection.Load()
			if err := u.alert(ctx, a); err != nil {
				return next, said, err
			}
			if said = append(said, saidAlert{a, now}); len(said) > alertsKept {
				said = said[1:]
			}
		}
		next = e.Seq + 1
	}
	return next, said, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (u *Uplink) alert(ctx context.Context, a wire.AlertMessage) error {
	payload, err := wire.Encode(a)
	if err != nil {
		return err
	}
	return u.publish(ctx, wire.Alerts, payload, false)
}

// hints are in every line that may be an alert; the others are not decoded.
var hints = [][]byte{[]byte(`"alert"`), []byte(`"kind":"fire"`), []byte(`"abandoned"`), []byte(`"forced"`), []byte(`"held_open"`), []byte(`"refused"`)}

// alertOf says whether an entry is something a person should look at now.
func alertOf(s edge.Stored) (wire.AlertMessage, bool) {
	if !slices.ContainsFunc(hints, func(h []byte) bool { return bytes.Contains(s.Line, h) }) {
		return wire.AlertMessage{}, false
	}
	e, err := edge.DecodeEntry(s.Line)
	if err != nil {
		return wire.AlertMessage{}, false
	}
	a := wire.AlertMessage{Time: e.Stamp.Time, Lane: e.Lane}
	switch {
	case e.Kind == edge.KindAlert:
		var d struct {
			Alert string `json:"alert"`
			Text  string `json:"text"`
		}
		_ = json.Unmarshal(e.Data, &d) // an alert without more is one too
		a.Code, a.Text = d.Alert, d.Text
		if a.Code == "" {
			a.Code = string(edge.KindAlert)
		}
	case e.Kind == edge.KindFire, e.Kind == edge.KindAbandoned:
		a.Code = string(e.Kind)
	case e.Kind == edge.KindPassage && (e.Result == edge.ResultForced || e.Result == edge.ResultHeldOpen):
		a.Code = e.Result
	case e.Kind == edge.KindPolicy || e.Kind == edge.KindRegistry:
		var d struct {
			Refused string `json:"refused"`
		}
		if err := json.Unmarshal(e.Data, &d); err != nil || d.Refused == "" {
			return wire.AlertMessage{}, false
		}
		a.Code, a.Text = string(e.Kind)+"_refused", d.Refused
		if len(a.Text) > maxAlertText {
			a.Text = strings.ToValidUTF8(a.Text[:maxAlertText], "")
		}
	case slices.Contains(e.Obligations, "alert"):
		a.Code, a.Text = string(e.Reason), e.Rule
	default:
		return wire.AlertMessage{}, false
	}
	if a.Text == "" {
		a.Text = a.Code
	}
	return a, true
}
