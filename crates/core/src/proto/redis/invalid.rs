//! Bad requests, in redis' words (7.0.15, compared byte for byte).

use alloc::vec::Vec;

use super::commands::{self, Reason, Serve};
use super::own;
use super::words::Words;

/// The fault of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalid {
    /// The number of words is none, or too large.
    MultibulkLength,
    /// The length of a word is none, or too large, or not what follows.
    BulkLength,
    /// This byte instead of the `$` of a word.
    ExpectedBulk(u8),
    /// A line with the number of words has no end.
    CountTooLong,
    /// A line with the length of a word has no end.
    BulkLengthTooLong,
    /// An inline command has no end.
    InlineTooLong,
    /// Quotes in an inline command do not match.
    UnbalancedQuotes,
    /// Too many words before authentication.
    UnauthenticatedMultibulk,
    /// Too long a word before authentication.
    UnauthenticatedBulk,
    /// An HTTP request: somebody was tricked into sending it. Nothing is answered.
    CrossProtocol,
    /// The frame is longer than `request_size_limit`.
    TooLarge,
    /// There is no such command.
    UnknownCommand,
    /// There is no such second word of this command.
    UnknownSubcommand {
        /// The command's place in the table.
        command: u16,
    },
    /// Too few words to find the keys, or words too many or too few for the proxy's own answer.
    Arity {
        /// The command's place in the table.
        command: u16,
    },
    /// `Arity`, for a second word.
    SubcommandArity {
        /// The command's place in the table.
        command: u16,
        /// The place among its second words.
        subcommand: u8,
    },
    /// The proxy does not serve this command.
    Refused {
        /// The command's place in the table.
        command: u16,
    },
    /// The proxy does not serve this second word of the command.
    SubcommandRefused {
        /// The command's place in the table.
        command: u16,
        /// The place among its second words.
        subcommand: u8,
    },
    /// The proxy serves this command only without `BLOCK`.
    Blocks {
        /// The command's place in the table.
        command: u16,
    },
}

impl Invalid {
    /// See [`super::super::Invalid::write`].
    pub fn write(self, frame: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::MultibulkLength => protocol_error(b"invalid multibulk length", out),
            Self::BulkLength => protocol_error(b"invalid bulk length", out),
            Self::ExpectedBulk(byte) => {
                out.extend_from_slice(b"-ERR Protocol error: expected '$', got '");
                push_printable(&[byte], out);
                out.extend_from_slice(b"'\r\n");
            }
            Self::CountTooLong => protocol_error(b"too big mbulk count string", out),
            Self::BulkLengthTooLong => protocol_error(b"too big bulk count string", out),
            Self::InlineTooLong => protocol_error(b"too big inline request", out),
            Self::UnbalancedQuotes => protocol_error(b"unbalanced quotes in request", out),
            Self::UnauthenticatedMultibulk => {
                protocol_error(b"unauthenticated multibulk length", out);
            }
            Self::UnauthenticatedBulk => protocol_error(b"unauthenticated bulk length", out),
            Self::CrossProtocol => {}
            Self::TooLarge => out.extend_from_slice(own::TOO_LARGE),
            Self::UnknownCommand => unknown_command(frame, out),
            Self::UnknownSubcommand { command } => unknown_subcommand(frame, command, out),
            Self::Arity { command } => arity(commands::row(command).name, out),
            Self::SubcommandArity {
                command,
                subcommand,
            } => arity(subcommand_of(command, subcommand).name, out),
            Self::Refused { command } => {
                let row = commands::row(command);
                refused(row.name, row.serve, out);
            }
            Self::SubcommandRefused {
                command,
                subcommand,
            } => {
                let subcommand = subcommand_of(command, subcommand);
                refused(subcommand.name, subcommand.serve, out);
            }
            Self::Blocks { command } => {
                own::write_refusal(commands::row(command).name, Reason::Blocking, out);
            }
        }
    }

    /// Writes as [`Self::write`] does, for a client between MULTI and EXEC: none of its commands is served, so
    /// it does not matter which of them never are.
    pub fn write_in_transaction(self, frame: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Refused { .. } | Self::SubcommandRefused { .. } | Self::Blocks { .. } => {
                out.extend_from_slice(own::NO_TRANSACTIONS);
            }
            _ => self.write(frame, out),
        }
    }
}

fn subcommand_of(command: u16, subcommand: u8) -> &'static commands::Subcommand {
    match commands::row(command).serve {
        Serve::Container(subcommands) => &subcommands[usize::from(subcommand)],
        _ => panic!("only containers have second words"),
    }
}

fn protocol_error(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"-ERR Protocol error: ");
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn arity(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"-ERR wrong number of arguments for '");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"' command\r\n");
}

fn refused(name: &str, serve: Serve, out: &mut Vec<u8>) {
    let Serve::Refused(reason) = serve else {
        panic!("{name} is not refused");
    };
    own::write_refusal(name, reason, out);
}

/// Redis quotes at most this many bytes of a command, and of its arguments together.
const QUOTED_MAX: usize = 128;

fn unknown_command(frame: &[u8], out: &mut Vec<u8>) {
    let mut texts = Words::of(frame).texts();
    out.extend_from_slice(b"-ERR unknown command '");
    push_text(texts.next().unwrap_or_default(), QUOTED_MAX, out);
    out.extend_from_slice(b"', with args beginning with: ");
    let start = out.len();
    for text in texts {
        // Redis counts its quotes and blanks, but tests before it adds the next argument.
        let Some(room @ 1..) = QUOTED_MAX.checked_sub(out.len() - start) else {
            break;
        };
        out.push(b'\'');
        push_text(text, room, out);
        out.extend_from_slice(b"' ");
    }
    out.extend_from_slice(b"\r\n");
}

fn unknown_subcommand(frame: &[u8], command: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(b"-ERR unknown subcommand '");
    let verb = Words::of(frame).texts().nth(1).unwrap_or_default();
    push_text(verb, QUOTED_MAX, out);
    out.extend_from_slice(b"'. Try ");
    out.extend(
        commands::row(command)
            .name
            .bytes()
            .map(|byte| byte.to_ascii_uppercase()),
    );
    out.extend_from_slice(b" HELP.\r\n");
}

/// Appends up to `len_max` bytes of `text` as redis' `%s` does: up to a NUL, without line ends.
pub(super) fn push_text(text: &[u8], len_max: usize, out: &mut Vec<u8>) {
    let text = &text[..text.len().min(len_max)];
    let len = memchr::memchr(0, text).unwrap_or(text.len());
    push_printable(&text[..len], out);
}

fn push_printable(text: &[u8], out: &mut Vec<u8>) {
    out.extend(text.iter().map(|&byte| match byte {
        b'\r' | b'\n' => b' ',
        _ => byte,
    }));
}
