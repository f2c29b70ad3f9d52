//! Clients. They connect, send a token, subscribe, publish without waiting, stop reading, and
//! reconnect.

mod presence;
mod stream;
mod vault;

use std::collections::BTreeMap;
use std::time::Duration;

use curfew_auth::{Algorithm, MintKey, mint};
use serde_json::{Value, json};

use crate::frame::{self, CLOSE, PING, PONG, TEXT};
use crate::machine::{EPOCH, elapsed};
use crate::record::{Place, Published, Token, Visit, marker};
use crate::world::{ConnectionId, Direction, End, Event, World};
use presence::Lobby;
use stream::is_keyed;

/// The secret of the issuer.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The channels to which clients subscribe and publish. Only some runs have the last one.
pub const CHANNELS: [&str; 3] = ["room:1", "room:zoë", "vault"];

/// The channel with presence, if the run has presence.
pub const LOBBY: &str = "lobby";

/// The index in `CHANNELS` of the channel that may have a stream.
pub const STREAM: usize = 1;

/// The index in `CHANNELS` of the channel whose subscriptions have tokens of their own, if the run
/// has this channel. It is the last index.
pub const VAULT: usize = 2;

/// All users. Names are compared byte for byte.
pub const USERS: [&str; 6] = ["alice", "bob", "zoë", "Jürgen ~x", "CAROL", "d\"ave"];

/// The tenants of users.
pub const TENANTS: [&str; 2] = ["acme", "Zürich"];

/// Time after which a session counts as established.
const LASTED: Duration = Duration::from_secs(5);

/// Longest time until a client has service again after an established session or subscription has
/// ended.
const BACK: Duration = Duration::from_secs(2);

/// The start of a publication, as nodes write it.
pub const MESSAGE: &[u8] = br#"{"type":"message""#;

/// Time for which a client waits for an answer to its token.
const PATIENCE: Duration = Duration::from_secs(8);

/// A client.
#[derive(Debug)]
pub struct Client {
    /// The client's user.
    pub user: String,
    /// The user's tenant.
    pub tenant: String,
    state: State,
    /// The bytes of an incomplete frame.
    buffer: Vec<u8>,
    /// The channels with a confirmed subscription.
    pub subscribed: Vec<usize>,
    /// Commands without an answer, by number.
    asked: BTreeMap<u64, Asked>,
    count: u64,
    paused: bool,
    /// True if the client publishes nothing new, ends no connection and does not pause its reading.
    pub quiet: bool,
    /// The lifetime of the client's tokens, in seconds.
    pub lifetime: u64,
    token: Option<Token>,
    /// The received publications: the connection and the number of each.
    pub heard: Vec<(ConnectionId, u64)>,
    /// The client's position in the channel with a stream.
    pub place: Option<Place>,
    lobby: Lobby,
    vault_token: Option<Token>,
    /// Numbers of publications with an idempotency key that may or may not have been accepted.
    unsure: Vec<u64>,
    /// Time at which the session was opened.
    opened_at: Duration,
    /// Time by which the client must have service again after an established session.
    back_by: Duration,
    /// Time of the client's next event. Events for other times are outdated.
    due: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Away,
    Opening(ConnectionId, Duration),
    Open(ConnectionId),
}

#[derive(Debug)]
enum Asked {
    Subscription(usize),
    Publication(u64),
    Lobby(Visit),
    Other,
}

impl Client {
    /// A new client, which will connect.
    pub fn new(number: usize, lifetime: u64) -> Self {
        let user = number % USERS.len();
        Self {
            user: USERS[user].to_owned(),
            tenant: TENANTS[user % TENANTS.len()].to_owned(),
            state: State::Away,
            buffer: Vec::new(),
            subscribed: Vec::new(),
            asked: BTreeMap::new(),
            count: 0,
            paused: false,
            quiet: false,
            lifetime,
            token: None,
            heard: Vec::new(),
            place: None,
            lobby: Lobby::default(),
            vault_token: None,
            unsure: Vec::new(),
            opened_at: Duration::ZERO,
            back_by: Duration::ZERO,
            due: Duration::ZERO,
        }
    }

