// One pane: one user with one client of the node. A "wire" is such a client. It has the same few
// methods for each protocol (curfew.js, centrifuge.js), and reports its events to its pane. Text
// from frames and fields enters the document by textContent only.

const LOG_LINES = 300;
const SAID_LINES = 50;
const NAMES = ['alice', 'bob', 'carol', 'dave', 'erin', 'frank'];
const DATA = {
  alice: '{"text": "Good evening"}',
  bob: '{"text": "The kettle is on"}',
  carol: '{"text": "Who left the lamp lit?"}',
};

// The browser's WebSocket, with its frames in the log. The page can cut its line.
const lineOf = (pane) => class extends WebSocket {
  constructor(...address) {
    super(...address);
    pane.line = this;
    this.addEventListener('message', ({ data }) => pane.frame('↓', data));
    if (pane.isCut) this.close();
  }

  send(data) {
    super.send(data);
    pane.frame('↑', data);
  }
};

// ---- The pane ----------------------------------------------------------------------------------

class Pane {
  constructor(number, Wire) {
    this.number = number;
    this.Wire = Wire;
    this.name = `${Wire.prefix}pane-${number}`;
    this.root = document.getElementById('pane').content.firstElementChild.cloneNode(true);
    this.root.dataset.testid = this.name;
    this.frames = 0;
    this.isCut = false;
    this.forget();
    for (const group of ['life', 'next']) {
      for (const radio of this.picks(group)) radio.name = `${group}-${this.name}`;
    }
    this.be(NAMES[number - 1] ?? `user${number}`);
    this.part('remove-user').hidden = number < 3;
    this.listen();
    this.cut(false);
    this.chips();
    this.enter('idle', 'not connected');
  }

  // ---- Its parts -------------------------------------------------------------------------------

  part(name) { return at(this.root, name); }
  picks(group) { return [...this.root.querySelectorAll(`[data-testid^=${group}-]`)]; }
  picked(group) { return Number(this.picks(group).find(({ checked }) => checked).value); }
  pick(group, value) { this.picks(group).find((radio) => radio.value === String(value)).checked = true; }
  get user() { return this.part('user').value.trim(); }
  get channel() { return this.part('channel').value; }
  get roles() { return this.picks('role').filter(({ checked }) => checked).map(({ value }) => value); }
  get mayReturn() { return this.picked('next') > 0; }
  get isOpen() { return this.state === 'open' || this.state === 'expiring'; }
  announce(text) { this.part('announce').textContent = text; }
  note(text) { this.tell('note', text); }

  // Shows a text, or hides its element if there is none.
  tell(name, text) {
    this.part(name).textContent = text ?? '';
    this.part(name).hidden = !text;
  }

  on(name, event, act) {
    this.part(name).addEventListener(event, (happened) => {
      happened.preventDefault();
      act();
    });
  }

  listen() {
    const on = (...listener) => this.on(...listener);
    on('door', 'submit', () => this.connect());
    on('reconnect', 'click', () => this.connect());
    on('leave', 'click', () => this.wire.close());
    on('subscribe-form', 'submit', () => this.subscribe(this.channel));
    on('publish-form', 'submit', () => this.publish());
    on('presence', 'click', () => this.presence());
    on('cut', 'click', () => this.cut(!this.isCut));
    on('revoke', 'click', () => revoke(this.part('revoke-kind').value, this.target(this.part('revoke-kind').value), this));
    on('restore', 'click', () => this.restore());
    on('change-user', 'click', () => { this.forget(); this.enter('idle', 'not connected'); this.part('user').focus(); });
    on('remove-user', 'click', () => removePane(this));
    on('clear', 'click', () => { this.part('log').replaceChildren(); this.count(0); });
    this.part('revoke-kind').addEventListener('change', () => this.named());
    this.part('data').addEventListener('input', () => this.part('data').removeAttribute('aria-invalid'));
    this.part('user').addEventListener('input', () => { this.isBarred = false; this.named(); });
    this.part('user').addEventListener('change', terminalUsers);
  }

  be(user) {
    this.part('user').value = user;
    this.part('data').value = DATA[user] ?? '{"text": "Hello"}';
  }

