// Curfew, or any server of the Centrifuge protocol, as the published JavaScript SDK meets it.
//
// Takes one argument, a JSON object: `address` (host:port), `secret` of HS256 tokens, `format` (json, protobuf),
// `transport` (websocket, http_stream, sse), `scenarios`, and perhaps `publisher`, the address of another node, to which
// half of the clients connect, and `commands`, the address of a node that takes all commands of streamed answers. Prints a line for every scenario that went as it should; says what is wrong with the others, and fails.
// After a line that ends in a colon it waits for a line that says that it is done.
//
// Channels: `room:` keeps 1,000 messages, has presence, joins and deltas; `small:` keeps 2 messages; `plain:` has nothing;
// `closed:` nobody may subscribe to.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';

import {
  Fleet, Link, ask, done, frames, inSeconds, mint, pause, refusal, subscribed, subscription, until, within,
} from './centrifuge_support.mjs';

const task = { format: 'json', transport: 'websocket', ...JSON.parse(process.argv[2]) };
const { address, secret } = task;
const fleet = new Fleet(task);

/** For so long after its end the server takes a token. */
const LEEWAY_S = task.leeway ?? 5;

const token = (claims) => mint(secret, { sub: 'alice', ...claims });
const name = (prefix) => `${prefix}:${randomUUID()}`;
const connected = (options) => fleet.connected(address, { token: token(), ...options });
const elsewhere = (options) => fleet.connected(task.publisher ?? address, { token: token({ sub: 'bob' }), ...options });
const texts = (seen) => seen.publication.map(({ data }) => fleet.json(data));

/** One to `count`, each once and in order. */
function assertWhole(seen, count) {
  const numbers = texts(seen).map(({ n }) => n);
  assert.deepEqual(numbers, Array.from({ length: count }, (_, at) => at + 1));
  const offsets = seen.publication.map(({ offset }) => offset);
  assert.deepEqual(offsets, offsets.map((_, at) => offsets[0] + at), 'offsets without a gap');
}

/** A subscription with deltas has the same messages as one without, also across recoveries. */
async function deltas(phrase, words) {
  const channel = name('room');
  const link = await Link.to(address);
  const { client: publisher } = await elsewhere();
  const { client: away, seen: connection } = await fleet.connected(link.address, { token: token() });
  const { sub, seen } = await subscribed(away, channel, { delta: 'fossil', recoverable: true });
  const { seen: plain } = await subscribed(publisher, channel);
  const long = phrase.repeat(8);
  const sent = [];
  const publish = async () => {
    const n = sent.length + 1;
    sent.push({ n, text: long, word: words[n % 4], temperature: 20 + n / 10 });
    await within('a publish', publisher.publish(channel, fleet.payload(sent.at(-1))));
  };
  for (let i = 0; i < 8; i += 1) await publish();
  await until('the messages', () => seen.publication.length >= sent.length);
  const { numDeltaPayloads } = sub.deltaStats();
  assert.ok(numDeltaPayloads >= 6, `${numDeltaPayloads} of 8 came as a patch`);

  // Recovered ones as well, and the first after a recovery without any.
  for (const missed of [3, 0]) {
    const before = [connection.connecting.length, seen.subscribed.length];
    link.close();
    await until('the connection to be lost', () => connection.connecting.length > before[0]);
    for (let i = 0; i < missed; i += 1) await publish();
    link.open();
    await until('a new subscription', () => seen.subscribed.length > before[1]);
    await publish();
    await publish();
    await until('the messages', () => seen.publication.length >= sent.length);
  }
  assert.deepEqual(texts(seen), sent);
  await until('the messages', () => plain.publication.length >= sent.length);
  assert.deepEqual(texts(plain), sent);
  assert.ok(sub.deltaStats().numDeltaPayloads > numDeltaPayloads);
  link.end();
}

