use serde_json::{Value, json};

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The problems of a configuration, each as `key: message`.
fn problems(config: Value) -> Vec<String> {
    let config: AuthConfig = serde_json::from_value(config).unwrap();
    let mut problems = Problems::new();
    config.check(&mut problems);
    problems
        .into_vec()
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn issuer(changes: Value) -> Value {
    let mut issuer = json!({"name": "main", "secret": SECRET});
    for (name, value) in changes.as_object().unwrap() {
        issuer[name] = value.clone();
    }
    issuer
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config: AuthConfig = serde_json::from_value(json!({})).unwrap();
    assert_eq!(config, AuthConfig::default());
    let text = serde_json::to_value(&config).unwrap();
    assert_eq!(
        text,
        json!({
            "token_sources": ["header", "subprotocol", "query", "message"],
            "cookie_name": "__Host-curfew-token",
            "timeout": "5s",
            "reject": "message",
            "leeway": "5s",
            "max_token_lifetime": "0s",
            "jwks_lifetime": "10m",
            "jwks_max_stale": "1day",
            "jwks_timeout": "5s",
            "verified_tokens": 10000,
            "login_claim": "sid",
            "token_revocation": false,
            "tickets": false,
            "ticket_lifetime": "30s",
            "close_on_key_withdrawal": false,
            "subject_claim": "sub",
            "numeric_subjects": false,
            "max_token_bytes": 16384,
            "header_schemes": ["Bearer"],
            "anonymous": false,
            "anonymous_lifetime": "1h",
            "issuers": [],
        })
    );
}

#[test]
fn good_configurations_have_no_problems() {
    let public = json!({"name": "a", "public_key_file": "a.pem", "algorithms": ["RS256", "ES256", "Ed25519"]});
    let cases = [
        json!({"issuers": [issuer(json!({}))]}),
        json!({"issuers": [public]}),
        json!({"issuers": [issuer(json!({"algorithms": ["HS256", "HS512"], "audience": ["a"]}))]}),
        json!({
            "token_sources": ["cookie"], "cookie_name": "sid", "timeout": "1s", "reject": "http",
            "leeway": "60s", "max_token_lifetime": "24h", "subject_claim": "email",
            "issuers": [
                issuer(json!({"issuer": "https://a"})),
                {"name": "b", "jwks_file": "b.json"},
                {"name": "c", "issuer": "https://c", "secret_file": "c"},
            ],
        }),
    ];
    for config in cases {
        assert_eq!(problems(config.clone()), Vec::<String>::new(), "{config}");
    }
}

#[test]
fn every_problem_names_its_key() {
    let cases = [
        (json!({}), "issuers: no issuer is configured"),
        (
            json!({"token_sources": []}),
            "token_sources: lists no source",
        ),
        (
            json!({"cookie_name": ""}),
            "cookie_name: must be a cookie name",
        ),
        (
            json!({"cookie_name": "a=b"}),
            "cookie_name: must be a cookie name",
        ),
        (json!({"timeout": "0s"}), "timeout: must be longer"),
        (
            json!({"ticket_lifetime": "900ms"}),
            "ticket_lifetime: must be between 1s and 60s",
        ),
        (
            json!({"ticket_lifetime": "61s"}),
            "ticket_lifetime: must be between 1s and 60s",
        ),
        (json!({"leeway": "61s"}), "leeway: must be at most 60s"),
        (
            json!({"subject_claim": ""}),
            "subject_claim: must name a claim",
        ),
        (
            json!({"subject_claim": "exp"}),
            "subject_claim: exp is a claim with a fixed meaning",
        ),
    ];
    for (config, expected) in cases {
        let problems = problems(config);
        assert!(
            problems.iter().any(|p| p.starts_with(expected)),
            "{problems:?}"
        );
    }
}

#[test]
fn every_problem_of_an_issuer_names_its_key() {
    let cases = [
        (json!({"name": "a"}), "issuers[0]: has no key"),
        (
            issuer(json!({"name": ""})),
            "issuers[0].name: must not be empty",
        ),
        (
            issuer(json!({"issuer": ""})),
            "issuers[0].issuer: must not be empty",
        ),
        (
            issuer(json!({"audience": []})),
            "issuers[0].audience: must list",
        ),
        (
            issuer(json!({"audience": ["a", ""]})),
            "issuers[0].audience: must list",
        ),
        (
            issuer(json!({"secret_file": "f"})),
            "issuers[0]: has several sources of keys (secret, secret_file)",
        ),
        (
            issuer(json!({"jwks_file": "f", "public_key_file": "f"})),
            "issuers[0]: has several sources of keys (secret, public_key_file, jwks_file)",
        ),
        (
            issuer(json!({"secret": &SECRET[1..]})),
            "issuers[0].secret: the secret is shorter",
        ),
        (
            issuer(json!({"required_claims": {"aud": ["a"]}})),
            "issuers[0].required_claims: \"aud\" cannot be required",
        ),
        (
            issuer(json!({"required_claims": {"tid": []}})),
            "issuers[0].required_claims: tid must list",
        ),
        (
            issuer(json!({"algorithms": []})),
            "issuers[0].algorithms: must list",
        ),
        (
            issuer(json!({"algorithms": ["RS256"]})),
            "issuers[0].algorithms: RS256 needs public_key_file",
        ),
        (
            json!({"name": "a", "public_key_file": "f", "algorithms": ["HS256"]}),
            "issuers[0].algorithms: HS256 needs secret",
        ),
        (
            json!({"name": "a", "jwks_url": "http://a.example/keys"}),
            "issuers[0].jwks_url: must be an https URL",
        ),
        (
            json!({"name": "a", "issuer": "a", "discovery": true}),
            "issuers[0].issuer: for discovery it must be an https URL",
        ),
        (
            json!({"name": "a", "discovery": true}),
            "issuers[0].issuer: required for discovery",
        ),
        (
            json!({"name": "a", "jwks_url": "https://a/keys", "algorithms": ["HS256"]}),
            "issuers[0].algorithms: HS256 needs secret",
        ),
    ];
    for (issuer, expected) in cases {
        let problems = problems(json!({"issuers": [issuer]}));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(expected), "{problems:?}");
    }
}