  // Forgets everything about a session: its channels, and its position in the stream of each.
  forget() {
    this.session = undefined;
    this.tokenId = undefined;
    this.isBarred = false;
    this.subscriptions = new Map();
    this.places = new Map();
    this.recovering = new Map();
  }

  // ---- Its states ------------------------------------------------------------------------------

  // The only code that changes the state: idle, connecting, open, expiring or closed.
  enter(state, badge) {
    this.state = state;
    this.root.dataset.state = state;
    this.part('state').textContent = badge;
    const isOut = state === 'idle' || state === 'closed';
    this.part('door').hidden = state !== 'idle';
    this.part('room').hidden = isOut;
    this.part('renew').hidden = isOut;
    this.part('closed').hidden = state !== 'closed';
    this.part('way-back').hidden = state !== 'closed';
    this.part('countdown').hidden = !this.isOpen;
    this.part('unlit').toggleAttribute('hidden', this.isOpen);
    this.part('session').textContent = this.session ?? '';
    this.named();
    this.tick();
    light();
  }

  // Updates every part that shows the user, or the user's ways to connect again.
  named() {
    const user = this.user || 'nobody';
    const kind = this.part('revoke-kind').value;
    const [revoked] = this.namedBy();
    this.root.setAttribute('aria-label', `${user}, by ${this.Wire.label}`);
    this.part('name').textContent = user;
    this.part('name-roles').textContent = this.state === 'idle' ? '' : this.roles.join(', ') || 'no roles';
    this.part('log').setAttribute('aria-label', `Frames of ${user}`);
    this.part('said').setAttribute('aria-label', `Messages that ${user} has`);
    this.part('revoke').textContent = { user: `Revoke ${user}`, session: `Revoke ${user}’s session`, token: `Revoke ${user}’s token` }[kind];
    this.part('revoke').disabled = !this.target(kind);
    this.part('revoke').hidden = Boolean(revoked);
    this.part('revoke-kind').hidden = Boolean(revoked);
    this.part('restore').hidden = !revoked;
    this.part('operator').textContent = !revoked ? 'As the operator' : revoked.startsWith('user:') ? `${user} is revoked` : `${user}’s ${revoked.split(':')[0]} is revoked`;
    this.part('reconnect').classList.toggle('light', !revoked);
    const value = this.target(kind);
    const separator = value?.startsWith('-') ? '-- ' : '';
    this.part('revoke-line').textContent = `CURFEW_ADMIN_KEY=${config.admin_key} ${config.program} revoke --url http://${config.admin} ${separator}${kind} ${value ? quoted(value) : `<${kind} id>`}`;
  }

  target(kind) { return { user: this.user, session: this.session, token: this.tokenId }[kind]; }

  // The revocations that name this pane. A revocation that was made elsewhere, or before the page
  // was reloaded, is assumed to be of the user, because a new token would evade other kinds.
  namedBy() {
    const known = ['user', 'session', 'token'].map((kind) => `${kind}:${this.target(kind)}`).filter((key) => revocations.has(key));
    return known.length === 0 && this.isBarred ? [`user:${this.user}`] : known;
  }

  // Updates the ring and the time that the token has left, ten times a second.
  tick() {
    const ring = this.part('ring');
    if (!this.isOpen) { ring.style.strokeDashoffset = 100; return; }
    const left = this.expiresAt - now();
    const shown = Math.max(0, left);
    const isExpiring = left <= config.expiring_notice;
    if (isExpiring !== (this.state === 'expiring')) {
      this.enter(isExpiring ? 'expiring' : 'open', isExpiring ? 'expiring' : 'connected');
      if (isExpiring) this.announce(`${this.user}: the token expires in ${Math.ceil(shown)} seconds`);
      return;
    }
    const waits = `expired: the node closes in ${Math.max(0, Math.ceil(left + config.leeway))} s, its leeway for clocks`;
    this.part('state').textContent = left <= 0 ? waits : isExpiring ? 'expiring' : 'connected';
    ring.style.strokeDashoffset = 100 - 100 * Math.min(1, shown / this.life);
    const countdown = this.part('countdown');
    countdown.dataset.seconds = Math.ceil(shown);
    countdown.firstElementChild.textContent = duration(shown);
    countdown.lastElementChild.textContent = left > 0 ? 'left' : 'leeway';
  }

