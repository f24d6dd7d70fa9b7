//! What is accepted as YAML, and the shape a file must have.

use super::*;

#[test]
fn the_structure_is_checked_in_the_words_of_nutcracker() {
    for (text, place, reason) in [
        ("", "1:1", "must contain only 1 document; found 0 documents"),
        (
            "# nothing\n",
            "1:1",
            "must contain only 1 document; found 0 documents",
        ),
        (
            "a:\n  b: c\n---\nd:\n  e: f\n",
            "3:1",
            "must contain only 1 document; found 2 documents",
        ),
        ("alpha", "1:1", "has invalid empty \"key:\" at depth 0"),
        ("---\n", "1:4", "has invalid empty \"key:\" at depth 0"),
        ("- a\n", "1:1", "has sequence at depth 0 instead of 2"),
        ("p:\n  - a\n", "2:3", "has sequence at depth 1 instead of 2"),
        ("p: x\n", "1:4", "has invalid mapping \"key:\" at depth 1"),
        (
            "? [a]\n: b\n",
            "1:3",
            "has sequence at depth 1 instead of 2",
        ),
        (
            "? {a: b}\n: c\n",
            "1:3",
            "has more than one \"key:value\" at depth 1",
        ),
        (
            "p:\n  ? [a]\n  : b\n",
            "2:5",
            "has invalid \"key:value\" at depth 2",
        ),
        (
            "p:\n  timeout: 400\n",
            "1:1",
            "missing sequence directive at depth 2 (pool 'p' has no \"servers:\")",
        ),
        (
            "p:\n  listen: 127.0.0.1:1\n  servers:\n",
            "3:3",
            "missing sequence directive at depth 2 (\"servers:\" needs a list, whose entries begin \
             with \"- \")",
        ),
        (
            "p:\n  servers:\n    -127.0.0.1:1:1\n  listen: 127.0.0.1:1\n",
            "2:3",
            "missing sequence directive at depth 2 (\"servers:\" needs a list, whose entries begin \
             with \"- \")",
        ),
        (
            "p:\n  servers:\n    - a\n  timeout:\n    - 1\n",
            "5:5",
            "has more than one sequence directive",
        ),
        (
            "p:\n  servers:\n    - - a\n",
            "3:7",
            "has more than one sequence directive",
        ),
        (
            "p:\n  timeout:\n    a: b\n",
            "3:5",
            "has a depth greater than 2",
        ),
        (
            "p:\n  servers:\n    - a: b\n",
            "3:7",
            "has a depth greater than 2",
        ),
        ("p:\n  a: &x [*x]\n", "2:10", "has a depth greater than 2"),
    ] {
        assert_eq!(
            bad(text),
            format!("F:{place}: conf: 'F' {reason}"),
            "{text}"
        );
    }
}

// D71
#[test]
fn a_blank_that_is_missing_after_a_name_is_named() {
    let servers = "  servers:\n    - h:1:1\n";
    for (text, place, name) in [
        (
            format!("p:\n  listen:127.0.0.1:1\n{servers}"),
            "2:3",
            "listen",
        ),
        (
            format!("p:\n  listen:127.0.0.1:1\n\n  # c\n{servers}"),
            "2:3",
            "listen",
        ),
        (
            format!("p:\n{servers}  listen:127.0.0.1:1\n"),
            "4:3",
            "listen",
        ),
        (
            format!("p:\n{servers}  hash:md5\n  listen: h:1\n"),
            "4:3",
            "hash",
        ),
        ("p:\n  listen:127.0.0.1:1\n".to_owned(), "2:3", "listen"),
        (
            "p:\n  listen: h:1\n  servers:- h:1:1\n".to_owned(),
            "3:3",
            "servers",
        ),
        (
            "global:\n  memory_limit:5\n".to_owned(),
            "2:3",
            "memory_limit",
        ),
    ] {
        let error = bad(&text);
        assert!(
            error.starts_with(&format!("F:{place}: conf: ")),
            "{text}: {error}"
        );
        let hint = format!(" (no blank after \"{name}:\")");
        assert!(error.ends_with(&hint), "{text}: {error}");
    }
    // Nothing is missing where something else is wrong.
    for text in [
        format!("p:\n  listen: 127.0.0.1:1\n    redis: true\n{servers}"),
        format!("p:\n  lisTen:127.0.0.1:1\n{servers}"),
        "p:\n  listen: x\n  servers: [h:1:1\n".to_owned(),
    ] {
        let error = bad(&text);
        assert!(!error.contains("no blank"), "{text}: {error}");
    }
}

