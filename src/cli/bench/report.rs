//! What a scenario hands back: tables of figures, aligned for people and as JSON for programs, from one source.
//!
//! A figure that was measured several times is told as its median, with the least and the greatest beside it.

use serde_json::{Map, Value, json};

/// Least, median and greatest of what several runs measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Spread {
    /// None of nothing.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { min, median, max })
    }

    fn json(self) -> Value {
        json!({ "min": round(self.min), "median": round(self.median), "max": round(self.max) })
    }
}

/// The values below which these shares of all lie. The values are sorted in place.
pub(super) fn quantiles<const N: usize>(values: &mut [f64], shares: [f64; N]) -> [Option<f64>; N] {
    values.sort_by(f64::total_cmp);
    shares.map(|share| {
        let last = values.len().checked_sub(1)?;
        values.get(((values.len() as f64 * share) as usize).min(last)).copied()
    })
}

/// One thing that was measured, in one or several runs.
pub(super) struct Row {
    label: String,
    what: Map<String, Value>,
    figures: Vec<(&'static str, Vec<f64>)>,
}

impl Row {
    /// `what` tells programs, as `label` tells people, what the figures are of: an object.
    pub(super) fn new(label: impl Into<String>, what: Value) -> Self {
        let what = if let Value::Object(what) = what { what } else { Map::new() };
        Self { label: label.into(), what, figures: vec![] }
    }

    /// What one run measured. The unit is the end of the key's name.
    pub(super) fn add(&mut self, key: &'static str, value: f64) {
        match self.figures.iter_mut().find(|(existing, _)| *existing == key) {
            Some((_, values)) => values.push(value),
            None => self.figures.push((key, vec![value])),
        }
    }

    /// The same of what may not be measurable here.
    pub(super) fn add_known(&mut self, key: &'static str, value: Option<f64>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }

    pub(super) fn spread(&self, key: &str) -> Option<Spread> {
        self.figures.iter().find(|(existing, _)| *existing == key).and_then(|(_, values)| Spread::of(values))
    }

    fn json(&self) -> Value {
        let mut object = self.what.clone();
        for (key, values) in &self.figures {
            object.extend(Spread::of(values).map(|spread| ((*key).to_owned(), spread.json())));
        }
        Value::Object(object)
    }
}

/// A column of the table for people.
pub(super) struct Column {
    /// The figure it shows; the JSON has all of them.
    pub(super) key: &'static str,
    pub(super) heading: &'static str,
    pub(super) decimals: usize,
    /// Whether least and greatest are shown beside the median.
    pub(super) range: bool,
}

/// A column that shows the median alone.
pub(super) const fn column(key: &'static str, heading: &'static str, decimals: usize) -> Column {
    Column { key, heading, decimals, range: false }
}

/// A column that shows the spread too.
pub(super) const fn spread_column(key: &'static str, heading: &'static str, decimals: usize) -> Column {
    Column { key, heading, decimals, range: true }
}

/// Rows that are compared with each other.
pub(super) struct Table {
    /// The key of its rows in the JSON.
    pub(super) name: &'static str,
    /// Heading of the labels.
    pub(super) heading: &'static str,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
}

impl Table {
    /// Aligned: labels to the left, figures to the right. A column that no row has a figure for is left out.
    fn lines(&self) -> Vec<String> {
        let shown: Vec<&Column> =
            self.columns.iter().filter(|c| self.rows.iter().any(|row| row.spread(c.key).is_some())).collect();
        let head = std::iter::once(self.heading).chain(shown.iter().map(|c| c.heading)).map(str::to_owned).collect();
        let rows = self.rows.iter().map(|row| {
            let figures = shown.iter().map(|column| cell(row.spread(column.key), column));
            std::iter::once(row.label.clone()).chain(figures).collect()
        });
        aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
    }
}

fn cell(spread: Option<Spread>, column: &Column) -> String {
    let Some(Spread { min, median, max }) = spread else { return "-".into() };
    let decimals = column.decimals;
    if column.range && min < max {
        format!("{median:.decimals$} ({min:.decimals$} to {max:.decimals$})")
    } else {
        format!("{median:.decimals$}")
    }
}

/// The lines of a table of texts, the first of them its head.
fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|s| s.chars().count()).max();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, text)| {
            let width = width(column).unwrap_or_default();
            if column == 0 { format!("{text:<width$}") } else { format!("{text:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// What a scenario found.
#[derive(Default)]
pub(super) struct Report {
    pub(super) tables: Vec<Table>,
    /// What one must know to read the figures: what was left out, and why.
    pub(super) notes: Vec<String>,
}

impl Report {
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = vec![];
        for table in self.tables.iter().filter(|table| !table.rows.is_empty()) {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            lines.extend(table.lines());
        }
        lines.extend(self.notes.iter().map(|note| format!("* {note}")));
        lines
    }

    pub(super) fn json(&self) -> Value {
        let tables =
            self.tables.iter().map(|table| (table.name.to_owned(), table.rows.iter().map(Row::json).collect()));
        let notes = std::iter::once(("notes".to_owned(), json!(self.notes)));
        Value::Object(tables.chain(notes).collect())
    }
}

/// As many digits as mean something.
pub(super) fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_least_median_and_greatest_in_any_order() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0]), Some(Spread { min: 1.0, median: 2.5, max: 4.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let mut values: Vec<f64> = (0..1000).rev().map(f64::from).collect();
        assert_eq!(quantiles(&mut values, [0.5, 0.99, 0.999, 1.0]), [500.0, 990.0, 999.0, 999.0].map(Some));
        assert_eq!(quantiles(&mut [], [0.5]), [None]);
    }

    #[test]
    fn a_table_is_aligned_and_leaves_out_what_was_not_measured() {
        let mut row = Row::new("one", json!({ "n": 1 }));
        row.add("rate_per_s", 10.0);
        row.add("rate_per_s", 30.0);
        row.add_known("rss_mib", None);
        let columns = vec![spread_column("rate_per_s", "per s", 0), column("rss_mib", "RSS", 1)];
        let table = Table { name: "rows", heading: "", columns, rows: vec![row, Row::new("another", json!({}))] };
        let report = Report { tables: vec![table], notes: vec!["a note".into()] };
        assert_eq!(
            report.lines(),
            ["                 per s", "one      20 (10 to 30)", "another              -", "* a note"]
        );
        let rate = json!({ "min": 10.0, "median": 20.0, "max": 30.0 });
        assert_eq!(report.json(), json!({ "rows": [{ "n": 1, "rate_per_s": rate }, {}], "notes": ["a note"] }));
    }
}
