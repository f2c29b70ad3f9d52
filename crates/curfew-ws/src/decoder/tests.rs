use curfew_model::{Disconnect, Message};

use super::*;
use crate::client::Incoming;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CONTINUATION: u8 = 0x0;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const FIN: u8 = 0x80;

/// A masked frame. `first` is its first byte: FIN, the reserved bits and the opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(first, payload.len() as u64);
    frame.extend(MASK);
    frame.extend((0..).zip(payload).map(|(at, byte)| byte ^ MASK[at % 4]));
    frame
}

/// The head of a masked frame without the key. The length has its shortest form.
fn head(first: u8, length: u64) -> Vec<u8> {
    let mut head = vec![first];
    match length {
        0..126 => head.push(0x80 | length as u8),
        126..=0xffff => {
            head.push(0x80 | 126);
            head.extend((length as u16).to_be_bytes());
        }
        _ => {
            head.push(0x80 | 127);
            head.extend(length.to_be_bytes());
        }
    }
    head
}

fn close_frame(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// Feeds `chunks` to the decoder. Returns the events, and the error if there is one.
fn feed<'a>(
    decoder: &mut Decoder,
    chunks: impl IntoIterator<Item = &'a [u8]>,
    limits: &Limits,
) -> (Vec<Incoming>, Option<ProtocolError>) {
    let mut events = Vec::new();
    for chunk in chunks {
        let mut chunk = chunk.to_vec();
        let mut input = Input::new(&mut chunk);
        loop {
            match decoder.next(&mut input, limits) {
                Ok(Some(event)) => events.push(Incoming::from(event)),
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
        assert!(input.unread().is_empty() || decoder.ended);
    }
    (events, None)
}

fn whole(bytes: &[u8]) -> (Vec<Incoming>, Option<ProtocolError>) {
    feed(&mut Decoder::new(), [bytes], &Limits::default())
}

fn bytewise(bytes: &[u8]) -> (Vec<Incoming>, Option<ProtocolError>) {
    feed(&mut Decoder::new(), bytes.chunks(1), &Limits::default())
}

fn text_of(text: &str) -> Incoming {
    Incoming::Text(text.to_owned())
}

/// Asserts that the decoder stores no bytes and waits for no rest of a frame or message.
fn assert_idle(decoder: &Decoder) {
    assert!(!decoder.mid_message());
    assert_eq!(decoder.carry.capacity(), 0);
    assert!(decoder.fragments.is_none());
}

#[test]
fn an_idle_decoder_is_small_and_holds_no_heap() {
    assert!(size_of::<Decoder>() <= 64, "{}", size_of::<Decoder>());
    let mut decoder = Decoder::new();
    assert_idle(&decoder);
    for bytes in [
        frame(FIN | TEXT, b"{}"),
        [frame(TEXT, b"{"), frame(FIN, b"}")].concat(),
        frame(FIN | PING, b"x"),
    ] {
        let (events, error) = feed(&mut decoder, bytes.chunks(3), &Limits::default());
        assert_eq!((events.len(), error), (1, None));
        assert_idle(&decoder);
    }
}

#[test]
fn whole_messages_are_lent_from_where_they_were_read() {
    let mut bytes = [frame(FIN | TEXT, b"one"), frame(FIN | BINARY, b"two")].concat();
    let range = bytes.as_ptr_range();
    let mut decoder = Decoder::new();
    let mut input = Input::new(&mut bytes);
    let Ok(Some(Event::Message(Message::Text(one)))) = decoder.next(&mut input, &Limits::default())
    else {
        panic!("the first event is not a text message");
    };
    assert_eq!(one, "one");
    assert!(range.contains(&one.as_ptr()));
    let Ok(Some(Event::Message(Message::Binary(two)))) =
        decoder.next(&mut input, &Limits::default())
    else {
        panic!("the second event is not a binary message");
    };
    assert_eq!(two, b"two");
    assert!(range.contains(&two.as_ptr()));
    assert_eq!(decoder.next(&mut input, &Limits::default()), Ok(None));
    assert_idle(&decoder);
}

#[test]
fn what_a_peer_may_send_is_decoded_whole_and_byte_by_byte() {
    let longest_reason = "r".repeat(123);
    let full = "x".repeat(64 * 1024);
    let fragments: Vec<u8> = (0..64)
        .flat_map(|at| {
            let opcode = if at == 0 { TEXT } else { CONTINUATION };
            let fin = if at == 63 { FIN } else { 0 };
            frame(fin | opcode, b"ab")
        })
        .collect();
    let closed = |code, reason: &str| Incoming::Close {
        code,
        reason: reason.to_owned(),
    };
    for (name, bytes, expect) in [
        ("nothing", vec![], vec![]),
        ("empty text", frame(FIN | TEXT, b""), vec![text_of("")]),
        (
            "unicode",
            frame(FIN | TEXT, "gr\u{fc}\u{df}e".as_bytes()),
            vec![text_of("gr\u{fc}\u{df}e")],
        ),
        (
            "125, 126 and 65535 bytes",
            [125, 126, 65_535]
                .map(|length| frame(FIN | TEXT, &full.as_bytes()[..length]))
                .concat(),
            [125, 126, 65_535]
                .map(|length| text_of(&full[..length]))
                .to_vec(),
        ),
        (
            "exactly the bound",
            frame(FIN | TEXT, full.as_bytes()),
            vec![text_of(&full)],
        ),
        (
            "exactly as many fragments as allowed",
            fragments,
            vec![text_of(&"ab".repeat(64))],
        ),
        (
            "exactly the bound in fragments, empty ones among them",
            [
                frame(BINARY, &full.as_bytes()[..40_000]),
                frame(CONTINUATION, b""),
                frame(FIN, &full.as_bytes()[40_000..]),
            ]
            .concat(),
            vec![Incoming::Binary(full.clone().into_bytes())],
        ),
        (
            "control frames between fragments, a character cut in two",
            [
                frame(TEXT, b"a\xc3"),
                frame(FIN | PING, b"p"),
                frame(CONTINUATION, b"\xa4"),
                frame(FIN | PONG, b""),
                frame(FIN, b"z"),
            ]
            .concat(),
            vec![
                Incoming::Ping(b"p".to_vec()),
                Incoming::Pong(vec![]),
                text_of("a\u{e4}z"),
            ],
        ),
        (
            "largest control frame",
            frame(FIN | PING, &[7; 125]),
            vec![Incoming::Ping(vec![7; 125])],
        ),
        (
            "a close inside a fragmented message",
            [frame(TEXT, b"a"), close_frame(1001, b"")].concat(),
            vec![closed(Some(1001), "")],
        ),
        (
            "a close without a code",
            frame(FIN | CLOSE, b""),
            vec![closed(None, "")],
        ),
        (
            "the longest reason",
            close_frame(4999, longest_reason.as_bytes()),
            vec![closed(Some(4999), &longest_reason)],
        ),
        (
            "bytes behind a close are thrown away",
            [
                close_frame(1000, b"bye"),
                frame(FIN | TEXT, b"x"),
                vec![0xff; 99],
            ]
            .concat(),
            vec![closed(Some(1000), "bye")],
        ),
        (
            "many messages",
            frame(FIN | TEXT, b"m").repeat(1000),
            vec![text_of("m"); 1000],
        ),
    ] {
        assert!(
            whole(&bytes) == (expect.clone(), None),
            "{name}, decoded at once"
        );
        assert!(
            bytewise(&bytes) == (expect, None),
            "{name}, decoded byte by byte"
        );
    }
}

#[test]
fn what_a_peer_must_not_send_is_refused_whole_and_byte_by_byte() {
    use ProtocolError as E;
    let start = frame(TEXT, b"a");
    let too_many: Vec<u8> = [frame(TEXT, b""), frame(CONTINUATION, b"").repeat(64)].concat();
    let mut cases = vec![
        ("unmasked", vec![0x81, 0x02, b'h', b'i'], E::Unmasked, 1002),
        ("unmasked, empty", vec![0x89, 0x00], E::Unmasked, 1002),
        (
            "RSV1",
            frame(FIN | 0x40 | TEXT, b"x"),
            E::ReservedBits,
            1002,
        ),
        (
            "RSV2",
            frame(FIN | 0x20 | TEXT, b"x"),
            E::ReservedBits,
            1002,
        ),
        (
            "RSV3",
            frame(FIN | 0x10 | TEXT, b"x"),
            E::ReservedBits,
            1002,
        ),
        (
            "fragmented ping",
            frame(PING, b"x"),
            E::FragmentedControl,
            1002,
        ),
        (
            "fragmented close",
            frame(CLOSE, b""),
            E::FragmentedControl,
            1002,
        ),
        (
            "126-byte ping",
            frame(FIN | PING, &[0; 126]),
            E::ControlTooLarge,
            1002,
        ),
        ("64-bit pong", vec![0x8a, 0xff], E::ControlTooLarge, 1002),
        (
            "CVE-2026-27889: a length with its top bit set",
            vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0x01],
            E::LengthTopBit,
            1002,
        ),
        (
            "length 2^64 - 1",
            [&[0x82, 0xff][..], &[0xff; 8]].concat(),
            E::LengthTopBit,
            1002,
        ),
        (
            "125 bytes in 16 bits",
            vec![0x81, 0xfe, 0, 125],
            E::NonMinimalLength,
            1002,
        ),
        (
            "65535 bytes in 64 bits",
            vec![0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
            E::NonMinimalLength,
            1002,
        ),
        (
            "4 GiB declared",
            head(FIN | TEXT, 1 << 32),
            E::MessageTooLarge,
            1009,
        ),
        (
            "2^63 - 1 declared",
            head(FIN | TEXT, (1 << 63) - 1),
            E::MessageTooLarge,
            1009,
        ),
        (
            "one byte over the bound",
            head(FIN | TEXT, 65_537),
            E::MessageTooLarge,
            1009,
        ),
        (
            "one byte over the bound, by the second fragment's head",
            [frame(TEXT, &[b'x'; 65_530]), head(CONTINUATION, 7)].concat(),
            E::MessageTooLarge,
            1009,
        ),
        ("65 fragments", too_many, E::TooManyFragments, 1009),
        (
            "a continuation without a start",
            frame(FIN, b"x"),
            E::ContinuationWithoutStart,
            1002,
        ),
        (
            "a second end",
            [start.clone(), frame(FIN, b"b"), frame(FIN, b"c")].concat(),
            E::ContinuationWithoutStart,
            1002,
        ),
        (
            "a message inside a message",
            [start.clone(), frame(FIN | TEXT, b"b")].concat(),
            E::InterruptedMessage,
            1002,
        ),
        (
            "a fragmented message inside a message",
            [start.clone(), frame(BINARY, b"b")].concat(),
            E::InterruptedMessage,
            1002,
        ),
        ("1-byte close", frame(FIN | CLOSE, &[3]), E::CloseBody, 1002),
        (
            "close reason not UTF-8",
            close_frame(1000, b"\xff"),
            E::CloseReason,
            1007,
        ),
        (
            "text not UTF-8",
            frame(FIN | TEXT, b"a\xff"),
            E::InvalidUtf8,
            1007,
        ),
        (
            "a surrogate",
            frame(FIN | TEXT, b"\xed\xa0\x80"),
            E::InvalidUtf8,
            1007,
        ),
        (
            "a text that ends within a character",
            [start, frame(FIN, b"\xc3")].concat(),
            E::InvalidUtf8,
            1007,
        ),
    ];
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push((
            "reserved opcode",
            frame(FIN | opcode, b""),
            E::ReservedOpcode(opcode),
            1002,
        ));
    }
    for code in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2999, 5000, 65_535,
    ] {
        cases.push((
            "close code",
            close_frame(code, b""),
            E::CloseCode(code),
            1002,
        ));
    }
    for (name, bytes, expect, code) in cases {
        assert_eq!(whole(&bytes).1, Some(expect), "{name}, decoded at once");
        assert_eq!(
            bytewise(&bytes).1,
            Some(expect),
            "{name}, decoded byte by byte"
        );
        assert_eq!(expect.disconnect().code, code, "{name}");
        // The error does not lose earlier events.
        let (events, error) = whole(&[frame(FIN | TEXT, b"before"), bytes].concat());
        assert!(events.first() == Some(&text_of("before")), "{name}");
        assert_eq!(error, Some(expect), "{name}");
    }
}

