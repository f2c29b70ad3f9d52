//! The native protocol, extended by a subscription token in `subscribe`. Without this extension
//! only the Centrifuge protocol has such tokens. The member `channel` of the command contains the
//! channel's name, a space and the token. Sessions handle the decoded command like a command of the
//! Centrifuge protocol.

use std::borrow::Cow;

use bytes::BytesMut;
use curfew_model::{
    Channel, ClientRequest, Command, CommandId, ErrorCode, Message, MessageKind, Push, Reply,
};
use curfew_protocol::native::Native;
use curfew_protocol::{DecodeError, Protocol, Rules};

/// The native protocol with subscription tokens.
#[derive(Debug)]
pub struct TokenedNative;

impl Protocol for TokenedNative {
    fn name(&self) -> &'static str {
        Native.name()
    }

    fn kind(&self) -> MessageKind {
        Native.kind()
    }

    fn rules(&self) -> Rules {
        Native.rules()
    }

    fn decode<'a>(&self, message: &mut Message<'a>) -> Result<ClientRequest<'a>, DecodeError> {
        let mut request = Native.decode(message)?;
        if let ClientRequest::Command { command, .. } = &mut request
            && let Command::Subscribe { channel, options } = command
            && let Some((name, token)) = channel.split_once(' ')
        {
            options.token = Some(Cow::Owned(token.to_owned()));
            *channel = Cow::Owned(name.to_owned());
        }
        Ok(request)
    }

    fn encode_reply(&self, id: Option<&CommandId>, reply: &Reply<'_>, out: &mut BytesMut) -> bool {
        match reply {
            Reply::SubscriptionExpired => {
                let message = "the token is over".into();
                let reply = Reply::Error {
                    code: ErrorCode::Expired,
                    message,
                    trace: None,
                };
                Native.encode_reply(id, &reply, out)
            }
            reply => Native.encode_reply(id, reply, out),
        }
    }

    fn encode_push(&self, push: &Push<'_>, out: &mut BytesMut) -> bool {
        Native.encode_push(push, out)
    }
    fn is_of(&self, message: &[u8], channel: &Channel) -> bool {
        Native.is_of(message, channel)
    }
}