    /// The client's connection, once it is open.
    pub fn open(&self) -> Option<ConnectionId> {
        match self.state {
            State::Open(connection) => Some(connection),
            _ => None,
        }
    }

    fn is_on(&self, connection: ConnectionId) -> bool {
        match self.state {
            State::Opening(current, _) | State::Open(current) => current == connection,
            State::Away => false,
        }
    }

    /// True if the client's session on `connection` counts as established.
    fn lasted(&self, connection: ConnectionId) -> bool {
        self.open() == Some(connection) && elapsed() >= self.opened_at + LASTED
    }

    /// True while the client has time to reconnect after an established session.
    pub fn comes_back(&self) -> bool {
        elapsed() < self.back_by
    }

    /// The token that the client has sent last.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Performs the client's next action, and schedules the action after it.
    pub fn act(world: &mut World, client: usize) {
        let now = elapsed();
        if world.clients[client].due > now {
            return;
        }
        let wait = match world.clients[client].state {
            State::Away => Self::go(world, client),
            State::Opening(connection, until) if until <= now => {
                world.reset(connection);
                100
            }
            State::Opening(..) => 500,
            State::Open(connection) => Self::do_something(world, client, connection),
        };
        Self::again(world, client, Duration::from_millis(wait));
    }

    /// Schedules the client's next action, and cancels an action that was scheduled before.
    pub fn again(world: &mut World, client: usize, wait: Duration) {
        world.clients[client].due = elapsed() + wait;
        world.after(wait, Event::Client(client));
    }

    fn go(world: &mut World, client: usize) -> u64 {
        let up = world.up();
        if up.is_empty() {
            return 300;
        }
        let node = up[world.random.usize(..up.len())];
        let connection = world.connect(node, End::Client(client));
        world.arrivals.push((node, connection));
        let wire = world.record.wires.entry(connection).or_default();
        (wire.node, wire.client) = (node, client);
        Self::doubt_unanswered(world, client);
        let this = &mut world.clients[client];
        this.state = State::Opening(connection, elapsed() + PATIENCE);
        this.buffer.clear();
        this.subscribed.clear();
        this.asked.clear();
        this.lobby = Lobby::default();
        this.paused = false;
        Self::show_token(world, client, connection, "auth");
        500
    }

    fn show_token(world: &mut World, client: usize, connection: ConnectionId, command: &str) {
        let (token, written) = Self::new_token(world, client, &json!({}));
        world.clients[client].token = Some(token.clone());
        let wire = world.record.wires.entry(connection).or_default();
        wire.tokens.push(token);
        Self::say(world, connection, &json!({"type":command,"token":written}));
    }

    /// Creates a token with the claims `more` in addition to the claims of every token. Returns the
    /// token and its text.
    fn new_token(world: &mut World, client: usize, more: &Value) -> (Token, String) {
        let now = (EPOCH + elapsed()).as_secs();
        let this = &mut world.clients[client];
        this.count += 1;
        let id = format!("t{client}-{}", this.count);
        let token = Token {
            sent_at: elapsed(),
            user: this.user.clone(),
            tenant: this.tenant.clone(),
            id: id.clone(),
            issued_at: now,
            expires_at: now + this.lifetime,
        };
        let claims = json!({
            "sub": token.user, "tenant": token.tenant, "jti": id, "iat": token.issued_at,
            "exp": token.expires_at,
        });
        let key = MintKey::Secret(SECRET.as_bytes().to_vec());
        let mut claims = claims.as_object().expect("claims are an object").clone();
        claims.extend(more.as_object().expect("claims are an object").clone());
        let written = mint(&claims, None, Algorithm::HS256, &key).expect("a secret fits HS256");
        (token, written)
    }

