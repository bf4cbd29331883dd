package outage

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gatehouse/sync/mqtt"
	"gatehouse/sync/wire"
)

// With the sample access list a gate can hurt nobody but itself: what it says under
// another gate's topics, or in the server's place, reaches nobody.
func TestSampleAccessListKeepsGatesApart(t *testing.T) {
	passwd := program(t, "mosquitto_passwd")
	dir := t.TempDir()
	list, err := os.ReadFile(filepath.Join("..", "..", "..", "firmware-config", "broker", "mosquitto.acl"))
	if err != nil {
		t.Fatal(err)
	}
	acl, secrets := filepath.Join(dir, "acl"), filepath.Join(dir, "passwd")
	if err := os.WriteFile(acl, list, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secrets, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"server", "north/east", "north/west"} {
		if out, err := exec.Command(passwd, "-b", secrets, user, "secret of "+user).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	// Started by root it would give up its rights, and with them the test's folder.
	addr := mosquittoWith(t, fmt.Sprintf("user root\nallow_anonymous false\npassword_file %s\nacl_file %s\n", secrets, acl))

	got := make(chan string, 100)
	connect := func(user string, topics ...string) *mqtt.Client {
		t.Helper()
		c, err := mqtt.New(mqtt.Config{URL: "mqtt://" + addr, ClientID: user, Username: user, Password: "secret of " + user, MinBackoff: 20 * time.Millisecond}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		for _, topic := range topics {
			c.Subscribe(topic, func(topic string, payload []byte) { got <- user + " got " + string(payload) + " on " + topic })
		}
		up := make(chan struct{}, 10)
		c.OnConnect(func(context.Context) { up <- struct{}{} })
		run(t, c)
		select {
		case <-up:
		case <-time.After(2 * time.Minute):
			_, err := c.State()
			t.Fatalf("%s cannot connect: %v", user, err)
		}
		return c
	}
	server := connect("server", wire.Topic("+", "+", wire.Journal), wire.Topic("+", "+", wire.Status))
	west := connect("north/west", wire.Topic("north", "west", wire.Commands), wire.Topic("north", "west", wire.Receipts), wire.RegistryTopic("north", "+"))
	east := connect("north/east", wire.Topic("north", "east", wire.Receipts), wire.PolicyTopic("north", "+"))
	say := func(c *mqtt.Client, text, topic string) {
		t.Helper()
		if err := c.Publish(t.Context(), topic, []byte(text), false); err != nil {
			t.Fatal(err)
		}
	}
	say(east, "forged", wire.Topic("north", "west", wire.Journal))
	say(east, "forged", wire.Topic("north", "west", wire.Commands))
	say(east, "forged", wire.Topic("north", "west", wire.Receipts))
	say(east, "forged", wire.Topic("north", "east", wire.Receipts))
	say(east, "forged", wire.Topic("south", "east", wire.Status))
	say(east, "forged", wire.RegistryTopic("north", "x"))
	say(east, "forged", wire.PolicyTopic("north", "x"))
	say(east, "own", wire.Topic("north", "east", wire.Journal))
	say(west, "own", wire.Topic("north", "west", wire.Status))
	say(server, "own", wire.Topic("north", "west", wire.Commands))
	say(server, "own", wire.Topic("north", "east", wire.Receipts))
	say(server, "own", wire.RegistryTopic("north", "x"))
	want := []string{
		"north/east got own on gatehouse/v1/north/east/receipt",
		"north/west got own on gatehouse/v1/north/registry/x",
		"north/west got own on gatehouse/v1/north/west/command",
		"server got own on gatehouse/v1/north/east/journal",
		"server got own on gatehouse/v1/north/west/status",
	}
	var all []string
	for range want {
		select {
		case m := <-got:
			all = append(all, m)
		case <-time.After(2 * time.Minute):
			t.Fatalf("only %q", all)
		}
	}
	if slices.Sort(all); !slices.Equal(all, want) {
		t.Errorf("%q\nwant %q", all, want)
	}
}