  // ---- What the user does ----------------------------------------------------------------------

  connect() {
    this.part('user').removeAttribute('aria-invalid');
    if (!this.user) {
      this.part('user').setAttribute('aria-invalid', 'true');
      this.note('Name a user first.');
      this.part('user').focus();
      return;
    }
    this.note();
    this.pick('next', this.picked('life'));
    this.session = undefined;
    this.tokenId = undefined;
    this.receipt = null;
    this.revokedAt = null;
    this.isBarred = false;
    this.recovering.clear();
    this.part('recovery').replaceChildren();
    this.cut(false);
    const channels = this.subscriptions.size ? [...this.subscriptions.keys()] : [this.channel];
    this.subscriptions.clear();
    this.enter('connecting', 'connecting…');
    this.wire = new this.Wire(this);
    for (const channel of channels) this.subscribe(channel);
    this.wire.connect();
  }

  // A token of the chosen lifetime. The client calls this whenever it needs one.
  async token() {
    const life = this.picked('next');
    if (!this.mayReturn) throw new NoToken(`${this.user} gets no new token.`);
    const { token, token_id: id, expires_at: expiresAt } = await dev('token', { user: this.user, roles: this.roles, ttl: life });
    this.log('local', '·', `the page gives a token of ${duration(life)}`);
    [this.tokenId, this.life, this.expiresAt] = [id, life, expiresAt];
    this.named();
    return token;
  }

  // Subscribes from the known position, if there is one: messages after it arrive first.
  subscribe(channel) {
    if (this.subscriptions.has(channel)) return;
    this.subscriptions.set(channel, 'subscribing');
    this.wire.subscribe(channel, this.places.get(channel));
    this.chips();
  }

  unsubscribe(channel) {
    this.wire.unsubscribe(channel);
    this.unsubscribed(channel);
  }

  async publish() {
    const text = this.part('data').value.trim();
    let data;
    try {
      data = parsed(text);
    } catch {
      this.part('data').setAttribute('aria-invalid', 'true');
      this.note('The data is not JSON. Text needs quotes: "hello".');
      this.part('data').focus();
      return;
    }
    await this.attempt(() => this.wire.publish(this.channel, data));
  }

  async presence() {
    const { channel } = this;
    await this.attempt(async () => {
      const users = await this.wire.presence(channel);
      this.tell('present', `In ${channel}: ${users.sort().join(', ') || 'nobody'}.`);
    });
  }

  async attempt(act) {
    try {
      await act();
      this.note();
    } catch (problem) {
      this.refused(problem);
    }
  }

  refused({ code, message }) { this.note(code === undefined ? message : `${code}: ${message}`); }

  // While the line is cut, every attempt of the client to reconnect fails.
  cut(isCut) {
    this.isCut = isCut;
    this.part('cut').textContent = isCut ? 'Mend the line' : 'Cut the line';
    this.part('cut').classList.toggle('light', isCut);
    this.tell('waiting', isCut && 'Publish as another user, then mend it: what was missed arrives first.');
    if (isCut) {
      this.part('recovery').replaceChildren();
      this.line?.close();
    } else if (this.state === 'connecting') {
      // The client tries again without further waiting.
      this.wire.connect();
    }
  }

  async restore() {
    await this.attempt(async () => {
      for (const key of this.namedBy()) {
        const [kind, value] = revocations.get(key) ?? ['user', this.user];
        await dev('restore', { kind, value });
        revocations.delete(key);
        this.log('local', '·', `lifted ${key}`);
      }
      this.isBarred = false;
      this.announce(`${this.user}: the revocation is lifted`);
      this.part('close-advice').textContent = 'The revocation is lifted: a new token lets the user in.';
      panes.forEach((pane) => pane.named());
      this.part('reconnect').focus({ preventScroll: true });
    });
  }

  // ---- What the client tells -------------------------------------------------------------------

