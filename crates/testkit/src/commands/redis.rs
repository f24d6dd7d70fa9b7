//! Redis commands of every kind.
//!
//! The keys of a client carry its number in a hash tag, `{c3t1}l0`: four tags, so that a client's
//! keys lie on several servers, while those of one command share a tag unless the command may be
//! split. Keys are typed by their letter, and now and then a command gets a key of another type.

use super::redis_lines::LINES;
use super::{Command, Law};
use crate::model::redis::{array_of, split_words};
use crate::rng::Rng;
use crate::transcripts::{boundary_sizes, filler};

/// One client's endless stream.
#[derive(Clone, Debug)]
pub struct Stream {
    rng: Rng,
    client: usize,
    /// The rest of a line of several commands.
    pending: Vec<Command>,
    /// Lines not drawn yet in this round: every line comes once per round.
    deck: Vec<&'static str>,
}

/// Tags of one client.
const TAGS: usize = 4;
/// Keys of one type under one tag.
const KEYS: usize = 2;
/// The letters of the types.
const TYPES: &[u8] = b"shluzxpg";

impl Stream {
    /// The stream of `client` in the run of `seed`.
    #[must_use]
    pub fn new(seed: u64, client: usize) -> Self {
        let salt = u64::try_from(client).expect("few clients") << 32;
        Self {
            rng: Rng::new(seed ^ salt),
            client,
            pending: Vec::new(),
            deck: Vec::new(),
        }
    }

    fn draw_line(&mut self) -> &'static str {
        if self.deck.is_empty() {
            self.deck = LINES
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect();
        }
        let at = self.rng.below(self.deck.len());
        self.deck.swap_remove(at)
    }

    fn expand_line(&mut self, line: &str) -> Vec<Command> {
        let mut draft = Draft {
            tag: self.rng.below(TAGS),
            last_key: Vec::new(),
        };
        line.split(" ; ")
            .map(|template| self.expand(template, &mut draft))
            .collect()
    }

    fn expand(&mut self, template: &str, draft: &mut Draft) -> Command {
        let (law, template) = law_of(template);
        let mut words: Vec<Vec<u8>> = Vec::new();
        for word in split_words(template.as_bytes()).expect("no open quotes in the table") {
            let (word, times) = match word.strip_prefix(b"@") {
                Some(group) => (group.to_vec(), 1 + self.rng.below(5)),
                None => (word, 1),
            };
            for _ in 0..times {
                if word.contains(&b',') && word.contains(&b'<') {
                    words.extend(
                        word.split(|&b| b == b',')
                            .map(|part| self.word(part, draft)),
                    );
                } else {
                    words.push(self.word(&word, draft));
                }
            }
        }
        if self.rng.below(2) == 0 {
            words[0].make_ascii_lowercase();
        }
        let shown: Vec<String> = words.iter().map(|word| crate::wire::escape(word)).collect();
        Command {
            text: shown.join(" "),
            bytes: array_of(&words),
            law: Some(law),
        }
    }

    fn word(&mut self, word: &[u8], draft: &mut Draft) -> Vec<u8> {
        let Some(name) = word
            .strip_prefix(b"<")
            .and_then(|word| word.strip_suffix(b">"))
        else {
            return word.to_vec();
        };
        match name {
            b"=" => draft.last_key.clone(),
            b"v" => self.value(),
            b"w" => vec![b'a' + u8::try_from(self.rng.below(8)).expect("below 8")],
            b"n" => (self.rng.below(16)).to_string().into_bytes(),
            b"i" => {
                let number = i64::try_from(self.rng.below(40)).expect("below 40");
                (number - 20).to_string().into_bytes()
            }
            b"f" => format!("{}.5", self.rng.below(10)).into_bytes(),
            b"id" => format!("{}-{}", 1 + self.rng.below(50), self.rng.below(4)).into_bytes(),
            b"K" => {
                let tag = self.rng.below(TAGS);
                self.any_key(tag)
            }
            b"k" => self.keep(draft, Self::any_key),
            [letter] if TYPES.contains(letter) => {
                let letter = *letter;
                // A key of the wrong type is an error that must be the same, too.
                if self.rng.below(20) == 0 {
                    return self.keep(draft, Self::any_key);
                }
                self.keep(draft, |stream, tag| stream.key(letter, tag))
            }
            other => panic!("the table has no <{}>", String::from_utf8_lossy(other)),
        }
    }

    fn keep(
        &mut self,
        draft: &mut Draft,
        draw: impl FnOnce(&mut Self, usize) -> Vec<u8>,
    ) -> Vec<u8> {
        draft.last_key = draw(self, draft.tag);
        draft.last_key.clone()
    }

    fn any_key(&mut self, tag: usize) -> Vec<u8> {
        let letter = TYPES[self.rng.below(TYPES.len())];
        self.key(letter, tag)
    }

    fn key(&mut self, letter: u8, tag: usize) -> Vec<u8> {
        let number = self.rng.below(KEYS);
        format!("{{c{}t{tag}}}{}{number}", self.client, char::from(letter)).into_bytes()
    }

    fn value(&mut self) -> Vec<u8> {
        match self.rng.below(12) {
            0 => Vec::new(),
            1..=3 => self.rng.below(1000).to_string().into_bytes(),
            4 => {
                let sizes = boundary_sizes();
                filler(sizes[self.rng.below(sizes.len())])
            }
            _ => {
                let len = 1 + self.rng.below(30);
                self.rng.bytes(len)
            }
        }
    }
}

impl Iterator for Stream {
    type Item = Command;

    fn next(&mut self) -> Option<Command> {
        if self.pending.is_empty() {
            let line = self.draw_line();
            self.pending = self.expand_line(line);
            self.pending.reverse();
        }
        self.pending.pop()
    }
}

/// State shared by the commands of one line.
struct Draft {
    tag: usize,
    last_key: Vec<u8>,
}

/// A mark in front of a template names its law; without one replies must be equal.
fn law_of(template: &str) -> (Law, &str) {
    let laws = [
        ("?", Law::AnyOrder),
        ("%", Law::AnyOrderOfPairs),
        ("~", Law::Shape),
        ("#", Law::Near),
    ];
    laws.into_iter()
        .find_map(|(mark, law)| template.strip_prefix(mark).map(|rest| (law, rest)))
        .unwrap_or((Law::Exact, template))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_its_stream() {
        let take = |seed| Stream::new(seed, 3).take(500).collect::<Vec<_>>();
        assert_eq!(take(5), take(5));
        assert_ne!(take(5), take(6));
    }

    #[test]
    fn clients_share_no_key() {
        for command in Stream::new(1, 7).take(2000) {
            let text = &command.text;
            for at in text.match_indices("{c").map(|(at, _)| at) {
                assert!(text[at..].starts_with("{c7t"), "{text}");
            }
        }
    }
}
