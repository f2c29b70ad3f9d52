// Scenarios about connections and tokens.

package main

import (
	"sync/atomic"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

func (s *scenarios) Connect() {
	data := []byte(`{"from":"a test"}`)
	c := s.connected(s.Address, centrifuge.Config{Token: s.token("alice"), Data: data})
	first := c.connected.all()[0]
	check(len(first.ClientID) == 36 && first.Version != "", first)
	well(c.Disconnect())
	end := c.disconnected.first("the disconnection")
	check(end.Code == 0, end)
	well(c.Connect())
	until("another connection", func() bool { return c.connected.count() == 2 })
	check(c.connected.all()[1].ClientID != first.ClientID, first)
}

func (s *scenarios) RefusedToken() {
	c := s.client(s.Address, centrifuge.Config{Token: mint(stranger, claims{"sub": "alice"})})
	well(c.Connect())
	end := c.disconnected.first("the disconnection")
	check(end == centrifuge.DisconnectedEvent{Code: 3500, Reason: "invalid token"}, end)
	check(c.connected.count() == 0)
}

func (s *scenarios) ExpiredToken() {
	var asked atomic.Int32
	c := s.connected(s.Address, centrifuge.Config{
		Token: s.token("alice", claims{"exp": inSeconds(-60)}),
		GetToken: func(centrifuge.ConnectionTokenEvent) (string, error) {
			asked.Add(1)
			return s.token("alice"), nil
		},
	})
	check(asked.Load() == 1 && c.connected.count() == 1, asked.Load(), c.connected.all())
}

func (s *scenarios) Refresh() {
	const life = 4
	var asked atomic.Int32
	first := inSeconds(life)
	c := s.connected(s.Address, centrifuge.Config{
		Token: s.token("alice", claims{"exp": first}),
		GetToken: func(centrifuge.ConnectionTokenEvent) (string, error) {
			asked.Add(1)
			return s.token("alice", claims{"exp": inSeconds(life)}), nil
		},
	})
	channel := name("room")
	c.subscribe(channel, centrifuge.SubscriptionConfig{})
	until("a session that outlives its first token", func() bool {
		return asked.Load() >= 2 && inSeconds(0) > first+leeway
	})
	check(c.isConnected() && c.connected.count() == 1 && c.errors.count() == 0, c.State(), c.errors.all())
	c.publishNumber(channel, 1)
}

func (s *scenarios) SubscriptionToken() {
	const life = 4
	var asked atomic.Int32
	c, first := s.alice(), inSeconds(life)
	sub := c.subscribe(name("closed"), centrifuge.SubscriptionConfig{
		GetToken: func(event centrifuge.SubscriptionTokenEvent) (string, error) {
			asked.Add(1)
			return s.token("alice", claims{"channel": event.Channel, "exp": inSeconds(life)}), nil
		},
	})
	until("a subscription that outlives its first token", func() bool {
		return asked.Load() >= 3 && inSeconds(0) > first+leeway
	})
	check(sub.State() == centrifuge.SubStateSubscribed && sub.subscribed.count() == 1, sub.State())
	check(sub.errors.count() == 0 && c.connected.count() == 1, sub.errors.all())
}

func (s *scenarios) Commands() {
	c := s.alice()
	check(refusal(c.RPC(within(), "any", []byte("{}"))) == 108)
	if s.isProtobuf {
		check(refusal(c.Publish(within(), name("room"), []byte("no JSON"))) == 107)
	}
	check(c.isConnected() && c.connected.count() == 1, c.disconnected.all())
}

// The connection's commands are on their way before the first is answered.
func (s *scenarios) ManyAtOnce() {
	c := s.client(s.Address, centrifuge.Config{Token: s.token("alice")})
	var subs []*subscription
	for range 120 {
		sub := c.subscription(name("room"), centrifuge.SubscriptionConfig{})
		well(sub.Subscribe())
		subs = append(subs, sub)
	}
	well(c.Connect())
	for _, sub := range subs {
		sub.await(1)
		check(sub.subscribed.count() == 1 && sub.errors.count() == 0, sub.errors.all())
	}
	check(c.connected.count() == 1, c.connected.all())
}

// Curfew ignores a message to the server; Centrifugo ends the connection.
func (s *scenarios) Send() {
	c := s.alice()
	well(c.Send(within(), []byte(`{"text":"nobody asked"}`)))
	must(c.PresenceStats(within(), name("room")))
	check(c.isConnected() && c.connected.count() == 1, c.disconnected.all())
}

// The server's pings come as its settings of this scenario say: one a second.
func (s *scenarios) Pings() {
	c := s.connected(s.Address, centrifuge.Config{Token: s.token("alice"), MaxServerPingDelay: time.Second})
	// Without pings the SDK would have given up after two seconds, and without answers the server.
	time.Sleep(5 * time.Second)
	check(c.isConnected() && c.connecting.count() == 1, c.connecting.all())
}

func (s *scenarios) Revoked() {
	var clients []*client
	way := linkTo(s.Address)
	addresses := []string{s.Address, s.Address, way.address}
	for i, user := range []string{"alice", "alice", "bob"} {
		c := s.connected(addresses[i], centrifuge.Config{
			Token:    s.token(user),
			GetToken: func(centrifuge.ConnectionTokenEvent) (string, error) { return s.token(user), nil },
		})
		c.subscribe("room:revoked", centrifuge.SubscriptionConfig{Recoverable: true})
		clients = append(clients, c)
	}
	ask("revoke alice:")
	revoked := centrifuge.DisconnectedEvent{Code: 3503, Reason: "revoked"}
	for _, c := range clients[:2] {
		end := c.disconnected.first("the disconnection")
		check(end == revoked, end)
	}
	ask("count:")
	// Bob comes back twice meanwhile.
	for times := 2; times <= 3; times++ {
		way.cut()
		until("Bob to be back", func() bool { return clients[2].connected.count() == times })
	}
	ask("count again:")
	for _, c := range clients[:2] {
		check(c.State() == centrifuge.StateDisconnected, c.State())
		check(c.connected.count() == 1 && c.connecting.count() == 1, c.connecting.all())
	}
	check(clients[2].isConnected(), clients[2].disconnected.all())
	first := clients[0]
	well(first.Connect())
	until("the refusal", func() bool { return first.disconnected.count() > 1 })
	check(first.disconnected.all()[1] == revoked && first.connected.count() == 1, first.disconnected.all())
}
