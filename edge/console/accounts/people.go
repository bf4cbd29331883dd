package accounts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"gatehouse/edge"
)

const personColumns = "number, name, role, must_change, card IS NOT NULL"

func scanPerson(row interface{ Scan(...any) error }, more ...any) (Person, error) {
	var p Person
	err := row.Scan(append([]any{&p.Number, &p.Name, &p.Role, &p.MustChange, &p.Card}, more...)...)
	if errors.Is(err, sql.ErrNoRows) {
		err = edge.ErrUnknown
	}
	return p, err
}

// List gives everybody, by number.
func (a *Accounts) List(ctx context.Context) ([]Person, error) {
	rows, err := a.db.R.QueryContext(ctx, "SELECT "+personColumns+" FROM people ORDER BY number")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Person
	for rows.Next() {
		p, err := scanPerson(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

// Get gives one person; edge.ErrUnknown when there is none.
func (a *Accounts) Get(ctx context.Context, number int64) (Person, error) {
	return scanPerson(a.db.R.QueryRowContext(ctx, "SELECT "+personColumns+" FROM people WHERE number = ?", number))
}

// checkName takes any script, and no control character, which covers newlines
// and what turns the direction of a line.
func checkName(name string) (string, error) {
	name = strings.TrimSpace(name)
	bad := func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == utf8.RuneError
	}
	if name == "" || !utf8.ValidString(name) || utf8.RuneCountInString(name) > maxName || strings.ContainsFunc(name, bad) {
		return "", ErrName
	}
	return name, nil
}

// Add makes an account. An empty secret gives it one that serves once, which is
// returned, and with which the person chooses their own. Number 0 takes the next
// free one.
func (a *Accounts) Add(ctx context.Context, actor string, p Person, secret string) (Person, string, error) {
	var err error
	if p.Name, err = checkName(p.Name); err != nil {
		return p, "", err
	}
	if !p.Role.ofSite() {
		return p, "", ErrRole
	}
	if p.Number < 0 || p.Number > maxNumber {
		return p, "", ErrNumber
	}
	p.MustChange, p.Card = secret == "", false
	once := ""
	if secret == "" {
		once = oneTimePIN()
		secret = once
	} else if secret, err = checkSecret(secret); err != nil {
		return p, "", err
	}
	hash, err := a.hash(ctx, secret)
	if err != nil {
		return p, "", err
	}
	err = a.write(ctx, actor, func(tx *sql.Tx) (change, error) {
		err := a.insert(ctx, tx, &p, hash)
		return change{Action: "add", Account: p.Number, Role: p.Role}, err
	})
	return p, once, err
}

func (a *Accounts) insert(ctx context.Context, tx *sql.Tx, p *Person, hash string) error {
	var n, next, taken int64
	if err := tx.QueryRowContext(ctx, "SELECT count(*), coalesce(max(number), 0) + 1, coalesce(sum(number = ?), 0) FROM people", p.Number).Scan(&n, &next, &taken); err != nil {
		return err
	}
	switch {
	case n >= maxPeople:
		return ErrTooMany
	case taken > 0:
		return ErrTaken
	case p.Number == 0 && next > maxNumber:
		return ErrNumber
	case p.Number == 0:
		p.Number = next
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO people (number, name, role, secret, must_change) VALUES (?, ?, ?, ?, ?)", p.Number, p.Name, p.Role, hash, p.MustChange)
	return err
}

// Change gives an account another name and role.
func (a *Accounts) Change(ctx context.Context, actor string, number int64, name string, role Role) error {
	name, err := checkName(name)
	if err != nil {
		return err
	}
	if !role.ofSite() {
		return ErrRole
	}
	return a.write(ctx, actor, func(tx *sql.Tx) (change, error) {
		p, err := scanPerson(tx.QueryRowContext(ctx, "SELECT "+personColumns+" FROM people WHERE number = ?", number))
		if err != nil {
			return change{}, err
		}
		if p.Role == Manager && role != Manager {
			if err := lastManager(ctx, tx, number); err != nil {
				return change{}, err
			}
		}
		c := change{Action: "role", Account: number, Role: role, Before: p.Role}
		if role == p.Role {
			c.Action = "name"
		}
		_, err = tx.ExecContext(ctx, "UPDATE people SET name = ?, role = ? WHERE number = ?", name, role, number)
		if err == nil && role != p.Role {
			// Another role is another session.
			_, err = tx.ExecContext(ctx, "DELETE FROM sessions WHERE number = ? AND role = ?", number, p.Role)
		}
		return c, err
	})
}

func lastManager(ctx context.Context, tx *sql.Tx, number int64) error {
	var others int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM people WHERE role = ? AND number <> ?", Manager, number).Scan(&others); err != nil {
		return err
	}
	if others == 0 {
		return ErrManager
	}
	return nil
}

// Remove takes an account away, with its sessions. The journal keeps its number,
// which is given to nobody else while a higher one is in use.
func (a *Accounts) Remove(ctx context.Context, actor string, number int64) error {
	return a.write(ctx, actor, func(tx *sql.Tx) (change, error) {
		p, err := scanPerson(tx.QueryRowContext(ctx, "SELECT "+personColumns+" FROM people WHERE number = ?", number))
		if err != nil {
			return change{}, err
		}
		if p.Role == Manager {
			if err := lastManager(ctx, tx, number); err != nil {
				return change{}, err
			}
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM sessions WHERE number = ? AND role <> ?", number, Inspector); err != nil {
			return change{}, err
		}
		for _, table := range []string{"devices", "attempts", "people"} {
			if _, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE number = ?", number); err != nil {
				return change{}, err
			}
		}
		return change{Action: "remove", Account: number, Before: p.Role}, nil
	})
}

// Reset gives an account a secret that serves once, ends its waiting time, and
// ends its sessions: somebody else may know the old one.
func (a *Accounts) Reset(ctx context.Context, actor string, number int64) (once string, err error) {
	once = oneTimePIN()
	hash, err := a.hash(ctx, once)
	if err != nil {
		return "", err
	}
	err = a.write(ctx, actor, func(tx *sql.Tx) (change, error) {
		if err := setSecret(ctx, tx, number, hash, true); err != nil {
			return change{}, err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM sessions WHERE number = ? AND role <> ?", number, Inspector)
		return change{Action: "secret", Account: number}, err
	})
	if err != nil {
		return "", err
	}
	return once, nil
}

// SetOwn takes the secret that a person has chosen, against the old one.
func (a *Accounts) SetOwn(ctx context.Context, p Person, old, secret, device string) error {
	if !p.Role.ofSite() {
		return ErrRole
	}
	if _, err := a.prove(ctx, p.Number, old, device); err != nil {
		return err
	}
	secret, err := checkSecret(secret)
	if err != nil {
		return err
	}
	if normalise(old) == secret {
		return ErrWeak
	}
	hash, err := a.hash(ctx, secret)
	if err != nil {
		return err
	}
	return a.write(ctx, p.Actor(), func(tx *sql.Tx) (change, error) {
		return change{Action: "own_secret", Account: p.Number}, setSecret(ctx, tx, p.Number, hash, false)
	})
}

func setSecret(ctx context.Context, tx *sql.Tx, number int64, hash string, must bool) error {
	r, err := tx.ExecContext(ctx, "UPDATE people SET secret = ?, must_change = ? WHERE number = ?", hash, must, number)
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, edge.ErrUnknown)
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM attempts WHERE number = ?", number)
	return err
}

// SetCard makes a card stand for the number at login, or with an empty text
// takes it away. The secret is asked for all the same.
func (a *Accounts) SetCard(ctx context.Context, actor string, number int64, card string) error {
	var hash []byte
	if card = strings.TrimSpace(card); card != "" {
		if a.o.Card == nil {
			return ErrCard
		}
		var err error
		if hash, err = a.o.Card(card); err != nil {
			return fmt.Errorf("%w: %w", ErrCard, err)
		}
	}
	return a.write(ctx, actor, func(tx *sql.Tx) (change, error) {
		var taken int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM people WHERE card = ? AND number <> ?", hash, number).Scan(&taken); err != nil {
			return change{}, err
		}
		if taken > 0 {
			return change{}, ErrCard
		}
		r, err := tx.ExecContext(ctx, "UPDATE people SET card = ? WHERE number = ?", hash, number)
		if err != nil {
			return change{}, err
		}
		if n, err := r.RowsAffected(); err != nil || n == 0 {
			return change{}, errors.Join(err, edge.ErrUnknown)
		}
		return change{Action: "card", Account: number}, nil
	})
}
