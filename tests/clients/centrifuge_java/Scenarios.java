import static java.util.Map.entry;

import io.github.centrifugal.centrifuge.ClientInfo;
import io.github.centrifugal.centrifuge.ClientState;
import io.github.centrifugal.centrifuge.ConnectionTokenEvent;
import io.github.centrifugal.centrifuge.ConnectionTokenGetter;
import io.github.centrifugal.centrifuge.DisconnectedEvent;
import io.github.centrifugal.centrifuge.HistoryOptions;
import io.github.centrifugal.centrifuge.HistoryResult;
import io.github.centrifugal.centrifuge.Options;
import io.github.centrifugal.centrifuge.PresenceResult;
import io.github.centrifugal.centrifuge.PresenceStatsResult;
import io.github.centrifugal.centrifuge.Publication;
import io.github.centrifugal.centrifuge.PublicationEvent;
import io.github.centrifugal.centrifuge.PublishResult;
import io.github.centrifugal.centrifuge.RPCResult;
import io.github.centrifugal.centrifuge.StreamPosition;
import io.github.centrifugal.centrifuge.SubscribedEvent;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import io.github.centrifugal.centrifuge.SubscriptionState;
import io.github.centrifugal.centrifuge.SubscriptionTokenEvent;
import io.github.centrifugal.centrifuge.SubscriptionTokenGetter;
import io.github.centrifugal.centrifuge.TokenCallback;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Future;
import java.util.concurrent.FutureTask;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * Curfew, or any server of the Centrifuge protocol, as the published Java SDK meets it.
 *
 * <p>Takes one argument, a JSON object: {@code address} (host:port), {@code secret} of HS256 tokens, {@code scenarios}, and
 * perhaps {@code publisher}, the address of another node, to which half of the clients connect. Prints a line for every
 * scenario that went as it should; says what is wrong with the others, and fails. After a line that ends in a colon it
 * waits for a line that says that it is done.
 *
 * <p>The channels are those of centrifuge_scenarios.mjs.
 */
final class Scenarios {
    private static final String STRANGER = "another secret of thirty-two bytes";

    /** For so long after its end the server takes a token. */
    private static final long LEEWAY = 5;

    /** Seconds until the end of a token that is renewed. */
    private static final long LIFE = 4;

    /** The argument. */
    private static final class Task {
        String address;
        String secret;
        String publisher;
        List<String> scenarios;
    }

    private interface Scenario {
        void live(Scenarios scenarios) throws Exception;
    }

    private interface Step {
        void take() throws Exception;
    }

    private static final Map<String, Scenario> ALL = Map.ofEntries(
            entry("connect", Scenarios::connect),
            entry("refused_token", Scenarios::refusedToken),
            entry("expired_token", Scenarios::expiredToken),
            entry("refresh", Scenarios::refresh),
            entry("subscribe", Scenarios::subscribe),
            entry("publish", Scenarios::publish),
            entry("presence", Scenarios::presence),
            entry("join_leave", Scenarios::joinLeave),
            entry("history", Scenarios::history),
            entry("recovery", Scenarios::recovery),
            entry("recovery_under_load", Scenarios::recoveryUnderLoad),
            entry("subscription_token", Scenarios::subscriptionToken),
            entry("server_side", Scenarios::serverSide),
            entry("commands", Scenarios::commands),
            entry("many_at_once", Scenarios::manyAtOnce),
            entry("send", Scenarios::send),
            entry("pings", Scenarios::pings),
            entry("revoked", Scenarios::revoked),
            entry("state_invalidated", Scenarios::stateInvalidated),
            entry("failover", Scenarios::failover));

    private final Task task;
    private final Fleet fleet = new Fleet();

    private Scenarios(Task task) {
        this.task = task;
    }

    // What they share.

    private String token(String user, Map<String, Object> more) {
        Map<String, Object> claims = new HashMap<>(more);
        claims.put("sub", user);
        return Support.mint(task.secret, claims);
    }

    private String token(String user) {
        return token(user, Map.of());
    }

    private static Options with(String token) {
        Options options = new Options();
        options.setToken(token);
        return options;
    }

