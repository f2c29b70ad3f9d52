// A client of Curfew's protocol, curfew.v1. client.d.ts documents it.

const failure = (code, message, { retry_after_ms: retryAfterMs, trace } = {}) =>
	Object.assign(new Error(message), { code, retryAfterMs, trace });

/** Faults of the application become unhandled rejections. */
const call = async (fn, value) => fn?.(value);

export function Curfew(url, {
	token = null, minBackoffMs = 500, maxBackoffMs = 30_000, pingMs, timeoutMs = 10_000, WebSocket = globalThis.WebSocket,
} = {}) {
	if (!WebSocket) throw new TypeError("give the option WebSocket");
	const address = new URL(url, globalThis.location).href.replace(/^http/, "ws");
	const listeners = {};
	const subs = new Map();
	const commands = new Map();
	let isOff = true;
	let life; // of the connection or the attempt, aborted at its end
	let socket, timer, openedAt, notBefore, quietMs;
	let lastId = 0, tries = 0;

	const emit = (name, value) => listeners[name]?.forEach((fn) => call(fn, value));
	const become = (state) => emit("state", (client.state = state));
	const backoff = (tries) => Math.random() * Math.min(maxBackoffMs, minBackoffMs * 2 ** tries);
	const lost = (reason) => end({ code: 1006, reason, reconnect: true });

	const arm = (ms, act) => {
		clearTimeout(timer);
		timer = setTimeout(act, ms);
	};

	const retry = (tries) => arm(Math.max(notBefore - Date.now(), backoff(tries)), open);

	const ping = () => {
		socket.send('{"type":"ping"}');
		arm(timeoutMs, () => lost("timeout"));
	};

	const wake = () => {
		if (client.session) ping();
		if (client.state === "waiting") retry(0);
	};

	const listen = (method) => ["online", "visibilitychange"].forEach((name) => globalThis[method]?.(name, wake));

	const end = ({ code, reason, message = "the connection ended", reconnect, retry_after_ms = 0 }) => {
		life.abort();
		socket?.close();
		if (client.session && Date.now() - openedAt > timeoutMs) tries = 0;
		socket = client.session = null;
		// A fixed token cannot be renewed.
		isOff = !reconnect || (typeof token === "string" && [4401, 4410].includes(code));
		notBefore = Date.now() + retry_after_ms;
		retry(tries++);
		if (isOff) {
			clearTimeout(timer);
			listen("removeEventListener");
		}
		commands.forEach(({ until, refuse }) => (!isOff && until > Date.now()) || refuse());
		become(isOff ? "closed" : "waiting");
		emit("close", { code, reason, message, reconnect: !isOff });
	};

	const getToken = async (signal) => {
		const value = typeof token === "function" ? await token({ signal }) : token;
		if (value === null || /^[\w-]+(\.[\w-]+){2}$/.test(value)) return value;
		throw failure("malformed", "no JWT");
	};

	const open = async () => {
		const { signal } = (life = new AbortController());
		arm(timeoutMs, () => lost("timeout"));
		become("connecting");
		try {
			const jwt = await getToken(signal);
			if (signal.aborted) return;
			socket = new WebSocket(address, jwt ? ["curfew.v1", `bearer.${jwt}`] : ["curfew.v1"]);
			// Ignored if the session is open.
			socket.onopen = () => jwt || signal.aborted || socket.send('{"type":"auth","id":0}');
			socket.onmessage = ({ data }) => signal.aborted || receive(data);
			socket.onclose = ({ code, reason }) => signal.aborted || end({ code, reason, reconnect: true });
			socket.onerror = () => {};
		} catch (error) {
			if (signal.aborted) return;
			lost("not_opened");
			emit("error", error);
		}
	};

	const renew = async () => {
		const { signal } = life;
		// Waits: the notice may exceed a token's life.
		await new Promise((resolve) => setTimeout(resolve, backoff(3)));
		try {
			const jwt = signal.aborted || (await getToken(signal));
			if (jwt && !signal.aborted) emit("token", await ask({ type: "refresh", token: jwt }));
		} catch (error) {
			if (signal.aborted) return;
			emit("error", error);
			renew();
		}
	};

	const send = (frame, resolve, reject) => {
		const id = ++lastId;
		const text = JSON.stringify({ ...frame, id });
		// The server remembers a key for five minutes.
		const until = frame.key && Date.now() + 240_000;
		const refuse = () => commands.delete(id) && reject(failure("connection_lost", "no connection"));
		commands.set(id, { text, until, resolve, reject, refuse });
		if (client.session) socket.send(text);
		else if (isOff) refuse();
	};

	const ask = (frame) => new Promise((resolve, reject) => send(frame, resolve, reject));

	const subscribe = (sub) => {
		const { channel, on, position: since } = sub;
		const { signal } = life;
		const unlessGone = (fn) => (value) => signal.aborted || subs.get(channel) !== sub || fn(value);
		const join_leave = on.join || on.leave ? true : undefined;
		send({ type: "subscribe", channel, since, join_leave }, unlessGone((frame) => {
			const { epoch, offset, recovered } = frame;
			const isGap = !recovered && (since || sub.life);
			if (!recovered) sub.position = epoch && { epoch, offset };
			sub.life = life;
			sub.tries = 0;
			sub.resolve(frame);
			call(on.subscribed, frame);
			if (isGap) call(on.gap, { type: "gap", channel, epoch, offset });
		}), unlessGone((error) => {
			if (!["unavailable", "internal", "rate_limited"].includes(error.code)) return drop(sub, error);
			setTimeout(unlessGone(() => subscribe(sub)), backoff(sub.tries++));
		}));
	};

	const drop = (sub, error) => {
		subs.delete(sub.channel);
		sub.reject(error);
		call(sub.on.error, error);
	};

	const take = (sub, frame) => {
		const { type, epoch, offset } = frame;
		// Skips an earlier subscription's frames; messages without offset stay.
		if (sub.life !== life && (offset || type !== "message")) return;
		if (type === "unsubscribed") return drop(sub, failure(frame.reason, "the server ended it"));
		if (epoch ?? (offset && sub.position)) sub.position = { epoch: epoch ?? sub.position.epoch, offset };
		call(sub.on[type], frame);
	};

	const receive = (text) => {
		let frame;
		try {
			frame = Object(JSON.parse(text));
		} catch {
			return;
		}
		const { type, id, code, reason, message } = frame;
		const command = commands.get(id);
		const sub = subs.get(frame.channel);
		commands.delete(id);
		if (command && type === "error") command.reject(failure(code, message, frame));
		else if (command) command.resolve(frame);
		else if (sub) take(sub, frame);
		else if (type === "connected") opened(frame);
		else if (type === "closing") end(frame);
		else if (type === "expiring" && typeof token === "function") renew();
		else if (["error", "auth_failed"].includes(type) && id !== 0) emit("error", failure(code ?? reason, message, frame));
		if (client.session) arm(quietMs, ping);
	};

	const opened = (frame) => {
		const unsent = [...commands.values()];
		client.session = frame.session;
		openedAt = Date.now();
		quietMs = pingMs ?? frame.ping_interval * 1000;
		subs.forEach(subscribe);
		unsent.forEach(({ until, text, refuse }) => (until < openedAt ? refuse() : socket.send(text)));
		become("open");
		emit("open", frame);
	};

	const client = Object.assign(this, {
		state: "idle",
		session: null,
		on(name, fn) {
			(listeners[name] ??= new Set()).add(fn);
			return () => listeners[name].delete(fn);
		},
		connect() {
			if (!isOff) return wake();
			isOff = false;
			tries = 0;
			listen("addEventListener");
			open();
		},
		close() {
			if (!isOff) end({ code: 1000, reason: "closed" });
		},
		publish: (channel, data, options) => ask({ ...options, type: "publish", channel, data }),
		history: (channel, options) => ask({ ...options, type: "history", channel }),
		presence: (channel) => ask({ type: "presence", channel }),
		subscribe(channel, { since, ...on } = {}) {
			if (subs.has(channel)) throw failure("already_subscribed", `subscribed to ${channel}`);
			const sub = { channel, on, position: since ?? undefined, tries: 0 };
			sub.ready = new Promise((resolve, reject) => Object.assign(sub, { resolve, reject }));
			sub.ready.catch(() => {});
			sub.unsubscribe = async () => {
				if (subs.get(channel) !== sub) return;
				subs.delete(channel);
				sub.reject(failure("unsubscribed", "unsubscribed"));
				if (client.session) await ask({ type: "unsubscribe", channel }).catch(() => {});
			};
			subs.set(channel, sub);
			if (client.session) subscribe(sub);
			return sub;
		},
	});
}
