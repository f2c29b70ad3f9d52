//! The table of the admin API's operations. The table routes calls to their handlers, and the
//! OpenAPI description is generated from the table.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use curfew_model::json::object_text;
use curfew_model::{Channel, TraceContext, percent_decode_str};
use curfew_policy::Explanation;
use http::{Method, StatusCode, Uri};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use tracing::debug;

use super::{
    Admin, channels, explain, health, issuers, nodes, openapi, publish, revocations, sessions,
};
use crate::config::{AdminKey, Power, Snapshot};
use crate::http::{Problem, Response};

/// The callers that may use an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Anyone who reaches the listener.
    Open,
    /// Callers with a key that has this power.
    Key(Power),
}

/// A caller with a key.
#[derive(Debug, Clone)]
pub(super) struct Caller(Arc<AdminKey>);

impl Caller {
    /// Returns the caller with `key`. Fails with status 403 unless the key has `power`.
    pub(super) fn with(key: Arc<AdminKey>, power: Power) -> Result<Self, Problem> {
        if key.may(power) {
            return Ok(Self(key));
        }
        let (name, power) = (key.name(), power.as_str());
        debug!(
            key = name,
            power, "admin key is not allowed to make this call"
        );
        Err(forbidden(format!(
            "the key {name} is not allowed to {power}: add \"{power}\" to the list `may` of this key in [[admin.keys]]"
        )))
    }

    /// The key's name.
    pub(super) fn name(&self) -> &str {
        self.0.name()
    }
}

fn forbidden(detail: String) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
}

/// A request to the admin API, split into its parts.
#[derive(Debug)]
pub(super) struct Call {
    /// The settings at the beginning of the request. They apply to the whole request, even if a
    /// reload changes the settings meanwhile.
    pub(super) settings: Snapshot,
    pub(super) params: HashMap<&'static str, String>,
    pub(super) query: String,
    pub(super) body: Bytes,
    /// The caller; `None` if the operation needs no key ([`Access::Open`]).
    caller: Option<Caller>,
    /// The trace context of the call's span, if the span is recorded.
    pub(super) trace: Option<Box<TraceContext>>,
}

impl Call {
    pub(super) fn new(
        settings: Snapshot,
        params: HashMap<&'static str, String>,
        uri: &Uri,
        body: Bytes,
        caller: Option<Caller>,
        trace: Option<Box<TraceContext>>,
    ) -> Self {
        Self {
            settings,
            params,
            query: uri.query().unwrap_or_default().to_owned(),
            body,
            caller,
            trace,
        }
    }

    /// The name of the caller's key; empty if the operation needs no key.
    pub(super) fn key(&self) -> &str {
        self.caller.as_ref().map_or("", Caller::name)
    }

    /// True if the caller's key may be used for `channel`, or if the operation needs no key.
    pub(super) fn may_use(&self, channel: &Channel) -> bool {
        let caller = self.caller.as_ref();
        caller.is_none_or(|Caller(key)| key.may_use(channel))
    }

    /// Fails with status 403 unless the caller's key may be used for `channel`.
    pub(super) fn check_channel(&self, channel: &Channel) -> Result<(), Problem> {
        match self.may_use(channel) {
            true => Ok(()),
            false => Err(forbidden(format!(
                "the key {} may not use the channel {channel}: see the list `channels` of this key in [[admin.keys]]",
                self.key()
            ))),
        }
    }

    /// Returns the value of the path parameter `name`, such as `id` in `/v1/sessions/{id}`; empty
    /// if the operation's path has no such parameter.
    pub(super) fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    /// The percent-decoded value of the query parameter `name`; `None` if the query does not have
    /// it.
    pub(super) fn query(&self, name: &str) -> Result<Option<String>, Problem> {
        let found = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name);
        found
            .map(|(_, value)| decode(&value.replace('+', " ")))
            .transpose()
    }

    /// Parses the body, which must be a JSON object.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let unexpected = |why: &dyn fmt::Display| {
            Problem::bad_request(format!("the body is not as expected: {why}"))
        };
        let text = object_text(&self.body).ok_or_else(|| unexpected(&"it is not a JSON object"))?;
        serde_json::from_str(text).map_err(|error| unexpected(&error))
    }
}

/// The future of a handler.
type Handling = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send>>;
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// Returns a future that is ready at once with `result`.
fn now(result: Result<Response, Problem>) -> Handling {
    Box::pin(ready(result))
}

/// One operation of the admin listener.
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) access: Access,
    pub(super) summary: &'static str,
    /// The operation publishes. Its body may have a `traceparent`, and after a timeout the outcome
    /// of the publication is unknown.
    pub(super) publishes: bool,
    /// The operation's span is recorded regardless of the sampling ratio.
    pub(super) always_traced: bool,
    /// The name and the meaning of each query parameter.
    pub(super) query: &'static [(&'static str, &'static str)],
    pub(super) request: Option<SchemaOf>,
    pub(super) response: Option<SchemaOf>,
    pub(super) handler: fn(Arc<Admin>, Call) -> Handling,
}

