use super::*;
use std::time::Duration;

use curfew_model::{Epoch, Position};

use crate::{ChannelInfo, Delivered, Join, Joined, ReadPart};

#[test]
fn a_publication_is_encoded_once_per_protocol() {
    let harness = Harness::new();
    let room = channel("room");
    let members: Vec<_> = (0..20)
        .map(|at| {
            let protocol = if at % 2 == 0 { "one" } else { "two" };
            let member = harness.register(&principal("u", "t", 1, "{}"), protocol);
            assert!(member.outbox().open(Lanes::default()));
            harness.hub.subscribe(&room, &member);
            member
        })
        .collect();
    assert_eq!(
        harness.publish(&room, "x"),
        Delivered {
            queued: 20,
            dropped: 0
        }
    );
    assert_eq!(
        harness.protocols.each_ref().map(|plain| plain.encoded()),
        [1, 1]
    );
    let frames: Vec<_> = members
        .iter()
        .flat_map(|member| harness.drain(member))
        .collect();
    assert_eq!(payloads(&frames), ["x"; 20]);
}

#[test]
fn a_publication_nobody_listens_to_is_not_encoded() {
    let harness = Harness::new();
    harness.open("u");
    assert_eq!(
        harness.publish(&channel("empty"), "x"),
        Delivered::default()
    );
    assert_eq!(harness.protocols[0].encoded(), 0);
}

#[test]
fn publications_keep_their_order_within_a_channel() {
    let harness = Harness::new();
    let (room, other) = (channel("room"), channel("other"));
    let member = harness.open("u");
    harness.hub.subscribe(&room, &member);
    harness.hub.subscribe(&other, &member);
    let mut expect = Vec::new();
    for at in 0..50 {
        let data = at.to_string();
        harness.publish(if at % 3 == 0 { &other } else { &room }, &data);
        expect.push(data);
    }
    assert_eq!(payloads(&harness.drain(&member)), expect);
}

#[test]
fn publications_of_one_publisher_keep_their_order_while_others_publish() {
    let harness = Arc::new(Harness::with_limits(1 << 20, 0));
    let room = channel("room");
    let members: Vec<_> = (0..4).map(|_| harness.open("u")).collect();
    members
        .iter()
        .for_each(|member| harness.hub.subscribe(&room, member));
    std::thread::scope(|scope| {
        for publisher in 0..3 {
            let (harness, room) = (&harness, &room);
            scope.spawn(move || {
                for at in 0..300 {
                    harness.publish(room, &format!("{publisher} {at:03}"));
                }
            });
        }
    });
    for member in &members {
        let got = payloads(&harness.drain(member));
        assert_eq!(got.len(), 900);
        for publisher in ["0 ", "1 ", "2 "] {
            let own: Vec<_> = got
                .iter()
                .filter(|data| data.starts_with(publisher))
                .collect();
            assert!(own.is_sorted() && own.len() == 300);
        }
    }
    assert_eq!(harness.hub.queued_bytes(), 0);
}

#[test]
fn a_session_gets_nothing_before_it_is_open_nor_after_it_unsubscribed() {
    let harness = Harness::new();
    let room = channel("room");
    let member = harness.register(&principal("u", "t", 1, "{}"), "one");
    harness.hub.subscribe(&room, &member);
    assert_eq!(
        harness.publish(&room, "early"),
        Delivered {
            queued: 0,
            dropped: 1
        }
    );
    assert!(member.outbox().open(Lanes::default()));
    assert_eq!(harness.publish(&room, "now").queued, 1);
    assert!(harness.hub.unsubscribe(&room, &member));
    assert_eq!(harness.publish(&room, "late"), Delivered::default());
    assert_eq!(payloads(&harness.drain(&member)), ["now"]);
    assert_eq!(harness.dropped(DropReason::Closed), 1);
}