#[test]
fn every_close_code_that_may_be_sent_is_accepted() {
    for code in (1000..=1003)
        .chain(1007..=1014)
        .chain([3000, 3999, 4000, 4999])
    {
        let (events, error) = whole(&close_frame(code, b""));
        assert_eq!((events.len(), error), (1, None), "{code}");
    }
}

#[test]
fn an_error_ends_the_decoder_and_frees_what_it_held() {
    let mut decoder = Decoder::new();
    let broken = [frame(TEXT, b"a"), frame(FIN | 3, b"")].concat();
    let (_, error) = feed(&mut decoder, [&broken[..]], &Limits::default());
    assert_eq!(error, Some(ProtocolError::ReservedOpcode(3)));
    assert_idle(&decoder);
    let (events, error) = feed(
        &mut decoder,
        [&frame(FIN | TEXT, b"x")[..]],
        &Limits::default(),
    );
    assert_eq!((events.len(), error), (0, None));
    assert_idle(&decoder);
}

#[test]
fn nothing_is_allocated_for_bytes_that_were_only_declared() {
    let limits = Limits {
        message_bytes: 1 << 30,
        fragments: 64,
    };
    let mut decoder = Decoder::new();
    let bytes = [head(FIN | BINARY, 1 << 29), MASK.to_vec(), vec![0; 100]].concat();
    assert_eq!(feed(&mut decoder, [&bytes[..]], &limits), (vec![], None));
    assert!(decoder.mid_message());
    assert!(
        decoder.carry.capacity() < 256,
        "{}",
        decoder.carry.capacity()
    );
}