    /** Options with a token, and more of them from an application. */
    private static Options with(String token, Supplier<String> newer) {
        Options options = with(token);
        options.setTokenGetter(new ConnectionTokenGetter() {
            @Override
            public void getConnectionToken(ConnectionTokenEvent event, TokenCallback callback) {
                callback.Done(null, newer.get());
            }
        });
        return options;
    }

    private Fleet.Member alice() throws Exception {
        return fleet.connected(task.address, with(token("alice")));
    }

    /** At the other node if there is one. */
    private Fleet.Member bob() throws Exception {
        String address = task.publisher == null ? task.address : task.publisher;
        return fleet.connected(address, with(token("bob")));
    }

    private static SubscriptionOptions plain() {
        return new SubscriptionOptions();
    }

    private static SubscriptionOptions recoverable() {
        SubscriptionOptions options = new SubscriptionOptions();
        options.setRecoverable(true);
        return options;
    }

    /** Closes the link, lets something happen, and opens it: the subscription is there again. */
    private static void away(Link link, Fleet.Member member, Fleet.Place place, Step meanwhile) throws Exception {
        int connecting = member.connecting.size();
        int subscribed = place.subscribed.size();
        link.close();
        Support.until("the connection to be lost", () -> member.connecting.size() > connecting);
        meanwhile.take();
        link.open();
        Support.until("a new subscription", () -> place.subscribed.size() > subscribed);
    }

    private static int numClients(Fleet.Member member, String channel) throws Exception {
        return Support.<PresenceStatsResult>within(answer -> member.client.presenceStats(channel, answer)).getNumClients();
    }

    private static void checkEnd(DisconnectedEvent end, int code, String reason) {
        Support.check(end.getCode() == code && end.getReason().equals(reason), end);
    }

    // Connections and tokens.

    private void connect() throws Exception {
        Options options = with(token("alice"));
        options.setData(Support.payload(Map.of("from", "a test")));
        Fleet.Member member = fleet.connected(task.address, options);
        String first = member.connected.get(0).getClient();
        Support.check(first.length() == 36, first);
        member.client.disconnect();
        Support.checkEqual(Support.first("the disconnection", member.disconnected).getCode(), 0);
        member.client.connect();
        Support.until("another connection", () -> member.connected.size() == 2);
        Support.check(!member.connected.get(1).getClient().equals(first), first);
    }

    private void refusedToken() throws Exception {
        Fleet.Member member = fleet.client(task.address, with(Support.mint(STRANGER, Map.of("sub", "alice"))));
        member.client.connect();
        checkEnd(Support.first("the disconnection", member.disconnected), 3500, "invalid token");
        Support.check(member.connected.isEmpty(), member.connected);
    }

    private void expiredToken() throws Exception {
        AtomicInteger asked = new AtomicInteger();
        Options options = with(token("alice", Map.of("exp", Support.inSeconds(-60))), () -> {
            asked.incrementAndGet();
            return token("alice");
        });
        Fleet.Member member = fleet.connected(task.address, options);
        Support.checkEqual(List.of(asked.get(), member.connected.size()), List.of(1, 1));
    }

    private void refresh() throws Exception {
        AtomicInteger asked = new AtomicInteger();
        long first = Support.inSeconds(LIFE);
        Options options = with(token("alice", Map.of("exp", first)), () -> {
            asked.incrementAndGet();
            return token("alice", Map.of("exp", Support.inSeconds(LIFE)));
        });
        Fleet.Member member = fleet.connected(task.address, options);
        String channel = Support.name("room");
        member.subscribe(channel, plain());
        Support.until(
                "a session that outlives its first token",
                () -> asked.get() >= 2 && Support.inSeconds(0) > first + LEEWAY);
        Support.check(member.isConnected() && member.connected.size() == 1, member.connecting);
        Support.check(member.errors.isEmpty(), member.errors);
        member.publishNumber(channel, 1);
    }

