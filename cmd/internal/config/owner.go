package config

import (
	"fmt"
	"os"
	"syscall"
)

// OwnLike gives a file to the owner of another, when the caller is root. Others own
// what they make already.
func OwnLike(path, like string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	st, err := os.Stat(like)
	if err != nil {
		return err
	}
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("cannot tell who owns %s", like)
	}
	return os.Lchown(path, int(s.Uid), int(s.Gid))
}
