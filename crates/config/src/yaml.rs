//! The one file that knows the YAML parser: text in, a tree of scalars with places out.
//!
//! Scalars are kept as text, whatever they look like (`0x10`, `~`, `yes`), as in nutcracker 0.5.
//! Beyond 0.5 this accepts flow style, `---` and `...`, anchors and aliases; tags and `%`
//! directives stay refused, because they would change nothing.
//!
//! Bounds: nodes nest at most [`NESTING_MAX`] deep, and an alias names at most a mapping of lists,
//! so every walk of the tree is shallow. Aliased nodes are shared here; whoever walks the tree meets them
//! again, so together they stand for at most [`REPEATED_MAX`] nodes.

use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{Event, Marker, Parser, ScanError, Span, StrInput, StructureStyle};

use crate::error::{Fault, Place};

/// Far more than a configuration has, few enough for recursion.
const NESTING_MAX: usize = 16;
/// Height of a pool, the highest thing that may be repeated by an alias.
const ALIAS_HEIGHT_MAX: usize = 2;
/// Some hundred pools that share a few hundred servers; not a file that unfolds into gigabytes.
const REPEATED_MAX: usize = 100_000;

/// A value and where it starts.
#[derive(PartialEq, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) content: Content,
    /// 0 for a scalar, else 1 more than the highest child.
    height: usize,
    /// Nodes below it and itself, repeated ones each time.
    size: usize,
}

#[derive(PartialEq, Debug)]
pub(crate) enum Content {
    /// Empty if nothing was written at all.
    Scalar(String),
    Sequence(Vec<Rc<Node>>),
    Mapping {
        /// In file order, repeated keys included.
        entries: Vec<(Rc<Node>, Rc<Node>)>,
        /// Written with braces.
        flow: bool,
    },
}

/// The root of the only document of a text; `file` is its name for messages.
pub(crate) fn parse(file: &str, text: &[u8]) -> Result<Rc<Node>, Fault> {
    let text = utf8(text)?;
    let options = granit_parser::options! {
        disallow_directives: true,
        // As libyaml, so that what nutcracker 0.5 accepts keeps its meaning.
        bom_inside_document_as_content: true,
        block_scalar_eof_without_line_feed: true,
        flow_nesting_limit: NESTING_MAX,
        block_nesting_limit: NESTING_MAX,
    };
    let mut reader = Reader {
        parser: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        repeated: 0,
        file,
    };
    reader.document()
}

fn utf8(text: &[u8]) -> Result<&str, Fault> {
    if text.starts_with(&[0xff, 0xfe]) || text.starts_with(&[0xfe, 0xff]) {
        return Err(syntax_fault(Place::START, "UTF-16; the file must be UTF-8"));
    }
    std::str::from_utf8(text).map_err(|error| {
        let valid = &text[..error.valid_up_to()];
        let line_start = valid
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&valid[line_start..])
            .chars()
            .count();
        let place = Place {
            line: 1 + valid.iter().filter(|&&b| b == b'\n').count(),
            column: 1 + column,
        };
        syntax_fault(place, "invalid UTF-8")
    })
}

fn syntax_fault(place: Place, reason: &str) -> Fault {
    let reason = format!("conf: failed to get the next yaml document: {reason}");
    Fault::new(place, reason)
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Rc<Node>>,
    /// Nodes that aliases stood for until now.
    repeated: usize,
    file: &'a str,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Rc<Node>, Fault> {
        let mut roots = Vec::new();
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) => {
                    let place = place(span.start);
                    let (event, span) = self.next()?;
                    roots.push((place, self.node(event, span)?));
                }
                Event::StreamEnd => break,
                _ => unreachable!("nodes stand in documents"),
            }
        }
        let count = roots.len();
        if count != 1 {
            let place = roots.get(1).map_or(Place::START, |(place, _)| *place);
            let file = self.file;
            return Err(Fault::new(
                place,
                format!("conf: '{file}' must contain only 1 document; found {count} documents"),
            ));
        }
        Ok(roots.swap_remove(0).1)
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(scan_fault(&error)),
            None => unreachable!("nothing is read behind the end of the stream"),
        }
    }

    /// The node that `event` begins.
    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Rc<Node>, Fault> {
        let place = place(span.start);
        let tagged = span.tag_start().is_some();
        let (content, anchor) = match event {
            Event::Alias(anchor) => return self.aliased(place, anchor),
            Event::Scalar(text, _, anchor, _) => {
                // The parser shows nothing at all as a tilde of no length.
                let text = if span.is_empty() {
                    String::new()
                } else {
                    text.into_owned()
                };
                (Content::Scalar(text), anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.sequence()?, anchor),
            Event::MappingStart(style, anchor, _) => (self.mapping(style)?, anchor),
            _ => unreachable!("the parser opens a node here"),
        };
        if tagged {
            return Err(Fault::new(place, "conf: tag token (20) is disallowed"));
        }
        let (height, size) = content.measure();
        let node = Rc::new(Node {
            place,
            content,
            height,
            size,
        });
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        Ok(node)
    }

    fn sequence(&mut self) -> Result<Content, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Content::Sequence(items)),
                (event, span) => items.push(self.node(event, span)?),
            }
        }
    }

    fn mapping(&mut self, style: StructureStyle) -> Result<Content, Fault> {
        let mut entries = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                let flow = style == StructureStyle::Flow;
                return Ok(Content::Mapping { entries, flow });
            }
            let key = self.node(event, span)?;
            let (event, span) = self.next()?;
            entries.push((key, self.node(event, span)?));
        }
    }

    fn aliased(&mut self, place: Place, anchor: usize) -> Result<Rc<Node>, Fault> {
        let file = self.file;
        // A node that contains itself is not complete, so not known yet.
        let node = self.anchors.get(&anchor);
        let Some(node) = node.filter(|node| node.height <= ALIAS_HEIGHT_MAX) else {
            let reason = format!("conf: '{file}' has a depth greater than 2");
            return Err(Fault::new(place, reason));
        };
        self.repeated = self.repeated.saturating_add(node.size);
        if self.repeated > REPEATED_MAX {
            let reason = format!("conf: '{file}' repeats more than {REPEATED_MAX} values");
            return Err(Fault::new(place, reason));
        }
        Ok(Rc::clone(node))
    }
}

impl Content {
    /// The height and the size of a node with this content.
    fn measure(&self) -> (usize, usize) {
        let add = |(height, size): (usize, usize), node: &Node| {
            (height.max(1 + node.height), size.saturating_add(node.size))
        };
        match self {
            Self::Scalar(_) => (0, 1),
            Self::Sequence(items) => items.iter().fold((1, 1), |sum, item| add(sum, item)),
            Self::Mapping { entries, .. } => entries
                .iter()
                .fold((1, 1), |sum, (key, value)| add(add(sum, key), value)),
        }
    }
}

fn scan_fault(error: &ScanError) -> Fault {
    let words = error.info();
    // `*:22121` as it was meant for nutcracker is an alias to YAML.
    let hint = match words.ends_with("unknown anchor") {
        true => " (a text that starts with '*' needs quotes)",
        false => "",
    };
    syntax_fault(place(*error.marker()), &format!("{words}{hint}"))
}

fn place(marker: Marker) -> Place {
    Place {
        line: marker.line(),
        column: marker.col() + 1,
    }
}