    fn say(world: &mut World, connection: ConnectionId, message: &Value) {
        let frame = frame::of_client(TEXT, message.to_string().as_bytes());
        world.send(connection, Direction::In, frame.into());
    }

    fn ask(
        world: &mut World,
        client: usize,
        connection: ConnectionId,
        mut message: Value,
        asked: Asked,
    ) {
        let this = &mut world.clients[client];
        this.count += 1;
        message["id"] = this.count.into();
        this.asked.insert(this.count, asked);
        Self::say(world, connection, &message);
    }

    fn do_something(world: &mut World, client: usize, connection: ConnectionId) -> u64 {
        let this = &mut world.clients[client];
        if this.quiet || this.paused {
            this.paused = false;
            world.read(connection, true);
        }
        let channels = world.channels();
        let this = &mut world.clients[client];
        let missing = (0..channels).find(|channel| !this.subscribed.contains(channel));
        let asks = this
            .asked
            .values()
            .any(|asked| matches!(asked, Asked::Subscription(_)));
        if let Some(channel) = missing
            && !asks
        {
            let mut message = json!({"type":"subscribe","channel":CHANNELS[channel]});
            Self::name_place(world, client, connection, channel, &mut message);
            if channel == VAULT {
                Self::add_token(world, client, connection, &mut message);
            }
            Self::ask(
                world,
                client,
                connection,
                message,
                Asked::Subscription(channel),
            );
            return 20;
        }
        if world.record.presence.is_on
            && let Some(wait) = Self::visit(world, client, connection)
        {
            return wait;
        }
        let this = &world.clients[client];
        let left = this.token.as_ref().map_or(0, |token| token.expires_at);
        let left = left.saturating_sub((EPOCH + elapsed()).as_secs());
        if left < this.lifetime.min(60) / 2 {
            Self::show_token(world, client, connection, "refresh");
            return 200;
        }
        if let Some(number) = world.clients[client].unsure.pop() {
            Self::publish_again(world, client, connection, number);
            return 20;
        }
        if world.clients[client].quiet {
            return 2_000;
        }
        match world.random.u8(..) {
            0..=139 => {
                let most = if world.random.u8(..) < 20 { 60 } else { 6 };
                for _ in 0..world.random.usize(1..=most) {
                    Self::publish(world, client, connection);
                }
            }
            140..=169 => {
                world.clients[client].paused = true;
                world.read(connection, false);
                return world.random.u64(50..2_500);
            }
            170..=176 => Self::show_token(world, client, connection, "refresh"),
            177..=184 => {
                world.leave(connection);
            }
            185..=188 => world.reset(connection),
            189..=209 => Self::ask(
                world,
                client,
                connection,
                json!({"type":"ping"}),
                Asked::Other,
            ),
            _ => {}
        }
        world.random.u64(30..500)
    }

    /// Publishes a message with the next number.
    pub fn publish(world: &mut World, client: usize, connection: ConnectionId) {
        world.published += 1;
        let number = world.published;
        let channels = world.channels();
        let channel = world.random.usize(..channels);
        let size = if world.random.u8(..) < 40 { 3_000 } else { 40 };
        let mut message = json!({"type":"publish","channel":CHANNELS[channel],"data":[format!("#{number}"), "x".repeat(size)]});
        if world.record.streams && is_keyed(channel, number) {
            message["key"] = number.to_string().into();
        }
        let published = Published {
            channel,
            answer: None,
            executed: Vec::new(),
            attempts: vec![(elapsed(), connection)],
        };
        world.record.publications.insert(number, published);
        Self::ask(
            world,
            client,
            connection,
            message,
            Asked::Publication(number),
        );
    }

