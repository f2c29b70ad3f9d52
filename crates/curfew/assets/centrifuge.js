    'use strict';
    // The tab of the Centrifuge SDK: the tab itself, the SDK's file, one pane. Events of the SDK are in the
    // log as lines with a dot, its frames with arrows.

    const SDK_TOKEN_SECONDS = 120;
    const MOST_RECONNECT_MS = 2000;
    const SDK_ENDPOINT = new URL(config.centrifuge, location.href.replace(/^http/, 'ws')).href;
    // Codes that end it for the SDK: it does not come back by itself.
    const isTerminal = (code) => (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);

    const tabs = [...document.querySelectorAll('[role=tab]')];
    const { nonce } = document.currentScript;

    function showTab(shown) {
      for (const tab of tabs) {
        tab.setAttribute('aria-selected', tab === shown);
        tab.tabIndex = tab === shown ? 0 : -1;
        document.getElementById(tab.getAttribute('aria-controls')).hidden = tab !== shown;
      }
      if (shown.id === 'tab-centrifuge') loadSdk();
    }

    // ---- The SDK's file ------------------------------------------------------------------------

    let isAsked = false;

    // Nothing is loaded before the tab is opened.
    function loadSdk() {
      const { address, integrity } = config.sdk;
      const failed = (why) => {
        isAsked = false;
        at(document, 'sdk-failure').textContent = `${why} Download the npm package centrifuge, and start with: curfew dev --centrifuge-sdk node_modules/centrifuge/dist/centrifuge.js`;
        at(document, 'sdk-failure').hidden = false;
      };
      if (isAsked) return;
      isAsked = true;
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
        for (const number of [1, 2]) sdkPanes.push(new SdkPane(number));
        return at(document, 'sdk-panes').append(...sdkPanes.map(({ root }) => root));
      };
      document.head.append(script);
    }

    // ---- One pane ------------------------------------------------------------------------------

    // The browser's WebSocket on a line that the page can cut, with its frames in the log.
    const lineOf = (pane) => class extends WebSocket {
      constructor(...address) {
        super(...address);
        pane.line = this;
        this.addEventListener('message', ({ data }) => pane.frame('news', '↓', data));
        if (pane.isCut) this.close();
      }

      send(data) {
        super.send(data);
        pane.frame('sent', '↑', data);
      }
    };

    class SdkPane extends View {
      constructor(number) {
        super('sdk-pane', `sdk-pane-${number}`);
        this.line = null;
        this.isCut = false;
        this.isBarred = false;
        // Channels whose recovered publications are being delivered, with the count of them.
        this.recovering = new Map();
        this.part('user').value = NAMES[number - 1];
        this.part('data').value = DATA[this.user];
        this.on('door', 'submit', () => this.connect());
        this.on('subscribe-form', 'submit', () => this.subscribe());
        this.on('publish-form', 'submit', () => this.publish());
        this.on('presence', 'click', () => this.presence());
        this.on('cut', 'click', () => this.cut(!this.isCut));
        this.on('leave', 'click', () => this.client.disconnect());
        this.on('revoke', 'click', () => revoke('user', this.user, this));
        this.on('restore', 'click', () => this.restore());
        this.on('user', 'input', () => { this.isBarred = false; this.named(); this.wayBack(); });
        this.cut(false);
        this.chips();
        this.named();
        this.wayBack();
        this.enter('idle', 'not connected');
      }

      get channel() { return this.part('channel').value; }

      named() {
        const user = this.user || 'nobody';
        this.root.setAttribute('aria-label', `${user}, by the Centrifuge SDK`);
        this.part('name').textContent = user;
        this.part('log').setAttribute('aria-label', `Events and frames of ${user}`);
        this.part('revoke').textContent = `Revoke ${user}`;
        this.part('revoke').disabled = !this.user;
      }

      wayBack() {
        const isRevoked = this.isBarred || revocations.has(`user:${this.user}`);
        this.part('operator').textContent = isRevoked ? `${this.user} is revoked` : 'As the operator';
        this.part('revoke').hidden = isRevoked;
        this.part('restore').hidden = !isRevoked;
      }

      enter(state, badge) {
        const isOut = state === 'idle' || state === 'closed';
        this.root.dataset.state = state;
        this.part('state').textContent = badge;
        this.part('door').hidden = !isOut;
        this.part('room').hidden = isOut;
        this.part('closed').hidden = state !== 'closed';
        if (state !== 'open') this.part('session').textContent = '';
        refreshSessions();
      }

      event(tone, text, label) { this.log(tone, '·', text, undefined, label); }

      // A message of the SDK or of the node holds a command or a reply a line.
      frame(tone, direction, text) {
        for (const line of text.split('\n')) if (line) this.log(tone, direction, line);
      }

      async attempt(act) {
        try {
          await act();
          this.note();
        } catch ({ code, message }) {
          this.note(code === undefined ? message : `${code}: ${message}`);
        }
      }

      // ---- What the SDK does -------------------------------------------------------------------

      connect() {
        if (!this.hasUser()) return;
        this.note();
        if (this.client?.user !== this.user) this.client = this.newClient(this.user);
        this.chips();
        this.client.connect();
      }

      newClient(user) {
        const client = new Centrifuge(SDK_ENDPOINT, {
          getToken: () => this.token(user),
          websocket: lineOf(this),
          maxReconnectDelay: MOST_RECONNECT_MS,
        });
        client.user = user;
        client.on('connecting', ({ code, reason }) => {
          this.event('local', `connecting ${code} ${reason}`);
          this.enter('connecting', this.isCut ? 'the line is cut; the SDK tries again' : 'connecting…');
        });
        client.on('connected', ({ client: session }) => {
          this.event('good', `connected ${session}`);
          this.isBarred = false;
          this.enter('open', 'connected');
          this.wayBack();
          this.part('session').textContent = session;
          this.announce(`${user} is connected`);
        });
        client.on('disconnected', ({ code, reason }) => this.disconnected(code, reason));
        client.on('error', ({ error }) => this.event('bad', `error ${error.code} ${error.message}`));
        return client;
      }

      async token(user) {
        const { token } = await dev('token', { user, roles: ['member'], ttl: SDK_TOKEN_SECONDS });
        this.event('local', `getToken gives a token of ${duration(SDK_TOKEN_SECONDS)}`);
        return token;
      }

      disconnected(code, reason) {
        this.event(code ? 'bad' : 'local', `disconnected ${code} ${reason}`);
        this.cut(false);
        this.part('close-code').textContent = code;
        this.part('close-reason').textContent = reason;
        this.part('close-message').textContent = isTerminal(code) ? 'Terminal: the SDK does not come back by itself.' : '';
        this.root.dataset.tone = isTerminal(code) ? 'ember' : 'plain';
        this.isBarred = reason === 'revoked';
        this.enter('closed', `disconnected, ${code} ${reason}`);
        this.wayBack();
        this.announce(`${this.user}: disconnected with ${code}, ${reason}`);
      }

      subscribe() {
        const { channel } = this;
        const subscription = this.client.getSubscription(channel) ?? this.newSubscription(channel);
        subscription.subscribe();
      }

      newSubscription(channel) {
        const subscription = this.client.newSubscription(channel, { recoverable: true, joinLeave: true });
        subscription.on('state', () => this.chips());
        subscription.on('subscribed', ({ wasRecovering, recovered }) => {
          this.event('good', `subscribed ${channel}`);
          this.note();
          if (wasRecovering) this.recovered(channel, recovered);
        });
        subscription.on('unsubscribed', ({ code, reason }) => {
          this.event('local', `unsubscribed ${channel} ${code} ${reason}`);
          if (code) this.note(`${channel}: ${code} ${reason}`);
        });
        subscription.on('publication', ({ data, offset, info }) => {
          const missed = this.recovering.get(channel);
          if (missed !== undefined) this.recovering.set(channel, missed + 1);
          const from = info ? ` from ${info.user}` : '';
          this.event('news', `publication ${channel} ${JSON.stringify(data)}${from}, offset ${offset}`, missed !== undefined && 'recovered');
        });
        for (const event of ['join', 'leave']) {
          subscription.on(event, ({ info }) => this.event('local', `${event} ${channel} ${info.user}`));
        }
        subscription.on('error', ({ error }) => this.event('bad', `error ${channel} ${error.code} ${error.message}`));
        return subscription;
      }

      // The SDK delivers what was missed before it returns from the event.
      recovered(channel, isWhole) {
        this.recovering.set(channel, 0);
        queueMicrotask(() => {
          const missed = this.recovering.get(channel);
          this.recovering.delete(channel);
          const line = this.part('recovery');
          line.toggleAttribute('data-lost', !isWhole);
          const told = missed ? `Recovered ${missed} missed in ${channel}.` : `Nothing was missed in ${channel}.`;
          line.textContent = isWhole ? told : `Not recovered: what was missed in ${channel} cannot be had.`;
          line.hidden = false;
        });
      }

      async publish() {
        const data = this.payload();
        if (data === undefined) return;
        await this.attempt(() => this.client.publish(this.channel, JSON.parse(data)));
      }

      async presence() {
        const { channel } = this;
        await this.attempt(async () => {
          const { clients } = await this.client.presence(channel);
          const users = Object.values(clients).map(({ user }) => user).sort();
          this.part('present').textContent = `In ${channel}: ${users.join(', ') || 'nobody'}.`;
          this.part('present').hidden = false;
        });
      }

      chips() {
        const all = Object.values(this.client?.subscriptions() ?? {});
        const items = all.map((subscription) => {
          const chip = document.createElement('button');
          chip.type = 'button';
          const state = document.createElement('i');
          state.textContent = subscription.state;
          chip.append(subscription.channel, ' ', state);
          chip.setAttribute('aria-label', `${subscription.channel}, ${subscription.state}; remove`);
          chip.addEventListener('click', () => { this.client.removeSubscription(subscription); this.chips(); });
          const item = document.createElement('li');
          item.append(chip);
          return item;
        });
        this.part('subscriptions').replaceChildren(...(items.length ? items : ['No subscriptions yet.']));
      }

      // ---- What happens to it ------------------------------------------------------------------

      // While it is cut, every attempt of the SDK to come back fails.
      cut(isCut) {
        this.isCut = isCut;
        this.part('cut').textContent = isCut ? 'Mend the line' : 'Cut the line';
        if (!isCut) return;
        this.part('recovery').hidden = true;
        this.line?.close();
      }

      async restore() {
        await this.attempt(async () => {
          await dev('restore', { kind: 'user', value: this.user });
          revocations.delete(`user:${this.user}`);
          this.isBarred = false;
          this.part('close-message').textContent = 'The revocation is lifted: the user may connect.';
          revocationsChanged();
        });
      }
    }

    // ---- The tab -------------------------------------------------------------------------------

    for (const tab of tabs) {
      tab.addEventListener('click', () => showTab(tab));
      tab.addEventListener('keydown', ({ key }) => {
        if (key !== 'ArrowLeft' && key !== 'ArrowRight') return;
        const other = tabs.find((one) => one !== tab);
        other.focus();
        showTab(other);
      });
    }
    at(document, 'sdk-endpoint').textContent = SDK_ENDPOINT;
    at(document, 'sdk-address').textContent = config.sdk.address;
    showTab(tabs[0]);
