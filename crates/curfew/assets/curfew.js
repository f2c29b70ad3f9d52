// Curfew's own client, which the node serves, as a pane's client.

import { Curfew } from '/client.js';

const ENDPOINT = new URL(config.ws, location.href.replace(/^http/, 'ws')).href;

class CurfewWire {
  static prefix = '';
  static label = 'Curfew’s own client';
  static panel = 'curfew';
  static hash = '';

  constructor(pane) {
    this.pane = pane;
    this.rooms = new Map();
    const client = new Curfew(ENDPOINT, { token: () => pane.token(), WebSocket: lineOf(pane) });
    client.on('open', () => pane.opened(client.session));
    client.on('close', (event) => this.closed(event));
    client.on('error', (error) => pane.refused(error));
    this.client = client;
  }

  closed({ code, reason, message, reconnect }) {
    if (this.isEnded) return;
    const mayReturn = this.pane.mayReturn;
    if (reconnect && mayReturn) { this.pane.lostLine(`${code} ${reason}`); return; }
    this.isEnded = true;
    this.client.close();
    const advice = code === 1000 ? '' : code === 4403 ? 'Reconnect only after the user has signed in again.' : mayReturn ? 'Reconnecting unchanged ends the same way.' : 'The client has no new token to come back with.';
    this.pane.ended({ code, reason, message, advice });
  }

  connect() { this.client.connect(); }
  close() { this.client.close(); }
  publish(channel, data) { return this.client.publish(channel, data); }

  unsubscribe(channel) {
    this.rooms.get(channel).unsubscribe();
    this.rooms.delete(channel);
  }

  async presence(channel) {
    const { sessions } = await this.client.presence(channel);
    return sessions.map(({ user }) => user);
  }

  subscribe(channel, since) {
    const { pane } = this;
    this.rooms.set(channel, this.client.subscribe(channel, {
      since: since && { ...since },
      subscribed: (frame) => pane.joined(channel, frame),
      message: (frame) => pane.received(channel, frame),
      gap: (frame) => pane.lost(channel, frame),
      error: ({ code, message }) => pane.unsubscribed(channel, `${code}: ${message}`),
    }));
  }
}
