//! What the single scenarios left in `target/faults/scenarios.txt`, one line each time they ran, as one table.

use crate::report::Recovery;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

/// What `make faults` runs beside the seeds. Where one of them left no line, the report is not whole.
const EXPECTED: [&str; 20] = [
    "clone",
    "crash-point",
    "files-exhausted",
    "max-connections",
    "pgbouncer-killed",
    "pgbouncer-of-listen-url-killed",
    "pgbouncer-reconnect",
    "pgbouncers-killed",
    "point-in-time",
    "postgres-crash",
    "primary-frozen",
    "promotion-async",
    "promotion-async-load",
    "promotion-sync",
    "role-connection-limit",
    "role-timeouts",
    "segment-uncut",
    "sequence-end",
    "standby-promoted",
    "upgrade",
];

/// Everything that is known of one scenario.
#[derive(Default)]
struct Scenario {
    recovered: Recovery,
    events: u64,
    lost: u64,
    twice: u64,
    remarks: BTreeSet<String>,
}

/// All that the lines tell.
#[derive(Default)]
pub(crate) struct Scenarios {
    by_name: BTreeMap<String, Scenario>,
    /// What was not to be had here, and what could not be read.
    besides: BTreeSet<String>,
}

impl Scenarios {
    pub(crate) fn of(lines: &str) -> Self {
        let mut scenarios = Self::default();
        for line in lines.lines() {
            match line.strip_prefix("fault ").and_then(|line| line.split_once(": ")) {
                Some((name, said)) => scenarios.by_name.entry(name.to_owned()).or_default().add(said),
                None => drop(scenarios.besides.insert(line.to_owned())),
            }
        }
        scenarios
    }

    /// Those that are expected and left no line. A name stands for all that begin with it and a blank.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let is_there = |expected: &str| {
            self.by_name.keys().any(|name| name == expected || name.starts_with(&format!("{expected} ")))
        };
        EXPECTED.into_iter().filter(|expected| !is_there(expected)).collect()
    }

    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| scenario | times | recovery, median | worst | events | lost | sent twice | |\n|---|---|---|---|---|---|---|---|\n",
        );
        for (name, of) in &self.by_name {
            let remarks = of.remarks.iter().map(String::as_str).collect::<Vec<_>>().join("; ");
            let (times, recovery) = (of.recovered.count(), of.recovered.cells());
            let _ = writeln!(
                text,
                "| {name} | {times} | {recovery} | {} | {} | {} | {remarks} |",
                of.events, of.lost, of.twice
            );
        }
        for line in &self.besides {
            let _ = write!(text, "\n- {line}");
        }
        text
    }
}

impl Scenario {
    /// `recovered in 354 ms, 6 events, 0 lost, 1 sent twice`, and whatever else is to be said.
    fn add(&mut self, said: &str) {
        for part in said.split(", ") {
            let number = part.split(' ').find_map(|word| word.parse::<u64>().ok()).unwrap_or_default();
            match part {
                _ if part.starts_with("recovered in ") => self.recovered.add(Duration::from_millis(number)),
                _ if part.ends_with(" events") => self.events += number,
                _ if part.split(' ').nth(1) == Some("lost") => {
                    self.lost += number;
                    self.remarks.extend(part.split_once(" lost ").map(|(_, how)| format!("lost {how}")));
                }
                _ if part.ends_with(" sent twice") => self.twice += number,
                _ => drop(self.remarks.insert(part.to_owned())),
            }
        }
    }
}
