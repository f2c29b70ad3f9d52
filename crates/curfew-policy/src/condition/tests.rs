use super::*;

use serde_json::{Map, json};

/// The stack of a worker of the runtime, in bytes.
const WORKER_STACK: usize = 2 * 1024 * 1024;

fn claims() -> Map<String, serde_json::Value> {
    let claims = json!({
        "sub": "alice",
        "tenant": "acme",
        "roles": ["member", "editor"],
        "level": 3,
        "ratio": 1.5,
        "huge": u64::MAX,
        "admin": true,
        "nothing": null,
        "nested": {"a": {"b": [1, 2]}},
        "https://example.com/plan": "gold",
        "canary": "canary-value",
    });
    claims.as_object().cloned().unwrap()
}

fn evaluate(source: &str) -> Result<bool, EvaluationError> {
    let claims = claims();
    let condition = Condition::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    condition.evaluate(&Inputs {
        claims: &LazyClaims::from_parsed(&claims),
        params: &[("tenant", "acme"), ("id", "7")],
        user: "alice",
        action: Action::Publish,
        channel: &Channel::parse("room:acme:7").unwrap(),
    })
}

#[test]
fn expressions_see_claims_params_channel_user_and_action() {
    for (source, expect) in [
        (
            "claims.tenant == params.tenant && 'member' in claims.roles",
            true,
        ),
        ("'admin' in claims.roles", false),
        ("'tenant' in claims", true),
        ("claims.level == 3 && claims.level >= 2", true),
        ("claims.level > 2.5 && claims.level + 1 == 4", true),
        ("claims.ratio == 1.5", true),
        ("claims.huge == 18446744073709551615u", true),
        ("claims.admin", true),
        ("claims.nothing == null", true),
        ("claims.nested.a.b[1] == 2", true),
        ("size(claims.roles) == 2 && size(claims.nested) == 1", true),
        ("claims['https://example.com/plan'] == 'gold'", true),
        ("has(claims.tenant) && !has(claims.absent)", true),
        ("has(claims.absent) && claims.absent == 'x'", false),
        ("channel == 'room:' + claims.tenant + ':' + params.id", true),
        ("channel.startsWith('room:' + claims.tenant)", true),
        ("user == claims.sub && user.endsWith('ice')", true),
        ("action == 'publish'", true),
        (
            "action == 'subscribe' ? claims.admin : !claims.admin",
            false,
        ),
        ("params.id in ['7', '8'] && int(params.id) == 7", true),
        ("type(claims.level) == int && type(user) == string", true),
        ("claims.roles == ['member', 'editor']", true),
        ("{'gold': true}[claims['https://example.com/plan']]", true),
    ] {
        assert_eq!(evaluate(source), Ok(expect), "{source}");
    }
}

#[test]
fn failures_are_named_without_showing_a_claim() {
    for (source, expect) in [
        ("claims.absent == 'x'", "no such key: absent; "),
        ("claims['absent'] == 'x'", "no such key: absent; "),
        ("params.absent == 'x'", "no such key: absent; "),
        ("claims.nested.absent.b", "no such key: absent; "),
        ("{'a': true}[claims.canary]", "no such key; "),
        ("claims[claims.canary] == 1", "no such key; "),
        ("claims.canary", "the result is not true or false"),
        ("claims.level", "the result is not true or false"),
        ("null", "the result is not true or false"),
        ("claims.canary && claims.admin", ""),
        ("claims.canary + 1 == 2", ""),
        ("claims.canary < 1", ""),
        ("-claims.canary == 1", ""),
        ("!claims.canary", ""),
        ("'x' in claims.canary", ""),
        ("claims.canary.b == 1", ""),
        ("claims.canary[0] == 'c'", ""),
        ("{claims.roles: true}['x']", ""),
        ("{claims.canary: 1, claims.canary: 2} == {}", ""),
        ("int(claims.canary) == 1", ""),
        ("bool(claims.canary)", ""),
        ("size(claims.level) == 1", ""),
        ("claims.level.startsWith('x')", ""),
        ("claims.level / 0 == 1", "division by zero"),
        ("claims.level % 0 == 1", "division by zero"),
        (
            "9223372036854775807 + claims.level > 0",
            "the number is out of range",
        ),
        ("claims.roles[9] == 'x'", "the index is out of bounds"),
        ("claims.roles[-1] == 'x'", ""),
        ("claims.admin ? claims.canary : false", "the result is not"),
    ] {
        let Err(error) = evaluate(source) else {
            panic!("the evaluation of {source} did not fail");
        };
        let text = format!("{error} {error:?}");
        assert!(text.starts_with(expect), "{source}: {text}");
        assert!(
            !text.contains("canary-value") && !text.contains("member"),
            "{source}: {text}"
        );
    }
}

