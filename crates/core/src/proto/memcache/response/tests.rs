use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

/// Lengths of the responses in `chunks`; `None` at the end if the parser refused to go on.
fn measured(chunks: &[&[u8]]) -> Vec<Option<usize>> {
    let mut parser = ResponseParser::default();
    let (mut lens, mut buffer, mut so_far) = (Vec::new(), Vec::new(), 0);
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        while !buffer.is_empty() {
            let (len, is_done) = match parser.step(&buffer) {
                ResponseStep::Done(len) => (len, true),
                ResponseStep::More(len) => (len, false),
                ResponseStep::Invalid => {
                    lens.push(None);
                    return lens;
                }
            };
            assert!(len <= buffer.len());
            buffer.drain(..len);
            so_far += len;
            if is_done {
                assert!(so_far > 0);
                lens.push(Some(so_far));
                so_far = 0;
            } else {
                break;
            }
        }
    }
    lens
}

#[test]
fn every_response_is_measured() {
    for response in [
        "STORED\r\n",
        "NOT_STORED\r\n",
        "EXISTS\r\n",
        "NOT_FOUND\r\n",
        "DELETED\r\n",
        "TOUCHED\r\n",
        "OK\r\n",
        "OK \r\n",
        "ERROR\r\n",
        "ERROR Too many open connections\r\n",
        "CLIENT_ERROR bad data chunk\r\n",
        "SERVER_ERROR out of memory storing object\r\n",
        "SERVER_ERROR\r\n",
        "VERSION 1.6.18\r\n",
        "0\r\n",
        "18446744073709551615\r\n",
        "9  \r\n",
        "END\r\n",
        "VALUE k 0 0\r\n\r\nEND\r\n",
        "VALUE k 4294967295 5\r\nEND\r\n\r\nEND\r\n",
        "VALUE k 0 5 18446744073709551615\r\nab\r\nc\r\nEND\r\n",
        "VALUE a\u{80}\u{1} 0 1\r\na\r\nVALUE b 0 2\r\nbb\r\nEND\r\n",
    ] {
        assert_eq!(
            measured(&[response.as_bytes()]),
            [Some(response.len())],
            "{response}"
        );
    }
}

#[test]
fn what_memcached_never_says_is_invalid() {
    for bytes in [
        "\r\n",
        "\n",
        " STORED\r\n",
        "STORED\n",
        "STORED x\r\n",
        "STOREDx\r\n",
        "stored\r\n",
        "-ERR unknown command\r\n",
        "-1\r\n",
        "18446744073709551616\r\n",
        "5 x\r\n",
        "END \r\n",
        "RESET\r\n",
        "STAT pid 1\r\n",
        "HD\r\n",
        "VALUE\r\n",
        "VALUE k\r\n",
        "VALUE k 0\r\n",
        "VALUE k x 1\r\na\r\nEND\r\n",
        "VALUE k 0 -1\r\n",
        "VALUE k 0 4294967296\r\n",
        "VALUE k 0 1 x\r\na\r\nEND\r\n",
        "VALUE k 0 1 1 1\r\na\r\nEND\r\n",
        "VALUE k 0 1\na\r\nEND\r\n",
        "VALUE k 0 1\r\nab\r\nEND\r\n",
        "VALUE k 0 1\r\na\nEND\r\n",
        "VALUE k 0 1\r\na\r\nSTORED\r\n",
        "VALUE k 0 1\r\na\r\nSERVER_ERROR x\r\n",
    ] {
        assert_eq!(measured(&[bytes.as_bytes()]), [None], "{bytes}");
    }
}

/// Other bytes there mean that the data is not as long as announced: what follows belongs to nobody.
#[test]
fn no_two_bytes_but_a_line_end_stand_behind_data() {
    for pair in 0..=u16::MAX {
        let end = pair.to_be_bytes();
        let is_end = end == *b"\r\n";
        for (head, tail) in [
            (&b"VALUE k 0 3\r\nabc"[..], &b"END\r\n"[..]),
            (b"VALUE k 77 3 5\r\nabc", b"VALUE l 0 0\r\n\r\nEND\r\n"),
        ] {
            let response = [head, &end, tail].concat();
            let (block_len, len) = (head.len() + 2, response.len());
            let expected = [is_end.then_some(len)];
            assert_eq!(measured(&[&response]), expected, "{end:?}");
            for cut in [block_len - 2, block_len - 1, block_len] {
                let (first, rest) = response.split_at(cut);
                assert_eq!(measured(&[first, rest]), expected, "{end:?} cut at {cut}");
            }
            let block = value_block_len(&response);
            assert_eq!(block, is_end.then_some(block_len), "{end:?}");
            let mut marks = Vec::new();
            let whole = ResponseParser::default().whole_values(&response, &mut marks);
            // Only what is written in the commonest way is measured there.
            let is_plain = is_end && !head.ends_with(b" 5\r\nabc");
            assert_eq!(whole, is_plain.then_some(len), "{end:?}");
        }
    }
}