    /// Handles received bytes. An empty slice means the end of the stream.
    pub fn hear(world: &mut World, client: usize, connection: ConnectionId, bytes: &[u8]) {
        let this = &mut world.clients[client];
        if !this.is_on(connection) {
            return;
        }
        if bytes.is_empty() {
            world.leave(connection);
            Self::lost(world, client, connection);
            return;
        }
        let mut buffer = std::mem::take(&mut this.buffer);
        buffer.extend_from_slice(bytes);
        // The simulation has no upgrade, so the stream begins with frames.
        let mut at = 0;
        while let Some(frame) = frame::first(&buffer[at..]).filter(|frame| frame.whole) {
            Self::take(world, client, connection, frame.opcode, frame.payload);
            at += frame.size;
        }
        buffer.drain(..at);
        world.clients[client].buffer = buffer;
    }

    fn take(
        world: &mut World,
        client: usize,
        connection: ConnectionId,
        opcode: u8,
        payload: &[u8],
    ) {
        match opcode {
            PING => {
                let pong = frame::of_client(PONG, payload);
                world.send(connection, Direction::In, pong.into());
            }
            CLOSE => {
                let code = payload
                    .get(..2)
                    .map_or(0, |code| u16::from_be_bytes([code[0], code[1]]));
                world
                    .record
                    .tell(elapsed(), format!("client {client} is closed with {code}"));
                let close = frame::of_client(CLOSE, payload.get(..2).unwrap_or_default());
                world.send(connection, Direction::In, close.into());
            }
            TEXT if payload.starts_with(MESSAGE) => {
                let heard = marker(payload).map(|number| (connection, number));
                let streams = world.record.streams;
                let this = &mut world.clients[client];
                this.heard.extend(heard);
                if streams {
                    this.move_on(payload);
                }
            }
            TEXT => {
                let message: Value = serde_json::from_slice(payload).expect("nodes write JSON");
                Self::take_message(world, client, connection, &message);
            }
            _ => {}
        }
    }

    fn take_message(world: &mut World, client: usize, connection: ConnectionId, message: &Value) {
        let this = &mut world.clients[client];
        let asked = message["id"].as_u64().and_then(|id| this.asked.remove(&id));
        match (message["type"].as_str().unwrap_or_default(), asked) {
            ("connected", _) => {
                this.state = State::Open(connection);
                this.opened_at = elapsed();
                let told = format!("client {client} ({}) connected", this.user);
                world.record.tell(elapsed(), told);
                Self::again(world, client, Duration::from_millis(5));
            }
            ("ok", Some(Asked::Subscription(channel))) => {
                this.subscribed.push(channel);
                this.begin_at(message);
            }
            (kind, Some(Asked::Lobby(visit))) => {
                this.visited(visit, kind);
                if kind == "error" {
                    let told = format!("client {client} is told {message} to {visit:?}");
                    world.record.tell(elapsed(), told);
                }
            }
            ("gap", _) => this.begin_at(message),
            ("unsubscribed", _) => Self::leave_vault(world, client, message),
            (kind @ ("ok" | "error"), Some(Asked::Publication(number))) => {
                let code = match kind {
                    "ok" => "ok",
                    _ => message["code"].as_str().unwrap_or_default(),
                };
                if let Some(published) = world.record.publications.get_mut(&number) {
                    published.answer = Some(code.to_owned());
                    if code == "unknown_outcome" && world.record.streams {
                        this.doubt(published.channel, number);
                    }
                }
            }
            ("auth_failed" | "error" | "closing", _) => {
                world
                    .record
                    .tell(elapsed(), format!("client {client} is told {message}"));
            }
            _ => {}
        }
    }

    /// Handles the end of the client's connection.
    pub fn lost(world: &mut World, client: usize, connection: ConnectionId) {
        // A client without access tries again, but rarely if it is quiet. An established session
        // may have ended with its token, so its client soon reconnects with another token.
        let lasted = world.clients[client].lasted(connection);
        let slow = if world.clients[client].quiet && !lasted {
            4
        } else {
            1
        };
        if lasted {
            world.clients[client].back_by = elapsed() + BACK;
        }
        let wait = Duration::from_millis(world.random.u64(20..900) * slow);
        let this = &mut world.clients[client];
        if this.is_on(connection) {
            this.state = State::Away;
            Self::again(world, client, wait);
        }
    }
}
