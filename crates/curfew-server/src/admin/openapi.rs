//! The OpenAPI description, generated from the table of operations and from the types that the
//! table names.

use http::StatusCode;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::api::{Access, Operation, operations};
use crate::http::{Problem, Response, json};

/// The description of headers and members that many answers share.
const TRACES: &str = "Answers of calls whose span is recorded have the header traceresponse (W3C Trace Context Level 2). Problems, and answers of calls that change something, also have the member trace, which is the id of the call's trace. If the setting telemetry.trace_url is set, they also have the member trace_url, which is the address of the trace.";

pub(super) fn get() -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &openapi()))
}

/// The description of the admin listener as OpenAPI 3.1.
pub fn openapi() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut schemas = settings.into_generator();
    let problem = schemas.subschema_for::<Problem>();
    let mut paths = Map::new();
    for operation in operations() {
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        item[operation.method.as_str().to_lowercase()] = describe(&operation, &mut schemas);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Curfew admin API",
            "description": TRACES,
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
            "responses": {
                "Problem": {
                    "description": "A problem in the form of RFC 9457",
                    "content": { "application/problem+json": { "schema": problem } },
                },
            },
        },
    })
}

fn describe(operation: &Operation, schemas: &mut SchemaGenerator) -> Value {
    let in_path = operation.path.split('/').filter_map(|segment| {
        let name = segment.strip_prefix('{')?.strip_suffix('}')?;
        Some(
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }),
        )
    });
    let in_query = operation.query.iter().map(|(name, meaning)| {
        json!({ "name": name, "in": "query", "description": meaning, "schema": { "type": "string" } })
    });
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    let done = match operation.response {
        Some(schema) => {
            let schema = schema(schemas);
            json!({ "description": "Done", "content": { "application/json": { "schema": schema } } })
        }
        None => json!({ "description": "Done" }),
    };
    let mut description = json!({
        "summary": operation.summary,
        "operationId": operation_id(operation),
        "parameters": parameters,
        "responses": { "200": done, "default": { "$ref": "#/components/responses/Problem" } },
    });
    if let Some(schema) = operation.request {
        let schema = schema(schemas);
        description["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    if let Access::Key(power) = operation.access {
        description["security"] = json!([{ "key": [] }]);
        description["description"] = json!(format!("Needs a key that may {}", power.as_str()));
    }
    description
}

fn operation_id(operation: &Operation) -> String {
    let words = operation
        .path
        .split(['/', '.', '{', '}'])
        .filter(|word| !word.is_empty());
    std::iter::once(operation.method.as_str().to_lowercase())
        .chain(words.map(str::to_owned))
        .collect::<Vec<_>>()
        .join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_resolves_and_every_operation_is_there() {
        let document = openapi();
        let text = document.to_string();
        for part in text.split("\"$ref\":\"#").skip(1) {
            let pointer = part.split('"').next().unwrap();
            assert!(
                document.pointer(pointer).is_some(),
                "{pointer} does not resolve"
            );
        }
        let count: usize = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .map(|p| p.as_object().unwrap().len())
            .sum();
        assert_eq!(count, operations().len());
    }
}
