use alloc::string::String;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::proto::tests::split_by;

fn merged(how: Merge, order: &[u16], responses: &[&str]) -> String {
    let responses: Vec<&[u8]> = responses.iter().map(|text| text.as_bytes()).collect();
    let merged = |is_marked| {
        let (runs, mut fragments) = split_by(Protocol::Memcache, order, &responses, is_marked);
        let mut out = b"before".to_vec();
        merge(how, &runs, &mut fragments, &mut out);
        let merged = out.strip_prefix(b"before").unwrap();
        String::from_utf8(merged.to_vec()).unwrap()
    };
    let marked = merged(true);
    assert_eq!(marked, merged(false));
    marked
}

const A: &str = "VALUE a 0 5\r\nEND\r\n\r\n";
const B: &str = "VALUE b 1 0 7\r\n\r\n";
const C: &str = "VALUE c 0 1\r\nc\r\n";
const INVALID: &str = "SERVER_ERROR Invalid argument\r\n";

#[test]
fn values_follow_the_order_of_the_keys() {
    let (ac, b) = ([A, C, "END\r\n"].concat(), [B, "END\r\n"].concat());
    assert_eq!(
        merged(Merge::Values, &[0, 1, 0], &[&ac, &b]),
        [A, B, C, "END\r\n"].concat()
    );
    assert_eq!(
        merged(Merge::Values, &[1, 0, 0], &[&ac, &b]),
        [B, A, C, "END\r\n"].concat()
    );
    assert_eq!(merged(Merge::Values, &[0, 0], &[&ac]), ac);
    assert_eq!(
        merged(Merge::Values, &[0, 1], &["END\r\n", "END\r\n"]),
        "END\r\n"
    );
}

#[test]
fn a_miss_takes_the_next_block_of_its_server() {
    // compat: a is missing at server 0, so c comes in its place, before b.
    let (c, b) = ([C, "END\r\n"].concat(), [B, "END\r\n"].concat());
    assert_eq!(
        merged(Merge::Values, &[0, 1, 0], &[&c, &b]),
        [C, B, "END\r\n"].concat()
    );
}

#[test]
fn more_blocks_than_keys_are_passed_too() {
    let all = [A, B, C, "END\r\n"].concat();
    let b = [B, "END\r\n"].concat();
    assert_eq!(
        merged(Merge::Values, &[0, 1], &[&all, &b]),
        [A, B, B, C, "END\r\n"].concat()
    );
}

#[test]
fn the_first_error_of_a_fragment_is_the_response() {
    let a = [A, "END\r\n"].concat();
    for error in [
        "ERROR\r\n",
        "CLIENT_ERROR bad\r\n",
        "SERVER_ERROR Connection refused\r\n",
    ] {
        let last = "SERVER_ERROR last\r\n";
        assert_eq!(merged(Merge::Values, &[2, 1, 0], &[&a, error, last]), error);
        assert_eq!(merged(Merge::Values, &[0, 1], &["junk", error]), error);
        assert_eq!(merged(Merge::Line, &[], &["OK\r\n", error, last]), error);
    }
}

#[test]
fn another_shape_is_an_invalid_argument() {
    let a = [A, "END\r\n"].concat();
    for other in [
        "",
        "STORED\r\n",
        "OK\r\n",
        "END\r\nEND\r\n",
        "VALUE b 0 5\r\nabc\r\nEND\r\n",
        A,
    ] {
        assert_eq!(
            merged(Merge::Values, &[0, 1], &[&a, other]),
            INVALID,
            "{other}"
        );
    }
    for other in ["", "END\r\n", "STORED\r\n"] {
        assert_eq!(
            merged(Merge::Line, &[], &["OK\r\n", other]),
            INVALID,
            "{other}"
        );
    }
}

#[test]
fn lines_become_the_first() {
    assert_eq!(merged(Merge::Line, &[], &["OK\r\n"]), "OK\r\n");
    assert_eq!(merged(Merge::Line, &[], &["OK\r\n", "OK\r\n"]), "OK\r\n");
}

proptest! {
    #[test]
    fn every_block_comes_out_once_whoever_asked_for_it(
        owners in prop::collection::vec(0_u16..4, 1..20),
        hits in prop::collection::vec(any::<bool>(), 20),
    ) {
        let mut responses = [const { String::new() }; 4];
        let mut expected = Vec::new();
        for (key, (&owner, &hit)) in owners.iter().zip(&hits).enumerate() {
            if hit {
                let block = alloc::format!("VALUE key{key} 0 3\r\nv{key:02}\r\n");
                responses[usize::from(owner)].push_str(&block);
                expected.push(block);
            }
        }
        for response in &mut responses {
            response.push_str("END\r\n");
        }
        let responses = responses.each_ref().map(String::as_str);
        let out = merged(Merge::Values, &owners, &responses);
        let mut blocks: Vec<&str> = out.strip_suffix("END\r\n").unwrap().split_inclusive("\r\n").collect();
        prop_assert_eq!(blocks.len(), expected.len() * 2);
        let mut found: Vec<String> = blocks.chunks_mut(2).map(|block| block.concat()).collect();
        if hits[..owners.len()].iter().all(|&hit| hit) {
            prop_assert_eq!(&found, &expected, "without misses the order is that of the keys");
        }
        found.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_fragments_are_merged_without_panic(
        order in prop::collection::vec(0_u16..3, 0..5),
        responses in prop::array::uniform3("(VALUE k 0 [0-9]{1,12}\r\n|abc\r\n|END\r\n|OK\r\n){0,4}"),
    ) {
        let responses = responses.each_ref().map(String::as_str);
        for how in [Merge::Values, Merge::Line] {
            prop_assert!(merged(how, &order, &responses).ends_with("\r\n"));
        }
    }
}