    private void subscriptionToken() throws Exception {
        AtomicInteger asked = new AtomicInteger();
        long first = Support.inSeconds(LIFE);
        SubscriptionOptions options = new SubscriptionOptions();
        options.setTokenGetter(new SubscriptionTokenGetter() {
            @Override
            public void getSubscriptionToken(SubscriptionTokenEvent event, TokenCallback callback) {
                asked.incrementAndGet();
                Map<String, Object> claims = Map.of("channel", event.getChannel(), "exp", Support.inSeconds(LIFE));
                callback.Done(null, token("alice", claims));
            }
        });
        Fleet.Member member = alice();
        Fleet.Place place = member.subscribe(Support.name("closed"), options);
        Support.until(
                "a subscription that outlives its first token",
                () -> asked.get() >= 3 && Support.inSeconds(0) > first + LEEWAY);
        Support.checkEqual(place.sub.getState(), SubscriptionState.SUBSCRIBED);
        Support.check(place.errors.isEmpty() && place.subscribed.size() == 1, place.errors);
        Support.check(member.connected.size() == 1, member.connecting);
    }

    private void commands() throws Exception {
        Fleet.Member member = alice();
        byte[] empty = Support.payload(Map.of());
        Support.checkEqual(Support.<RPCResult>refusal(answer -> member.client.rpc("any", empty, answer)), 108);
        byte[] wild = "no JSON".getBytes();
        String room = Support.name("room");
        Support.checkEqual(Support.<PublishResult>refusal(answer -> member.client.publish(room, wild, answer)), 107);
        Support.check(member.isConnected() && member.connected.size() == 1, member.connecting);
    }

    /** The connection's commands are on their way before the first is answered. */
    private void manyAtOnce() throws Exception {
        Fleet.Member member = fleet.client(task.address, with(token("alice")));
        List<Fleet.Place> places = new ArrayList<>();
        for (int i = 0; i < 120; i += 1) {
            places.add(member.subscription(Support.name("room"), plain()));
        }
        places.forEach(place -> place.sub.subscribe());
        member.client.connect();
        for (Fleet.Place place : places) {
            place.await(1);
            Support.check(place.subscribed.size() == 1 && place.errors.isEmpty(), place.errors);
        }
        Support.check(member.connected.size() == 1, member.connecting);
    }

    /** Curfew ignores a message to the server; Centrifugo ends the connection. */
    private void send() throws Exception {
        Fleet.Member member = alice();
        CompletableFuture<Throwable> sent = new CompletableFuture<>();
        member.client.send(Support.payload(Map.of("text", "nobody asked")), sent::complete);
        Support.until("a send", sent::isDone);
        Support.check(sent.get() == null, String.valueOf(sent.get()));
        numClients(member, Support.name("room"));
        Support.check(member.isConnected() && member.connected.size() == 1, member.connecting);
    }

    /** The server's pings come as its settings of this scenario say: one a second. */
    private void pings() throws Exception {
        Options options = with(token("alice"));
        options.setMaxServerPingDelay(1_000);
        Fleet.Member member = fleet.connected(task.address, options);
        // Without pings the SDK would have given up after two seconds, and without answers the server.
        Thread.sleep(5_000);
        Support.check(member.isConnected() && member.connecting.size() == 1, member.connecting);
    }

    private void revoked() throws Exception {
        List<Fleet.Member> members = new ArrayList<>();
        Link link = new Link(task.address);
        for (String user : List.of("alice", "alice", "bob")) {
            String way = user.equals("bob") ? link.address() : task.address;
            Fleet.Member member = fleet.connected(way, with(token(user), () -> token(user)));
            member.subscribe("room:revoked", recoverable());
            members.add(member);
        }
        Support.ask("revoke alice:");
        for (Fleet.Member member : members.subList(0, 2)) {
            checkEnd(Support.first("the disconnection", member.disconnected), 3503, "revoked");
        }
        Support.ask("count:");
        // Bob comes back twice meanwhile.
        Fleet.Member bob = members.get(2);
        for (int times = 2; times <= 3; times++) {
            int expected = times;
            link.cut();
            Support.until("Bob to be back", () -> bob.connected.size() == expected);
        }
        Support.ask("count again:");
        for (Fleet.Member member : members.subList(0, 2)) {
            Support.checkEqual(member.client.getState(), ClientState.DISCONNECTED);
            Support.check(member.connected.size() == 1 && member.connecting.size() == 1, member.connecting);
        }
        Support.check(bob.isConnected(), bob.disconnected);
        Fleet.Member first = members.get(0);
        first.client.connect();
        Support.until("the refusal", () -> first.disconnected.size() > 1);
        checkEnd(first.disconnected.get(1), 3503, "revoked");
        Support.check(first.connected.size() == 1, first.connected);
    }

