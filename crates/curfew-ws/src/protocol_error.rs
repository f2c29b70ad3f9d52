//! Errors in the framing of a peer, and the close frame that each error causes.

use curfew_model::Disconnect;

/// The framing rule or the limit that a peer has broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// RFC 6455 §5.1: a client masks every frame.
    #[error("a frame from the client is not masked")]
    Unmasked,
    /// RFC 6455 §5.1: a server masks no frame.
    #[error("a frame from the server is masked")]
    Masked,
    /// No extension was negotiated, so reserved bits have no meaning.
    #[error("reserved bits are set and no extension was negotiated")]
    ReservedBits,
    /// Opcodes 3 to 7 and 11 to 15 are reserved.
    #[error("opcode {0} is reserved")]
    ReservedOpcode(u8),
    /// RFC 6455 §5.5: a control frame is never fragmented.
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// RFC 6455 §5.5: a control frame has at most 125 bytes.
    #[error("a control frame has more than 125 bytes")]
    ControlTooLarge,
    /// RFC 6455 §5.2: a length has its shortest form.
    #[error("a payload length is not in its shortest form")]
    NonMinimalLength,
    /// RFC 6455 §5.2: the top bit of a 64-bit length is zero.
    #[error("the top bit of a 64-bit payload length is set")]
    LengthTopBit,
    /// A continuation frame arrived while no fragmented message was open.
    #[error("a continuation frame has no message to continue")]
    ContinuationWithoutStart,
    /// A text or binary frame arrived while a fragmented message was open.
    #[error("a new message starts before a fragmented message is complete")]
    InterruptedMessage,
    /// The body of the close frame is too short for a code.
    #[error("the body of a close frame has one byte")]
    CloseBody,
    /// The code must not be on the wire (RFC 6455 §7.4).
    #[error("close code {0} must not be sent")]
    CloseCode(u16),
    /// RFC 6455 §5.5.1: the reason is UTF-8.
    #[error("the reason of a close frame is not valid UTF-8")]
    CloseReason,
    /// RFC 6455 §8.1: a text message is UTF-8.
    #[error("a text message is not valid UTF-8")]
    InvalidUtf8,
    /// The declared size exceeds [`Limits::message_bytes`](crate::Limits::message_bytes).
    #[error("a message is larger than allowed")]
    MessageTooLarge,
    /// The number of fragments exceeds [`Limits::fragments`](crate::Limits::fragments).
    #[error("a message has more fragments than allowed")]
    TooManyFragments,
}

impl ProtocolError {
    /// The disconnect that closes the connection. Its message names the broken rule or the exceeded
    /// limit.
    pub fn disconnect(self) -> Disconnect {
        match self {
            Self::CloseReason | Self::InvalidUtf8 => Disconnect::INVALID_UTF8,
            Self::MessageTooLarge | Self::TooManyFragments => Disconnect::MESSAGE_TOO_LARGE,
            Self::Unmasked
            | Self::Masked
            | Self::ReservedBits
            | Self::ReservedOpcode(_)
            | Self::FragmentedControl
            | Self::ControlTooLarge
            | Self::NonMinimalLength
            | Self::LengthTopBit
            | Self::ContinuationWithoutStart
            | Self::InterruptedMessage
            | Self::CloseBody
            | Self::CloseCode(_) => Disconnect::PROTOCOL_ERROR,
        }
        .because(self.rule())
    }

    /// The message for the client about the broken rule or the exceeded limit.
    fn rule(self) -> &'static str {
        match self {
            Self::Unmasked => "a frame from the client is not masked (RFC 6455 section 5.1)",
            Self::Masked => "a frame from the server is masked (RFC 6455 section 5.1)",
            Self::ReservedBits => {
                "reserved bits are set and no extension was negotiated (RFC 6455 section 5.2)"
            }
            Self::ReservedOpcode(_) => "a frame has a reserved opcode (RFC 6455 section 5.2)",
            Self::FragmentedControl => "a control frame is fragmented (RFC 6455 section 5.5)",
            Self::ControlTooLarge => {
                "a control frame has more than 125 bytes (RFC 6455 section 5.5)"
            }
            Self::NonMinimalLength => {
                "a payload length is not in its shortest form (RFC 6455 section 5.2)"
            }
            Self::LengthTopBit => {
                "the top bit of a 64-bit payload length is set (RFC 6455 section 5.2)"
            }
            Self::ContinuationWithoutStart => {
                "a continuation frame has no message to continue (RFC 6455 section 5.4)"
            }
            Self::InterruptedMessage => {
                "a new message starts before a fragmented message is complete (RFC 6455 section 5.4)"
            }
            Self::CloseBody => "the body of a close frame has one byte (RFC 6455 section 5.5.1)",
            Self::CloseCode(_) => {
                "a close frame has a code that must not be sent (RFC 6455 section 7.4)"
            }
            Self::CloseReason => {
                "the reason of a close frame is not valid UTF-8 (RFC 6455 section 5.5.1)"
            }
            Self::InvalidUtf8 => "a text message is not valid UTF-8 (RFC 6455 section 8.1)",
            Self::MessageTooLarge => "a message is larger than limits.message_bytes",
            Self::TooManyFragments => "a message has more fragments than limits.fragments",
        }
    }
}