#[test]
fn limits_are_those_of_the_call() {
    let tight = Limits {
        message_bytes: 3,
        fragments: 1,
    };
    let mut decoder = Decoder::new();
    let (events, error) = feed(&mut decoder, [&frame(FIN | TEXT, b"abc")[..]], &tight);
    assert_eq!((events.len(), error), (1, None));
    let (events, error) = feed(
        &mut decoder,
        [&frame(FIN | TEXT, b"abcd")[..]],
        &Limits::default(),
    );
    assert_eq!((events.len(), error), (1, None));
    let (_, error) = feed(&mut decoder, [&frame(FIN | TEXT, b"abcd")[..]], &tight);
    assert_eq!(error, Some(ProtocolError::MessageTooLarge));
    let two = [frame(TEXT, b"a"), frame(FIN, b"b")].concat();
    let (_, error) = feed(&mut Decoder::new(), [&two[..]], &tight);
    assert_eq!(error, Some(ProtocolError::TooManyFragments));
}

#[test]
fn a_caller_may_stop_after_any_event_and_go_on_later() {
    let limits = Limits::default();
    let mut bytes = [
        frame(FIN | TEXT, b"1"),
        frame(FIN | TEXT, b"2"),
        frame(FIN | TEXT, b"3"),
        frame(FIN | TEXT, b"4"),
    ]
    .concat();
    let rest = bytes.split_off(bytes.len() - 3);
    let mut decoder = Decoder::new();
    let mut events = Vec::new();

    let mut input = Input::new(&mut bytes);
    events.extend(
        decoder
            .next(&mut input, &limits)
            .unwrap()
            .map(Incoming::from),
    );
    decoder.save(input);
    // The read buffer now belongs to another connection.
    bytes.fill(0);
    for _ in 0..2 {
        let mut input = Input::empty();
        events.extend(
            decoder
                .next(&mut input, &limits)
                .unwrap()
                .map(Incoming::from),
        );
        decoder.save(input);
    }
    assert_eq!(decoder.next(&mut Input::empty(), &limits), Ok(None));
    assert!(decoder.mid_message());
    assert!(
        decoder.carry.capacity() < 16,
        "the decoder stores more than the partial frame"
    );
    let (more, error) = feed(&mut decoder, [&rest[..]], &limits);
    events.extend(more);
    assert_eq!(error, None);
    assert!(events == ["1", "2", "3", "4"].map(text_of));
    assert_idle(&decoder);
}

