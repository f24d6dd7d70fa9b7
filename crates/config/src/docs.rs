//! `docs/config.md`, generated from the directive table. After a change of the table, run the tests
//! of this package once with `UPDATE_DOCS=1`.

use std::fmt::Write;
use std::path::Path;

use crate::table::{Directive, GLOBAL, POOL, Value};

const INTRODUCTION: &str = "\
<!-- Generated from the directive table; run the tests with UPDATE_DOCS=1 to renew it. -->

# Configuration

The file is YAML: a mapping of pool names to mappings of directives. Every value is read as text, so
quotes change nothing; they are needed only where YAML gives a character a meaning, as in
`hash_tag: \"{}\"`. Numbers are decimal digits, booleans exactly `true` or `false`. Exactly one
directive of a pool, `servers`, is a list. A directive may be given once, except `servers`, whose
entries add up. `nutcracker -t -c FILE` checks a file and says where it is wrong, and why.

```yaml
alpha:
  listen: 127.0.0.1:22121
  redis: true
  hash: fnv1a_64
  distribution: ketama
  timeout: 400
  servers:
    - 127.0.0.1:6380:1 server1
    - 127.0.0.1:6381:1 server2
```

In the statistics, with `modula` and wherever else order counts, pools and servers are ordered by
the length of their name, then by its bytes, not as in the file. Flow style (`[a, b]`), `---` and
anchors may be used, and `<<` takes over what another mapping says, unless it is said again; tags
and more than one document are refused.
";

const POOL_INTRODUCTION: &str = "
## Directives of a pool

Directives marked * are not known to nutcracker 0.5.
";

const GLOBAL_INTRODUCTION: &str = "
## Settings of the process

A top-level key `global` holds them. If it has `listen` or `servers`, it is a pool of that name.
";

fn config_markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    text += POOL_INTRODUCTION;
    table(&mut text, POOL);
    text += GLOBAL_INTRODUCTION;
    table(&mut text, GLOBAL);
    text
}

fn table<T>(text: &mut String, directives: &[Directive<T>]) {
    text.push_str("\n| directive | value | default | meaning |\n|---|---|---|---|\n");
    for directive in directives {
        let Directive { name, help, .. } = directive;
        let star = if directive.new { " *" } else { "" };
        let value = form(&directive.value);
        let default = match directive.default {
            described if described.starts_with('(') => {
                described.trim_matches(['(', ')']).to_owned()
            }
            typed => format!("`{typed}`"),
        };
        writeln!(text, "| `{name}`{star} | {value} | {default} | {help} |").unwrap();
    }
}

fn form<T>(value: &Value<T>) -> String {
    match value {
        Value::Number { range, unit, .. } => {
            let (min, max) = (range.start(), range.end());
            let blank = if unit.is_empty() { "" } else { " " };
            format!("{min} to {max}{blank}{unit}")
        }
        Value::Bool { .. } => "`true` or `false`".to_owned(),
        Value::Word { words, .. } => format!("`{}`", words().join("` `")),
        Value::Text { form, .. } | Value::List { form, .. } => (*form).to_owned(),
    }
}

#[test]
fn the_manual_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md");
    let generated = config_markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == generated,
        "docs/config.md is stale: run these tests with UPDATE_DOCS=1"
    );
}
