package accounts

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"strconv"
	"strings"
	"time"

	"gatehouse/edge"
)

// Waiting after wrong secrets. The first few are free: people err. Then the wait
// doubles up to a limit, and it is counted apart for devices on which the person
// has logged in before: whoever guesses from elsewhere makes elsewhere wait, not
// the guard at the gate's own tablet, so nobody can lock out the only guard.
// The time is that since boot, which no setting of the clock moves; after a new
// start of the machine the whole wait begins again.
const (
	freeTries   = 3
	waitKnown   = time.Minute      // at most, on a device that the person has used
	waitUnknown = 15 * time.Minute // at most, elsewhere: 96 tries in a day
)

// delay is the wait after so many failures.
func delay(fails int, known bool) time.Duration {
	most := waitUnknown
	if known {
		most = waitKnown
	}
	if fails < freeTries {
		return 0
	}
	return min(most, time.Second<<min(fails-freeTries, 20))
}

// remains is what is left of a wait.
func remains(fails int, known bool, boot string, mono int64, now edge.Stamp) time.Duration {
	since := now.Mono
	if boot == now.Boot {
		since = now.Mono - mono
	}
	return delay(fails, known) - time.Duration(since)*time.Millisecond
}

func digest(token string) []byte {
	h := sha256.Sum256([]byte(token))
	return h[:]
}

// number finds whom a login names: a number, or the card that stands for one.
// 0 when nobody.
func (a *Accounts) number(ctx context.Context, who string) (int64, error) {
	who = normalise(who)
	if len(who) > 200 {
		return 0, nil
	}
	if n, err := strconv.ParseInt(who, 10, 64); err == nil && n >= 1 && n <= maxNumber && !strings.HasPrefix(who, "0") {
		return n, nil
	}
	if a.o.Card == nil {
		return 0, nil
	}
	hash, err := a.o.Card(who)
	if err != nil {
		return 0, nil
	}
	var n int64
	err = a.db.R.QueryRowContext(ctx, "SELECT number FROM people WHERE card = ?", hash).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return n, err
}

// prove checks a person's secret, counting failures. Numbers that nobody has
// wait like one account, so that an answer does not tell which ones there are.
func (a *Accounts) prove(ctx context.Context, number int64, secret, device string) (Person, error) {
	var stored string
	p, err := scanPerson(a.db.R.QueryRowContext(ctx, "SELECT "+personColumns+", secret FROM people WHERE number = ?", number), &stored)
	if err != nil && !errors.Is(err, edge.ErrUnknown) {
		return p, err
	}
	number = p.Number
	origin, known := []byte{}, false
	if device != "" && number != 0 {
		if err := a.db.R.QueryRowContext(ctx, "SELECT count(*) > 0 FROM devices WHERE token = ? AND number = ?", digest(device), number).Scan(&known); err != nil {
			return p, err
		}
		if known {
			origin = digest(device)
		}
	}
	now := a.now()
	// The failure is counted before the secret is looked at, so that ten tries at
	// once are ten tries.
	fails, wait, err := a.count(ctx, number, origin, known, now)
	if err != nil {
		return p, err
	}
	if wait > 0 {
		return p, LockedError{For: wait}
	}
	ok, err := a.verify(ctx, stored, secret)
	if err != nil {
		return p, errors.Join(err, a.uncount(ctx, number, origin))
	}
	if ok {
		_, err := a.db.W.ExecContext(ctx, "DELETE FROM attempts WHERE number = ? AND origin = ?", number, origin)
		return p, err
	}
	if d := delay(fails, known); d > 0 {
		if err := a.record(ctx, "system", map[string]any{"action": "lock", "account": number, "fails": fails, "seconds": int(d.Seconds()), "known_device": known}); err != nil {
			return p, err
		}
	}
	return p, ErrWrong
}

func (a *Accounts) count(ctx context.Context, number int64, origin []byte, known bool, now edge.Stamp) (fails int, wait time.Duration, err error) {
	tx, err := a.db.W.BeginTx(ctx, nil)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = tx.Rollback() }()
	var boot string
	var mono int64
	err = tx.QueryRowContext(ctx, "SELECT fails, boot, mono FROM attempts WHERE number = ? AND origin = ?", number, origin).Scan(&fails, &boot, &mono)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, 0, err
	}
	if wait := remains(fails, known, boot, mono, now); fails > 0 && wait > 0 {
		return fails, wait, nil
	}
	fails++
	if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO attempts (number, origin, fails, boot, mono) VALUES (?, ?, ?, ?, ?)", number, origin, min(fails, 1000), now.Boot, now.Mono); err != nil {
		return 0, 0, err
	}
	return fails, 0, tx.Commit()
}

// uncount takes back a failure that was none: the secret was never looked at.
func (a *Accounts) uncount(ctx context.Context, number int64, origin []byte) error {
	_, err := a.db.W.ExecContext(context.WithoutCancel(ctx), "UPDATE attempts SET fails = max(0, fails - 1) WHERE number = ? AND origin = ?", number, origin)
	return err
}
