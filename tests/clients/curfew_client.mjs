// Scenarios with Curfew's own client, as the node serves it at /client.js.
//
// The argument is a JSON object: `address` (host:port of a node, or of what is in front of it), `publisher` (where others
// publish; by default the same), `secret` (of tokens), `scenarios`, `native` (true: the platform's WebSocket). The names
// of scenarios are printed once they are lived. A line that ends in a colon asks the test for something.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

import { ask, done, inSeconds, Link, mint, pause, PATIENCE_MS, refusal, until, within } from './centrifuge_support.mjs';

const task = JSON.parse(process.argv[2]);
const require = createRequire(`${process.env.CURFEW_CLIENTS}/`);

// The connections of this program, and what came on them.
const received = [];

/** A WebSocket that remembers when its connection was asked for, and what the server said at its end. */
const recorded = (Base) => class extends Base {
  static made = [];

  constructor(...options) {
    super(...options);
    recordedMade.push(Date.now());
    this.addEventListener('message', ({ data }) => received.push({ at: Date.now(), frame: JSON.parse(data) }));
  }
};
const recordedMade = [];
const WebSocket = recorded(task.native ? globalThis.WebSocket : require('ws'));

const script = await (await fetch(`http://${task.publisher ?? task.address}/client.js`)).text();
const { Curfew } = await import(`data:text/javascript;base64,${Buffer.from(script).toString('base64')}`);

const clients = [];

/** A client of a user, and what has happened to it. */
function make(user, { address = task.address, claims, ...options } = {}) {
  const client = new Curfew(`ws://${address}/ws`, {
    token: () => mint(task.secret, { sub: user, ...claims }),
    minBackoffMs: 5,
    maxBackoffMs: 20,
    timeoutMs: 5000,
    WebSocket,
    ...options,
  });
  const seen = { state: [], open: [], close: [], error: [], token: [] };
  for (const name of Object.keys(seen)) client.on(name, (value) => seen[name].push(value));
  clients.push(client);
  return { client, seen };
}

async function opened(client) {
  if (client.state === 'idle') client.connect();
  await until('an open session', () => client.state === 'open');
}

async function connected(user, options) {
  const made = make(user, options);
  await opened(made.client);
  return made;
}

/** A subscription that has been answered, and what it was told. */
async function subscribed(client, channel, options) {
  const { room, told } = subscription(client, channel, options);
  await within(`a subscription of ${channel}`, room.ready);
  return { room, told };
}

function subscription(client, channel, options = {}) {
  const told = { message: [], gap: [], subscribed: [], error: [] };
  const handlers = Object.fromEntries(Object.entries(told).map(([name, list]) => [name, (frame) => list.push(frame)]));
  return { room: client.subscribe(channel, { ...handlers, ...options }), told };
}

const bodies = (told) => told.message.map(({ data }) => data);

/** A name that no scenario before has used. */
let names = 0;
const fresh = (prefix) => `${prefix}:${(names += 1)}-${process.pid}`;

const publisher = () => connected('bob', { address: task.publisher ?? task.address });

/** A page's events, in a program. */
function page() {
  const target = new EventTarget();
  globalThis.addEventListener = target.addEventListener.bind(target);
  globalThis.removeEventListener = target.removeEventListener.bind(target);
  return {
    send: (name) => target.dispatchEvent(new Event(name)),
    leave() {
      delete globalThis.addEventListener;
      delete globalThis.removeEventListener;
    },
  };
}

