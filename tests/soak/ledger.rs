//! What was written and what arrived, kept outside the database, in a few bytes for each: 28 an event, so that an
//! hour of 200 a second takes 20 MB.

use super::plan::{Drawn, Kind};
use super::wishes::{SLOTS, WISHES, slot, wanted};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The ledger's clock: it runs over after 59 hours.
const TICKS_PER_S: f64 = 20_000.0;
/// So long after a fault is over, what is late is its doing.
pub(crate) const RECOVERY: Duration = Duration::from_secs(4);
/// A delivery that is made twice is explained by a fault if it was made first shortly before the fault ended ...
const UNRECORDED: Duration = Duration::from_secs(3);
/// ... and again soon after.
const AGAIN_WITHIN: Duration = Duration::from_secs(30);

/// Those that are still of interest are the last.
const FAULTS_AT_ONCE: usize = 16;

/// What became of the transaction that wrote an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Open,
    /// The connection broke before the answer to COMMIT came.
    InDoubt,
    Committed,
    RolledBack,
}

/// An event. `u32` are ticks; 0 is never.
struct Entry {
    drawn: Drawn,
    fate: Fate,
    committed: u32,
    received: [u32; SLOTS],
}

/// A fault, while or after it happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Happened {
    pub(crate) kind: Kind,
    began: u32,
    over: Option<u32>,
    /// The longest time from commit to receipt that it explains.
    slowest: u32,
}

/// A delivery that was accepted once more.
#[derive(Clone, Copy)]
struct Again {
    wish: usize,
    before: u32,
    at: u32,
}

#[derive(Default)]
struct Books {
    events: Vec<Entry>,
    faults: Vec<Happened>,
    again: Vec<Again>,
    accepted: u64,
    strangers: u64,
    unverified: u64,
    interval: Interval,
}

/// What arrived since it was last asked.
#[derive(Default)]
pub(crate) struct Interval {
    pub(crate) accepted: u64,
    /// Commit to receipt in milliseconds, of what no fault explains.
    pub(crate) calm_ms: Vec<f64>,
    pub(crate) recovery_ms: Vec<f64>,
}

/// The books at the end.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Tally {
    pub(crate) written: u64,
    pub(crate) committed: u64,
    pub(crate) rolled_back: u64,
    /// Nobody knows what became of them: none in the end.
    pub(crate) open: u64,
    pub(crate) expected: u64,
    pub(crate) missing: u64,
    /// Numbers of some that are missing.
    pub(crate) examples: Vec<(usize, &'static str)>,
    pub(crate) undone_but_sent: u64,
    /// Arrived where they were not wanted, or never written.
    pub(crate) strangers: u64,
    pub(crate) unverified: u64,
    pub(crate) accepted: u64,
    pub(crate) duplicates: u64,
    pub(crate) unexplained_duplicates: u64,
    pub(crate) unexplained: Vec<String>,
}

pub(crate) struct Ledger {
    began: Instant,
    books: Mutex<Books>,
}

fn ms(ticks: u32) -> f64 {
    f64::from(ticks) * 1000.0 / TICKS_PER_S
}

fn ticks(span: Duration) -> u32 {
    (span.as_secs_f64() * TICKS_PER_S) as u32
}

impl Happened {
    pub(crate) fn began_s(&self) -> f64 {
        f64::from(self.began) / TICKS_PER_S
    }

    /// None while it goes on.
    pub(crate) fn over_s(&self) -> Option<f64> {
        self.over.map(|over| f64::from(over) / TICKS_PER_S)
    }

    pub(crate) fn slowest_ms(&self) -> f64 {
        ms(self.slowest)
    }

    /// Whether it explains that what was committed then arrived then.
    fn delays(&self, committed: u32, received: u32) -> bool {
        let recovered = self.over.map_or(u32::MAX, |over| over.saturating_add(ticks(RECOVERY)));
        self.kind.disturbs() && received >= self.began && committed <= recovered
    }

