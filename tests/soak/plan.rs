//! What will happen and be written, drawn from the seed alone.

use super::options::Options;
use fastrand::Rng;
use std::time::Duration;

/// Nothing happens just before the end: what comes of it is to be seen.
const QUIET_END: f64 = 12.0;

/// What is done to the system.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// SIGKILL of a relay, by number; it is started again after a while.
    Kill { relay: usize, down: Duration },
    /// An immediate restart of PostgreSQL.
    Restart,
    /// A transaction that stays open: a snapshot, or with an id one that has written an event.
    Hold { with_id: bool, lasts: Duration, commits: bool },
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill { .. } => "relay killed",
            Self::Restart => "PostgreSQL crashed",
            Self::Hold { with_id: false, .. } => "snapshot held",
            Self::Hold { with_id: true, .. } => "writer held open",
        }
    }

    /// Whether deliveries are expected to be late, and some to be made twice.
    pub(crate) fn disturbs(self) -> bool {
        !matches!(self, Self::Hold { .. })
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// Since the start.
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
}

/// All faults of a run, in order.
pub(crate) fn faults(options: &Options) -> Vec<Fault> {
    let mut rng = Rng::with_seed(options.seed);
    let end = (options.minutes * 60.0 - QUIET_END).max(0.0);
    let mut faults = vec![];
    let mut add = |at: f64, kind| faults.push(Fault { at: Duration::from_secs_f64(at), kind });
    for at in times(&mut rng, options.kill_every, end) {
        let (relay, down) = (rng.usize(2..=options.relays), Duration::from_millis(rng.u64(..2000)));
        add(at, Kind::Kill { relay, down });
    }
    for (nth, at) in times(&mut rng, options.hold_every, end).into_iter().enumerate() {
        let share = 0.2 + 0.4 * rng.f64();
        let lasts = Duration::from_secs_f64((options.hold_every * share).min(end - at));
        add(at, Kind::Hold { with_id: nth % 2 == 1, lasts, commits: rng.bool() });
    }
    if options.restarts > 0 {
        // What a first crash leaves behind for good, as memory for what had piled up, is there before anything is judged.
        add(options.warm_up / 2.0, Kind::Restart);
    }
    let step = (end - options.warm_up).max(0.0) / f64::from(options.restarts + 1);
    for nth in 0..options.restarts {
        add(options.warm_up + step * (f64::from(nth) + 0.7 + 0.6 * rng.f64()), Kind::Restart);
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn times(rng: &mut Rng, every: f64, end: f64) -> Vec<f64> {
    let mut times = vec![];
    let mut at = 0.0;
    if every <= 0.0 {
        return times;
    }
    loop {
        at += every * (0.7 + 0.6 * rng.f64());
        if at >= end {
            break;
        }
        times.push(at);
    }
    times
}

pub(crate) const TENANTS: [&str; 3] = ["a", "b", "c"];
pub(crate) const TYPES: [&str; 3] = ["order.created", "order.paid", "invoice.sent"];

/// An event, but for its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drawn {
    pub(crate) tenant: u8,
    pub(crate) kind: u8,
    pub(crate) amount: u8,
    pub(crate) key: Option<u8>,
    /// Bytes of payload that mean nothing.
    pub(crate) filler: u16,
    /// By `outbox.publish` with an idempotency key.
    pub(crate) published: bool,
}

/// A transaction.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Since the start.
    pub(crate) at: Duration,
    pub(crate) events: Vec<Drawn>,
    /// Written within a savepoint that is rolled back.
    pub(crate) undone: Option<Drawn>,
    pub(crate) commits: bool,
    /// Between the last insert and the end.
    pub(crate) dawdles: Duration,
}

/// The transactions of a run: an open loop with exponential gaps.
pub(crate) struct Jobs {
    rng: Rng,
    at: f64,
    end: f64,
    per_s: f64,
}

/// Events of a transaction, on average.
const EVENTS_PER_JOB: f64 = 0.9 + 0.1 * 3.5;

impl Jobs {
    pub(crate) fn new(options: &Options) -> Self {
        let rng = Rng::with_seed(options.seed.wrapping_add(1));
        Self { rng, at: 0.0, end: options.minutes * 60.0, per_s: options.rate / EVENTS_PER_JOB }
    }

    fn draw(&mut self) -> Drawn {
        let rng = &mut self.rng;
        Drawn {
            tenant: match rng.u8(..10) {
                0..6 => 0,
                6..9 => 1,
                _ => 2,
            },
            kind: rng.u8(..3),
            amount: rng.u8(..100),
            key: (rng.u8(..3) == 0).then(|| rng.u8(..60)),
            filler: rng.u16(50..900),
            published: rng.u8(..10) == 0,
        }
    }
}

impl Iterator for Jobs {
    type Item = Job;

    fn next(&mut self) -> Option<Job> {
        self.at -= (1.0 - self.rng.f64()).ln() / self.per_s;
        if self.at >= self.end {
            return None;
        }
        let count = if self.rng.u8(..10) == 0 { self.rng.usize(2..=5) } else { 1 };
        let events = (0..count).map(|_| self.draw()).collect();
        let undone = (self.rng.u8(..50) == 0).then(|| self.draw());
        let dawdles = if self.rng.u8(..200) == 0 { self.rng.u64(100..1000) } else { 0 };
        Some(Job {
            at: Duration::from_secs_f64(self.at),
            events,
            undone,
            commits: self.rng.u8(..20) > 0,
            dawdles: Duration::from_millis(dawdles),
        })
    }
}
