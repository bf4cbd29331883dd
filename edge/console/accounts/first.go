package accounts

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"database/sql"
	"encoding/base32"
	"errors"
	"strings"
)

// metaCode is where the first start's code is kept until it is used.
const metaCode = "first_code"

// FirstCode is the one-time code that sets up the first manager: twelve letters
// and digits, "ABCD-EFGH-IJKL", the same until it is used. Empty when there is a
// manager.
func (a *Accounts) FirstCode(ctx context.Context) (string, error) {
	tx, err := a.db.W.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = tx.Rollback() }()
	var managers int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM people WHERE role = ?", Manager).Scan(&managers); err != nil || managers > 0 {
		return "", err
	}
	var code string
	err = tx.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = ?", metaCode).Scan(&code)
	if errors.Is(err, sql.ErrNoRows) {
		raw := make([]byte, 8)
		if _, err := rand.Read(raw); err != nil {
			return "", err
		}
		s := base32.StdEncoding.EncodeToString(raw)
		code = s[:4] + "-" + s[4:8] + "-" + s[8:12]
		_, err = tx.ExecContext(ctx, "INSERT INTO meta (name, value) VALUES (?, ?)", metaCode, code)
	}
	if err != nil {
		return "", err
	}
	return code, tx.Commit()
}

// Fresh says whether the gate waits for its first manager.
func (a *Accounts) Fresh(ctx context.Context) (bool, error) {
	var managers int
	err := a.db.R.QueryRowContext(ctx, "SELECT count(*) FROM people WHERE role = ?", Manager).Scan(&managers)
	return managers == 0, err
}

// plainCode is a code as people type it: small letters, spaces, dashes, and the
// digits that base32 does not have for the letters that they look like.
func plainCode(s string) string {
	s = strings.ToUpper(normalise(s))
	return strings.NewReplacer("-", "", " ", "", "0", "O", "1", "I", "8", "B").Replace(s)
}

// Setup makes the first manager with the one-time code, and begins their session.
func (a *Accounts) Setup(ctx context.Context, code, name, secret string) (Token, Session, error) {
	want, err := a.FirstCode(ctx)
	if err != nil {
		return Token{}, Session{}, err
	}
	if want == "" {
		return Token{}, Session{}, ErrReady
	}
	// No waiting: 60 bits cannot be guessed at the rate that the page takes, and a
	// wait would let anybody keep the first manager out.
	if len(code) > 100 || subtle.ConstantTimeCompare([]byte(plainCode(code)), []byte(plainCode(want))) != 1 {
		return Token{}, Session{}, ErrWrong
	}
	p := Person{Role: Manager}
	if p.Name, err = checkName(name); err != nil {
		return Token{}, Session{}, err
	}
	if secret, err = checkSecret(secret); err != nil {
		return Token{}, Session{}, err
	}
	hash, err := a.hash(ctx, secret)
	if err != nil {
		return Token{}, Session{}, err
	}
	err = a.write(ctx, "system", func(tx *sql.Tx) (change, error) {
		// The code is used up by whoever comes first.
		r, err := tx.ExecContext(ctx, "DELETE FROM meta WHERE name = ? AND value = ?", metaCode, want)
		if err != nil {
			return change{}, err
		}
		if n, err := r.RowsAffected(); err != nil || n == 0 {
			return change{}, errors.Join(err, ErrReady)
		}
		if err := a.insert(ctx, tx, &p, hash); err != nil {
			return change{}, err
		}
		return change{Action: "setup", Account: p.Number, Role: Manager}, nil
	})
	if err != nil {
		return Token{}, Session{}, err
	}
	return a.begin(ctx, p, map[string]any{"action": "login"}, "", "", 0)
}
