// Socket.IO over WebSockets alone: node socketio.mjs PORT KEY_FILE [REDIS_URL]; with a Redis, by its
// adapter. curfew-bench speaks to it with --dialect socketio.
import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';
import { verifier } from './token.mjs';

const [port, keyFile, redis] = process.argv.slice(2);
const verify = verifier(keyFile);
const http = createServer();
const io = new Server(http, { transports: ['websocket'], perMessageDeflate: false });

if (redis) {
  const publisher = createClient({ url: redis });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  io.adapter(createAdapter(publisher, subscriber));
}

io.use((socket, next) => {
  socket.data.claims = verify(socket.handshake.headers.authorization);
  next(socket.data.claims ? undefined : new Error('refused'));
});

io.on('connection', (socket) => {
  socket.on('subscribe', ({ channel }, done) => {
    socket.join(channel);
    done('ok');
  });
  socket.on('publish', ({ channel, data }) => {
    io.to(channel).emit('message', { channel, data, from: socket.data.claims.sub });
  });
});

http.listen(Number(port), '127.0.0.1');
