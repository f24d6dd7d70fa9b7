//! What is wrong with a configuration file, and where.

use std::fmt;
use std::path::Path;

/// A place in the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Place {
    /// For what concerns the whole file.
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A fault of the text, before it is known which file it came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub(crate) place: Place,
    /// In the words of nutcracker 0.5 where it has any.
    pub(crate) reason: String,
}

impl Fault {
    pub(crate) fn new(place: Place, reason: impl Into<String>) -> Self {
        Self {
            place,
            reason: reason.into(),
        }
    }

    /// A fault of one directive.
    pub(crate) fn directive(place: Place, name: &str, reason: impl fmt::Display) -> Self {
        Self::new(place, format!("conf: directive \"{name}\" {reason}"))
    }
}

/// Why there is no configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigError {
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
    pub(crate) fn open(path: &Path, error: &std::io::Error) -> Self {
        Self::Open {
            file: path.display().to_string(),
            reason: system_words(error),
        }
    }

    pub(crate) fn invalid(file: &str, fault: Fault) -> Self {
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
pub(crate) fn system_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
