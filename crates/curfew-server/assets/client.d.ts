// The types of client.js, Curfew's client of the protocol curfew.v1.

/** A place in a channel with a stream. Keep it, and a later run begins there by `since`. */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/** A publication. */
export interface Message<Data = unknown> extends Partial<Position> {
  readonly type: "message";
  readonly channel: string;
  readonly data: Data;
  /** The publisher's user; absent where a server published. */
  readonly from?: string;
}

/**
 * Publications from before this frame may be missing: load the state anew. So they may be after a connection was lost
 * in a channel without a stream, and where a stream does not keep that much.
 */
export interface Gap extends Partial<Position> {
  readonly type: "gap";
  readonly channel: string;
}

/** A session that comes or goes. */
export interface Presence<Info = unknown> {
  readonly session: string;
  readonly user: string;
  readonly info?: Info;
}

export interface JoinLeave<Info = unknown> extends Presence<Info> {
  readonly type: "join" | "leave";
  readonly channel: string;
}

/** The answer to a subscription, of each connection anew. */
export interface Subscribed extends Partial<Position> {
  readonly type: "ok";
  /** True: all that was published since the position follows. */
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
  /** Seconds. */
  readonly ping_interval: number;
}

export interface Refreshed {
  readonly type: "refreshed";
  readonly expires_at: number;
}

/** The end of a connection, or of an attempt at one. */
export interface Close {
  /** The protocol's, or 1006: the connection was lost, did not open, or did not answer; 1000: `close()`. */
  readonly code: number;
  /** The protocol's; `timeout`, `not_opened` or `closed` where it is the client's. */
  readonly reason: string;
  readonly message: string;
  /** False: the client stays away until `connect()`. */
  readonly reconnect: boolean;
}

/**
 * A refusal. `code` is the protocol's, or the client's: `connection_lost` (not answered, and perhaps done),
 * `already_subscribed`, `unsubscribed`, `malformed` (a token that is no JWT).
 */
export interface CurfewError extends Error {
  readonly code: string;
  readonly retryAfterMs?: number;
  /** The id under which an operator finds it. */
  readonly trace?: string;
}

export type State = "idle" | "connecting" | "open" | "waiting" | "closed";

export interface Events {
  state: State;
  open: Connected;
  close: Close;
  /** Something that failed, and is tried again where that is of use. Also what a token callback throws. */
  error: CurfewError | Error;
  /** The token was renewed in the session. */
  token: Refreshed;
}

/** A WebSocket class: the platform's, or that of the package `ws`. */
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
   * A JWT, or a callback that gives one for each connection, and when the token expires. `signal` is aborted when it is
   * not needed any more. `null`, the default: without a token, where the server allows it. With a text, a token that
   * is refused or expires ends the client. The server reads tokens from `subprotocol` (`auth.token_sources`).
   */
  token?: string | null | ((context: { signal: AbortSignal }) => string | null | Promise<string | null>);
  /** The first wait before another attempt is shorter than this; 500. Each is up to twice as long. */
  minBackoffMs?: number;
  /** The longest wait; 30,000. The server may ask for a longer one. */
  maxBackoffMs?: number;
  /** The silence after which the server is asked for a sign of life; by default the server's `ping_interval`. */
  pingMs?: number;
  /** The time for that sign, and for an attempt, the token's callback included; 10,000. */
  timeoutMs?: number;
  /** The class of WebSockets; by default the platform's. Node before 22 has none. */
  WebSocket?: WebSocketClass;
}

export interface Handlers<Data = unknown, Info = unknown> {
  /** A position from an earlier run: what came after it is delivered first. */
  since?: Position | null;
  message?(frame: Message<Data>): void;
  /** See {@link Gap}. */
  gap?(frame: Gap): void;
  /** With either, the server is asked for both. */
  join?(frame: JoinLeave<Info>): void;
  leave?(frame: JoinLeave<Info>): void;
  /** On each connection. */
  subscribed?(frame: Subscribed): void;
  /** The subscription is refused or was taken away, and over. */
  error?(error: CurfewError): void;
}

export interface Subscription {
  readonly channel: string;
  /** Resolves at the first answer; rejects when the subscription is over before. */
  readonly ready: Promise<Subscribed>;
  /** Of the last message or gap, while a handler runs its own; none in a channel without a stream. */
  readonly position: Position | undefined;
  /** Resolves once the server knows, and never rejects. */
  unsubscribe(): Promise<void>;
}

export interface PublishOptions {
  /**
   * The publication's own name, 1 to 64 bytes, in a channel with a stream. With it a publication whose answer is lost is
   * sent again on the next connection, for four minutes, and delivered once.
   */
  key?: string | undefined;
  traceparent?: string | undefined;
  tracestate?: string | undefined;
}

/** What comes after a position, oldest first, or before an offset, newest first; with neither, the newest. */
export type HistoryOptions = { limit?: number | undefined } & (
  | { since?: Position | undefined; before?: undefined }
  | { before?: number | undefined; since?: undefined }
);

/** A client of one server. Its subscriptions live across connections. */
export class Curfew {
  /** `url` is that of the WebSocket, `wss://rt.example.com/ws`; in a page also relative to it. */
  constructor(url: string | URL, options?: Options);
  readonly state: State;
  /** The session's id, while there is one. */
  readonly session: string | null;
  /** Returns a function that takes the listener away. */
  on<Name extends keyof Events>(name: Name, fn: (value: Events[Name]) => void): () => boolean;
  /** Connects and stays connected. While it waits: tries now, but not before the server allows. */
  connect(): void;
  /** Ends the connection and all that waits for answers. Subscriptions and their positions stay for `connect()`. */
  close(): void;
  /** Throws `already_subscribed` where the channel has a subscription. */
  subscribe<Data = unknown, Info = unknown>(channel: string, handlers?: Handlers<Data, Info>): Subscription;
  /** Commands given before the connection is open are sent when it is. Without a key, they end with the attempt. */
  publish(channel: string, data: unknown, options?: PublishOptions): Promise<Published>;
  history<Data = unknown>(channel: string, options?: HistoryOptions): Promise<History<Data>>;
  presence<Info = unknown>(channel: string): Promise<PresenceList<Info>>;
}
