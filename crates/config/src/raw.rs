//! The file as typed: sections of directives, each with its values as text. The structure of the
//! whole file is checked here, in the words of nutcracker 0.5, before any directive is looked at.

use std::collections::HashSet;
use std::rc::Rc;

use crate::error::{Fault, Place};
use crate::yaml::{Content, Node};

/// Takes the entries of another mapping over, unless they are given again.
const MERGE_KEY: &str = "<<";
/// The top-level key of process-wide settings.
const GLOBAL: &str = "global";

/// The directive that has to be a list.
const SERVERS: &str = "servers";

/// A scalar and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Text {
    pub(crate) value: String,
    pub(crate) place: Place,
}

/// A key and what it was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RawDirective {
    pub(crate) key: Text,
    /// One text, or those of a sequence.
    pub(crate) values: Vec<Text>,
    /// Where the sequence starts, if it is one.
    sequence: Option<Place>,
}

/// A pool, or the process-wide settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RawSection {
    pub(crate) name: Text,
    /// In file order, repeated keys included.
    pub(crate) directives: Vec<RawDirective>,
}

/// The whole file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RawFile {
    /// In file order.
    pub(crate) pools: Vec<RawSection>,
    /// `global:`, if it is no pool.
    pub(crate) global: Option<RawSection>,
}

/// Checks the structure below `root`; `file` is the name for messages.
pub(crate) fn read(file: &str, root: &Node) -> Result<RawFile, Fault> {
    let structure = Structure { file };
    let entries = match &root.content {
        Content::Mapping { entries, .. } => entries,
        Content::Scalar(_) => {
            return Err(structure.fault(root.place, "has invalid empty \"key:\" at depth 0"));
        }
        Content::Sequence(_) => {
            return Err(structure.fault(root.place, "has sequence at depth 0 instead of 2"));
        }
    };
    let mut raw = RawFile {
        pools: Vec::new(),
        global: None,
    };
    for (name, value) in entries {
        let section = structure.section(name, value)?;
        if !section.is_global() {
            structure.check_sequence_count(&section)?;
            raw.pools.push(section);
        } else if raw.global.is_none() {
            raw.global = Some(section);
        } else {
            return Err(Fault::directive(
                section.name.place,
                GLOBAL,
                "is a duplicate",
            ));
        }
    }
    Ok(raw)
}

impl RawSection {
    /// A pool may be called `global`; it is told apart by what only a pool has.
    fn is_global(&self) -> bool {
        self.name.value == GLOBAL && !self.has("listen") && !self.has(SERVERS)
    }

    fn has(&self, key: &str) -> bool {
        self.directives.iter().any(|d| d.key.value == key)
    }
}

struct Structure<'a> {
    file: &'a str,
}

impl Structure<'_> {
    fn section(&self, name: &Node, value: &Node) -> Result<RawSection, Fault> {
        let name = match &name.content {
            Content::Scalar(text) => scalar(name, text),
            Content::Sequence(_) => {
                return Err(self.fault(name.place, "has sequence at depth 1 instead of 2"));
            }
            Content::Mapping { .. } => {
                return Err(self.fault(name.place, "has more than one \"key:value\" at depth 1"));
            }
        };
        let directives = match &value.content {
            Content::Mapping { entries, .. } => self.directives(entries)?,
            Content::Scalar(_) => {
                return Err(self.fault(value.place, "has invalid mapping \"key:\" at depth 1"));
            }
            Content::Sequence(_) => {
                return Err(self.fault(value.place, "has sequence at depth 1 instead of 2"));
            }
        };
        Ok(RawSection { name, directives })
    }

    fn directives(&self, entries: &[(Rc<Node>, Rc<Node>)]) -> Result<Vec<RawDirective>, Fault> {
        let mut directives = Vec::new();
        let mut merged = Vec::new();
        for (key, value) in entries {
            let key = match &key.content {
                Content::Scalar(text) => scalar(key, text),
                Content::Sequence(_) => {
                    return Err(self.fault(key.place, "has invalid \"key:value\" at depth 2"));
                }
                Content::Mapping { .. } => return Err(self.too_deep(key)),
            };
            match &value.content {
                Content::Mapping { entries, .. } if key.value == MERGE_KEY => {
                    merged.extend(self.directives(entries)?);
                }
                _ => {
                    let is_sequence = matches!(value.content, Content::Sequence(_));
                    directives.push(RawDirective {
                        key,
                        values: self.values(value)?,
                        sequence: is_sequence.then_some(value.place),
                    });
                }
            }
        }
        let given: HashSet<&str> = directives.iter().map(|d| &*d.key.value).collect();
        merged.retain(|d| !given.contains(&*d.key.value));
        directives.extend(merged);
        Ok(directives)
    }

    fn values(&self, value: &Node) -> Result<Vec<Text>, Fault> {
        let items = match &value.content {
            Content::Scalar(text) => return Ok(vec![scalar(value, text)]),
            Content::Sequence(items) => items,
            Content::Mapping { .. } => return Err(self.too_deep(value)),
        };
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            match &item.content {
                Content::Scalar(text) => values.push(scalar(item, text)),
                Content::Sequence(_) => {
                    return Err(self.fault(item.place, "has more than one sequence directive"));
                }
                Content::Mapping { .. } => return Err(self.too_deep(item)),
            }
        }
        Ok(values)
    }

    // compat: exactly one directive of a pool has a sequence, whichever it is.
    fn check_sequence_count(&self, pool: &RawSection) -> Result<(), Fault> {
        let mut sequences = pool.directives.iter().filter(|d| d.sequence.is_some());
        if sequences.next().is_none() {
            return Err(self.no_sequence(pool));
        }
        match sequences.next().and_then(|second| second.sequence) {
            Some(place) => Err(self.fault(place, "has more than one sequence directive")),
            None => Ok(()),
        }
    }

    fn no_sequence(&self, pool: &RawSection) -> Fault {
        let mut directives = pool.directives.iter();
        let (place, hint) = match directives.find(|d| d.key.value == SERVERS) {
            Some(servers) => (
                servers.key.place,
                "\"servers:\" needs a list, whose entries begin with \"- \"".to_owned(),
            ),
            None => {
                let name = &pool.name.value;
                (
                    pool.name.place,
                    format!("pool '{name}' has no \"servers:\""),
                )
            }
        };
        let words = format!("missing sequence directive at depth 2 ({hint})");
        self.fault(place, &words)
    }

    fn too_deep(&self, node: &Node) -> Fault {
        let hint = match node.content {
            Content::Mapping { flow: true, .. } => " (a text that starts with '{' needs quotes)",
            _ => "",
        };
        self.fault(node.place, &format!("has a depth greater than 2{hint}"))
    }

    fn fault(&self, place: Place, words: &str) -> Fault {
        Fault::new(place, format!("conf: '{}' {words}", self.file))
    }
}

fn scalar(node: &Node, text: &str) -> Text {
    Text {
        value: text.to_owned(),
        place: node.place,
    }
}