/** What a token subscribes its session to comes by itself, and again after a cut. */
async function serverSide(channel, claims) {
  const link = await Link.to(address);
  const { client, seen } = fleet.client(link.address, { token: token(claims) });
  client.connect();
  await within('a connection', client.ready());
  await until('the subscription', () => seen.subscribed.length > 0);
  assert.deepEqual(seen.subscribed.map((each) => each.channel), [channel]);

  const { client: publisher } = await elsewhere();
  const publish = (n) => within('a publish', publisher.publish(channel, fleet.payload({ n })));
  await publish(1);
  await until('the publication', () => seen.publication.length > 0);
  link.close();
  await until('the connection to be lost', () => seen.connecting.length > 1);
  await publish(2);
  link.open();
  await until('the missed publication', () => seen.publication.length > 1);
  assert.deepEqual(texts(seen), [{ n: 1 }, { n: 2 }]);
  assert.ok(seen.publication.every((each) => each.channel === channel));
  assert.ok(seen.subscribed[1].recovered);

  // The channel is taken.
  const { sub, seen: twice } = subscription(client, channel);
  sub.subscribe();
  await until('a refusal', () => twice.unsubscribed.length > 0);
  assert.equal(twice.unsubscribed[0].code, 105);
  client.disconnect();
  link.end();
}

