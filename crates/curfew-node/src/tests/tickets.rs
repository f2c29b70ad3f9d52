//! Tickets: a ticket is stored and taken once; a refused ticket is not stored.

use curfew_model::TicketId;

use super::rig::{Call, unavailable};
use super::*;

const LIFETIME: Duration = Duration::from_secs(30);

const ID: [u8; 32] = [7; 32];

async fn keep(harness: &Harness) -> Result<(), AdmitError> {
    let (alice, id) = (principal("alice", "t1"), TicketId::from_bytes(ID));
    harness
        .node
        .keep_ticket(&alice, &id, b"sealed", LIFETIME)
        .await
}

async fn take(harness: &Harness) -> Option<Vec<u8>> {
    let id = TicketId::from_bytes(ID);
    harness.node.take_ticket(&id).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_ticket_is_kept_for_its_lifetime_and_taken_once() {
    let harness = Harness::new();
    keep(&harness).await.unwrap();
    assert_eq!(take(&harness).await.as_deref(), Some(&b"sealed"[..]));
    assert_eq!(take(&harness).await, None);
    keep(&harness).await.unwrap();
    time::advance(LIFETIME).await;
    assert_eq!(take(&harness).await, None);
}

#[tokio::test(start_paused = true)]
async fn whom_a_revocation_covers_gets_no_ticket() {
    for key in [
        RevocationKey::user("alice"),
        RevocationKey::token("t1"),
        RevocationKey::claim(CLAIM, "acme"),
        RevocationKey::All,
    ] {
        let harness = Harness::new();
        harness.rig.revoke(key.clone());
        let refused = keep(&harness).await;
        assert!(matches!(refused, Err(AdmitError::Revoked(_))), "{key}");
        assert_eq!(take(&harness).await, None, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_revocations_cannot_be_looked_for_there_are_no_tickets() {
    let harness = Harness::new();
    harness.rig.fail(Call::Check, unavailable);
    let refused = keep(&harness).await;
    assert!(matches!(refused, Err(AdmitError::Backend(_))));
    assert_eq!(take(&harness).await, None);
    harness.rig.heal(Call::Check);
    keep(&harness).await.unwrap();
}
