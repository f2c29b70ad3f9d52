// A program for TypeScript's strict mode: what an application may write, and what it may not.

import { Curfew, type Close, type CurfewError, type Position } from "./client.js";

interface Chat {
  text: string;
}

const kept: Position | null = JSON.parse("null");
const client = new Curfew("wss://rt.example.com/ws", {
  token: async ({ signal }) => {
    const answer = await fetch("/token", { signal });
    return answer.ok ? answer.text() : null;
  },
  minBackoffMs: 100,
  maxBackoffMs: 10_000,
  pingMs: 20_000,
  timeoutMs: 5_000,
});
new Curfew("ws://127.0.0.1:8080/ws");
new Curfew(new URL("ws://127.0.0.1:8080/ws"), { token: null, WebSocket });

const off: () => boolean = client.on("state", (state) => {
  const known: "idle" | "connecting" | "open" | "waiting" | "closed" = state;
  console.log(known);
});
client.on("close", ({ code, reason, message, reconnect }: Close) => console.log(code + 1, reason, message, !reconnect));
client.on("open", ({ session, user, expires_at }) => console.log(session, user, expires_at + 1));
client.on("token", ({ expires_at }) => console.log(expires_at + 1));
client.on("error", (error) => console.log(error.message, "code" in error ? error.code : ""));
client.connect();
off();

const room = client.subscribe<Chat>("room:1", {
  since: kept,
  message: ({ data, from, offset }) => console.log(data.text, from?.length, offset),
  gap: ({ channel, epoch }) => console.log(channel, epoch),
  join: ({ session, user }) => console.log(session, user),
  leave: ({ type }) => console.log(type),
  subscribed: ({ recovered }) => console.log(recovered === true),
  error: ({ code, retryAfterMs, trace }: CurfewError) => console.log(code, retryAfterMs, trace),
});

async function talk(): Promise<void> {
  await room.ready;
  const position: Position | undefined = room.position;
  const { offset } = await client.publish("room:1", { text: "hello" }, { key: "a" });
  const { publications } = await client.history<Chat>("room:1", { since: position, limit: 10 });
  await client.history("room:1", { before: offset });
  const { sessions, users } = await client.presence<{ name: string }>("room:1");
  console.log(publications[0]?.data.text, sessions[0]?.info?.name, users, client.state, client.session?.length);
  await room.unsubscribe();
  client.close();
}
void talk();

// @ts-expect-error: there is no such event.
client.on("message", () => {});
// @ts-expect-error: the state is the client's.
client.state = "open";
// @ts-expect-error: a publication's data is of the type that was named.
client.subscribe<Chat>("room:1", { message: ({ data }) => data.txt });
// @ts-expect-error: a key is a text.
void client.publish("room:1", 1, { key: 7 });
// @ts-expect-error: one of the two.
void client.history("room:1", { since: { epoch: "a", offset: 1 }, before: 3 });
// @ts-expect-error: a token is a text or null.
new Curfew("wss://rt.example.com/ws", { token: () => undefined });