  opened(session) {
    this.session = session;
    const hadFocus = this.root.contains(document.activeElement);
    this.note();
    this.tell('waiting');
    this.enter('open', 'connected');
    if (hadFocus && document.activeElement === document.body) this.part('publish').focus({ preventScroll: true });
    this.announce(`${this.user} is connected`);
    refreshSessions();
  }

  // The client will reconnect.
  lostLine(why) {
    for (const channel of this.subscriptions.keys()) this.subscriptions.set(channel, 'waiting');
    this.chips();
    this.enter('connecting', this.isCut ? 'the line is cut' : `lost: ${why}; coming back…`);
    refreshSessions();
  }

  // The client will not reconnect.
  ended({ code, reason, message, advice }) {
    this.note();
    const isRevoked = reason === 'revoked';
    this.root.dataset.tone = isRevoked || code === 4401 ? 'ember' : 'plain';
    this.part('close-code').textContent = code;
    this.part('close-reason').textContent = reason;
    this.part('close-message').textContent = message ? message[0].toUpperCase() + message.slice(1) + (message.endsWith('.') ? '' : '.') : '';
    this.part('close-advice').textContent = advice;
    this.tell('present');
    this.isBarred = isRevoked;
    this.tookMs = isRevoked && this.revokedAt ? Math.round(performance.now() - this.revokedAt) : undefined;
    const hadFocus = this.part('room').contains(document.activeElement);
    this.enter('closed', `closed, ${code} ${reason}`);
    this.cut(false);
    this.told();
    this.announce(`${this.user}: closed with ${code}, ${reason}`);
    if (hadFocus) this.part('reconnect').focus({ preventScroll: true });
    if (isRevoked) done(3);
    refreshSessions();
  }

  // Shows the receipt of the revocation, if it was made on this page.
  told() {
    const { closed, nodes, took_ms: tookMs } = this.receipt ?? {};
    this.part('took').hidden = this.tookMs === undefined || !this.receipt;
    this.part('took').firstElementChild.textContent = `${this.tookMs} ms`;
    this.part('receipt').textContent = this.receipt ? `Receipt: ${nodes.confirmed} of ${nodes.live} ${nodes.live === 1 ? 'node' : 'nodes'} confirmed, ${closed} ${closed === 1 ? 'session' : 'sessions'} closed, ${tookMs} ms.` : '';
  }

  // Notes a subscription and its first position. After a recovery, messages advance the position.
  joined(channel, { epoch, offset, recovered }) {
    if (!this.subscriptions.has(channel)) return;
    const since = this.places.get(channel);
    this.subscriptions.set(channel, 'subscribed');
    this.note();
    if (recovered && since && offset > since.offset) {
      this.recovering.set(channel, { first: since.offset + 1, last: offset, count: 0 });
    } else if (recovered && since) {
      this.recovery(channel, `Nothing was missed in ${channel}.`);
    } else if (recovered === false && since) {
      this.lost(channel, { epoch, offset });
    } else if (epoch) {
      this.places.set(channel, { epoch, offset });
    }
    this.chips();
    if (panes.filter((pane) => pane.subscriptions.get(channel) === 'subscribed').length > 1) done(1);
  }

  // Shows a message; true if it was missed and recovered. Without an offset the position stays.
  received(channel, { from, data, offset }) {
    const place = this.places.get(channel);
    const missed = this.recovering.get(channel);
    const isRecovered = offset !== undefined && offset <= missed?.last;
    if (place && offset !== undefined) place.offset = offset;
    this.chips();
    this.say(channel, from, data, isRecovered);
    if (from !== this.user) done(1);
    if (isRecovered) missed.count += 1;
    if (isRecovered && offset === missed.last) this.recovered(channel);
    return isRecovered;
  }

  // All missed messages have arrived.
  recovered(channel) {
    const missed = this.recovering.get(channel);
    if (!missed) return;
    this.recovering.delete(channel);
    const { first, count } = missed;
    const last = this.places.get(channel).offset;
    const offsets = first === last ? `offset ${last}` : `offsets ${first} to ${last}`;
    if (count === 0) return this.recovery(channel, `Nothing was missed in ${channel}.`);
    done(2);
    return this.recovery(channel, `Recovered ${count} of ${last - first + 1} missed in ${channel}: ${offsets}.`);
  }

