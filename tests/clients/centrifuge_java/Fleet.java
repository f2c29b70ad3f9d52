import io.github.centrifugal.centrifuge.Client;
import io.github.centrifugal.centrifuge.ClientState;
import io.github.centrifugal.centrifuge.ConnectedEvent;
import io.github.centrifugal.centrifuge.ConnectingEvent;
import io.github.centrifugal.centrifuge.DisconnectedEvent;
import io.github.centrifugal.centrifuge.ErrorEvent;
import io.github.centrifugal.centrifuge.EventListener;
import io.github.centrifugal.centrifuge.JoinEvent;
import io.github.centrifugal.centrifuge.LeaveEvent;
import io.github.centrifugal.centrifuge.Options;
import io.github.centrifugal.centrifuge.PublicationEvent;
import io.github.centrifugal.centrifuge.PublishResult;
import io.github.centrifugal.centrifuge.ServerPublicationEvent;
import io.github.centrifugal.centrifuge.ServerSubscribedEvent;
import io.github.centrifugal.centrifuge.SubscribedEvent;
import io.github.centrifugal.centrifuge.Subscription;
import io.github.centrifugal.centrifuge.SubscriptionErrorEvent;
import io.github.centrifugal.centrifuge.SubscriptionEventListener;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import io.github.centrifugal.centrifuge.UnsubscribedEvent;
import java.net.Proxy;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.stream.Collectors;

/** Makes clients. */
final class Fleet {
    private final List<Client> clients = new ArrayList<>();

    /** A client at an address that has not connected. */
    Member client(String address, Options options) {
        options.setMinReconnectDelay(20);
        options.setMaxReconnectDelay(200);
        options.setProxy(Proxy.NO_PROXY);
        Member member = new Member("ws://" + address + "/connection/websocket", options);
        clients.add(member.client);
        return member;
    }

    /** As {@code client}, connected. */
    Member connected(String address, Options options) throws InterruptedException {
        Member member = client(address, options);
        member.client.connect();
        Support.until("a connection", () -> {
            Support.check(member.disconnected.isEmpty(), member.disconnected);
            return !member.connected.isEmpty();
        });
        return member;
    }

    void end() {
        clients.forEach(Client::disconnect);
    }

    /** A client, and what has happened to it. */
    static final class Member extends EventListener {
        final Client client;
        final List<ConnectingEvent> connecting = new CopyOnWriteArrayList<>();
        final List<ConnectedEvent> connected = new CopyOnWriteArrayList<>();
        final List<DisconnectedEvent> disconnected = new CopyOnWriteArrayList<>();
        final List<String> errors = new CopyOnWriteArrayList<>();
        final List<ServerSubscribedEvent> subscribed = new CopyOnWriteArrayList<>();
        final List<ServerPublicationEvent> publication = new CopyOnWriteArrayList<>();

        Member(String endpoint, Options options) {
            client = new Client(endpoint, options, this);
        }

        @Override
        public void onConnecting(Client client, ConnectingEvent event) {
            connecting.add(event);
        }

        @Override
        public void onConnected(Client client, ConnectedEvent event) {
            connected.add(event);
        }

        @Override
        public void onDisconnected(Client client, DisconnectedEvent event) {
            disconnected.add(event);
        }

        @Override
        public void onError(Client client, ErrorEvent event) {
            errors.add(String.valueOf(event.getError()));
        }

        @Override
        public void onSubscribed(Client client, ServerSubscribedEvent event) {
            subscribed.add(event);
        }

        @Override
        public void onPublication(Client client, ServerPublicationEvent event) {
            publication.add(event);
        }

        boolean isConnected() {
            return client.getState() == ClientState.CONNECTED;
        }

        void publish(String channel, Object value) throws Exception {
            Support.<PublishResult>within(answer -> client.publish(channel, Support.payload(value), answer));
        }

        void publishNumber(String channel, int n) throws Exception {
            publish(channel, new Support.Numbered(n));
        }

        /** A subscription that has not begun. */
        Place subscription(String channel, SubscriptionOptions options) throws Exception {
            options.setMinResubscribeDelay(20);
            options.setMaxResubscribeDelay(200);
            Place place = new Place();
            place.sub = client.newSubscription(channel, options, place);
            return place;
        }

        /** As {@code subscription}, subscribed. */
        Place subscribe(String channel, SubscriptionOptions options) throws Exception {
            Place place = subscription(channel, options);
            place.sub.subscribe();
            place.await(1);
            return place;
        }
    }

    /** A subscription, and what has happened to it. */
    static final class Place extends SubscriptionEventListener {
        Subscription sub;
        final List<SubscribedEvent> subscribed = new CopyOnWriteArrayList<>();
        final List<UnsubscribedEvent> unsubscribed = new CopyOnWriteArrayList<>();
        final List<PublicationEvent> publication = new CopyOnWriteArrayList<>();
        final List<JoinEvent> join = new CopyOnWriteArrayList<>();
        final List<LeaveEvent> leave = new CopyOnWriteArrayList<>();
        final List<String> errors = new CopyOnWriteArrayList<>();

        @Override
        public void onSubscribed(Subscription sub, SubscribedEvent event) {
            subscribed.add(event);
        }

        @Override
        public void onUnsubscribed(Subscription sub, UnsubscribedEvent event) {
            unsubscribed.add(event);
        }

        @Override
        public void onPublication(Subscription sub, PublicationEvent event) {
            publication.add(event);
        }

        @Override
        public void onJoin(Subscription sub, JoinEvent event) {
            join.add(event);
        }

        @Override
        public void onLeave(Subscription sub, LeaveEvent event) {
            leave.add(event);
        }

        @Override
        public void onError(Subscription sub, SubscriptionErrorEvent event) {
            errors.add(String.valueOf(event.getError()));
        }

        /** Waits until it has been subscribed for so many times. */
        void await(int times) throws InterruptedException {
            Support.until("a subscription", () -> {
                Support.check(unsubscribed.size() < times, unsubscribed);
                return subscribed.size() >= times;
            });
        }

        /** The numbers in its publications. */
        List<Integer> numbers() {
            return publication.stream().map(each -> Support.number(each.getData())).collect(Collectors.toList());
        }

        /** One to {@code count}, each once and in order. */
        void checkWhole(int count) {
            List<Integer> numbers = numbers();
            Support.check(numbers.size() == count, numbers);
            for (int at = 0; at < count; at += 1) {
                Support.check(numbers.get(at) == at + 1, numbers);
                long offset = publication.get(at).getOffset();
                Support.check(offset == publication.get(0).getOffset() + at, "offset", offset, "at", at);
            }
        }
    }
}
