use proptest::prelude::*;

use super::*;

/// Reads a difference and makes the target from the base. If `is_text`, checks that all inserted
/// parts are text.
fn apply(base: &[u8], mut difference: &[u8], is_text: bool) -> Vec<u8> {
    let rest = &mut difference;
    let length = number(rest);
    assert_eq!(take(rest, 1), b"\n");
    let mut target = Vec::new();
    loop {
        let value = number(rest);
        match take(rest, 1) {
            b"@" => {
                let from = number(rest);
                assert_eq!(take(rest, 1), b",");
                assert!(value > 0);
                target.extend_from_slice(&base[from..from + value]);
            }
            b":" => {
                let part = take(rest, value);
                assert!(!part.is_empty());
                assert!(!is_text || std::str::from_utf8(part).is_ok());
                target.extend_from_slice(part);
            }
            b";" => {
                assert!(rest.is_empty());
                assert_eq!(target.len(), length);
                assert_eq!(sum(&target), value);
                return target;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at(length);
    *rest = after;
    taken
}

fn number(rest: &mut &[u8]) -> usize {
    let digit = |byte| DIGITS.iter().position(|digit| *digit == byte);
    let mut value = 0;
    let mut digits = 0;
    while let Some(digit) = rest.first().copied().and_then(digit) {
        assert!(digits == 0 || value > 0, "a number has a leading zero");
        value = value * 64 + digit;
        digits += 1;
        *rest = &rest[1..];
    }
    assert!(digits > 0, "the difference has no number here");
    value
}

/// The checksum, computed by its definition.
fn sum(bytes: &[u8]) -> usize {
    let mut sum = 0_u64;
    for (at, byte) in bytes.iter().enumerate() {
        sum += u64::from(*byte) << (24 - 8 * (at % 4));
    }
    (sum % (1 << 32)) as usize
}

fn create(base: &[u8], target: &[u8], is_text: bool) -> Vec<u8> {
    let mut difference = Difference::new(base, target, is_text);
    difference.write();
    let made = difference.out;
    assert_eq!(apply(base, &made, is_text), target);
    assert!(!is_text || std::str::from_utf8(&made).is_ok());
    made
}

#[test]
fn the_reader_of_these_tests_reads_the_vectors() {
    for (base, difference, target) in [
        (r#"{"a":1}"#, "7\n7:{\"a\":2}2qLDtY;", r#"{"a":2}"#),
        (
            r#"{"room":"kitchen","temp":20.5,"unit":"C"}"#,
            "e\nQ@0,3:1.0C@T,27ul48;",
            r#"{"room":"kitchen","temp":21.0,"unit":"C"}"#,
        ),
    ] {
        let made = apply(base.as_bytes(), difference.as_bytes(), true);
        assert_eq!(made, target.as_bytes());
    }
}

#[test]
fn one_edit_is_told_by_what_is_around_it() {
    let base = r#"{"room":"kitchen","temp":20.5,"unit":"C"}"#;
    let target = r#"{"room":"kitchen","temp":21.0,"unit":"C"}"#;
    for is_text in [true, false] {
        let made = difference(base.as_bytes(), target.as_bytes(), is_text).unwrap();
        assert_eq!(made, b"e\nQ@0,3:1.0C@T,27ul48;");
    }
}

#[test]
fn what_is_not_shorter_is_none() {
    for (base, target) in [
        ("", ""),
        ("", "a"),
        ("a", ""),
        (r#"{"a":1}"#, r#"{"a":2}"#),
        ("abc", "xyz"),
        (
            "",
            "the base is empty and the target is long enough to fill some blocks of the table",
        ),
    ] {
        create(base.as_bytes(), target.as_bytes(), true);
        assert_eq!(difference(base.as_bytes(), target.as_bytes(), true), None);
    }
    assert_eq!(create(b"", b"", true), b"0\n0;");
    assert_eq!(create(b"a", b"", true), b"0\n0;");
}

#[test]
fn parts_that_have_moved_are_found() {
    let parts: Vec<String> = (0..20)
        .map(|at| format!("{at} sentences of the base, "))
        .collect();
    let base = parts.concat();
    let target: String = parts.iter().rev().map(|part| part.as_str()).collect();
    let made = create(base.as_bytes(), target.as_bytes(), true);
    assert!(made.len() < target.len() * 3 / 4, "{}", made.len());
    let twice = format!("{base} and {base}");
    assert!(create(base.as_bytes(), twice.as_bytes(), true).len() < 40);
}

#[test]
fn characters_are_not_cut_in_text() {
    // Both letters have the same first byte.
    let base = format!("{{\"text\":\"{}б{}\"}}", "дом ".repeat(9), "сад ".repeat(9));
    let target = base.replace('б', "в");
    let made = create(base.as_bytes(), target.as_bytes(), true);
    assert!(made.len() < 30, "{made:?}");
    assert!(create(base.as_bytes(), target.as_bytes(), false).len() <= made.len());
}

#[test]
fn a_base_of_equal_blocks_costs_no_more_than_another() {
    let base = vec![b'a'; 1 << 20];
    let mut target = base.clone();
    // Base and target share no prefix and no suffix.
    target.insert(0, b'b');
    target.push(b'b');
    for at in (0..target.len()).step_by(1000) {
        target[at] = b'b';
    }
    // Without a bound on the blocks that are tried, this takes hours.
    let made = create(&base, &target, true);
    assert!(made.len() < target.len() / 50);
}

#[test]
fn numbers_have_as_many_digits_as_they_need() {
    for (value, expect) in [
        (0, "0"),
        (1, "1"),
        (63, "~"),
        (64, "10"),
        (4095, "~~"),
        (4096, "100"),
        (usize::MAX, "F~~~~~~~~~~"),
    ] {
        let mut out = Vec::new();
        put_number(value, &mut out);
        assert_eq!(out, expect.as_bytes());
        assert_eq!(digits(value), expect.len());
    }
}

/// A base and a target that share parts.
fn related<T: Clone + std::fmt::Debug + 'static>(
    part: impl Strategy<Value = Vec<T>> + Clone,
) -> impl Strategy<Value = (Vec<T>, Vec<T>)> {
    let parts = prop::collection::vec(part, 1..8);
    let order = || prop::collection::vec(any::<prop::sample::Index>(), 0..10);
    (parts, order(), order()).prop_map(|(parts, base, target)| {
        let made = |order: &[prop::sample::Index]| {
            order.iter().flat_map(|at| at.get(&parts).clone()).collect()
        };
        (made(&base), made(&target))
    })
}

proptest! {
    #[test]
    fn bytes_are_made_again((base, target) in related(prop::collection::vec(0..4_u8, 0..60))) {
        create(&base, &target, false);
        prop_assert_eq!(
            difference(&base, &target, false).map(|made| apply(&base, &made, false)).unwrap_or(target.clone()),
            target
        );
    }

    #[test]
    fn any_bytes_are_made_again(base: Vec<u8>, target: Vec<u8>) {
        create(&base, &target, false);
    }

    #[test]
    fn text_is_made_again_of_texts(
        (base, target) in related(prop::collection::vec(prop::sample::select(vec!['a', 'é', 'è', 'ч', 'ш', '😀', '😁', '\u{7ff}']), 0..40))
    ) {
        let text = |characters: Vec<char>| characters.into_iter().collect::<String>();
        create(text(base).as_bytes(), text(target).as_bytes(), true);
    }

    /// Each text is the base of the next text, as for a subscriber.
    #[test]
    fn a_chain_of_texts_is_made_again(
        texts in prop::collection::vec(
            prop::collection::vec(
                prop::sample::select(vec!["привет", "мир", "дом", "дым", "😀", "😁😀", "{\"text\":\"", "\"}", "ч", "ш", " "]),
                0..20,
            ),
            1..12,
        )
    ) {
        let (mut known, mut has_base) = (String::new(), false);
        for text in texts.iter().map(|parts| parts.concat()) {
            let made = difference(known.as_bytes(), text.as_bytes(), true).filter(|_| has_base);
            let read = match made {
                Some(made) => {
                    let made = String::from_utf8(made).expect("the difference is not UTF-8");
                    prop_assert!(made.len() < text.len());
                    apply(known.as_bytes(), made.as_bytes(), true)
                }
                None => text.clone().into_bytes(),
            };
            known = String::from_utf8(read).expect("the target is not UTF-8");
            prop_assert_eq!(&known, &text);
            has_base = true;
        }
    }

    #[test]
    fn any_text_is_made_again(base: String, target: String) {
        create(base.as_bytes(), target.as_bytes(), true);
    }
}
