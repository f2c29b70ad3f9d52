//! The types of security events, and their effect on access.

use serde_json::{Map, Value};

use crate::Signal;

/// Common prefix of the URIs of event types.
const PREFIX: &str = "https://schemas.openid.net/secevent/";

macro_rules! event_types {
    ($($(#[$doc:meta])* $variant:ident = $name:literal $(, $suffix:literal)*;)+) => {
        /// A type of security event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum EventType {
            $($(#[$doc])* $variant,)+
        }

        impl EventType {
            /// The type's name in logs, metrics and reasons.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The type of the event whose member of `events` has the name `uri`.
            pub(super) fn of(uri: &str) -> Self {
                match uri.strip_prefix(PREFIX) {
                    $($(Some($suffix) => Self::$variant,)*)+
                    _ => Self::Other,
                }
            }
        }
    };
}

event_types! {
    /// CAEP 1.0 §3.1, and RISC's older `sessions-revoked`.
    SessionRevoked = "session_revoked",
        "caep/event-type/session-revoked", "risc/event-type/sessions-revoked";
    /// CAEP 1.0 §3.2.
    TokenClaimsChange = "token_claims_change", "caep/event-type/token-claims-change";
    /// CAEP 1.0 §3.3.
    CredentialChange = "credential_change", "caep/event-type/credential-change";
    /// CAEP 1.0 §3.4.
    AssuranceLevelChange = "assurance_level_change", "caep/event-type/assurance-level-change";
    /// CAEP 1.0 §3.5.
    DeviceComplianceChange = "device_compliance_change", "caep/event-type/device-compliance-change";
    /// CAEP 1.0 §3.6.
    SessionEstablished = "session_established", "caep/event-type/session-established";
    /// CAEP 1.0 §3.7.
    SessionPresented = "session_presented", "caep/event-type/session-presented";
    /// CAEP 1.0 §3.8.
    RiskLevelChange = "risk_level_change", "caep/event-type/risk-level-change";
    /// RISC 1.0 §2.1.
    CredentialChangeRequired = "account_credential_change_required",
        "risc/event-type/account-credential-change-required";
    /// RISC 1.0 §2.2.
    AccountPurged = "account_purged", "risc/event-type/account-purged";
    /// RISC 1.0 §2.3.
    AccountDisabled = "account_disabled", "risc/event-type/account-disabled";
    /// RISC 1.0 §2.4. The event ends no access. An enabled account needs nothing here, because its
    /// new tokens are accepted anyway.
    AccountEnabled = "account_enabled", "risc/event-type/account-enabled";
    /// RISC 1.0 §2.7.
    CredentialCompromise = "credential_compromise", "risc/event-type/credential-compromise";
    /// Google's Cross-Account Protection: all tokens of the user are revoked.
    TokensRevoked = "tokens_revoked", "oauth/event-type/tokens-revoked";
    /// Shared Signals Framework 1.0 §8.1.4.
    Verification = "verification", "ssf/event-type/verification", "risc/event-type/verification";
    /// Shared Signals Framework 1.0 §8.1.5.
    StreamUpdated = "stream_updated", "ssf/event-type/stream-updated";
    /// A type that is not supported here.
    Other = "other";
}

impl EventType {
    /// Returns true if an event of this type with these `members` ends access. `also` is
    /// `revoke_on`.
    pub(super) fn ends_access(self, members: &Map<String, Value>, also: &[Signal]) -> bool {
        let says = |name: &str, values: &[&str]| {
            let value = members.get(name).and_then(Value::as_str);
            value.is_some_and(|value| values.contains(&value.to_ascii_lowercase().as_str()))
        };
        match self {
            Self::SessionRevoked
            | Self::TokenClaimsChange
            | Self::CredentialChangeRequired
            | Self::AccountPurged
            | Self::AccountDisabled
            | Self::TokensRevoked => true,
            // Other changes end no access. In particular, the creation of a credential is no reason
            // to end an earlier session.
            Self::CredentialChange => {
                says("change_type", &["revoke", "update", "delete"])
                    && (says("credential_type", &["password", "pin"])
                        || also.contains(&Signal::AnyCredential))
            }
            Self::CredentialCompromise => {
                says("credential_type", &["password", "pin"])
                    || also.contains(&Signal::AnyCredential)
            }
            Self::AssuranceLevelChange => {
                says("change_direction", &["decrease"]) && also.contains(&Signal::AssuranceDecrease)
            }
            Self::DeviceComplianceChange => {
                says("current_status", &["not-compliant"])
                    && also.contains(&Signal::DeviceNotCompliant)
            }
            Self::RiskLevelChange => {
                says("current_level", &["high"]) && also.contains(&Signal::HighRisk)
            }
            Self::SessionEstablished
            | Self::SessionPresented
            | Self::AccountEnabled
            | Self::Verification
            | Self::StreamUpdated
            | Self::Other => false,
        }
    }
}
