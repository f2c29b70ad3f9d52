//! Tickets, which stand for tokens in URLs. Proxies and logs record URLs, so a token must not be in
//! a URL (RFC 6750 §5.3). A ticket found in a log is useless, because it was used or has expired.
//!
//! A ticket's record, which holds the token, is stored encrypted. The record's key is derived from
//! the ticket, which is not stored. A reader of the store thus gets no token. A writer who plants a
//! record gains nothing either, because the token of every redeemed ticket is verified.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curfew_model::TicketId;
use serde::{Deserialize, Serialize};

/// Size of a ticket, of its id and of its key, in bytes (256 bits).
const TICKET_BYTES: usize = 32;

/// Purpose of the derived id (the `info` of RFC 5869 §2.3).
const FOR_ID: &[u8] = b"curfew ticket v1: id";

/// Purpose of the derived key.
const FOR_KEY: &[u8] = b"curfew ticket v1: key";

/// The nonce. One key must never use a nonce twice (NIST SP 800-38D §8). The nonce is constant,
/// because [`Ticketed::seal`] makes a new key for each ticket.
const NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];

/// A ticket as a client sends it. It is a secret until it is used; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket([u8; TICKET_BYTES]);

/// Error for a text that does not have the form of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a ticket has 43 characters of base64url")]
pub struct NotATicket;

/// The content of a ticket's record. `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticketed {
    /// The token as the client sent it. It was good when the ticket was made.
    pub token: String,
    /// The origin of the pages that may use the ticket; `None` for a client that is not a browser.
    pub origin: Option<String>,
}

/// A new ticket, with the record to store for it.
#[derive(Debug)]
pub struct NewTicket {
    /// The ticket for the client.
    pub ticket: Ticket,
    /// The id under which the record is stored.
    pub id: TicketId,
    /// The encrypted record; [`Ticket::open`] decrypts it.
    pub sealed: Vec<u8>,
}

impl Ticketed {
    /// Makes a ticket for this content.
    pub fn seal(&self) -> NewTicket {
        let mut secret = [0; TICKET_BYTES];
        rand::fill(&mut secret).expect("AWS-LC ends the process when it has no randomness");
        let ticket = Ticket(secret);
        let mut sealed = serde_json::to_vec(self).expect("two texts serialize");
        ticket
            .key()
            .seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed)
            .expect("a token is shorter than 64 GiB");
        NewTicket {
            id: ticket.id(),
            ticket,
            sealed,
        }
    }
}

impl Ticket {
    /// Parses a ticket that a client sent.
    ///
    /// # Errors
    ///
    /// The text does not have the form of a ticket.
    pub fn parse(text: &str) -> Result<Self, NotATicket> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NotATicket)?;
        bytes.try_into().map(Self).map_err(|_| NotATicket)
    }

    /// The ticket's text, for the client alone.
    pub fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The id under which the record is stored.
    pub fn id(&self) -> TicketId {
        TicketId::from_bytes(self.derive(FOR_ID))
    }

    /// Decrypts the record stored for this ticket; `None` for any other record.
    pub fn open(&self, mut sealed: Vec<u8>) -> Option<Ticketed> {
        let content = self
            .key()
            .open_in_place(nonce(), Aad::empty(), &mut sealed)
            .ok()?;
        serde_json::from_slice(content).ok()
    }

    fn key(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.derive(FOR_KEY));
        LessSafeKey::new(key.expect("AES-256 has keys of 32 bytes"))
    }

    /// Derives 32 bytes for `purpose` by HKDF-Expand. The step Extract is left out, because a
    /// ticket is already uniformly random (RFC 5869 §3.3).
    fn derive(&self, purpose: &[u8]) -> [u8; TICKET_BYTES] {
        let mut derived = [0; TICKET_BYTES];
        Prk::new_less_safe(HKDF_SHA256, &self.0)
            .expand(&[purpose], HKDF_SHA256)
            .and_then(|output| output.fill(&mut derived))
            .expect("SHA-256 gives 32 bytes at once");
        derived
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key(NONCE)
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket([redacted])")
    }
}

impl fmt::Debug for Ticketed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticketed")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "header.payload.signature";

    fn ticketed() -> Ticketed {
        Ticketed {
            token: TOKEN.to_owned(),
            origin: Some("https://app.example".to_owned()),
        }
    }

    #[test]
    fn a_ticket_opens_what_was_sealed_for_it() {
        let made = ticketed().seal();
        let shown = made.ticket.expose();
        assert_eq!(shown.len(), 43);
        let ticket = Ticket::parse(&shown).unwrap();
        assert_eq!(ticket.id(), made.id);
        assert_eq!(ticket.open(made.sealed), Some(ticketed()));
    }

    #[test]
    fn every_ticket_is_another() {
        let (one, two) = (ticketed().seal(), ticketed().seal());
        assert_ne!(one.ticket, two.ticket);
        assert_ne!(one.id, two.id);
        assert_ne!(one.sealed, two.sealed);
        assert_eq!(two.ticket.open(one.sealed), None);
    }

    #[test]
    fn what_was_tampered_with_is_not_opened() {
        let made = ticketed().seal();
        for at in 0..made.sealed.len() {
            let mut other = made.sealed.clone();
            other[at] ^= 1;
            assert_eq!(made.ticket.open(other), None, "byte {at}");
        }
        for length in [0, 1, 15, 16, made.sealed.len() - 1] {
            let shorter = made.sealed[..length].to_vec();
            assert_eq!(made.ticket.open(shorter), None, "{length} bytes");
        }
        let plain = serde_json::to_vec(&ticketed()).unwrap();
        assert_eq!(made.ticket.open(plain), None);
    }

    #[test]
    fn neither_the_id_nor_what_is_kept_tells_the_ticket_or_the_token() {
        let made = ticketed().seal();
        let shown = made.ticket.expose();
        assert_ne!(made.id.to_string(), shown);
        let kept = String::from_utf8_lossy(&made.sealed);
        assert!(!kept.contains("signature") && !kept.contains("app.example"));
        assert!(!format!("{:?} {:?}", made, ticketed()).contains(&shown));
        assert!(!format!("{:?}", ticketed()).contains("signature"));
    }

    #[test]
    fn a_text_of_another_form_is_no_ticket() {
        let shown = ticketed().seal().ticket.expose();
        let last = shown.chars().last().unwrap();
        // The last character carries two unused bits, which are zero in every ticket.
        let odd = char::from(last as u8 ^ 1);
        for bad in [
            String::new(),
            TOKEN.to_owned(),
            shown[1..].to_owned(),
            format!("{shown}A"),
            format!("{shown}="),
            format!("{}+", &shown[1..]),
            format!("{}\u{e4}", &shown[1..]),
            format!("{}{odd}", &shown[..42]),
        ] {
            assert_eq!(Ticket::parse(&bad), Err(NotATicket), "{bad}");
        }
    }
}