#[test]
fn saving_behind_an_event_lent_from_the_decoder_loses_nothing() {
    let limits = Limits::default();
    let bytes = [frame(FIN | TEXT, b"split"), frame(FIN | TEXT, b"next")].concat();
    for cut in 1..bytes.len() {
        let (mut first, mut second) = (bytes[..cut].to_vec(), bytes[cut..].to_vec());
        let mut decoder = Decoder::new();
        let mut events = Vec::new();
        for part in [&mut first, &mut second] {
            let mut input = Input::new(part);
            events.extend(
                decoder
                    .next(&mut input, &limits)
                    .unwrap()
                    .map(Incoming::from),
            );
            decoder.save(input);
        }
        while let Some(event) = decoder.next(&mut Input::empty(), &limits).unwrap() {
            events.push(Incoming::from(event));
        }
        assert!(
            events == ["split", "next"].map(text_of),
            "the input was cut at byte {cut}"
        );
        assert_idle(&decoder);
    }
}

#[test]
fn bytes_that_came_with_the_upgrade_come_first() {
    let bytes = [frame(FIN | TEXT, b"early"), frame(FIN | TEXT, b"late")].concat();
    let (early, late) = bytes.split_at(15);
    let mut decoder = Decoder::new();
    decoder.preload(early);
    let (events, error) = feed(&mut decoder, [&[][..], late], &Limits::default());
    assert_eq!(error, None);
    assert!(events == ["early", "late"].map(text_of));
}

