//! ST6 of presence: a subscribed session is listed, and a session that has left or was closed is
//! not. The counted users are the users of the listed sessions. Joins and leaves are delivered
//! once, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::timeline::{Kind, Line, Timeline};
use super::{Check, Violation, number_of};
use crate::record::{Listing, Visit, marker};
use crate::redis::Effect;
use crate::run::TIDY;

/// Longest time until a closed session is no longer listed, and until a subscribed session is
/// listed again.
const PROMPTLY: Duration = Duration::from_secs(1);

/// Longest time until the sessions of a crashed node are no longer listed, while another node is
/// alive.
const REAPED: Duration = Duration::from_secs(30);

/// Time after which a trouble that has ended has no further effect, except an effect that lasts
/// until nodes compare their sessions with Redis.
const SETTLED: Duration = Duration::from_secs(5);

/// Stands for the end of a period whose end is not known.
const NEVER: Duration = Duration::MAX;

/// The start and the end of a period.
type Span = (Duration, Duration);

/// One subscription of a session to the lobby.
#[derive(Debug)]
struct Stay {
    asked_at: Duration,
    /// The time at which the answer to `subscribe` was written.
    begun_at: Option<Duration>,
    /// The time at which the client asked to leave.
    leaves_at: Option<Duration>,
    /// The time of the answer that says that the subscription is over, or that it did not begin.
    over_at: Option<Duration>,
    /// True if the session asked for joins and leaves.
    is_told: bool,
}

/// A join or a leave that Redis published.
#[derive(Debug)]
struct News {
    at: Duration,
    change: String,
    session: String,
}

