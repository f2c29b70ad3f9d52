//! The cost of decoding commands and of encoding pushes.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BatchSize, Criterion};
use curfew_hub::Wire;
use curfew_model::{Channel, DataForm, Message, Push};
use curfew_protocol::Protocol as _;
use curfew_protocol::native::Native;
use curfew_ws::frame;
use curfew_ws::{Decoder, Input, Limits};

/// Size of the data as JSON, including its quotes.
const DATA_BYTES: usize = 64;

fn data() -> String {
    format!("\"{}\"", "x".repeat(DATA_BYTES - 2))
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let publish = format!(
        r#"{{"type":"publish","id":7,"channel":"room:1","data":{}}}"#,
        data()
    );
    for (name, text) in [
        ("publish", publish.as_str()),
        (
            "subscribe",
            r#"{"type":"subscribe","id":1,"channel":"room:1"}"#,
        ),
        ("ping", r#"{"type":"ping"}"#),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let request = Native.decode(&mut Message::Text(black_box(text)));
                // The closure returns only the success, because decoded values borrow from the
                // text.
                black_box(&request).is_ok()
            });
        });
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let channel = Channel::parse("room:1").expect("the channel's name is valid");
    let data = data();
    let push = Push::Message {
        channel: &channel,
        data: data.as_bytes(),
        from: Some("alice"),
        position: None,
        sender: None,
        form: DataForm::Plain,
    };
    let mut group = criterion.benchmark_group("encode");
    group.bench_function("message", |bencher| {
        let mut out = BytesMut::with_capacity(1024);
        bencher.iter(|| {
            out.clear();
            Native.encode_push(black_box(&push), &mut out);
            out.len()
        });
    });
    group.bench_function("message as a frame", |bencher| {
        let wire = Wire::websocket(Native);
        bencher.iter(|| wire.push(black_box(&push)));
    });
    group.bench_function("text frame of 64 bytes", |bencher| {
        bencher.iter(|| frame::text(black_box(data.as_bytes())));
    });
    group.finish();
}

fn unmask(criterion: &mut Criterion) {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let payload = [b'x'; DATA_BYTES];
    let mut masked = vec![0x81, 0x80 | DATA_BYTES as u8];
    masked.extend(mask);
    masked.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    let mut group = criterion.benchmark_group("read");
    group.bench_function("masked text frame of 64 bytes", |bencher| {
        let mut decoder = Decoder::new();
        let limits = Limits::default();
        bencher.iter_batched_ref(
            || masked.clone(),
            |bytes| {
                let mut input = Input::new(bytes);
                decoder
                    .next(&mut input, &limits)
                    .is_ok_and(|event| event.is_some())
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    decode(&mut criterion);
    encode(&mut criterion);
    unmask(&mut criterion);
    criterion.final_summary();
}
