// Package identity keeps the device's own keys: an Ed25519 key that signs the
// journal's tree heads and an age (X25519) key that opens what is encrypted to
// this gate. They are made on first start, never leave the device, and are in no
// backup: the gate's name is the identity, the device is replaceable.
package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"gatehouse/edge"
	"gatehouse/edge/durable"
)

// Identity is the device's keys. Others get a Signer or Opener, never a key.
type Identity struct {
	name string
	key  ed25519.PrivateKey
	age  *age.X25519Identity
}

// SignerFile is the file of the key that signs.
const SignerFile = "device.key"

// Open reads the keys from dir, or makes them on first start. name is the
// signer's name in signed notes: community/site/gate.
func Open(dir, name string) (*Identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the key folder: %w", err)
	}
	seed, err := Secret(filepath.Join(dir, SignerFile), func() (string, error) {
		b := make([]byte, ed25519.SeedSize)
		_, err := rand.Read(b)
		return base64.StdEncoding.EncodeToString(b), err
	})
	if err != nil {
		return nil, err
	}
	raw, err := base64.StdEncoding.DecodeString(seed)
	if err != nil || len(raw) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s is damaged: restore nothing, remove it and enrol the device again", filepath.Join(dir, SignerFile))
	}
	text, err := Secret(filepath.Join(dir, "device.age"), func() (string, error) {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return "", err
		}
		return id.String(), nil
	})
	if err != nil {
		return nil, err
	}
	id, err := age.ParseX25519Identity(text)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", filepath.Join(dir, "device.age"), err)
	}
	return &Identity{name: name, key: ed25519.NewKeyFromSeed(raw), age: id}, nil
}

// Secret reads a one-line secret file, or makes it durably with mode 0600.
func Secret(path string, gen func() (string, error)) (string, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		text, err := gen()
		if err != nil {
			return "", fmt.Errorf("cannot make %s: %w", path, err)
		}
		if err := durable.Replace(path, []byte(text+"\n"), 0o600); err != nil {
			return "", fmt.Errorf("cannot make %s: %w", path, err)
		}
		return text, nil
	case err != nil:
		return "", fmt.Errorf("cannot read a key: %w", err)
	case st.Mode().Perm()&0o077 != 0:
		return "", fmt.Errorf("the key %s can be read by others (mode %o): chmod 600 %s", path, st.Mode().Perm(), path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("cannot read a key: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Signer signs with the device's key.
func (i *Identity) Signer() edge.Signer { return signer{i} }

// Recipient is the device's age public key, "age1...".
func (i *Identity) Recipient() string { return i.age.Recipient().String() }

// Open decrypts what was encrypted to Recipient, up to limit bytes.
func (i *Identity) Open(r io.Reader, limit int64) ([]byte, error) {
	plain, err := age.Decrypt(r, i.age)
	if err != nil {
		return nil, fmt.Errorf("cannot decrypt: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(plain, limit+1))
	if err != nil {
		return nil, fmt.Errorf("cannot decrypt: %w", err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("cannot decrypt: more than %d bytes", limit)
	}
	return b, nil
}

type signer struct{ id *Identity }

func (s signer) Name() string   { return s.id.name }
func (s signer) Public() []byte { return s.id.key.Public().(ed25519.PublicKey) }
func (s signer) Sign(msg []byte) ([]byte, error) {
	return ed25519.Sign(s.id.key, msg), nil
}