impl Check<'_> {
    pub(super) fn presence(&self, found: &mut Vec<Violation>) {
        let presence = &self.record.presence;
        if !presence.is_on {
            return;
        }
        let mut report = |at, what| {
            found.push(Violation {
                promise: "ST6",
                at,
                what,
            });
        };
        for (at, what) in presence.miscounted.iter().take(1) {
            report(*at, what.clone());
        }
        let mut spans = self.spans();
        let news = self.news();
        self.alternate(&news, &mut report);
        for timeline in self.lines.values() {
            let Some(session) = timeline.session.map(|session| session.to_string()) else {
                continue;
            };
            let stays = stays(timeline);
            let spans = spans.remove(&session).unwrap_or_default();
            self.listed(timeline, &stays, &spans, &mut report);
            self.gone(timeline, &stays, &spans, &mut report);
            self.answers(timeline, &mut report);
            self.changes(timeline, &session, &stays, &news, &mut report);
        }
        // The remaining sessions were listed, but no client received their ids.
        for (session, spans) in spans {
            report(
                spans[0].0,
                format!("session {session} is listed, but no client has this session"),
            );
        }
    }

    /// The periods in which each session was listed.
    fn spans(&self) -> BTreeMap<String, Vec<Span>> {
        let mut spans: BTreeMap<String, Vec<Span>> = BTreeMap::new();
        let mut before: BTreeSet<&String> = BTreeSet::new();
        for (at, listing) in &self.record.presence.listed {
            let now: BTreeSet<&String> = listing.keys().collect();
            for gone in before.difference(&now) {
                if let Some(last) = spans.get_mut(*gone).and_then(|spans| spans.last_mut()) {
                    last.1 = *at;
                }
            }
            for new in now.difference(&before) {
                spans
                    .entry((*new).clone())
                    .or_default()
                    .push((*at, self.record.ended_at));
            }
            before = now;
        }
        for spans in spans.values_mut() {
            spans.retain(|(from, until)| from < until);
        }
        spans.retain(|_, spans| !spans.is_empty());
        spans
    }

    /// True if no trouble concerns the period from `from` to `until`.
    fn is_healthy(&self, from: Duration, until: Duration) -> bool {
        self.last_trouble(from, until).is_none()
    }

    /// The end of the last trouble that was under way between `from` and `until`, or ended shortly
    /// before `from`. A crash counts as trouble.
    fn last_trouble(&self, from: Duration, until: Duration) -> Option<Duration> {
        let since = from.saturating_sub(SETTLED);
        let concern = |from: Duration, end: Duration| from <= until && end >= since;
        let troubles = self.record.troubles.iter();
        let troubles = troubles
            .filter(|trouble| concern(trouble.from, trouble.until))
            .map(|trouble| trouble.until);
        let crashes = self.record.crashed.values().copied();
        troubles.chain(crashes.filter(|at| concern(*at, *at))).max()
    }

    /// The earliest of three times: the end of the connection, the crash of its process and the end
    /// of the run.
    fn end(&self, timeline: &Timeline<'_>) -> Duration {
        let wire = timeline.wire;
        let crashed = self.record.crashed.get(&wire.node).copied();
        wire.ended_at
            .unwrap_or(NEVER)
            .min(crashed.unwrap_or(NEVER))
            .min(self.record.ended_at)
    }

    /// Checks that a session is listed while it is subscribed and receives frames.
    fn listed(
        &self,
        timeline: &Timeline<'_>,
        stays: &[Stay],
        spans: &[Span],
        report: &mut impl FnMut(Duration, String),
    ) {
        let end = self.end(timeline);
        for stay in stays {
            let Some(begun_at) = stay.begun_at else {
                continue;
            };
            let until = stay.leaves_at.unwrap_or(NEVER).min(end);
            let is_new = |gap: &Span| gap.0 == begun_at;
            for gap in gaps(spans, (begun_at, until)) {
                let access = timeline.lines.iter().filter(|line| line.kind.is_access());
                let alive = access.map(|line| line.at).filter(|at| *at < gap.1);
                let Some(alive_at) = alive.max() else {
                    continue;
                };
                let late = match self.last_trouble(stay.asked_at.max(gap.0), alive_at) {
                    None if is_new(&gap) => true,
                    None => alive_at > gap.0 + PROMPTLY,
                    Some(end) => alive_at > end.max(gap.0) + TIDY,
                };
                if late {
                    let what = format!(
                        "session {:?} of process {} is subscribed since {begun_at:?}, but not listed, and still got a frame at {alive_at:?}",
                        timeline.session, timeline.wire.node
                    );
                    report(gap.0, what);
                }
            }
        }
    }

    /// Checks that a session is not listed while it is not subscribed.
    fn gone(
        &self,
        timeline: &Timeline<'_>,
        stays: &[Stay],
        spans: &[Span],
        report: &mut impl FnMut(Duration, String),
    ) {
        let end = self.end(timeline);
        let allowed: Vec<Span> = stays
            .iter()
            .map(|stay| (stay.asked_at, stay.over_at.unwrap_or(NEVER).min(end)))
            .collect();
        let node = timeline.wire.node;
        let crashed = self.record.crashed.get(&node).copied();
        for (from, until) in spans.iter().flat_map(|span| gaps(&allowed, *span)) {
            let answered = stays.iter().any(|stay| stay.over_at == Some(from));
            let is_late = match crashed {
                Some(at) if at < until => {
                    let since = from.max(at);
                    let since = self.last_trouble(since, until).unwrap_or(since).max(since);
                    until > since + REAPED && self.another_lives(node, since, since + REAPED)
                }
                _ => match self.last_trouble(from, (from + PROMPTLY).min(until)) {
                    None => answered || until > from + PROMPTLY,
                    Some(_) => {
                        let end = self.last_trouble(from, until).unwrap_or(from);
                        until > end.max(from) + TIDY
                    }
                },
            };
            if is_late {
                let what = format!(
                    "session {:?} of process {node} (crash: {crashed:?}) is listed from {from:?} to {until:?}, but not subscribed",
                    timeline.session
                );
                report(from, what);
            }
        }
    }

    /// True if another process runs during the whole period.
    fn another_lives(&self, node: usize, from: Duration, until: Duration) -> bool {
        self.record.reloads.iter().any(|begun| {
            let crashed = self.record.crashed.get(&begun.node);
            begun.node != node && begun.at <= from && crashed.is_none_or(|at| *at > until)
        })
    }

    /// Checks that every list that a client received was the list in Redis at some time between the
    /// request and the answer.
    fn answers(&self, timeline: &Timeline<'_>, report: &mut impl FnMut(Duration, String)) {
        for line in timeline.lines.iter().filter(|line| is_list(line)) {
            let answer: Value = serde_json::from_slice(line.payload).unwrap_or_default();
            let asked_at = answer["id"].as_u64().and_then(|id| {
                let (asked_at, _) = timeline.wire.visits.get(&id)?;
                Some(*asked_at)
            });
            let sessions = answer["sessions"].as_array().into_iter().flatten();
            let of =
                |member: &Value, name: &str| member[name].as_str().unwrap_or_default().to_owned();
            let told: BTreeMap<String, String> = sessions
                .map(|member| (of(member, "session"), of(member, "user")))
                .collect();
            let users: BTreeSet<&String> = told.values().collect();
            let counted = answer["users"] == users.len() && answer["truncated"] == false;
            let known = |asked_at: Duration| {
                let listed = &self.record.presence.listed;
                let first = listed.partition_point(|(at, _)| *at <= asked_at);
                let empty = Listing::new();
                let before = match first {
                    0 => &empty,
                    _ => &listed[first - 1].1,
                };
                let meanwhile = listed[first..].iter().take_while(|(at, _)| *at <= line.at);
                let mut all = [before]
                    .into_iter()
                    .chain(meanwhile.map(|(_, listing)| listing));
                all.any(|listing| {
                    let entries = listing.iter();
                    entries
                        .map(|(session, entry)| (session, &entry.user))
                        .eq(&told)
                })
            };
            if !counted || !asked_at.is_some_and(known) {
                report(
                    line.at,
                    format!(
                        "Redis had no such list between request and answer: {}",
                        line.shown()
                    ),
                );
            }
        }
    }

    /// All joins and leaves, in the order in which Redis published them.
    fn news(&self) -> Vec<News> {
        let published = self.record.effects.iter();
        let news = published.filter_map(|(at, _, effect)| match effect {
            Effect::Published { payload, .. } if payload.starts_with(br#"{"v":3,"change":""#) => {
                let told: Value = serde_json::from_slice(payload).ok()?;
                Some(News {
                    at: *at,
                    change: told["change"].as_str()?.to_owned(),
                    session: told["session"].as_str()?.to_owned(),
                })
            }
            _ => None,
        });
        news.collect()
    }

    /// Checks that the joins and the leaves of each session alternate.
    fn alternate(&self, news: &[News], report: &mut impl FnMut(Duration, String)) {
        let mut last: BTreeMap<&str, (Duration, &str)> = BTreeMap::new();
        for told in news {
            let before = last.insert(&told.session, (told.at, &told.change));
            let lost = |since: Duration| {
                let mut losses = self.record.losses.iter();
                losses.any(|(at, _)| (since..=told.at).contains(at))
            };
            let follows = match before {
                None => told.change == "join" || lost(Duration::ZERO),
                Some((at, change)) => change != told.change || lost(at),
            };
            if !follows {
                let what = format!(
                    "the {} of session {} was published after {before:?}",
                    told.change, told.session
                );
                report(told.at, what);
            }
        }
    }

    /// Checks the joins and leaves that a session receives. A session that asked for them receives
    /// its own join first, and then the joins and leaves of other sessions in the order of their
    /// publication. A session that did not ask receives none.
    fn changes(
        &self,
        timeline: &Timeline<'_>,
        own: &str,
        stays: &[Stay],
        news: &[News],
        report: &mut impl FnMut(Duration, String),
    ) {
        // The index of the stay in which the session received its own join last.
        let mut joined = None;
        let mut of_others = Vec::new();
        let told = timeline.lines.iter().filter(|line| is_news(line));
        for line in told.filter(|line| line.whole) {
            let begun = |stay: &&Stay| stay.begun_at.is_some_and(|begun| begun <= line.at);
            let stay = stays.iter().rposition(|stay| begun(&stay));
            let Some(stay) = stay.filter(|stay| stays[*stay].is_told) else {
                report(
                    line.at,
                    format!(
                        "the session did not ask for joins and leaves: {}",
                        line.shown()
                    ),
                );
                return;
            };
            let message: Value = serde_json::from_slice(line.payload).unwrap_or_default();
            let of = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
            let (change, session) = (of("type"), of("session"));
            if session != own && joined == Some(stay) {
                of_others.push((line, change, session));
            } else if session == own && change == "join" && joined != Some(stay) {
                joined = Some(stay);
            } else {
                report(
                    line.at,
                    format!(
                        "the session's own join is missing or repeated: {}",
                        line.shown()
                    ),
                );
                return;
            }
        }
        // The search runs backwards and takes the latest change that a frame may report, because a
        // session may join and leave repeatedly.
        let mut next = news.len();
        for (line, change, session) in of_others.iter().rev() {
            let is_it = |news: &News| {
                news.change == *change && news.session == *session && news.at <= line.at
            };
            let Some(at) = news[..next].iter().rposition(is_it) else {
                report(
                    line.at,
                    format!("received in another order than published: {}", line.shown()),
                );
                return;
            };
            self.none_is_lost(timeline, own, stays, &news[at + 1..next], report);
            next = at;
        }
        self.none_is_lost(timeline, own, stays, &news[..next], report);
    }

    /// Reports the changes in `passed` that the session should have received: it had asked for
    /// joins and leaves, and no trouble excuses the loss.
    fn none_is_lost(
        &self,
        timeline: &Timeline<'_>,
        own: &str,
        stays: &[Stay],
        passed: &[News],
        report: &mut impl FnMut(Duration, String),
    ) {
        let end = self.end(timeline);
        for news in passed.iter().filter(|news| news.session != own) {
            // The session receives changes of other sessions only after its own join.
            let joined_at = |begun_at: Duration| {
                let own_join = |line: &&Line<'_>| {
                    line.at >= begun_at && is_news(line) && line.shown().contains(own)
                };
                timeline.lines.iter().find(own_join).map(|line| line.at)
            };
            let listens = stays.iter().any(|stay| {
                stay.is_told
                    && stay
                        .begun_at
                        .and_then(joined_at)
                        .is_some_and(|at| at < news.at)
                    && stay.leaves_at.unwrap_or(NEVER).min(end) > news.at + PROMPTLY
            });
            // The client has read beyond the change: a publication that Redis executed later was
            // written to the client.
            let served = timeline.lines.iter().any(|line| {
                let number = marker(line.payload).filter(|_| line.kind == Kind::Message);
                let published = number.and_then(|number| self.record.publications.get(&number));
                let executed = published.and_then(|published| published.executed.first());
                line.whole && executed.is_some_and(|at| *at > news.at)
            });
            if listens && served && self.is_healthy(news.at, news.at + PROMPTLY) {
                let what = format!(
                    "the {} of session {} did not reach session {own}",
                    news.change, news.session
                );
                report(news.at, what);
            }
        }
    }
}

