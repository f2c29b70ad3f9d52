"""Curfew as a program with the public package `websockets` meets it.

Takes one argument, a JSON object with `url`, `token`, `newer_token` and `bad_token`. Prints a line
for every step that went as it should, and fails on the first that does not. At `revoke me` it waits
until somebody revokes the user of the tokens.
"""

import asyncio
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

PATIENCE = 20
NATIVE = "curfew.v1"


def done(step):
    print(step, flush=True)


def check(holds, found):
    if not holds:
        raise AssertionError(found)


async def receive(ws, kind):
    """The next message, which must be of this type, with its text."""
    text = await asyncio.wait_for(ws.recv(), PATIENCE)
    frame = json.loads(text)
    check(frame["type"] == kind, text)
    return frame, text


async def ask(ws, kind, **command):
    await ws.send(json.dumps(command))
    return await receive(ws, kind)


async def closed(ws, code, reason):
    """The last frame, then the close, which both must say why."""
    closing, text = await receive(ws, "closing")
    check((closing["code"], closing["reason"]) == (code, reason), text)
    try:
        check(False, await asyncio.wait_for(ws.recv(), PATIENCE))
    except ConnectionClosed as end:
        check((end.rcvd.code, end.rcvd.reason) == (code, reason), end)


async def refused(url, token, reason, code, name):
    """A token that is refused is told so on an open connection, which then closes."""
    async with connect(url, subprotocols=[NATIVE, f"bearer.{token}"]) as ws:
        failed, text = await receive(ws, "auth_failed")
        check(failed["reason"] == reason, text)
        await closed(ws, code, name)


async def main(url, token, newer_token, bad_token):
    header = {"Authorization": f"Bearer {token}"}
    first = await connect(url, additional_headers=header)
    check(first.subprotocol is None, first.subprotocol)
    connected, text = await receive(first, "connected")
    check(connected["user"] == "alice", text)
    done("token in the header")

    second = await connect(url, subprotocols=[NATIVE, f"bearer.{token}"])
    check(second.subprotocol == NATIVE, second.subprotocol)
    await receive(second, "connected")
    done("token as a subprotocol")

    for ws in (first, second):
        answer, text = await ask(ws, "ok", type="subscribe", id="s", channel="room:1")
        check(answer["id"] == "s", text)
    done("subscribe")

    await first.send('{"type":"publish","channel":"room:1","data":{"b": 1.50, "a":["\\u00e9"]}}')
    for ws in (first, second):
        message, text = await receive(ws, "message")
        check((message["channel"], message["from"]) == ("room:1", "alice"), text)
        check('{"b": 1.50, "a":["\\u00e9"]}' in text, text)
    done("publish and receive")

    answer, text = await ask(second, "error", type="unsubscribe", id=2, channel="room:2")
    check(answer["code"] == "not_subscribed", text)
    await asyncio.wait_for(await second.ping(b"are you there"), PATIENCE)
    await ask(second, "pong", type="ping")
    done("error and ping")

    for ws in (first, second):
        answer, text = await ask(ws, "refreshed", type="refresh", id=3, token=newer_token)
        check(answer["expires_at"] > connected["expires_at"], text)
    done("refresh")

    third = await connect(url, subprotocols=[NATIVE])
    await third.send(json.dumps({"type": "auth", "token": token}))
    await receive(third, "connected")
    await third.close()
    check(third.close_code == 1000, third.close_code)
    done("token in the first message, and a close by the client")

    await refused(url, bad_token, "bad_signature", 4401, "auth_failed")
    done("refused token")

    done("revoke me")
    for ws in (first, second):
        await closed(ws, 4403, "revoked")
    await refused(url, newer_token, "revoked", 4403, "revoked")
    done("revoked")


asyncio.run(main(**json.loads(sys.argv[1])))
