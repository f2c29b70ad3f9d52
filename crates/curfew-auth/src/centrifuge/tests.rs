//! The claims of the Centrifuge protocol are read leniently: a member of the wrong type counts as
//! absent.

use super::*;

fn connection(claims: &str) -> ConnectionClaims {
    ConnectionClaims::of(&Claims::from_json(claims))
}

fn json(text: &str) -> Option<TokenData> {
    Some(TokenData::Json(text.into()))
}

#[test]
fn info_is_what_the_token_has_and_bytes_come_first() {
    let bytes = |bytes: &[u8]| Some(TokenData::Bytes(bytes.into()));
    for (claims, expected) in [
        (
            r#"{"info":{"b":1, "a":1.50}}"#,
            json(r#"{"b":1, "a":1.50}"#),
        ),
        (r#"{"info":"x"}"#, json(r#""x""#)),
        (r#"{"info":0}"#, json("0")),
        (r#"{"info":null}"#, None),
        (r#"{}"#, None),
        (r#"{"b64info":"AP+/","info":1}"#, bytes(&[0, 255, 191])),
        (r#"{"b64info":"AP8="}"#, bytes(&[0, 255])),
        (r#"{"b64info":"AP8"}"#, bytes(&[0, 255])),
        (r#"{"b64info":"","info":1}"#, json("1")),
        (r#"{"b64info":null,"info":1}"#, json("1")),
        (r#"{"b64info":"?","info":1}"#, json("1")),
        (r#"{"b64info":7,"info":1}"#, json("1")),
    ] {
        assert_eq!(connection(claims).info, expected, "{claims}");
    }
}

#[test]
fn a_large_info_is_none() {
    for (length, is_read) in [(1022, true), (1023, false)] {
        let claims = format!(r#"{{"info":"{}"}}"#, "x".repeat(length));
        assert_eq!(connection(&claims).info.is_some(), is_read, "{length}");
    }
    for (length, is_read) in [(1024, true), (1025, false)] {
        let text = BASE64.encode(vec![7; length]);
        let claims = format!(r#"{{"b64info":"{text}","info":1}}"#);
        assert_eq!(connection(&claims).info.is_some(), is_read, "{length}");
    }
}

#[test]
fn each_wished_channel_is_there_once() {
    let read = connection(
        r#"{"channels":["b","a","b",7,null,"$x","", "a b"],
            "subs":{"b":{"data":[1],"info":2},"c":null,"d":{},"e":[],"f":"x"," g":{}}}"#,
    );
    let names: Vec<&str> = read
        .channels
        .iter()
        .map(|one| one.channel.as_str())
        .collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    let options = &read.channels[1].options;
    assert_eq!((&options.data, &options.info), (&json("[1]"), &json("2")));
    for at in [0, 2, 3] {
        assert_eq!(read.channels[at].options, SubscriptionClaims::default());
    }
}

#[test]
fn members_of_another_type_are_ignored_one_by_one() {
    for claims in [
        r#"{"channels":"a","subs":[]}"#,
        r#"{"channels":{"a":1},"subs":"a"}"#,
        r#"{"channels":7,"subs":7}"#,
        "7",
    ] {
        assert_eq!(connection(claims), ConnectionClaims::default(), "{claims}");
    }
    let claims = Claims::from_json(
        r#"{"data":{"x":1},"info":null,"override":{
            "presence":{"value":false},"join_leave":{"value":"yes"},"force_recovery":{},
            "force_positioning":[true],"force_push_join_leave":{"value":true},"other":1}}"#,
    );
    let read = SubscriptionClaims::of(&claims);
    assert_eq!(read.data, json(r#"{"x":1}"#));
    let expected = Overrides {
        presence: Some(false),
        join_leave: None,
        force_push_join_leave: Some(true),
        force_recovery: Some(false),
        force_positioning: None,
    };
    assert_eq!(read.overrides, expected);
    let odd = SubscriptionClaims::of(&Claims::from_json(r#"{"override":[1]}"#));
    assert_eq!(odd, SubscriptionClaims::default());
}

#[test]
fn debug_shows_no_value() {
    let claims = connection(r#"{"info":"canary","subs":{"a":{"b64data":"Y2FuYXJ5"}}}"#);
    assert_eq!(claims.channels.len(), 1);
    assert!(!format!("{claims:?}").contains("canary"));
}