fn is_list(line: &Line<'_>) -> bool {
    line.whole && line.payload.starts_with(br#"{"type":"presence""#)
}

fn is_news(line: &Line<'_>) -> bool {
    let begins = |word: &[u8]| line.payload.starts_with(word);
    begins(br#"{"type":"join""#) || begins(br#"{"type":"leave""#)
}

/// The subscriptions to the lobby that a connection has had.
fn stays(timeline: &Timeline<'_>) -> Vec<Stay> {
    let visits = &timeline.wire.visits;
    if visits.is_empty() {
        return Vec::new();
    }
    let answers = timeline.lines.iter().filter_map(|line| {
        let is_ok = line.payload.starts_with(br#"{"type":"ok""#);
        let is_answer = is_ok || line.payload.starts_with(br#"{"type":"error""#);
        let number = number_of(line.payload).filter(|_| is_answer)?;
        Some((number, (line.at, is_ok)))
    });
    let answers: BTreeMap<u64, (Duration, bool)> = answers.collect();
    let mut stays: Vec<Stay> = Vec::new();
    for (number, (sent_at, visit)) in visits {
        let answer = answers.get(number).copied();
        match (visit, stays.last_mut()) {
            (Visit::Enter(is_told), _) => stays.push(Stay {
                asked_at: *sent_at,
                begun_at: answer.filter(|(_, is_ok)| *is_ok).map(|(at, _)| at),
                leaves_at: None,
                over_at: answer.filter(|(_, is_ok)| !is_ok).map(|(at, _)| at),
                is_told: *is_told,
            }),
            // After an error, the subscription continues.
            (Visit::Leave, Some(stay)) if answer.is_none_or(|(_, is_ok)| is_ok) => {
                stay.leaves_at = Some(*sent_at);
                stay.over_at = answer.map(|(at, _)| at);
            }
            _ => {}
        }
    }
    stays
}

/// The parts of the period from `from` to `until` that no period in `covers` covers.
fn gaps(covers: &[Span], (from, until): Span) -> Vec<Span> {
    let mut covers: Vec<Span> = covers.to_vec();
    covers.sort_unstable();
    let (mut at, mut gaps) = (from, Vec::new());
    for (begin, end) in covers {
        if begin > at {
            gaps.push((at, begin.min(until)));
        }
        at = at.max(end);
        if at >= until {
            break;
        }
    }
    if at < until {
        gaps.push((at, until));
    }
    gaps.retain(|(from, until)| from < until);
    gaps
}