#[test]
fn a_failure_beside_an_answer_that_settles_it_does_not_count() {
    for (source, expect) in [
        ("claims.absent == 'x' || claims.admin", true),
        ("claims.admin || claims.absent == 'x'", true),
        ("claims.absent == 'x' && !claims.admin", false),
    ] {
        assert_eq!(evaluate(source), Ok(expect), "{source}");
    }
}

#[test]
fn what_is_not_bounded_or_not_known_does_not_compile() {
    let long = format!("{}true", " ".repeat(MAX_SOURCE));
    for (source, expect) in [
        ("", "the expression is empty"),
        (" \n", "the expression is empty"),
        (long.as_str(), "the expression has 2052 bytes"),
        ("claims.", "line 1, column "),
        ("true &&\n  )", "line 2, column 3: "),
        ("'open", "line 1, column 1: "),
        ("true; true", "line 1, column 5: "),
        ("claims.roles.all(r, true)", "all, exists"),
        ("claims.roles.exists(r, r == 'x')", "all, exists"),
        ("claims.roles.exists_one(r, r == 'x')", "all, exists"),
        ("claims.roles.map(r, r) == []", "all, exists"),
        ("claims.roles.map(r, true, r) == []", "all, exists"),
        ("claims.roles.filter(r, true) == []", "all, exists"),
        (
            "true || !(claims.admin ? [1] == [claims.roles.all(r, r == 'x')] : false)",
            "all, exists",
        ),
        ("{'a': claims.roles.all(r, true)} == {}", "all, exists"),
        ("clams.tenant == 'a'", "unknown variable \"clams\""),
        (".clams == 'a'", "unknown variable \".clams\""),
        ("user.matches('(a+)+$')", "unknown function \"matches\""),
        ("now() > 1", "unknown function \"now\""),
        ("optional.of(1).hasValue()", "unknown function \"hasValue\""),
        ("claims.?tenant == 1", "line 1, column "),
        ("claims{a: 1} == 1", "messages such as"),
    ] {
        let error = Condition::compile(source).unwrap_err().to_string();
        assert!(error.starts_with(expect), "{source:?}: {error}");
        assert!(!error.contains('\n'), "{source:?}: {error:?}");
    }
}

/// Expressions that chain one operator `n` times. Each link nests one level deeper in the syntax
/// tree.
fn chains(n: usize) -> [String; 6] {
    [
        format!("1{} > 0", "+1".repeat(n)),
        format!("claims{} == 1", ".b".repeat(n)),
        format!("claims{} == 1", "[0]".repeat(n)),
        format!("user{} == 1", ".size()".repeat(n)),
        format!("true{}", " == true".repeat(n)),
        format!("1{} > 0", "*1".repeat(n)),
    ]
}

#[test]
fn long_chains_are_refused_before_they_can_overflow_a_stack() {
    for n in [30, 80, 200, 1000] {
        for source in chains(n) {
            let error = Condition::compile(&source);
            if source.len() > MAX_SOURCE {
                assert!(matches!(error, Err(ConditionError::TooLong(_))), "{n}");
            } else {
                assert!(matches!(error, Err(ConditionError::TooDeep)), "{source}");
            }
        }
    }
}

