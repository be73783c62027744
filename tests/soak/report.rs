//! The verdict, as text, JSON and a picture.

use crate::SoakError;
use crate::chart;
use crate::demands::{DEMANDS, marks, panels};
use crate::flat::{Judged, judge, median};
use crate::injector::Kept;
use crate::ledger::{Happened, Tally};
use crate::options::Options;
use crate::sampler::{Sample, is_calm};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::sync::atomic::Ordering;

/// All there is to tell.
pub(crate) struct Run {
    pub(crate) options: Options,
    pub(crate) samples: Vec<Sample>,
    pub(crate) faults: Vec<Happened>,
    pub(crate) tally: Tally,
    pub(crate) kept: std::sync::Arc<Kept>,
    pub(crate) warnings: Warnings,
    /// What is wrong besides, a sentence each.
    pub(crate) wrong: Vec<String>,
    /// How long the rest took to arrive after the last event was written, and to leave the queue.
    pub(crate) arrived_s: f64,
    pub(crate) emptied_s: f64,
}

/// What relays warned of: how often, and how often beside faults.
pub(crate) type Warnings = BTreeMap<String, (u64, u64)>;

impl Run {
    fn judged(&self) -> Vec<Judged> {
        let (from, to) = (self.options.warm_up, self.options.minutes * 60.0);
        let mut before = 0.0;
        let mut is_calm_at = vec![];
        for sample in &self.samples {
            is_calm_at.push(is_calm(&self.faults, before, sample.at_s));
            before = sample.at_s;
        }
        let points = |figure: &str, calm: bool| -> Vec<(f64, f64)> {
            let judged = self.samples.iter().zip(&is_calm_at).filter(|(_, is_calm)| !calm || **is_calm);
            judged.filter_map(|(sample, _)| Some((sample.at_s, *sample.figures.get(figure)?))).collect()
        };
        DEMANDS.iter().map(|demand| judge(demand, &points(demand.figure, demand.calm), from, to)).collect()
    }

    /// What is lost, too much, or left behind.
    fn violations(&self) -> Vec<String> {
        let tally = &self.tally;
        let unaccounted = self.kept.unaccounted.load(Ordering::Relaxed);
        let mut wrong = self.wrong.clone();
        let mut must_not = |count: u64, what: &str| {
            if count > 0 {
                wrong.push(format!("{count} {what}"));
            }
        };
        must_not(tally.missing, "deliveries of committed events are missing");
        must_not(tally.undone_but_sent, "events were sent that were rolled back");
        must_not(tally.strangers, "requests came that nobody was to send");
        must_not(tally.unverified, "requests came whose signature is wrong");
        must_not(tally.open, "events have an unknown fate");
        must_not(tally.unexplained_duplicates, "duplicates have no fault near them");
        must_not(unaccounted, "rows were in outbox.unaccounted()");
        if self.kept.dropped.load(Ordering::Relaxed) == 0 {
            wrong.push("no segment was dropped: the run is too short for its retention".to_owned());
        }
        wrong.extend(tally.unexplained.iter().map(|one| format!("duplicate at {one}")));
        wrong
    }

    /// Writes the reports; the text, and whether all is well.
    pub(crate) fn write(&self) -> Result<(String, bool), SoakError> {
        let (judged, violations) = (self.judged(), self.violations());
        let is_good = violations.is_empty() && judged.iter().all(|judged| judged.flat);
        let out = &self.options.out;
        let heading = format!(
            "Soak: {} events/s for {} min, {} relays, {} faults, seed {}",
            self.options.rate,
            self.options.minutes,
            self.options.relays,
            self.faults.len(),
            self.options.seed
        );
        let during: Vec<Sample> =
            self.samples.iter().filter(|sample| sample.at_s <= self.options.minutes * 60.0).cloned().collect();
        let panels = panels(&during, self.options.relays);
        let (warm_up, minutes) = (self.options.warm_up / 60.0, self.options.minutes);
        fs::write(out.join("chart.svg"), chart::draw(&heading, &panels, &marks(&self.faults), warm_up, minutes))?;
        let text = self.text(&heading, &judged, &violations);
        fs::write(out.join("report.md"), &text)?;
        let faults: Vec<_> = self.faults.iter().map(|fault| json!({
            "kind": fault.kind.name(), "at_s": fault.began_s(), "over_s": fault.over_s(), "slowest_ms": fault.slowest_ms(),
        })).collect();
        let value = json!({
            "options": self.options, "verdict": is_good, "violations": violations, "judged": judged, "tally": self.tally,
            "faults": faults, "warnings": self.warnings, "samples": self.samples,
        });
        fs::write(out.join("report.json"), serde_json::to_vec(&value)?)?;
        Ok((text, is_good))
    }

