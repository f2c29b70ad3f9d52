//! Subscribes many connections at once.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::connections::{Connections, Happened};
use crate::fan::PATIENCE;
use crate::wire;

/// Subscribes each connection to its channels, and waits for all answers. `answered` is called with
/// the index of a connection and its answer.
///
/// # Errors
///
/// A subscription is refused, a connection ends, or the gateway takes too long.
pub(crate) fn all<Channels: IntoIterator<Item = String>>(
    connections: &mut Connections,
    channels_of: impl Fn(usize) -> Channels,
    mut answered: impl FnMut(usize, &[u8]),
) -> anyhow::Result<()> {
    let count = connections.count();
    let dialect = connections.dialect();
    let mut unanswered = 0_usize;
    for slot in 0..count {
        for channel in channels_of(slot) {
            connections.queue(slot, &wire::text(&dialect.subscribe(&channel)));
            unanswered += 1;
        }
        connections.flush(slot);
    }
    let deadline = Instant::now() + PATIENCE;
    while unanswered > 0 {
        let mut failed = None;
        connections.turn(
            Duration::from_millis(100),
            |slot, happened| match happened {
                Happened::Other(reply) if reply.starts_with(dialect.ok()) => {
                    unanswered -= 1;
                    answered(slot, reply);
                }
                other => failed = Some(format!("connection {slot} was not subscribed: {other}")),
            },
        )?;
        if let Some(why) = failed {
            bail!("{why}");
        }
        if Instant::now() > deadline {
            bail!("the gateway takes too long to subscribe {count} connections");
        }
    }
    Ok(())
}
