//! `hash_tag:` – the part of a key that is hashed.

/// The bytes between the first opening character of `tag` and the first closing one after it, if
/// there are any; otherwise the whole key.
///
/// The two characters may be equal. No second opening character is tried.
#[inline]
#[must_use]
pub fn hashed_part(key: &[u8], tag: Option<[u8; 2]>) -> &[u8] {
    tag_of(key, tag).unwrap_or(key)
}

/// The tag of a key, if it has one.
#[inline]
#[must_use]
pub fn tag_of(key: &[u8], tag: Option<[u8; 2]>) -> Option<&[u8]> {
    let [open, close] = tag?;
    tagged(key, open, close)
}

fn tagged(key: &[u8], open: u8, close: u8) -> Option<&[u8]> {
    // Tags stand near the start of short keys: a vector search costs more than it saves here.
    let start = key.iter().position(|&byte| byte == open)? + 1;
    let after_open = key.get(start..)?;
    let len = after_open.iter().position(|&byte| byte == close)?;
    if len == 0 {
        return None;
    }
    after_open.get(..len)
}

#[cfg(test)]
mod tests {
    use super::*;

    // C56
    #[test]
    fn the_first_closed_and_filled_tag_is_hashed() {
        for (key, part) in [
            ("user:{42}:x", "42"),
            ("x{1}{2}", "1"),
            ("{{a}}", "{a"),
            ("}{a}", "a"),
            ("{a}", "a"),
        ] {
            assert_eq!(hashed_part(key.as_bytes(), Some(*b"{}")), part.as_bytes());
        }
    }

    // C56
    #[test]
    fn anything_else_hashes_the_whole_key() {
        for key in ["", "a", "{", "}", "{}", "{}{42}", "a}b{c", "{a", "x}"] {
            assert_eq!(hashed_part(key.as_bytes(), Some(*b"{}")), key.as_bytes());
        }
        assert_eq!(hashed_part(b"user:{42}:x", None), b"user:{42}:x");
    }

    // C56
    #[test]
    fn both_tag_characters_may_be_the_same() {
        assert_eq!(hashed_part(b"$1$2x", Some(*b"$$")), b"1");
        assert_eq!(hashed_part(b"a$b", Some(*b"$$")), b"a$b");
        assert_eq!(hashed_part(b"$$a$", Some(*b"$$")), b"$$a$");
    }

    #[test]
    fn tag_characters_may_be_any_byte() {
        assert_eq!(hashed_part(b"x\xffyz\x00", Some([0xff, 0])), b"yz");
    }
}
