package config

import (
	"path/filepath"
	"strings"
)

// File is a file that gate.yaml names.
type File struct {
	Key    string // where it is named
	Path   string // where it is read
	Beside string // its path from gate.yaml's folder, with slashes; empty = it is elsewhere
	// Own is a secret, or the device's: it is in no backup.
	Own bool
}

// Files are those that gate.yaml names, without the site's key and without what an
// enrolment brings. The policies come first.
func (g *Gate) Files() []File {
	files := []File{{Key: "policy", Path: g.Policy}}
	for _, p := range g.Superior {
		files = append(files, File{Key: "superior", Path: p})
	}
	files = append(files, File{Key: "console.tips", Path: g.Console.Tips}, File{Key: "keys.inspectors", Path: g.Keys.Inspectors},
		File{Key: "console.cert", Path: g.Console.Cert, Own: true}, File{Key: "console.key", Path: g.Console.Key, Own: true})
	if g.ownSync {
		files = append(files, File{Key: "sync.ca", Path: g.Sync.CA}, File{Key: "sync.trust", Path: g.Sync.Trust},
			File{Key: "sync.cert", Path: g.Sync.Cert, Own: true}, File{Key: "sync.key", Path: g.Sync.Key, Own: true}, File{Key: "sync.password_file", Path: g.Sync.Password, Own: true})
	}
	out := files[:0]
	for _, f := range files {
		if f.Path != "" && !within(g.State, f.Path) {
			f.Beside = g.beside(f.Path)
			out = append(out, f)
		}
	}
	return out
}

// beside is a file's path from gate.yaml's folder, also where the service has a copy.
func (g *Gate) beside(path string) string {
	if name, ok := strings.CutPrefix(filepath.Base(path), KeysBeside+"_"); ok && HandedIn(path) {
		return KeysBeside + "/" + name
	}
	rel, err := filepath.Rel(g.dir, path)
	if err != nil || !filepath.IsLocal(rel) {
		return ""
	}
	return filepath.ToSlash(rel)
}

func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}
