// The body of a function that a test runs in a page: Curfew's own client, loaded from a node by its address.
//
// The argument has `node` (host:port) and `token`. What happens is written into `steps`.

const [{ node, token }] = arguments;
window.steps = [];
const step = (text) => steps.push(text);

import(`http://${node}/client.js`).then(async ({ Curfew }) => {
  const client = new Curfew(`ws://${node}/ws`, {
    token: async () => token, minBackoffMs: 20, maxBackoffMs: 200, pingMs: 3_600_000, timeoutMs: 1500,
  });
  client.on('open', ({ user }) => step(`open ${user}`));
  client.on('close', ({ code, reason, reconnect }) => step(`close ${code} ${reason} ${reconnect}`));
  client.on('error', ({ code }) => step(`error ${code}`));
  const room = client.subscribe('room:page', {
    subscribed: ({ recovered }) => step(`subscribed ${recovered}`),
    message: ({ data, offset }) => step(`message ${data.n} at ${offset}`),
    gap: () => step('gap'),
  });
  client.connect();
  await room.ready;
  const { offset } = await client.publish('room:page', { n: 0 }, { key: 'first' });
  step(`published at ${offset}`);
});