    // One channel and its clients.

    private void subscribe() throws Exception {
        Fleet.Member member = alice();
        Fleet.Place place = member.subscribe(Support.name("plain"), plain());
        place.sub.unsubscribe();
        Support.checkEqual(Support.first("the end of the subscription", place.unsubscribed).getCode(), 0);
        place.sub.subscribe();
        Support.until("another subscription", () -> place.subscribed.size() == 2);
        Fleet.Place closed = member.subscription(Support.name("closed"), plain());
        closed.sub.subscribe();
        Support.checkEqual(Support.first("a refusal", closed.unsubscribed).getCode(), 103);
        Support.check(member.isConnected() && member.connected.size() == 1, member.connecting);
    }

    private void publish() throws Exception {
        String channel = Support.name("room");
        Fleet.Member alice = alice();
        Fleet.Member bob = bob();
        Fleet.Place place = alice.subscribe(channel, plain());
        Fleet.Place heard = bob.subscribe(channel, plain());
        byte[] sent = Support.payload(Map.of("text", "é 😀\n\"\\", "n", 1.5, "deep", List.of(List.of(Map.of()), true)));
        Support.<PublishResult>within(answer -> place.sub.publish(sent, answer));
        for (Fleet.Place each : List.of(place, heard)) {
            PublicationEvent publication = Support.first("the publication", each.publication);
            Support.checkEqual(Support.text(publication.getData()), Support.text(sent));
            Support.checkEqual(publication.getInfo().getUser(), "alice");
            Support.checkEqual(publication.getInfo().getClient(), alice.connected.get(0).getClient());
            Support.checkEqual(publication.getOffset(), 1L);
        }
        String closed = Support.name("closed");
        Support.checkEqual(Support.<PublishResult>refusal(answer -> bob.client.publish(closed, sent, answer)), 103);
    }

    private void presence() throws Exception {
        String channel = Support.name("room");
        Fleet.Member alice = alice();
        Fleet.Member bob = bob();
        Fleet.Place place = alice.subscribe(channel, plain());
        for (int round = 0; round < 20; round += 1) {
            Support.check(numClients(bob, channel) == 1, "round", round);
            int times = round + 2;
            place.sub.unsubscribe();
            // The SDK sends it by the time of the event, and does not wait for the answer; the next command's comes later.
            Support.until("the event", () -> place.unsubscribed.size() == times - 1);
            numClients(alice, channel);
            Support.check(numClients(bob, channel) == 0, "round", round);
            place.sub.subscribe();
            Support.until("a subscription", () -> place.subscribed.size() == times);
        }
        bob.subscribe(channel, plain());
        Map<String, ClientInfo> clients =
                Support.<PresenceResult>within(answer -> alice.client.presence(channel, answer)).getClients();
        clients.forEach((key, info) -> Support.checkEqual(info.getClient(), key));
        Support.checkEqual(
                clients.values().stream().map(ClientInfo::getUser).sorted().collect(Collectors.toList()),
                List.of("alice", "bob"));
        PresenceStatsResult stats = Support.within(answer -> alice.client.presenceStats(channel, answer));
        Support.checkEqual(List.of(stats.getNumClients(), stats.getNumUsers()), List.of(2, 2));
        String bare = Support.name("plain");
        Support.checkEqual(Support.<PresenceResult>refusal(answer -> alice.client.presence(bare, answer)), 108);
        Support.checkEqual(Support.<PresenceStatsResult>refusal(answer -> alice.client.presenceStats(bare, answer)), 108);
    }

    private void joinLeave() throws Exception {
        String channel = Support.name("room");
        Fleet.Member alice = alice();
        Fleet.Member bob = bob();
        SubscriptionOptions options = new SubscriptionOptions();
        options.setJoinLeave(true);
        Fleet.Place place = alice.subscribe(channel, options);
        bob.subscribe(channel, plain());
        Support.until("both joins", () -> place.join.size() == 2);
        Support.checkEqual(
                place.join.stream().map(each -> each.getInfo().getUser()).collect(Collectors.toList()),
                List.of("alice", "bob"));
        bob.client.disconnect();
        Support.checkEqual(Support.first("the leave", place.leave).getInfo().getUser(), "bob");
    }

