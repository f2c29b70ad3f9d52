//! The output of two servers, compared byte by byte except for times, ids and undefined orders.

use curfew_simulation::redis::Reply;

pub(crate) type Frames = Vec<Vec<u8>>;

/// Splits output into replies and pushes. An incomplete reply or push at the end, which a closed
/// connection may have, is left out.
pub(crate) fn split(mut bytes: &[u8]) -> Frames {
    let mut frames = Vec::new();
    while let Some((_, length)) = Reply::parse(bytes) {
        frames.push(bytes[..length].to_vec());
        bytes = &bytes[length..];
    }
    frames
}

/// Compares the frames that two servers have sent to a connection. The error shows all of them.
pub(crate) fn compare(place: usize, real: &Frames, simulated: &Frames) -> Result<(), String> {
    let mut pairs = real.iter().zip(simulated);
    let differs =
        pairs.any(|(real, simulated)| real != simulated && !alike(&read(real), &read(simulated)));
    if real.len() == simulated.len() && !differs {
        return Ok(());
    }
    let lines = |frames: &Frames| {
        let lines = frames.iter().map(|frame| format!("    {}\n", show(frame)));
        lines.collect::<String>()
    };
    Err(format!(
        "connection {place} received\n  from Redis:\n{}  from the simulated Redis:\n{}",
        lines(real),
        lines(simulated)
    ))
}

fn read(frame: &[u8]) -> Reply {
    Reply::parse(frame)
        .expect("the frame is one complete reply")
        .0
}

fn alike(real: &Reply, simulated: &Reply) -> bool {
    match (real, simulated) {
        (Reply::Integer(real), Reply::Integer(simulated)) => close(*real, *simulated),
        (Reply::Array(real), Reply::Array(simulated)) => {
            // In RESP2 a map is an array. If such a map has the key `id`, everything after this key
            // differs between the servers and is not compared.
            let (mut real, mut simulated) = (real.clone(), simulated.clone());
            for reply in [&mut real, &mut simulated] {
                if let Some(at) = reply.iter().position(|item| *item == id()) {
                    reply.truncate(at + 1);
                }
            }
            all_alike(&real, &simulated)
        }
        (Reply::Push(real), Reply::Push(simulated)) => all_alike(real, simulated),
        (Reply::Set(real), Reply::Set(simulated)) => {
            let sorted = |items: &[Reply]| {
                let mut items: Vec<String> = items.iter().map(|i| format!("{i:?}")).collect();
                items.sort();
                items
            };
            sorted(real) == sorted(simulated)
        }
        (Reply::Map(real), Reply::Map(simulated)) => {
            real.len() == simulated.len()
                && real.iter().zip(simulated).all(|(real, simulated)| {
                    real.0 == simulated.0 && (real.0 == id() || alike(&real.1, &simulated.1))
                })
        }
        _ => real == simulated,
    }
}

fn id() -> Reply {
    Reply::Bulk(b"id".to_vec())
}

fn all_alike(real: &[Reply], simulated: &[Reply]) -> bool {
    real.len() == simulated.len()
        && real
            .iter()
            .zip(simulated)
            .all(|(real, simulated)| alike(real, simulated))
}

/// True if both numbers are equal, or if both are times and nearly the same. A time is a number of
/// microseconds, milliseconds or seconds since 1970, or of milliseconds from now. Numbers that are
/// not times are small, so numbers below 20,000 must be equal.
fn close(real: i64, simulated: i64) -> bool {
    let apart = match real {
        100_000_000_000_000.. => 5_000_000,
        20_000.. => 5000,
        _ => 0,
    };
    real.abs_diff(simulated) <= apart
}

pub(crate) fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}