// D73
#[test]
fn utf_16_is_refused_by_its_name() {
    for text in [&b"\xff\xfep\0:\0"[..], b"\xfe\xff\0p\0:"] {
        assert_eq!(
            parse("F", text, &MACHINE).unwrap_err().to_string(),
            "F:1:1: conf: failed to get the next yaml document: UTF-16; the file must be UTF-8"
        );
    }
}

#[test]
fn unquoted_braces_get_a_hint() {
    assert_eq!(
        bad(&pool_with("hash_tag: {}")),
        "F:5:13: conf: 'F' has a depth greater than 2 (a text that starts with '{' needs quotes)"
    );
    assert_eq!(
        bad(&pool_with("timeout: *:1")),
        "F:5:12: conf: failed to get the next yaml document: while parsing node, found unknown \
         anchor (a text that starts with '*' needs quotes)"
    );
    for quoted in ["\"{}\"", "'{}'", "$$"] {
        good(&pool_with(&format!("hash_tag: {quoted}")));
    }
}

#[test]
fn broken_yaml_is_told_with_its_place() {
    for (text, place) in [
        ("p:\n  servers: [a\n", "2:12"),
        ("p:\n\tlisten: x\n", "2:"),
        ("p:\n  listen: \"x\n", "2:11"),
        ("p:\n  a: *nowhere\n", "2:6"),
        ("%YAML 1.1\n---\na: b\n", "1:"),
    ] {
        let error = bad(text);
        assert!(
            error.starts_with(&format!("F:{place}")),
            "{text:?}: {error}"
        );
        assert!(
            error.contains(": conf: failed to get the next yaml document: "),
            "{error}"
        );
    }
    let error = parse("F", b"p:\n  listen: \xc3\xa4\xff\n", &MACHINE).unwrap_err();
    assert_eq!(
        error.to_string(),
        "F:2:12: conf: failed to get the next yaml document: invalid UTF-8"
    );
    let tagged = bad(&pool_with("timeout: !!int 5"));
    assert!(
        tagged.ends_with("conf: tag token (20) is disallowed"),
        "{tagged}"
    );
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    for text in [
        "[".repeat(100_000),
        "a: {".repeat(100_000),
        "- ".repeat(100_000),
    ] {
        assert!(bad(&text).starts_with("F:1:"));
    }
    let mut chain = "a0: &a0 [x]\n".to_owned();
    for n in 1..10_000 {
        chain += &format!("a{n}: &a{n} [*a{}]\n", n - 1);
    }
    assert_eq!(bad(&chain), "F:4:10: conf: 'F' has a depth greater than 2");
}

#[test]
fn flow_style_and_document_marks_are_accepted() {
    let config = good(
        "---\np: {listen: '127.0.0.1:1', redis: true, servers: ['h:1:1 a', 'h:2:1 b']}\n...\n",
    );
    assert_eq!(config.core.pools[0].protocol, Protocol::Redis);
    assert_eq!(server_names(&config), ["a", "b"]);
}

#[test]
fn anchors_and_merge_keys_are_accepted() {
    let config = good(
        "p: &p\n  listen: 127.0.0.1:1\n  timeout: 5\n  hash: &h md5\n  servers: &s\n    - h:1:1\n\
         q:\n  <<: *p\n  listen: 127.0.0.1:2\n\
         r:\n  listen: 127.0.0.1:3\n  hash: *h\n  servers: *s\n",
    );
    let [_, q, r] = &config.core.pools[..] else {
        panic!("three pools");
    };
    assert_eq!(q.timeout, Some(Span::from_millis(5)));
    assert_eq!(q.servers.len(), 1);
    assert_eq!((r.hash, r.timeout), (HashKind::Md5, None));
    assert_eq!(&*r.servers[0].name, "h:1");
}

