package accounts

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"gatehouse/edge"
)

// An inspector's credential is a C2SP signed note (https://c2sp.org/signed-note)
// of the authority, Ed25519 (RFC 8032):
//
//	gatehouse-inspector/1
//	community <name>
//	site <name, or * for every site>
//	number <decimal>
//	name <the inspector's name>
//	key <the inspector's own Ed25519 public key, base64>
//	from <UTC ms>
//	until <UTC ms>
//
//	— <authority> <base64>
//
// It is no secret: whoever shows it must also answer a challenge of the gate with
// the key that it names, on a device of the inspector's own. So a site that has
// seen a credential cannot come in with it, can make none, and no account of the
// site can withdraw it. It is verified with what the gate has: no network is asked.
const credentialMagic = "gatehouse-inspector/1"

// answerMagic begins an answer, and what is signed for it:
//
//	gatehouse-inspection/1
//	challenge <community/site/gate> <nonce>
//	answer <base64 of the signature of the two lines before, each with its newline>
//
//	<the credential>
const answerMagic = "gatehouse-inspection/1"

const (
	challengeLife = 15 * time.Minute
	maxChallenges = 32
	maxAnswer     = 8 << 10
	inspection    = 8 * time.Hour // a session of an inspector lasts no longer
	maxValidity   = 400 * 24 * time.Hour
)

// Why an inspector is not let in; ErrExpired and ErrEarly also wrap nothing else.
var (
	ErrCredential = errors.New("not a credential of an authority that this gate knows")
	ErrElsewhere  = errors.New("the credential is for another site")
	ErrExpired    = errors.New("the credential has expired")
	ErrEarly      = errors.New("the credential is not valid yet")
	ErrChallenge  = errors.New("the answer is not one to a challenge that this gate has given and that nobody has used")
)

// Credential is what an authority says of an inspector.
type Credential struct {
	Community, Site string // Site * = every site
	Number          int64
	Name            string
	Key             ed25519.PublicKey
	From, Until     int64 // UTC ms; From inclusive, Until exclusive
}

