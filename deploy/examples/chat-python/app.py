"""The back end of a chat: it makes tokens, says something itself, and ends a user's access.

It serves the page of ../chat. From the root of the repository:
  python3 -m venv .venv && .venv/bin/pip install -r deploy/examples/chat-python/requirements.txt
  curfew dev -- .venv/bin/python deploy/examples/chat-python/app.py
"""

import os
import time
import uuid
from pathlib import Path

import httpx
import jwt
import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse
from pydantic import BaseModel


def setting(name: str) -> str:
    """`curfew dev` sets these. Elsewhere a key may be in a file, named by CURFEW_ADMIN_KEY_FILE."""
    value, file = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if not value and not file:
        raise SystemExit(f"{name} is not set: start this with curfew dev -- python app.py")
    return value or Path(file).read_text().strip()


PUBLIC_URL = setting("CURFEW_URL")  # for browsers: http://127.0.0.1:8080
ADMIN_URLS = setting("CURFEW_ADMIN_URL").split(",")  # for this program alone; one of each node
ADMIN_KEY = setting("CURFEW_ADMIN_KEY")
TOKEN_SECRET = setting("CURFEW_TOKEN_SECRET")

CHANNEL = "room:lobby"
TOKEN_SECONDS = 300
PAGE = Path(__file__).parent.parent / "chat" / "page.html"

app = FastAPI()
admin = httpx.AsyncClient(headers={"authorization": f"Bearer {ADMIN_KEY}"}, trust_env=False)


class User(BaseModel):
    user: str


class Text(BaseModel):
    text: str


async def curfew(path: str, body: dict) -> dict:
    """A call of the admin API. A node that restarts or is disconnected from Redis leaves it to the next one."""
    failure = None
    for url in ADMIN_URLS:
        try:
            answer = await admin.post(url + path, json=body)
            answer.raise_for_status()
            return answer.json()
        except httpx.HTTPStatusError as error:
            failure = error
            if error.response.status_code < 500:
                break
        except httpx.TransportError as error:
            failure = error
    raise failure


@app.get("/")
def page():
    return FileResponse(PAGE)


@app.get("/config")
def config():
    return {"url": PUBLIC_URL, "channel": CHANNEL}


@app.post("/token")
def token(wish: User):
    """A JWT. Your login comes before this: here every visitor is who they say they are."""
    now = int(time.time())
    claims = {"sub": wish.user, "jti": str(uuid.uuid4()), "iat": now, "exp": now + TOKEN_SECONDS}
    return {"token": jwt.encode(claims, TOKEN_SECRET, algorithm="HS256")}


@app.post("/announce")
async def announce(wish: Text):
    """The key makes a second try on another node the same publication."""
    publication = {"channel": CHANNEL, "data": {"text": wish.text}, "key": str(uuid.uuid4())}
    return await curfew("/v1/publish", publication)


@app.post("/revoke")
async def revoke(wish: User):
    """Your rules come before this: here everyone may do it."""
    revocation = {"kind": "user", "value": wish.user, "ttl": "1h", "reason": "fired"}
    return await curfew("/v1/revocations", revocation)


if __name__ == "__main__":
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8000"))
    print(f"The chat is at http://{host}:{port}/", flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning")
