//! What a complete redis request is: which command, and where it goes. Nothing is remembered here.

use super::Invalid;
use super::commands::{self, Keys, Serve};
use super::keys::{self, Located};
use super::words::{Command, HEAD_WORDS};
use crate::num::{to_u32, to_usize};
use crate::proto::{Merge, Parse, Request, Route, Then};

/// Says what the complete request is.
#[inline]
pub(super) fn classify(command: &Command<'_>) -> Parse {
    let Some(place) = commands::find(command.text(0)) else {
        return unknown(command);
    };
    let row = commands::row(place);
    if let Serve::Forward(Keys::One(key)) = row.serve
        && u32::from(key) < command.words
    {
        let route = Route::Key(command.head[usize::from(key)]);
        return complete(command, place, row.readonly, route);
    }
    classify_by_row(command, place)
}

/// What has not exactly one key in a fixed place.
fn classify_by_row(command: &Command<'_>, place: u16) -> Parse {
    let row = commands::row(place);
    match row.serve {
        Serve::Forward(rule) => keyed(command, place, rule, None),
        Serve::Split(merge, rule) => keyed(command, place, rule, Some(merge)),
        Serve::Local(_) => complete(command, place, row.readonly, Route::Local),
        Serve::Container(_) => contained(command, place),
        Serve::Refused(_) => answer_as(command, place, Invalid::Refused { command: place }),
    }
}

#[inline]
fn complete(command: &Command<'_>, place: u16, readonly: bool, route: Route) -> Parse {
    Parse::Complete(Request {
        len: to_u32(command.frame.len()),
        command: place,
        noreply: false,
        readonly,
        route,
    })
}

/// An error in the place of the request's response; the stream goes on.
#[cold]
fn answer(command: &Command<'_>, invalid: Invalid) -> Parse {
    Parse::Invalid {
        invalid: invalid.into(),
        len: command.frame.len(),
        then: Then::Continue,
    }
}

/// Refuses as [`answer`] does, and has the client closed if it may read on wrongly.
#[cold]
fn answer_as(command: &Command<'_>, place: u16, invalid: Invalid) -> Parse {
    if commands::is_scan(place) {
        return Parse::Invalid {
            invalid: invalid.into(),
            len: command.frame.len(),
            then: Then::Close,
        };
    }
    answer(command, invalid)
}

#[cold]
fn unknown(command: &Command<'_>) -> Parse {
    let name = command.text(0);
    // compat: redis closes on what a browser sends, so that no later line of it is executed.
    if name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:") {
        return Parse::Invalid {
            invalid: Invalid::CrossProtocol.into(),
            len: command.frame.len(),
            then: Then::Close,
        };
    }
    answer(command, Invalid::UnknownCommand)
}

fn keyed(command: &Command<'_>, place: u16, rule: Keys, merge: Option<Merge>) -> Parse {
    match route(command, rule, merge) {
        Ok(route) => complete(command, place, commands::row(place).readonly, route),
        Err(Located::Blocks) => answer(command, Invalid::Blocks { command: place }),
        Err(_) => answer_as(command, place, Invalid::Arity { command: place }),
    }
}

/// Where a request goes whose keys follow `rule`.
fn route(command: &Command<'_>, rule: Keys, merge: Option<Merge>) -> Result<Route, Located> {
    match keys::locate(rule, command) {
        Located::Keys(keys) if keys.total() > 1 || keys.is_apart => Ok(Route::Keys(merge)),
        Located::Keys(keys) => {
            let key = match usize::try_from(keys.first) {
                Ok(first) if first < HEAD_WORDS => command.head[first],
                _ => command
                    .iter()
                    .nth(to_usize(keys.first))
                    .map(|word| word.text)
                    .expect("keys are located among the words"),
            };
            Ok(Route::Key(key))
        }
        Located::Nowhere => Ok(Route::Placeholder),
        located @ (Located::Missing | Located::Blocks) => Err(located),
    }
}

/// A command whose second word says what it is.
fn contained(command: &Command<'_>, place: u16) -> Parse {
    let row = commands::row(place);
    let Serve::Container(subcommands) = row.serve else {
        unreachable!("the caller looked");
    };
    if command.words < 2 {
        return answer(command, Invalid::Arity { command: place });
    }
    let Some(index) = commands::find_subcommand(row.name, subcommands, command.text(1)) else {
        return answer(command, Invalid::UnknownSubcommand { command: place });
    };
    let subcommand = u8::try_from(index).expect("a test counts second words");
    let sub = &subcommands[index];
    let route = match sub.serve {
        Serve::Forward(rule) => match route(command, rule, None) {
            Ok(route) => route,
            Err(_) => {
                return answer(
                    command,
                    Invalid::SubcommandArity {
                        command: place,
                        subcommand,
                    },
                );
            }
        },
        Serve::Local(_) => Route::Local,
        _ => {
            return answer(
                command,
                Invalid::SubcommandRefused {
                    command: place,
                    subcommand,
                },
            );
        }
    };
    complete(command, place, sub.readonly, route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_words_fit_their_index() {
        for row in &commands::ROWS {
            if let Serve::Container(subcommands) = row.serve {
                assert!(u8::try_from(subcommands.len()).is_ok());
            }
        }
    }
}
