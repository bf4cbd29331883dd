// Package firmwareconfig embeds the samples of this folder, so that commands
// and tests use the very same files that an installer copies.
package firmwareconfig

import "embed"

// Samples holds the sample configurations, policies and device files.
//
//go:embed *.yaml broker chrony network policies raspberrypi systemd udev *.md communityd.environment
var Samples embed.FS
