//! What came out of a harness.

use std::collections::BTreeMap;
use std::fmt;

/// Most violations that are printed; all are counted.
const PRINTED_MAX: usize = 50;

/// What came out of a harness.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Faults that were made and whose outcome was checked.
    pub executed: usize,
    /// What cannot run on this machine, with the reason.
    pub skipped: Vec<String>,
    /// What the store did that it promises not to do, in words.
    pub violations: Vec<String>,
    /// The harness's own counts, by name.
    pub counts: BTreeMap<String, usize>,
}

impl Report {
    /// A run that could not happen at all.
    pub fn skipped(reason: impl Into<String>) -> Self {
        Self { skipped: vec![reason.into()], ..Self::default() }
    }

    /// Adds to one of the harness's own counts.
    pub fn count(&mut self, name: &str, more: usize) {
        *self.counts.entry(name.to_owned()).or_default() += more;
    }

    /// Adds another run's outcome.
    pub fn merge(&mut self, other: Self) {
        self.executed += other.executed;
        self.skipped.extend(other.skipped);
        self.violations.extend(other.violations);
        for (name, more) in other.counts {
            self.count(&name, more);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in &self.counts {
            writeln!(f, "{count:>9}  {name}")?;
        }
        for reason in &self.skipped {
            writeln!(f, "SKIPPED: {reason}")?;
        }
        for violation in self.violations.iter().take(PRINTED_MAX) {
            writeln!(f, "VIOLATION: {violation}")?;
        }
        let (executed, violations) = (self.executed, self.violations.len());
        write!(f, "{executed} faults executed, {violations} violations")
    }
}
