//! `curfew connect`: a small interactive client.

mod dial;
mod line;
mod paint;
mod places;
mod trace;

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use curfew_model::{DISCONNECTS, Position};
use curfew_telemetry::TracePages;
use curfew_ws::client::{Client, ClientError, Incoming};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::failure::Failure;
use crate::{output, token};
use dial::Stream;
use line::{Input, Lines};
use paint::Paint;
use places::Places;
use trace::Traces;

/// Longest wait for the server's close frame after this client has sent its own.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait for answers to piped input, before this client closes.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);

/// The id of the ping that follows piped input. The server answers in order, so the ping's pong
/// comes after all other answers.
const LAST_ID: &str = "curfew-connect-end";

/// Maximum number of typed lines that wait to be sent.
const TYPED_AHEAD: usize = 64;

/// Arguments of `curfew connect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  curfew connect ws://127.0.0.1:8080/ws --token-file token --subscribe room:1
  curfew connect ws://127.0.0.1:8080/ws --token-file token --subscribe room:1 --since kdWqZx3a:42

JSON is sent unchanged; any other text is published to the most recently subscribed channel. Short forms:
/sub CHANNEL, /unsub CHANNEL, /pub CHANNEL JSON, /auth TOKEN, /refresh TOKEN, /ping, /quit, /help.

At the end, the position in each channel with history is printed on stderr, for the next --since.

Exit codes: 0 if the connection closed normally (code 1000, or by this client), else 1.")]
pub(crate) struct ConnectArgs {
    /// ws://host:port/path or wss://…; the path is /ws unless given
    url: String,
    /// The token. Other users can read it in the list of processes, so prefer --token-file or the
    /// environment variable
    #[arg(long, env = "CURFEW_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file with the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Place of the token in the request
    #[arg(long, value_name = "SOURCE", value_enum, default_value_t = TokenIn::Header)]
    token_in: TokenIn,
    /// Subscribe to this channel once connected; repeatable
    #[arg(long, value_name = "CHANNEL")]
    subscribe: Vec<String>,
    /// A position in the one channel of --subscribe: if the channel has history, the publications
    /// after this position are sent first
    #[arg(long, value_name = "EPOCH:OFFSET")]
    since: Option<Position>,
    /// A header for the upgrade request, for example `Origin: https://example.com`; repeatable
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Trust the certificates in this PEM file instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// URL of the page that shows a trace, as in the node's telemetry.trace_url: if a frame or a
    /// refusal names its trace, the URL of the trace's page is printed on stderr
    #[arg(long, value_name = "URL", env = "CURFEW_TRACE_URL")]
    trace_url: Option<TracePages>,
    /// Print received frames unchanged, and nothing else on stdout
    #[arg(long)]
    json: bool,
}

/// A way to send the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TokenIn {
    /// Authorization: Bearer
    Header,
    /// Sec-WebSocket-Protocol: curfew.v1, bearer.TOKEN
    Subprotocol,
    /// ?token=
    Query,
    /// The first frame
    Message,
}

/// The end of the connection.
enum End {
    /// The connection was closed with this code and reason, by the server or by this client.
    Closed(Option<u16>, String),
    /// This client asked to close, and the server did not answer in time.
    Unanswered,
    /// The connection broke.
    Broken(ClientError),
}

/// Connects, and stays connected until the server or this client closes the connection.
pub(crate) fn run(args: ConnectArgs) -> Result<(), Failure> {
    // The position belongs to one channel, so `--since` needs exactly one channel.
    if args.since.is_some() && args.subscribe.len() != 1 {
        return Err(Failure::usage(format!(
            "--since needs exactly one --subscribe, the channel of the position; there are {}",
            args.subscribe.len()
        )));
    }
    let token = token(&args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(talk(args, token));
    // A thread may still wait for input. The process must not wait for that thread.
    runtime.shutdown_background();
    result
}

fn token(args: &ConnectArgs) -> Result<Option<String>, Failure> {
    let token = match (&args.token_file, &args.token) {
        (Some(file), _) => token::read_file(file)?,
        (None, Some(token)) => token.clone(),
        (None, None) => return Ok(None),
    };
    Ok(Some(token.trim().to_owned()))
}

async fn talk(args: ConnectArgs, token: Option<String>) -> Result<(), Failure> {
    let paint = Paint::new(args.json);
    let mut traces = Traces::new(args.trace_url.clone());
    let client = dial::connect(&args, token.as_deref(), &mut traces).await?;
    paint.note(&format!(
        "connected to {}; /help lists the short forms",
        without_query(&args.url)
    ));
    let mut conversation = Conversation {
        client,
        paint,
        traces,
        lines: Lines::new(),
        places: Places::default(),
        subscribe: args.subscribe,
        since: args.since,
        ready: token.is_none(),
        typed: false,
        phase: Phase::Open,
    };
    if let (TokenIn::Message, Some(token)) = (args.token_in, &token) {
        let frame = conversation.lines.auth(token);
        conversation
            .client
            .send_text(&frame)
            .await
            .context("send the token")?;
    }
    let end = conversation.run(keyboard()).await?;
    for line in conversation.places.lines() {
        conversation.paint.note(&line);
    }
    match end {
        End::Closed(code, reason) => conversation.closed(code, &reason),
        End::Unanswered => {
            conversation
                .paint
                .note("closed; the server did not answer the close frame in time");
            Ok(())
        }
        End::Broken(error) => {
            let error = anyhow::Error::new(error);
            Err(Failure::Other(
                error.context("the connection ended without a close frame"),
            ))
        }
    }
}

/// The lines from stdin. A separate thread reads them, because reading a terminal blocks.
fn keyboard() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(TYPED_AHEAD);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

struct Conversation {
    client: Client<Box<dyn Stream>>,
    paint: Paint,
    traces: Traces,
    lines: Lines,
    places: Places,
    /// Channels to subscribe to as soon as the session is open.
    subscribe: Vec<String>,
    /// The position from which the channel in `subscribe` is recovered, if `--since` is given.
    since: Option<Position>,
    /// True if lines from stdin may be sent. If a token is given, lines wait for the server's first
    /// frame, so that piped input does not overtake the subscriptions.
    ready: bool,
    /// True if anything came from stdin.
    typed: bool,
    phase: Phase,
}

/// The phases of the conversation.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// stdin is read and the connection is open.
    Open,
    /// stdin has ended. The answers to the lines from stdin are awaited until this time.
    Settling(Instant),
    /// A close frame was sent. The server's close frame is awaited until this time.
    Closing(Instant),
}

