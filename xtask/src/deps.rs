//! `deps`: licences, sources and duplicates of all packages in the lock file, against the rules of `dependencies.txt`.
//!
//! Cargo itself says what is locked; it fetches packages for other systems than this one if they are not there yet.
//! Known vulnerabilities need a list from the network and are looked up by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::tools::{Failure, Outcome, root};

const FILE: &str = "dependencies.txt";

/// The verb.
pub(crate) fn deps() -> Outcome<()> {
    let path = root().join(FILE);
    let text =
        fs::read_to_string(&path).map_err(|error| Failure::during("reading", &path, &error))?;
    let rules = Rules::parse(&text)?;
    let metadata = ask_cargo(&["metadata", "--locked", "--format-version", "1"])?;
    let metadata = serde_json::from_slice(&metadata)
        .map_err(|error| Failure::new(format!("the words of cargo metadata: {error}")))?;
    let packages = packages(&metadata, &users()?)?;
    let complaints = rules.check(&packages);
    if complaints.is_empty() {
        println!("{} packages keep the rules of {FILE}", packages.len());
        return Ok(());
    }
    Err(Failure::new(complaints.join("\n")))
}

/// The output of a cargo command.
fn ask_cargo(words: &[&str]) -> Outcome<Vec<u8>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let told = Command::new(cargo)
        .args(words)
        .current_dir(root())
        .output()
        .map_err(|error| Failure::new(format!("starting cargo: {error}")))?;
    if told.status.success() {
        return Ok(told.stdout);
    }
    let said = String::from_utf8_lossy(&told.stderr);
    Err(Failure::new(format!("cargo {} failed:\n{said}", words[0])))
}

/// Names of packages and of those that need them. The metadata are no help here: they take a feature of an optional
/// package for the package.
fn users() -> Outcome<BTreeMap<String, BTreeSet<String>>> {
    let words = [
        "tree",
        "--workspace",
        "--locked",
        "--target",
        "all",
        "--edges",
        "normal,build,dev",
        "--no-dedupe",
        "--prefix",
        "depth",
        "--format",
        " {p}",
    ];
    let text = ask_cargo(&words)?;
    Ok(users_in(&String::from_utf8_lossy(&text)))
}

/// Reads lines of a depth, a name and more.
fn users_in(tree: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut path: Vec<&str> = Vec::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        let depth = words.next().and_then(|word| word.parse().ok());
        let (Some(depth), Some(name)) = (depth, words.next()) else {
            continue;
        };
        path.truncate(depth);
        if let Some(user) = path.last() {
            let of_name = users.entry(name.to_owned()).or_default();
            of_name.insert((*user).to_owned());
        }
        path.push(name);
    }
    users
}

/// A locked package.
#[derive(Debug, Default, Clone)]
struct Package {
    name: String,
    version: String,
    licence: String,
    /// Empty for members of the workspace.
    source: String,
    /// Packages it asks for in any version at all.
    wildcards: Vec<String>,
    /// Names of the packages that need it.
    needed_by: BTreeSet<String>,
}

fn packages(metadata: &Value, users: &BTreeMap<String, BTreeSet<String>>) -> Outcome<Vec<Package>> {
    let unclear = || Failure::new("cargo metadata has another form than expected");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let listed = |value: &'_ Value| value.as_array().cloned().ok_or_else(unclear);
    let mut packages = Vec::new();
    for package in listed(&metadata["packages"])? {
        let name = text(&package["name"]);
        let asked = listed(&package["dependencies"])?;
        // A path needs no version.
        let wildcards = asked
            .iter()
            .filter(|one| one["req"] == "*" && one["path"].is_null())
            .map(|one| text(&one["name"]));
        packages.push(Package {
            version: text(&package["version"]),
            licence: text(&package["license"]),
            source: text(&package["source"]),
            wildcards: wildcards.collect(),
            needed_by: users.get(&name).cloned().unwrap_or_default(),
            name,
        });
    }
    Ok(packages)
}

/// The rules of the file.
#[derive(Debug, Default)]
struct Rules {
    licences: BTreeSet<String>,
    sources: BTreeSet<String>,
    twice: BTreeSet<String>,
    /// Banned packages, each with the only package that may need it.
    never: BTreeMap<String, Option<String>>,
}

impl Rules {
    fn parse(text: &str) -> Outcome<Self> {
        let mut rules = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or("").trim();
            let (rule, value) = line.split_once(' ').unwrap_or((line, ""));
            let value = value.trim().to_owned();
            match rule {
                "" => {}
                "licence" => drop(rules.licences.insert(value)),
                "source" => drop(rules.sources.insert(value)),
                "twice" => drop(rules.twice.insert(value)),
                "never" => {
                    let (name, wrapper) = match value.split_once(" but for ") {
                        Some((name, wrapper)) => (name, Some(wrapper.to_owned())),
                        None => (value.as_str(), None),
                    };
                    rules.never.insert(name.to_owned(), wrapper);
                }
                _ => return Err(Failure::new(format!("{FILE}: unexpected '{line}'"))),
            }
        }
        Ok(rules)
    }

    /// One sentence for each rule that is broken, or that nothing needs any more.
    fn check(&self, packages: &[Package]) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for package in packages {
            let name = &package.name;
            versions.entry(name).or_default().push(&package.version);
            for wildcard in &package.wildcards {
                complaints.push(format!("{name} takes any version of {wildcard}"));
            }
            if package.source.is_empty() {
                continue;
            }
            if !self.sources.contains(&package.source) {
                complaints.push(format!("{name} comes from {}", package.source));
            }
            if !Licence::new(&package.licence).met_by(&self.licences) {
                complaints.push(format!("{name} has the licence '{}'", package.licence));
            }
            if let Some(wrapper) = self.never.get(name) {
                let strangers = package
                    .needed_by
                    .iter()
                    .filter(|user| Some(*user) != wrapper.as_ref());
                complaints.extend(strangers.map(|user| format!("{user} may not need {name}")));
            }
        }
        for (name, versions) in &versions {
            if versions.len() > 1 && !self.twice.contains(*name) {
                complaints.push(format!("{name} is there as {}", versions.join(" and ")));
            }
        }
        for name in &self.twice {
            if versions
                .get(name.as_str())
                .is_none_or(|list| list.len() < 2)
            {
                complaints.push(format!("'twice {name}' in {FILE} is no longer needed"));
            }
        }
        complaints
    }
}