  // Messages up to the given position are lost.
  lost(channel, { epoch, offset }) {
    const since = this.places.get(channel);
    if (since?.epoch === epoch && since?.offset === offset) return;
    this.recovering.delete(channel);
    if (epoch) this.places.set(channel, { epoch, offset });
    else this.places.delete(channel);
    this.chips();
    const after = since ? ` after ${since.epoch}:${since.offset}` : '';
    const from = epoch ? ` Messages follow from ${epoch}:${offset} on.` : '';
    this.recovery(channel, `Not recovered: what came in ${channel}${after} cannot be had.${from}`, true);
  }

  unsubscribed(channel, why) {
    this.subscriptions.delete(channel);
    this.places.delete(channel);
    this.recovering.delete(channel);
    this.chips();
    if (why) this.note(`${channel}: ${why}`);
  }

  // Shows the latest result about missed messages of a channel.
  recovery(channel, text, isLost = false) {
    const list = this.part('recovery');
    const line = [...list.children].find((one) => one.dataset.channel === channel) ?? document.createElement('li');
    line.dataset.channel = channel;
    line.toggleAttribute('data-lost', isLost);
    line.textContent = text;
    list.append(line);
  }

  // ---- What it shows ---------------------------------------------------------------------------

  // Shows the channels, each with the offset of its last message. The title has the whole position.
  chips() {
    const chips = [...this.subscriptions].map(([channel, state]) => {
      const place = this.places.get(channel);
      const chip = made('button');
      const shown = made('i', state === 'subscribed' ? place?.offset ?? '' : state);
      chip.type = 'button';
      chip.dataset.testid = 'subscription';
      chip.append(channel, ' ', shown);
      if (place) shown.title = `position ${place.epoch}:${place.offset}`;
      chip.setAttribute('aria-label', `Unsubscribe from ${channel}, ${state}`);
      chip.addEventListener('click', () => this.unsubscribe(channel));
      const item = made('li');
      item.append(chip);
      return item;
    });
    this.part('subscriptions').replaceChildren(...(chips.length ? chips : [made('li', 'No subscriptions.')]));
  }

  // Shows a message as a person reads it.
  say(channel, from, data, isRecovered) {
    const line = made('li');
    const text = typeof data?.text === 'string' ? data.text : JSON.stringify(data);
    line.append(made('b', from ?? 'the server'), ' ', made('span', text));
    if (isRecovered) line.append(' ', made('em', 'recovered'));
    line.title = channel;
    append(this.part('said'), line, SAID_LINES);
  }

  count(frames) {
    this.frames = frames;
    this.part('frame-count').textContent = frames;
  }

  // Logs each frame on a line of its own. A message of the Centrifuge protocol may have several.
  frame(direction, text) {
    for (const line of String(text).split('\n').filter(Boolean)) {
      let frame = {};
      try {
        frame = JSON.parse(line);
      } catch {
        // Text that is not JSON is shown unchanged.
      }
      const isRecovered = frame.type === 'message' && frame.offset <= this.recovering.get(frame.channel)?.last;
      this.log(direction === '↑' ? 'sent' : TONES[frame.type] ?? 'news', direction, line, frame.trace, isRecovered && 'recovered');
    }
  }

  log(tone, direction, text, trace, label) {
    const line = made('li', undefined, tone);
    const arrow = made('span', direction, 'dir');
    const body = made('span', undefined, 'text');
    if (direction === '·') {
      body.textContent = text;
    } else {
      arrow.title = { '↑': 'sent', '↓': 'received' }[direction];
      pretty(text, body);
      this.count(this.frames + 1);
    }
    // Only the id of a trace becomes a link.
    if (config.trace_url && /^[0-9a-f]{32}$/.test(trace)) {
      const link = made('a', 'trace');
      link.href = config.trace_url.replace('{trace_id}', trace);
      link.target = '_blank';
      link.rel = 'noreferrer';
      link.dataset.testid = 'trace';
      body.append(' ', link);
    }
    line.append(made('time', clock()), arrow);
    if (label) line.append(made('em', label));
    line.append(body);
    append(this.part('log'), line, LOG_LINES);
  }
}
