package config

import (
	"os"
	"path/filepath"
)

// KeysBeside is the folder beside gate.yaml for secrets that belong to root. The
// service's manager hands them to the daemon (LoadCredential=keys:...).
const KeysBeside = "keys"

// credential gives the daemon's own copy of a secret that is named by its path
// beside gate.yaml; the path itself where no manager has made one, for root's
// commands.
func (g *Gate) credential(path string) string {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" || filepath.Dir(path) != filepath.Join(g.dir, KeysBeside) {
		return path
	}
	copied := filepath.Join(dir, KeysBeside+"_"+filepath.Base(path))
	if _, err := os.Stat(copied); err != nil {
		return path
	}
	return copied
}

// Withheld reports whether a secret is one of those that a service's manager hands
// in, and it has not: root has no file of this name.
func (g *Gate) Withheld(path string) bool {
	return os.Getenv("CREDENTIALS_DIRECTORY") != "" && filepath.Dir(path) == filepath.Join(g.dir, KeysBeside)
}

// HandedIn reports whether a file is a copy that the service's manager made: who may
// read it was its business, and its mode says nothing.
func HandedIn(path string) bool {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	return dir != "" && filepath.Dir(path) == filepath.Clean(dir)
}
