//! Things that are allowed and most likely not meant: told by `-t`, and by a start.

use twemproxy_config::{Listen, ProxyConfig};

use crate::cli::Options;

/// A daemon's stderr is `/dev/null`: its log is lost with it.
pub(crate) fn lost_log(options: &Options) -> Option<&'static str> {
    (options.daemonize && options.output.is_none())
        .then_some("-d without -o: the daemon's log goes nowhere")
}

/// Unix sockets to which a daemon lets every user connect.
// compat: a daemon's umask is 0.
pub(crate) fn open_sockets(config: &ProxyConfig) -> impl Iterator<Item = String> + '_ {
    let pools = config.pools.iter().zip(&config.core.pools);
    pools.filter_map(|(addresses, pool)| match &addresses.listen {
        Listen::Unix { path, mode: None } => Some(format!(
            "pool '{}': with -d every user may connect to '{path}', which has no mode; to name one: \
             listen: {path} 0660",
            pool.name,
            path = path.display()
        )),
        _ => None,
    })
}