    fn explains(&self, again: &Again) -> bool {
        let over = self.over.unwrap_or(u32::MAX);
        self.kind.disturbs()
            && again.at >= self.began
            && again.before.saturating_add(ticks(UNRECORDED)) >= self.began
            && again.before <= over.saturating_add(ticks(UNRECORDED))
            && again.at <= over.saturating_add(ticks(AGAIN_WITHIN))
    }
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), books: Mutex::default() }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn start(&self) -> Instant {
        self.began
    }

    fn now(&self) -> u32 {
        ticks(self.elapsed()).max(1)
    }

    /// Enters an event before it is inserted; its number.
    pub(crate) fn open(&self, drawn: Drawn) -> u32 {
        let mut books = self.books();
        books.events.push(Entry { drawn, fate: Fate::Open, committed: 0, received: [0; SLOTS] });
        u32::try_from(books.events.len() - 1).unwrap_or(u32::MAX)
    }

    pub(crate) fn close(&self, numbers: &[u32], fate: Fate) {
        let now = self.now();
        let mut books = self.books();
        let books = &mut *books;
        for number in numbers {
            let Some(entry) = books.events.get_mut(*number as usize) else { continue };
            let was = std::mem::replace(&mut entry.fate, fate);
            entry.committed = now;
            // What arrived before its writer heard of the commit took no time. When one committed that was in doubt, is
            // not known.
            if was == Fate::Open && fate == Fate::Committed {
                let early = wanted(&entry.drawn).filter(|wish| WISHES[*wish].timed && entry.received[slot(*wish)] > 0);
                let disturbed = books.faults.iter().rev().take(FAULTS_AT_ONCE).any(|fault| fault.delays(now, now));
                let interval = &mut books.interval;
                let to = if disturbed { &mut interval.recovery_ms } else { &mut interval.calm_ms };
                to.extend(std::iter::repeat_n(0.0, early.count()));
            }
        }
    }

    /// A delivery is about to be accepted.
    pub(crate) fn receive(&self, number: Option<u32>, wish: usize) {
        let now = self.now();
        let mut books = self.books();
        let books = &mut *books;
        books.accepted += 1;
        books.interval.accepted += 1;
        let entry = number.and_then(|number| books.events.get_mut(number as usize));
        let Some(entry) = entry.filter(|entry| wanted(&entry.drawn).any(|wanted| wanted == wish)) else {
            books.strangers += 1;
            return;
        };
        let before = std::mem::replace(&mut entry.received[slot(wish)], now);
        if before > 0 {
            books.again.push(Again { wish, before, at: now });
        } else if entry.fate == Fate::Committed && WISHES[wish].timed {
            let took = now.saturating_sub(entry.committed);
            let committed = entry.committed;
            match books.faults.iter_mut().rev().take(FAULTS_AT_ONCE).find(|fault| fault.delays(committed, now)) {
                Some(fault) => {
                    fault.slowest = fault.slowest.max(took);
                    books.interval.recovery_ms.push(ms(took));
                }
                None => books.interval.calm_ms.push(ms(took)),
            }
        }
    }

    /// A request whose signature is not right.
    pub(crate) fn refuse(&self) {
        self.books().unverified += 1;
    }

    pub(crate) fn begin(&self, kind: Kind) -> usize {
        let began = self.now();
        let mut books = self.books();
        books.faults.push(Happened { kind, began, over: None, slowest: 0 });
        books.faults.len() - 1
    }

    pub(crate) fn end(&self, fault: usize) {
        let now = self.now();
        self.books().faults[fault].over = Some(now);
    }

    pub(crate) fn faults(&self) -> Vec<Happened> {
        self.books().faults.clone()
    }

    pub(crate) fn take_interval(&self) -> Interval {
        std::mem::take(&mut self.books().interval)
    }

    /// How many deliveries of committed events are still to arrive.
    pub(crate) fn missing(&self) -> u64 {
        self.tally().missing
    }

    pub(crate) fn tally(&self) -> Tally {
        let books = self.books();
        let mut tally = Tally {
            written: books.events.len() as u64,
            accepted: books.accepted,
            strangers: books.strangers,
            unverified: books.unverified,
            duplicates: books.again.len() as u64,
            ..Tally::default()
        };
        for (number, entry) in books.events.iter().enumerate() {
            match entry.fate {
                Fate::Committed => {
                    tally.committed += 1;
                    for wish in wanted(&entry.drawn) {
                        tally.expected += 1;
                        if entry.received[slot(wish)] == 0 {
                            tally.missing += 1;
                            if tally.examples.len() < 10 {
                                tally.examples.push((number, WISHES[wish].path));
                            }
                        }
                    }
                }
                Fate::RolledBack => {
                    tally.rolled_back += 1;
                    tally.undone_but_sent += u64::from(entry.received.iter().any(|at| *at > 0));
                }
                Fate::Open | Fate::InDoubt => tally.open += 1,
            }
        }
        for again in &books.again {
            if !books.faults.iter().any(|fault| fault.explains(again)) {
                tally.unexplained_duplicates += 1;
                if tally.unexplained.len() < 10 {
                    let at = f64::from(again.at) / TICKS_PER_S;
                    let since = ms(again.at - again.before) / 1000.0;
                    tally
                        .unexplained
                        .push(format!("{} at {at:.1} s, {since:.1} s after the first", WISHES[again.wish].path));
                }
            }
        }
        tally
    }
}
