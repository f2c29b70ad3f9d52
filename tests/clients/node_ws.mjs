// Curfew as a program with the public package `ws` meets it.
//
// Takes one argument, a JSON object with `url`, `token`, `newer_token` and `bad_token`. Prints a line
// for every step that went as it should, and fails on the first that does not. At `revoke me` it waits
// until somebody revokes the user of the tokens.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createRequire } from 'node:module';

// The package lies below the target directory, not beside this file.
const { WebSocket } = createRequire(`${process.env.CURFEW_CLIENTS}/`)('ws');

const PATIENCE_MS = 20_000;
const NATIVE = 'curfew.v1';
const { url, token, newer_token, bad_token } = JSON.parse(process.argv[2]);

const done = (step) => console.log(step);

/** A connection whose messages are waited for one by one. */
class Client {
  #waiting = [];
  #arrived = [];

  constructor(subprotocols, options) {
    this.ws = new WebSocket(url, subprotocols, options);
    this.ws.on('message', (data, isBinary) => this.#arrive({ text: data.toString(), isBinary }));
    this.ws.on('close', (code, reason) => this.#arrive({ code, reason: reason.toString() }));
    this.ws.on('error', (error) => this.#arrive({ error }));
  }

  static async open(subprotocols, options) {
    const client = new Client(subprotocols, options);
    await once(client.ws, 'open', { signal: AbortSignal.timeout(PATIENCE_MS) });
    return client;
  }

  #arrive(what) {
    const waiting = this.#waiting.shift();
    if (waiting) waiting(what);
    else this.#arrived.push(what);
  }

  #next() {
    if (this.#arrived.length > 0) return this.#arrived.shift();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('waited in vain')), PATIENCE_MS);
      this.#waiting.push((what) => {
        clearTimeout(timer);
        resolve(what);
      });
    });
  }

  /** The next message, which must be of this type. */
  async receive(type) {
    const { text, isBinary, ...rest } = await this.#next();
    assert.equal(typeof text, 'string', `no message but ${JSON.stringify(rest)}`);
    assert.equal(isBinary, false);
    const frame = JSON.parse(text);
    assert.equal(frame.type, type, text);
    return { frame, text };
  }

  async ask(type, command) {
    this.ws.send(JSON.stringify(command));
    return this.receive(type);
  }

  /** The last frame, then the close, which both must say why. */
  async closed(code, reason) {
    const { frame } = await this.receive('closing');
    assert.deepEqual([frame.code, frame.reason], [code, reason]);
    assert.deepEqual(await this.#next(), { code, reason });
  }
}

/** A token that is refused is told so on an open connection, which then closes. */
async function refused(token, reason, code, name) {
  const client = await Client.open([NATIVE, `bearer.${token}`]);
  const { frame } = await client.receive('auth_failed');
  assert.equal(frame.reason, reason);
  await client.closed(code, name);
}

const first = await Client.open([], { headers: { Authorization: `Bearer ${token}` } });
assert.equal(first.ws.protocol, '');
const connected = (await first.receive('connected')).frame;
assert.equal(connected.user, 'alice');
done('token in the header');

const second = await Client.open([NATIVE, `bearer.${token}`]);
assert.equal(second.ws.protocol, NATIVE);
await second.receive('connected');
done('token as a subprotocol');

for (const client of [first, second]) {
  const { frame } = await client.ask('ok', { type: 'subscribe', id: 's', channel: 'room:1' });
  assert.equal(frame.id, 's');
}
done('subscribe');

const data = '{"b": 1.50, "a":["\\u00e9"]}';
first.ws.send(`{"type":"publish","channel":"room:1","data":${data}}`);
for (const client of [first, second]) {
  const { frame, text } = await client.receive('message');
  assert.deepEqual([frame.channel, frame.from], ['room:1', 'alice']);
  assert.ok(text.includes(data), text);
}
done('publish and receive');

const answer = await second.ask('error', { type: 'unsubscribe', id: 2, channel: 'room:2' });
assert.equal(answer.frame.code, 'not_subscribed');
const pong = once(second.ws, 'pong', { signal: AbortSignal.timeout(PATIENCE_MS) });
second.ws.ping('are you there');
assert.equal((await pong)[0].toString(), 'are you there');
await second.ask('pong', { type: 'ping' });
done('error and ping');

for (const client of [first, second]) {
  const { frame } = await client.ask('refreshed', { type: 'refresh', id: 3, token: newer_token });
  assert.ok(frame.expires_at > connected.expires_at);
}
done('refresh');

const third = await Client.open([NATIVE]);
await third.ask('connected', { type: 'auth', token });
const end = once(third.ws, 'close', { signal: AbortSignal.timeout(PATIENCE_MS) });
third.ws.close(1000);
assert.equal((await end)[0], 1000);
done('token in the first message, and a close by the client');

await refused(bad_token, 'bad_signature', 4401, 'auth_failed');
done('refused token');

done('revoke me');
for (const client of [first, second]) await client.closed(4403, 'revoked');
await refused(newer_token, 'revoked', 4403, 'revoked');
done('revoked');
