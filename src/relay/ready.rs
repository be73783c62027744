//! Leases that wait in this relay for their turn.
//!
//! There are two reasons to wait. A few more are leased than there are places, so that places do not stand empty while
//! the next call is under way. And an expand and a claim under way at once may each lease as many of one subscription
//! as it has room for: what is too much waits until one of its attempts ends, so `max_in_flight` holds.

use crate::record::Attempt;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// What is leased and has not ended, by subscription, and what of it has not begun.
pub(super) struct Ready {
    /// In the order in which they came.
    in_turn: VecDeque<Arc<Attempt>>,
    /// Whose subscription has as many under way as it may have.
    behind: HashMap<i64, VecDeque<Arc<Attempt>>>,
    behind_count: usize,
    counts: HashMap<i64, Counts>,
    /// For a subscription that names no limit of its own.
    max_in_flight: usize,
}

#[derive(Default)]
struct Counts {
    leased: usize,
    begun: usize,
}

impl Ready {
    pub(super) fn new(max_in_flight: usize) -> Self {
        Self {
            in_turn: VecDeque::new(),
            behind: HashMap::new(),
            behind_count: 0,
            counts: HashMap::new(),
            max_in_flight,
        }
    }

    pub(super) fn push(&mut self, attempt: Arc<Attempt>) {
        self.counts.entry(attempt.lease.subscription_id).or_default().leased += 1;
        self.in_turn.push_back(attempt);
    }

    /// The next to begin, unless all that wait have to wait for their subscription.
    pub(super) fn begin(&mut self) -> Option<Arc<Attempt>> {
        while let Some(attempt) = self.in_turn.pop_front() {
            let id = attempt.lease.subscription_id;
            let counts = self.counts.entry(id).or_default();
            if counts.begun < attempt.known.max_in_flight.unwrap_or(self.max_in_flight) {
                counts.begun += 1;
                return Some(attempt);
            }
            self.behind.entry(id).or_default().push_back(attempt);
            self.behind_count += 1;
        }
        None
    }

    /// An attempt that had begun has ended.
    pub(super) fn end(&mut self, subscription_id: i64) {
        if let Some(counts) = self.counts.get_mut(&subscription_id) {
            counts.leased -= 1;
            counts.begun -= 1;
            if counts.leased == 0 {
                self.counts.remove(&subscription_id);
            }
        }
        if let Some(waiting) = self.behind.get_mut(&subscription_id) {
            if let Some(first) = waiting.pop_front() {
                self.in_turn.push_front(first);
                self.behind_count -= 1;
            }
            if waiting.is_empty() {
                self.behind.remove(&subscription_id);
            }
        }
    }

    /// How many have not begun.
    pub(super) fn len(&self) -> usize {
        self.in_turn.len() + self.behind_count
    }

    /// Gives up those that have not begun.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = Arc<Attempt>> {
        self.counts.retain(|_, counts| {
            counts.leased = counts.begun;
            counts.begun > 0
        });
        self.behind_count = 0;
        let behind = std::mem::take(&mut self.behind).into_values().flatten();
        std::mem::take(&mut self.in_turn).into_iter().chain(behind)
    }

    /// How many are leased and have not ended, begun or not, by subscription.
    pub(super) fn leased(&self) -> impl Iterator<Item = (i64, i32)> {
        self.counts.iter().map(|(id, counts)| (*id, i32::try_from(counts.leased).unwrap_or(i32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Cause, Lease};
    use crate::endpoint::Known;
    use crate::record::Held;

    fn ready(max_in_flight: usize, leases: &[(i64, i64)]) -> Ready {
        let mut ready = Ready::new(max_in_flight);
        for (subscription_id, event_seq) in leases {
            let lease = Lease {
                subscription_id: *subscription_id,
                version: 1,
                event_seq: *event_seq,
                event: None,
                attempts: 0,
                cause: Cause::Schedule,
                is_fresh: true,
            };
            let (held, known) = (Held::new(&lease, &Arc::default()), Arc::new(Known::gone()));
            ready.push(Arc::new(Attempt { lease, known, epoch: 1, held }));
        }
        ready
    }

    fn begin_all(ready: &mut Ready) -> Vec<i64> {
        std::iter::from_fn(|| ready.begin()).map(|attempt| attempt.lease.event_seq).collect()
    }

    #[test]
    fn a_subscription_at_its_limit_waits_in_nobodys_way_and_goes_on_in_order() {
        let mut ready = ready(2, &[(7, 1), (7, 2), (7, 3), (7, 4), (8, 5)]);
        assert_eq!(begin_all(&mut ready), [1, 2, 5]);
        assert_eq!(ready.len(), 2);
        ready.end(8);
        assert_eq!(begin_all(&mut ready), [0; 0]);
        ready.end(7);
        assert_eq!(begin_all(&mut ready), [3]);
        ready.end(7);
        ready.end(7);
        assert_eq!(begin_all(&mut ready), [4]);
        assert_eq!(ready.leased().collect::<Vec<_>>(), [(7, 1)]);
        ready.end(7);
        assert_eq!((ready.len(), ready.leased().count()), (0, 0));
    }

    #[test]
    fn what_has_begun_is_remembered_when_the_rest_is_given_up() {
        let mut ready = ready(1, &[(7, 1), (7, 2), (8, 3)]);
        assert_eq!(ready.begin().map(|a| a.lease.event_seq), Some(1));
        assert_eq!(ready.clear().map(|a| a.lease.event_seq).collect::<Vec<_>>(), [2, 3]);
        assert_eq!((ready.len(), ready.leased().collect::<Vec<_>>()), (0, vec![(7, 1)]));
        assert_eq!(begin_all(&mut ready), [0; 0]);
        ready.end(7);
        assert_eq!(ready.leased().count(), 0);
    }
}