const scenarios = {
  async connect() {
    const { client, seen } = await connected({ data: fleet.payload({ from: 'a test' }) });
    assert.match(seen.connected[0].client, /^[0-9a-f-]{36}$/);
    assert.equal(seen.connected[0].transport, task.transport);
    client.disconnect();
    await until('the disconnection', () => seen.disconnected.length > 0);
    assert.deepEqual(seen.disconnected.map(({ code }) => code), [0]);
    client.connect();
    await within('another connection', client.ready());
    assert.notEqual(seen.connected[0].client, seen.connected[1].client);
  },

  async refused_token() {
    const { client, seen } = fleet.client(address, { token: mint('another secret of thirty-two bytes', { sub: 'alice' }) });
    client.connect();
    await until('the disconnection', () => seen.disconnected.length > 0);
    assert.deepEqual(seen.disconnected, [{ code: 3500, reason: 'invalid token' }]);
    assert.equal(seen.connected.length, 0);
  },

  async expired_token() {
    let asked = 0;
    const { seen } = await connected({
      token: token({ exp: inSeconds(-60) }),
      getToken: async () => {
        asked += 1;
        return token();
      },
    });
    assert.equal(asked, 1);
    assert.equal(seen.connected.length, 1);
  },

  async refresh() {
    let asked = 0;
    const life = 4;
    const getToken = async () => {
      asked += 1;
      return token({ exp: inSeconds(life) });
    };
    const first = inSeconds(life);
    const { client, seen } = await connected({ token: token({ exp: first }), getToken });
    const { sub } = await subscribed(client, name('room'));
    await until('a session that outlives its first token', () => asked >= 2 && inSeconds(0) > first + LEEWAY_S);
    assert.deepEqual([client.state, seen.connected.length, seen.error], ['connected', 1, []]);
    await within('a publish', sub.publish(fleet.payload({ n: 1 })));
  },

  async subscribe() {
    const { client } = await connected();
    const { sub, seen } = await subscribed(client, name('plain'));
    sub.unsubscribe();
    await until('the end of the subscription', () => seen.unsubscribed.length > 0);
    assert.equal(seen.unsubscribed[0].code, 0);
    sub.subscribe();
    await within('another subscription', sub.ready());
    const { sub: closed, seen: told } = subscription(client, name('closed'));
    closed.subscribe();
    await until('a refusal', () => told.unsubscribed.length > 0);
    assert.equal(told.unsubscribed[0].code, 103);
    assert.equal(client.state, 'connected');
  },

  async publish() {
    const channel = name('room');
    const { client: alice, seen: connection } = await connected();
    const { client: bob } = await elsewhere();
    const { sub, seen } = await subscribed(alice, channel);
    const { seen: heard } = await subscribed(bob, channel);
    const sent = { text: 'é 😀\n"\\', n: 1.5, deep: [[{}], null, true] };
    await within('a publish', sub.publish(fleet.payload(sent)));
    for (const each of [seen, heard]) {
      await until('the publication', () => each.publication.length > 0);
      assert.deepEqual(texts(each), [sent]);
      assert.deepEqual(each.publication[0].info.user, 'alice');
      assert.deepEqual(each.publication[0].info.client, connection.connected[0].client);
      assert.equal(each.publication[0].offset, 1);
    }
    const refused = await refusal(bob.publish(name('closed'), fleet.payload({})));
    assert.equal(refused.code, 103);
  },

  async presence() {
    const channel = name('room');
    const { client: alice } = await connected();
    const { client: bob } = await elsewhere();
    const count = async () => (await within('presence', bob.presenceStats(channel))).numClients;
    for (let round = 0; round < 20; round += 1) {
      const { sub } = await subscribed(alice, channel);
      assert.equal(await count(), 1, `round ${round}`);
      sub.unsubscribe();
      // The next command is sent after the unsubscribe, and on another connection.
      await within('an answer after the unsubscribe', alice.presenceStats(channel));
      // Over the other transports each command is a request of its own, and these may overtake each other.
      if (task.transport === 'websocket') assert.equal(await count(), 0, `round ${round}`);
      else await until('an empty channel', async () => (await count()) === 0);
      alice.removeSubscription(sub);
    }
    await subscribed(alice, channel);
    await subscribed(bob, channel);
    const { clients } = await within('presence', alice.presence(channel));
    assert.deepEqual(Object.values(clients).map(({ user }) => user).sort(), ['alice', 'bob']);
    assert.ok(Object.entries(clients).every(([key, { client }]) => key === client));
    const stats = await within('presence', alice.presenceStats(channel));
    assert.deepEqual([stats.numClients, stats.numUsers], [2, 2]);
    for (const ask of [alice.presence(name('plain')), alice.presenceStats(name('plain'))]) {
      assert.equal((await refusal(ask)).code, 108);
    }
  },

  async join_leave() {
    const channel = name('room');
    const { client: alice } = await connected();
    const { client: bob } = await elsewhere();
    const { seen } = await subscribed(alice, channel, { joinLeave: true });
    await subscribed(bob, channel);
    const users = (events) => events.map(({ info }) => info.user);
    await until('both joins', () => seen.join.length === 2);
    assert.deepEqual(users(seen.join), ['alice', 'bob']);
    bob.disconnect();
    await until('the leave', () => seen.leave.length === 1);
    assert.deepEqual(users(seen.leave), ['bob']);
  },

  async history() {
    const { client } = await connected();
    const channel = name('room');
    const { sub } = await subscribed(client, channel);
    for (let n = 1; n <= 5; n += 1) await within('a publish', sub.publish(fleet.payload({ n })));
    const numbers = async (options) => {
      const page = await within('history', sub.history(options));
      return { ...page, numbers: page.publications.map(({ data }) => fleet.json(data).n) };
    };
    const top = await numbers({ limit: 0 });
    assert.deepEqual([top.offset, top.numbers], [5, []]);
    assert.ok(top.epoch);
    assert.deepEqual((await numbers({ limit: -1 })).numbers, [1, 2, 3, 4, 5]);
    assert.deepEqual((await numbers({ limit: 2 })).numbers, [1, 2]);
    const since = { offset: 2, epoch: top.epoch };
    assert.deepEqual((await numbers({ limit: 2, since })).numbers, [3, 4]);
    assert.deepEqual((await numbers({ limit: 2, reverse: true })).numbers, [5, 4]);
    assert.deepEqual((await numbers({ limit: 9, reverse: true, since: { ...since, offset: 3 } })).numbers, [2, 1]);
    const unknown = await refusal(sub.history({ limit: 1, since: { offset: 2, epoch: 'another' } }));
    assert.equal(unknown.code, 112);
    assert.equal((await refusal(client.history(name('plain'), { limit: 1 }))).code, 108);
  },

  async recovery() {
    const channel = name('room');
    const link = await Link.to(address);
    const { client: publisher } = await elsewhere();
    const { client: away, seen: connection } = await fleet.connected(link.address, { token: token() });
    const { seen } = await subscribed(away, channel, { recoverable: true });
    let n = 0;
    const publish = () => within('a publish', publisher.publish(channel, fleet.payload({ n: (n += 1) })));
    for (let round = 1; round <= 3; round += 1) {
      for (let i = 0; i < 5; i += 1) await publish();
      link.close();
      await until('the connection to be lost', () => connection.connecting.length > round);
      for (let i = 0; i < 5; i += 1) await publish();
      link.open();
      await until('a connection', () => seen.subscribed.length > round);
      const { recovered, wasRecovering, hasRecoveredPublications } = seen.subscribed[round];
      assert.deepEqual([recovered, wasRecovering, hasRecoveredPublications], [true, true, true]);
    }
    await until('all messages', () => seen.publication.length >= n);
    assertWhole(seen, n);
    link.end();
  },

  // Messages come while the recovery is under way: none may be lost, doubled or out of order.
  async recovery_under_load() {
    const channel = name('room');
    const link = await Link.to(address);
    const count = 600;
    const { client: publisher } = await elsewhere();
    const { client: away, seen: connection } = await fleet.connected(link.address, { token: token(), maxReconnectDelay: 20 });
    const { seen } = await subscribed(away, channel, { recoverable: true });
    const publishing = (async () => {
      for (let n = 1; n <= count; n += 1) {
        await within('a publish', publisher.publish(channel, fleet.payload({ n })));
        await pause(1);
      }
    })();
    for (let cut = 1; cut <= 8; cut += 1) {
      link.cut();
      await until('a new subscription', () => seen.subscribed.length > cut && connection.connected.length > cut);
      assert.ok(seen.subscribed[cut].recovered, `recovered after cut ${cut}`);
    }
    await publishing;
    await until('all messages', () => seen.publication.length >= count);
    assertWhole(seen, count);
    link.end();
  },

  async get_state() {
    const channel = name('small');
    const link = await Link.to(address);
    const { client: publisher } = await elsewhere();
    const { client: away, seen: connection } = await fleet.connected(link.address, { token: token() });
    let asked = 0;
    const getState = async () => {
      asked += 1;
      const { offset, epoch } = await within('history', publisher.history(channel, { limit: 0 }));
      return { offset, epoch };
    };
    const publish = (n) => within('a publish', publisher.publish(channel, fleet.payload({ n })));
    await publish(0);
    const { seen } = await subscribed(away, channel, { getState });
    await publish(1);
    await until('the first message', () => texts(seen).some(({ n }) => n === 1));
    assert.equal(asked, 1);

    // Two are kept, so one that missed two recovers.
    const lose = async (from, to) => {
      link.close();
      await until('the connection to be lost', () => connection.connecting.length > connection.connected.length - 1);
      const before = seen.subscribed.length;
      for (let n = from; n <= to; n += 1) await publish(n);
      link.open();
      await until('a new subscription', () => seen.subscribed.length > before);
    };
    await lose(2, 3);
    await until('the missed messages', () => seen.publication.length >= 3);
    assert.deepEqual([texts(seen).map(({ n }) => n), asked], [[1, 2, 3], 1]);

    // One that missed more is told so, loads its state again, and goes on from there.
    await lose(4, 9);
    assert.equal(asked, 2);
    await publish(10);
    await until('the next message', () => texts(seen).some(({ n }) => n === 10));
    assert.deepEqual(texts(seen).map(({ n }) => n), [1, 2, 3, 10]);
    link.end();
  },

  async subscription_token() {
    const channel = name('closed');
    let asked = 0;
    const life = 4;
    const getToken = async ({ channel }) => {
      asked += 1;
      return token({ channel, exp: inSeconds(life), info: { seat: 7 } });
    };
    const { client } = await connected();
    const first = inSeconds(life);
    const { sub, seen } = await subscribed(client, channel, { getToken });
    await until('a subscription that outlives its first token', () => asked >= 3 && inSeconds(0) > first + LEEWAY_S);
    assert.deepEqual([sub.state, seen.subscribed.length, seen.error], ['subscribed', 1, []]);

    // A bad signature ends the subscription, the token of another channel the connection.
    const forged = mint('another secret of thirty-two bytes', { sub: 'alice', channel: name('closed') });
    for (const [wrong, expected] of [[forged, 103], [token({ channel: name('closed') }), 3500]]) {
      const { client, seen } = await connected();
      const { sub, seen: told } = subscription(client, name('closed'), { token: wrong });
      sub.subscribe();
      const [end] = await until('a refusal', () => [told.unsubscribed, seen.disconnected].find(({ length }) => length > 0));
      assert.equal(end.code, expected);
    }
  },

  async batching() {
    const { client } = await connected();
    const channels = Array.from({ length: 5 }, () => name('room'));
    const before = frames.sent.length;
    client.startBatching();
    const subscriptions = channels.map((channel) => subscription(client, channel));
    subscriptions.forEach(({ sub }) => sub.subscribe());
    const asked = channels.map((channel) => client.publish(channel, fleet.payload({ n: 1 })));
    client.stopBatching();
    await within('all answers', Promise.all([...asked, ...subscriptions.map(({ sub }) => sub.ready())]));
    // Over the other transports each command is a request of its own, and these may overtake each other.
    if (task.transport !== 'websocket') return;
    assert.equal(frames.sent.length - before, 1, 'one message for all commands');
    for (const { seen } of subscriptions) await until('the publication', () => seen.publication.length === 1);
  },

  // The first message of the SDK holds `connect` and every `subscribe`.
  async many_at_once() {
    const { client, seen } = fleet.client(address, { token: token() });
    const subscriptions = Array.from({ length: 120 }, () => subscription(client, name('room')));
    subscriptions.forEach(({ sub }) => sub.subscribe());
    client.connect();
    await within('all subscriptions', Promise.all(subscriptions.map(({ sub }) => sub.ready())));
    for (const each of subscriptions) assert.deepEqual([each.seen.subscribed.length, each.seen.error], [1, []]);
    assert.equal(seen.connected.length, 1);
  },

  // A token names channels in one of two ways. Both at once is one too many for Centrifugo, which takes `subs`.
  async server_side() {
    const channel = name('room');
    for (const claims of [{ channels: [channel] }, { subs: { [channel]: {} } }]) await serverSide(channel, claims);
  },

  // Text of one byte a character: servers that cut others in two are tried with the next scenario.
  delta: () => deltas('the kitchen, in which the kettle sings; ', ['tea', 'tee', 'ten', 'zen']),

  // Characters of two bytes change in their second byte only, and in their first.
  delta_characters: () => deltas('кухня, in which the kettle sings и чайник поёт; ', ['чай', 'час', 'шум', 'юла']),

  // None that a server without handlers of its own knows, and one whose answer is an error.
  async commands() {
    const { client, seen } = await connected();
    assert.equal((await refusal(client.rpc('any', fleet.payload({})))).code, 108);
    if (task.format === 'json') {
      const invalid = await refusal(client.publish(name('room'), undefined));
      assert.equal(invalid.code, 107);
    }
    assert.deepEqual([client.state, seen.disconnected.length], ['connected', 0]);
  },

  // Curfew ignores a message to the server; Centrifugo ends the connection.
  async send() {
    const { client, seen } = await connected();
    await within('a send', client.send(fleet.payload({ text: 'nobody asked' })));
    await within('presence', client.presenceStats(name('room')));
    assert.deepEqual([client.state, seen.connected.length], ['connected', 1]);
  },

  // The server's pings come as its settings of this scenario say: one a second.
  async pings() {
    const { client, seen } = await connected({ maxServerPingDelay: 1_000 });
    const empty = (messages) => messages.filter((data) => ['{}', '\0'].includes(Buffer.from(data).toString())).length;
    if (task.transport === 'websocket') {
      await until('pings and their answers', () => empty(frames.received) >= 4 && empty(frames.sent) >= 4);
    } else {
      // Without pings the SDK would have given up after two seconds, and without answers the server.
      await pause(5_000);
    }
    assert.deepEqual([client.state, seen.connected.length], ['connected', 1]);
  },

  async revoked() {
    const clients = [];
    const link = await Link.to(address);
    for (const [user, way] of [['alice', address], ['alice', address], ['bob', link.address]]) {
      const { client, seen } = await fleet.connected(way, { token: token({ sub: user }), getToken: async () => token({ sub: user }) });
      const { seen: channel } = await subscribed(client, task.channel ?? 'room:revoked', { recoverable: true });
      clients.push({ client, seen, channel });
    }
    await ask('revoke alice:');
    const [first, second, bob] = clients;
    for (const { seen } of [first, second]) {
      await until('the disconnection', () => seen.disconnected.length > 0);
      assert.deepEqual(seen.disconnected, [{ code: 3503, reason: 'revoked' }]);
    }
    await ask('count:');
    // Bob comes back twice: his shortest two delays are as long as the longest first one of hers.
    for (const times of [2, 3]) {
      link.cut();
      await until('Bob to be back', () => bob.seen.connected.length === times && bob.client.state === 'connected');
    }
    await ask('count again:');
    for (const { client, seen, channel } of [first, second]) {
      assert.deepEqual([client.state, seen.connected.length, seen.connecting.length], ['disconnected', 1, 1]);
      assert.equal(channel.publication.length, 0);
    }
    assert.equal(bob.client.state, 'connected');
    // She is turned away as well when she asks.
    first.client.connect();
    await until('the refusal', () => first.seen.disconnected.length > 1);
    assert.deepEqual(first.seen.disconnected[1], { code: 3503, reason: 'revoked' });
    assert.equal(first.seen.connected.length, 1);
    link.end();
  },

  // The server lost its data and trusts no older token.
  async state_invalidated() {
    const channel = name('room');
    let asked = 0;
    const getToken = async () => {
      asked += 1;
      return token();
    };
    const { client, seen: connection } = await connected({ getToken });
    const { sub, seen } = await subscribed(client, channel, { recoverable: true });
    await within('a publish', sub.publish(fleet.payload({ n: 1 })));
    await until('the publication', () => seen.publication.length > 0);
    await ask('lose the data:');
    await until('a new subscription', () => seen.subscribed.length > 1);
    assert.deepEqual(connection.connecting[1], { code: 3014, reason: 'state invalidated' });
    assert.ok(asked > 0);
    assert.equal(connection.disconnected.length, 0);
    assert.deepEqual([seen.subscribed[1].wasRecovering, seen.subscribed[1].recovered], [true, false]);
    await within('a publish', sub.publish(fleet.payload({ n: 2 })));
    await until('the next publication', () => seen.publication.length > 1);
    assert.deepEqual(texts(seen), [{ n: 1 }, { n: 2 }]);
  },

  // The node that `address` leads to goes away, and another is there instead. `publisher` stays.
  async failover() {
    const channel = task.channel ?? name('room');
    const { client: publisher } = await elsewhere();
    const { client, seen: connection } = await connected();
    const { seen } = await subscribed(client, channel, { recoverable: true });
    let n = 0;
    const publish = () => within('a publish', publisher.publish(channel, fleet.payload({ n: (n += 1) })));
    for (let i = 0; i < 20; i += 1) await publish();
    await until('the first messages', () => seen.publication.length >= n);
    await ask('end the node:');
    await until('a second connection', async () => {
      await publish();
      return connection.connected.length > 1 && seen.subscribed.length > 1;
    });
    for (let i = 0; i < 20; i += 1) await publish();
    await until('all messages', () => seen.publication.length >= n);
    assert.ok(seen.subscribed[1].recovered);
    assertWhole(seen, n);
  },
};

let failed = 0;
// The SDK throws where nothing can catch it, on a patch that does not fit.
process.on('uncaughtException', (error) => {
  console.error('the SDK fails:', error);
  failed += 1;
});
for (const scenario of task.scenarios ?? Object.keys(scenarios)) {
  try {
    assert.ok(scenarios[scenario], `no scenario ${scenario}`);
    await scenarios[scenario]();
    done(scenario);
  } catch (error) {
    console.error(`${scenario} fails:`, error);
    failed += 1;
  }
  fleet.end();
}
process.exit(failed === 0 ? 0 : 1);