    private void history() throws Exception {
        Fleet.Member member = alice();
        String channel = Support.name("room");
        Fleet.Place place = member.subscribe(channel, plain());
        for (int n = 1; n <= 5; n += 1) {
            member.publishNumber(channel, n);
        }
        Supplier<HistoryOptions.Builder> ask = HistoryOptions.Builder::new;
        HistoryResult top = Support.within(answer -> place.sub.history(ask.get().withLimit(0).build(), answer));
        Support.check(top.getOffset() == 5 && !top.getEpoch().isEmpty(), top);
        Support.check(top.getPublications().isEmpty(), top);
        Function<Long, StreamPosition> since = offset -> new StreamPosition(offset, top.getEpoch());
        Map<HistoryOptions.Builder, List<Integer>> pages = new LinkedHashMap<>();
        pages.put(ask.get().withLimit(-1), List.of(1, 2, 3, 4, 5));
        pages.put(ask.get().withLimit(2), List.of(1, 2));
        pages.put(ask.get().withLimit(2).withSince(since.apply(2L)), List.of(3, 4));
        pages.put(ask.get().withLimit(2).withReverse(true), List.of(5, 4));
        pages.put(ask.get().withLimit(9).withReverse(true).withSince(since.apply(3L)), List.of(2, 1));
        for (Map.Entry<HistoryOptions.Builder, List<Integer>> page : pages.entrySet()) {
            HistoryResult result = Support.within(answer -> place.sub.history(page.getKey().build(), answer));
            Stream<byte[]> payloads = result.getPublications().stream().map(Publication::getData);
            Support.checkEqual(payloads.map(Support::number).collect(Collectors.toList()), page.getValue());
        }
        HistoryOptions another = ask.get().withLimit(1).withSince(new StreamPosition(2, "another")).build();
        Support.checkEqual(Support.<HistoryResult>refusal(answer -> place.sub.history(another, answer)), 112);
        HistoryOptions one = ask.get().withLimit(1).build();
        String bare = Support.name("plain");
        Support.checkEqual(Support.<HistoryResult>refusal(answer -> member.client.history(bare, one, answer)), 108);
    }

    // Connections that are lost.

    private void recovery() throws Exception {
        String channel = Support.name("room");
        Link link = new Link(task.address);
        Fleet.Member publisher = bob();
        Fleet.Member member = fleet.connected(link.address(), with(token("alice")));
        Fleet.Place place = member.subscribe(channel, recoverable());
        AtomicInteger n = new AtomicInteger();
        Step publishFive = () -> {
            for (int i = 0; i < 5; i += 1) {
                publisher.publishNumber(channel, n.incrementAndGet());
            }
        };
        for (int round = 1; round <= 3; round += 1) {
            publishFive.take();
            away(link, member, place, publishFive);
            SubscribedEvent again = place.subscribed.get(round);
            Support.check(again.getRecovered() && again.wasRecovering(), again);
        }
        Support.until("all messages", () -> place.publication.size() >= n.get());
        place.checkWhole(n.get());
    }

    /** Messages come while the recovery is under way: none may be lost, doubled or out of order. */
    private void recoveryUnderLoad() throws Exception {
        int count = 600;
        String channel = Support.name("room");
        Link link = new Link(task.address);
        Fleet.Member publisher = bob();
        Fleet.Member member = fleet.connected(link.address(), with(token("alice")));
        Fleet.Place place = member.subscribe(channel, recoverable());
        Future<Void> published = aside(() -> {
            for (int n = 1; n <= count; n += 1) {
                publisher.publishNumber(channel, n);
                Thread.sleep(1);
            }
        });
        for (int round = 1; round <= 8; round += 1) {
            int cut = round;
            link.cut();
            Support.until("a new subscription", () -> place.subscribed.size() > cut);
            Support.check(place.subscribed.get(cut).getRecovered(), "cut", cut);
        }
        published.get();
        Support.until("all messages", () -> place.publication.size() >= count);
        place.checkWhole(count);
    }

