//! Delta compression: a publication is sent as its difference from the previous publication.

use curfew_tests::{Cluster, Gateway, Redis, Settings};
use serde_json::{Value, json};

use super::raw::{BOTH, Encoding, Raw, bytes, content};
use super::with_channels;

/// The digits of the numbers in a delta, which are in base 64.
const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

fn settings() -> Settings {
    with_channels(
        "[[channels]]\npattern = \"delta:*\"\nhistory = { size = 100, ttl = \"10m\" }\n\
         delta = true\n\
         [[channels]]\npattern = \"whole:*\"\nhistory = { size = 100, ttl = \"10m\" }\n",
    )
}

/// The data of publication `at`. Its letters take two or four bytes each, and only a few letters
/// differ between publications.
fn data(at: usize) -> Value {
    let word = ["привет", "приветы", "прибой", "😀 😁", "😀 😂"][at % 5];
    json!({"n": at, "text": format!("{} {word} {}", "Добрый день. ".repeat(4), "ещё раз ".repeat(6))})
}

/// A subscriber with delta compression, and the data of the last publication that it received.
struct Reader {
    client: Raw,
    base: Option<Vec<u8>>,
}

impl Reader {
    /// The data of a publication, and true if it came as a delta.
    fn read(&mut self, publication: &Value) -> (String, bool) {
        // In JSON a delta is a string. In Protobuf it is bytes, and may begin or end within a
        // letter.
        let sent = content(&publication["data"]);
        let is_difference = publication["delta"] == true;
        let data = match is_difference {
            false => sent,
            true => {
                let base = self.base.as_deref().expect("a difference needs a base");
                let data = apply(base, &sent);
                assert!(sent.len() < data.len());
                data
            }
        };
        self.base = Some(data.clone());
        (String::from_utf8(data).expect("UTF-8"), is_difference)
    }

    async fn next(&mut self) -> (String, bool) {
        let publication = self.client.push("pub").await;
        self.read(&publication)
    }

    /// Expects the publications `range` next. Returns the form of each: `W` whole, `D` delta.
    async fn expect(&mut self, range: std::ops::Range<usize>) -> String {
        let mut forms = String::new();
        for at in range {
            let (text, is_difference) = self.next().await;
            assert_eq!(text, data(at).to_string());
            forms.push(if is_difference { 'D' } else { 'W' });
        }
        forms
    }
}

fn apply(base: &[u8], mut difference: &[u8]) -> Vec<u8> {
    let rest = &mut difference;
    let (length, _) = (number(rest), take(rest, 1));
    let mut target = Vec::new();
    loop {
        let value = number(rest);
        match take(rest, 1) {
            b"@" => {
                let from = number(rest);
                take(rest, 1);
                target.extend_from_slice(&base[from..from + value]);
            }
            b":" => target.extend_from_slice(take(rest, value)),
            _ => {
                let bytes = target.iter().enumerate();
                let sum = bytes.map(|(at, byte)| u64::from(*byte) << (24 - 8 * (at % 4)));
                assert_eq!(
                    sum.sum::<u64>() % (1 << 32),
                    value as u64,
                    "the checksum does not fit the publication"
                );
                assert_eq!(target.len(), length);
                return target;
            }
        }
    }
}

fn number(rest: &mut &[u8]) -> usize {
    let digit = |byte: &u8| DIGITS.iter().position(|digit| digit == byte);
    let digits: Vec<_> = rest.iter().map_while(digit).collect();
    take(rest, digits.len());
    digits.iter().fold(0, |number, digit| number * 64 + digit)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at(length);
    *rest = after;
    taken
}

/// Subscribes with delta compression. Returns the subscriber, and the answer to the subscription.
async fn subscribed(
    gateway: &Gateway,
    encoding: Encoding,
    channel: &str,
    since: Option<&Value>,
) -> (Reader, Value) {
    let mut client = Raw::open(gateway, encoding, "alice").await;
    let mut request = json!({"delta":"fossil","recoverable":true});
    if let Some(since) = since {
        request["recover"] = true.into();
        request["epoch"] = since["epoch"].clone();
        request["offset"] = since["offset"].clone();
    }
    let answer = client.subscribe(channel, request).await;
    (Reader { client, base: None }, answer)
}

async fn publish(gateway: &Gateway, channel: &str, range: std::ops::Range<usize>) {
    for at in range {
        gateway.publish(channel, data(at)).await;
    }
}

