// Scenarios in which connections are lost.

package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

func (s *scenarios) Recovery() {
	channel, l, publisher := name("room"), linkTo(s.Address), s.bob()
	c := s.connected(l.address, centrifuge.Config{Token: s.token("alice")})
	sub := c.subscribe(channel, centrifuge.SubscriptionConfig{Recoverable: true})
	n := 0
	publishFive := func() {
		for range 5 {
			n++
			publisher.publishNumber(channel, n)
		}
	}
	for round := 1; round <= 3; round++ {
		publishFive()
		away(l, c, sub, publishFive)
		again := sub.subscribed.all()[round]
		check(again.Recovered && again.WasRecovering, again)
	}
	until("all messages", func() bool { return sub.publication.count() >= n })
	sub.checkWhole(n)
}

// Messages come while the recovery is under way: none may be lost, doubled or out of order.
func (s *scenarios) RecoveryUnderLoad() {
	const count = 600
	channel, l, publisher := name("room"), linkTo(s.Address), s.bob()
	config := centrifuge.Config{Token: s.token("alice"), MaxReconnectDelay: 20 * time.Millisecond}
	sub := s.connected(l.address, config).subscribe(channel, centrifuge.SubscriptionConfig{Recoverable: true})
	published := make(chan error, 1)
	go func() {
		for n := 1; n <= count; n++ {
			if _, err := publisher.Publish(within(), channel, fmt.Appendf(nil, `{"n":%d}`, n)); err != nil {
				published <- err
				return
			}
			time.Sleep(time.Millisecond)
		}
		published <- nil
	}()
	for cut := 1; cut <= 8; cut++ {
		l.cut()
		until("a new subscription", func() bool { return sub.subscribed.count() > cut })
		check(sub.subscribed.all()[cut].Recovered, "cut", cut)
	}
	well(<-published)
	until("all messages", func() bool { return sub.publication.count() >= count })
	sub.checkWhole(count)
}

func (s *scenarios) GetState() {
	channel, l, publisher := name("small"), linkTo(s.Address), s.bob()
	c := s.connected(l.address, centrifuge.Config{Token: s.token("alice")})
	var asked atomic.Int32
	publisher.publishNumber(channel, 0)
	sub := c.subscribe(channel, centrifuge.SubscriptionConfig{
		GetState: func(centrifuge.SubscriptionGetStateEvent) (centrifuge.StreamPosition, error) {
			asked.Add(1)
			top, err := publisher.History(within(), channel, centrifuge.WithHistoryLimit(0))
			return centrifuge.StreamPosition{Offset: top.Offset, Epoch: top.Epoch}, err
		},
	})
	publisher.publishNumber(channel, 1)
	until("the first message", func() bool { return slices.Equal(sub.numbers(), []int{1}) })
	// Two are kept, so one that missed two recovers.
	away(l, c, sub, func() {
		publisher.publishNumber(channel, 2)
		publisher.publishNumber(channel, 3)
	})
	until("the missed messages", func() bool { return slices.Equal(sub.numbers(), []int{1, 2, 3}) })
	check(asked.Load() == 1, asked.Load())
	// One that missed more is told so, loads its state again, and goes on from there.
	away(l, c, sub, func() {
		for n := 4; n < 10; n++ {
			publisher.publishNumber(channel, n)
		}
	})
	check(asked.Load() == 2, asked.Load())
	publisher.publishNumber(channel, 10)
	until("the next message", func() bool { return slices.Equal(sub.numbers(), []int{1, 2, 3, 10}) })
}

