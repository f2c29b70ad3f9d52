"""uWebSockets through socketify: python uwebsockets.py PORT KEY_FILE.

Speaks as much of curfew.v1 as curfew-bench needs. A publication is fanned out by uWebSockets itself.
"""

import base64
import hashlib
import hmac
import json
import sys
import time

from socketify import App, AppListenOptions, CompressOptions, OpCode

PORT, KEY_FILE = int(sys.argv[1]), sys.argv[2]
SECRET = open(KEY_FILE, "rb").read().removesuffix(b"\n")


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verified(authorization):
    try:
        token = authorization.removeprefix("Bearer ")
        signed, signature = token.rsplit(".", 1)
        header, payload = map(json.loads, map(decode, signed.split(".")))
    except (AttributeError, ValueError):
        return None
    good = hmac.new(SECRET, signed.encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(good, decode(signature)) or header["alg"] != "HS256":
        return None
    return payload if payload["exp"] > time.time() else None


def upgrade(response, request, context):
    claims = verified(request.get_header("authorization"))
    if claims is None:
        response.write_status(401).end("")
        return
    key = request.get_header("sec-websocket-key")
    extensions = request.get_header("sec-websocket-extensions")
    response.upgrade(key, "curfew.v1", extensions, context, claims["sub"])


def opened(ws):
    ws.send('{"type":"connected"}', OpCode.TEXT)


def message(ws, text, _opcode):
    command = json.loads(text)
    channel = command["channel"]
    if command["type"] == "subscribe":
        ws.subscribe(channel)
        ws.send(json.dumps({"type": "ok", "id": command["id"]}, separators=(",", ":")), OpCode.TEXT)
    elif command["type"] == "publish":
        told = {"type": "message", "channel": channel, "data": command["data"], "from": ws.get_user_data()}
        app.publish(channel, json.dumps(told, separators=(",", ":")), OpCode.TEXT, False)


app = App()
app.ws(
    "/ws",
    {
        "compression": CompressOptions.DISABLED,
        "max_payload_length": 64 * 1024,
        "max_backpressure": 1024 * 1024,
        "upgrade": upgrade,
        "open": opened,
        "message": message,
    },
)
app.listen(AppListenOptions(port=PORT, host="127.0.0.1"), lambda _config: None)
app.run()
