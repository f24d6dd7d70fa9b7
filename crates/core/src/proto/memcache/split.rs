//! Keys of multi-key requests, and the fragments they become.

use alloc::vec::Vec;

use super::commands::{COMMANDS, Shape};
use super::request::without_end;
use super::words::Words;
use crate::limits::{MEMCACHE_FORWARDED_LINE_LEN_MAX, MEMCACHE_FRAGMENT_LEN_MAX};
use crate::proto::{Part, Request};

/// See [`crate::proto::parts`].
pub fn parts(frame: &[u8], request: &Request, out: &mut Vec<Part>) {
    let keys = Words::new(without_end(frame)).skip(head_len(request));
    out.extend(keys.map(|key| Part { key, raw: key }));
}

/// See [`crate::proto::fragment_head`].
pub fn fragment_head(frame: &[u8], request: &Request, out: &mut Vec<u8>) {
    for word in Words::new(without_end(frame)).take(head_len(request)) {
        out.extend_from_slice(word.of(frame));
        out.push(b' ');
    }
}

/// The words that every fragment repeats: the command, and the expiry time of `gat` and `gats`.
fn head_len(request: &Request) -> usize {
    match COMMANDS[usize::from(request.command)].shape {
        Shape::GetAndTouch => 2,
        _ => 1,
    }
}

/// See [`crate::proto::fragment_len_max`].
pub fn fragment_len_max(request: &Request) -> usize {
    match COMMANDS[usize::from(request.command)].shape {
        Shape::GetAndTouch => MEMCACHE_FORWARDED_LINE_LEN_MAX,
        _ => MEMCACHE_FRAGMENT_LEN_MAX,
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;
    use crate::proto::memcache::request::RequestParser;
    use crate::proto::{Merge, Parse, RequestLimits, Route};

    fn read(frame: &[u8]) -> (String, Vec<&[u8]>) {
        let limits = RequestLimits {
            frame_len_max: 1024,
            unauthenticated: false,
            allow_flush: false,
        };
        let Parse::Complete(request) = RequestParser::default().parse(frame, &limits) else {
            panic!("not a request");
        };
        assert_eq!(request.route, Route::Keys(Some(Merge::Values)));
        let (mut head, mut keys) = (Vec::new(), Vec::new());
        fragment_head(frame, &request, &mut head);
        parts(frame, &request, &mut keys);
        assert!(keys.iter().all(|part| part.key == part.raw));
        (
            String::from_utf8(head).unwrap(),
            keys.iter().map(|part| part.key.of(frame)).collect(),
        )
    }

    #[test]
    fn every_key_is_a_part_and_the_head_repeats_what_comes_before_them() {
        let keys = [&b"a"[..], b"noreply", b"a"];
        for (frame, head) in [
            (&b"get a noreply a\r\n"[..], "get "),
            (b"gets  a   noreply a  \n", "gets "),
            (b"gat -1 a noreply a\r\n", "gat -1 "),
            (b"gats  0010  a noreply a \r\n", "gats 0010 "),
        ] {
            assert_eq!(read(frame), (String::from(head), keys.to_vec()));
        }
    }
}
