//! Checks of [`Relay`](crate::Relay).

use bytes::Bytes;
use curfew_model::NodeId;

use super::cluster::{Cluster, eventually};
use crate::{Backends, Relayed};

/// A message may consist of any bytes, including bytes that are not text.
const MESSAGE: &[u8] = b"\0\xff\r\nmessage";

/// Sends a message to the node `to`. Returns `None` if that node is not live.
async fn send(from: &Backends, to: NodeId, message: &[u8]) -> Option<Relayed> {
    let message = Bytes::copy_from_slice(message);
    from.relay.relay(to, message).await.expect("send a message")
}

pub(super) async fn a_message_reaches_the_node_that_is_named_and_no_other(cluster: Cluster) {
    for (member, recorder) in cluster.members.iter().zip(&cluster.recorders) {
        for from in &cluster.members {
            let sent = send(&from.backends, member.node, MESSAGE).await;
            assert_eq!(sent, Some(Relayed::Taken));
        }
        assert_eq!(recorder.relayed().len(), cluster.members.len());
        assert!(recorder.relayed().iter().all(|message| message == MESSAGE));
    }
}

pub(super) async fn messages_that_are_awaited_arrive_in_order_and_once(cluster: Cluster) {
    let to = cluster.members[cluster.members.len() - 1].node;
    let mut sent = Vec::new();
    for n in 0..50_u8 {
        let from = &cluster.members[usize::from(n) % cluster.members.len()].backends;
        send(from, to, &[n]).await;
        sent.push(Bytes::from(vec![n]));
    }
    assert_eq!(cluster.last_recorder().relayed(), sent);
}

pub(super) async fn the_answer_is_what_came_of_the_message(cluster: Cluster) {
    let to = cluster.members[cluster.members.len() - 1].node;
    for answer in [Relayed::Unknown, Relayed::Refused, Relayed::Taken] {
        cluster.last_recorder().answer_relayed(answer);
        assert_eq!(send(cluster.first(), to, MESSAGE).await, Some(answer));
    }
}

pub(super) async fn a_node_that_is_not_there_is_told_apart(cluster: Cluster) {
    assert_eq!(send(cluster.first(), NodeId::new(), MESSAGE).await, None);
    let Some(gone) = cluster.members[1..].last() else {
        // A cluster of one node has no other node that could leave.
        return;
    };
    gone.backends.nodes.leave().await;
    eventually("the node that left is no longer live", async || {
        let message = Bytes::from_static(MESSAGE);
        let sent = cluster.first().relay.relay(gone.node, message).await;
        matches!(sent, Ok(None))
    })
    .await;
}