    private void serverSide() throws Exception {
        String channel = Support.name("room");
        Link link = new Link(task.address);
        Fleet.Member member =
                fleet.connected(link.address(), with(token("alice", Map.of("channels", List.of(channel)))));
        Support.checkEqual(Support.first("the subscription", member.subscribed).getChannel(), channel);
        Fleet.Member publisher = bob();
        publisher.publishNumber(channel, 1);
        Support.first("the publication", member.publication);
        link.close();
        Support.until("the connection to be lost", () -> member.connecting.size() > 1);
        publisher.publishNumber(channel, 2);
        link.open();
        Support.until("the missed publication", () -> member.publication.size() > 1);
        Support.checkEqual(
                member.publication.stream().map(each -> Support.number(each.getData())).collect(Collectors.toList()),
                List.of(1, 2));
        Support.check(member.subscribed.get(1).getRecovered(), member.subscribed);
        // The channel is taken.
        Fleet.Place twice = member.subscription(channel, plain());
        twice.sub.subscribe();
        Support.checkEqual(Support.first("a refusal", twice.unsubscribed).getCode(), 105);
    }

    /** The server lost its data and trusts no older token. */
    private void stateInvalidated() throws Exception {
        AtomicInteger asked = new AtomicInteger();
        Fleet.Member member = fleet.connected(task.address, with(token("alice"), () -> {
            asked.incrementAndGet();
            return token("alice");
        }));
        String channel = Support.name("room");
        Fleet.Place place = member.subscribe(channel, recoverable());
        member.publishNumber(channel, 1);
        Support.first("the publication", place.publication);
        Support.ask("lose the data:");
        Support.until("a new subscription", () -> place.subscribed.size() > 1);
        Support.checkEqual(member.connecting.get(1).getCode(), 3014);
        Support.check(asked.get() > 0 && member.disconnected.isEmpty(), member.disconnected);
        SubscribedEvent again = place.subscribed.get(1);
        Support.check(again.wasRecovering() && !again.getRecovered(), again);
        member.publishNumber(channel, 2);
        Support.until("the next publication", () -> place.numbers().equals(List.of(1, 2)));
    }

    /** The node that {@code address} leads to goes away, and another is there instead. {@code publisher} stays. */
    private void failover() throws Exception {
        String channel = Support.name("room");
        Fleet.Member publisher = bob();
        Fleet.Place place = alice().subscribe(channel, recoverable());
        int n = 0;
        while (n < 20) {
            publisher.publishNumber(channel, n += 1);
        }
        Support.until("the first messages", () -> place.publication.size() >= 20);
        Support.ask("end the node:");
        long deadline = Support.inSeconds(20);
        while (place.subscribed.size() < 2) {
            Support.check(Support.inSeconds(0) < deadline, "no second connection");
            publisher.publishNumber(channel, n += 1);
            Thread.sleep(10);
        }
        for (int i = 0; i < 20; i += 1) {
            publisher.publishNumber(channel, n += 1);
        }
        int count = n;
        Support.until("all messages", () -> place.publication.size() >= count);
        Support.check(place.subscribed.get(1).getRecovered(), place.subscribed);
        place.checkWhole(count);
    }

    private static Future<Void> aside(Step step) {
        FutureTask<Void> running = new FutureTask<>(() -> {
            step.take();
            return null;
        });
        new Thread(running).start();
        return running;
    }

    /** Most scenarios wait for most of their time, so they are lived side by side. */
    public static void main(String[] arguments) throws InterruptedException {
        Task task = Support.GSON.fromJson(arguments[0], Task.class);
        Map<String, Future<Void>> running = new LinkedHashMap<>();
        for (String scenario : task.scenarios) {
            Scenarios own = new Scenarios(task);
            running.put(scenario, aside(() -> {
                try {
                    Support.check(ALL.containsKey(scenario), "no scenario");
                    ALL.get(scenario).live(own);
                } finally {
                    own.fleet.end();
                }
            }));
        }
        int failed = 0;
        for (Map.Entry<String, Future<Void>> each : running.entrySet()) {
            try {
                each.getValue().get();
                Support.done(each.getKey());
            } catch (java.util.concurrent.ExecutionException failure) {
                System.err.println(each.getKey() + " fails:");
                failure.getCause().printStackTrace();
                failed += 1;
            }
        }
        System.exit(failed == 0 ? 0 : 1);
    }
}
