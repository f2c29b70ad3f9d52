//! Subjects of events (RFC 9493, Shared Signals Framework 1.0 §3).

use super::*;

const SUBJECTS: &str = "[auth.issuers.subjects]\nuser = \"uid\"\nemail = \"email\"\nopaque = \"handle\"\nsession = \"sid\"\ntenant = \"tenant\"\n";

#[tokio::test]
async fn whoever_an_event_is_about_is_found() {
    let transmitter = Transmitter::start().await;
    let node = Gateway::start_with(&transmitter.settings(SUBJECTS)).await;
    let iss = transmitter.provider.issuer();
    let access = |user: &str| {
        let more = json!({
            "iat": unix_now() - 10,
            "uid": format!("uid-{user}"),
            "email": format!("{user}@Example.com"),
            "handle": format!("handle-{user}"),
            "sid": format!("sid-{user}"),
            "tenant": format!("tenant-{user}"),
            "jti": format!("jti-{user}"),
        });
        transmitter.access(user, more)
    };
    let opaque = |id: &str| json!({"format":"opaque","id":id});
    let email = json!({"format":"email","email":"c@example.COM"});
    for (user, subject) in [
        // Formats of RFC 9493 §3.2.
        ("a", json!({"format":"iss_sub","iss":iss,"sub":"uid-a"})),
        ("b", json!({"format":"email","email":"b@Example.com"})),
        ("c", email.clone()),
        ("d", opaque("handle-d")),
        (
            "e",
            json!({"format":"aliases","identifiers":[
                {"format":"phone_number","phone_number":"+491701234567"}, opaque("handle-e"),
            ]}),
        ),
        // Formats of Shared Signals Framework 1.0 §3.3 and §3.5.
        ("f", json!({"format":"jwt_id","iss":iss,"jti":"jti-f"})),
        ("g", json!({"format":"complex","session":opaque("sid-g")})),
        (
            "h",
            json!({"format":"complex","session":opaque("sid-h"),"user":email}),
        ),
        (
            "i",
            json!({"format":"complex","user":opaque("handle-i"),"device":opaque("x")}),
        ),
        ("j", json!({"format":"complex","tenant":opaque("tenant-j")})),
        (
            "k",
            json!({"format":"complex","tenant":{"format":"iss_sub","iss":iss,"sub":"tenant-k"}}),
        ),
        // Names of members from before the Shared Signals Framework.
        (
            "l",
            json!({"user":{"format":"iss_sub","iss":iss,"sub":"uid-l"}}),
        ),
        (
            "m",
            json!({"subject_type":"iss-sub","iss":iss,"sub":"uid-m"}),
        ),
    ] {
        let mut client = node.session(&access(user)).await;
        let mut other = node.session(&access("other")).await;
        let answer = push(&node, &transmitter.revoked(subject.clone())).await;
        assert_eq!(answer.status, 202, "{subject}: {}", answer.text());
        client.expect_close(4403, "revoked").await;
        other.assert_open().await;
    }
    assert_eq!(outcomes(&node, "ended").await, 13.0);
    // In RISC, the subject is inside the event.
    let mut client = node.session(&access("n")).await;
    let inside = json!({"subject":{"subject_type":"email","email":"n@example.com"}});
    let events = json!({format!("{RISC}account-disabled"):inside});
    assert_accepted(
        &push(
            &node,
            &transmitter.set(json!({"sub_id":null,"events":events})),
        )
        .await,
    );
    client.expect_close(4403, "revoked").await;
}

#[tokio::test]
async fn whoever_is_not_found_is_told_to_the_operator() {
    let transmitter = Transmitter::start().await;
    let critical = "critical_members = [\"device\"]\n";
    let node = Gateway::start_with(&transmitter.settings(critical)).await;
    let mut client = node.session(&transmitter.older("alice", 10)).await;
    let opaque = |id: &str| json!({"format":"opaque","id":id});
    let subjects = [
        opaque("alice"),
        json!({"format":"email","email":"alice@example.com"}),
        json!({"format":"account","uri":"acct:alice@example.com"}),
        json!({"format":"did","url":"did:example:alice"}),
        json!({"format":"of-the-future","id":"alice"}),
        json!({"format":"iss_sub","iss":"https://other.example","sub":"alice"}),
        json!({"format":"complex","session":opaque("alice")}),
        json!({"format":"complex","tenant":opaque("acme")}),
        json!({"format":"complex","tenant":opaque("acme"),"group":opaque("g")}),
        // §3.6: the critical member `device` has no meaning for the node.
        json!({"format":"complex","user":transmitter.user("alice"),"device":opaque("d")}),
    ];
    for (count, subject) in subjects.iter().enumerate() {
        assert_accepted(&push(&node, &transmitter.revoked(subject.clone())).await);
        client.assert_open().await;
        assert_eq!(
            outcomes(&node, "nobody_found").await,
            count as f64 + 1.0,
            "{subject}"
        );
    }
    let log = node.log().text();
    assert!(log.contains("no session can be found by the subject of a security event"));
}
