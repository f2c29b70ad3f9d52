//! The paths of the public listener. `server.path` may not use the path of another endpoint.

/// The default path of the WebSocket endpoint.
pub(crate) const WEBSOCKET: &str = "/ws";

/// The path of the JavaScript client of the native protocol.
pub(crate) const CLIENT: &str = "/client.js";

/// The path of the JavaScript client's type declarations.
pub(crate) const CLIENT_TYPES: &str = "/client.d.ts";

/// The path of the endpoint that issues tickets.
pub(crate) const TICKETS: &str = "/v1/tickets";

/// The path of OpenID Connect Back-Channel Logout.
pub(crate) const LOGOUT: &str = "/logout/backchannel";

/// The path of Global Token Revocation.
pub(crate) const GLOBAL_REVOCATION: &str = "/v1/global-token-revocation";

/// The path of token revocation by clients (RFC 7009).
pub(crate) const TOKEN_REVOCATION: &str = "/revoke";

/// The beginning of the path to which an issuer sends its security events (RFC 8935). The issuer's
/// configured name follows.
pub(crate) const EVENTS: &str = "/events/";

/// The path of the WebSocket endpoint of the Centrifuge protocol.
pub(crate) const CENTRIFUGE_WEBSOCKET: &str = "/connection/websocket";

/// The path of the endpoint of the Centrifuge protocol that answers a POST request with a stream.
pub(crate) const CENTRIFUGE_HTTP_STREAM: &str = "/connection/http_stream";

/// The path of the endpoint of the Centrifuge protocol that answers with server-sent events.
pub(crate) const CENTRIFUGE_SSE: &str = "/connection/sse";

/// The path to which clients of [`CENTRIFUGE_HTTP_STREAM`] and [`CENTRIFUGE_SSE`] send their
/// commands.
pub(crate) const CENTRIFUGE_EMULATION: &str = "/emulation";

/// Checks an entry of `server.path`. The error says what is wrong with the entry.
pub(super) fn check(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        return Err("must begin with /");
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains(['?', '#', '%', '*']) {
        return Err("must be a path of visible ASCII without ?, #, % and *");
    }
    let taken = [
        CLIENT,
        CLIENT_TYPES,
        TICKETS,
        LOGOUT,
        GLOBAL_REVOCATION,
        TOKEN_REVOCATION,
        CENTRIFUGE_WEBSOCKET,
        CENTRIFUGE_HTTP_STREAM,
        CENTRIFUGE_SSE,
        CENTRIFUGE_EMULATION,
    ];
    if taken.contains(&path) || path.starts_with(EVENTS) {
        return Err("is the path of another endpoint of this listener");
    }
    Ok(())
}