#[test]
fn a_line_has_a_limit() {
    let mut line = b"SERVER_ERROR ".to_vec();
    line.resize(RESPONSE_LINE_LEN_MAX - 2, b'x');
    line.extend_from_slice(b"\r\n");
    assert_eq!(measured(&[&line]), [Some(RESPONSE_LINE_LEN_MAX)]);
    line.insert(13, b'x');
    assert_eq!(measured(&[&line]), [None]);
    assert_eq!(measured(&[&line[..RESPONSE_LINE_LEN_MAX]]), [None]);
    assert_eq!(measured(&[&line[..RESPONSE_LINE_LEN_MAX - 1]]), []);
    let key = "k".repeat(RESPONSE_LINE_LEN_MAX - 12);
    assert_eq!(measured(&[format!("VALUE {key} 0 0\r\n").as_bytes()]), []);
    assert_eq!(
        measured(&[format!("VALUE {key}k 0 0\r\n").as_bytes()]),
        [None]
    );
}

#[test]
fn large_data_is_passed_as_it_comes() {
    let mut parser = ResponseParser::default();
    assert_eq!(
        parser.step(b"VALUE k 0 4294967295\r\nabc"),
        ResponseStep::More(25)
    );
    let chunk = vec![b'x'; 1 << 20];
    let mut left = to_usize(u32::MAX) - 3;
    while left > 0 {
        let len = left.min(chunk.len());
        assert_eq!(parser.step(&chunk[..len]), ResponseStep::More(len));
        left -= len;
    }
    assert_eq!(parser.step(b"\r"), ResponseStep::More(0));
    assert_eq!(parser.step(b"\r\nEN"), ResponseStep::More(2));
    assert_eq!(parser.step(b"END\r\nEND\r\n"), ResponseStep::Done(5));
}

const PIPELINE: &str = "STORED\r\nVALUE k 0 5\r\nEND\r\n\r\nVALUE l 1 0 7\r\n\r\nEND\r\nEND\r\n12  \r\n\
                        SERVER_ERROR a\rb\r\nVALUE k 0 3\r\nabc\r\nEND\r\nVERSION 1.6.18\r\n";

#[test]
fn pieces_change_nothing() {
    let input = PIPELINE.as_bytes();
    let whole = measured(&[input]);
    let lens = [8, 42, 5, 6, 18, 23, 16];
    assert_eq!(whole, lens.map(Some));
    for cut in 0..=input.len() {
        let (head, tail) = input.split_at(cut);
        assert_eq!(measured(&[head, tail]), whole, "cut at {cut}");
    }
    let single: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(measured(&single), whole);
}

#[test]
fn only_the_three_error_words_are_errors() {
    for error in [
        "ERROR\r\n",
        "ERROR x\r\n",
        "CLIENT_ERROR x\r\n",
        "SERVER_ERROR x\r\n",
    ] {
        assert!(is_error(error.as_bytes()), "{error}");
    }
    for other in [
        "",
        "END\r\n",
        "OK\r\n",
        "ERRORS\r\n",
        "VALUE ERROR 0 0\r\n\r\nEND\r\n",
    ] {
        assert!(!is_error(other.as_bytes()), "{other}");
    }
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("VALUE "),
        Just("k "),
        Just("0 "),
        Just("3"),
        Just("4294967295"),
        Just("\r\n"),
        Just("abc"),
        Just("END\r\n"),
        Just("STORED\r\n"),
        Just("12"),
        Just(" "),
        Just("\n"),
        Just("ERROR"),
        Just("VALUE k 0 3\r\nabc\r\n"),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_are_measured_alike(
        input in prop_oneof![texts(), prop::collection::vec(any::<u8>(), 0..200)],
        cuts in prop::collection::vec(0_usize..200, 0..6),
    ) {
        let whole = measured(&[&input]);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();
        prop_assert_eq!(measured(&pieces), whole, "{}", String::from_utf8_lossy(&input));
    }

    #[test]
    fn a_plain_value_line_is_what_the_general_reader_reads(
        line in "VALUE {1,2}(k|[a-z\u{1}\u{7f}]{0,12}) [0-9]{0,11} ?[0-9x]{0,10}( [0-9]*)?\r?\n",
    ) {
        let general = line.strip_suffix("\r\n").and_then(|line| value_data_len(line.as_bytes()));
        if let Some((line_len, data_len)) = plain_value_line(line.as_bytes()) {
            prop_assert_eq!((line_len, Some(data_len)), (line.len(), general));
        }
    }

    #[test]
    fn a_block_is_measured_as_the_parser_measures_it(
        input in texts(),
    ) {
        let mut parser = ResponseParser::default();
        let mut ended = input.clone();
        if let Some(len) = value_block_len(&input) {
            ended.truncate(len);
            ended.extend_from_slice(b"END\r\n");
            prop_assert_eq!(parser.step(&ended), ResponseStep::Done(len + 5), "{}", format!("{input:?}"));
        }
    }
}
