//! The commands that use the admin API, tested with a server that gives prepared answers.

use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};

use crate::support::{answering, curfew, curfew_with};

#[test]
fn revoking_sends_the_key_and_prints_the_receipt() {
    let receipt = json!({"key":"user:a b","nodes":{"live":1,"confirmed":1,"missing":[]},"closed":2,"took_ms":4});
    let answers = vec![
        ("200 OK", receipt.to_string()),
        ("200 OK", receipt.to_string()),
        ("200 OK", "{\"restored\":true}".to_owned()),
    ];
    let (address, served) = answering(answers);
    let url = format!("http://{address}");
    let env = [
        ("CURFEW_ADMIN_KEY", "the admin key"),
        ("CURFEW_ADMIN_URL", url.as_str()),
    ];
    let output = curfew_with(&["revoke", "user", "a b", "--reason", "left"], &env);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(
        output.stdout,
        "revoked user:a b: 2 sessions closed, confirmed by 1 of 1 node in 4 ms\n"
    );
    let output = curfew_with(
        &[
            "revoke",
            "all",
            "--before",
            "1764000000",
            "--ttl",
            "10m",
            "--json",
        ],
        &env,
    );
    assert_eq!(output.json(), receipt);
    let output = curfew_with(&["restore", "user", "a/b"], &env);
    assert_eq!(output.code, 0, "{}", output.stderr);

    let requests = served.join().unwrap();
    assert_eq!(requests[0].line, "POST /v1/revocations HTTP/1.1");
    assert_eq!(
        requests[0].header("authorization"),
        Some("Bearer the admin key")
    );
    let body = |at: usize| serde_json::from_str::<Value>(&requests[at].body).unwrap();
    assert_eq!(
        body(0),
        json!({"kind":"user","value":"a b","ttl":86400,"reason":"left"})
    );
    assert_eq!(
        body(1),
        json!({"kind":"all","value":"all","ttl":600,"before":1_764_000_000})
    );
    assert_eq!(
        requests[2].line,
        "DELETE /v1/revocations/user/a%2Fb HTTP/1.1"
    );
}

#[test]
fn sessions_are_listed_page_by_page() {
    let session = |id: &str| json!({"session":id,"user":"al\u{1b}ice","node":"n1","connected_at":1,"expires_at":4_000_000_000_u64});
    let pages = |_| {
        vec![
            (
                "200 OK",
                json!({"sessions":[session("s1")],"cursor":"s1"}).to_string(),
            ),
            (
                "200 OK",
                json!({"sessions":[session("s2")],"cursor":null}).to_string(),
            ),
        ]
    };
    let (address, served) = answering([0, 1].into_iter().flat_map(pages).collect());
    let url = format!("http://{address}");
    let output = curfew(&["sessions", "--user", "al&ice", "--url", &url]);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(
        lines.len() == 3 && lines[0].starts_with("SESSION  USER"),
        "{}",
        output.stdout
    );
    assert!(!output.stdout.contains('\u{1b}'), "{}", output.stdout);
    let output = curfew(&["sessions", "--json", "--url", &url]);
    assert_eq!(
        output.json(),
        json!({"sessions":[session("s1"), session("s2")],"cursor":null})
    );
    let requests = served.join().unwrap();
    assert_eq!(
        requests[0].line,
        "GET /v1/sessions?limit=500&user=al%26ice HTTP/1.1"
    );
    assert_eq!(
        requests[1].line,
        "GET /v1/sessions?limit=500&user=al%26ice&cursor=s1 HTTP/1.1"
    );
}

#[test]
fn the_admin_apis_refusals_say_what_to_do() {
    let problem = |status: u16, detail: &str| {
        json!({"status":status,"title":"No","detail":detail}).to_string()
    };
    let (address, served) = answering(vec![
        ("401 Unauthorized", problem(401, "an admin key is required")),
        ("403 Forbidden", problem(403, "no admin key is configured")),
        ("503 Service Unavailable", "not JSON".to_owned()),
    ]);
    let url = format!("http://{address}");
    for expect in [
        ["an admin key is required", "--key-file"],
        ["no admin key is configured", "admin.key_file"],
        ["503", "503"],
    ] {
        let output = curfew(&["nodes", "--url", &url]);
        assert_eq!(output.code, 1);
        for expect in expect {
            assert!(
                output.stderr.contains(expect),
                "{expect} is missing in {}",
                output.stderr
            );
        }
    }
    served.join().unwrap();
}

/// An address on which no process listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn the_first_of_several_nodes_that_can_be_reached_is_asked() {
    let (address, served) = answering(vec![("200 OK", "{\"published\":1}".to_owned())]);
    let urls = format!("http://{}, http://{address},http://{}", nobody(), nobody());
    let env = [("CURFEW_ADMIN_URL", urls.as_str())];
    let output = curfew_with(&["publish", "room:1", "1"], &env);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let [request] = &served.join().unwrap()[..] else {
        panic!("the server did not receive exactly one request");
    };
    assert_eq!(request.header("host"), Some(&*address.to_string()));
    let away = [nobody(), nobody()];
    let urls = away.map(|address| format!("http://{address}")).join(",");
    let output = curfew(&["publish", "room:1", "1", "--url", &urls]);
    assert_eq!(output.code, 1);
    for expect in away {
        let told = format!("admin listener {expect} ");
        assert!(output.stderr.contains(&told), "{told}: {}", output.stderr);
    }
    let output = curfew(&["nodes", "--url", "http://127.0.0.1:9090,"]);
    assert_eq!(output.code, 2, "{}", output.stderr);
}