#[test]
fn an_unfinished_frame_or_message_is_known() {
    for (bytes, expect) in [
        (frame(FIN | TEXT, b"a"), false),
        (vec![0x81], true),
        (frame(FIN | TEXT, b"abc")[..8].to_vec(), true),
        (frame(TEXT, b"a"), true),
        ([frame(TEXT, b"a"), frame(FIN | PING, b"")].concat(), true),
        ([frame(TEXT, b"a"), frame(FIN, b"")].concat(), false),
        (close_frame(1000, b""), false),
    ] {
        let mut decoder = Decoder::new();
        feed(&mut decoder, [&bytes[..]], &Limits::default());
        assert_eq!(decoder.mid_message(), expect, "{bytes:x?}");
    }
}

#[test]
fn chunks_do_not_matter() {
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..300 {
        let bytes = random_traffic(&mut random);
        let expect = whole(&bytes);
        let mut decoder = Decoder::new();
        let mut rest = &bytes[..];
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at(random.usize(1..=rest.len().min(4000)));
            chunks.push(chunk);
            rest = behind;
        }
        let got = feed(&mut decoder, chunks, &Limits::default());
        assert!(got == expect, "the events differ in round {round}");
    }
}

/// Messages, control frames and fragments in a valid order, occasionally with a broken byte.
fn random_traffic(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..20) {
        let length = [3, 125, 126, 2000, 65_536][random.usize(0..5)];
        let payload: Vec<u8> = (0..random.usize(0..=length))
            .map(|_| random.u8(0..128))
            .collect();
        match random.u8(0..4) {
            0 => bytes.extend(frame(FIN | TEXT, &payload)),
            1 => bytes.extend(frame(FIN | PING, &payload[..payload.len().min(125)])),
            2 => bytes.extend(frame(FIN | BINARY, &payload)),
            _ => {
                let cut = random.usize(0..=payload.len());
                bytes.extend(frame(TEXT, &payload[..cut]));
                bytes.extend(frame(FIN | PONG, b"between"));
                bytes.extend(frame(FIN, &payload[cut..]));
            }
        }
    }
    if random.u8(0..4) == 0 {
        let at = random.usize(0..bytes.len());
        bytes[at] = random.u8(..);
    }
    bytes
}

#[test]
fn no_bytes_make_it_panic_or_hold_more_than_they_are() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = (0..random.usize(1..64)).map(|_| random.u8(..)).collect();
        if random.bool() {
            bytes[0] = [0x81, 0x01, 0x00, 0x80, 0x88, 0x89][random.usize(0..6)];
        }
        let mut decoder = Decoder::new();
        let step = random.usize(1..8);
        let (_, error) = feed(&mut decoder, bytes.chunks(step), &Limits::default());
        assert!(decoder.carry.capacity() <= 2 * bytes.len() + 16);
        if let Some(error) = error {
            assert_ne!(error.disconnect(), Disconnect::INTERNAL);
        }
    }
}

#[test]
fn contents_never_show_in_debug_output() {
    let mut bytes = frame(FIN | TEXT, b"bearer.secret");
    let mut decoder = Decoder::new();
    let mut input = Input::new(&mut bytes);
    let event = decoder.next(&mut input, &Limits::default()).unwrap();
    assert_eq!(format!("{event:?}"), "Some(Text(13 bytes))");
    let mut partial = [0x81, 0x8f, 1, 2, 3, 4, b's'];
    let (_, error) = feed(&mut decoder, [&partial[..]], &Limits::default());
    assert_eq!(error, None);
    assert_eq!(
        format!("{decoder:?}"),
        "Decoder { kept_bytes: 7, fragments: None, ended: false, .. }"
    );
    assert_eq!(
        format!("{:?}", Input::new(&mut partial)),
        "Input { unread_bytes: 7 }"
    );
}
