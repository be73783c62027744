//! The report: what was tried, what it came to, and how long recovery took.

use crate::run::Outcome;
use crate::run::plan::{Kind, Order};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// All runs so far.
pub(crate) struct Report {
    directory: PathBuf,
    began: Instant,
    runs: Vec<Value>,
    totals: Totals,
    kinds: Vec<OfKind>,
    failed: Vec<u64>,
}

#[derive(Default)]
struct Totals {
    in_turn: usize,
    events: usize,
    rolled_back: usize,
    unknown: usize,
    deliveries: usize,
    requests: usize,
    lost: usize,
    duplicates: usize,
    unexplained: usize,
    problems: usize,
}

struct OfKind {
    kind: Kind,
    count: usize,
    recovered: Vec<Duration>,
}

impl OfKind {
    /// The median and the worst.
    fn recovery(&self) -> Option<(Duration, Duration)> {
        let mut sorted = self.recovered.clone();
        sorted.sort_unstable();
        Some((*sorted.get(sorted.len() / 2)?, *sorted.last()?))
    }
}

impl Report {
    pub(crate) fn new(directory: &Path) -> Self {
        let kinds = Kind::ALL.map(|kind| OfKind { kind, count: 0, recovered: Vec::new() });
        Self {
            directory: directory.to_owned(),
            began: Instant::now(),
            runs: Vec::new(),
            totals: Totals::default(),
            kinds: kinds.into(),
            failed: Vec::new(),
        }
    }

    /// Takes a run in; a line that says what it came to. What its relays logged is kept if something was wrong.
    pub(crate) fn add(&mut self, outcome: &Outcome) -> String {
        let (verdict, seed) = (&outcome.verdict, outcome.plan.seed);
        let totals = &mut self.totals;
        totals.in_turn += usize::from(outcome.plan.order == Order::InTurn);
        totals.events += verdict.events;
        totals.rolled_back += verdict.rolled_back;
        totals.unknown += verdict.unknown;
        totals.deliveries += verdict.deliveries;
        totals.requests += verdict.requests;
        totals.lost += verdict.lost;
        totals.duplicates += verdict.duplicates;
        totals.unexplained += verdict.unexplained;
        totals.problems += verdict.problems.len();
        for of_kind in &mut self.kinds {
            for fault in outcome.happened.iter().filter(|fault| fault.kind == of_kind.kind) {
                of_kind.count += 1;
                of_kind.recovered.extend(fault.recovered);
            }
        }
        let kinds: Vec<&str> = outcome.happened.iter().map(|fault| fault.kind.name()).collect();
        self.runs.push(json!({
            "seed": seed, "in_turn": outcome.plan.order == Order::InTurn, "faults": kinds, "events": verdict.events,
            "deliveries": verdict.deliveries, "requests": verdict.requests, "lost": verdict.lost,
            "duplicates": verdict.duplicates, "unexplained": verdict.unexplained, "problems": verdict.problems,
        }));
        let mut line = format!(
            "seed {seed}: {} events, {} deliveries, {} lost, {} twice ({} unexplained); {}",
            verdict.events,
            verdict.deliveries,
            verdict.lost,
            verdict.duplicates,
            verdict.unexplained,
            kinds.join(", ")
        );
        if !verdict.problems.is_empty() {
            self.failed.push(seed);
            for problem in verdict.problems.iter().take(10) {
                let _ = write!(line, "\n    WRONG: {problem}");
            }
            let kept = self.directory.join(format!("seed-{seed}.log"));
            let _ = std::fs::create_dir_all(&self.directory);
            match std::fs::write(&kept, outcome.logs.join("\n--- the next relay ---\n")) {
                Ok(()) => line.push_str(&format!("\n    the relays' logs: {}", kept.display())),
                Err(error) => line.push_str(&format!("\n    the relays' logs could not be kept: {error}")),
            }
        }
        line
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.failed.is_empty()
    }

    /// Writes `report.md` and `report.json`; the former's text. What the model and the single scenarios said in their
    /// last runs is added.
    pub(crate) fn write(&self) -> std::io::Result<String> {
        std::fs::create_dir_all(&self.directory)?;
        let text = self.text();
        std::fs::write(self.directory.join("report.md"), &text)?;
        std::fs::write(self.directory.join("report.json"), serde_json::to_string_pretty(&self.runs)?)?;
        Ok(text)
    }

    fn text(&self) -> String {
        let t = &self.totals;
        let mut text = format!(
            "# Faults\n\n{} runs ({} with one fault after the other, the others with several at once) in {} s, {} faults\n\n",
            self.runs.len(),
            t.in_turn,
            self.began.elapsed().as_secs(),
            self.kinds.iter().map(|of_kind| of_kind.count).sum::<usize>()
        );
        for (what, count) in [
            ("events committed", t.events),
            ("rolled back", t.rolled_back),
            ("the answer to whose commit was lost", t.unknown),
            ("deliveries", t.deliveries),
            ("requests", t.requests),
            ("**lost**", t.lost),
            ("accepted twice", t.duplicates),
            ("**of those unexplained**", t.unexplained),
            ("anything else that was wrong", t.problems - t.lost - t.unexplained),
        ] {
            let _ = writeln!(text, "- {what}: {count}");
        }
        text.push_str("\n| fault | times | recovery, median | worst |\n|---|---|---|---|\n");
        for of_kind in &self.kinds {
            let times = of_kind.recovery().map_or_else(
                || "| | |".to_owned(),
                |(median, worst)| format!("| {} ms | {} ms |", median.as_millis(), worst.as_millis()),
            );
            let _ = writeln!(text, "| {} | {} {times}", of_kind.kind.name(), of_kind.count);
        }
        text.push_str("\nRecovery: from the end of a fault until everything committed by then had arrived everywhere; measured where one came after the other.\n");
        if !self.failed.is_empty() {
            let _ =
                writeln!(text, "\nSomething was wrong in the runs of the seeds {:?}: see report.json.", self.failed);
        }
        for (title, file) in [("The model", "model.txt"), ("Single scenarios", "scenarios.txt")] {
            if let Ok(lines) = std::fs::read_to_string(self.directory.join(file)) {
                let _ = write!(text, "\n## {title}\n\n");
                for line in lines.lines() {
                    let _ = writeln!(text, "- {line}");
                }
            }
        }
        text
    }
}
