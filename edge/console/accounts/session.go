package accounts

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"errors"
	"time"

	"gatehouse/edge"
)

// How long a session lasts. One of somebody who answers for a lane never ends by
// time alone: there must be another, younger one that is in use.
const (
	shift    = 16 * time.Hour
	idle     = 30 * time.Minute // of an installer or inspector
	present  = 30 * time.Minute // seen within it, somebody counts as there
	touch    = 5 * time.Minute  // how stale the note of the last use may be: flash wears
	maxStale = 20               // sessions of one person; the oldest go
)

// Session is somebody who has logged in.
type Session struct {
	Person
	Began time.Time
}

// Login says who wants in: a number or a card, the secret, and the token of the
// device as a former login gave it, if any.
type Login struct {
	Who, Secret, Device string
}

// Token is what a browser keeps after a login.
type Token struct {
	Session string
	Device  string // known from now on; see delay
}

func newToken() string {
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		panic(err) // crypto/rand never fails
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// Login begins a session.
func (a *Accounts) Login(ctx context.Context, l Login) (Token, Session, error) {
	return a.login(ctx, l, "")
}

// HandOver begins the relief's session and ends the one that token names, in one
// step.
func (a *Accounts) HandOver(ctx context.Context, token string, l Login) (Token, Session, error) {
	if _, err := a.Session(ctx, token); err != nil {
		return Token{}, Session{}, err
	}
	return a.login(ctx, l, token)
}

func (a *Accounts) login(ctx context.Context, l Login, relieved string) (Token, Session, error) {
	number, err := a.number(ctx, l.Who)
	if err != nil {
		return Token{}, Session{}, err
	}
	p, err := a.prove(ctx, number, l.Secret, l.Device)
	if err != nil {
		return Token{}, Session{}, err
	}
	data := map[string]any{"action": "login"}
	if relieved != "" {
		old, err := a.Session(ctx, relieved)
		if err != nil {
			return Token{}, Session{}, err
		}
		if old.Role.Acts() && !p.Role.Acts() {
			return Token{}, Session{}, ErrLast
		}
		data = map[string]any{"action": "relief", "of": old.Actor()}
	}
	return a.begin(ctx, p, data, l.Device, relieved, 0)
}

// begin journals a login and keeps its session.
func (a *Accounts) begin(ctx context.Context, p Person, data map[string]any, device, relieved string, until int64) (Token, Session, error) {
	if err := a.record(ctx, p.Actor(), data); err != nil {
		return Token{}, Session{}, err
	}
	t := Token{Session: newToken(), Device: device}
	if t.Device == "" && p.Role != Inspector {
		t.Device = newToken()
	}
	now := a.now().Time
	tx, err := a.db.W.BeginTx(ctx, nil)
	if err != nil {
		return Token{}, Session{}, err
	}
	defer func() { _ = tx.Rollback() }()
	name := ""
	if p.Role == Inspector {
		name = p.Name
	}
	stmts := []struct {
		query string
		args  []any
	}{
		{"INSERT INTO sessions (token, number, role, name, began, seen, until) VALUES (?, ?, ?, ?, ?, ?, ?)", []any{digest(t.Session), p.Number, p.Role, name, now, now, until}},
		{"DELETE FROM sessions WHERE number = ? AND role = ? AND token NOT IN (SELECT token FROM sessions WHERE number = ? AND role = ? ORDER BY began DESC LIMIT ?)", []any{p.Number, p.Role, p.Number, p.Role, maxStale}},
		{"DELETE FROM sessions WHERE token = ?", []any{digest(relieved)}},
	}
	if t.Device != "" {
		stmts = append(stmts, struct {
			query string
			args  []any
		}{"INSERT OR REPLACE INTO devices (token, number, seen) VALUES (?, ?, ?)", []any{digest(t.Device), p.Number, now}},
			struct {
				query string
				args  []any
			}{"DELETE FROM devices WHERE number = ? AND token NOT IN (SELECT token FROM devices WHERE number = ? ORDER BY seen DESC LIMIT ?)", []any{p.Number, p.Number, maxStale}})
	}
	for _, s := range stmts {
		if _, err := tx.ExecContext(ctx, s.query, s.args...); err != nil {
			return Token{}, Session{}, err
		}
	}
	if err := tx.Commit(); err != nil {
		return Token{}, Session{}, err
	}
	return t, Session{Person: p, Began: time.UnixMilli(now)}, nil
}

// Session finds who a browser's token stands for; edge.ErrUnknown when nobody,
// or when its time is over.
func (a *Accounts) Session(ctx context.Context, token string) (Session, error) {
	if token == "" || len(token) > 100 {
		return Session{}, edge.ErrUnknown
	}
	var s Session
	var began, seen, until int64
	err := a.db.R.QueryRowContext(ctx, `SELECT s.number, coalesce(p.name, s.name), s.role, coalesce(p.must_change, 0), p.card IS NOT NULL, s.began, s.seen, s.until
		FROM sessions s LEFT JOIN people p ON p.number = s.number AND p.role = s.role WHERE s.token = ? AND (p.number IS NOT NULL OR s.role = ?)`, digest(token), Inspector).
		Scan(&s.Number, &s.Name, &s.Role, &s.MustChange, &s.Card, &began, &seen, &until)
	if errors.Is(err, sql.ErrNoRows) {
		return Session{}, edge.ErrUnknown
	}
	if err != nil {
		return Session{}, err
	}
	s.Began = time.UnixMilli(began)
	stamp := a.now()
	if s.Role.Acts() && stamp.Time-began > shift.Milliseconds() {
		a.ending.Lock()
		defer a.ending.Unlock()
	}
	now := stamp.Time
	over := until != 0 && now >= until && stamp.Clock.Trusted()
	if s.Role.Acts() {
		if now-began > shift.Milliseconds() {
			if over, err = a.others(ctx, token, began); err != nil {
				return Session{}, err
			}
		}
	} else if now-seen > idle.Milliseconds() {
		over = true
	}
	if over {
		_ = a.record(ctx, s.Actor(), map[string]any{"action": "ended"})
		_, err := a.db.W.ExecContext(ctx, "DELETE FROM sessions WHERE token = ?", digest(token))
		return Session{}, errors.Join(edge.ErrUnknown, err)
	}
	if d := now - seen; d > touch.Milliseconds() || d < -touch.Milliseconds() {
		if _, err := a.db.W.ExecContext(ctx, "UPDATE sessions SET seen = ? WHERE token = ?", now, digest(token)); err != nil {
			// A session that cannot be noted as used still holds.
			a.o.Log.Warn("cannot note that a session is in use", "err", err)
		}
	}
	return s, nil
}

// others says whether somebody else who answers for the lanes is there, in a
// session that began after the given time.
func (a *Accounts) others(ctx context.Context, token string, after int64) (bool, error) {
	var n int
	err := a.db.R.QueryRowContext(ctx, `SELECT count(*) FROM sessions s JOIN people p ON p.number = s.number AND p.role = s.role
		WHERE s.token <> ? AND s.role IN (?, ?, ?) AND s.seen > ? AND s.began >= ? AND p.must_change = 0`,
		digest(token), Guard, Supervisor, Manager, a.now().Time-present.Milliseconds(), after).Scan(&n)
	return n > 0, err
}

// Leave ends a session. ErrLast when nobody else would be there.
func (a *Accounts) Leave(ctx context.Context, token string) error {
	s, err := a.Session(ctx, token)
	if err != nil {
		return err
	}
	if s.Role.Acts() {
		a.ending.Lock()
		defer a.ending.Unlock()
		there, err := a.others(ctx, token, 0)
		if err != nil {
			return err
		}
		if !there {
			return ErrLast
		}
	}
	if err := a.record(ctx, s.Actor(), map[string]any{"action": "logout"}); err != nil {
		return err
	}
	_, err = a.db.W.ExecContext(ctx, "DELETE FROM sessions WHERE token = ?", digest(token))
	return err
}

// Second verifies the second person of an action that two must do.
func (a *Accounts) Second(ctx context.Context, first Person, l Login) (Person, error) {
	number, err := a.number(ctx, l.Who)
	if err != nil {
		return Person{}, err
	}
	if number != 0 && number == first.Number {
		return Person{}, ErrSame
	}
	p, err := a.prove(ctx, number, l.Secret, l.Device)
	switch {
	case err != nil:
		return Person{}, err
	case !p.Role.Acts() || p.MustChange:
		return Person{}, edge.ErrForbidden
	}
	return p, nil
}
