//! The hub compared with a simple model, whose correctness is obvious: vectors that are searched
//! from end to end.

use curfew_model::{Disconnect, Revocation};
use proptest::prelude::*;

use super::*;
use crate::Ending;

const USERS: [&str; 3] = ["a", "b", "c"];
const CHANNELS: [&str; 3] = ["x", "y", "z"];
/// Bound of a session's queue, in bytes. A publication takes [`FRAME_BYTES`].
const LIMIT: usize = 12;
const FRAME_BYTES: usize = 3;

#[derive(Debug, Clone)]
enum Op {
    Register {
        user: usize,
        issued_at: u64,
    },
    Open(usize),
    Subscribe(usize, usize),
    Unsubscribe(usize, usize),
    Publish {
        channel: usize,
        data: u8,
    },
    /// The task writes, and the socket takes everything.
    Drain(usize),
    /// The task writes, and the socket takes one frame.
    Take(usize),
    Revoke {
        user: usize,
        before: Option<u64>,
    },
    RevokeAll {
        before: u64,
    },
    Disconnect(usize),
    Refresh {
        session: usize,
        issued_at: u64,
        works: bool,
    },
    Unregister(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let session = 0..8_usize;
    let (user, channel, issued_at) = (0..USERS.len(), 0..CHANNELS.len(), 1..6_u64);
    prop_oneof![
        3 => (user.clone(), issued_at.clone()).prop_map(|(user, issued_at)| Op::Register { user, issued_at }),
        4 => session.clone().prop_map(Op::Open),
        5 => (session.clone(), channel.clone()).prop_map(|(s, c)| Op::Subscribe(s, c)),
        2 => (session.clone(), channel.clone()).prop_map(|(s, c)| Op::Unsubscribe(s, c)),
        8 => (channel, b'0'..=b'9').prop_map(|(channel, data)| Op::Publish { channel, data }),
        3 => session.clone().prop_map(Op::Drain),
        2 => session.clone().prop_map(Op::Take),
        1 => (user, proptest::option::of(issued_at.clone())).prop_map(|(user, before)| Op::Revoke { user, before }),
        1 => issued_at.clone().prop_map(|before| Op::RevokeAll { before }),
        1 => session.clone().prop_map(Op::Disconnect),
        2 => (session.clone(), issued_at, any::<bool>())
            .prop_map(|(session, issued_at, works)| Op::Refresh { session, issued_at, works }),
        1 => session.prop_map(Op::Unregister),
    ]
}

/// A real session and its counterpart in the model.
struct Pair {
    member: Arc<Member>,
    user: usize,
    issued_at: u64,
    open: bool,
    ended: Option<Disconnect>,
    channels: Vec<usize>,
    queue: Vec<u8>,
}

struct World {
    harness: Harness,
    pairs: Vec<Pair>,
}

impl World {
    fn run(&mut self, op: &Op) {
        match *op {
            Op::Register { user, issued_at } => self.register(user, issued_at),
            Op::Publish { channel, data } => self.publish(channel, data),
            Op::Revoke { user, before } => {
                let key = RevocationKey::user(USERS[user]);
                self.revoke(&key, before, |pair| pair.user == user);
            }
            Op::RevokeAll { before } => self.revoke(&RevocationKey::All, Some(before), |_| true),
            Op::Open(at)
            | Op::Subscribe(at, _)
            | Op::Unsubscribe(at, _)
            | Op::Drain(at)
            | Op::Take(at)
            | Op::Disconnect(at)
            | Op::Unregister(at)
            | Op::Refresh { session: at, .. } => {
                if !self.pairs.is_empty() {
                    let at = at % self.pairs.len();
                    self.on_session(at, op);
                }
            }
        }
    }

    fn register(&mut self, user: usize, issued_at: u64) {
        let member = self
            .harness
            .register(&principal(USERS[user], "t", issued_at, "{}"), "one");
        self.pairs.push(Pair {
            member,
            user,
            issued_at,
            open: false,
            ended: None,
            channels: Vec::new(),
            queue: Vec::new(),
        });
    }

    fn publish(&mut self, channel_at: usize, data: u8) {
        let mut expect = crate::Delivered::default();
        for pair in &mut self.pairs {
            if !pair.channels.contains(&channel_at) {
                continue;
            }
            let bytes = pair.queue.len() * FRAME_BYTES;
            if !pair.open || pair.ended.is_some() {
                expect.dropped += 1;
            } else if bytes > 0 && bytes + FRAME_BYTES > LIMIT {
                pair.queue.clear();
                pair.ended = Some(Disconnect::SLOW_CONSUMER);
                expect.dropped += 1;
            } else {
                pair.queue.push(data);
                expect.queued += 1;
            }
        }
        let text = char::from(data).to_string();
        let delivered = self.harness.publish(&channel(CHANNELS[channel_at]), &text);
        assert_eq!(delivered, expect);
    }

