// Curfew, or any server of the Centrifuge protocol, as the published Go SDK meets it.
//
// Takes one argument, a JSON object: `address` (host:port), `secret` of HS256 tokens, `format` (json, protobuf),
// `scenarios`, and perhaps `publisher`, the address of another node, to which half of the clients connect. Prints a line
// for every scenario that went as it should; says what is wrong with the others, and fails. After a line that ends in a
// colon it waits for a line that says that it is done.
//
// The channels are those of centrifuge_scenarios.mjs.

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"strings"

	"github.com/centrifugal/centrifuge-go"
)

const stranger = "another secret of thirty-two bytes"

// For so long after its end the server takes a token.
const leeway = 5

type scenarios struct {
	Address, Secret, Format, Publisher string
	Scenarios                          []string
	fleet
}

// What they share.

func (s *scenarios) token(user string, more ...claims) string {
	all := claims{"sub": user}
	for _, each := range more {
		for claim, value := range each {
			all[claim] = value
		}
	}
	return mint(s.Secret, all)
}

// Alice, connected.
func (s *scenarios) alice() *client {
	return s.connected(s.Address, centrifuge.Config{Token: s.token("alice")})
}

// Bob, connected to the other node if there is one.
func (s *scenarios) bob() *client {
	address := s.Publisher
	if address == "" {
		address = s.Address
	}
	return s.connected(address, centrifuge.Config{Token: s.token("bob")})
}

func (s *scenarios) connected(address string, config centrifuge.Config) *client {
	c := s.client(address, config)
	well(c.Connect())
	until("a connection", func() bool {
		check(c.disconnected.count() == 0, c.disconnected.all(), c.errors.all())
		return c.connected.count() > 0
	})
	return c
}

func (c *client) publish(channel string, value any) {
	must(c.Publish(within(), channel, must(json.Marshal(value))))
}

func (c *client) publishNumber(channel string, n int) {
	c.publish(channel, claims{"n": n})
}

// One to `count`, each once and in order.
func (s *subscription) checkWhole(count int) {
	numbers, publications := s.numbers(), s.publication.all()
	check(len(numbers) == count, numbers)
	for at, n := range numbers {
		check(n == at+1, numbers)
		check(publications[at].Offset == publications[0].Offset+uint64(at), "offsets", publications)
	}
}

// Closes the link, lets something happen, and opens it: the subscription is there again.
func away(l *link, c *client, sub *subscription, meanwhile func()) {
	connecting, subscribed := c.connecting.count(), sub.subscribed.count()
	l.close()
	until("the connection to be lost", func() bool { return c.connecting.count() > connecting })
	meanwhile()
	l.open()
	until("a new subscription", func() bool { return sub.subscribed.count() > subscribed })
}

func (c *client) isConnected() bool {
	return c.State() == centrifuge.StateConnected
}

// Lives a scenario whose method has its name without the blanks, in camel case. Says what is wrong.
func (s scenarios) live(scenario string) (isWell bool) {
	defer s.end()
	defer func() {
		if found := recover(); found != nil {
			fmt.Fprintf(os.Stderr, "%s fails: %v\n%s", scenario, found, debug.Stack())
		}
	}()
	var method strings.Builder
	for _, word := range strings.Split(scenario, "_") {
		method.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	found := reflect.ValueOf(&s).MethodByName(method.String())
	check(found.IsValid(), "no scenario")
	found.Call(nil)
	return true
}

// Most scenarios wait for most of their time, so they are lived side by side.
func main() {
	var s scenarios
	if err := json.Unmarshal([]byte(os.Args[1]), &s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s.isProtobuf = s.Format == "protobuf"
	outcomes := make([]chan bool, len(s.Scenarios))
	for at, scenario := range s.Scenarios {
		outcomes[at] = make(chan bool, 1)
		go func() { outcomes[at] <- s.live(scenario) }()
	}
	failed := 0
	for at, scenario := range s.Scenarios {
		if <-outcomes[at] {
			done(scenario)
		} else {
			failed++
		}
	}
	if failed > 0 {
		os.Exit(1)
	}
}