impl Conversation {
    async fn run(&mut self, mut keyboard: mpsc::Receiver<String>) -> Result<End, Failure> {
        let mut listening = true;
        loop {
            let deadline = match self.phase {
                Phase::Open => None,
                Phase::Settling(until) | Phase::Closing(until) => Some(until),
            };
            tokio::select! {
                biased;
                incoming = self.client.next() => match incoming {
                    Ok(Incoming::Close { code, reason }) => return Ok(End::Closed(code, reason)),
                    Ok(incoming) => self.show(incoming).await?,
                    Err(ClientError::Ended) if self.is_closing() => return Ok(End::Unanswered),
                    Err(error) => return Ok(End::Broken(error)),
                },
                line = keyboard.recv(), if listening && self.ready => match line {
                    Some(line) => {
                        self.typed = true;
                        self.send(&line).await;
                    }
                    None => {
                        listening = false;
                        self.end_of_input().await;
                    }
                },
                _ = tokio::signal::ctrl_c() => {
                    if self.is_closing() {
                        return Ok(End::Unanswered);
                    }
                    self.close().await;
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    if self.is_closing() {
                        return Ok(End::Unanswered);
                    }
                    self.close().await;
                }
            }
        }
    }

    /// Handles the end of stdin. At a terminal, the end of input closes the connection at once.
    /// After piped input, the answers to this input are awaited first. If there was no input at
    /// all, the client continues to receive.
    async fn end_of_input(&mut self) {
        if std::io::stdin().is_terminal() {
            self.close().await;
        } else if self.typed && !self.is_closing() {
            self.phase = Phase::Settling(Instant::now() + SETTLE_TIMEOUT);
            self.send_text(&json!({ "type": "ping", "id": LAST_ID }).to_string())
                .await;
        }
    }

    fn is_last_answer(&self, text: &str) -> bool {
        let settling = matches!(self.phase, Phase::Settling(_));
        settling && serde_json::from_str::<Value>(text).is_ok_and(|frame| frame["id"] == LAST_ID)
    }

    fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing(_))
    }

    /// Prints a received message. The first `connected` frame triggers the subscriptions.
    async fn show(&mut self, incoming: Incoming) -> Result<(), Failure> {
        match incoming {
            // The client sent its ping last, so the pong is the last of all answers.
            Incoming::Text(text) if self.is_last_answer(&text) => self.close().await,
            Incoming::Text(text) => {
                let kind = paint::kind(&text);
                output::print(&format!("{}\n", self.paint.frame(&kind, &text)))?;
                let remarks = [self.places.received(&text), self.traces.line(&text)];
                for remark in remarks.into_iter().flatten() {
                    self.paint.note(&remark);
                }
                if kind == "connected" {
                    for channel in std::mem::take(&mut self.subscribe) {
                        let frame = self.lines.subscribe(&channel, self.since.take());
                        self.send_text(&frame).await;
                    }
                }
                self.ready = true;
            }
            Incoming::Binary(data) => {
                self.paint
                    .note(&format!("a binary message of {} bytes", data.len()));
            }
            // The [`Client`] has already handled control frames, and they do not concern the
            // session.
            Incoming::Ping(_) | Incoming::Pong(_) | Incoming::Close { .. } => {}
        }
        Ok(())
    }

    /// Acts on a line from stdin.
    async fn send(&mut self, line: &str) {
        match self.lines.read(line) {
            Input::Nothing => {}
            Input::Send(text) => self.send_text(&text).await,
            Input::Help => self.paint.note(line::HELP),
            Input::Wrong(message) => self.paint.note(&message),
            Input::Quit => self.close().await,
        }
    }

    /// Sends a text. A failure is ignored, because the next read reports its reason.
    async fn send_text(&mut self, text: &str) {
        self.places.sent(text);
        self.client.send_text(text).await.ok();
    }

    async fn close(&mut self) {
        if !self.is_closing() {
            self.phase = Phase::Closing(Instant::now() + CLOSE_TIMEOUT);
            self.client.close(1000, "").await.ok();
        }
    }

    fn closed(&self, code: Option<u16>, reason: &str) -> Result<(), Failure> {
        let mut text = match code {
            Some(code) => format!("closed: {code}"),
            None => "closed without a code".to_owned(),
        };
        if !reason.is_empty() {
            text.push_str(&format!(" {reason}"));
        }
        let known = DISCONNECTS.iter().find(|known| Some(known.code) == code);
        if let Some(known) = known {
            if reason != known.reason {
                text.push_str(&format!(" {}", known.reason));
            }
            text.push_str(&format!(
                ": {}; reconnect: {}",
                known.message,
                known.advice.as_str()
            ));
        }
        self.paint.note(&text);
        match code {
            None | Some(1000) => Ok(()),
            _ if self.is_closing() => Ok(()),
            Some(_) => Err(Failure::Told(1)),
        }
    }
}

/// The URL without its query, because a query may hold a token.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}
