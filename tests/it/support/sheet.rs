//! A committed table of counts, and what is said of one that is no longer what it was.
//!
//! Counts, not times: a busy machine counts the same. They are compared both ways: what has become dearer is to be
//! looked at, what has become cheaper is to be written down, or it would not be noticed when it is lost again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where something that the counts depend on is another than when they were written down, so many times the tolerance
/// holds. They are still compared: nobody would notice that the table is of no use any more.
const ELSEWHERE: f64 = 5.0;

/// Tests run beside each other, and each puts its own lines into the table.
static WRITING: Mutex<()> = Mutex::new(());

/// Counts by case; not a number where a case has none.
pub(crate) type Counts = BTreeMap<String, Vec<f64>>;

/// One column of the table.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    /// How far a count may be off, as a share,
    pub(crate) share: f64,
    /// and in all, where that is more.
    pub(crate) slack: f64,
}

/// The table.
pub(crate) struct Sheet {
    /// Below the repository's root.
    pub(crate) path: &'static str,
    pub(crate) title: &'static str,
    pub(crate) columns: &'static [Column],
    /// What the counts depend on besides this repository.
    pub(crate) made_with: String,
}

impl Sheet {
    /// Compares what was counted with the table. With `OUTBOXD_WRITE_COUNTS=1` puts it into the table.
    ///
    /// The error says what has changed, a line each.
    pub(crate) fn check(&self, counted: &Counts) -> Result<(), String> {
        if is_accepting() {
            let _turn = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
            let mut counts = self.read().filter(|(made_with, _)| *made_with == self.made_with).unwrap_or_default().1;
            counts.extend(counted.clone());
            self.write(&self.made_with, &counts);
            return Ok(());
        }
        let missing = || format!("there is no {}: make counts-accept writes it", self.path);
        let (made_with, table) = self.read().ok_or_else(missing)?;
        let changes = self.changes(counted, &made_with, &table);
        if changes.is_empty() {
            return Ok(());
        }
        let changes = changes.join("\n");
        Err(format!("{} says otherwise:\n{changes}\nmake counts-accept writes down what is counted now.", self.path))
    }

    /// The cases that the table lists must be these; what is no longer counted is taken out when counts are accepted.
    pub(crate) fn check_cases<'a>(&self, cases: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
        let _turn = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((made_with, mut table)) = self.read() else { return Err(format!("there is no {}", self.path)) };
        let cases: Vec<&str> = cases.into_iter().collect();
        let stale: Vec<String> = table.keys().filter(|case| !cases.contains(&case.as_str())).cloned().collect();
        if is_accepting() {
            table.retain(|case, _| !stale.contains(case));
            self.write(&made_with, &table);
            return Ok(());
        }
        if stale.is_empty() { Ok(()) } else { Err(format!("{} lists what nobody counts: {stale:?}", self.path)) }
    }

    /// What the table was made with, and its counts.
    pub(crate) fn read(&self) -> Option<(String, Counts)> {
        let text = std::fs::read_to_string(self.file()).ok()?;
        let made_with = text.lines().find_map(|line| line.strip_prefix("# made with: ")).unwrap_or_default().to_owned();
        let rows = text.lines().filter(|line| !line.starts_with('#')).skip(1);
        let counts = rows.filter_map(|row| {
            let mut fields = row.split('\t');
            let case = fields.next()?.to_owned();
            Some((case, fields.map(read_number).collect::<Option<_>>()?))
        });
        Some((made_with, counts.collect()))
    }

    /// A line for each count that differs from the table's.
    fn changes(&self, counted: &Counts, made_with: &str, table: &Counts) -> Vec<String> {
        let is_elsewhere = made_with != self.made_with;
        let patience = if is_elsewhere { ELSEWHERE } else { 1.0 };
        let mut changes = Vec::new();
        for (case, counts) in counted {
            let Some(known) = table.get(case).filter(|known| known.len() == counts.len()) else {
                changes.push(format!("{case}: not in the table"));
                continue;
            };
            for ((column, count), known) in self.columns.iter().zip(counts).zip(known) {
                let allowed = patience * (known * column.share).max(column.slack);
                let is_as_known = (count - known).abs() <= allowed || (count.is_nan() && known.is_nan());
                if !is_as_known {
                    let (name, percent) = (column.name, (count / known - 1.0) * 100.0);
                    let [count, known, allowed] = [*count, *known, allowed].map(number);
                    changes
                        .push(format!("{case}: {count} {name}, not {known} ({percent:+.1} %; {allowed} is let pass)"));
                }
            }
        }
        if is_elsewhere && !changes.is_empty() {
            let now = &self.made_with;
            changes.push(format!("counted with {now}, the table with {made_with}: only what differs much is said"));
        }
        changes
    }

    fn file(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(self.path)
    }

    fn write(&self, made_with: &str, counts: &Counts) {
        let columns: Vec<&str> = self.columns.iter().map(|column| column.name).collect();
        let head = format!("# {} make counts-accept writes it anew.\n# made with: {made_with}\ncase", self.title);
        let mut lines = vec![format!("{head}\t{}", columns.join("\t"))];
        for (case, counts) in counts {
            let counts: Vec<String> = counts.iter().map(|count| number(*count)).collect();
            lines.push(format!("{case}\t{}", counts.join("\t")));
        }
        let text = lines.join("\n") + "\n";
        std::fs::write(self.file(), text).unwrap_or_else(|error| panic!("{} cannot be written: {error}", self.path));
    }
}

