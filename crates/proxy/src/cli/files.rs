//! The files that are used where the command line names none.
//!
//! Debian's nutcracker has paths of its own compiled in, and its init script and its unit rely on them. A proxy that takes the
//! place of that binary finds the same files; one that runs where upstream's default file is does not notice.

use std::path::{Path, PathBuf};

use super::Options;
use super::getopt::Opt;

/// compat: the defaults of Debian's package.
const CONF_FILE: &str = "/etc/nutcracker/nutcracker.yml";
const PID_FILE: &str = "/run/nutcracker/nutcracker.pid";
const LOG_FILE: &str = "/var/log/nutcracker/nutcracker.log";

/// Chooses the package's configuration if none was `given` and the default one is absent, and with it, for a daemon, the package's
/// other files. In the foreground the log stays on stderr, where a service manager reads it.
pub(super) fn adopt_packaged(options: &mut Options, given: &[Opt], exists: fn(&Path) -> bool) {
    let packaged = Path::new(CONF_FILE);
    if given.contains(&Opt::ConfFile) || exists(&options.conf_file) || !exists(packaged) {
        return;
    }
    options.conf_file = packaged.to_owned();
    if !options.daemonize {
        return;
    }
    if !given.contains(&Opt::Output) {
        options.output = Some(PathBuf::from(LOG_FILE));
    }
    if !given.contains(&Opt::PidFile) {
        options.pid_file = Some(PathBuf::from(PID_FILE));
    }
}
