// Package firmwareconfig embeds the samples of this folder, so that commands
// and tests use the very same files that an installer copies.
package firmwareconfig

import "embed"

// Samples holds the sample configurations, policies and device files.
//
//go:embed *.yaml broker policies raspberrypi udev
var Samples embed.FS