func (s *scenarios) ServerSide() {
	channel, l := name("room"), linkTo(s.Address)
	token := s.token("alice", claims{"channels": []string{channel}})
	c := s.connected(l.address, centrifuge.Config{Token: token})
	first := c.subscribed.first("the subscription")
	check(first.Channel == channel, first)
	publisher := s.bob()
	publisher.publishNumber(channel, 1)
	c.publication.first("the publication")
	l.close()
	until("the connection to be lost", func() bool { return c.connecting.count() > 1 })
	publisher.publishNumber(channel, 2)
	l.open()
	until("the missed publication", func() bool { return c.publication.count() > 1 })
	came := c.publication.all()
	check(number(came[0].Data) == 1 && number(came[1].Data) == 2 && len(came) == 2, came)
	check(c.subscribed.all()[1].Recovered, c.subscribed.all())
	// The channel is taken.
	twice := c.subscription(channel, centrifuge.SubscriptionConfig{})
	well(twice.Subscribe())
	end := twice.unsubscribed.first("a refusal")
	check(end.Code == 105, end)
}

func (s *scenarios) Delta() {
	s.deltas("the kitchen, in which the kettle sings; ", "tea", "tee", "ten", "zen")
}

func (s *scenarios) DeltaCharacters() {
	s.deltas("кухня, in which the kettle sings и чайник поёт; ", "чай", "час", "шум", "юла")
}

func (s *scenarios) deltas(phrase string, words ...string) {
	channel, l, publisher := name("room"), linkTo(s.Address), s.bob()
	c := s.connected(l.address, centrifuge.Config{Token: s.token("alice")})
	sub := c.subscribe(channel, centrifuge.SubscriptionConfig{Delta: centrifuge.DeltaTypeFossil, Recoverable: true})
	var sent []string
	publish := func(count int) {
		for range count {
			n := len(sent) + 1
			value := claims{"n": n, "text": strings.Repeat(phrase, 8), "word": words[n%4], "warmth": 20 + float64(n)/10}
			sent = append(sent, string(must(json.Marshal(value))))
			publisher.publish(channel, value)
		}
	}
	publish(8)
	until("the messages", func() bool { return sub.publication.count() >= len(sent) })
	for _, missed := range []int{3, 0} {
		away(l, c, sub, func() { publish(missed) })
		publish(2)
		until("the messages", func() bool { return sub.publication.count() >= len(sent) })
	}
	var came []string
	for _, publication := range sub.publication.all() {
		came = append(came, string(publication.Data))
	}
	check(slices.Equal(came, sent), came)
}

// The server lost its data and trusts no older token.
func (s *scenarios) StateInvalidated() {
	var asked atomic.Int32
	c := s.connected(s.Address, centrifuge.Config{
		Token: s.token("alice"),
		GetToken: func(centrifuge.ConnectionTokenEvent) (string, error) {
			asked.Add(1)
			return s.token("alice"), nil
		},
	})
	channel := name("room")
	sub := c.subscribe(channel, centrifuge.SubscriptionConfig{Recoverable: true})
	c.publishNumber(channel, 1)
	sub.publication.first("the publication")
	ask("lose the data:")
	until("a new subscription", func() bool { return sub.subscribed.count() > 1 })
	invalidated := centrifuge.ConnectingEvent{Code: 3014, Reason: "state invalidated"}
	check(c.connecting.all()[1] == invalidated, c.connecting.all())
	check(asked.Load() > 0 && c.disconnected.count() == 0, c.disconnected.all())
	again := sub.subscribed.all()[1]
	check(again.WasRecovering && !again.Recovered, again)
	c.publishNumber(channel, 2)
	until("the next publication", func() bool { return slices.Equal(sub.numbers(), []int{1, 2}) })
}

// The node that `address` leads to goes away, and another is there instead. `publisher` stays.
func (s *scenarios) Failover() {
	channel, publisher, c := name("room"), s.bob(), s.alice()
	sub := c.subscribe(channel, centrifuge.SubscriptionConfig{Recoverable: true})
	n := 0
	publish := func() {
		n++
		publisher.publishNumber(channel, n)
	}
	for range 20 {
		publish()
	}
	until("the first messages", func() bool { return sub.publication.count() >= n })
	ask("end the node:")
	until("a second connection", func() bool {
		publish()
		return sub.subscribed.count() > 1
	})
	for range 20 {
		publish()
	}
	until("all messages", func() bool { return sub.publication.count() >= n })
	check(sub.subscribed.all()[1].Recovered, sub.subscribed.all())
	sub.checkWhole(n)
}