    fn revoke(&mut self, key: &RevocationKey, before: Option<u64>, names: impl Fn(&Pair) -> bool) {
        let mut expect = 0;
        for pair in &mut self.pairs {
            let covered = before.is_none_or(|before| pair.issued_at <= before);
            let disconnect = match before {
                Some(before) if before == pair.issued_at => Disconnect::REAUTH_REQUIRED,
                _ => Disconnect::REVOKED,
            };
            let stays = [Some(Disconnect::REVOKED), Some(disconnect)].contains(&pair.ended);
            if names(pair) && covered && !stays {
                pair.ended = Some(disconnect);
                pair.queue.clear();
                expect += 1;
            }
        }
        let revocation = Revocation {
            before,
            ..Revocation::default()
        };
        assert_eq!(
            self.harness.hub.revoke(key, &revocation).sessions.len(),
            expect
        );
    }

    fn on_session(&mut self, at: usize, op: &Op) {
        let Self { harness, pairs } = self;
        let pair = &mut pairs[at];
        let member = &pair.member;
        match *op {
            Op::Open(_) => {
                assert_eq!(member.outbox().open(Lanes::default()), pair.ended.is_none());
                pair.open = true;
            }
            Op::Subscribe(_, channel_at) => {
                harness
                    .hub
                    .subscribe(&channel(CHANNELS[channel_at]), member);
                if !pair.channels.contains(&channel_at) {
                    pair.channels.push(channel_at);
                }
            }
            Op::Unsubscribe(_, channel_at) => {
                harness
                    .hub
                    .unsubscribe(&channel(CHANNELS[channel_at]), member);
                pair.channels.retain(|other| *other != channel_at);
            }
            Op::Drain(_) | Op::Take(_) => {
                let frames = match op {
                    Op::Drain(_) => pair.queue.len(),
                    _ => pair.queue.len().min(1),
                };
                let mut socket = Pipe::with_room(frames * FRAME_BYTES);
                let progress = harness.write(member, &mut socket);
                if let Some(disconnect) = pair.ended {
                    let ending = Ending::new(disconnect);
                    assert!(matches!(progress, Progress::End(found) if found == ending));
                    assert!(socket.taken.is_empty());
                    return;
                }
                let left = pair.queue.split_off(frames);
                let got: Vec<u8> = socket.frames().iter().map(|frame| frame[2]).collect();
                assert_eq!(got, std::mem::replace(&mut pair.queue, left));
                assert_eq!(matches!(progress, Progress::Done), pair.queue.is_empty());
            }
            Op::Disconnect(_) => {
                let ended = harness
                    .hub
                    .end(member, Ending::new(Disconnect::DISCONNECTED));
                assert_eq!(ended, pair.ended.is_none());
                pair.ended = pair.ended.or(Some(Disconnect::DISCONNECTED));
            }
            Op::Refresh {
                issued_at, works, ..
            } => {
                let new = principal(USERS[pair.user], "t", issued_at, "{}");
                harness.hub.begin_refresh(member, new);
                if works {
                    harness.hub.finish_refresh(member, &At(0));
                    pair.issued_at = issued_at;
                } else {
                    harness.hub.abandon_refresh(member);
                }
            }
            Op::Unregister(_) => {
                for channel_at in &pair.channels {
                    harness
                        .hub
                        .unsubscribe(&channel(CHANNELS[*channel_at]), member);
                }
                harness.unregister(member);
                assert_eq!(Arc::strong_count(member), 1);
                pairs.swap_remove(at);
            }
            Op::Register { .. } | Op::Publish { .. } | Op::Revoke { .. } | Op::RevokeAll { .. } => {
            }
        }
    }

    fn check(&self) {
        let hub = &self.harness.hub;
        let waiting: usize = self.pairs.iter().map(|pair| pair.queue.len()).sum();
        assert_eq!(hub.queued_bytes(), (waiting * FRAME_BYTES) as u64);
        assert_eq!(hub.count(), self.pairs.len());
        let listened: Vec<_> = (0..CHANNELS.len())
            .filter(|at| self.pairs.iter().any(|pair| pair.channels.contains(at)))
            .map(|at| CHANNELS[at].to_owned())
            .collect();
        let channels: Vec<_> = hub
            .channels()
            .iter()
            .map(|info| info.channel.to_string())
            .collect();
        assert_eq!(channels, listened);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn the_hub_does_what_the_model_does(ops in proptest::collection::vec(op(), 1..80)) {
        let mut world = World { harness: Harness::with_limits(LIMIT, 0), pairs: Vec::new() };
        for op in &ops {
            world.run(op);
            world.check();
        }
        while !world.pairs.is_empty() {
            world.on_session(0, &Op::Unregister(0));
        }
        world.check();
    }
}
