//! The likely cause of a fault in the structure, where the parser's words do not lead to it.

use crate::error::{Fault, Place};
use crate::table;

/// `listen:127.0.0.1:1` is one word to YAML, which complains of something else, often a line later. The word is blamed instead.
pub(crate) fn blame_missing_blank(text: &[u8], fault: Fault) -> Fault {
    let Ok(text) = std::str::from_utf8(text) else {
        return fault;
    };
    let lines = text.lines().take(fault.place.line);
    let mut written: Vec<(usize, &str)> = (1..).zip(lines).filter(|(_, l)| !is_empty(l)).collect();
    // The line of the fault and the one before it.
    written.reverse();
    let found = written.iter().take(2).find_map(|&(line, text)| {
        let name = glued_name(text)?;
        let column = text.chars().take_while(|c| c.is_whitespace()).count() + 1;
        Some((Place { line, column }, name))
    });
    match found {
        Some((place, name)) => Fault::new(
            place,
            format!("{} (no blank after \"{name}:\")", fault.reason),
        ),
        None => fault,
    }
}

fn is_empty(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// The directive of a line that has something directly behind its colon.
fn glued_name(line: &str) -> Option<&'static str> {
    let (name, rest) = line.trim_start().split_once(':')?;
    let glued = rest.starts_with(|c: char| !c.is_whitespace());
    table::names().find(|&known| glued && known == name)
}
