"""Curfew, or any server of the Centrifuge protocol, as the published Python SDK meets it.

Takes one argument, a JSON object: `address` (host:port), `secret` of HS256 tokens, `format` (json, protobuf),
`scenarios`, and perhaps `publisher`, the address of another node, to which half of the clients connect. Prints a line for
every scenario that went as it should; says what is wrong with the others, and fails. After a line that ends in a colon
it waits for a line that says that it is done.

The channels are those of centrifuge_scenarios.mjs.
"""

import asyncio
import json
import os
import sys
import traceback
import uuid

from centrifuge import DeltaType, StreamPosition
from centrifuge_support import (
    Fleet, Link, ask, check, done, in_seconds, mint, refusal, subscribed, subscription, until, within,
)

STRANGER = "another secret of thirty-two bytes"


class Scenarios:
    def __init__(self, address, secret, format="json", leeway=5, **task):
        self.address, self.secret, self.task = address, secret, task
        self.leeway = leeway
        self.fleet = Fleet(format == "protobuf")

    # What they share.

    def token(self, sub="alice", **claims):
        return mint(self.secret, sub=sub, **claims)

    def connected(self, sub="alice", **options):
        return self.fleet.connected(self.address, **{"token": self.token(sub), **options})

    def elsewhere(self):
        address = self.task.get("publisher", self.address)
        return self.fleet.connected(address, token=self.token("bob"))

    def values(self, seen):
        return [self.fleet.value(context.pub.data) for context in seen["publication"]]

    def numbers(self, seen):
        return [value["n"] for value in self.values(seen)]

    async def publish(self, client, channel, value):
        await within(client.publish(channel, self.fleet.payload(value)))

    @staticmethod
    def name(prefix):
        return f"{prefix}:{uuid.uuid4()}"

    def check_whole(self, seen, count):
        """One to `count`, each once and in order."""
        check(self.numbers(seen) == list(range(1, count + 1)), self.numbers(seen))
        offsets = [context.pub.offset for context in seen["publication"]]
        check(offsets == list(range(offsets[0], offsets[0] + count)), offsets)

    # The scenarios.

    async def connect(self):
        client, seen = await self.connected(data=self.fleet.payload({"from": "a test"}))
        [connected] = seen["connected"]
        check(len(connected.client) == 36 and connected.version, connected)
        await client.disconnect()
        check([end.code for end in seen["disconnected"]] == [0], seen)
        await client.connect()
        await client.ready(5)
        check(seen["connected"][1].client != connected.client, seen)

    async def refused_token(self):
        client, seen = self.fleet.client(self.address, token=mint(STRANGER, sub="alice"))
        await client.connect()
        [end] = await until("the disconnection", lambda: seen["disconnected"])
        check((end.code, end.reason) == (3500, "invalid token"), end)
        check(not seen["connected"], seen)

    async def expired_token(self):
        asked = []

        async def get_token():
            asked.append(1)
            return self.token()

        _, seen = await self.connected(token=self.token(exp=in_seconds(-60)), get_token=get_token)
        check((len(asked), len(seen["connected"])) == (1, 1), seen)

    async def refresh(self):
        asked, life = [], 4

        async def get_token():
            asked.append(1)
            return self.token(exp=in_seconds(life))

        first = in_seconds(life)
        client, seen = await self.connected(token=self.token(exp=first), get_token=get_token)
        channel = self.name("room")
        await subscribed(client, channel)
        outlives = lambda: len(asked) >= 2 and in_seconds(0) > first + self.leeway
        await until("a session that outlives its first token", outlives)
        check((client.state.value, len(seen["connected"]), seen["error"]) == ("connected", 1, []), seen)
        await self.publish(client, channel, {"n": 1})

    async def subscribe(self):
        client, seen = await self.connected()
        sub, told = await subscribed(client, self.name("plain"))
        await sub.unsubscribe()
        check([end.code for end in told["unsubscribed"]] == [0], told)
        await sub.subscribe()
        await sub.ready(5)
        sub, told = subscription(client, self.name("closed"))
        await sub.subscribe()
        [end] = await until("a refusal", lambda: told["unsubscribed"])
        check(end.code == 103, end)
        check(len(seen["connected"]) == 1 and not seen["disconnected"], seen)

    async def publishing(self):
        channel = self.name("room")
        alice, connection = await self.connected()
        bob, _ = await self.elsewhere()
        sub, seen = await subscribed(alice, channel)
        _, heard = await subscribed(bob, channel)
        sent = {"text": 'é 😀\n"\\', "n": 1.5, "deep": [[{}], None, True]}
        await within(sub.publish(self.fleet.payload(sent)))
        for each in (seen, heard):
            [context] = await until("the publication", lambda each=each: each["publication"])
            check(self.values(each) == [sent], each)
            info = context.pub.info
            check((info.user, info.client) == ("alice", connection["connected"][0].client), info)
            check(context.pub.offset == 1, context)
        check(await refusal(bob.publish(self.name("closed"), self.fleet.payload({}))) == 103)

    async def presence(self):
        channel = self.name("room")
        alice, _ = await self.connected()
        bob, _ = await self.elsewhere()

        async def count():
            return (await within(bob.presence_stats(channel))).num_clients

        sub, _ = await subscribed(alice, channel)
        for round in range(20):
            check(await count() == 1, f"round {round}")
            await sub.unsubscribe()
            # Answered after the unsubscribe, which the SDK does not wait for.
            await within(alice.presence_stats(channel))
            check(await count() == 0, f"round {round}")
            await sub.subscribe()
            await sub.ready(5)
        await subscribed(bob, channel)
        present = (await within(alice.presence(channel))).clients
        check(sorted(info.user for info in present.values()) == ["alice", "bob"], present)
        check(all(key == info.client for key, info in present.items()), present)
        stats = await within(alice.presence_stats(channel))
        check((stats.num_clients, stats.num_users) == (2, 2), stats)
        check(await refusal(alice.presence(self.name("plain"))) == 108)
        check(await refusal(alice.presence_stats(self.name("plain"))) == 108)

    async def join_leave(self):
        channel = self.name("room")
        alice, _ = await self.connected()
        bob, _ = await self.elsewhere()
        _, seen = await subscribed(alice, channel, join_leave=True)
        await subscribed(bob, channel)
        await until("both joins", lambda: len(seen["join"]) == 2)
        check([each.info.user for each in seen["join"]] == ["alice", "bob"], seen)
        await bob.disconnect()
        [left] = await until("the leave", lambda: seen["leave"])
        check(left.info.user == "bob", left)

    async def history(self):
        client, _ = await self.connected()
        channel = self.name("room")
        sub, _ = await subscribed(client, channel)
        for n in range(1, 6):
            await within(sub.publish(self.fleet.payload({"n": n})))

        async def numbers(**options):
            page = await within(sub.history(**options))
            return [self.fleet.value(each.data)["n"] for each in page.publications]

        top = await within(sub.history(limit=0))
        check((top.offset, top.publications) == (5, []) and top.epoch, top)
        check(await numbers(limit=-1) == [1, 2, 3, 4, 5])
        check(await numbers(limit=2) == [1, 2])
        check(await numbers(limit=2, since=StreamPosition(2, top.epoch)) == [3, 4])
        check(await numbers(limit=2, reverse=True) == [5, 4])
        check(await numbers(limit=9, reverse=True, since=StreamPosition(3, top.epoch)) == [2, 1])
        check(await refusal(sub.history(limit=1, since=StreamPosition(2, "another"))) == 112)
        check(await refusal(client.history(self.name("plain"), limit=1)) == 108)

    async def recovery(self):
        channel = self.name("room")
        link = await Link.to(self.address)
        publisher, _ = await self.elsewhere()
        away, connection = await self.fleet.connected(link.address, token=self.token())
        _, seen = await subscribed(away, channel, recoverable=True)
        n = 0

        async def publish_five():
            nonlocal n
            for _ in range(5):
                n += 1
                await self.publish(publisher, channel, {"n": n})

        for round in range(1, 4):
            await publish_five()
            link.close()
            await until("the connection to be lost", lambda: len(connection["connecting"]) > round)
            await publish_five()
            link.open()
            await until("a subscription", lambda: len(seen["subscribed"]) > round)
            again = seen["subscribed"][round]
            check((again.recovered, again.was_recovering) == (True, True), again)
        await until("all messages", lambda: len(seen["publication"]) >= n)
        self.check_whole(seen, n)

    async def recovery_under_load(self):
        """Messages come while the recovery is under way: none may be lost, doubled or out of order."""
        channel, count = self.name("room"), 600
        link = await Link.to(self.address)
        publisher, _ = await self.elsewhere()
        away, _ = await self.fleet.connected(link.address, token=self.token(), max_reconnect_delay=0.02)
        _, seen = await subscribed(away, channel, recoverable=True)

        async def publish():
            for n in range(1, count + 1):
                await self.publish(publisher, channel, {"n": n})
                await asyncio.sleep(0.001)

        publishing = asyncio.create_task(publish())
        for cut in range(1, 9):
            link.cut()
            await until("a new subscription", lambda: len(seen["subscribed"]) > cut)
            check(seen["subscribed"][cut].recovered, f"recovered after cut {cut}")
        await publishing
        await until("all messages", lambda: len(seen["publication"]) >= count)
        self.check_whole(seen, count)

    async def get_state(self):
        channel = self.name("small")
        link = await Link.to(self.address)
        publisher, _ = await self.elsewhere()
        away, connection = await self.fleet.connected(link.address, token=self.token())
        asked = []

        async def get_state(_channel):
            asked.append(1)
            top = await publisher.history(channel, limit=0)
            return StreamPosition(top.offset, top.epoch)

        await self.publish(publisher, channel, {"n": 0})
        _, seen = await subscribed(away, channel, get_state=get_state)
        await self.publish(publisher, channel, {"n": 1})
        await until("the first message", lambda: self.numbers(seen) == [1])

        async def lose(numbers):
            before = len(connection["connecting"]), len(seen["subscribed"])
            link.close()
            await until("the connection to be lost", lambda: len(connection["connecting"]) > before[0])
            for n in numbers:
                await self.publish(publisher, channel, {"n": n})
            link.open()
            await until("a new subscription", lambda: len(seen["subscribed"]) > before[1])

        # Two are kept, so one that missed two recovers.
        await lose([2, 3])
        await until("the missed messages", lambda: len(seen["publication"]) >= 3)
        check((self.numbers(seen), len(asked)) == ([1, 2, 3], 1), seen)
        # One that missed more is told so, loads its state again, and goes on from there.
        await lose(range(4, 10))
        check(len(asked) == 2, asked)
        await self.publish(publisher, channel, {"n": 10})
        await until("the next message", lambda: self.numbers(seen) == [1, 2, 3, 10])

    async def subscription_token(self):
        asked, life = [], 4

        async def get_token(channel):
            asked.append(1)
            return self.token(channel=channel, exp=in_seconds(life))

        client, connection = await self.connected()
        first = in_seconds(life)
        sub, seen = await subscribed(client, self.name("closed"), get_token=get_token)
        outlives = lambda: len(asked) >= 3 and in_seconds(0) > first + self.leeway
        await until("a subscription that outlives its first token", outlives)
        check((sub.state.value, len(seen["subscribed"]), seen["error"]) == ("subscribed", 1, []), seen)
        check(len(connection["connected"]) == 1, connection)

    async def server_side(self):
        channel = self.name("room")
        link = await Link.to(self.address)
        client, seen = self.fleet.client(link.address, token=self.token(channels=[channel]))
        await client.connect()
        [first] = await until("the subscription", lambda: seen["subscribed"])
        check(first.channel == channel, first)
        publisher, _ = await self.elsewhere()
        await self.publish(publisher, channel, {"n": 1})
        await until("the publication", lambda: seen["publication"])
        link.close()
        await until("the connection to be lost", lambda: len(seen["connecting"]) > 1)
        await self.publish(publisher, channel, {"n": 2})
        link.open()
        await until("the missed publication", lambda: len(seen["publication"]) > 1)
        check(self.numbers(seen) == [1, 2], seen)
        check(seen["subscribed"][1].recovered, seen)

    async def delta(self):
        await self._deltas("the kitchen, in which the kettle sings; ", ["tea", "tee", "ten", "zen"])

    async def delta_characters(self):
        await self._deltas("кухня, in which the kettle sings и чайник поёт; ", ["чай", "час", "шум", "юла"])

    async def _deltas(self, phrase, words):
        channel = self.name("room")
        link = await Link.to(self.address)
        publisher, _ = await self.elsewhere()
        away, connection = await self.fleet.connected(link.address, token=self.token())
        _, seen = await subscribed(away, channel, delta=DeltaType.FOSSIL, recoverable=True)
        sent = []

        async def publish(count):
            for _ in range(count):
                n = len(sent) + 1
                sent.append({"n": n, "text": phrase * 8, "word": words[n % 4], "temperature": 20 + n / 10})
                await self.publish(publisher, channel, sent[-1])

        await publish(8)
        await until("the messages", lambda: len(seen["publication"]) >= len(sent))
        for missed in (3, 0):
            before = len(connection["connecting"]), len(seen["subscribed"])
            link.close()
            await until("the connection to be lost", lambda: len(connection["connecting"]) > before[0])
            await publish(missed)
            link.open()
            await until("a new subscription", lambda: len(seen["subscribed"]) > before[1])
            await publish(2)
            await until("the messages", lambda: len(seen["publication"]) >= len(sent))
        check(self.values(seen) == sent, self.values(seen))

    async def commands(self):
        client, seen = await self.connected()
        check(await refusal(client.rpc("any", self.fleet.payload({}))) == 108)
        check((client.state.value, len(seen["connected"])) == ("connected", 1), seen)

    async def pings(self):
        """The server's pings come as its settings of this scenario say: one a second."""
        client, seen = await self.connected(max_server_ping_delay=1)
        # Without pings the SDK would have given up after two seconds, and without answers the server.
        await asyncio.sleep(5)
        check((client.state.value, len(seen["connecting"])) == ("connected", 1), seen)

    async def revoked(self):
        clients = []
        link = await Link.to(self.address)
        for user, way in (("alice", self.address), ("alice", self.address), ("bob", link.address)):

            async def get_token(user=user):
                return self.token(user)

            options = {"token": self.token(user), "get_token": get_token}
            client, seen = await self.fleet.connected(way, **options)
            await subscribed(client, self.task.get("channel", "room:revoked"), recoverable=True)
            clients.append((client, seen))
        await ask("revoke alice:")
        for _, seen in clients[:2]:
            [end] = await until("the disconnection", lambda seen=seen: seen["disconnected"])
            check((end.code, end.reason) == (3503, "revoked"), end)
        await ask("count:")
        # Bob comes back twice: his shortest two delays are as long as the longest first one of hers.
        _, bob = clients[2]
        for times in (2, 3):
            link.cut()
            await until("Bob to be back", lambda times=times: len(bob["connected"]) == times)
        await ask("count again:")
        for client, seen in clients[:2]:
            counts = len(seen["connected"]), len(seen["connecting"])
            check((client.state.value, *counts) == ("disconnected", 1, 1), seen)
        check(clients[2][0].state.value == "connected", clients[2][1])
        first, seen = clients[0]
        await first.connect()
        await until("the refusal", lambda: len(seen["disconnected"]) > 1)
        check((seen["disconnected"][1].code, len(seen["connected"])) == (3503, 1), seen)

    async def state_invalidated(self):
        """The server lost its data and trusts no older token."""
        asked = []

        async def get_token():
            asked.append(1)
            return self.token()

        client, connection = await self.connected(get_token=get_token)
        sub, seen = await subscribed(client, self.name("room"), recoverable=True)
        await within(sub.publish(self.fleet.payload({"n": 1})))
        await until("the publication", lambda: seen["publication"])
        await ask("lose the data:")
        await until("a new subscription", lambda: len(seen["subscribed"]) > 1)
        again = connection["connecting"][1]
        check((again.code, again.reason) == (3014, "state invalidated"), again)
        check(asked and not connection["disconnected"], connection)
        again = seen["subscribed"][1]
        check((again.was_recovering, again.recovered) == (True, False), again)
        await within(sub.publish(self.fleet.payload({"n": 2})))
        await until("the next publication", lambda: len(seen["publication"]) > 1)
        check(self.numbers(seen) == [1, 2], seen)

    async def failover(self):
        """The node that `address` leads to goes away, and another is there instead. `publisher` stays."""
        channel = self.task.get("channel", self.name("room"))
        publisher, _ = await self.elsewhere()
        client, connection = await self.connected()
        _, seen = await subscribed(client, channel, recoverable=True)
        n = 0

        async def publish():
            nonlocal n
            n += 1
            await self.publish(publisher, channel, {"n": n})

        for _ in range(20):
            await publish()
        await until("the first messages", lambda: len(seen["publication"]) >= n)
        await ask("end the node:")
        deadline = in_seconds(20)
        while len(seen["subscribed"]) < 2:
            check(in_seconds(0) < deadline, f"no second connection: {dict(connection)}")
            await publish()
            await asyncio.sleep(0.01)
        for _ in range(20):
            await publish()
        await until("all messages", lambda: len(seen["publication"]) >= n)
        check(seen["subscribed"][1].recovered, seen["subscribed"])
        self.check_whole(seen, n)


async def main(scenarios, **task):
    all_of_them = Scenarios(**task)
    failed = 0
    for name in scenarios:
        try:
            await getattr(all_of_them, {"publish": "publishing"}.get(name, name))()
            done(name)
        except Exception:
            print(f"{name} fails:", file=sys.stderr)
            traceback.print_exc()
            failed += 1
        await all_of_them.fleet.end()
    sys.stdout.flush()
    # Links that are open and a thread that waits for an answer end with the process.
    os._exit(1 if failed else 0)


asyncio.run(main(**json.loads(sys.argv[1])))
