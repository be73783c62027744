//! Filters that do not end: who has them, and for how long an expand may take.
//!
//! A filter is a tenant's, and expand evaluates everybody's. So expand is cancelled after a while, and then the filters
//! of its events are tried one at a time. Who is found out is disabled together with a dead letter, by the expand of the
//! very event, and everybody else goes on. If nobody is found the batch was only large, or the machine is busy:
//! then fewer events are taken, and more time.

use crate::db::{Db, DbError, Trial};
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

/// How long an expand may take at first. Far more than an honest one needs, so that little is gone when one hangs.
const PATIENCE: Duration = Duration::from_secs(2);
/// Calls of a search that convict nobody, before it is given up: what is slow then is not one filter.
const MAX_IDLE_CALLS: usize = 8;
/// Calls of a search in all.
const MAX_CALLS: usize = 64;

/// What is known of them.
pub(super) struct Slow {
    /// An expand was too slow: look for the filter before the next.
    wanted: bool,
    patience: Duration,
    /// Versions of the subscriptions that were found out, and the events that can be expanded before.
    found: Vec<(i64, usize)>,
    /// How many of them the expand under way is told of.
    told: usize,
    began_at: Instant,
}

impl Slow {
    pub(super) fn new() -> Self {
        Self { wanted: false, patience: PATIENCE, found: Vec::new(), told: 0, began_at: Instant::now() }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Whether there are filters to be given up.
    pub(super) fn has_found(&self) -> bool {
        !self.found.is_empty()
    }

    /// Events of the next expand: none that one of those found is to be told of together with others.
    pub(super) fn at_most(&self, wanted: usize) -> usize {
        self.found.first().map_or(wanted, |(_, before)| wanted.min((*before).max(1)))
    }

    /// The versions that the expand beginning now is to be told of.
    pub(super) fn begin(&mut self) -> Vec<i64> {
        self.began_at = Instant::now();
        let told: Vec<i64> = self.found.iter().take_while(|(_, before)| *before == 0).map(|(id, _)| *id).collect();
        self.told = told.len();
        told
    }

    /// How long it may take. To give up those found it may wait for the other relays, which hang by the same filter.
    pub(super) fn patience(&self, told: &[i64]) -> Duration {
        if told.is_empty() { self.patience } else { Duration::MAX }
    }

    pub(super) fn on_expanded(&mut self, events: usize, asked: usize, now: Instant) {
        self.found.drain(..self.told);
        self.told = 0;
        if events < asked {
            self.found.clear(); // another relay was faster
        }
        for (_, before) in &mut self.found {
            *before = before.saturating_sub(events);
        }
        if now.duration_since(self.began_at) < PATIENCE / 2 {
            self.patience = PATIENCE;
        }
    }

    /// True if it was too slow though nothing of it was suspected: there are too many events.
    pub(super) fn on_expand_too_slow(&mut self) -> bool {
        let was_cleared = !self.found.is_empty();
        self.wanted = true;
        self.found.clear();
        self.told = 0;
        was_cleared
    }

    /// What a search brought. False if nothing is left but to expand fewer events, or without filters.
    pub(super) fn on_tried(&mut self, mut found: Vec<(i64, usize)>, events: usize) -> bool {
        self.wanted = false;
        if !found.is_empty() {
            found.sort_by_key(|(_, before)| *before);
            self.found = found;
            return true;
        }
        let was_patient = self.patience == Duration::MAX;
        // A single event has all the time that any statement has.
        self.patience = if events == 1 { Duration::MAX } else { self.patience.saturating_mul(2) };
        events == 1 && !was_patient
    }
}

/// Looks for the filters that keep the next events from being expanded.
///
/// # Errors
/// If the database cannot be asked.
pub(super) async fn find(db: Db, epoch: i32, events: usize) -> Result<Vec<(i64, usize)>, DbError> {
    let limit = i32::try_from(events).unwrap_or(i32::MAX);
    let (mut trial, mut found, mut suspected, mut idle_calls) = (Trial::default(), Vec::new(), None, 0);
    for _ in 0..MAX_CALLS {
        let tried = match db.try_filters(epoch, limit, &trial).await {
            // Something else is slow; what was found before is as true.
            Err(error) if found.is_empty() => return Err(error),
            Err(_) => break,
            Ok(tried) => tried,
        };
        match tried.suspect {
            Some(version) if tried.is_sure || suspected == Some(version) => {
                warn!(version, "a filter does not end in time; its subscription is disabled");
                found.push((version, tried.events_before));
                trial.slow.push(version);
                (suspected, idle_calls) = (None, 0);
            }
            Some(version) => suspected = Some(version),
            None if tried.is_done => break,
            None => {
                (trial, suspected) = (tried.next, None);
                idle_calls += 1;
                if idle_calls == MAX_IDLE_CALLS {
                    break;
                }
            }
        }
    }
    Ok(found)
}