#[test]
fn issuers_must_be_told_apart() {
    let named = |name: &str, iss: &str| issuer(json!({"name": name, "issuer": iss}));
    let cases = [
        (
            json!([named("a", "x"), named("a", "y")]),
            "issuers[1].name: another issuer",
        ),
        (
            json!([named("a", "x"), named("b", "x")]),
            "issuers[1].issuer: \"a\" has the same issuer",
        ),
        (
            json!([named("a", "x"), issuer(json!({"name": "b"}))]),
            "issuers[1].issuer: must be set if there are several issuers",
        ),
    ];
    for (issuers, expected) in cases {
        let problems = problems(json!({ "issuers": issuers }));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(expected), "{problems:?}");
    }
}

#[test]
fn unknown_keys_and_algorithms_are_refused() {
    let cases = [
        json!({"issuer": []}),
        json!({"token_sources": ["headers"]}),
        json!({"timeout": 5}),
        json!({"issuers": [issuer(json!({"secrets": "x"}))]}),
        json!({"issuers": [issuer(json!({"algorithms": ["none"]}))]}),
        json!({"issuers": [issuer(json!({"algorithms": ["hs256"]}))]}),
    ];
    for config in cases {
        assert!(
            serde_json::from_value::<AuthConfig>(config.clone()).is_err(),
            "{config}"
        );
    }
}

#[test]
fn a_secret_is_not_shown() {
    let config: AuthConfig =
        serde_json::from_value(json!({"issuers": [issuer(json!({}))]})).unwrap();
    let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
    assert!(
        shown.contains("[redacted]") && !shown.contains(SECRET),
        "{shown}"
    );
}

#[test]
fn every_key_is_described() {
    let schema = serde_json::to_value(schemars::schema_for!(AuthConfig)).unwrap();
    let issuer = &schema["$defs"]["Issuer"]["properties"];
    for properties in [&schema["properties"], issuer] {
        for (key, value) in properties.as_object().unwrap() {
            assert!(value["description"].is_string(), "{key}");
        }
    }
}

#[test]
fn keys_are_fetched_by_https_or_from_this_machine() {
    for good in [
        "https://id.example",
        "https://id.example:8443/a/b?c=d",
        "http://127.0.0.1:8080/keys",
        "http://[::1]/keys",
        "http://localhost/keys",
    ] {
        assert!(check_url(good, false).is_ok(), "{good}");
    }
    for bad in [
        "",
        "/keys",
        "id.example/keys",
        "http://id.example/keys",
        "http://127.0.0.1.example/keys",
        "http://localhost.example/keys",
        "ftp://id.example/keys",
        "file:///keys",
        "https://",
        "https://user@id.example/keys",
        "https://user:secret@id.example/keys",
        "https://id.example/keys#one",
        "https://{iss}/keys",
        "https://id.example/{tenant}/keys",
        "https://id.example/a b",
        "https://id.example:44a3/keys",
        "https://id.example:65536/keys",
        "https://[::1]:/keys",
    ] {
        assert!(check_url(bad, false).is_err(), "{bad}");
    }
}

