//! The part of a client that concerns the vault: the token of its subscription.

use std::time::Duration;

use serde_json::{Value, json};

use super::{BACK, CHANNELS, Client, VAULT};
use crate::machine::elapsed;
use crate::record::Token;
use crate::world::{ConnectionId, World};

impl Client {
    /// The token of the client's last subscription to the vault.
    pub fn vault_token(&self) -> Option<&Token> {
        self.vault_token.as_ref()
    }

    /// Handles the end of the subscription to the vault. The client subscribes again with another
    /// token.
    pub(super) fn leave_vault(world: &mut World, client: usize, told: &Value) {
        let told = format!("client {client} is told {told}");
        world.record.tell(elapsed(), told);
        let this = &mut world.clients[client];
        this.subscribed.retain(|channel| *channel != VAULT);
        this.back_by = elapsed() + BACK;
        Self::again(world, client, Duration::from_millis(20));
    }

    /// Adds a new token to `command`, which subscribes to the vault and is sent next.
    pub(super) fn add_token(
        world: &mut World,
        client: usize,
        connection: ConnectionId,
        command: &mut Value,
    ) {
        let vault = CHANNELS[VAULT];
        let (token, written) = Self::new_token(world, client, &json!({"channel":vault}));
        command["channel"] = format!("{vault} {written}").into();
        let this = &mut world.clients[client];
        this.vault_token = Some(token.clone());
        let number = this.count + 1;
        let wire = world.record.wires.entry(connection).or_default();
        wire.vault_tokens.insert(number, token);
    }
}