#[test]
fn the_longest_sources_of_every_shape_compile_or_are_refused() {
    let fill = |unit: &str| unit.repeat((MAX_SOURCE - 8) / unit.len());
    for source in [
        format!("1{}", fill("+1")),
        format!("user{}", fill(".b")),
        format!("user{}", fill("[0]")),
        format!("user{}", fill(".a()")),
        format!("{}true", fill("!")),
        format!("{}1", fill("-")),
        format!("{}1", fill("- ")),
        format!("{}true", fill("true?")),
        format!("{}true", fill("true?true:")),
        format!("true{}", fill("||true")),
        format!("true{}", fill("&&true")),
        fill("("),
        fill("["),
        fill("{1:"),
        fill("size("),
        fill("a.b("),
        fill("[].all(x,"),
        fill("has("),
        fill(")"),
        fill("'"),
        fill("\""),
        fill("\\"),
        fill("ä"),
        fill("\0"),
        fill("@"),
    ] {
        drop(Condition::compile(&source));
    }
}

#[test]
fn parentheses_nest_as_deep_as_the_parser_takes_them() {
    let nested = |n| format!("{}true{}", "(".repeat(n), ")".repeat(n));
    assert!(Condition::compile(&nested(50)).is_ok());
    assert!(matches!(
        Condition::compile(&nested(100)),
        Err(ConditionError::Syntax { .. })
    ));
    let lists = format!("{}{} == []", "[".repeat(100), "]".repeat(100));
    assert!(Condition::compile(&lists).is_err());
}

#[test]
fn alternatives_fill_the_source_without_getting_deep() {
    let source = format!("user == 'a'{}", " || user == 'a'".repeat(130));
    assert_eq!(evaluate(&source), Ok(false));
    assert_eq!(evaluate(&format!("{source} || user == 'alice'")), Ok(true));
}

#[test]
fn the_deepest_conditions_fit_a_workers_stack_with_room_to_spare() {
    let compiles = |source: &String| Condition::compile(source).is_ok();
    let deepest: Vec<String> = (MAX_DEPTH - 3..MAX_DEPTH)
        .flat_map(chains)
        .filter(compiles)
        .collect();
    assert!(deepest.len() >= 6, "{deepest:?}");
    assert!(!chains(MAX_DEPTH).iter().any(compiles));
    thread::Builder::new()
        .stack_size(WORKER_STACK / 2)
        .spawn(move || {
            for source in deepest {
                drop(evaluate(&source));
            }
        })
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn claims_are_not_parsed_for_a_condition_that_does_not_ask_for_them() {
    let text = curfew_model::Claims::from_json("{}");
    let claims = LazyClaims::from_text(&text);
    let condition = Condition::compile("user == params.user").unwrap();
    let channel = Channel::parse("inbox:alice").unwrap();
    let answer = condition.evaluate(&Inputs {
        claims: &claims,
        params: &[("user", "alice")],
        user: "alice",
        action: Action::Subscribe,
        channel: &channel,
    });
    assert_eq!(answer, Ok(true));
    assert!(!claims.is_parsed());
}

/// A sum of `n` times `of` as a balanced tree, whose depth stays within [`MAX_DEPTH`].
fn sum(of: &str, n: usize) -> String {
    if n == 1 {
        return of.to_owned();
    }
    format!("({}+{})", sum(of, n / 2), sum(of, n - n / 2))
}

#[test]
fn an_expression_that_takes_too_long_fails_whatever_its_result() {
    let roles = |n: usize| json!({ "roles": vec![1; n] });
    for (source, n, expect) in [
        (
            format!("size({}) > 0", sum("claims.roles", 120)),
            20,
            Ok(true),
        ),
        (
            format!("size({}) > 0", sum("claims.roles", 120)),
            3500,
            Err(EvaluationError::TooLong),
        ),
        (
            format!("size({}) > 0 || user == 'alice'", sum("claims.roles", 120)),
            3500,
            Err(EvaluationError::TooLong),
        ),
        (
            "2 in claims.roles || claims.roles[0] == 1".into(),
            3500,
            Ok(true),
        ),
    ] {
        let claims = roles(n);
        let condition = Condition::compile(&source).unwrap();
        let answer = condition.evaluate(&Inputs {
            claims: &LazyClaims::from_parsed(claims.as_object().unwrap()),
            params: &[],
            user: "alice",
            action: Action::Publish,
            channel: &Channel::parse("room").unwrap(),
        });
        assert_eq!(answer, expect, "{n} {source}");
    }
}