#[test]
fn every_problem_of_reports_names_its_key() {
    let reporting = |changes: Value| {
        let mut reporting =
            issuer(json!({"issuer": "https://id", "event_stream": {"audience": ["us"]}}));
        for (name, value) in changes.as_object().unwrap() {
            reporting[name] = value.clone();
        }
        reporting
    };
    let stream = |stream: Value| reporting(json!({"event_stream": stream}));
    let on = |name: &str, changes: Value| {
        let mut other =
            reporting(json!({"name": "org", "issuer": "https://org", "reports_on": name}));
        for (name, value) in changes.as_object().unwrap() {
            other[name] = value.clone();
        }
        json!([issuer(json!({"issuer": "https://id"})), other])
    };
    let cases = [
        (
            json!([reporting(json!({"issuer": null}))]),
            "issuers[0].issuer: required for event_stream",
        ),
        (
            json!([reporting(json!({"name": "a/b"}))]),
            "issuers[0].name: may have only letters",
        ),
        (
            json!([stream(json!({}))]),
            "issuers[0].event_stream.audience: must list",
        ),
        (
            json!([stream(json!({"audience": [""]}))]),
            "issuers[0].event_stream.audience: must list",
        ),
        (
            json!([stream(
                json!({"audience": ["us"], "authorization": "Bearer x"})
            )]),
            "issuers[0].event_stream.authorization: must have at least 16 bytes",
        ),
        (
            json!([stream(
                json!({"audience": ["us"], "authorization": SECRET, "authorization_file": "f"})
            )]),
            "issuers[0].event_stream.authorization: set authorization or authorization_file, not both",
        ),
        (
            json!([stream(
                json!({"audience": ["us"], "verification_state": ""})
            )]),
            "issuers[0].event_stream.verification_state: must not be empty",
        ),
        (
            json!([reporting(
                json!({"audience": ["a"], "global_token_revocation": []})
            )]),
            "issuers[0].global_token_revocation: must list",
        ),
        (
            json!([reporting(json!({"subjects": {"email": ""}}))]),
            "issuers[0].subjects.email: must name a claim",
        ),
        (
            json!([reporting(json!({"subjects": {"opaque": "token"}}))]),
            "issuers[0].subjects.opaque: token is the name of a kind of revocation",
        ),
        (
            json!([reporting(
                json!({"subjects": {"email": "https://app/email"}})
            )]),
            "issuers[0].subjects.email: must name a claim, without",
        ),
        (
            json!([reporting(json!({"subjects": {"session": "sub"}}))]),
            "issuers[0].subjects.session: must not be the claim in auth.subject_claim",
        ),
        (
            json!([reporting(
                json!({"audience": ["us"], "global_token_revocation": ["us"]})
            )]),
            "issuers[0].global_token_revocation: must have no value in common",
        ),
        (
            json!([reporting(json!({"global_token_revocation": ["us"]}))]),
            "issuers[0].audience: required if global_token_revocation is set",
        ),
        (
            json!([issuer(json!({"subjects": {"email": "email"}}))]),
            "issuers[0].subjects: has an effect only with event_stream",
        ),
        (
            on("nobody", json!({})),
            "issuers[1].reports_on: there is no issuer called",
        ),
        (
            on("org", json!({})),
            "issuers[1].reports_on: \"org\" has reports_on too",
        ),
        (
            on("main", json!({"event_stream": null})),
            "issuers[1].reports_on: has no effect without event_stream",
        ),
        (
            on(
                "main",
                json!({"backchannel_logout": true, "logout_audience": ["a"]}),
            ),
            "issuers[1].backchannel_logout: has no effect with reports_on",
        ),
    ];
    for (issuers, expected) in cases {
        let problems = problems(json!({ "issuers": issuers }));
        assert_eq!(problems.len(), 1, "{expected}: {problems:?}");
        assert!(problems[0].starts_with(expected), "{problems:?}");
    }
    assert_eq!(problems(json!({"issuers": on("main", json!({}))})), [""; 0]);
    let alone = json!([on("main", json!({}))[1]]);
    let told = problems(json!({ "issuers": alone }));
    assert!(
        told[0].starts_with("issuers: every issuer has reports_on"),
        "{told:?}"
    );
}

#[test]
fn claims_that_reports_name_people_by_are_told() {
    let config: AuthConfig = serde_json::from_value(json!({"issuers": [
        issuer(json!({
            "issuer": "https://id", "event_stream": {"audience": ["us"]},
            "subjects": {"user": "sub", "email": "email", "session": "sid"},
        })),
        issuer(json!({"name": "silent", "issuer": "https://x", "subjects": {"tenant": "tenant"}})),
        issuer(json!({
            "name": "org", "issuer": "https://org", "reports_on": "main",
            "global_token_revocation": ["us"], "subjects": {"user": "uid", "email": "email"},
        })),
    ]}))
    .unwrap();
    assert_eq!(config.reported_claims(), ["email", "sid", "uid"]);
    assert!(config.reports_users());
}