#[test]
fn published_data_goes_byte_for_byte() {
    let (address, served) = answering(vec![("200 OK", "{\"published\":1}".to_owned())]);
    let data = r#"{"b": 1.0,  "a":1e5}"#;
    let output = curfew(&[
        "publish",
        "room:1",
        data,
        "--url",
        &format!("http://{address}"),
    ]);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, ""),
        "{}",
        output.stderr
    );
    let body = format!(r#"{{"channel":"room:1","data":{data}}}"#);
    assert_eq!(served.join().unwrap()[0].body, body);
}

#[test]
fn a_history_is_shown_as_it_was_published_and_steers_no_terminal() {
    let answer = "{\"epoch\":\"kdWqZx3a\",\"offset\":45,\"publications\":[\
        {\"offset\":44,\"data\":{\"b\": 1.50},\"at\":1764000000123,\"more\":1},\
        {\"offset\":45,\"data\":\"\u{202e}x\",\"from\":\"al\\u001bice\",\"at\":1764000000456}]}";
    let refusal = json!({"status":409,"title":"Conflict","code":"not_available",
        "detail":"the channel keeps no history: see [[channels]]"});
    let (address, served) = answering(vec![
        ("200 OK", answer.to_owned()),
        ("200 OK", answer.to_owned()),
        ("409 Conflict", refusal.to_string()),
    ]);
    let url = format!("http://{address}");
    let channel = "room:a/1";
    let asked = ["history", channel, "--url", &url];
    let since = ["--since", "kdWqZx3a:41", "--limit", "2"];
    let output = curfew(&[&asked[..], &since].concat());
    assert_eq!(output.code, 0, "{}", output.stderr);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(lines[0].starts_with("OFFSET  PUBLISHED"), "{lines:?}");
    assert!(
        lines[1].ends_with(r#" -            {"b": 1.50}"#),
        "{lines:?}"
    );
    assert!(
        lines[2].ends_with(r#" al\u{1b}ice  "\u{202e}x""#),
        "{lines:?}"
    );
    assert_eq!(
        &lines[3..],
        [
            "The publications with the offsets 42 to 43 are no longer stored.",
            "position: kdWqZx3a:45"
        ]
    );
    let output = curfew(&[&asked[..], &["--before", "46", "--json"]].concat());
    assert_eq!(output.stdout.trim_end(), answer);
    let output = curfew(&asked);
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.contains("keeps no history"),
        "{}",
        output.stderr
    );
    let lines: Vec<String> = served
        .join()
        .unwrap()
        .into_iter()
        .map(|request| request.line)
        .collect();
    let path = "GET /v1/channels/room%3Aa%2F1/history";
    assert_eq!(
        lines,
        [
            format!("{path}?limit=2&since=kdWqZx3a%3A41 HTTP/1.1"),
            format!("{path}?before=46 HTTP/1.1"),
            format!("{path} HTTP/1.1"),
        ]
    );
}

#[test]
fn presence_is_a_table_and_a_count() {
    let session = "01890a5d-ac96-774b-bcce-b302099a8057";
    let answer = json!({"channel":"room:1","subscribers":1,"presence":{"count":1001,"users":7,
        "truncated":true,"sessions":[{"session":session,"user":"al\u{1b}ice","info":{"a":1}},
        {"session":session,"user":"bob"}]}});
    let none = json!({"channel":"room:1","subscribers":1});
    let (address, served) = answering(vec![
        ("200 OK", answer.to_string()),
        ("200 OK", none.to_string()),
    ]);
    let url = format!("http://{address}");
    let asked = ["presence", "room:ä", "--url", &url];
    let output = curfew(&asked);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(lines[0].starts_with("SESSION "), "{lines:?}");
    assert!(lines[1].ends_with(r#" al\u{1b}ice  {"a":1}"#), "{lines:?}");
    assert!(lines[2].ends_with(" bob          -"), "{lines:?}");
    assert_eq!(lines[3], "sessions: 1001, users: 7, not listed: 999");
    let output = curfew(&asked);
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("no presence"), "{}", output.stderr);
    let line = served.join().unwrap().remove(0).line;
    assert_eq!(line, "GET /v1/channels/room%3A%C3%A4 HTTP/1.1");
}

#[test]
fn a_key_of_a_publication_goes_with_it_and_its_offset_is_told() {
    let answer = r#"{"published":1,"epoch":"kdWqZx3a","offset":45}"#;
    let (address, served) = answering(vec![("200 OK", answer.to_owned())]);
    let url = format!("http://{address}");
    let output = curfew(&["publish", "room:1", "1", "--key", "order-77", "--url", &url]);
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, "offset: 45\n"),
        "{}",
        output.stderr
    );
    assert_eq!(
        served.join().unwrap()[0].body,
        r#"{"channel":"room:1","data":1,"key":"order-77"}"#
    );
}
