//! The report: what was tried, what it came to, and how long recovery took.

use crate::run::Outcome;
use crate::run::plan::{Kind, Order};
use crate::scenarios::Scenarios;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// All runs so far.
pub(crate) struct Report {
    directory: PathBuf,
    /// Of what it is.
    heading: String,
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
    /// There was nobody whom it could befall.
    in_vain: usize,
    /// Accepted twice, and it may be why.
    explains: usize,
    recovered: Recovery,
}

/// How long recoveries took.
#[derive(Default)]
pub(crate) struct Recovery(Vec<Duration>);

impl Recovery {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The median and the worst, as two cells of a table.
    pub(crate) fn cells(&self) -> String {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        match (sorted.get(sorted.len() / 2), sorted.last()) {
            (Some(median), Some(worst)) => format!("{} ms | {} ms", median.as_millis(), worst.as_millis()),
            _ => "|".to_owned(),
        }
    }
}

impl Report {
    pub(crate) fn new(directory: &Path, heading: String) -> Self {
        let kinds =
            Kind::ALL.map(|kind| OfKind { kind, count: 0, in_vain: 0, explains: 0, recovered: Recovery::default() });
        Self {
            directory: directory.to_owned(),
            heading,
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
                of_kind.in_vain += usize::from(!fault.had_effect);
                fault.recovered.into_iter().for_each(|took| of_kind.recovered.add(took));
            }
            of_kind.explains += verdict.explained_by.get(&of_kind.kind).copied().unwrap_or_default();
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

    /// What `make faults` runs besides, and what has left no word here.
    pub(crate) fn lacks() -> Vec<&'static str> {
        let mut lacks = Scenarios::of(&Self::said("scenarios.txt")).missing();
        lacks.extend(Self::said("model.txt").is_empty().then_some("the model"));
        lacks
    }

    /// What others have left for the report, always in one place.
    fn said(file: &str) -> String {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/faults");
        std::fs::read_to_string(directory.join(file)).unwrap_or_default()
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
            "# Faults\n\n{}\n\n{} runs ({} with one fault after the other, the others with several at once) in {} s, {} faults\n\n",
            self.heading,
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
        text.push_str("\n| fault | times | in vain | may explain of those twice | measured | recovery, median | worst |\n|---|---|---|---|---|---|---|\n");
        for of_kind in &self.kinds {
            let (name, measured, recovery) =
                (of_kind.kind.name(), of_kind.recovered.count(), of_kind.recovered.cells());
            let (count, in_vain, explains) = (of_kind.count, of_kind.in_vain, of_kind.explains);
            let _ = writeln!(text, "| {name} | {count} | {in_vain} | {explains} | {measured} | {recovery} |");
        }
        text.push_str("\nRecovery: from the end of a fault (of a killed relay or server: when it is started again) until everything committed by then had arrived everywhere; measured where one came after the other. In vain: there was nobody whom it could befall.\n");
        if !self.failed.is_empty() {
            let _ =
                writeln!(text, "\nSomething was wrong in the runs of the seeds {:?}: see report.json.", self.failed);
        }
        let (model, scenarios) = (Self::said("model.txt"), Self::said("scenarios.txt"));
        if !model.is_empty() {
            text.push_str("\n## The model\n\n");
            model.lines().for_each(|line| drop(writeln!(text, "- {line}")));
        }
        if !scenarios.is_empty() {
            let _ = write!(text, "\n## Single scenarios\n\n{}", Scenarios::of(&scenarios).table());
        }
        text
    }
}
