package journal

import (
	"sync"
	"testing"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// fault is what a medium does to the write or flush that is counted as the at-th.
type fault struct {
	name  string
	flush bool  // counts flushes, not writes
	code  int32 // SQLite's result
	torn  bool  // half of the bytes reach the file all the same
	stays bool  // everything after it fails too, until the journal is opened again
}

// medium lies between SQLite and the files: a VFS that fails on command.
type medium struct {
	mu      sync.Mutex
	methods map[uintptr]uintptr // of SQLite's own files -> ours
	own     map[uintptr]lib.Tsqlite3_io_methods
	open    uintptr // SQLite's own xOpen
	fault   *fault
	at, n   int
	hit     bool
}

// disk is the one that the process's SQLite has: its registry is global.
var disk = medium{methods: map[uintptr]uintptr{}, own: map[uintptr]lib.Tsqlite3_io_methods{}}

func at[T any](p uintptr) *T { return (*T)(*(*unsafe.Pointer)(unsafe.Pointer(&p))) }

// pointer is what translated C calls a function by.
func pointer(f any) uintptr {
	type words [2]uintptr
	return (*words)(unsafe.Pointer(&f))[1]
}

func function[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&struct{ uintptr }{p})) }

// mount makes disk SQLite's default until the test is over.
func mount(t *testing.T) {
	t.Helper()
	tls := libc.NewTLS()
	own := lib.Xsqlite3_vfs_find(tls, 0)
	name, err := libc.CString("faulty")
	if err != nil {
		t.Fatal(err)
	}
	v := libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(lib.Tsqlite3_vfs{})))
	*at[lib.Tsqlite3_vfs](v) = *at[lib.Tsqlite3_vfs](own)
	disk.open = at[lib.Tsqlite3_vfs](own).FxOpen
	at[lib.Tsqlite3_vfs](v).FzName, at[lib.Tsqlite3_vfs](v).FpNext, at[lib.Tsqlite3_vfs](v).FxOpen = name, 0, pointer(openFile)
	if rc := lib.Xsqlite3_vfs_register(tls, v, 1); rc != 0 {
		t.Fatal(rc)
	}
	t.Cleanup(func() {
		lib.Xsqlite3_vfs_unregister(tls, v)
		lib.Xsqlite3_vfs_register(tls, own, 1)
		libc.Xfree(tls, v)
		libc.Xfree(tls, name)
		tls.Close()
	})
}

func openFile(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32 {
	rc := function[func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32](disk.open)(tls, vfs, name, file, flags, out)
	own := *at[uintptr](file)
	if rc != 0 || own == 0 {
		return rc
	}
	disk.mu.Lock()
	defer disk.mu.Unlock()
	if disk.methods[own] == 0 {
		m := libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(lib.Tsqlite3_io_methods{})))
		*at[lib.Tsqlite3_io_methods](m) = *at[lib.Tsqlite3_io_methods](own)
		at[lib.Tsqlite3_io_methods](m).FxWrite, at[lib.Tsqlite3_io_methods](m).FxSync = pointer(writeFile), pointer(syncFile)
		disk.methods[own] = m
		disk.own[m] = *at[lib.Tsqlite3_io_methods](own)
	}
	*at[uintptr](file) = disk.methods[own]
	return rc
}

// strikes counts a write or a flush and says whether it fails.
func (d *medium) strikes(flush bool) *fault {
	f := d.fault
	if f == nil {
		return nil
	}
	if d.hit && f.stays {
		return f
	}
	if flush != f.flush || d.hit {
		return nil
	}
	if d.n++; d.n != d.at {
		return nil
	}
	d.hit = true
	return f
}

func writeFile(tls *libc.TLS, file, data uintptr, n int32, off int64) int32 {
	disk.mu.Lock()
	own := disk.own[*at[uintptr](file)]
	f := disk.strikes(false)
	disk.mu.Unlock()
	write := function[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](own.FxWrite)
	if f == nil {
		return write(tls, file, data, n, off)
	}
	if f.torn {
		write(tls, file, data, n/2, off)
	}
	return f.code
}

func syncFile(tls *libc.TLS, file uintptr, flags int32) int32 {
	disk.mu.Lock()
	own := disk.own[*at[uintptr](file)]
	f := disk.strikes(true)
	disk.mu.Unlock()
	if f != nil {
		return f.code
	}
	return function[func(*libc.TLS, uintptr, int32) int32](own.FxSync)(tls, file, flags)
}

// arm lets the at-th write or flush from now on fail; nil ends it. It reports
// whether the fault before struck.
func (d *medium) arm(f *fault, at int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	hit := d.hit
	d.fault, d.at, d.n, d.hit = f, at, 0, false
	return hit
}
