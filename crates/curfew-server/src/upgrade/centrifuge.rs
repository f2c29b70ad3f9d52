//! The choice of the encoding for a connection of the Centrifuge protocol.

use curfew_protocol_centrifuge::Encoding;
use curfew_session::{WireId, Wires};
use curfew_ws::Handshake;
use http::Request;
use http::header::SEC_WEBSOCKET_PROTOCOL;

/// The subprotocol of the JSON encoding, which is the default.
const JSON: &str = "centrifuge-json";

/// The subprotocol of the Protobuf encoding.
const PROTOBUF: &str = "centrifuge-protobuf";

/// The query members that request an encoding by its short name, such as `format=protobuf`.
const FORMAT_MEMBERS: [&str; 2] = ["format", "cf_protocol"];

/// Returns the subprotocol of an encoding.
pub(super) fn subprotocol(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Json => JSON,
        Encoding::Protobuf => PROTOBUF,
    }
}

/// Removes an empty `Sec-WebSocket-Protocol` header. Old SDKs send such a header, although RFC 6455
/// does not allow it.
pub(super) fn tolerate<B>(request: &mut Request<B>) {
    let headers = request.headers_mut();
    if headers
        .get(SEC_WEBSOCKET_PROTOCOL)
        .is_some_and(|offer| offer.is_empty())
    {
        headers.remove(SEC_WEBSOCKET_PROTOCOL);
    }
}

/// Returns the protocol with the encoding that the client requests, and the subprotocol for the
/// answer. Returns `None` if the node does not support the protocol.
pub(super) fn negotiate(
    wires: &Wires,
    offer: &Handshake,
    query: Option<&str>,
) -> Option<(WireId, Option<&'static str>)> {
    let known = |name: &&String| [JSON, PROTOBUF].contains(&name.as_str());
    if let Some(name) = offer.subprotocols.iter().find(known) {
        let id = wires.find(name)?;
        return Some((id, Some(wires.get(id).subprotocol())));
    }
    let name = match asks_for_protobuf(query.unwrap_or_default()) {
        true => PROTOBUF,
        false => JSON,
    };
    Some((wires.find(name)?, None))
}

fn asks_for_protobuf(query: &str) -> bool {
    query.split('&').any(|member| match member.split_once('=') {
        Some((name, value)) => FORMAT_MEMBERS.contains(&name) && value == "protobuf",
        None => false,
    })
}
