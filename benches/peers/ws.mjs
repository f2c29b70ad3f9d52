// A bare server on `ws`: node ws.mjs PORT KEY_FILE. Speaks as much of curfew.v1 as curfew-bench needs.
import { WebSocketServer } from 'ws';
import { verifier } from './token.mjs';

const [port, keyFile] = process.argv.slice(2);
const verify = verifier(keyFile);
const channels = new Map();

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: Number(port),
  perMessageDeflate: false,
  handleProtocols: () => 'curfew.v1',
  verifyClient: ({ req }, done) => {
    req.claims = verify(req.headers.authorization);
    done(req.claims !== null, 401);
  },
});

server.on('connection', (socket, request) => {
  const subscribed = new Set();
  socket.on('error', () => {});
  socket.on('message', (bytes) => {
    const command = JSON.parse(bytes);
    if (command.type === 'subscribe') {
      if (!channels.has(command.channel)) channels.set(command.channel, new Set());
      channels.get(command.channel).add(socket);
      subscribed.add(command.channel);
      socket.send(JSON.stringify({ type: 'ok', id: command.id }));
    } else if (command.type === 'publish') {
      const { channel, data } = command;
      const text = JSON.stringify({ type: 'message', channel, data, from: request.claims.sub });
      for (const listener of channels.get(channel) ?? []) listener.send(text);
    }
  });
  socket.on('close', () => {
    for (const channel of subscribed) channels.get(channel).delete(socket);
  });
  socket.send('{"type":"connected"}');
});
