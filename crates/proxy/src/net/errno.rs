//! The kernel's error numbers: the one table that maps them to the engine's words, and their text.

use std::io;

use rustix::io::Errno;
use twemproxy_core::engine::Closed;

/// Which error numbers mean what; every other is [`Closed::Other`].
const TABLE: &[(Errno, Closed)] = &[
    (Errno::CONNREFUSED, Closed::Refused),
    (Errno::CONNRESET, Closed::Reset),
    (Errno::CONNABORTED, Closed::Reset),
    (Errno::TIMEDOUT, Closed::TimedOut),
    (Errno::PIPE, Closed::BrokenPipe),
    (Errno::NOTCONN, Closed::BrokenPipe),
    (Errno::HOSTUNREACH, Closed::HostUnreachable),
    (Errno::NETUNREACH, Closed::NetworkUnreachable),
    (Errno::NETDOWN, Closed::NetworkUnreachable),
    (Errno::HOSTDOWN, Closed::HostDown),
    (Errno::NAMETOOLONG, Closed::HostDown),
    (Errno::NOENT, Closed::NoSuchFile),
    (Errno::ACCESS, Closed::PermissionDenied),
    (Errno::PERM, Closed::PermissionDenied),
    (Errno::AGAIN, Closed::WouldBlock),
    (Errno::MFILE, Closed::TooManyFiles),
    (Errno::NFILE, Closed::TooManyFiles),
    (Errno::NOMEM, Closed::NoMemory),
    (Errno::NOBUFS, Closed::NoBuffers),
    (Errno::ADDRNOTAVAIL, Closed::NoLocalAddress),
];

/// What a failed system call on a connection means to the engine.
pub(crate) fn closed(error: &io::Error) -> Closed {
    if let Some(errno) = Errno::from_io_error(error) {
        return TABLE
            .iter()
            .find(|(known, _)| *known == errno)
            .map_or(Closed::Other, |&(_, closed)| closed);
    }
    match error.kind() {
        // A unix path that does not fit the kernel's structure never becomes a system call.
        io::ErrorKind::InvalidInput => Closed::HostDown,
        io::ErrorKind::WouldBlock => Closed::WouldBlock,
        _ => Closed::Other,
    }
}

/// Whether a call failed because the process or the system has no descriptors or memory left:
/// waiting helps.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

/// The error in the C library's words alone, as the original logs it.
pub(crate) fn text(error: &io::Error) -> String {
    let mut text = error.to_string();
    if error.raw_os_error().is_some()
        && let Some(suffix) = text.rfind(" (os error ")
    {
        text.truncate(suffix);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_reached() {
        for &(errno, want) in TABLE {
            assert_eq!(closed(&errno.into()), want, "{errno:?}");
        }
        assert_eq!(closed(&Errno::INVAL.into()), Closed::Other);
        let too_long = io::Error::new(io::ErrorKind::InvalidInput, "path too long");
        assert_eq!(closed(&too_long), Closed::HostDown);
    }

    #[test]
    fn texts_are_the_c_librarys() {
        assert_eq!(text(&Errno::ADDRINUSE.into()), "Address already in use");
        assert_eq!(text(&io::Error::other("no number")), "no number");
    }

    #[test]
    fn want_of_descriptors_is_exhaustion() {
        assert!(is_exhaustion(&Errno::MFILE.into()));
        assert!(is_exhaustion(&Errno::NFILE.into()));
        assert!(!is_exhaustion(&Errno::CONNABORTED.into()));
    }
}
