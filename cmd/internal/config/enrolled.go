package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Enrolled is what a gate was told when the community server approved it. It is
// kept in the state folder's keys/enrolment.json; gate.yaml needs no sync section
// then, and what it says of one goes first.
type Enrolled struct {
	Community string `json:"community"`
	Site      string `json:"site"`
	Gate      string `json:"gate"`
	URL       string `json:"url"`              // of the broker
	Server    string `json:"server,omitempty"` // host:port where to renew; empty = by files carried by hand
	Recipient string `json:"recipient"`        // age: the community, as a reader of backups
}

// Files of an enrolment, in the state folder.
const (
	keysFolder   = "keys"
	enrolledFile = "enrolment.json"
)

// KeyFile is the path of a file among the gate's keys.
func (g *Gate) KeyFile(name string) string { return filepath.Join(g.State, keysFolder, name) }

// The files that an enrolment leaves besides: the authorities' certificate, the
// gate's own with its key, the server's public keys, and the site's key.
const (
	FileCA    = "ca.pem"
	FileTLS   = "tls.pem"
	FileTrust = "trust"
	FileSite  = "site.key"
)

// MayEnrol returns an error where gate.yaml names a server and keys of its own: they
// go before what an enrolment brings, which would be in vain.
func (g *Gate) MayEnrol() error {
	if !g.ownSync || g.Sync.Cert == g.KeyFile(FileTLS) {
		return nil
	}
	return fmt.Errorf("%s names a community server and keys of its own (sync.url), which go before those of an enrolment: remove url, ca, cert, key and trust from its sync section", g.file)
}

// readEnrolled takes over what the gate was told at its enrolment.
func (g *Gate) readEnrolled() error {
	src, err := os.ReadFile(g.KeyFile(enrolledFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil // another user's command; the daemon's own user can read it
	}
	if err != nil {
		return fmt.Errorf("cannot read the enrolment: %w", err)
	}
	e := new(Enrolled)
	if err := json.Unmarshal(src, e); err != nil {
		return fmt.Errorf("%s is damaged: %w (gatehouse enroll makes it again)", g.KeyFile(enrolledFile), err)
	}
	if e.Community != g.Community || e.Site != g.Site || e.Gate != g.Gate {
		return fmt.Errorf("%s: community, site and gate are %s, %s, %s, but the device is enrolled as %s, %s, %s: change them back, or enrol again (gatehouse enroll)",
			g.file, g.Community, g.Site, g.Gate, e.Community, e.Site, e.Gate)
	}
	g.Enrolled = e
	if g.Sync.URL == "" {
		g.Sync.URL, g.Sync.CA, g.Sync.Trust = e.URL, g.KeyFile(FileCA), g.KeyFile(FileTrust)
		g.Sync.Cert, g.Sync.Key = g.KeyFile(FileTLS), g.KeyFile(FileTLS)
	}
	return nil
}

// WriteEnrolled keeps it.
func (g *Gate) WriteEnrolled(e Enrolled) error {
	src, err := json.MarshalIndent(e, "", "  ")
	if err == nil {
		err = WriteKey(g.KeyFile(enrolledFile), append(src, '\n'))
	}
	if err != nil {
		return g.Remedy(fmt.Errorf("cannot keep the enrolment: %w", err))
	}
	return nil
}

// WriteKey replaces a file that only its owner may read: after a power cut there
// is the old text or the new. It belongs to whoever owns the folder, so that an
// installer who is root leaves nothing that the daemon cannot read.
func WriteKey(path string, text []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, werr := f.Write(text)
	if err := errors.Join(werr, f.Sync(), f.Close(), OwnLike(tmp, filepath.Dir(path))); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
