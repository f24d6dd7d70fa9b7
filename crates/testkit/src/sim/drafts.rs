//! What clients ask.

use super::client::{Client, LARGE_KEY, Shape};
use super::dice::Dice;
use super::plan::Manners;
use super::words::value;

/// A request before it is sent.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) words: Vec<Vec<u8>>,
    pub(super) data: Vec<u8>,
    pub(super) shape: Shape,
    pub(super) keys: Vec<Vec<u8>>,
}

impl Client {
    pub(super) fn draft_redis(&mut self, dice: &mut Dice, manners: &Manners) -> Draft {
        let one = |verb: &str, key: Vec<u8>, shape| Draft {
            words: vec![verb.as_bytes().to_vec(), key.clone()],
            data: Vec::new(),
            shape,
            keys: vec![key],
        };
        if manners.gorge && dice.chance(700) {
            let key = LARGE_KEY.to_vec();
            return one("GET", key.clone(), Shape::Values(vec![key]));
        }
        match dice.upto(11) {
            0..=2 => {
                let key = self.some_key(dice);
                one("GET", key.clone(), Shape::Values(vec![key]))
            }
            3 | 4 => {
                let is_new = dice.chance(500);
                let key = if is_new {
                    self.new_key(0)
                } else {
                    self.own_key(dice)
                };
                if is_new {
                    self.fresh.push(key.clone());
                }
                let value = self.some_value(&key, dice, manners);
                let mut draft = one("SET", key, Shape::Lines(&["+OK"]));
                draft.words.push(value);
                draft
            }
            5 | 6 => {
                let keys = self.some_keys(dice, manners.keys);
                Draft::of_keys("MGET", keys.clone(), Shape::Values(keys))
            }
            7 => {
                let mut draft = Draft::of_keys("MSET", Vec::new(), Shape::Lines(&["+OK"]));
                for part in 0..=dice.upto(manners.keys - 1) {
                    let key = self.new_key(part);
                    let value = self.some_value(&key, dice, manners);
                    self.fresh.push(key.clone());
                    draft.keys.push(key.clone());
                    draft.words.extend([key, value]);
                }
                draft
            }
            8 if !self.fresh.is_empty() => {
                let count = (1 + dice.upto(manners.keys - 1)).min(self.fresh.len());
                let keys = self.fresh.split_off(self.fresh.len() - count);
                Draft::of_keys("DEL", keys, Shape::Number(count))
            }
            9 => {
                let key = self.own_key(dice);
                let value = value(&key, self.seq, dice.upto(5));
                let mut draft = one("APPEND", key, Shape::Number(usize::MAX));
                draft.words.push(value);
                draft
            }
            10 => one("INCR", self.new_key(0), Shape::Number(1)),
            _ => {
                let keys = self.some_keys(dice, manners.keys);
                let count = keys.len();
                Draft::of_keys("EXISTS", keys, Shape::Number(count))
            }
        }
    }

    pub(super) fn draft_memcache(&mut self, dice: &mut Dice, manners: &Manners) -> Draft {
        const STORED: &[&str] = &["STORED", "NOT_STORED"];
        if manners.gorge && !self.silent && dice.chance(700) {
            let key = LARGE_KEY.to_vec();
            return Draft::of_keys("get", vec![key.clone()], Shape::Values(vec![key]));
        }
        if dice.chance(manners.versions)
            && let Some(draft) = self.draft_cas(dice)
        {
            return draft;
        }
        let first_write = 5;
        let choice = if self.silent {
            first_write + dice.upto(4)
        } else {
            dice.upto(9)
        };
        match choice {
            0..=4 => {
                let max = if choice < 3 { 1 } else { manners.keys };
                let verb = if dice.chance(manners.versions) {
                    "gets"
                } else {
                    "get"
                };
                let keys = self.some_keys(dice, max);
                Draft::of_keys(verb, keys.clone(), Shape::Values(keys))
            }
            5 if !self.fresh.is_empty() => {
                let key = self.fresh.pop().expect("just looked");
                Draft::of_keys("delete", vec![key], Shape::Lines(&["DELETED", "NOT_FOUND"]))
            }
            6 => {
                let key = self.some_own_key(dice);
                let mut draft =
                    Draft::of_keys("touch", vec![key], Shape::Lines(&["TOUCHED", "NOT_FOUND"]));
                draft.words.push((1_000_000 + self.seq).to_string().into());
                draft
            }
            verb => {
                let verb = match verb {
                    7 => dice.pick(&["add", "replace"]),
                    8 => dice.pick(&["append", "prepend"]),
                    _ => "set",
                };
                let key = if verb == "set" && dice.chance(500) {
                    let key = self.new_key(0);
                    self.fresh.push(key.clone());
                    key
                } else {
                    self.own_key(dice)
                };
                let data = if matches!(verb, "append" | "prepend") {
                    value(&key, self.seq, dice.upto(5))
                } else {
                    self.some_value(&key, dice, manners)
                };
                let mut draft = Draft::of_keys(verb, vec![key], Shape::Lines(STORED));
                let tail = ["0".to_owned(), "0".to_owned(), data.len().to_string()];
                draft.words.extend(tail.map(String::into_bytes));
                draft.data = data;
                draft
            }
        }
    }

    /// A write to a key of its own whose version this client knows, or knew.
    fn draft_cas(&self, dice: &mut Dice) -> Option<Draft> {
        let place = dice.upto(self.versions.len().checked_sub(1)?);
        let (key, (version, _)) = self.versions.iter().nth(place)?;
        let data = value(key, self.seq, dice.upto(20));
        let shape = Shape::Lines(&["STORED", "EXISTS", "NOT_FOUND"]);
        let mut draft = Draft::of_keys("cas", vec![key.clone()], shape);
        let len = data.len().to_string().into_bytes();
        let zero = || b"0".to_vec();
        draft.words.extend([zero(), zero(), len, version.clone()]);
        draft.data = data;
        Some(draft)
    }
}

impl Draft {
    pub(super) fn of_keys(verb: &str, keys: Vec<Vec<u8>>, shape: Shape) -> Self {
        let mut words = vec![verb.as_bytes().to_vec()];
        words.extend(keys.iter().cloned());
        Self {
            words,
            data: Vec::new(),
            shape,
            keys,
        }
    }
}
