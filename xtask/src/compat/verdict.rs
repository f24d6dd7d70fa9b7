//! Verdicts on the differences between the two proxies, and the table of all of them.
//!
//! A difference is never forgiven by its size: either the case says beforehand which decision it
//! rests on and what ours answers exactly, or it is unexplained. A declared difference that is
//! gone counts as unexplained too, so that the declarations stay true.

use std::fmt::Write as _;

use twemproxy_testkit::wire::{difference, escape};

/// The relation that a case expects between the two responses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Expect {
    /// Byte for byte alike.
    Same,
    /// Ours says this, on purpose; the reason cites a D number of the compatibility page.
    Better(&'static str, Vec<u8>),
    /// Theirs shows a choice of the Debian package, and ours says this.
    Debian(&'static str, Vec<u8>),
}

impl Expect {
    /// Ours says `ours` because of `reason`.
    pub(super) fn better(reason: &'static str, ours: impl Into<Vec<u8>>) -> Self {
        Self::Better(reason, ours.into())
    }
}

/// One comparison.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) area: &'static str,
    pub(super) name: String,
    pub(super) expect: Expect,
    pub(super) theirs: Vec<u8>,
    pub(super) ours: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Same,
    Better,
    Debian,
    Different,
}

impl Cell {
    fn verdict(&self) -> Verdict {
        let alike = self.theirs == self.ours;
        if silent(&self.theirs) || silent(&self.ours) {
            return Verdict::Different;
        }
        match &self.expect {
            Expect::Same if alike => Verdict::Same,
            Expect::Better(_, wanted) if !alike && self.ours == *wanted => Verdict::Better,
            // Whether 0.5 gets its answer out before it closes (D12) is a race of its own.
            Expect::Better("D12", wanted) if alike && self.ours == *wanted => Verdict::Same,
            Expect::Debian(_, wanted) if !alike && self.ours == *wanted => Verdict::Debian,
            _ => Verdict::Different,
        }
    }

    fn reason(&self) -> &'static str {
        match self.expect {
            Expect::Same => "",
            Expect::Better(reason, _) | Expect::Debian(reason, _) => reason,
        }
    }

    /// Both sides of an unexplained difference.
    fn explain(&self) -> String {
        let mut text = format!("{}: {}\n", self.area, self.name);
        let declared = match &self.expect {
            Expect::Same => difference(&self.theirs, &self.ours),
            Expect::Better(reason, _) | Expect::Debian(reason, _) if self.theirs == self.ours => {
                format!("declared as different ({reason}), but both are alike")
            }
            Expect::Better(reason, wanted) | Expect::Debian(reason, wanted) => {
                let at = difference(wanted, &self.ours);
                format!("is not what {reason} says: {at}")
            }
        };
        write!(
            text,
            "  theirs {}\n  ours   {}\n  {declared}\n",
            escape(&self.theirs),
            escape(&self.ours)
        )
        .expect("a string takes everything");
        text
    }
}

/// Whether this is no answer of a proxy. Two that are alike would prove nothing.
fn silent(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    text.contains(NO_CONNECTION) || text.contains(DIED)
}

/// In the place of an answer: there was nobody to ask.
pub(super) const NO_CONNECTION: &str = "<no connection>";
/// In the place of an answer: the proxy had ended.
pub(super) const DIED: &str = "<the proxy died>";

/// Prints the table and every unexplained difference; whether there was none.
pub(super) fn report(cells: &[Cell], verbose: bool) -> bool {
    if verbose {
        for cell in cells {
            let (verdict, reason) = (cell.verdict(), cell.reason());
            println!("{:?} {reason} | {} | {}", verdict, cell.area, cell.name);
        }
    }
    println!("| area | cells | same | better on purpose | the Debian build's own | different |");
    println!("|---|---|---|---|---|---|");
    let mut areas: Vec<&str> = Vec::new();
    for cell in cells {
        if !areas.contains(&cell.area) {
            areas.push(cell.area);
        }
    }
    for area in &areas {
        row(
            area,
            &cells.iter().filter(|c| c.area == *area).collect::<Vec<_>>(),
        );
    }
    row("all", &cells.iter().collect::<Vec<_>>());
    let (races, lucky) = dead_fragments(cells);
    if races > 0 {
        println!(
            "\nIn {lucky} of the {races} cells of D12, 0.5 got its error out before it closed its client, as \
             ours always does: they count as the same. Which ones is a race within 0.5."
        );
    }
    let different = cells.iter().filter(|c| c.verdict() == Verdict::Different);
    let mut clean = true;
    for cell in different {
        clean = false;
        eprintln!("\nunexplained: {}", cell.explain());
    }
    clean
}

/// The cells of D12, and those of them where both sides are alike.
fn dead_fragments(cells: &[Cell]) -> (usize, usize) {
    let of_d12 = cells.iter().filter(|cell| cell.reason() == "D12");
    let lucky = of_d12.clone().filter(|cell| cell.theirs == cell.ours);
    (of_d12.count(), lucky.count())
}

fn row(area: &str, cells: &[&Cell]) {
    let count = |wanted| cells.iter().filter(|c| c.verdict() == wanted).count();
    let mut reasons: Vec<&str> = cells
        .iter()
        .filter(|c| c.verdict() == Verdict::Better)
        .map(|c| c.reason())
        .collect();
    reasons.sort_unstable_by_key(|reason| (reason.len(), *reason));
    reasons.dedup();
    let better = match reasons.is_empty() {
        true => "0".to_owned(),
        false => format!("{} ({})", count(Verdict::Better), reasons.join(" ")),
    };
    let different = count(Verdict::Different);
    println!(
        "| {area} | {} | {} | {better} | {} | {} |",
        cells.len(),
        count(Verdict::Same),
        count(Verdict::Debian),
        if different == 0 {
            String::new()
        } else {
            different.to_string()
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(expect: Expect, theirs: &str, ours: &str) -> Cell {
        Cell {
            area: "area",
            name: "name".to_owned(),
            expect,
            theirs: theirs.into(),
            ours: ours.into(),
        }
    }

    #[test]
    fn a_difference_needs_its_exact_declaration() {
        let better = Expect::better("D1", "b");
        assert_eq!(cell(Expect::Same, "a", "a").verdict(), Verdict::Same);
        assert_eq!(cell(Expect::Same, "a", "b").verdict(), Verdict::Different);
        assert_eq!(cell(better.clone(), "a", "b").verdict(), Verdict::Better);
        assert_eq!(cell(better, "a", "c").verdict(), Verdict::Different);
    }

    #[test]
    fn an_error_that_the_other_side_gets_out_in_time_is_the_same() {
        let cells = ["b", "a"].map(|theirs| cell(Expect::better("D12", "b"), theirs, "b"));
        assert_eq!(cells[0].verdict(), Verdict::Same);
        assert_eq!(cells[1].verdict(), Verdict::Better);
        assert_eq!(dead_fragments(&cells), (2, 1));
    }

    #[test]
    fn two_proxies_that_say_nothing_are_not_the_same() {
        let cell = cell(Expect::Same, NO_CONNECTION, NO_CONNECTION);
        assert_eq!(cell.verdict(), Verdict::Different);
    }

    #[test]
    fn a_declaration_that_is_no_longer_true_is_unexplained() {
        let cell = cell(Expect::better("D1", "a"), "a", "a");
        assert_eq!(cell.verdict(), Verdict::Different);
        assert!(cell.explain().contains("both are alike"));
    }
}