#[tokio::test]
async fn the_first_publication_is_whole_and_later_ones_are_differences() {
    let gateway = Gateway::start_with(&settings()).await;
    let mut native = gateway.subscriber("bob", "delta:1").await;
    let mut plain = Vec::new();
    let mut readers = Vec::new();
    for encoding in BOTH {
        let (reader, answer) = subscribed(&gateway, encoding, "delta:1", None).await;
        assert_eq!(answer["delta"], true, "{answer}");
        readers.push(reader);
        let mut client = Raw::open(&gateway, encoding, "carol").await;
        let answer = client.subscribe("delta:1", json!({})).await;
        assert_eq!(answer["delta"], Value::Null);
        plain.push((encoding, client));
    }
    publish(&gateway, "delta:1", 0..20).await;
    for reader in &mut readers {
        assert_eq!(reader.expect(0..20).await, format!("W{}", "D".repeat(19)));
    }
    // A later subscriber first gets a whole publication.
    let (mut late, _) = subscribed(&gateway, Encoding::Json, "delta:1", None).await;
    publish(&gateway, "delta:1", 20..22).await;
    assert_eq!(late.expect(20..22).await, "WD");
    assert_eq!(readers[0].expect(20..22).await, "DD");
    // Subscribers without delta compression get the whole data.
    for at in 0..22 {
        let message = native.next_json().await;
        assert_eq!(message["data"], data(at));
        for (encoding, client) in &mut plain {
            let publication = client.push("pub").await;
            assert_eq!(publication["delta"], Value::Null);
            match encoding {
                Encoding::Json => assert_eq!(publication["data"], data(at)),
                Encoding::Protobuf => {
                    let text = data(at).to_string();
                    assert_eq!(publication["data"], bytes(text.as_bytes()));
                }
            }
        }
    }
}

#[tokio::test]
async fn what_was_recovered_is_the_base_of_what_follows() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &settings()).await;
    for (encoding, channel) in BOTH.into_iter().zip(["delta:json", "delta:protobuf"]) {
        let (mut reader, answer) = subscribed(&cluster[0], encoding, channel, None).await;
        publish(&cluster[1], channel, 0..3).await;
        assert_eq!(reader.expect(0..3).await, "WDD");
        // The subscriber misses four publications, and reconnects to the other node.
        drop(reader);
        publish(&cluster[0], channel, 3..7).await;
        let since = json!({"epoch":answer["epoch"],"offset":3});
        let (mut reader, answer) = subscribed(&cluster[1], encoding, channel, Some(&since)).await;
        assert_eq!(answer["recovered"], true, "{answer}");
        let missed = answer["publications"].as_array().unwrap();
        let missed: Vec<_> = missed.iter().map(|missed| reader.read(missed)).collect();
        let expect = (3..7).map(|at| (data(at).to_string(), at > 3));
        assert!(missed.into_iter().eq(expect));
        publish(&cluster[0], channel, 7..9).await;
        assert_eq!(reader.expect(7..9).await, "DD");
        // After a recovery without publications, the next publication is whole.
        drop(reader);
        let since = json!({"epoch":answer["epoch"],"offset":9});
        let (mut reader, answer) = subscribed(&cluster[1], encoding, channel, Some(&since)).await;
        assert_eq!(answer["recovered"], true, "{answer}");
        assert_eq!(answer["publications"], Value::Null);
        publish(&cluster[0], channel, 9..11).await;
        assert_eq!(reader.expect(9..11).await, "WD");
    }
}

#[tokio::test]
async fn channels_without_the_option_send_whole_publications() {
    let gateway = Gateway::start_with(&settings()).await;
    for channel in ["whole:1", "plain"] {
        let mut client = Raw::open(&gateway, Encoding::Json, "alice").await;
        let answer = client.subscribe(channel, json!({"delta":"fossil"})).await;
        assert_eq!(answer["delta"], Value::Null, "{channel}");
        for at in 0..2 {
            gateway.publish(channel, data(at)).await;
            let publication = client.push("pub").await;
            assert_eq!(publication["data"], data(at));
            assert_eq!(publication["delta"], Value::Null);
        }
    }
}

#[tokio::test]
async fn subscriptions_that_connect_resumes_take_differences() {
    let gateway = Gateway::start_with(&settings()).await;
    for (encoding, channel) in BOTH.into_iter().zip(["delta:json", "delta:protobuf"]) {
        let (reader, answer) = subscribed(&gateway, encoding, channel, None).await;
        publish(&gateway, channel, 0..3).await;
        drop(reader);
        let subs = json!({channel:{"recover":true,"recoverable":true,"delta":"fossil",
            "epoch":answer["epoch"],"offset":1}});
        let (client, connected) = Raw::connect(&gateway, encoding, "alice", subs).await;
        let mut reader = Reader { client, base: None };
        let answer = &connected["subs"][channel];
        assert_eq!(answer["delta"], true, "{connected}");
        let missed = answer["publications"].as_array().unwrap();
        let missed: Vec<_> = missed.iter().map(|missed| reader.read(missed)).collect();
        assert!(
            missed
                .into_iter()
                .eq((1..3).map(|at| (data(at).to_string(), at > 1)))
        );
        publish(&gateway, channel, 3..5).await;
        assert_eq!(reader.expect(3..5).await, "DD");
    }
}
