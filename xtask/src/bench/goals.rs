//! The goals that figures are held against, `bench/goals.txt`, and what people say about them, `bench/notes.txt`.

use super::cells::OURS;
use super::figures::{Figure, median};
use super::runs::Run;

/// One line of `bench/goals.txt`.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    pub(crate) title: String,
    pub(crate) cell: String,
    pub(crate) figure: Figure,
    pub(crate) against: Against,
    /// `None` if only the aim is stated.
    pub(crate) must: Option<f64>,
    pub(crate) aim: f64,
    /// What stands between us and the aim, by hand.
    pub(crate) note: Option<String>,
}

/// What our figure is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    /// Ours is so many times better than a peer's, at least.
    Peer(String),
    /// Ours under an added load is so many times what it is without, at most.
    Variant(String),
    /// It is so much, at most.
    Nothing,
}

/// How a goal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Aim,
    Must,
    /// There is no must.
    AimMissed,
    Missed,
    Unknown,
}

impl Standing {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Aim => "aim reached",
            Self::Must => "must reached",
            Self::AimMissed => "aim missed",
            Self::Missed => "**missed**",
            Self::Unknown => "not measured",
        }
    }
}

/// Reads the goals; `peers` and `variants` are the names that may stand in the column `against`.
pub(crate) fn parse(text: &str, peers: &[&str], variants: &[&str]) -> Result<Vec<Goal>, String> {
    lines(text)
        .map(|line| {
            parse_goal(line, peers, variants).ok_or_else(|| format!("a goal that is none: {line}"))
        })
        .collect()
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
}

fn parse_goal(line: &str, peers: &[&str], variants: &[&str]) -> Option<Goal> {
    let words: Vec<&str> = line.split('|').map(str::trim).collect();
    let [title, cell, figure, against, must, aim] = words.as_slice() else {
        return None;
    };
    Some(Goal {
        title: (*title).to_owned(),
        cell: (*cell).to_owned(),
        figure: Figure::named(figure)?,
        against: match *against {
            "-" => Against::Nothing,
            name if peers.contains(&name) => Against::Peer(name.to_owned()),
            name if variants.contains(&name) => Against::Variant(name.to_owned()),
            _ => return None,
        },
        must: if *must == "-" {
            None
        } else {
            Some(must.parse().ok()?)
        },
        aim: aim.parse().ok()?,
        note: None,
    })
}

/// Gives each goal its note: lines `title | against | note`.
pub(crate) fn annotate(goals: &mut [Goal], text: &str) -> Result<(), String> {
    for line in lines(text) {
        let words: Vec<&str> = line.splitn(3, '|').map(str::trim).collect();
        let goal = match words.as_slice() {
            [title, against, _] => goals
                .iter_mut()
                .find(|goal| goal.title == *title && goal.against.name() == *against),
            _ => None,
        };
        let goal = goal.ok_or_else(|| format!("a note on no goal: {line}"))?;
        goal.note = words.get(2).map(|note| (*note).to_owned());
    }
    Ok(())
}

impl Against {
    /// As in the file.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Peer(name) | Self::Variant(name) => name,
            Self::Nothing => "-",
        }
    }
}

impl Goal {
    /// The figure that is held against `must` and `aim`.
    pub(crate) fn measured(&self, runs: &[Run]) -> Option<f64> {
        match &self.against {
            Against::Peer(peer) => median(&self.figure.ratios(runs, &self.cell, peer)),
            Against::Variant(name) => median(&self.figure.ratios(runs, &self.cell, name)),
            Against::Nothing => self.figure.middle(runs, &self.cell, OURS),
        }
    }

    /// How much more pairs are wanted: first enough of them, then by how far they are apart around a limit.
    pub(crate) fn doubt(&self, runs: &[Run]) -> f64 {
        let values = match &self.against {
            Against::Peer(name) | Against::Variant(name) => {
                self.figure.ratios(runs, &self.cell, name)
            }
            Against::Nothing => self.figure.of(runs, &self.cell, OURS),
        };
        let pairs = u32::try_from(values.len()).map_or(f64::MAX, f64::from);
        if pairs < PAIRS_WANTED {
            return 100.0 + PAIRS_WANTED - pairs;
        }
        let low = values.iter().copied().fold(f64::MAX, f64::min);
        let high = values.iter().copied().fold(f64::MIN, f64::max);
        let spread = (high - low) / high.max(f64::MIN_POSITIVE);
        let is_open = |limit: f64| (low..=high).contains(&limit);
        let weight = match self.must {
            Some(must) if is_open(must) => 10.0,
            _ if is_open(self.aim) => 5.0,
            _ => 1.0,
        };
        weight * (0.05 + spread) / pairs
    }

