// What the scenarios of main.go share: tokens, a link that can be cut, clients that note what happens to them, and
// waits with a deadline.

package main

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

const (
	// Longest wait for anything.
	patience  = 20 * time.Second
	lookEvery = 10 * time.Millisecond
)

// A scenario that does not go as it should ends with a panic of this type.
type failure string

func check(holds bool, found ...any) {
	if !holds {
		panic(failure(fmt.Sprintf("%+v", found)))
	}
}

func well(err error) {
	check(err == nil, err)
}

func done(step string) {
	fmt.Println(step)
}

var answers = bufio.NewReader(os.Stdin)

// Asks the test for something, and waits until it is done.
func ask(what string) {
	done(what)
	_, err := answers.ReadString('\n')
	check(err == nil, "nobody answers:", what, err)
}

// Waits until it holds; fails with what was waited for.
func until(what string, holds func() bool) {
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(lookEvery) {
		check(time.Now().Before(deadline), "waited in vain for "+what)
	}
}

// The end of a command's time.
func within() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	context.AfterFunc(ctx, cancel)
	return ctx
}

// The result of a command.
func must[T any](result T, err error) T {
	well(err)
	return result
}

// The code of the error that a command is answered with.
func refusal[T any](result T, err error) uint32 {
	var refused *centrifuge.Error
	check(errors.As(err, &refused), "not refused:", result, err)
	return refused.Code
}

// Seconds since 1970, of a time so far from now.
func inSeconds(seconds int64) int64 {
	return time.Now().Unix() + seconds
}

func name(prefix string) string {
	return prefix + ":" + rand.Text()
}

type claims map[string]any

// An HS256 token with these claims, issued a second ago, for an hour unless they say otherwise.
func mint(secret string, own claims) string {
	all := claims{"iat": inSeconds(-1), "exp": inSeconds(3600)}
	for claim, value := range own {
		all[claim] = value
	}
	encode := base64.RawURLEncoding.EncodeToString
	header, _ := json.Marshal(claims{"alg": "HS256", "typ": "JWT"})
	body, _ := json.Marshal(all)
	signed := encode(header) + "." + encode(body)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

// A TCP proxy of the test's own: what the SDK sees when a network fails.
type link struct {
	address, target string
	mu              sync.Mutex
	ends            map[net.Conn]bool
	closed          bool
}

func linkTo(target string) *link {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	well(err)
	l := &link{address: listener.Addr().String(), target: target, ends: map[net.Conn]bool{}}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go l.carry(client)
		}
	}()
	return l
}

func (l *link) carry(client net.Conn) {
	server, err := net.Dial("tcp", l.target)
	if err != nil {
		client.Close()
		return
	}
	if !l.admit(client, server) {
		return
	}
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		go func() {
			io.Copy(way[0], way[1])
			client.Close()
			server.Close()
		}()
	}
}

// Notes both ends of a new connection, or closes them.
func (l *link) admit(ends ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, end := range ends {
		if l.closed {
			end.Close()
		} else {
			l.ends[end] = true
		}
	}
	return !l.closed
}

// Ends what is open, without a word to either side.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for end := range l.ends {
		end.Close()
	}
	clear(l.ends)
}

// From now on nothing gets through.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cut()
}

// From now on everything gets through.
func (l *link) open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = false
}

// Events of one kind, in the order in which they came.
type events[T any] struct {
	mu    sync.Mutex
	noted []T
}

func (e *events[T]) note(event T) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.noted = append(e.noted, event)
}

func (e *events[T]) all() []T {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]T(nil), e.noted...)
}

func (e *events[T]) count() int {
	return len(e.all())
}

// The first event, once it is there.
func (e *events[T]) first(what string) T {
	until(what, func() bool { return e.count() > 0 })
	return e.all()[0]
}

// A client, and what has happened to it.
type client struct {
	*centrifuge.Client
	connecting   events[centrifuge.ConnectingEvent]
	connected    events[centrifuge.ConnectedEvent]
	disconnected events[centrifuge.DisconnectedEvent]
	errors       events[error]
	subscribed   events[centrifuge.ServerSubscribedEvent]
	publication  events[centrifuge.ServerPublicationEvent]
}

// Makes clients of one format.
type fleet struct {
	isProtobuf bool
	clients    []*client
}

// A client at an address that has not connected.
func (f *fleet) client(address string, config centrifuge.Config) *client {
	config.MinReconnectDelay = 20 * time.Millisecond
	if config.MaxReconnectDelay == 0 {
		config.MaxReconnectDelay = 200 * time.Millisecond
	}
	// The SDK's own second is short where tests run side by side.
	config.HandshakeTimeout, config.WriteTimeout = patience, patience
	newClient := centrifuge.NewJsonClient
	if f.isProtobuf {
		newClient = centrifuge.NewProtobufClient
	}
	c := &client{Client: newClient("ws://"+address+"/connection/websocket", config)}
	c.OnConnecting(c.connecting.note)
	c.OnConnected(c.connected.note)
	c.OnDisconnected(c.disconnected.note)
	c.OnError(func(event centrifuge.ErrorEvent) { c.errors.note(event.Error) })
	c.OnSubscribed(c.subscribed.note)
	c.OnPublication(c.publication.note)
	f.clients = append(f.clients, c)
	return c
}

func (f *fleet) end() {
	for _, c := range f.clients {
		c.Close()
	}
	f.clients = nil
}

// A subscription, and what has happened to it.
type subscription struct {
	*centrifuge.Subscription
	subscribed   events[centrifuge.SubscribedEvent]
	unsubscribed events[centrifuge.UnsubscribedEvent]
	publication  events[centrifuge.PublicationEvent]
	join         events[centrifuge.JoinEvent]
	leave        events[centrifuge.LeaveEvent]
	errors       events[error]
}

// A subscription that has not begun.
func (c *client) subscription(channel string, config centrifuge.SubscriptionConfig) *subscription {
	config.MinResubscribeDelay = 20 * time.Millisecond
	config.MaxResubscribeDelay = 200 * time.Millisecond
	s := &subscription{Subscription: must(c.NewSubscription(channel, config))}
	s.OnSubscribed(s.subscribed.note)
	s.OnUnsubscribed(s.unsubscribed.note)
	s.OnPublication(s.publication.note)
	s.OnJoin(s.join.note)
	s.OnLeave(s.leave.note)
	s.OnError(func(event centrifuge.SubscriptionErrorEvent) { s.errors.note(event.Error) })
	return s
}

// As `subscription`, subscribed.
func (c *client) subscribe(channel string, config centrifuge.SubscriptionConfig) *subscription {
	s := c.subscription(channel, config)
	well(s.Subscribe())
	s.await(1)
	return s
}

// Waits until it has been subscribed for so many times.
func (s *subscription) await(times int) {
	until("subscription "+s.Channel, func() bool {
		check(s.unsubscribed.count() < times, s.unsubscribed.all())
		return s.subscribed.count() >= times
	})
}

// The numbers in its publications.
func (s *subscription) numbers() (numbers []int) {
	for _, publication := range s.publication.all() {
		numbers = append(numbers, number(publication.Data))
	}
	return numbers
}

func number(data []byte) int {
	var message struct{ N int }
	well(json.Unmarshal(data, &message))
	return message.N
}
