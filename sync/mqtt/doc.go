// Package mqtt carries messages over MQTT 3.1.1: the only place that knows the
// client library.
//
// # What it promises
//
// Little, on purpose. Publish hands a message to the connection; nothing here
// proves that it arrived. The library completes its tokens when a connection
// drops (eclipse-paho/paho.mqtt.golang issue 563), so they are used for one thing
// only: to bound how many messages are on their way to the broker. Whoever needs
// proof asks the other end for it; whoever lost a connection says again what
// matters, in OnConnect.
//
// # Sessions
//
// Every connection starts a clean session. A broker then keeps nothing for a gate
// that is away: no queue that overflows, no command that waits for hours, nothing
// that is missed when a broker loses its state. The journal, the manifest and the
// marks of the peers' deltas make up for it. A connection is one library client,
// thrown away with it, so no packet of an old connection is sent in a new one.
package mqtt
