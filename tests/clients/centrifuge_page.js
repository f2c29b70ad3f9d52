// The published SDK in a page: connects by the first of the transports that gets through, listens to a channel, and
// writes down what happens.
//
// The address's fragment is a JSON object: `address` (host:port), `token`, `transports` in order, `channel`.

const task = JSON.parse(decodeURIComponent(location.hash.slice(1)));

function step(text) {
  const line = document.createElement('li');
  line.textContent = text;
  document.getElementById('steps').append(line);
}

const transports = task.transports.map((transport) => {
  const scheme = transport === 'websocket' ? 'ws' : 'http';
  return { transport, endpoint: `${scheme}://${task.address}/connection/${transport}` };
});
const client = new Centrifuge(transports, {
  token: task.token,
  emulationEndpoint: `http://${task.address}/emulation`,
  minReconnectDelay: 20,
  maxReconnectDelay: 200,
});
client.on('connected', ({ transport }) => step(`connected by ${transport}`));
client.on('disconnected', ({ code, reason }) => step(`disconnected ${code} ${reason}`));

const subscription = client.newSubscription(task.channel, { recoverable: true });
subscription.on('subscribed', async ({ wasRecovering, recovered }) => {
  step(wasRecovering ? `subscribed again, recovered ${recovered}` : 'subscribed');
  if (wasRecovering) return;
  const { numClients } = await subscription.presenceStats();
  step(`present ${numClients}`);
  await subscription.publish({ n: 0 });
});
subscription.on('publication', ({ data, offset }) => step(`message ${data.n} at ${offset}`));
subscription.on('unsubscribed', ({ code, reason }) => step(`unsubscribed ${code} ${reason}`));

subscription.subscribe();
client.connect();
