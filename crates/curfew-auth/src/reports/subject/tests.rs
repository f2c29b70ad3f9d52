use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::ReportedSubjects;

fn rules() -> ReportRules {
    ReportRules {
        stream: None,
        revocation_audience: None,
        about: "main".into(),
        namesakes: Vec::new(),
        namespaces: vec!["https://id.example".to_owned()],
        subjects: ReportedSubjects {
            opaque: Some("sid".to_owned()),
            session: Some("sid".to_owned()),
            email: Some("sub".to_owned()),
            ..ReportedSubjects::default()
        },
        subject_claim: "sub".into(),
        numeric_subjects: false,
    }
}

fn found(subject: Value) -> Vec<ReportSubject> {
    match rules().find(&subject, &[]) {
        Ok(SubjectMatch::Subjects(subjects)) => subjects,
        other => panic!("{subject}: {other:?}"),
    }
}

#[test]
fn a_claim_that_names_logins_means_all_of_the_login() {
    let login = found(json!({"format":"opaque","id":"one"}));
    assert!(matches!(&login[..], [ReportSubject::Login { claim, .. }] if claim == "sid"));
    assert!(!login[0].can_return());
}

#[test]
fn addresses_that_name_users_are_users_of_the_issuer() {
    let users = found(json!({"format":"email","email":"A@example.com"}));
    let keys: Vec<String> = users.iter().map(|user| user.key().to_string()).collect();
    assert_eq!(
        keys,
        [
            "issuer_user:4:main:A@example.com",
            "issuer_user:4:main:a@example.com"
        ]
    );
}

#[test]
fn aliases_of_a_foreign_user_are_foreign() {
    let foreign = json!({"format":"iss_sub","iss":"https://other.example","sub":"a"});
    let aliases = json!({"format":"aliases","identifiers":[foreign]});
    assert_eq!(rules().find(&aliases, &[]), Ok(SubjectMatch::Foreign));
    let none = json!({"format":"aliases","identifiers":[]});
    assert!(rules().find(&none, &[]).is_err());
}

fn json_value() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("format".to_owned()),
        Just("subject_type".to_owned()),
        Just("iss".to_owned()),
        Just("sub".to_owned()),
        Just("id".to_owned()),
        Just("user".to_owned()),
        Just("session".to_owned()),
        Just("tenant".to_owned()),
        Just("identifiers".to_owned()),
        "\\PC{0,4}",
    ];
    let text = prop_oneof![
        Just("iss_sub".to_owned()),
        Just("complex".to_owned()),
        Just("opaque".to_owned()),
        Just("aliases".to_owned()),
        Just("https://id.example".to_owned()),
        "\\PC{0,8}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::from),
        text.prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_found_or_not(subject in json_value()) {
        if let Ok(SubjectMatch::Subjects(subjects)) = rules().find(&subject, &[]) {
            prop_assert!(!subjects.is_empty());
        }
    }
}

#[test]
fn a_session_of_another_format_leaves_the_user() {
    let user = json!({"format":"iss_sub","iss":"https://id.example","sub":"a"});
    let session = json!({"format":"jwt_id","iss":"https://id.example","jti":"t"});
    let both = found(json!({"format":"complex","session":session,"user":user}));
    assert!(matches!(&both[..], [ReportSubject::User { user, .. }] if user == "a"));
    let alone = json!({"format":"complex","session":session});
    assert!(matches!(
        rules().find(&alone, &[]),
        Ok(SubjectMatch::Nowhere(_))
    ));
}

#[test]
fn a_critical_member_that_nobody_goes_by_leaves_nobody() {
    let user = json!({"format":"iss_sub","iss":"https://id.example","sub":"a"});
    let session = json!({"format":"opaque","id":"s"});
    let subject = json!({"format":"complex","session":session,"user":user,"device":{}});
    for (critical, expected) in [
        (&["session"][..], true),
        (&["user"], false),
        (&["device"], false),
        (&["tenant"], true),
    ] {
        let critical: Vec<String> = critical.iter().map(ToString::to_string).collect();
        let found = rules().find(&subject, &critical).unwrap();
        assert_eq!(
            matches!(found, SubjectMatch::Subjects(_)),
            expected,
            "{critical:?}"
        );
    }
}

#[test]
fn a_revocation_of_a_user_is_of_nothing_wider() {
    let user = json!({"format":"iss_sub","iss":"https://id.example","sub":"a"});
    assert!(matches!(
        rules().find_user(&user),
        Ok(SubjectMatch::Subjects(_))
    ));
    for wider in [
        json!({"format":"complex","user":user}),
        json!({"user":user}),
        json!({"format":"aliases","identifiers":[user]}),
        json!({"format":"jwt_id","iss":"https://id.example","jti":"t"}),
    ] {
        assert!(rules().find_user(&wider).is_err(), "{wider}");
    }
}

/// Tokens and reports are parsed by different code. A report must still find each user whose tokens
/// are accepted.
#[test]
fn a_user_that_is_a_number_is_found_where_tokens_may_have_one() {
    let subject = |sub: Value| json!({"format":"iss_sub","iss":"https://id.example","sub":sub});
    let numeric = ReportRules {
        numeric_subjects: true,
        ..rules()
    };
    for (sub, user) in [
        (json!(42), "42"),
        (json!(-7), "-7"),
        (json!(u64::MAX), "18446744073709551615"),
        (json!(-0.0), "0"),
    ] {
        let expected = ReportSubject::User {
            issuer: "main".into(),
            user: user.to_owned(),
        };
        let found = numeric.find(&subject(sub.clone()), &[]).unwrap();
        assert_eq!(found, SubjectMatch::Subjects(vec![expected]));
        let refused = rules().find(&subject(sub), &[]).unwrap_err();
        assert!(refused.to_string().contains("auth.numeric_subjects"));
    }
    assert!(numeric.find(&subject(json!(4.5)), &[]).is_err());
}