impl Operation {
    fn new(
        method: Method,
        path: &'static str,
        access: Access,
        summary: &'static str,
        handler: fn(Arc<Admin>, Call) -> Handling,
    ) -> Self {
        Self {
            method,
            path,
            access,
            summary,
            publishes: false,
            always_traced: false,
            query: &[],
            request: None,
            response: None,
            handler,
        }
    }

    /// True if the operation answers `method`. GET operations also answer HEAD (RFC 9110 §9.1).
    fn takes_method(&self, method: &Method) -> bool {
        self.method == *method || self.method == Method::GET && *method == Method::HEAD
    }

    /// True if a call of this operation changes something. The JSON of the answer then names the
    /// call's trace, if its span is recorded.
    pub(super) fn changes(&self) -> bool {
        self.method != Method::GET
    }

    fn publishes(self) -> Self {
        Self {
            publishes: true,
            ..self
        }
    }

    fn always_traced(self) -> Self {
        Self {
            always_traced: true,
            ..self
        }
    }

    fn query(self, query: &'static [(&'static str, &'static str)]) -> Self {
        Self { query, ..self }
    }

    fn takes<T: JsonSchema>(self) -> Self {
        Self {
            request: Some(SchemaGenerator::subschema_for::<T>),
            ..self
        }
    }

    fn gives<T: JsonSchema>(self) -> Self {
        Self {
            response: Some(SchemaGenerator::subschema_for::<T>),
            ..self
        }
    }
}

/// Every operation, in the order in which the documentation lists them.
#[rustfmt::skip]
pub(super) fn operations() -> Vec<Operation> {
    use Access::{Key, Open};
    use Power::{Disconnect, Publish, Read, Revoke};
    vec![
        Operation::new(Method::GET, "/livez", Open, "The health of the process; 503 with the reason if it does not work", |a, _| now(health::livez(&a)))
            .gives::<health::Live>(),
        Operation::new(Method::GET, "/readyz", Open, "The readiness of the node and the state of its backend; 503 with the reason if the node is not in service", |a, _| now(health::readyz(&a)))
            .gives::<health::Ready>(),
        Operation::new(Method::GET, "/metrics", Open, "Metrics as OpenMetrics text", |a, _| now(health::metrics(&a))),
        Operation::new(Method::GET, "/openapi.json", Open, "This description", |_, _| now(openapi::get())),
        Operation::new(Method::POST, "/v1/publish", Key(Publish), "Publish into one channel", |a, c| Box::pin(publish::publish(a, c)))
            .publishes().takes::<publish::Publish>().gives::<publish::Published>(),
        Operation::new(Method::POST, "/v1/broadcast", Key(Publish), "Publish the same data into several channels", |a, c| Box::pin(publish::broadcast(a, c)))
            .publishes().takes::<publish::Broadcast>().gives::<publish::Published>(),
        Operation::new(Method::GET, "/v1/sessions", Key(Read), "Sessions of the whole cluster, oldest first", |a, c| Box::pin(sessions::list(a, c)))
            .query(&[("user", "only the sessions of this user"), ("limit", "the maximum number of sessions, 1 to 1000; 100 if absent"), ("cursor", "the cursor of the previous page")])
            .gives::<sessions::Sessions>(),
        Operation::new(Method::GET, "/v1/sessions/{id}", Key(Read), "One session with its claims", |a, c| Box::pin(sessions::get(a, c)))
            .gives::<sessions::SessionDetails>(),
        Operation::new(Method::DELETE, "/v1/sessions/{id}", Key(Disconnect), "Close one session with 4404", |a, c| Box::pin(sessions::delete(a, c)))
            .gives::<sessions::Closed>(),
        Operation::new(Method::POST, "/v1/revocations", Key(Revoke), "Revoke: close every matching session and refuse every matching token", |a, c| Box::pin(revocations::create(a, c)))
            .always_traced().takes::<revocations::Revoke>().gives::<curfew_backend::Receipt>(),
        Operation::new(Method::GET, "/v1/revocations", Key(Read), "Revocations in force", |a, _| Box::pin(revocations::list(a)))
            .gives::<revocations::Revocations>(),
        Operation::new(Method::DELETE, "/v1/revocations/{kind}/{value}", Key(Revoke), "Lift a revocation; the value for the kind all is all", |a, c| Box::pin(revocations::delete(a, c)))
            .always_traced().gives::<revocations::Restored>(),
        Operation::new(Method::GET, "/v1/nodes", Key(Read), "Live nodes", |a, _| Box::pin(nodes::nodes(a)))
            .gives::<nodes::Nodes>(),
        Operation::new(Method::GET, "/v1/channels", Key(Read), "Channels with subscribers", |a, c| now(channels::list(&a, &c)))
            .gives::<channels::Channels>(),
        Operation::new(Method::GET, "/v1/channels/{name}", Key(Read), "One channel with its stream", |a, c| Box::pin(channels::get(a, c)))
            .gives::<channels::ChannelDetails>(),
        Operation::new(Method::GET, "/v1/channels/{name}/history", Key(Read), "The history of a channel", |a, c| Box::pin(channels::history(a, c)))
            .query(&[("limit", "the maximum number of publications, 0 to 300; 100 if absent, 0 to get only the position"), ("before", "an offset: the publications before this offset, newest first; if absent, the newest publications"), ("since", "a position as EPOCH:OFFSET: the publications after this position, oldest first")])
            .gives::<channels::History>(),
        Operation::new(Method::DELETE, "/v1/channels/{name}/history", Key(Publish), "Delete the history of a channel; its position stays", |a, c| Box::pin(channels::clear(a, c)))
            .gives::<channels::History>(),
        Operation::new(Method::GET, "/v1/issuers", Key(Read), "Issuers of tokens, with the keys that this node knows", |a, _| now(issuers::list(&a)))
            .gives::<issuers::Issuers>(),
        Operation::new(Method::POST, "/v1/explain", Key(Power::Explain), "The rule that decides on an action, with the reason", |a, c| Box::pin(explain::explain(a, c)))
            .takes::<explain::Explain>().gives::<Explanation>(),
    ]
}