var word = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$`)

func (c Credential) text() string {
	return fmt.Sprintf("%s\ncommunity %s\nsite %s\nnumber %d\nname %s\nkey %s\nfrom %d\nuntil %d\n", credentialMagic, c.Community, c.Site, c.Number, c.Name,
		base64.StdEncoding.EncodeToString(c.Key), c.From, c.Until)
}

func (c Credential) check() error {
	name, err := checkName(c.Name)
	switch {
	case err != nil || name != c.Name:
		return ErrName
	case !word.MatchString(c.Community) || (c.Site != "*" && !word.MatchString(c.Site)):
		return fmt.Errorf("community %q, site %q: not names", c.Community, c.Site)
	case c.Number < 1 || c.Number > edge.MaxID:
		return fmt.Errorf("number %d is not between 1 and %d", c.Number, int64(edge.MaxID))
	case len(c.Key) != ed25519.PublicKeySize:
		return errors.New("the inspector's key is not an Ed25519 public key")
	case c.From < 0 || c.Until <= c.From || c.Until-c.From > maxValidity.Milliseconds():
		return fmt.Errorf("it is valid for more than nothing and at most %d days", int(maxValidity.Hours()/24))
	}
	return nil
}

// Issue signs a credential with the authority's key.
func Issue(c Credential, authority edge.Signer) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("cannot issue the credential: %w", err)
	}
	b, err := note.Sign(&note.Note{Text: c.text()}, edge.NoteSigner(authority))
	if err != nil {
		return nil, fmt.Errorf("cannot issue the credential: %w", err)
	}
	return b, nil
}

// OpenCredential verifies a credential and tells who signed it. Neither time nor
// site is looked at.
func OpenCredential(signed []byte, known ...note.Verifier) (Credential, string, error) {
	var c Credential
	if len(signed) > maxAnswer {
		return c, "", ErrCredential
	}
	n, err := note.Open(signed, note.VerifierList(known...))
	if err != nil {
		return c, "", fmt.Errorf("%w: %w", ErrCredential, err)
	}
	lines := strings.Split(strings.TrimSuffix(n.Text, "\n"), "\n")
	if len(lines) != 8 || lines[0] != credentialMagic {
		return c, "", fmt.Errorf("%w: another kind of note", ErrCredential)
	}
	val := map[string]string{}
	for i, key := range []string{"community", "site", "number", "name", "key", "from", "until"} {
		val[key], _ = strings.CutPrefix(lines[i+1], key+" ")
	}
	c.Community, c.Site, c.Name = val["community"], val["site"], val["name"]
	var err1, err2, err3, err4 error
	c.Number, err1 = strconv.ParseInt(val["number"], 10, 64)
	c.From, err2 = strconv.ParseInt(val["from"], 10, 64)
	c.Until, err3 = strconv.ParseInt(val["until"], 10, 64)
	c.Key, err4 = base64.StdEncoding.DecodeString(val["key"])
	// One text for one meaning: what is signed is what is written back.
	if errors.Join(err1, err2, err3, err4) != nil || c.check() != nil || c.text() != n.Text {
		return c, "", fmt.Errorf("%w: it is not in the one form", ErrCredential)
	}
	return c, n.Sigs[0].Name, nil
}

// Answer makes what the inspector's device gives back for a challenge.
func Answer(challenge string, credential []byte, own edge.Signer) (string, error) {
	gate, nonce, ok := strings.Cut(strings.TrimSpace(challenge), " ")
	if !ok || strings.Count(gate, "/") != 2 || nonce == "" || strings.ContainsAny(nonce, " \n") {
		return "", errors.New("the challenge is COMMUNITY/SITE/GATE and a code behind it, as the gate's page shows it")
	}
	head := answerMagic + "\nchallenge " + gate + " " + nonce + "\n"
	sig, err := own.Sign([]byte(head))
	if err != nil {
		return "", fmt.Errorf("cannot answer: %w", err)
	}
	return head + "answer " + base64.StdEncoding.EncodeToString(sig) + "\n\n" + string(credential), nil
}

// challenge is when an inspector's device was asked.
type challenge struct {
	boot string
	mono int64
}

func (a *Accounts) gate() string { return a.o.Community + "/" + a.o.Site + "/" + a.o.Gate }

// Challenge makes what an inspector's device must answer: one line, the gate's
// name and a code, good once and for a quarter of an hour.
func (a *Accounts) Challenge() string {
	raw := make([]byte, 15)
	if _, err := rand.Read(raw); err != nil {
		panic(err) // crypto/rand never fails
	}
	nonce, now := base32.StdEncoding.EncodeToString(raw), a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	oldest := ""
	for n, c := range a.challenges {
		if c.over(now) {
			delete(a.challenges, n)
		} else if oldest == "" || c.mono < a.challenges[oldest].mono {
			oldest = n
		}
	}
	if len(a.challenges) >= maxChallenges {
		delete(a.challenges, oldest)
	}
	a.challenges[nonce] = challenge{now.Boot, now.Mono}
	return a.gate() + " " + nonce
}

func (c challenge) over(now edge.Stamp) bool {
	return c.boot != now.Boot || now.Mono-c.mono > challengeLife.Milliseconds()
}

func (a *Accounts) used(nonce string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok := a.challenges[nonce]
	delete(a.challenges, nonce)
	return !ok || c.over(a.now())
}

// Inspect lets an inspector in.
//
// With a clock that nobody vouches for the credential's time is not held against
// the inspector: a site could otherwise keep every inspector out by cutting the
// clock off. The entry's stamp says that the clock was not trusted, the challenge
// still wants the inspector's own key, a credential that was over when this
// program was built is over, and the session ends once the clock is right and
// says that the time is past.
func (a *Accounts) Inspect(ctx context.Context, answer string) (Token, Session, error) {
	if len(answer) > maxAnswer {
		return Token{}, Session{}, ErrCredential
	}
	// What was copied through other systems has other line ends and a margin.
	answer = strings.TrimSpace(strings.ReplaceAll(answer, "\r", "")) + "\n"
	head, credential, ok := strings.Cut(answer, "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) != 3 || lines[0] != answerMagic {
		return Token{}, Session{}, ErrCredential
	}
	var known []note.Verifier
	if a.o.Authorities != nil {
		known = a.o.Authorities()
	}
	c, authority, err := OpenCredential([]byte(credential), known...)
	if err != nil {
		return Token{}, Session{}, err
	}
	now := a.now()
	switch {
	case c.Community != a.o.Community || (c.Site != "*" && c.Site != a.o.Site):
		return Token{}, Session{}, ErrElsewhere
	case now.Clock.Trusted() && now.Time >= c.Until, c.Until <= a.o.Build.UnixMilli():
		return Token{}, Session{}, ErrExpired
	case now.Clock.Trusted() && now.Time < c.From:
		return Token{}, Session{}, ErrEarly
	}
	asked, ok := strings.CutPrefix(lines[1], "challenge "+a.gate()+" ")
	sig, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[2], "answer "))
	if !ok || err != nil || !ed25519.Verify(c.Key, []byte(lines[0]+"\n"+lines[1]+"\n"), sig) || a.used(asked) {
		return Token{}, Session{}, ErrChallenge
	}
	until := c.Until
	if now.Clock.Trusted() {
		until = min(until, now.Time+inspection.Milliseconds())
	}
	return a.begin(ctx, Person{Number: c.Number, Name: c.Name, Role: Inspector},
		map[string]any{"action": "inspector", "authority": authority, "until": c.Until}, "", "", until)
}

// Waits says whether a challenge is one of this gate that nobody has answered.
func (a *Accounts) Waits(text string) bool {
	nonce, ok := strings.CutPrefix(text, a.gate()+" ")
	a.mu.Lock()
	defer a.mu.Unlock()
	c, known := a.challenges[nonce]
	return ok && known && !c.over(a.now())
}
