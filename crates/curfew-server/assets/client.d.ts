// The types of client.js, Curfew's client of the protocol curfew.v1.

/** A position in a channel with a stream. Store it, and pass it as `since` to continue there in a later run. */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/** A publication. */
export interface Message<Data = unknown> extends Partial<Position> {
  readonly type: "message";
  readonly channel: string;
  readonly data: Data;
  /** The publisher's user; absent if a server published. */
  readonly from?: string;
}

/**
 * Publications from before this frame may be missing: load the state again. This happens after a lost connection, if
 * the channel has no stream or its stream no longer stores all of them.
 */
export interface Gap extends Partial<Position> {
  readonly type: "gap";
  readonly channel: string;
}

/** A session that is subscribed to a channel. */
export interface Presence<Info = unknown> {
  readonly session: string;
  readonly user: string;
  readonly info?: Info;
}

export interface JoinLeave<Info = unknown> extends Presence<Info> {
  readonly type: "join" | "leave";
  readonly channel: string;
}

/** The answer to a subscription. Each new connection brings another one. */
export interface Subscribed extends Partial<Position> {
  readonly type: "ok";
  /** True: every publication since the position follows. */
  readonly recovered?: boolean;
}

/** The answer to a publication. */
export interface Published {
  readonly type: "ok";
  readonly offset?: number;
}

export interface HistoryEntry<Data = unknown> {
  readonly offset: number;
  readonly data: Data;
  readonly from?: string;
  /** Milliseconds since 1970. */
  readonly at: number;
}

export interface History<Data = unknown> extends Position {
  readonly type: "history";
  readonly publications: readonly HistoryEntry<Data>[];
  readonly truncated?: boolean;
}

export interface PresenceList<Info = unknown> {
  readonly type: "presence";
  readonly sessions: readonly Presence<Info>[];
  readonly users: number;
  readonly truncated: boolean;
}

/** The frame that opened the session. */
export interface Connected {
  readonly type: "connected";
  readonly session: string;
  /** Empty without a token. */
  readonly user: string;
  /** Seconds since 1970. */
  readonly expires_at: number;
  /** In seconds. */
  readonly ping_interval: number;
}

export interface Refreshed {
  readonly type: "refreshed";
  readonly expires_at: number;
}

/** The end of a connection, or of an attempt at one. */
export interface Close {
  /** The protocol's code; 1006 if the connection was lost, did not open or did not answer; 1000 after `close()`. */
  readonly code: number;
  /** The protocol's reason, or the client's own: `timeout`, `not_opened` or `closed`. */
  readonly reason: string;
  readonly message: string;
  /** False: the client stays disconnected until `connect()`. */
  readonly reconnect: boolean;
}

/**
 * A refusal. `code` is the protocol's, or the client's own: `connection_lost` (without an answer, the command may have
 * been executed), `already_subscribed`, `unsubscribed`, `malformed` (a token that is not a JWT).
 */
export interface CurfewError extends Error {
  readonly code: string;
  readonly retryAfterMs?: number;
  /** The id of the trace by which an operator finds the refusal. */
  readonly trace?: string;
}

export type State = "idle" | "connecting" | "open" | "waiting" | "closed";

export interface Events {
  state: State;
  open: Connected;
  close: Close;
  /** A failure, such as an error that a token callback throws. The client tries again if that can help. */
  error: CurfewError | Error;
  /** The token was renewed in the session. */
  token: Refreshed;
}

/** A WebSocket class: the platform's, or the one of the package `ws`. */
export interface WebSocketClass {
  new (url: string, protocols: string[]): {
    onopen: ((event: any) => any) | null;
    onmessage: ((event: any) => any) | null;
    onclose: ((event: any) => any) | null;
    onerror: ((event: any) => any) | null;
    send(text: string): void;
    close(): void;
  };
}

export interface Options {
  /**
   * A JWT, or a callback that returns one. The callback is called for each connection, and when the token is about to
   * expire. Its `signal` is aborted when the token is no longer needed. `null`, the default, connects without a token,
   * if the server allows that. If a fixed JWT is refused or expires, the client stops. The server must read tokens from
   * `subprotocol` (`auth.token_sources`).
   */
  token?: string | null | ((context: { signal: AbortSignal }) => string | null | Promise<string | null>);
  /** The upper bound of the first random wait before a retry. It doubles with each further wait. Default 500. */
  minBackoffMs?: number;
  /** The longest wait. Default 30,000. The server may ask for a longer one. */
  maxBackoffMs?: number;
  /** The silence after which the client sends a ping. By default the server's `ping_interval`. */
  pingMs?: number;
  /** The time for the answer to a ping, and for a connection to open, its token callback included. Default 10,000. */
  timeoutMs?: number;
  /** The class of WebSockets. By default the platform's; Node before 22 has none. */
  WebSocket?: WebSocketClass;
}

export interface Handlers<Data = unknown, Info = unknown> {
  /** A position from an earlier run. Publications after it are delivered first. */
  since?: Position | null;
  message?(frame: Message<Data>): void;
  /** See {@link Gap}. */
  gap?(frame: Gap): void;
  /** If `join` or `leave` is given, the server sends both. */
  join?(frame: JoinLeave<Info>): void;
  leave?(frame: JoinLeave<Info>): void;
  /** Called on each connection. */
  subscribed?(frame: Subscribed): void;
  /** The subscription was refused, or the server ended it. It is over. */
  error?(error: CurfewError): void;
}

export interface Subscription {
  readonly channel: string;
  /** Resolves at the first answer; rejects if the subscription ends before. */
  readonly ready: Promise<Subscribed>;
  /** The position of the last message or gap; a handler sees its own frame's. None in a channel without a stream. */
  readonly position: Position | undefined;
  /** Resolves when the server has answered, if there is a connection. Never rejects. */
  unsubscribe(): Promise<void>;
}

export interface PublishOptions {
  /**
   * An idempotency key of 1 to 64 bytes, for a channel with a stream. If the answer to such a publication is lost, the
   * client sends it again on the next connection, for up to four minutes. It is delivered once.
   */
  key?: string | undefined;
  traceparent?: string | undefined;
  tracestate?: string | undefined;
}

/** Selects publications after a position, oldest first, or before an offset, newest first; else the newest ones. */
export type HistoryOptions = { limit?: number | undefined } & (
  | { since?: Position | undefined; before?: undefined }
  | { before?: number | undefined; since?: undefined }
);

/** A client of one server. Its subscriptions outlast its connections. */
export class Curfew {
  /** `url` is the URL of the WebSocket, such as `wss://rt.example.com/ws`. In a page it may be relative. */
  constructor(url: string | URL, options?: Options);
  readonly state: State;
  /** The session's id, while there is one. */
  readonly session: string | null;
  /** Returns a function that removes the listener. */
  on<Name extends keyof Events>(name: Name, fn: (value: Events[Name]) => void): () => boolean;
  /** Connects, and reconnects after a loss. During the wait for a retry: retries as soon as the server allows. */
  connect(): void;
  /** Ends the connection and rejects unanswered commands. Subscriptions and positions stay for the next `connect()`. */
  close(): void;
  /** Throws `already_subscribed` if the channel has a subscription. */
  subscribe<Data = unknown, Info = unknown>(channel: string, handlers?: Handlers<Data, Info>): Subscription;
  /** Sent once the connection is open. If it does not open, a command without a key is rejected. */
  publish(channel: string, data: unknown, options?: PublishOptions): Promise<Published>;
  history<Data = unknown>(channel: string, options?: HistoryOptions): Promise<History<Data>>;
  presence<Info = unknown>(channel: string): Promise<PresenceList<Info>>;
}