const scenarios = {
  async talk() {
    const { client, seen } = make('alice');
    assert.equal(client.state, 'idle');
    assert.equal(client.session, null);
    // It is sent once the connection is open.
    const channel = fresh('room');
    client.connect();
    client.connect();
    const early = client.publish(channel, 'early');
    assert.equal((await within('the early one', early)).offset, 1);
    assert.deepEqual(seen.state, ['connecting', 'open']);
    assert.equal(seen.open[0].user, 'alice');
    assert.equal(client.session, seen.open[0].session);

    const came = [];
    const { room, told } = await subscribed(client, channel, {
      join: (frame) => came.push(frame),
      message: (frame) => came.push({ ...frame, at: room.position }),
    });
    assert.equal(room.position.offset, 1);
    assert.equal(room.channel, channel);
    const data = { text: 'é🌙', list: [1.5, null, { deep: true }] };
    assert.equal((await client.publish(channel, data, { key: 'a' })).offset, 2);
    assert.equal((await client.publish(channel, data, { key: 'a' })).offset, 2);
    await client.publish(channel, null);
    await until('both', () => came.length === 3);
    assert.deepEqual(came.map(({ type, session }) => [type, session]), [
      ['join', client.session], ['message', undefined], ['message', undefined],
    ]);
    assert.deepEqual(came[1].data, data);
    assert.equal(came[1].from, 'alice');
    // A handler finds the place of its own frame.
    assert.deepEqual(came.slice(1).map(({ at }) => at.offset), [2, 3]);

    const { publications, offset } = await client.history(channel, { limit: 2, before: 3 });
    assert.deepEqual([publications.map((each) => each.offset), offset], [[2, 1], 3]);
    const present = await client.presence(channel);
    assert.deepEqual(present.sessions.map(({ session }) => session), [client.session]);
    assert.deepEqual(told.error, []);

    await within('the end of the subscription', room.unsubscribe());
    await within('the same again', room.unsubscribe());
    assert.equal((await client.presence(channel)).users, 0);
    client.close();
    client.close();
    assert.deepEqual(seen.state, ['connecting', 'open', 'closed']);
    assert.deepEqual(seen.close.map(({ code, reconnect }) => [code, reconnect]), [[1000, false]]);
    assert.equal(client.session, null);
    assert.deepEqual(seen.error, []);
  },

  async names() {
    const { client } = await connected('zoë');
    for (const channel of ['room:é🌙', 'room:__proto__', 'room:constructor', 'room:"\\', 'plain:ß']) {
      const { room, told } = await subscribed(client, channel);
      await client.publish(channel, channel);
      await until(`a message in ${channel}`, () => told.message.length);
      assert.deepEqual(bodies(told), [channel]);
      await room.unsubscribe();
    }
    // One that the server has no name for, and one that is no text.
    for (const channel of ['with space', '', '$room', null, 7]) {
      const { room, told } = subscription(client, channel);
      const { code } = await refusal(room.ready);
      assert.ok(['invalid_channel', 'bad_request'].includes(code), code);
      assert.equal(told.error[0].code, code);
    }
  },

  async refusals() {
    const { client, seen } = await connected('alice');
    const { room, told } = subscription(client, 'secret:1');
    const refused = await refusal(room.ready);
    assert.equal(refused.code, 'forbidden');
    assert.ok(refused instanceof Error && refused.message.includes('secret:1'));
    assert.deepEqual(told.error, [refused]);
    // It is over, so that it can be tried again.
    assert.equal((await refusal(subscription(client, 'secret:1').room.ready)).code, 'forbidden');

    const { room: first } = await subscribed(client, 'room:twice');
    assert.throws(() => client.subscribe('room:twice'), { code: 'already_subscribed' });
    await first.unsubscribe();

    assert.equal((await refusal(client.publish('secret:1', 1))).code, 'forbidden');
    assert.equal((await refusal(client.publish('room:1'))).code, 'bad_request');
    assert.equal((await refusal(client.publish('room:1', 1, { kye: 'typo' }))).code, 'bad_request');
    const circle = {};
    circle.circle = circle;
    assert.ok((await refusal(client.publish('room:1', circle))) instanceof TypeError);
    assert.ok((await refusal(client.publish('room:1', 1n))) instanceof TypeError);
    assert.equal((await refusal(client.history('plain:1'))).code, 'not_available');
    assert.equal((await refusal(client.presence('plain:1'))).code, 'not_available');
    assert.equal((await refusal(client.publish('plain:1', 1, { key: 'a' }))).code, 'not_available');
    // The session is not worse for it.
    assert.deepEqual([seen.state, seen.error], [['connecting', 'open'], []]);
    assert.throws(() => new Curfew('ws://'), TypeError);
  },

  async without_stream() {
    const link = await Link.to(task.address);
    const { client, seen } = await connected('alice', { address: link.address });
    const bob = await publisher();
    const channel = fresh('plain');
    const { room, told } = await subscribed(client, channel, { since: { epoch: 'another', offset: 4 } });
    assert.deepEqual([room.position, told.gap.length], [undefined, 1]);
    await bob.client.publish(channel, 1);
    await until('a message', () => told.message.length === 1);
    link.cut();
    await until('the subscription again', () => told.subscribed.length === 2);
    // What was published meanwhile is lost, and the application is told.
    assert.deepEqual(told.gap[1], { type: 'gap', channel, epoch: undefined, offset: undefined });
    await bob.client.publish(channel, 2);
    await until('a message', () => told.message.length === 2);
    assert.deepEqual(bodies(told), [1, 2]);
    assert.deepEqual(seen.close.map(({ code, reconnect }) => [code, reconnect]), [[1006, true]]);
    link.end();
  },

  async since() {
    const bob = await publisher();
    const channel = fresh('room');
    for (let n = 1; n <= 5; n += 1) await bob.client.publish(channel, n);
    const { client } = await connected('alice');
    const { epoch } = await client.history(channel);
    const { room, told } = await subscribed(client, channel, { since: JSON.parse(JSON.stringify({ epoch, offset: 2 })) });
    await until('what came after it', () => told.message.length === 3);
    assert.deepEqual([bodies(told), told.gap], [[3, 4, 5], []]);
    assert.deepEqual(room.position, { epoch, offset: 5 });
    await room.unsubscribe();
    const other = await subscribed(client, channel, { since: { epoch: 'another', offset: 2 } });
    assert.deepEqual(other.told.gap, [{ type: 'gap', channel, epoch, offset: 5 }]);
    assert.equal(other.told.subscribed[0].recovered, false);
    await other.room.unsubscribe();
    const wrong = subscription(client, channel, { since: { epoch: 1, offset: -1 } });
    assert.equal((await refusal(wrong.room.ready)).code, 'bad_request');
  },

  async token_faults() {
    const secret = 'not.a secret.jwt';
    const wrong = [
      () => { throw new Error('thrown'); },
      () => Promise.reject(new Error('rejected')),
      ({ signal }) => new Promise((resolve) => signal.addEventListener('abort', () => asked.push('aborted'))),
      () => undefined,
      () => secret,
      () => mint('another secret of thirty-two bytes or more', { sub: 'alice' }),
      () => mint(task.secret, { sub: 'alice', exp: inSeconds(-60) }),
    ];
    const asked = [];
    const { client, seen } = make('alice', {
      timeoutMs: 600,
      token: (context) => {
        asked.push('asked');
        return wrong.length ? wrong.shift()(context) : mint(task.secret, { sub: 'alice' });
      },
    });
    await opened(client);
    assert.deepEqual(seen.error.map(({ message, code }) => code ?? message), [
      'thrown', 'rejected', 'malformed', 'malformed', 'bad_signature', 'expired',
    ]);
    assert.equal(seen.close.map(({ reason }) => reason).join(), 'not_opened,not_opened,timeout,not_opened,not_opened,auth_failed,auth_failed');
    assert.ok(seen.close.every(({ reconnect }) => reconnect));
    assert.equal(asked.join(), 'asked,asked,asked,aborted,asked,asked,asked,asked,asked');
    assert.ok(!JSON.stringify(seen.error.map(({ message, stack }) => [message, stack])).includes('a secret'));

    // A text is what it is: there is no other.
    const fixed = make('alice', { token: mint(task.secret, { sub: 'alice', exp: inSeconds(-60) }) });
    fixed.client.connect();
    await until('the end', () => fixed.client.state === 'closed');
    assert.deepEqual(fixed.seen.state, ['connecting', 'closed']);
    assert.deepEqual([fixed.seen.close[0].code, fixed.seen.close[0].reconnect], [4401, false]);
    assert.equal(fixed.seen.error[0].code, 'expired');
  },

  async closing() {
    // While the token is fetched, while the connection opens, and by a listener at each step.
    let aborted = false;
    const slow = make('alice', {
      token: ({ signal }) => new Promise(() => signal.addEventListener('abort', () => { aborted = true; })),
    });
    slow.client.connect();
    const unsent = slow.client.publish('room:1', 1);
    slow.client.close();
    assert.equal((await refusal(unsent)).code, 'connection_lost');
    assert.deepEqual([aborted, slow.seen.state], [true, ['connecting', 'closed']]);

    const opening = make('alice', {
      WebSocket: class extends WebSocket {
        constructor(...options) {
          super(...options);
          queueMicrotask(() => opening.client.close());
        }
      },
    });
    opening.client.connect();
    for (const state of ['connecting', 'open', 'waiting']) {
      // Nothing listens at the second address.
      const address = state === 'waiting' ? '127.0.0.1:1' : task.address;
      const { client, seen } = make('alice', { address });
      client.on('state', (now) => now === state && client.close());
      client.connect();
      await until(`the end at ${state}`, () => client.state === 'closed');
      assert.equal(seen.state.at(-1), 'closed');
    }
    await pause(100);
    assert.deepEqual([opening.seen.state, opening.seen.open], [['connecting', 'closed'], []]);
    assert.equal(await refusal(opening.client.publish('room:1', 1, { key: 'k' })).then(({ code }) => code), 'connection_lost');

    // A listener that starts it anew has it again, with its subscriptions.
    const again = await connected('alice');
    const { told } = await subscribed(again.client, fresh('room'));
    const off = again.client.on('close', () => again.client.connect());
    again.client.close();
    await until('the subscription again', () => told.subscribed.length === 2);
    assert.deepEqual(told.gap, []);
    assert.equal(told.subscribed[1].recovered, true);
    assert.equal(off(), true);
    again.client.close();
    assert.equal(again.client.state, 'closed');
  },

  async while_away() {
    const link = await Link.to(task.address);
    const { client, seen } = await connected('alice', { address: link.address });
    const bob = await publisher();
    const channel = fresh('room');
    const left = await subscribed(client, fresh('room'));
    const kept = await subscribed(client, channel);
    link.close();
    await until('the loss', () => client.state !== 'open');
    assert.equal(client.session, null);
    // Without a key it ends with the next attempt, with one it is sent when the way is free.
    assert.equal((await refusal(client.publish(channel, 'lost'))).code, 'connection_lost');
    assert.equal((await refusal(client.history(channel))).code, 'connection_lost');
    const failures = seen.close.length;
    const keyed = client.publish(channel, 'keyed', { key: 'mine' });
    await within('an end without a server', left.room.unsubscribe());
    const late = subscription(client, fresh('room'));
    const never = subscription(client, fresh('room'));
    await never.room.unsubscribe();
    assert.equal((await refusal(never.room.ready)).code, 'unsubscribed');
    await bob.client.publish(channel, 'missed');
    await until('attempts in vain', () => seen.close.length > failures + 1);
    link.open();
    assert.equal((await within('the keyed one', keyed)).offset, 2);
    await within('the late subscription', late.room.ready);
    await until('both', () => kept.told.message.length === 2);
    assert.deepEqual([bodies(kept.told), kept.told.gap], [['missed', 'keyed'], []]);
    assert.equal(left.told.subscribed.length, 1);
    assert.equal((await client.presence(left.room.channel)).users, 0);

    // One subscription right behind another of the same channel.
    const { room, told } = kept;
    for (let n = 0; n < 20; n += 1) void bob.client.publish(channel, n);
    const end = room.unsubscribe();
    const next = subscription(client, channel, { since: room.position });
    await Promise.all([end, next.room.ready]);
    await until('all', () => told.message.length + next.told.message.length === 22);
    const offsets = [...told.message, ...next.told.message].map(({ offset }) => offset);
    assert.deepEqual(offsets, offsets.map((_, at) => at + 1));
    // And unsubscribed before its answer.
    const hasty = subscription(client, fresh('room'));
    await within('its end', hasty.room.unsubscribe());
    assert.deepEqual(hasty.told.subscribed, []);
    link.end();
  },

  async reconnects() {
    const channel = fresh('room');
    const link = await Link.to(task.address);
    const alice = await connected('alice', { address: link.address, maxBackoffMs: 10 });
    const bob = await publisher();
    const { room, told } = await subscribed(alice.client, channel);
    let isOver = false;
    const publish = async ({ client }, by, isKeyed) => {
      let n = 0;
      for (; !isOver; n += 1) {
        await within(`${by}'s publication`, client.publish(channel, [by, n], isKeyed ? { key: `${by}-${n}` } : {}));
        await pause(1);
      }
      return n;
    };
    const publishing = [publish(alice, 'alice', true), publish(bob, 'bob', false)];
    for (let cut = 1; cut <= 100; cut += 1) {
      await until('an open session', () => alice.client.state === 'open');
      // At another moment each time: before the answers, among the messages.
      for (let turn = 0; turn < cut % 7; turn += 1) await new Promise(setImmediate);
      link.cut();
      await until(`loss ${cut}`, () => alice.seen.close.length === cut);
    }
    isOver = true;
    const [byAlice, byBob] = await Promise.all(publishing);
    await until('everything', () => told.message.length >= byAlice + byBob);
    assert.deepEqual(told.message.map(({ offset }) => offset), Array.from({ length: byAlice + byBob }, (_, at) => at + 1));
    for (const [by, count] of [['alice', byAlice], ['bob', byBob]]) {
      const of = bodies(told).filter(([name]) => name === by).map(([, n]) => n);
      assert.deepEqual(of, Array.from({ length: count }, (_, at) => at));
    }
    assert.deepEqual([told.gap, told.error, alice.seen.error], [[], [], []]);
    assert.equal(room.position.offset, byAlice + byBob);
    assert.ok(byAlice > 20 && byBob > 20, `${byAlice} and ${byBob}`);
    link.end();
  },

  async wakes() {
    const world = page();
    const link = await Link.to(task.address);
    const { random } = Math;
    try {
      // Silence counts after an hour only; a page that comes back asks at once.
      const options = { address: link.address, minBackoffMs: 20, maxBackoffMs: 3_600_000, pingMs: 3_600_000, timeoutMs: 1000 };
      const { client, seen } = await connected('alice', options);
      const pongs = () => received.filter(({ frame }) => frame.type === 'pong').length;
      const before = pongs();
      world.send('visibilitychange');
      await until('a pong', () => pongs() === before + 1);
      await pause(1200);
      assert.equal(client.state, 'open');

      // After many failures the next attempt is far away, until the network is back.
      Math.random = () => 0;
      link.close();
      await until('failures', () => seen.close.length > 14);
      Math.random = () => 0.999;
      const failures = seen.close.length;
      await until('a long wait', () => seen.close.length > failures && client.state === 'waiting');
      link.open();
      await pause(100);
      assert.equal(client.state, 'waiting');
      world.send('online');
      await until('an open session', () => client.state === 'open', 2000);
      client.close();
      const made = recordedMade.length;
      world.send('online');
      await pause(50);
      assert.deepEqual([client.state, recordedMade.length], ['closed', made]);
    } finally {
      Math.random = random;
      world.leave();
      link.end();
    }
  },

  async half_open() {
    const alice = await connected('alice', { pingMs: 150, timeoutMs: 600 });
    const { client, seen } = alice;
    const channel = fresh('room');
    const { told } = await subscribed(client, channel);
    const bob = await publisher();
    await bob.client.publish(channel, 1);
    await until('a message', () => told.message.length === 1);
    // It is quiet for longer than that, and stays.
    await pause(900);
    assert.deepEqual(seen.close, []);
    await ask('stall:');
    const from = Date.now();
    const pending = client.publish(channel, 'unanswered');
    const error = await refusal(pending);
    assert.equal(error.code, 'connection_lost');
    assert.ok(Date.now() - from < 10_000, 'late');
    assert.deepEqual(seen.close[0], { code: 1006, reason: 'timeout', message: 'the connection ended', reconnect: true });
    await bob.client.publish(channel, 2);
    await until('attempts in vain', () => seen.close.length >= 3);
    assert.ok(seen.close.every(({ reason }) => reason === 'timeout'));
    await ask('let pass:');
    await until('what was missed', () => bodies(told).includes(2));
    assert.deepEqual(told.gap, []);
  },

  async failover() {
    const { client, seen } = await connected('alice', { minBackoffMs: 10, maxBackoffMs: 100 });
    const bob = await publisher();
    const channel = fresh('room');
    const { told } = await subscribed(client, channel);
    let isOver = false;
    const publishing = (async () => {
      let n = 0;
      for (; !isOver; n += 1) {
        await bob.client.publish(channel, n);
        await pause(2);
      }
      return n;
    })();
    await until('messages', () => told.message.length > 10);
    await ask('end the node:');
    await until('a new session', () => seen.open.length === 2);
    const { length } = told.message;
    await until('more messages', () => told.message.length > length + 10);
    isOver = true;
    const count = await publishing;
    await until('all', () => told.message.length >= count);
    assert.deepEqual(bodies(told), Array.from({ length: count }, (_, n) => n));
    assert.deepEqual([told.gap, told.error], [[], []]);
    // Not sooner than the server asks for.
    const closing = received.find(({ frame }) => frame.type === 'closing');
    if (closing) {
      const back = recordedMade.find((at) => at >= closing.at);
      assert.equal(seen.close[0].code, 1012);
      assert.ok(back - closing.at >= closing.frame.retry_after_ms - 1, `${back - closing.at} ms`);
    }
    assert.equal(Boolean(closing), task.drains);
  },

  async restart() {
    const { client, seen } = await connected('alice');
    const channel = fresh('room');
    const { room, told } = await subscribed(client, channel);
    await client.publish(channel, 1);
    await until('a message', () => told.message.length === 1);
    const { epoch } = room.position;
    await ask('restart the node:');
    await until('the subscription again', () => told.subscribed.length === 2);
    // Its streams ended with the process.
    assert.deepEqual(told.gap, [{ type: 'gap', channel, epoch: room.position.epoch, offset: 0 }]);
    assert.notEqual(room.position.epoch, epoch);
    assert.equal((await client.publish(channel, 2)).offset, 1);
    await until('a message', () => told.message.length === 2);
    assert.ok(seen.close.every(({ reconnect }) => reconnect));
  },

  async revoked() {
    const { client, seen } = await connected('alice');
    const { room } = await subscribed(client, 'room:1');
    const unsent = client.publish('room:1', 1, { key: 'k' });
    await within('an answer', unsent);
    await ask('revoke alice:');
    await until('the end', () => client.state === 'closed');
    assert.deepEqual(seen.close.map(({ code, reason, reconnect }) => [code, reason, reconnect]), [[4403, 'revoked', false]]);
    assert.equal(room.position.offset, 1);
    // Nothing brings it back but the application, which is told again.
    const made = recordedMade.length;
    await pause(200);
    assert.equal(recordedMade.length, made);
    assert.equal((await refusal(client.publish('room:1', 1))).code, 'connection_lost');
    client.connect();
    await until('the end again', () => client.state === 'closed');
    assert.deepEqual([seen.close.length, seen.close[1].code, seen.error[0].code], [2, 4403, 'revoked']);
  },

  // The server tells nobody beforehand, and allows no leeway.
  async expires() {
    const exp = () => inSeconds(2);
    const fixed = await connected('alice', { token: mint(task.secret, { sub: 'alice', exp: exp() }) });
    let asked = 0;
    const renewing = await connected('alice', {
      token: async () => {
        asked += 1;
        return mint(task.secret, { sub: 'alice', exp: asked === 1 ? exp() : inSeconds(600) });
      },
    });
    const { told } = await subscribed(renewing.client, fresh('room'));
    await until('both ends', () => fixed.client.state === 'closed' && renewing.seen.open.length === 2);
    assert.deepEqual(fixed.seen.close.map(({ code, reconnect }) => [code, reconnect]), [[4410, false]]);
    assert.deepEqual(renewing.seen.close.map(({ code, reconnect }) => [code, reconnect]), [[4410, true]]);
    await until('the subscription again', () => told.subscribed.length === 2);
    assert.deepEqual([asked, told.gap], [2, []]);
  },

  // The server tells two seconds beforehand.
  async renews() {
    let asked = 0;
    const { client, seen } = await connected('alice', {
      token: async () => {
        asked += 1;
        if (asked === 2) throw new Error('the login server is away');
        return mint(task.secret, { sub: 'alice', exp: inSeconds(asked < 4 ? 3 : 600) });
      },
    });
    // Each token lives for less than the notice, so that each is told to expire at once.
    let short = 0;
    const hasty = await connected('bob', {
      minBackoffMs: 40,
      maxBackoffMs: 1000,
      token: async () => {
        short += 1;
        return mint(task.secret, { sub: 'bob', exp: inSeconds(2) });
      },
    });
    const { session } = client;
    const { told } = await subscribed(client, fresh('room'));
    await until('two new tokens', () => seen.token.length === 2);
    await pause(1500);
    assert.equal(client.session, session);
    assert.deepEqual([seen.error.map(({ message }) => message), seen.close, told.subscribed.length], [['the login server is away'], [], 1]);
    assert.ok(short > 2 && short < 60, `${short} tokens`);
    assert.equal(hasty.seen.close.length, 0);
  },

  async sleeps() {
    const { client, seen } = await connected('alice', { pingMs: 200, timeoutMs: 3000 });
    const { told } = await subscribed(client, 'room:sleep');
    await client.publish('room:sleep', 1);
    await until('a message', () => told.message.length === 1);
    await ask('put to sleep:');
    await until('what was missed', () => told.message.length === 3);
    assert.deepEqual([bodies(told), told.gap], [[1, 2, 3], []]);
    assert.equal(seen.open.length, 2);
  },

  async anonymous() {
    const { client, seen } = await connected('', { token: null });
    assert.equal(seen.open[0].user, '');
    const { told } = await subscribed(client, 'room:lobby');
    await client.publish('room:lobby', 1);
    await until('a message', () => told.message.length === 1);
    // It cannot be renewed, and comes back by itself.
    await until('a second session', () => seen.open.length === 2);
    assert.deepEqual(seen.close.map(({ code, reconnect }) => [code, reconnect]), [[4410, true]]);
    assert.deepEqual([seen.error, told.gap], [[], []]);
    const member = await connected('alice');
    assert.equal(member.seen.open[0].user, 'alice');
  },
};

for (const name of task.scenarios) {
  await Promise.race([
    scenarios[name](),
    new Promise((_, reject) => { setTimeout(() => reject(new Error(`${name} does not end`)), 3 * PATIENCE_MS).unref(); }),
  ]);
  while (clients.length) clients.pop().close();
  done(name);
}
process.exit();
