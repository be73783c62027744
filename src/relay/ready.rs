//! Leases that wait in this relay for their turn.
//!
//! There are two reasons to wait. A few more are leased than there are places, so that places do not stand empty while
//! the next call is under way. And an expand and a claim under way at once may each lease as many of one subscription
//! as it has room for: what is too much waits until one of its attempts ends, so `max_in_flight` holds.
//!
//! Neither wait is long, or it is given up and the lease handed back: another relay may have a place, and what is sent
//! is to be sent as the subscription is now, not as it was when it was leased.

use crate::db::Cause;
use crate::record::Attempt;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::time::Instant;

/// What is leased and has not ended, by subscription, and what of it has not begun.
pub(super) struct Ready {
    /// In the order in which they came.
    in_turn: VecDeque<Waiting>,
    /// Whose subscription has as many under way as it may have.
    behind: HashMap<i64, VecDeque<Waiting>>,
    behind_count: usize,
    counts: HashMap<i64, Counts>,
    /// For a subscription that names no limit of its own.
    max_in_flight: usize,
}

struct Waiting {
    since: Instant,
    attempt: Arc<Attempt>,
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

    pub(super) fn push(&mut self, attempt: Arc<Attempt>, now: Instant) {
        self.counts.entry(attempt.lease.subscription_id).or_default().leased += 1;
        self.in_turn.push_back(Waiting { since: now, attempt });
    }

    /// The next to begin, unless all that wait have to wait for their subscription. A test waits for nobody.
    pub(super) fn begin(&mut self) -> Option<Arc<Attempt>> {
        while let Some(waiting) = self.in_turn.pop_front() {
            let attempt = &waiting.attempt;
            let id = attempt.lease.subscription_id;
            let counts = self.counts.entry(id).or_default();
            let most = attempt.known.max_in_flight.unwrap_or(self.max_in_flight);
            if counts.begun < most || attempt.lease.cause == Cause::Test {
                counts.begun += 1;
                return Some(waiting.attempt);
            }
            self.behind.entry(id).or_default().push_back(waiting);
            self.behind_count += 1;
        }
        None
    }

    /// An attempt that had begun has ended.
    pub(super) fn end(&mut self, subscription_id: i64) {
        if let Some(counts) = self.counts.get_mut(&subscription_id) {
            counts.begun -= 1;
            Self::forget(&mut self.counts, subscription_id);
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

    /// How many have not begun and want a place, those that wait for their subscription only beyond `unheeded`.
    pub(super) fn want_places(&self, unheeded: usize) -> usize {
        self.in_turn.len() + self.behind_count.saturating_sub(unheeded)
    }

    /// Gives up those that have waited since then or longer.
    pub(super) fn give_up(&mut self, since: Instant) -> Vec<Arc<Attempt>> {
        let mut given_up = Vec::new();
        let mut keep = |waiting: &Waiting| {
            if waiting.since <= since {
                given_up.push(waiting.attempt.clone());
            }
            waiting.since > since
        };
        self.in_turn.retain(&mut keep);
        self.behind.retain(|_, waiting| {
            waiting.retain(&mut keep);
            !waiting.is_empty()
        });
        self.behind_count = self.behind.values().map(VecDeque::len).sum();
        for attempt in &given_up {
            Self::forget(&mut self.counts, attempt.lease.subscription_id);
        }
        given_up
    }

    /// How many are leased and have not ended, begun or not, by subscription.
    pub(super) fn leased(&self) -> impl Iterator<Item = (i64, i32)> {
        self.counts.iter().map(|(id, counts)| (*id, i32::try_from(counts.leased).unwrap_or(i32::MAX)))
    }

    fn forget(counts: &mut HashMap<i64, Counts>, subscription_id: i64) {
        if let Some(of_this) = counts.get_mut(&subscription_id) {
            of_this.leased -= 1;
            if of_this.leased == 0 {
                counts.remove(&subscription_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Lease;
    use crate::endpoint::Known;
    use crate::record::Held;
    use std::time::Duration;

    fn attempt(subscription_id: i64, event_seq: i64, cause: Cause) -> Arc<Attempt> {
        let lease = Lease { subscription_id, version: 1, event_seq, event: None, attempts: 0, cause, is_fresh: true };
        let (held, known) = (Held::new(&lease, &Arc::default()), Arc::new(Known::gone()));
        Arc::new(Attempt { lease, known, epoch: 1, held })
    }

    fn ready(max_in_flight: usize, leases: &[(i64, i64)], now: Instant) -> Ready {
        let mut ready = Ready::new(max_in_flight);
        for (subscription_id, event_seq) in leases {
            ready.push(attempt(*subscription_id, *event_seq, Cause::Schedule), now);
        }
        ready
    }

    fn seqs(attempts: impl IntoIterator<Item = Arc<Attempt>>) -> Vec<i64> {
        attempts.into_iter().map(|attempt| attempt.lease.event_seq).collect()
    }

    fn begin_all(ready: &mut Ready) -> Vec<i64> {
        seqs(std::iter::from_fn(|| ready.begin()))
    }

    #[test]
    fn a_subscription_at_its_limit_waits_in_nobodys_way_and_goes_on_in_order() {
        let mut ready = ready(2, &[(7, 1), (7, 2), (7, 3), (7, 4), (8, 5)], Instant::now());
        assert_eq!(begin_all(&mut ready), [1, 2, 5]);
        assert_eq!([0, 1, 2].map(|unheeded| ready.want_places(unheeded)), [2, 1, 0]);
        ready.end(8);
        assert_eq!(begin_all(&mut ready), [0; 0]);
        ready.end(7);
        assert_eq!(ready.want_places(1), 1, "one of them has its turn now");
        assert_eq!(begin_all(&mut ready), [3]);
        ready.end(7);
        ready.end(7);
        assert_eq!(begin_all(&mut ready), [4]);
        assert_eq!(ready.leased().collect::<Vec<_>>(), [(7, 1)]);
        ready.end(7);
        assert_eq!((ready.want_places(0), ready.leased().count()), (0, 0));
    }

    #[test]
    fn a_test_goes_whatever_is_under_way() {
        let mut ready = ready(1, &[(7, 1), (7, 2)], Instant::now());
        ready.push(attempt(7, 3, Cause::Test), Instant::now());
        assert_eq!(begin_all(&mut ready), [1, 3]);
        ready.end(7);
        assert_eq!(begin_all(&mut ready), [0; 0], "the other one is still under way");
        ready.end(7);
        assert_eq!(begin_all(&mut ready), [2]);
    }

    #[test]
    fn what_has_waited_too_long_is_given_up_and_what_has_begun_is_remembered() {
        let (then, now) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let mut ready = ready(1, &[(7, 1), (7, 2), (8, 3)], then);
        assert_eq!(ready.begin().map(|a| a.lease.event_seq), Some(1));
        ready.push(attempt(7, 4, Cause::Schedule), now);
        assert_eq!(seqs(ready.give_up(then)), [2, 3]);
        assert_eq!(begin_all(&mut ready), [0; 0]);
        assert_eq!((ready.want_places(0), ready.leased().collect::<Vec<_>>()), (1, vec![(7, 2)]));
        assert_eq!(seqs(ready.give_up(now)), [4]);
        assert_eq!((ready.want_places(0), ready.leased().collect::<Vec<_>>()), (0, vec![(7, 1)]));
        ready.end(7);
        assert_eq!(ready.leased().count(), 0);
    }
}
