//! Configuration files in twemproxy's format.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{Server, ServerKind};

/// A configuration file in the making. Pools listen on unix sockets in one directory.
#[derive(Clone, Debug)]
pub struct ConfigBuilder {
    dir: PathBuf,
    pools: Vec<PoolBuilder>,
    settings: Vec<(String, String)>,
}

/// One pool of it.
#[derive(Clone, Debug)]
pub struct PoolBuilder {
    name: String,
    listen: Option<String>,
    directives: Vec<(String, String)>,
    servers: Vec<String>,
}

impl ConfigBuilder {
    /// A file whose pools listen in `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            pools: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Sets a setting of the process (`global:`).
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a pool.
    #[must_use]
    pub fn pool(mut self, pool: PoolBuilder) -> Self {
        self.pools.push(pool);
        self
    }

    /// The file's text.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut text = String::new();
        if !self.settings.is_empty() {
            line(&mut text, format_args!("global:"));
        }
        for (name, value) in &self.settings {
            line(&mut text, format_args!("  {name}: {value}"));
        }
        for pool in &self.pools {
            let listen = pool
                .listen
                .clone()
                .unwrap_or_else(|| socket_of(&self.dir, &pool.name).display().to_string());
            line(&mut text, format_args!("{}:", pool.name));
            line(&mut text, format_args!("  listen: {listen}"));
            for (name, value) in &pool.directives {
                line(&mut text, format_args!("  {name}: {value}"));
            }
            line(&mut text, format_args!("  servers:"));
            for server in &pool.servers {
                line(&mut text, format_args!("    - {server}"));
            }
            text.push('\n');
        }
        text
    }

    /// Names and sockets of the pools that listen on unix sockets in the directory.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (String, PathBuf)> + '_ {
        self.pools
            .iter()
            .filter(|pool| pool.listen.is_none())
            .map(|pool| (pool.name.clone(), socket_of(&self.dir, &pool.name)))
    }
}

impl PoolBuilder {
    /// A pool for servers of this kind, with twemproxy's defaults otherwise.
    #[must_use]
    pub fn new(name: &str, kind: ServerKind) -> Self {
        Self {
            name: name.to_owned(),
            listen: None,
            directives: vec![(
                "redis".to_owned(),
                (kind != ServerKind::Memcached).to_string(),
            )],
            servers: Vec::new(),
        }
    }

    /// Sets a directive; `value` stands in the file as it is. A second one replaces the first.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.directives.retain(|(known, _)| known != name);
        self.directives.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Listens elsewhere than on a unix socket named after the pool.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Self {
        self.listen = Some(address.to_owned());
        self
    }

    /// Adds these servers, each with weight 1 and its name.
    #[must_use]
    pub fn servers(mut self, servers: &[Server]) -> Self {
        for server in servers {
            let place = server.socket().display();
            self.servers.push(format!("{place}:1 {}", server.name()));
        }
        self
    }

    /// Adds a server as it stands in the file (`host:port:weight name`).
    #[must_use]
    pub fn server_line(mut self, entry: &str) -> Self {
        self.servers.push(entry.to_owned());
        self
    }
}

fn socket_of(dir: &Path, pool: &str) -> PathBuf {
    dir.join(format!("pool-{pool}.sock"))
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    writeln!(text, "{content}").expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_as_nutcracker_wants_it() {
        let pool = PoolBuilder::new("beta", ServerKind::Memcached)
            .set("timeout", "400")
            .set("timeout", "500")
            .server_line("127.0.0.1:11211:1 one");
        let config = ConfigBuilder::new(Path::new("/run/x")).pool(pool);
        assert_eq!(
            config.yaml(),
            "beta:\n  listen: /run/x/pool-beta.sock\n  redis: false\n  timeout: 500\n  servers:\n    \
             - 127.0.0.1:11211:1 one\n\n"
        );
        let sockets: Vec<_> = config.sockets().collect();
        assert_eq!(
            sockets,
            [("beta".to_owned(), PathBuf::from("/run/x/pool-beta.sock"))]
        );
    }
}
