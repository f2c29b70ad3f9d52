// The Centrifuge SDK as a pane's client: the SDK's file, and the wire. The log shows its events
// with a dot, and its frames with arrows.

const MOST_RECONNECT_MS = 2000;
const SDK_ENDPOINT = new URL(config.centrifuge, location.href.replace(/^http/, 'ws')).href;

let isSdkAsked = false;

// The SDK is loaded only after the tab is opened.
function loadSdk() {
  const { address, integrity } = config.sdk;
  const failed = (why) => {
    isSdkAsked = false;
    at(document, 'sdk-failure').textContent = `${why} Download the npm package centrifuge, and start with: curfew dev --centrifuge-sdk node_modules/centrifuge/dist/centrifuge.js`;
    at(document, 'sdk-failure').hidden = false;
  };
  if (isSdkAsked) return;
  isSdkAsked = true;
  at(document, 'sdk-failure').hidden = true;
  const script = document.createElement('script');
  script.nonce = nonce;
  script.src = address;
  if (integrity) {
    script.integrity = integrity;
    script.crossOrigin = 'anonymous';
    script.referrerPolicy = 'no-referrer';
  }
  script.onerror = () => failed(`The SDK cannot be loaded from ${address}: there is no network, or the file is not the published one. Open the tab again to try again.`);
  script.onload = () => {
    if (typeof globalThis.Centrifuge !== 'function') return failed(`The file at ${address} is not the SDK: it defines no Centrifuge.`);
    return firstPanes(SdkWire);
  };
  document.head.append(script);
}

class SdkWire {
  static prefix = 'sdk-';
  static label = 'the Centrifuge SDK';
  static panel = 'centrifuge';
  static hash = '#sdk';

  constructor(pane) {
    this.pane = pane;
    const client = new Centrifuge(SDK_ENDPOINT, {
      getToken: () => this.token(),
      websocket: lineOf(pane),
      maxReconnectDelay: MOST_RECONNECT_MS,
    });
    client.on('connecting', ({ code, reason }) => {
      this.event('local', `connecting ${code} ${reason}`);
      if (code) pane.lostLine(`${code} ${reason}`);
    });
    client.on('connected', ({ client: session }) => {
      this.event('good', `connected ${session}`);
      pane.opened(session);
    });
    client.on('disconnected', ({ code, reason }) => {
      this.event(code ? 'bad' : 'local', `disconnected ${code} ${reason}`);
      const isTerminal = (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);
      pane.ended({ code, reason, advice: isTerminal ? 'Terminal: the SDK does not come back by itself.' : '' });
    });
    client.on('error', ({ error }) => this.event('bad', `error ${error.code} ${error.message}`));
    this.client = client;
  }

  event(tone, text, label) { this.pane.log(tone, '·', text, undefined, label); }

  async token() {
    try {
      return await this.pane.token();
    } catch (problem) {
      // An SDK that got this error while it is open would disconnect before its token expires.
      throw problem instanceof NoToken && !this.pane.isOpen ? new Centrifuge.UnauthorizedError(problem.message) : problem;
    }
  }

  connect() { this.client.connect(); }
  close() { this.client.disconnect(); }
  unsubscribe(channel) { this.client.removeSubscription(this.client.getSubscription(channel)); }
  publish(channel, data) { return this.client.publish(channel, data); }

  async presence(channel) {
    const { clients } = await this.client.presence(channel);
    return Object.values(clients).map(({ user }) => user);
  }

  subscribe(channel, since) {
    const { pane } = this;
    const subscription = this.client.newSubscription(channel, { recoverable: true, joinLeave: true, since: since && { ...since } });
    subscription.on('subscribed', ({ wasRecovering, recovered, streamPosition }) => {
      this.event('good', `subscribed ${channel}`);
      if (!wasRecovering) return pane.joined(channel, { ...streamPosition });
      // The SDK delivers missed messages before it returns from this event, and does not say how
      // many there are.
      pane.joined(channel, { ...streamPosition, recovered, ...(recovered && { offset: Infinity }) });
      return queueMicrotask(() => pane.recovered(channel));
    });
    subscription.on('unsubscribed', ({ code, reason }) => {
      this.event('local', `unsubscribed ${channel} ${code} ${reason}`);
      if (!code) return;
      this.client.removeSubscription(subscription);
      pane.unsubscribed(channel, `${code} ${reason}`);
    });
    subscription.on('publication', ({ data, offset, info }) => {
      const isRecovered = pane.received(channel, { data, offset, from: info?.user });
      const from = info ? ` from ${info.user}` : '';
      this.event('news', `publication ${channel} ${JSON.stringify(data)}${from}, offset ${offset}`, isRecovered && 'recovered');
    });
    for (const event of ['join', 'leave']) {
      subscription.on(event, ({ info }) => this.event('local', `${event} ${channel} ${info.user}`));
    }
    subscription.on('error', ({ error }) => this.event('bad', `error ${channel} ${error.code} ${error.message}`));
    subscription.subscribe();
  }
}
