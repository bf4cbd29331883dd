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
// doubles up to a limit, and it is counted apart for each device on which somebody
// has logged in before: whoever guesses from elsewhere makes elsewhere wait, not
// the guard at the gate's own tablet, so nobody can lock out the only guard, nor a
// relief who takes over there for the first time.
// The time is that since boot, which no setting of the clock moves; after a new
// start of the machine the whole wait begins again.
const (
	freeTries   = 3
	waitOwn     = time.Minute      // at most, on a device that the person has used
	waitGate    = 5 * time.Minute  // at most, on one that somebody of the gate has used
	waitUnknown = 15 * time.Minute // at most, elsewhere: 96 tries in a day
)

// origin is where a login comes from, and how long it waits at most.
type origin struct {
	device []byte // empty = elsewhere
	most   time.Duration
}

func (a *Accounts) origin(ctx context.Context, number int64, device string) (origin, error) {
	elsewhere := origin{[]byte{}, waitUnknown}
	if device == "" || number == 0 {
		return elsewhere, nil
	}
	var own, gate bool
	d := digest(device)
	if err := a.db.R.QueryRowContext(ctx, "SELECT coalesce(max(number = ?), 0), count(*) > 0 FROM devices WHERE token = ?", number, d).Scan(&own, &gate); err != nil {
		return origin{}, err
	}
	switch {
	case own:
		return origin{d, waitOwn}, nil
	case gate:
		return origin{d, waitGate}, nil
	}
	return elsewhere, nil
}

// delay is the wait after so many failures.
func delay(fails int, most time.Duration) time.Duration {
	if fails < freeTries {
		return 0
	}
	return min(most, time.Second<<min(fails-freeTries, 20))
}

// remains is what is left of a wait.
func remains(fails int, most time.Duration, boot string, mono int64, now edge.Stamp) time.Duration {
	since := now.Mono
	if boot == now.Boot {
		since = now.Mono - mono
	}
	return delay(fails, most) - time.Duration(since)*time.Millisecond
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
	from, err := a.origin(ctx, number, device)
	if err != nil {
		return p, err
	}
	now := a.now()
	// The failure is counted before the secret is looked at, so that ten tries at
	// once are ten tries.
	fails, wait, err := a.count(ctx, number, from, now)
	if err != nil {
		return p, err
	}
	if wait > 0 {
		return p, LockedError{For: wait}
	}
	ok, err := a.verify(ctx, stored, secret)
	if err != nil {
		return p, errors.Join(err, a.uncount(ctx, number, from))
	}
	if ok {
		_, err := a.db.W.ExecContext(ctx, "DELETE FROM attempts WHERE number = ? AND origin = ?", number, from.device)
		return p, err
	}
	if d := delay(fails, from.most); d > 0 {
		if err := a.record(ctx, "system", map[string]any{"action": "lock", "account": number, "fails": fails, "seconds": int(d.Seconds()), "known_device": len(from.device) > 0}); err != nil {
			return p, err
		}
	}
	return p, ErrWrong
}

func (a *Accounts) count(ctx context.Context, number int64, from origin, now edge.Stamp) (fails int, wait time.Duration, err error) {
	tx, err := a.db.W.BeginTx(ctx, nil)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = tx.Rollback() }()
	var boot string
	var mono int64
	err = tx.QueryRowContext(ctx, "SELECT fails, boot, mono FROM attempts WHERE number = ? AND origin = ?", number, from.device).Scan(&fails, &boot, &mono)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, 0, err
	}
	if wait := remains(fails, from.most, boot, mono, now); fails > 0 && wait > 0 {
		return fails, wait, nil
	}
	fails++
	if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO attempts (number, origin, fails, boot, mono) VALUES (?, ?, ?, ?, ?)", number, from.device, min(fails, 1000), now.Boot, now.Mono); err != nil {
		return 0, 0, err
	}
	return fails, 0, tx.Commit()
}

// uncount takes back a failure that was none: the secret was never looked at.
func (a *Accounts) uncount(ctx context.Context, number int64, from origin) error {
	_, err := a.db.W.ExecContext(context.WithoutCancel(ctx), "UPDATE attempts SET fails = max(0, fails - 1) WHERE number = ? AND origin = ?", number, from.device)
	return err
}
