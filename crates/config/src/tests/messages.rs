//! What is said beyond the words of nutcracker 0.5.

use super::*;

// D71
#[test]
fn a_wrong_word_is_told_with_all_that_are_valid() {
    let hashes = "\"hash\" is not a valid hash (one of: one_at_a_time, md5, crc16, crc32, crc32a, fnv1_64, \
                  fnv1a_64, fnv1_32, fnv1a_32, hsieh, murmur, jenkins)";
    let distributions =
        "\"distribution\" is not a valid distribution (one of: ketama, modula, random)";
    let policies = "\"auto_eject_policy\" is not a valid policy (one of: rehash, fail, miss)";
    let outcomes = "\"cross_server_keys\" is not a valid outcome (one of: error, first)";
    for (line, column, reason) in [
        ("hash: foo", 9, hashes),
        ("hash: MD5", 9, hashes),
        ("distribution: foo", 17, distributions),
        ("distribution: Ketama", 17, distributions),
        ("auto_eject_policy: none", 22, policies),
        ("cross_server_keys: last", 22, outcomes),
    ] {
        let expected = format!("F:5:{column}: conf: directive {reason}");
        assert_eq!(bad(&pool_with(line)), expected, "{line}");
    }
}
