//! What is wrong with a configuration file, and where.

use std::fmt;
use std::path::Path;

/// A line and a column of the file, both from 1; columns count characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Place {
    /// For what concerns the whole file.
    pub(super) const START: Self = Self { line: 1, column: 1 };
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A fault of the text, before it is known which file it came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) place: Place,
    /// In the words of nutcracker 0.5 where it has any.
    pub(super) reason: String,
}

impl Fault {
    pub(super) fn new(place: Place, reason: impl Into<String>) -> Self {
        Self {
            place,
            reason: reason.into(),
        }
    }

    /// A fault of one directive.
    pub(super) fn directive(place: Place, name: &str, reason: impl fmt::Display) -> Self {
        Self::new(place, format!("conf: directive \"{name}\" {reason}"))
    }
}

/// Why there is no configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ConfigError {
    /// The file cannot be opened or read.
    Open {
        /// As on the command line.
        file: String,
        /// The system's words.
        reason: String,
    },
    /// The file was read and is wrong.
    Invalid {
        /// As on the command line.
        file: String,
        /// The first fault.
        place: Place,
        /// In the words of nutcracker 0.5 where it has any.
        reason: String,
    },
}

impl ConfigError {
    pub(super) fn open(path: &Path, error: &std::io::Error) -> Self {
        Self::Open {
            file: path.display().to_string(),
            reason: system_words(error),
        }
    }

    pub(super) fn invalid(file: &str, fault: Fault) -> Self {
        Self::Invalid {
            file: file.to_owned(),
            place: fault.place,
            reason: fault.reason,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { file, reason } => {
                write!(f, "conf: failed to open configuration '{file}': {reason}")
            }
            Self::Invalid {
                file,
                place,
                reason,
            } => write!(f, "{file}:{place}: {reason}"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The text of `strerror`, without the number that Rust appends.
pub(super) fn system_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
