"""What the scenarios of centrifuge_scenarios.py share: tokens, a link that can be cut, clients that note what
happens to them, and waits with a deadline.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time
from collections import defaultdict

from centrifuge import Client, ClientEventHandler, ReplyError, SubscriptionEventHandler

PATIENCE = 20
"""Longest wait for anything, in seconds."""

LOOK_EVERY = 0.01


def done(step):
    print(step, flush=True)


async def ask(what):
    """Asks the test for something, and waits until it is done."""
    done(what)
    answer = await within(asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline))
    check(answer, f"nobody answers: {what}")


def check(holds, found=None):
    if not holds:
        raise AssertionError(found)


async def until(what, look):
    """Waits until there is something; fails with what was waited for."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        check(time.monotonic() < deadline, f"waited in vain for {what}")
        await asyncio.sleep(LOOK_EVERY)
    return found


async def within(coroutine):
    """Fails when it takes longer than anything may."""
    return await asyncio.wait_for(coroutine, PATIENCE)


async def refusal(coroutine):
    """The code of the error that a command is answered with."""
    try:
        answer = await within(coroutine)
    except ReplyError as error:
        return error.code
    raise AssertionError(f"not refused: {answer}")


def in_seconds(seconds):
    """Seconds since 1970, of a time so far from now."""
    return int(time.time()) + seconds


def mint(secret, **claims):
    """An HS256 token with these claims, issued a second ago, for an hour unless they say otherwise."""
    claims = {"iat": in_seconds(-1), "exp": in_seconds(3600), **claims}

    def encode(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    parts = [encode(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signature = hmac.new(secret.encode(), b".".join(parts), hashlib.sha256).digest()
    return b".".join([*parts, encode(signature)]).decode()


class Link:
    """A TCP proxy of the test's own: what the SDK sees when a network fails."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self._target = (host, int(port))
        self._writers = set()
        self._closed = False

    @classmethod
    async def to(cls, address):
        link = cls(address)
        link._server = await asyncio.start_server(link._carry, "127.0.0.1", 0)
        host, port = link._server.sockets[0].getsockname()
        link.address = f"{host}:{port}"
        return link

    async def _carry(self, reader, writer):
        if self._closed:
            writer.transport.abort()
            return
        from_server, to_server = await asyncio.open_connection(*self._target)
        both = {writer, to_server}
        self._writers |= both
        ways = [self._pump(reader, to_server), self._pump(from_server, writer)]
        await asyncio.gather(*ways, return_exceptions=True)
        self._writers -= both

    @staticmethod
    async def _pump(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    def cut(self):
        """Ends what is open, without a word to either side."""
        for writer in list(self._writers):
            writer.transport.abort()

    def close(self):
        """From now on nothing gets through."""
        self._closed = True
        self.cut()

    def open(self):
        """From now on everything gets through."""
        self._closed = False


CLIENT_EVENTS = ("connecting", "connected", "disconnected", "error", "subscribed", "publication", "join")
SUBSCRIPTION_EVENTS = ("subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error")


def noting(events, names):
    """The handler, which notes the contexts of these events, and the notes."""
    seen = defaultdict(list)
    for name in names:

        async def on_event(context, name=name):
            seen[name].append(context)

        setattr(events, f"on_{name}", on_event)
    return events, seen


class Fleet:
    """Makes clients of one format."""

    def __init__(self, is_protobuf):
        self._is_protobuf = is_protobuf
        self._clients = []

    def client(self, address, **options):
        """A client at an address, and what has happened to it."""
        events, seen = noting(ClientEventHandler(), CLIENT_EVENTS)
        options = {"min_reconnect_delay": 0.02, "max_reconnect_delay": 0.2, **options}
        client = Client(
            f"ws://{address}/connection/websocket",
            events=events,
            use_protobuf=self._is_protobuf,
            proxy=None,
            **options,
        )
        self._clients.append(client)
        return client, seen

    async def connected(self, address, **options):
        """As `client`, connected."""
        client, seen = self.client(address, **options)
        await client.connect()
        try:
            await client.ready(PATIENCE)
        except Exception as error:
            raise AssertionError(f"no connection: {error!r}; {dict(seen)}") from error
        return client, seen

    def payload(self, value):
        """A payload in the form that the format's client takes."""
        return json.dumps(value).encode() if self._is_protobuf else value

    def value(self, payload):
        return json.loads(payload) if self._is_protobuf else payload

    async def end(self):
        for client in self._clients:
            await client.disconnect()
        self._clients.clear()


def subscription(client, channel, **options):
    """A subscription of a client, and what has happened to it."""
    events, seen = noting(SubscriptionEventHandler(), SUBSCRIPTION_EVENTS)
    options = {"min_resubscribe_delay": 0.02, "max_resubscribe_delay": 0.2, **options}
    return client.new_subscription(channel, events=events, **options), seen


async def subscribed(client, channel, **options):
    """As `subscription`, subscribed."""
    sub, seen = subscription(client, channel, **options)
    await sub.subscribe()
    try:
        await sub.ready(PATIENCE)
    except Exception as error:
        raise AssertionError(f"no subscription: {error!r}; {dict(seen)}") from error
    return sub, seen
