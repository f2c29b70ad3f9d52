// Scenarios about one channel and its clients.

package main

import (
	"encoding/json"
	"reflect"
	"slices"

	"github.com/centrifugal/centrifuge-go"
)

func (s *scenarios) Subscribe() {
	c := s.alice()
	sub := c.subscribe(name("plain"), centrifuge.SubscriptionConfig{})
	well(sub.Unsubscribe())
	end := sub.unsubscribed.first("the end of the subscription")
	check(end.Code == 0, end)
	well(sub.Subscribe())
	until("another subscription", func() bool { return sub.subscribed.count() == 2 })
	closed := c.subscription(name("closed"), centrifuge.SubscriptionConfig{})
	well(closed.Subscribe())
	refused := closed.unsubscribed.first("a refusal")
	check(refused.Code == 103, refused)
	check(c.isConnected() && c.connected.count() == 1, c.disconnected.all())
}

func (s *scenarios) Publish() {
	channel := name("room")
	alice, bob := s.alice(), s.bob()
	sub := alice.subscribe(channel, centrifuge.SubscriptionConfig{})
	heard := bob.subscribe(channel, centrifuge.SubscriptionConfig{})
	sent := claims{"text": "é 😀\n\"\\", "n": 1.5, "deep": []any{[]any{map[string]any{}}, nil, true}}
	must(sub.Subscription.Publish(within(), must(json.Marshal(sent))))
	for _, each := range []*subscription{sub, heard} {
		publication := each.publication.first("the publication")
		var came claims
		well(json.Unmarshal(publication.Data, &came))
		check(reflect.DeepEqual(came, sent), came)
		info := publication.Info
		check(info.User == "alice" && info.Client == alice.connected.all()[0].ClientID, info)
		check(publication.Offset == 1, publication)
	}
	check(refusal(bob.Publish(within(), name("closed"), []byte("{}"))) == 103)
}

func (s *scenarios) Presence() {
	channel := name("room")
	alice, bob := s.alice(), s.bob()
	count := func() int { return must(bob.PresenceStats(within(), channel)).NumClients }
	sub := alice.subscribe(channel, centrifuge.SubscriptionConfig{})
	for round := range 20 {
		check(count() == 1, "round", round)
		well(sub.Unsubscribe())
		// Answered after the unsubscribe, which the SDK does not wait for.
		must(alice.PresenceStats(within(), channel))
		check(count() == 0, "round", round)
		well(sub.Subscribe())
		until("a subscription", func() bool { return sub.subscribed.count() == round+2 })
	}
	bob.subscribe(channel, centrifuge.SubscriptionConfig{})
	var users []string
	for key, info := range must(alice.Presence(within(), channel)).Clients {
		check(key == info.Client, key, info)
		users = append(users, info.User)
	}
	slices.Sort(users)
	check(slices.Equal(users, []string{"alice", "bob"}), users)
	stats := must(alice.PresenceStats(within(), channel))
	check(stats.NumClients == 2 && stats.NumUsers == 2, stats)
	check(refusal(alice.Presence(within(), name("plain"))) == 108)
	check(refusal(alice.PresenceStats(within(), name("plain"))) == 108)
}

func (s *scenarios) JoinLeave() {
	channel := name("room")
	alice, bob := s.alice(), s.bob()
	sub := alice.subscribe(channel, centrifuge.SubscriptionConfig{JoinLeave: true})
	bob.subscribe(channel, centrifuge.SubscriptionConfig{})
	until("both joins", func() bool { return sub.join.count() == 2 })
	joins := sub.join.all()
	check(joins[0].User == "alice" && joins[1].User == "bob", joins)
	well(bob.Disconnect())
	left := sub.leave.first("the leave")
	check(left.User == "bob", left)
}

func (s *scenarios) History() {
	c, channel := s.alice(), name("room")
	sub := c.subscribe(channel, centrifuge.SubscriptionConfig{})
	for n := 1; n <= 5; n++ {
		c.publishNumber(channel, n)
	}
	limit, reverse := centrifuge.WithHistoryLimit, centrifuge.WithHistoryReverse(true)
	top := must(sub.History(within(), limit(0)))
	check(top.Offset == 5 && len(top.Publications) == 0 && top.Epoch != "", top)
	since := func(offset uint64, epoch string) centrifuge.HistoryOption {
		return centrifuge.WithHistorySince(&centrifuge.StreamPosition{Offset: offset, Epoch: epoch})
	}
	for _, each := range []struct {
		expected []int
		options  []centrifuge.HistoryOption
	}{
		{[]int{1, 2, 3, 4, 5}, []centrifuge.HistoryOption{limit(-1)}},
		{[]int{1, 2}, []centrifuge.HistoryOption{limit(2)}},
		{[]int{3, 4}, []centrifuge.HistoryOption{limit(2), since(2, top.Epoch)}},
		{[]int{5, 4}, []centrifuge.HistoryOption{limit(2), reverse}},
		{[]int{2, 1}, []centrifuge.HistoryOption{limit(9), reverse, since(3, top.Epoch)}},
	} {
		var numbers []int
		for _, publication := range must(sub.History(within(), each.options...)).Publications {
			numbers = append(numbers, number(publication.Data))
		}
		check(slices.Equal(numbers, each.expected), numbers, each.expected)
	}
	check(refusal(sub.History(within(), limit(1), since(2, "another"))) == 112)
	check(refusal(c.History(within(), name("plain"), limit(1))) == 108)
}