    fn text(&self, heading: &str, judged: &[Judged], violations: &[String]) -> String {
        let mut text = format!("# {heading}\n\n");
        let _ = if violations.is_empty() {
            writeln!(text, "Nothing lost, nothing too much, nothing left behind.\n")
        } else {
            writeln!(text, "**Wrong:**\n\n- {}\n", violations.join("\n- "))
        };
        self.books(&mut text);
        self.table_of_faults(&mut text);
        let _ = writeln!(
            text,
            "## Flat?\n\nMedians of the first and the last quarter of what came after the first {:.0} s; the trend is Theil and Sen's, over all of \
             it. Latency, rates, backlog and CPU without the samples in or shortly after a kill or crash.{}\n",
            self.options.warm_up,
            if cfg!(debug_assertions) { " A debug build." } else { "" }
        );
        text.push_str("| what | first quarter | last quarter | change | may grow | trend an hour | flat? |\n|---|--:|--:|--:|--:|--:|---|\n");
        for judged in judged {
            let change = judged.first.zip(judged.last).map(|(first, last)| last - first);
            let unit = if judged.unit.is_empty() { String::new() } else { format!(", {}", judged.unit) };
            let flat = match (judged.flat, change) {
                (true, _) => "yes",
                (false, Some(_)) => "**no**",
                (false, None) => "**too few samples**",
            };
            let _ = writeln!(
                text,
                "| {}{unit} | {} | {} | {} | {} | {} | {flat} |",
                judged.what,
                figure(judged.first),
                figure(judged.last),
                signed(change),
                figure(Some(judged.allowed)),
                signed(judged.per_hour)
            );
        }
        text.push_str("\n![chart](chart.svg)\n");
        if !self.warnings.is_empty() {
            text.push_str(
                "\n## What the relays warned of\n\n| message | times | of these beside faults |\n|---|--:|--:|\n",
            );
            for (message, (times, calm)) in &self.warnings {
                let _ = writeln!(text, "| {message} | {times} | {calm} |");
            }
        }
        text
    }

    fn books(&self, text: &mut String) {
        let (tally, kept) = (&self.tally, &self.kept);
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let rows = [
            ("events written", tally.written.to_string()),
            ("committed, rolled back", format!("{}, {}", tally.committed, tally.rolled_back)),
            ("deliveries expected, missing", format!("{}, {}", tally.expected, tally.missing)),
            ("rolled back and yet sent", tally.undone_but_sent.to_string()),
            (
                "accepted more than once, without a fault near it",
                format!("{}, {}", tally.duplicates, tally.unexplained_duplicates),
            ),
            (
                "`outbox.unaccounted()`: asked, rows, longest",
                format!("{}, {}, {} ms", load(&kept.audits), load(&kept.unaccounted), load(&kept.audit_ms)),
            ),
            (
                "relays that ended by themselves, the server being away, and were started again",
                kept.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len().to_string(),
            ),
            ("segments dropped", load(&kept.dropped).to_string()),
            (
                "after the last event: all arrived, queue empty",
                format!("{:.1} s, {:.1} s", self.arrived_s, self.emptied_s),
            ),
        ];
        text.push_str("## The books\n\n| | |\n|---|--:|\n");
        let postponed = kept.postponed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let put_off = postponed.iter().map(|(why, times)| (format!("put off: {why}"), times.to_string()));
        for (what, value) in rows.into_iter().map(|(what, value)| (what.to_owned(), value)).chain(put_off) {
            let _ = writeln!(text, "| {what} | {value} |");
        }
    }

    fn table_of_faults(&self, text: &mut String) {
        text.push_str("\n## Faults\n\nThe slowest delivery that each explains, from commit to receipt.\n\n");
        text.push_str("| fault | times | median ms | worst ms |\n|---|--:|--:|--:|\n");
        let mut kinds: BTreeMap<&str, (usize, Vec<f64>)> = BTreeMap::new();
        for fault in &self.faults {
            let (times, slowest) = kinds.entry(fault.kind.name()).or_default();
            *times += 1;
            if fault.kind.disturbs() {
                slowest.push(fault.slowest_ms());
            }
        }
        for (kind, (times, slowest)) in kinds {
            let worst = slowest.iter().copied().reduce(f64::max);
            let _ = writeln!(text, "| {kind} | {times} | {} | {} |", figure(median(slowest)), figure(worst));
        }
        text.push('\n');
    }
}

fn figure(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn signed(value: Option<f64>) -> String {
    let sign = if value.is_some_and(|value| value > 0.0) { "+" } else { "" };
    format!("{sign}{}", figure(value))
}
