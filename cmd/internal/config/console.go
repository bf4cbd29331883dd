package config

import (
	"net"
	"regexp"

	"gatehouse/device/options"
)

var hostName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?$`)

// checkConsole checks how the guard's web face is served.
func (g *Gate) checkConsole(n options.Node, errs *[]error) {
	bad := func(key, format string, args ...any) { *errs = append(*errs, n.At(key).Errorf(format, args...)) }
	c := &g.Console
	if (c.Cert == "") != (c.Key == "") {
		bad("cert", "cert and key belong together")
	}
	if c.Plain && c.Cert != "" {
		bad("plain", "a certificate is given, so the console is served with it")
	}
	for _, name := range c.Names {
		if !hostName.MatchString(name) {
			bad("names", "%q is not a host's name", name)
		}
	}
	if c.Listen == "" {
		return
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		bad("listen", "%q is not host:port", c.Listen)
		return
	}
	if ip := net.ParseIP(host); c.Plain && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		bad("plain", "only for a console that listens on 127.0.0.1: PINs would cross the network in the clear")
	}
}
