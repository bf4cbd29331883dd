package accounts

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// Cost is what one hash takes.
type Cost struct {
	Time   uint32 // passes
	Memory uint32 // KiB
}

// DefaultCost is the lightest in memory of the settings that OWASP's Password
// Storage Cheat Sheet holds equal for argon2id: m=7168 (7 MiB), t=5, p=1. Only
// one hash is made at a time, so that logins never take more than that.
var DefaultCost = Cost{Time: 5, Memory: 7 << 10}

const (
	minPIN      = 6
	minPassword = 8
	maxSecret   = 128 // bytes
	saltLen     = 16
	hashLen     = 32
)

// ErrWeak says that a secret is too easily guessed.
var ErrWeak = errors.New("a PIN has at least 6 digits that are neither all the same nor in a row; a password has 8 characters or more")

// normalise makes one text of what different keyboards send for the same:
// digits typed full-width in a Chinese input method are digits.
func normalise(secret string) string { return norm.NFKC.String(strings.TrimSpace(secret)) }

// checkSecret gives a secret in its normal form, or ErrWeak.
func checkSecret(secret string) (string, error) {
	if len(secret) > maxSecret || !utf8.ValidString(secret) {
		return "", ErrWeak
	}
	s := normalise(secret)
	if len(s) > maxSecret || strings.ContainsFunc(s, unicode.IsControl) {
		return "", ErrWeak
	}
	digits := strings.Trim(s, "0123456789") == ""
	n := utf8.RuneCountInString(s)
	if n < minPIN || (!digits && n < minPassword) {
		return "", ErrWeak
	}
	same, up, down := true, true, true
	for i := 1; i < len(s); i++ {
		d := int(s[i]) - int(s[i-1])
		same, up, down = same && d == 0, up && d == 1, down && d == -1
	}
	if same || up || down {
		return "", ErrWeak
	}
	return s, nil
}

// oneTimePIN is eight digits that pass checkSecret.
func oneTimePIN() string {
	for {
		n, err := rand.Int(rand.Reader, big.NewInt(100_000_000))
		if err != nil {
			panic(err) // crypto/rand never fails
		}
		if s, err := checkSecret(fmt.Sprintf("%08d", n)); err == nil {
			return s
		}
	}
}

// hash makes the stored form of a secret, a PHC string:
// $argon2id$v=19$m=7168,t=5,p=1$<salt>$<hash>.
func (a *Accounts) hash(ctx context.Context, secret string) (string, error) {
	salt := make([]byte, saltLen)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	c := a.o.Cost
	sum, err := a.derive(ctx, secret, salt, c)
	if err != nil {
		return "", err
	}
	e := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s", argon2.Version, c.Memory, c.Time, e(salt), e(sum)), nil
}

// derive hashes when it is its turn. Who waits too long is not served.
func (a *Accounts) derive(ctx context.Context, secret string, salt []byte, c Cost) ([]byte, error) {
	select {
	case a.waiting <- struct{}{}:
		defer func() { <-a.waiting }()
	default:
		return nil, ErrBusy
	}
	select {
	case a.hashing <- struct{}{}:
		defer func() { <-a.hashing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return argon2.IDKey([]byte(secret), salt, c.Time, c.Memory, 1, hashLen), nil
}

// verify says whether a secret is the stored one. A stored form that is empty
// or damaged costs as much and is never right.
func (a *Accounts) verify(ctx context.Context, stored, secret string) (bool, error) {
	c, salt, want := a.o.Cost, make([]byte, saltLen), []byte(nil)
	var version int
	if f := strings.Split(stored, "$"); len(f) == 6 && f[1] == "argon2id" {
		var x Cost
		_, err1 := fmt.Sscanf(f[2], "v=%d", &version)
		_, err2 := fmt.Sscanf(f[3], "m=%d,t=%d,p=1", &x.Memory, &x.Time)
		s, err3 := base64.RawStdEncoding.DecodeString(f[4])
		h, err4 := base64.RawStdEncoding.DecodeString(f[5])
		// A damaged cost must not take the machine's memory.
		if errors.Join(err1, err2, err3, err4) == nil && version == argon2.Version && len(h) == hashLen && x.Time >= 1 && x.Time <= 16 && x.Memory >= 8 && x.Memory <= 64<<10 {
			c, salt, want = x, s, h
		}
	}
	if len(secret) > maxSecret {
		secret = ""
	}
	got, err := a.derive(ctx, normalise(secret), salt, c)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}
