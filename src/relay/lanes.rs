//! Slow attempts do not hold up quick ones.
//!
//! An endpoint that hangs holds its attempts for their whole timeout, and a subscription's own cap does
//! not help against many such endpoints: three hundred that hang, of any number of tenants, took every
//! place of `concurrency`, and healthy subscriptions waited a minute. So an attempt that lasts gives up
//! its place after [`SLOW_AFTER`] and goes on beside, in a lane for slow ones of the same size. A
//! subscription that is known to be slow begins there, and gets nothing while that lane is full; one quick
//! answer, and it is as good as any other.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// An attempt that lasts longer is slow.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// Subscriptions remembered as slow, at most; beyond that all prove themselves again.
const MOST_REMEMBERED: usize = 100_000;

/// A delivery under way: its subscription and its event.
type Delivery = (i64, i64);

/// Who is under way in which lane.
pub(super) struct Lanes {
    /// Places of each of the two lanes.
    places: usize,
    /// Whether slow, for every attempt under way.
    under_way: HashMap<Delivery, bool>,
    /// Those that began as quick ones, oldest first; some have ended since.
    begun: VecDeque<(Instant, Delivery)>,
    slow_count: usize,
    /// Subscriptions whose last attempt was slow, or whose attempt under way is.
    slow: HashSet<i64>,
}

impl Lanes {
    pub(super) fn new(places: usize) -> Self {
        Self { places, under_way: HashMap::new(), begun: VecDeque::new(), slow_count: 0, slow: HashSet::new() }
    }

    /// Free places for quick ones. Slow ones beyond their own lane take places here.
    pub(super) fn quick_room(&self) -> usize {
        self.places.saturating_sub(self.under_way.len() - self.slow_beside())
    }

    /// Slow ones that hold no place of the quick.
    pub(super) fn slow_beside(&self) -> usize {
        self.slow_count.min(self.places)
    }

    /// Free places for slow ones.
    pub(super) fn slow_room(&self) -> usize {
        self.places.saturating_sub(self.slow_count)
    }

    /// Subscriptions that are known to be slow.
    pub(super) fn slow(&self) -> impl Iterator<Item = i64> {
        self.slow.iter().copied()
    }

    pub(super) fn is_slow(&self, subscription_id: i64) -> bool {
        self.slow.contains(&subscription_id)
    }

    pub(super) fn begin(&mut self, delivery: Delivery, now: Instant) {
        let slow = self.is_slow(delivery.0);
        if let Some(true) = self.under_way.insert(delivery, slow) {
            self.slow_count -= 1; // sent again under a new lease, while the old attempt is still going
        }
        if slow {
            self.slow_count += 1;
        } else {
            self.begun.push_back((now, delivery));
        }
    }

    pub(super) fn end(&mut self, delivery: Delivery, lasted: Duration) {
        if self.under_way.remove(&delivery) == Some(true) {
            self.slow_count -= 1;
        }
        if lasted >= SLOW_AFTER {
            self.remember(delivery.0);
        } else {
            self.slow.remove(&delivery.0);
        }
    }

    /// Those that have lasted too long change the lane. Returns when to look again.
    pub(super) fn change(&mut self, now: Instant) -> Option<Instant> {
        while let Some((began, delivery)) = self.begun.front().copied() {
            match self.under_way.get(&delivery).copied() {
                Some(false) if now < began + SLOW_AFTER => return Some(began + SLOW_AFTER),
                Some(false) => {
                    self.under_way.insert(delivery, true);
                    self.slow_count += 1;
                    self.remember(delivery.0);
                }
                _ => {}
            }
            self.begun.pop_front();
        }
        None
    }

    fn remember(&mut self, subscription_id: i64) {
        if self.slow.len() >= MOST_REMEMBERED {
            self.slow.clear();
        }
        self.slow.insert(subscription_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(20);

    #[test]
    fn what_lasts_gives_its_place_up_and_begins_beside_the_next_time() {
        let (mut lanes, now) = (Lanes::new(4), Instant::now());
        for seq in 1..=4 {
            lanes.begin((7, seq), now);
        }
        assert_eq!((lanes.quick_room(), lanes.slow_room()), (0, 4));
        assert_eq!(lanes.change(now + QUICK), Some(now + SLOW_AFTER));
        assert_eq!(lanes.change(now + SLOW_AFTER), None);
        assert_eq!((lanes.quick_room(), lanes.slow_room()), (4, 0));
        // The lane is full: more of them would take places of the quick.
        lanes.begin((7, 5), now);
        assert_eq!((lanes.quick_room(), lanes.slow_room()), (3, 0));
        for seq in 1..=5 {
            lanes.end((7, seq), SLOW_AFTER);
        }
        assert_eq!((lanes.quick_room(), lanes.slow_room()), (4, 4));
        lanes.begin((7, 6), now);
        assert_eq!((lanes.quick_room(), lanes.slow_room()), (4, 3));
        lanes.end((7, 6), QUICK);
        assert!(!lanes.is_slow(7));
        lanes.begin((7, 7), now);
        assert_eq!((lanes.quick_room(), lanes.slow_room()), (3, 4));
    }

    #[test]
    fn those_that_have_ended_are_not_looked_at_again() {
        let (mut lanes, now) = (Lanes::new(4), Instant::now());
        for seq in 1..=1000 {
            lanes.begin((1, seq), now);
            lanes.end((1, seq), QUICK);
        }
        lanes.begin((2, 1), now + QUICK);
        assert_eq!(lanes.change(now + QUICK), Some(now + QUICK + SLOW_AFTER));
        assert_eq!(lanes.begun.len(), 1);
    }
}