/// Whether what is counted is to be the table.
fn is_accepting() -> bool {
    std::env::var_os("OUTBOXD_WRITE_COUNTS").is_some_and(|value| value == "1")
}

/// With two digits after the point, if it needs them.
fn number(count: f64) -> String {
    if count.is_nan() {
        return "-".into();
    }
    let text = format!("{count:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn read_number(text: &str) -> Option<f64> {
    if text == "-" { Some(f64::NAN) } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 2] =
        [Column { name: "buffers", share: 0.1, slack: 1.0 }, Column { name: "bytes", share: 0.1, slack: 0.0 }];

    fn counts(case: &str, counts: [f64; 2]) -> Counts {
        Counts::from([(case.to_owned(), counts.to_vec())])
    }

    /// What is said of these counts, where the table has those.
    fn said(counted: [f64; 2], made_with: &str, table: [f64; 2]) -> Vec<String> {
        let sheet = Sheet { path: "", title: "", columns: &COLUMNS, made_with: "this".into() };
        sheet.changes(&counts("case", counted), made_with, &counts("case", table))
    }

    #[test]
    fn a_count_counts_both_ways_from_its_tolerance_on() {
        assert!(said([110.0, 4.5], "this", [100.0, 5.0]).is_empty());
        assert!(said([3.0, 0.0], "this", [2.0, 0.0]).is_empty(), "the slack is more than the share");
        assert_eq!(
            said([111.0, 4.4], "this", [100.0, 5.0]),
            [
                "case: 111 buffers, not 100 (+11.0 %; 10 is let pass)",
                "case: 4.4 bytes, not 5 (-12.0 %; 0.5 is let pass)"
            ]
        );
        assert_eq!(said([0.0, 1.0], "this", [0.0, 0.0]).len(), 1);
    }

    #[test]
    fn what_has_no_count_must_have_none() {
        let none = f64::NAN;
        assert!(said([none, 5.0], "this", [none, 5.0]).is_empty());
        assert_eq!(said([7.0, none], "this", [none, 5.0]).len(), 2);
        let sheet = Sheet { path: "", title: "", columns: &COLUMNS, made_with: "this".into() };
        assert_eq!(sheet.changes(&counts("a", [1.0, 1.0]), "this", &counts("b", [1.0, 1.0])), ["a: not in the table"]);
    }

    #[test]
    fn elsewhere_only_what_differs_much_is_said() {
        assert!(said([149.0, 7.0], "that", [100.0, 5.0]).is_empty());
        let said = said([151.0, 5.0], "that", [100.0, 5.0]);
        assert_eq!(said.len(), 2);
        assert!(said[1].contains("counted with this, the table with that"), "{said:?}");
    }
}
