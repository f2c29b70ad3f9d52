// What the scenarios of centrifuge_scenarios.mjs share: the published SDK and what Node lacks for its
// transports, tokens, a link that can be cut, and waits with a deadline.

import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import net from 'node:net';
import { createInterface } from 'node:readline';

// The packages are inside the target directory, not beside this file.
const require = createRequire(`${process.env.CURFEW_CLIENTS}/`);
const WebSocket = require('ws');
const { EventSource } = require('eventsource');
const sdks = {
  json: require('centrifuge').Centrifuge,
  protobuf: require('centrifuge/build/protobuf').Centrifuge,
};

/** Longest wait for anything. */
export const PATIENCE_MS = 20_000;

const LOOK_EVERY_MS = 10;

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** A step that went as it should. */
export const done = (step) => console.log(step);

/** Asks the test for something, and waits until it is done. */
export async function ask(what) {
  done(what);
  const { done: ended } = await within(`an answer to ${what}`, answers.next());
  if (ended) throw new Error(`nobody answers: ${what}`);
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until there is something; fails with what was waited for. */
export async function until(what, look, patience = PATIENCE_MS) {
  const deadline = Date.now() + patience;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await pause(LOOK_EVERY_MS);
  }
}

/** The error that a command is answered with. */
export async function refusal(promise) {
  const answer = await within('a refusal', promise.then((result) => ({ result }), (error) => ({ error })));
  if (!answer.error) throw new Error(`not refused: ${JSON.stringify(answer.result)}`);
  return answer.error;
}

/** A promise that fails when it takes longer than anything may. */
export async function within(what, promise) {
  const { promise: late, stop } = deadline(what);
  return Promise.race([promise, late]).finally(stop);
}

function deadline(what) {
  let timer;
  const promise = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), PATIENCE_MS);
  });
  return { promise, stop: () => clearTimeout(timer) };
}

// Tokens.

const encode = (json) => Buffer.from(JSON.stringify(json)).toString('base64url');

/** An HS256 token with these claims, issued a second ago, for an hour unless they say otherwise. */
export function mint(secret, claims) {
  const now = Math.floor(Date.now() / 1000);
  const signed = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode({ iat: now - 1, exp: now + 3600, ...claims })}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** Seconds since 1970, of a time so far from now. */
export const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds;

// The network.

/** A TCP proxy of the test's own: what the SDK sees when a network fails. */
export class Link {
  #server;
  #target;
  #sockets = new Set();
  #closed = false;

  /** In front of `host:port`. */
  static async to(address) {
    const link = new Link();
    const [host, port] = address.split(':');
    link.#target = { host, port: Number(port) };
    link.#server = net.createServer((client) => link.#carry(client));
    link.#server.listen(0, '127.0.0.1');
    await once(link.#server, 'listening');
    return link;
  }

  get address() {
    return `127.0.0.1:${this.#server.address().port}`;
  }

  #carry(client) {
    if (this.#closed) return client.destroy();
    const server = net.connect(this.#target);
    for (const [from, to] of [[client, server], [server, client]]) {
      this.#sockets.add(from);
      from.pipe(to);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
    }
  }

  /** Connections that are open now. */
  get connections() {
    return this.#sockets.size / 2;
  }

  /** Ends what is open, without a word to either side. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** From now on nothing gets through. */
  close() {
    this.#closed = true;
    this.cut();
  }

  /** From now on everything gets through. */
  open() {
    this.#closed = false;
  }

  end() {
    this.close();
    this.#server.close();
  }
}

// Clients.

/** A WebSocket that remembers what was sent and what came. */
class Recorded extends WebSocket {
  static sent = [];
  static received = [];

  constructor(...options) {
    super(...options);
    this.on('message', (data) => Recorded.received.push(data));
  }

  send(data, ...rest) {
    Recorded.sent.push(data);
    return super.send(data, ...rest);
  }
}

/** WebSocket messages of this process so far. */
export const frames = {
  get sent() {
    return Recorded.sent;
  },
  get received() {
    return Recorded.received;
  },
};

/** Makes clients of one server, in one format, over one transport. */
export class Fleet {
  #clients = [];

  constructor({ format, transport, commands }) {
    this.format = format;
    this.transport = transport;
    this.commands = commands;
  }

  /** A client at an address, and what has happened to it. */
  client(address, options) {
    const scheme = this.transport === 'websocket' ? 'ws' : 'http';
    const endpoint = `${scheme}://${address}/connection/${this.transport}`;
    const client = new sdks[this.format]([{ transport: this.transport, endpoint }], {
      websocket: Recorded,
      eventsource: EventSource,
      fetch,
      readableStream: ReadableStream,
      emulationEndpoint: `http://${this.commands ?? address}/emulation`,
      minReconnectDelay: 20,
      maxReconnectDelay: 200,
      ...options,
    });
    const seen = watch(client, ['connecting', 'connected', 'disconnected', 'error', 'subscribed', 'publication']);
    this.#clients.push(client);
    return { client, seen };
  }

  /** As `client`, connected. */
  async connected(address, options) {
    const made = this.client(address, options);
    made.client.connect();
    await within('a connection', made.client.ready(PATIENCE_MS)).catch((error) => {
      throw new Error(`${error.message}; ${brief(made.seen)}`);
    });
    return made;
  }

  /** A payload in the form that the format's SDK takes. */
  payload(json) {
    return this.format === 'json' ? json : new TextEncoder().encode(JSON.stringify(json));
  }

  /** The JSON of a payload that came. */
  json(data) {
    return this.format === 'json' ? data : JSON.parse(new TextDecoder().decode(data));
  }

  end() {
    for (const client of this.#clients) client.disconnect();
  }
}

/** A subscription of a client, and what has happened to it. */
export function subscription(client, channel, options = {}) {
  const sub = client.newSubscription(channel, {
    minResubscribeDelay: 20,
    maxResubscribeDelay: 200,
    ...options,
  });
  const seen = watch(sub, ['subscribing', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave', 'error']);
  return { sub, seen };
}

/** As `subscription`, subscribed. */
export async function subscribed(client, channel, options) {
  const made = subscription(client, channel, options);
  made.sub.subscribe();
  await within(`a subscription of ${channel}`, made.sub.ready(PATIENCE_MS)).catch((error) => {
    throw new Error(`${error.message}; ${brief(made.seen)}`);
  });
  return made;
}

/** What has happened, as far as it fits on a few lines. */
const brief = (seen) => JSON.stringify(seen).slice(0, 600);

function watch(emitter, events) {
  const seen = Object.fromEntries(events.map((event) => [event, []]));
  for (const event of events) emitter.on(event, (context) => seen[event].push(context));
  return seen;
}
