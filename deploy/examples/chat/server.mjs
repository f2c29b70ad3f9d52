// The back end of a chat: it makes tokens, says something itself, and ends a user's access.
// It needs Node 20 and nothing else. From the root of the repository:
//   curfew dev -- node deploy/examples/chat/server.mjs
import { createHmac, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

// `curfew dev` sets these. Elsewhere a key may be in a file, named by CURFEW_ADMIN_KEY_FILE.
function setting(name) {
  const { [name]: value, [`${name}_FILE`]: file } = process.env;
  if (!value && !file) throw new Error(`${name} is not set: start this with curfew dev -- node server.mjs`);
  return value || readFileSync(file, "utf8").trim();
}

const publicUrl = setting("CURFEW_URL"); // for browsers: http://127.0.0.1:8080
const adminUrls = setting("CURFEW_ADMIN_URL").split(","); // for this program alone; one of each node
const adminKey = setting("CURFEW_ADMIN_KEY");
const tokenSecret = setting("CURFEW_TOKEN_SECRET");
const { HOST = "127.0.0.1", PORT = "8000" } = process.env;

const CHANNEL = "room:lobby";
const TOKEN_SECONDS = 300;

// A JWT. The page asks for the next one before this one ends.
function makeToken(user) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const now = Math.floor(Date.now() / 1000);
  const claims = { sub: user, jti: randomUUID(), iat: now, exp: now + TOKEN_SECONDS };
  const unsigned = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${unsigned}.${createHmac("sha256", tokenSecret).update(unsigned).digest("base64url")}`;
}

// A call of the admin API. A node that restarts or is disconnected from Redis leaves it to the next one.
async function curfew(path, body) {
  let failure;
  for (const url of adminUrls) {
    try {
      const answer = await fetch(url + path, {
        method: "POST",
        headers: { authorization: `Bearer ${adminKey}`, "content-type": "application/json" },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(5000),
      });
      if (answer.ok) return await answer.json();
      failure = new Error(`${url}${path}: ${answer.status} ${await answer.text()}`);
      if (answer.status < 500) break;
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

const calls = {
  // Your login comes before this: here every visitor is who they say they are.
  "/token": async ({ user }) => ({ token: makeToken(user) }),
  // The key makes a second try on another node the same publication.
  "/announce": ({ text }) =>
    curfew("/v1/publish", { channel: CHANNEL, data: { text }, key: randomUUID() }),
  // Your rules come before this: here everyone may do it.
  "/revoke": ({ user }) =>
    curfew("/v1/revocations", { kind: "user", value: user, ttl: "1h", reason: "fired" }),
};

async function answer(request) {
  const { method, url } = request;
  if (method === "GET" && url === "/") return readFileSync(new URL("page.html", import.meta.url));
  if (method === "GET" && url === "/config") return { url: publicUrl, channel: CHANNEL };
  // Pages of other sites cannot send JSON here.
  if (!calls[url] || request.headers["content-type"] !== "application/json") return undefined;
  let body = "";
  for await (const chunk of request) body += chunk;
  return calls[url](JSON.parse(body));
}

const server = createServer(async (request, response) => {
  try {
    const content = await answer(request);
    const isPage = Buffer.isBuffer(content);
    response.writeHead(content ? 200 : 404, { "content-type": isPage ? "text/html" : "application/json" });
    response.end(isPage ? content : JSON.stringify(content ?? {}));
  } catch (error) {
    console.error(error);
    response.writeHead(500).end();
  }
});
server.listen(Number(PORT), HOST, () => {
  console.log(`The chat is at http://${HOST}:${server.address().port}/`);
});
