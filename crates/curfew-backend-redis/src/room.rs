//! Making room for another session of a user who has reached the session limit.

use std::collections::HashMap;
use std::time::Duration;

use curfew_backend::{MAX_PROBED, PROBE_PATIENCE};
use curfew_model::{Disconnect, NodeId, SessionId};
use futures_util::future::join_all;
use tokio::time;

use crate::Redis;
use crate::connections::Keyed;
use crate::core::random_id;
use crate::fault::Fault;
use crate::inbox::Message;

/// Longest wait for the node of a session that is to be ended. After this time, the next older
/// session is tried.
const REPLACE_PATIENCE: Duration = Duration::from_millis(500);

/// Maximum number of sessions tried before the new session is refused.
const MOST_REPLACED: usize = 4;

impl Redis {
    /// Ends a session of another node. Returns false if that node does not answer in time.
    pub(crate) async fn end_elsewhere(
        &self,
        session: SessionId,
        replaced: bool,
        patience: Duration,
    ) -> Result<bool, Fault> {
        let id = random_id();
        let mut question = self.inbox.ask(id.clone(), 1);
        self.tell_all(&Message::Disconnect {
            id,
            session,
            from: self.core.node,
            replaced,
        })
        .await?;
        let answer = time::timeout(patience, question.answers.recv()).await;
        Ok(matches!(answer, Ok(Some(_))))
    }

    /// Removes the user's sessions whose clients do not respond. The sessions of a node that does
    /// not answer still count towards the limit.
    pub(crate) async fn give_up_silent(&self, user: &str) -> Result<(), Fault> {
        let mut by_node: HashMap<NodeId, Vec<SessionId>> = HashMap::new();
        for (session, node) in self.oldest_of_user(user).await? {
            by_node.entry(node).or_default().push(session);
        }
        let probes = by_node
            .into_iter()
            .map(|(node, sessions)| async move { (node, self.probe(node, sessions).await) });
        for (node, gone) in join_all(probes).await {
            let gone: Vec<_> = gone.iter().map(|session| (*session, user)).collect();
            self.connections.remove_traces(node, &gone).await?;
        }
        Ok(())
    }

    /// Probes sessions of a node. Returns the sessions that are no longer on the node, and the
    /// sessions whose clients did not respond.
    async fn probe(&self, node: NodeId, sessions: Vec<SessionId>) -> Vec<SessionId> {
        if node == self.core.node {
            return self.core.events.probe(sessions).await;
        }
        let id = random_id();
        let mut question = self.inbox.ask(id.clone(), 1);
        let asked = Message::Probe { id, node, sessions };
        let patience = PROBE_PATIENCE + self.core.connector.timeout();
        let answer = async {
            self.tell_all(&asked).await.ok()?;
            question.answers.recv().await
        };
        match time::timeout(patience, answer).await {
            Ok(Some(answer)) if answer.node == node => answer.gone,
            _ => Vec::new(),
        }
    }

    /// Ends the oldest of a user's sessions. If the session's node does not answer, tries the
    /// second-oldest session, and so on.
    pub(crate) async fn close_oldest(&self, user: &str) -> Result<(), Fault> {
        for (session, node) in self
            .oldest_of_user(user)
            .await?
            .into_iter()
            .take(MOST_REPLACED)
        {
            let ended = self.core.events.disconnect(session, Disconnect::REPLACED)
                // The record names this node, but this node does not have the session. The record
                // is therefore left over.
                || node == self.core.node
                || self.end_elsewhere(session, true, REPLACE_PATIENCE).await?;
            if ended {
                return self
                    .connections
                    .remove_traces(node, &[(session, user)])
                    .await;
            }
        }
        Ok(())
    }

    /// The oldest recorded sessions of a user, the oldest first, each with its node. At most
    /// [`MAX_PROBED`] sessions are returned.
    async fn oldest_of_user(&self, user: &str) -> Result<Vec<(SessionId, NodeId)>, Fault> {
        let keys = &self.core.keys;
        let all = Keyed::new("ZRANGE", &keys.user_sessions(user))
            .arg(0)
            .arg(-1);
        let ids: Vec<String> = self.connections.call(all).await?;
        let mut ids: Vec<SessionId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        ids.sort_unstable();
        ids.truncate(MAX_PROBED);
        let nodes = ids
            .iter()
            .map(|id| Keyed::new("HGET", &keys.session(*id)).arg("node"));
        let nodes = self.connections.pipeline(nodes.collect()).await?;
        let recorded = ids.into_iter().zip(nodes).filter_map(|(id, node)| {
            let node: Option<String> = redis::from_redis_value(node).ok()?;
            Some((id, node?.parse().ok()?))
        });
        Ok(recorded.collect())
    }
}
