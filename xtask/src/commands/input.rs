//! The commands as servers describe them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde_json::Value;

/// A command or subcommand as a server describes it.
#[derive(Clone, Debug)]
pub(super) struct Command {
    /// Lower case; a subcommand's name is whole: `object|encoding`.
    pub(super) name: String,
    pub(super) flags: Vec<String>,
    pub(super) key_specs: Vec<KeySpec>,
    pub(super) subcommands: Vec<Self>,
}

/// Where some of a command's keys are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum KeySpec {
    /// From this place on; `last` counts from there, negative from the end.
    Range { first: i64, last: i64, step: i64 },
    /// At this place there is a number, after it as many keys.
    Counted { count: i64, step: i64 },
    /// Not one of the above.
    Other,
}

impl Command {
    pub(super) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|own| own == flag)
    }
}

/// Reads one server's answer.
pub(super) fn read(path: &Path) -> io::Result<Vec<Command>> {
    let text = std::fs::read_to_string(path)?;
    let value: Value = serde_json::from_str(&text)?;
    Ok(list(&value["commands"]).map(command).collect())
}

/// Every command and subcommand of any list, by name; later lists win.
pub(super) fn union(lists: Vec<Vec<Command>>) -> Vec<Command> {
    let mut all: BTreeMap<String, Command> = BTreeMap::new();
    for mut command in lists.into_iter().flatten() {
        if let Some(earlier) = all.remove(&command.name) {
            command.subcommands = union(vec![earlier.subcommands, command.subcommands]);
        }
        all.insert(command.name.clone(), command);
    }
    all.into_values().collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn command(value: &Value) -> Command {
    let mut subcommands: Vec<Command> = list(&value["subcommands"]).map(command).collect();
    subcommands.sort_by(|a, b| a.name.cmp(&b.name));
    Command {
        name: text(&value["name"]),
        flags: list(&value["flags"]).map(text).collect(),
        key_specs: list(&value["key_specs"]).map(key_spec).collect(),
        subcommands,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn key_spec(value: &Value) -> KeySpec {
    let begin = &value["begin_search"];
    let find = &value["find_keys"];
    if begin["type"] != "index" {
        return KeySpec::Other;
    }
    let number = |value: &Value| value.as_i64().expect("a number in a key specification");
    let start = number(&begin["spec"]["index"]);
    let spec = &find["spec"];
    match find["type"].as_str() {
        Some("range") => KeySpec::Range {
            first: start,
            last: number(&spec["lastkey"]),
            step: number(&spec["keystep"]),
        },
        Some("keynum") if spec["firstkey"] == 1 => KeySpec::Counted {
            count: start + number(&spec["keynumidx"]),
            step: number(&spec["keystep"]),
        },
        _ => KeySpec::Other,
    }
}