#[test]
fn only_the_last_listener_to_leave_is_the_last() {
    let harness = Harness::new();
    let room = channel("room");
    let members: Vec<_> = (0..3).map(|_| harness.open("u")).collect();
    members
        .iter()
        .for_each(|member| harness.hub.subscribe(&room, member));
    harness.hub.subscribe(&room, &members[0]);
    assert_eq!(
        harness.hub.channels(),
        [ChannelInfo {
            channel: room.clone(),
            subscribers: 3
        }],
        "a session that subscribes twice is counted once"
    );
    assert!(!harness.hub.unsubscribe(&room, &members[0]));
    assert!(!harness.hub.unsubscribe(&room, &members[0]));
    assert!(!harness.hub.unsubscribe(&room, &members[1]));
    assert!(harness.hub.has_subscribers(&room));
    assert!(harness.hub.unsubscribe(&room, &members[2]));
    // A gap may have removed the last listener without telling the caller.
    assert!(harness.hub.unsubscribe(&room, &members[2]));
    assert!(!harness.hub.has_subscribers(&room) && harness.hub.channel_count() == 0);
}

fn metric(harness: &Harness, name: &str) -> f64 {
    let text = harness.metrics.registry().encode();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value
        .expect("the metric is exported")
        .trim()
        .parse()
        .unwrap()
}

fn deliveries_timed(harness: &Harness) -> f64 {
    let name = "curfew_delivery_duration_seconds_count{path=\"local\"}";
    metric(harness, name)
}

#[test]
fn the_first_delivery_and_one_in_so_many_is_timed_until_it_is_written() {
    let harness = Harness::new();
    let room = channel("room");
    let members: Vec<_> = (0..10).map(|_| harness.open("u")).collect();
    for member in &members {
        harness.hub.subscribe(&room, member);
    }
    for _ in 0..5 {
        harness.publish(&room, "x");
    }
    // The socket has room for two frames and a part of the third.
    const SOME: usize = 8;
    for member in &members {
        let mut socket = Pipe::with_room(SOME);
        let progress = harness.write(member, &mut socket);
        assert!(matches!(progress, Progress::Blocked { wrote: true }));
    }
    assert_eq!(
        deliveries_timed(&harness),
        0.0,
        "no timed publication is written yet"
    );
    for member in &members {
        assert!(matches!(
            harness.write(member, &mut Pipe::default()),
            Progress::Done
        ));
    }
    // The 1st, the 27th and the 47th of 50 deliveries are timed. The last two deliveries are to one
    // session, and only the older of them is observed.
    assert_eq!(deliveries_timed(&harness), 2.0);
    assert_eq!(metric(&harness, "curfew_send_queue_messages_count"), 2.0);
    assert_eq!(metric(&harness, "curfew_send_queue_messages_sum"), 10.0);
}

#[test]
fn a_stream_that_is_being_joined_does_not_end() {
    let harness = Harness::new();
    let (room, member) = (channel("room"), harness.open("u"));
    let position = Position {
        epoch: Epoch::from_random(1),
        offset: 0,
    };
    let joining = harness
        .hub
        .begin_join(&room, 10, Duration::from_secs(60), Duration::ZERO);
    harness.hub.end_stream(&room);
    assert!(harness.hub.has_subscribers(&room));
    let part = ReadPart {
        position,
        doubts: harness.hub.doubts(&room),
        publications: &[],
    };
    assert!(harness.hub.ingest(&room, part, |_| {}).is_some());
    let joined = harness.hub.join(
        &joining,
        &room,
        joins::subscriber(&member, None),
        None,
        false,
        |_, _| None,
    );
    let expect = Joined {
        position: Some(position),
        recovered: None,
        is_delta: false,
        was_read: false,
    };
    assert_eq!(joined, Join::Done(expect));
    drop(joining);
    // The stream ends after its last listener, and a new join begins a new feed.
    assert!(harness.hub.unsubscribe(&room, &member));
    harness.hub.end_stream(&room);
    assert_eq!(harness.hub.reached(&room), None);
    let _again = harness
        .hub
        .begin_join(&room, 10, Duration::from_secs(60), Duration::ZERO);
    assert_eq!(harness.hub.reached(&room), None);
}
