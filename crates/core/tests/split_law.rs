//! The split law: how a peer's bytes are cut on their way never changes what they mean.
//!
//! Every transcript is fed whole, one byte at a time, cut in two at every place, and cut at random
//! places. Whole, it must also mean what the transcript says.

use twemproxy_core::proto::Protocol;
use twemproxy_testkit::feed::{self, Event, Outcome};
use twemproxy_testkit::rng::Rng;
use twemproxy_testkit::transcripts::{self, Meaning};

const RANDOM_SPLITS: u64 = 32;

#[test]
fn redis_requests_mean_the_same_however_they_are_cut() {
    for transcript in transcripts::redis::requests() {
        obey_request_law(Protocol::Redis, &transcript);
    }
}

#[test]
fn memcache_requests_mean_the_same_however_they_are_cut() {
    for transcript in transcripts::memcache::requests() {
        obey_request_law(Protocol::Memcache, &transcript);
    }
}

#[test]
fn redis_responses_end_at_the_same_places_however_they_are_cut() {
    for transcript in transcripts::redis::responses() {
        obey_response_law(Protocol::Redis, &transcript);
    }
}

#[test]
fn memcache_responses_end_at_the_same_places_however_they_are_cut() {
    for transcript in transcripts::memcache::responses() {
        obey_response_law(Protocol::Memcache, &transcript);
    }
}

fn obey_request_law(protocol: Protocol, transcript: &transcripts::Requests) {
    let limits = feed::roomy_limits();
    let name = &transcript.name;
    let whole = feed::requests(protocol, &limits, &transcript.bytes, []);
    assert_meaning(transcript, &whole);
    for_each_cut(transcript.bytes.len(), |cuts| {
        let pieces = feed::requests(protocol, &limits, &transcript.bytes, cuts.iter().copied());
        assert_eq!(pieces, whole, "{name}, cut at {}", shown(cuts));
    });
}

fn obey_response_law(protocol: Protocol, transcript: &transcripts::Responses) {
    let name = &transcript.name;
    let whole = feed::responses(protocol, &transcript.bytes, []);
    assert_eq!(whole.lens, transcript.lens, "{name}");
    assert_eq!(whole.end, transcript.end, "{name}");
    for_each_cut(transcript.bytes.len(), |cuts| {
        let pieces = feed::responses(protocol, &transcript.bytes, cuts.iter().copied());
        assert_eq!(pieces, whole, "{name}, cut at {}", shown(cuts));
    });
}

fn for_each_cut(len: usize, mut check: impl FnMut(&[usize])) {
    for cut in 1..len {
        check(&[cut]);
    }
    let every_byte: Vec<usize> = (1..len).collect();
    check(&every_byte);
    for seed in 0..RANDOM_SPLITS {
        let mut rng = Rng::new(seed);
        let mut cuts: Vec<usize> = (0..rng.below(8)).map(|_| rng.below(len)).collect();
        cuts.retain(|&cut| cut > 0);
        cuts.sort_unstable();
        check(&cuts);
    }
}

fn assert_meaning(transcript: &transcripts::Requests, outcome: &Outcome) {
    let name = &transcript.name;
    let events = &outcome.events;
    let count = transcript.meaning.len();
    assert_eq!(events.len(), count, "{name}: {}", debug(events));
    for (event, meaning) in events.iter().zip(&transcript.meaning) {
        assert!(
            agrees(event, meaning),
            "{name}: {} is not {}",
            debug(event),
            debug(meaning)
        );
    }
    assert_eq!(outcome.unfinished, transcript.unfinished, "{name}");
}

fn agrees(event: &Event, meaning: &Meaning) -> bool {
    match (event, meaning) {
        (
            Event::Request { request, keys, .. },
            Meaning::Request {
                len,
                keys: expected,
            },
        ) => usize::try_from(request.len) == Ok(*len) && keys == expected,
        (
            Event::Inline { len, keys, .. },
            Meaning::Request {
                len: line,
                keys: expected,
            },
        ) => len == line && keys == expected,
        (
            Event::Refused { reply, closes },
            Meaning::Refused {
                reply: expected,
                closes: fate,
            },
        ) => closes == fate && expected.as_ref().is_none_or(|expected| reply == expected),
        _ => false,
    }
}

/// Large transcripts would bury the message.
fn debug(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take(600).collect()
}

fn shown(cuts: &[usize]) -> String {
    if cuts.len() > 8 {
        "every byte".to_owned()
    } else {
        format!("{cuts:?}")
    }
}