/// A licence expression, read from left to right: names joined by OR, AND and parentheses. Old packages write `/` for OR.
struct Licence {
    /// The words that are left, the next one last.
    rest: Vec<String>,
}

impl Licence {
    fn new(text: &str) -> Self {
        let spaced = text
            .replace('/', " OR ")
            .replace('(', " ( ")
            .replace(')', " ) ");
        let mut rest: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
        rest.reverse();
        Self { rest }
    }

    /// Whether the names that are allowed satisfy it. What cannot be read is not satisfied.
    fn met_by(mut self, allowed: &BTreeSet<String>) -> bool {
        let met = self.any(allowed);
        met && self.rest.is_empty()
    }

    fn takes(&mut self, word: &str) -> bool {
        let is_next = self.rest.last().is_some_and(|next| next == word);
        if is_next {
            self.rest.pop();
        }
        is_next
    }

    fn any(&mut self, allowed: &BTreeSet<String>) -> bool {
        let mut met = self.all(allowed);
        while self.takes("OR") {
            met |= self.all(allowed);
        }
        met
    }

    fn all(&mut self, allowed: &BTreeSet<String>) -> bool {
        let mut met = self.one(allowed);
        while self.takes("AND") {
            met &= self.one(allowed);
        }
        met
    }

    fn one(&mut self, allowed: &BTreeSet<String>) -> bool {
        if self.takes("(") {
            let met = self.any(allowed);
            return self.takes(")") && met;
        }
        let Some(mut name) = self.rest.pop() else {
            return false;
        };
        if self.takes("WITH") {
            name = format!("{name} WITH {}", self.rest.pop().unwrap_or_default());
        }
        allowed.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_leave_a_choice_or_ask_for_all() {
        let allowed = ["MIT", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        let allowed = BTreeSet::from(allowed);
        let is_met = |text| Licence::new(text).met_by(&allowed);
        assert!(is_met("MIT"));
        assert!(is_met("GPL-3.0 OR MIT"));
        assert!(is_met("MIT/Apache-2.0"));
        assert!(is_met("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(is_met("Apache-2.0 WITH LLVM-exception"));
        assert!(!is_met("Apache-2.0"));
        assert!(!is_met("MIT AND GPL-3.0"));
        assert!(!is_met("GPL-3.0 AND (MIT OR Apache-2.0)"));
        assert!(!is_met("(MIT"));
        assert!(!is_met("MIT)"));
        assert!(!is_met(""));
    }

    #[test]
    fn users_are_the_lines_above() {
        let users = users_in("0 a v1\n1 b v1\n2 c v1\n1 c v1\n0 b v1 (/here)\n");
        let of = |name: &str| users.get(name).map(|users| users.iter().cloned().collect());
        assert_eq!(of("a"), None::<Vec<String>>);
        assert_eq!(of("b"), Some(vec!["a".to_owned()]));
        assert_eq!(of("c"), Some(vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn every_broken_rule_is_told() {
        let rules = "licence MIT\nsource here # ours\ntwice old\nnever bad\nnever log but for mio";
        let rules = Rules::parse(rules).expect("good rules");
        let package = |name: &str, version: &str, needed_by: &str| Package {
            name: name.to_owned(),
            version: version.to_owned(),
            licence: "MIT".to_owned(),
            source: "here".to_owned(),
            needed_by: BTreeSet::from([needed_by.to_owned()]),
            ..Package::default()
        };
        let good = [
            package("log", "1", "mio"),
            package("old", "1", "a"),
            package("old", "2", "b"),
        ];
        assert_eq!(rules.check(&good), Vec::<String>::new());
        let mut bad = vec![
            package("log", "1", "a"),
            package("bad", "1", "a"),
            package("new", "1", "a"),
            package("new", "2", "a"),
        ];
        bad[2].source = "elsewhere".to_owned();
        bad[2].licence = "GPL-3.0".to_owned();
        bad[3].wildcards = vec!["any".to_owned()];
        assert_eq!(
            rules.check(&bad),
            [
                "a may not need log",
                "a may not need bad",
                "new comes from elsewhere",
                "new has the licence 'GPL-3.0'",
                "new takes any version of any",
                "new is there as 1 and 2",
                "'twice old' in dependencies.txt is no longer needed",
            ]
        );
        assert!(Rules::parse("sometimes x").is_err());
    }
}