/// The reasons that no operation is found for a request.
pub(super) enum NotFound {
    /// No operation has this path.
    Path,
    /// The path has operations, but only for these methods. The text is a value of the header
    /// `Allow`.
    Method(String),
}

/// Finds the operation for a request.
pub(super) struct Api {
    routes: matchit::Router<Vec<Operation>>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

impl Api {
    pub(super) fn new() -> Self {
        let mut by_path: Vec<(&'static str, Vec<Operation>)> = Vec::new();
        for operation in operations() {
            match by_path.iter_mut().find(|(path, _)| *path == operation.path) {
                Some((_, operations)) => operations.push(operation),
                None => by_path.push((operation.path, vec![operation])),
            }
        }
        let mut routes = matchit::Router::new();
        for (path, operations) in by_path {
            routes
                .insert(path, operations)
                .expect("the table's paths do not overlap");
        }
        Self { routes }
    }

    /// Finds the operation for a method and a path. Also returns the percent-decoded values of the
    /// path's parameters by name.
    pub(super) fn find(
        &self,
        method: &Method,
        path: &str,
    ) -> Result<(&Operation, HashMap<&'static str, String>), NotFound> {
        let found = self.routes.at(path).map_err(|_| NotFound::Path)?;
        let operation = found
            .value
            .iter()
            .find(|operation| operation.takes_method(method));
        let Some(operation) = operation else {
            let methods = found.value.iter().map(|o| match o.method {
                Method::GET => "GET, HEAD",
                ref method => method.as_str(),
            });
            let methods: Vec<&str> = methods.collect();
            return Err(NotFound::Method(methods.join(", ")));
        };
        let mut params = HashMap::new();
        for name in ["id", "kind", "value", "name"] {
            if let Some(value) = found.params.get(name) {
                params.insert(name, decode(value).map_err(|_| NotFound::Path)?);
            }
        }
        Ok((operation, params))
    }
}

fn decode(text: &str) -> Result<String, Problem> {
    let bad = || Problem::bad_request("the percent-encoding in the address is not UTF-8");
    percent_decode_str(text)
        .map(Cow::into_owned)
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_with_their_parameters() {
        let api = Api::new();
        let (operation, params) = api
            .find(&Method::DELETE, "/v1/revocations/user/a%20b%2Fc%C3%A9")
            .unwrap_or_else(|_| panic!("no operation was found"));
        assert_eq!(operation.path, "/v1/revocations/{kind}/{value}");
        assert_eq!(
            (params["kind"].as_str(), params["value"].as_str()),
            ("user", "a b/cé")
        );
        assert!(api.find(&Method::HEAD, "/v1/nodes").is_ok());
        assert!(matches!(api.find(&Method::GET, "/v2"), Err(NotFound::Path)));
        assert!(
            matches!(api.find(&Method::PUT, "/v1/sessions/x"), Err(NotFound::Method(m)) if m == "GET, HEAD, DELETE")
        );
    }

    #[test]
    fn percent_encoding_must_be_utf8() {
        assert_eq!(decode("%41b").ok().as_deref(), Some("Ab"));
        for bad in ["%", "%4", "%zz", "%ff", "%+1"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }
}