#[test]
fn scalars_are_text_whatever_they_look_like() {
    for (typed, text) in [
        ("~", "~"),
        ("null", "null"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("yes", "yes"),
        ("1e3", "1e3"),
        ("a#b", "a#b"),
        ("a b  c", "a b  c"),
        ("'it''s'", "it's"),
        ("\"\\u00e4\\n\"", "\u{e4}\n"),
        ("|\n    block\n    two", "block\ntwo\n"),
        (">-\n    folded\n    two", "folded two"),
    ] {
        let config = good(&pool_with(&format!("redis: true\n  redis_auth: {typed}")));
        let auth = config.core.pools[0].redis_auth.as_deref();
        assert_eq!(auth, Some(text.as_bytes()), "{typed}");
    }
}

#[test]
fn comments_and_line_ends_of_other_systems_are_accepted() {
    let text = "\u{feff}# a\r\np: # b\r\n  listen: 127.0.0.1:1 # c\r\n  servers:\r\n   - h:1:1\r\n";
    assert_eq!(server_names(&good(text)), ["h:1"]);
}

#[test]
fn columns_count_characters() {
    let error = bad("p\u{e4}\u{e4}: {listen: 127.0.0.1:1, foo: 1, servers: [h:1:1]}\n");
    assert_eq!(error, "F:1:28: conf: directive \"foo\" is unknown");
}

#[test]
fn no_change_of_one_byte_is_a_panic() {
    let text = b"# c\np: &a\n  listen: /a/b 0666\n  hash_tag: \"{}\"\n  redis: true\n  \
                 redis_auth: |\n   x y\n  timeout: &t 400\n  servers:\n    - h:1:1 n\n    \
                 - /a:2\nq: {<<: *a, listen: /b, servers: ['h:1:2'], backlog: *t}\n";
    assert!(parse("F", text, &MACHINE).is_ok());
    let lines = text.iter().filter(|&&b| b == b'\n').count();
    let check = |changed: &[u8]| {
        if let Err(ConfigError::Invalid { place, .. }) = parse("F", changed, &MACHINE) {
            assert!((1..=lines + 2).contains(&place.line));
            assert!((1..=text.len()).contains(&place.column));
        }
    };
    for at in 0..text.len() {
        check(&text[..at]);
        for &byte in b" \t\r\n:-?,[]{}#&*!|>'\"%@`\\\0\x80\xff9a" {
            let mut changed = text.to_vec();
            changed[at] = byte;
            check(&changed);
        }
    }
}

#[test]
fn aliases_unfold_to_so_many_values_only() {
    let servers: String = (1..=100).map(|n| format!("    - h:{n}:1\n")).collect();
    let pools = |count| -> String {
        let other = |n| format!("p{n}: {{<<: *p, listen: '127.0.0.1:{n}'}}\n");
        let first = format!("p: &p\n  listen: 127.0.0.1:1\n  servers:\n{servers}");
        (0..count).map(|n| other(n + 2)).fold(first, |a, b| a + &b)
    };
    assert_eq!(good(&pools(900)).pools.len(), 901);
    // The mapping, two keys, an address, the list and its hundred entries: 105 values.
    let error = bad(&pools(953));
    assert_eq!(
        error,
        "F:1056:12: conf: 'F' repeats more than 100000 values"
    );
}

#[test]
fn long_files_take_time_in_proportion() {
    const LINES: usize = 10_000;
    let keys =
        |prefix: char| -> String { (0..LINES).map(|n| format!("  {prefix}{n}: 1\n")).collect() };
    let own_and_merged = format!("s: &s\n{}p:\n  <<: *s\n{}", keys('a'), keys('b'));
    for text in [
        own_and_merged.clone(),
        own_and_merged.replace("  <<: *s\n", &"  <<: *s\n".repeat(LINES)),
        (0..LINES).map(|n| format!("p{n}: &p{n} {{}}\n")).collect(),
        "- ".repeat(LINES),
        "\"".repeat(LINES),
        format!("p: '{}", "\n".repeat(LINES)),
        format!("p: {}", "x\n ".repeat(LINES)),
    ] {
        bad(&text);
    }
    let servers: String = (0..LINES).map(|n| format!("    - h:1:1 {n}\n")).collect();
    let config = good(&format!("p:\n  listen: 127.0.0.1:1\n  servers:\n{servers}"));
    assert_eq!(config.pools[0].servers.len(), LINES);
}

#[test]
fn a_file_without_end_is_refused() {
    let error = load(Path::new("/dev/zero"), MEMORY)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "conf: failed to open configuration '/dev/zero': it has more than 16777216 bytes"
    );
}

// D42
#[test]
fn a_pool_has_at_most_as_many_servers_as_a_request_has_fragments() {
    use std::fmt::Write;

    let mut text = serving(&[]);
    for n in 0..65_536 {
        writeln!(text, "    - 127.0.0.1:2:1 n{n}").unwrap();
    }
    assert_eq!(
        bad(&text),
        "F:1:1: conf: pool 'p' has 65536 servers, more than 65535"
    );
}
