//! Whether a series is flat: the last quarter beside the first, and the trend over all of it. Pure.

/// What is asked of a series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    pub(crate) what: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) unit: &'static str,
    /// What lies within a fault, or shortly after, does not count.
    pub(crate) calm: bool,
    /// It may grow by this share of the first quarter ...
    pub(crate) share: f64,
    /// ... or by so much, whichever is more.
    pub(crate) amount: f64,
    /// Less is as wrong as more.
    pub(crate) both: bool,
}

/// A series judged.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Judged {
    pub(crate) what: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) unit: &'static str,
    /// Medians; none if there were too few samples.
    pub(crate) first: Option<f64>,
    pub(crate) last: Option<f64>,
    /// Theil and Sen's, an hour.
    pub(crate) per_hour: Option<f64>,
    pub(crate) allowed: f64,
    pub(crate) flat: bool,
}

/// Fewer in a quarter say nothing.
pub(crate) const LEAST: usize = 3;
/// The trend looks at pairs: of more points than these, some are left out.
const MOST: usize = 600;

/// Judges points (seconds, value), in order of time, that lie between `from` and `to`.
pub(crate) fn judge(demand: &Demand, points: &[(f64, f64)], from: f64, to: f64) -> Judged {
    let quarter = (to - from) / 4.0;
    let within = |low: f64, high: f64| -> Vec<f64> {
        points.iter().filter(|(at, _)| *at >= low && *at <= high).map(|(_, value)| *value).collect()
    };
    let of_many = |values: Vec<f64>| if values.len() < LEAST { None } else { median(values) };
    let (first, last) = (of_many(within(from, from + quarter)), of_many(within(to - quarter, to)));
    let judged: Vec<(f64, f64)> = points.iter().filter(|(at, _)| *at >= from && *at <= to).copied().collect();
    let allowed = (demand.share * first.unwrap_or(0.0).abs()).max(demand.amount);
    let change = first.zip(last).map(|(first, last)| last - first);
    Judged {
        what: demand.what,
        figure: demand.figure,
        unit: demand.unit,
        first,
        last,
        per_hour: slope(&judged).map(|per_s| per_s * 3600.0),
        allowed,
        flat: change.is_some_and(|change| change <= allowed && (!demand.both || change >= -allowed)),
    }
}

/// The middle value, or the mean of the two in the middle; none of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Theil and Sen's slope: the median of the slopes of all pairs, which a few wild points do not move.
pub(crate) fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let step = points.len().div_ceil(MOST).max(1);
    let points: Vec<(f64, f64)> = points.iter().step_by(step).copied().collect();
    let mut slopes = vec![];
    for (nth, (at, value)) in points.iter().enumerate() {
        slopes.extend(points[nth + 1..].iter().filter(|(later, _)| later > at).map(|(l, v)| (v - value) / (l - at)));
    }
    median(slopes)
}