    pub(crate) fn standing(&self, measured: Option<f64>) -> Standing {
        let Some(measured) = measured else {
            return Standing::Unknown;
        };
        let reached = |limit: f64| match self.against {
            Against::Peer(_) => measured >= limit,
            Against::Variant(_) | Against::Nothing => measured <= limit,
        };
        match self.must {
            _ if reached(self.aim) => Standing::Aim,
            None => Standing::AimMissed,
            Some(must) if reached(must) => Standing::Must,
            Some(_) => Standing::Missed,
        }
    }
}

/// Fewer say little about a median.
const PAIRS_WANTED: f64 = 5.0;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(cell: &'static str, candidate: &'static str, cpu: f64) -> Run {
        Run {
            cell,
            candidate,
            pair: 0,
            result: Ok(
                json!({ "proxy_cpu_us_per_request": cpu, "requests_per_second": 100.0 * cpu }),
            ),
            verdict: super::super::runs::Verdict::Counted,
        }
    }

    const TEXT: &str = "\
# x
faster | a | cpu | nutcracker | 1.5 | 3
more   | a | rate | nutcracker | 0.4 | 1
flat   | a | cpu | busy | 1.05 | 1.0
small  | a | cpu | - | 0.5 | 0.2
wish   | a | cpu | - | - | 0.2
";

    #[test]
    fn a_goal_against_a_peer_is_a_least_and_any_other_a_most() {
        let goals = parse(TEXT, &["nutcracker"], &["busy"]).expect("good goals");
        let runs = [
            run("a", "ours", 1.0),
            run("a", "nutcracker", 2.0),
            run("a", "busy", 1.02),
        ];
        let standings: Vec<Standing> = goals
            .iter()
            .map(|goal| goal.standing(goal.measured(&runs)))
            .collect();
        assert_eq!(
            standings,
            [
                Standing::Must,
                Standing::Must,
                Standing::Must,
                Standing::Missed,
                Standing::AimMissed
            ]
        );
        assert_eq!(goals[0].standing(None), Standing::Unknown);
        assert!(parse("a | b\n", &[], &[]).is_err());
        assert!(parse("a | b | cpu | nobody | 1 | 2\n", &["x"], &["y"]).is_err());
    }

    #[test]
    fn a_goal_wants_more_pairs_while_they_are_few_or_around_its_limit() {
        let goals = parse("x | a | cpu | nutcracker | 2 | 9\n", &["nutcracker"], &[]);
        let goal = goals.expect("a good goal").remove(0);
        let runs = |count: u32, low: f64, high: f64| -> Vec<Run> {
            let pairs = (0..count).flat_map(|pair| {
                let theirs = if pair % 2 == 0 { low } else { high };
                [run("a", "ours", 1.0), run("a", "nutcracker", theirs)]
                    .map(|run| Run { pair, ..run })
            });
            pairs.collect()
        };
        let few = goal.doubt(&runs(2, 3.0, 3.0));
        let open = goal.doubt(&runs(6, 1.5, 2.5));
        let wide = goal.doubt(&runs(6, 2.5, 3.5));
        let narrow = goal.doubt(&runs(6, 2.9, 3.0));
        assert!(few > open && open > wide && wide > narrow);
        assert!(open > goal.doubt(&runs(12, 1.5, 2.5)), "it ends");
    }

    #[test]
    fn a_note_belongs_to_one_goal_and_a_stale_one_is_noticed() {
        let mut goals = parse(TEXT, &["nutcracker"], &["busy"]).expect("good goals");
        let notes = "# why\nfaster | nutcracker | the kernel | and more\n";
        annotate(&mut goals, notes).expect("a good note");
        assert_eq!(goals[0].note.as_deref(), Some("the kernel | and more"));
        assert_eq!(goals[1].note, None);
        assert!(annotate(&mut goals, "faster | envoy | x\n").is_err());
    }
}
