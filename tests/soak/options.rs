//! What can be chosen, and what follows from it.

use std::path::PathBuf;
use std::str::FromStr;

/// What can be chosen.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Options {
    pub(crate) minutes: f64,
    pub(crate) rate: f64,
    pub(crate) relays: usize,
    pub(crate) kill_every: f64,
    pub(crate) hold_every: f64,
    pub(crate) restarts: u32,
    pub(crate) sample_every: f64,
    pub(crate) segment: f64,
    pub(crate) retention: f64,
    pub(crate) warm_up: f64,
    pub(crate) seed: u64,
    pub(crate) out: PathBuf,
}

impl Options {
    pub(crate) const USAGE: &str = "--minutes N       how long writers write (60)
--rate N          events a second (200)
--relays N        of which the first is never killed, so that it can grow old (3)
--kill-every S    SIGKILL of one of the other relays about every so many seconds; 0: never (30)
--restarts N      crashes of PostgreSQL after the first, which comes before anything is judged; each is recovered
                  from at once (one in 15 minutes, two at least)
--hold-every S    somebody's long transaction about every so many seconds; 0: never (60)
--sample-every S  (5; fewer in a short run)
--segment S       a segment of the log is cut after so many seconds (a fortieth of the run, a minute at most)
--retention S     and dropped so long after (a twentieth of the run, five minutes at most)
--warm-up S       what comes before is not judged (until the first segments were dropped)
--seed N          repeats the schedule of faults and events of another run
--out DIR         where report.md, report.json and chart.svg go (target/soak)";

    /// Beyond this the ledger's clock would run over.
    const LONGEST_MINUTES: f64 = 48.0 * 60.0;

    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let (mut minutes, mut rate, mut relays, mut seed) = (60.0, 200.0, 3, None);
        let (mut kill_every, mut hold_every, mut restarts) = (30.0, 60.0, None);
        let (mut sample_every, mut segment, mut retention, mut warm_up) = (None, None, None, None);
        let mut out = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/soak");
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("unknown, or without its value: {name}"))?;
            match name.as_str() {
                "--minutes" => minutes = number(name, value)?,
                "--rate" => rate = number(name, value)?,
                "--relays" => relays = number(name, value)?,
                "--kill-every" => kill_every = number(name, value)?,
                "--hold-every" => hold_every = number(name, value)?,
                "--restarts" => restarts = Some(number(name, value)?),
                "--sample-every" => sample_every = Some(number(name, value)?),
                "--segment" => segment = Some(number(name, value)?),
                "--retention" => retention = Some(number(name, value)?),
                "--warm-up" => warm_up = Some(number(name, value)?),
                "--seed" => seed = Some(number(name, value)?),
                "--out" => out = PathBuf::from(value),
                other => return Err(format!("unknown: {other}")),
            }
        }
        let seconds: f64 = minutes * 60.0;
        let segment = segment.unwrap_or((seconds / 40.0).clamp(2.0, 60.0));
        let retention = retention.unwrap_or((seconds / 20.0).clamp(4.0, 300.0));
        let options = Self {
            minutes,
            rate,
            relays,
            kill_every,
            hold_every,
            restarts: restarts.unwrap_or((minutes / 15.0).max(2.0) as u32),
            sample_every: sample_every.unwrap_or((seconds / 60.0).clamp(1.0, 5.0)),
            segment,
            retention,
            // From then on as much is dropped as is written.
            warm_up: warm_up.unwrap_or((retention + 3.0 * segment + 10.0).min(seconds / 2.0)),
            seed: seed.unwrap_or_else(|| fastrand::u64(..1_000_000)),
            out,
        };
        let positive = [options.minutes, options.rate, options.sample_every, options.segment, options.retention];
        if positive.iter().any(|value| !value.is_finite() || *value <= 0.0) || options.minutes > Self::LONGEST_MINUTES {
            return Err("minutes (up to 48 hours), rate, sample-every, segment and retention are above zero".into());
        }
        if options.relays < 2 {
            return Err("--relays: two at least, so that one can be killed and one grow old".into());
        }
        if !(0.0..seconds).contains(&options.warm_up) {
            return Err("--warm-up: shorter than the run".into());
        }
        Ok(options)
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name} wants a number, not {value}"))
}
