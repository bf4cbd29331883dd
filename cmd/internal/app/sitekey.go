package app

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gatehouse/cmd/internal/config"
	"gatehouse/edge"
)

// SiteKeys reads the versions of the site's key under which card numbers are
// stored: a line each, "VERSION HEX", the newest first, # for comments. A file
// that does not exist is made when make is set: a gate on its own has a key of
// its own, one with a community server is given the site's at enrolment.
func SiteKeys(path string, make bool) ([]edge.CredentialKey, error) {
	src, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && make {
		if err := writeSiteKey(path); err != nil {
			return nil, fmt.Errorf("cannot make the site key %s: %w", path, err)
		}
		src, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the site key: %w", err)
	}
	if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o077 != 0 && !config.HandedIn(path) {
		return nil, fmt.Errorf("the site key %s can be read by others (mode %o): chmod 600 %s", path, st.Mode().Perm(), path)
	}
	return parseSiteKeys(path, src)
}

func parseSiteKeys(path string, src []byte) ([]edge.CredentialKey, error) {
	var keys []edge.CredentialKey
	sc := bufio.NewScanner(bytes.NewReader(src))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		ver, text, ok := strings.Cut(line, " ")
		v, err1 := strconv.Atoi(ver)
		k, err2 := hex.DecodeString(strings.TrimSpace(text))
		if !ok || err1 != nil || err2 != nil || len(k) != 32 || v < 1 {
			return nil, fmt.Errorf("%s:%d: want a version and 64 hex digits", path, n)
		}
		if len(keys) > 0 && keys[len(keys)-1].Version <= v {
			return nil, fmt.Errorf("%s:%d: version %d must be below the one before it: the newest comes first", path, n, v)
		}
		keys = append(keys, edge.CredentialKey{Version: v, Key: [32]byte(k)})
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: holds no key", path)
	}
	return keys, nil
}

// sameSiteKeys reports whether a file holds the very keys of a text, whatever its
// comments. A file that is not there, or damaged, does not; text has to be good.
func sameSiteKeys(path, text string) (bool, error) {
	want, err := parseSiteKeys("the server's site key", []byte(text))
	if err != nil {
		return false, err
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return false, nil
	}
	have, err := parseSiteKeys(path, src)
	return err == nil && slices.Equal(have, want), nil
}

func writeSiteKey(path string) error {
	var k [32]byte
	if _, err := rand.Read(k[:]); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	text := "# The site's key for card numbers. Secret; the same on every gate of the site.\n1 " + hex.EncodeToString(k[:]) + "\n"
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, werr := f.WriteString(text)
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path)) // a half of a key would be taken for a damaged one
	}
	return nil
}
