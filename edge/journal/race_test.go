//go:build race

package journal

// sparse is the step between faults: under the race detector each takes twenty
// times as long, and every one is tried without it.
const sparse = 17
