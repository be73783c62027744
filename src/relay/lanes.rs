//! Slow attempts do not hold up quick ones.
//!
//! An endpoint that hangs holds its attempts for their whole timeout, and a subscription's own cap does
//! not help against many such endpoints: three hundred that hang, of any number of tenants, took every
//! place of `concurrency`, and healthy subscriptions waited a minute. So an attempt that lasts gives up
//! its place after [`SLOW_AFTER`] and goes on beside, in a lane for slow ones of the same size. When one attempt lasts,
//! all of its subscription change the lane, and new ones begin there and get nothing while that lane is full; one quick
//! answer, and it is as good as any other. (Rejected: to leave only when all that is under way has ended. A busy
//! subscription always has something under way, and would never leave.)
//!
//! A lane is as wide in places as in bytes of payload: sixty-four attempts of a megabyte each, to one receiver that
//! hangs, took all the bytes a relay may hold. Of the slow lane's bytes a subscription that holds a
//! [`MOST_BYTES`]th gets no more, or one with a long backlog of large payloads would take each that becomes free.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// An attempt that lasts longer is slow.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// That part of its bytes one subscription may fill.
const MOST_BYTES: usize = 4;
/// Subscriptions remembered as slow, at most; beyond that all prove themselves again.
const MOST_REMEMBERED: usize = 100_000;

/// A delivery under way: its subscription and its event.
type Delivery = (i64, i64);

/// Who is under way in which lane.
pub(super) struct Lanes {
    /// Each of the two lanes has so much room.
    width: Width,
    under_way: HashMap<Delivery, UnderWay>,
    /// Those that began as quick ones, oldest first; some have ended since.
    begun: VecDeque<(Instant, Delivery)>,
    /// What the slow ones take.
    slow_ones: Width,
    /// Subscriptions whose last sign was slow: an answer, or an attempt that lasts.
    slow: HashSet<i64>,
}

/// Room that there is, or that is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Width {
    /// Attempts.
    pub(super) places: usize,
    /// Bytes of payload.
    pub(super) bytes: usize,
}

/// An attempt under way.
struct UnderWay {
    is_slow: bool,
    bytes: usize,
}

impl Lanes {
    pub(super) fn new(width: Width) -> Self {
        let (under_way, begun, slow) = (HashMap::new(), VecDeque::new(), HashSet::new());
        Self { width, under_way, begun, slow_ones: Width::default(), slow }
    }

    /// Free places for quick ones. Slow ones beyond their own lane take places here.
    pub(super) fn quick_room(&self) -> usize {
        self.width.places.saturating_sub(self.under_way.len() - self.slow_beside().places)
    }

    /// What slow ones take beside the quick, and not of their room.
    pub(super) fn slow_beside(&self) -> Width {
        let (slow, width) = (self.slow_ones, self.width);
        Width { places: slow.places.min(width.places), bytes: slow.bytes.min(width.bytes) }
    }

    /// Free room for slow ones: neither places nor bytes if one of them is used up.
    pub(super) fn slow_room(&self) -> Width {
        let places = self.width.places.saturating_sub(self.slow_ones.places);
        let bytes = self.width.bytes.saturating_sub(self.slow_ones.bytes);
        if places == 0 || bytes == 0 { Width::default() } else { Width { places, bytes } }
    }

    /// Subscriptions that have their share of the slow lane's bytes.
    pub(super) fn sated(&self) -> HashSet<i64> {
        let mut bytes: HashMap<i64, usize> = HashMap::new();
        for ((id, _), attempt) in self.under_way.iter().filter(|(_, attempt)| attempt.is_slow) {
            *bytes.entry(*id).or_default() += attempt.bytes;
        }
        bytes.into_iter().filter(|(_, bytes)| *bytes >= self.width.bytes / MOST_BYTES).map(|(id, _)| id).collect()
    }

    /// Subscriptions that are known to be slow.
    pub(super) fn slow(&self) -> impl Iterator<Item = i64> {
        self.slow.iter().copied()
    }

    pub(super) fn is_slow(&self, subscription_id: i64) -> bool {
        self.slow.contains(&subscription_id)
    }

    /// An attempt with a payload of so many bytes begins.
    pub(super) fn begin(&mut self, delivery: Delivery, bytes: usize, now: Instant) {
        self.leave(delivery); // sent again under a new lease, while the old attempt is still going
        let is_slow = self.is_slow(delivery.0);
        self.under_way.insert(delivery, UnderWay { is_slow, bytes });
        if is_slow {
            self.slow_ones.add(bytes);
        } else {
            self.begun.push_back((now, delivery));
        }
    }

    pub(super) fn end(&mut self, delivery: Delivery, lasted: Duration) {
        self.leave(delivery);
        let id = delivery.0;
        if lasted >= SLOW_AFTER {
            self.remember(id);
        } else {
            self.slow.remove(&id);
        }
    }

    /// Those that have lasted too long change the lane, and with them all of the same subscription: what it is leased
    /// from now on would come on top of them. Returns when to look again.
    pub(super) fn change(&mut self, now: Instant) -> Option<Instant> {
        let (mut lasting, mut next) = (HashSet::new(), None);
        while let Some((began, delivery)) = self.begun.front().copied() {
            if self.under_way.get(&delivery).is_some_and(|attempt| !attempt.is_slow) {
                if now < began + SLOW_AFTER {
                    next = Some(began + SLOW_AFTER);
                    break;
                }
                self.remember(delivery.0);
                lasting.insert(delivery.0);
            }
            self.begun.pop_front();
        }
        if !lasting.is_empty() {
            for ((id, _), attempt) in &mut self.under_way {
                if lasting.contains(id) && !attempt.is_slow {
                    attempt.is_slow = true;
                    self.slow_ones.add(attempt.bytes);
                }
            }
        }
        next
    }

    fn leave(&mut self, delivery: Delivery) {
        if let Some(attempt) = self.under_way.remove(&delivery).filter(|attempt| attempt.is_slow) {
            self.slow_ones.places -= 1;
            self.slow_ones.bytes -= attempt.bytes;
        }
    }

    fn remember(&mut self, subscription_id: i64) {
        if self.slow.len() >= MOST_REMEMBERED {
            self.slow.clear();
        }
        self.slow.insert(subscription_id);
    }
}

impl Width {
    fn add(&mut self, bytes: usize) {
        self.places += 1;
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(20);
    const FOUR: Width = Width { places: 4, bytes: 1000 };

    fn places(lanes: &Lanes) -> (usize, usize) {
        (lanes.quick_room(), lanes.slow_room().places)
    }

    #[test]
    fn what_lasts_gives_its_place_up_and_begins_beside_the_next_time() {
        let (mut lanes, now) = (Lanes::new(FOUR), Instant::now());
        for seq in 1..=4 {
            lanes.begin((7, seq), 1, now);
        }
        assert_eq!(places(&lanes), (0, 4));
        assert_eq!(lanes.change(now + QUICK), Some(now + SLOW_AFTER));
        assert_eq!(lanes.change(now + SLOW_AFTER), None);
        assert_eq!(places(&lanes), (4, 0));
        // The lane is full: more of them would take places of the quick.
        lanes.begin((7, 5), 1, now);
        assert_eq!(places(&lanes), (3, 0));
        for seq in 1..=5 {
            lanes.end((7, seq), SLOW_AFTER);
        }
        assert_eq!(places(&lanes), (4, 4));
        lanes.begin((7, 6), 1, now);
        assert_eq!(places(&lanes), (4, 3));
        lanes.end((7, 6), QUICK);
        assert!(!lanes.is_slow(7));
        lanes.begin((7, 8), 1, now);
        assert_eq!(places(&lanes), (3, 4));
    }

    #[test]
    fn all_of_a_subscription_change_the_lane_with_the_first() {
        let (mut lanes, now) = (Lanes::new(FOUR), Instant::now());
        lanes.begin((7, 1), 400, now);
        lanes.begin((7, 2), 400, now + QUICK);
        lanes.begin((8, 3), 400, now + QUICK);
        assert_eq!(lanes.change(now + SLOW_AFTER), Some(now + QUICK + SLOW_AFTER));
        assert_eq!(lanes.slow_beside(), Width { places: 2, bytes: 800 });
        assert!(lanes.is_slow(7) && !lanes.is_slow(8));
        // One quick answer: what it is leased from now on begins as a quick one, whatever is still under way.
        lanes.end((7, 2), QUICK);
        lanes.begin((7, 4), 400, now);
        assert_eq!((lanes.is_slow(7), lanes.slow_beside()), (false, Width { places: 1, bytes: 400 }));
    }

    #[test]
    fn who_has_a_share_of_the_slow_bytes_gets_no_more_until_some_of_it_ends() {
        let (mut lanes, now) = (Lanes::new(FOUR), Instant::now());
        lanes.begin((7, 1), 200, now);
        lanes.begin((7, 2), 100, now);
        lanes.begin((8, 3), 200, now);
        assert!(lanes.sated().is_empty(), "none is slow");
        lanes.change(now + SLOW_AFTER);
        assert_eq!(lanes.sated(), HashSet::from([7]));
        lanes.end((7, 2), SLOW_AFTER);
        assert!(lanes.sated().is_empty());
    }

    #[test]
    fn the_bytes_of_what_lasts_are_not_those_of_the_quick_until_their_own_are_used_up() {
        let (mut lanes, now) = (Lanes::new(FOUR), Instant::now());
        lanes.begin((7, 1), 600, now);
        assert_eq!((lanes.slow_beside().bytes, lanes.slow_room()), (0, FOUR));
        lanes.change(now + SLOW_AFTER);
        assert_eq!((lanes.slow_beside().bytes, lanes.slow_room()), (600, Width { places: 3, bytes: 400 }));
        lanes.begin((7, 2), 600, now);
        assert_eq!((lanes.slow_beside().bytes, lanes.slow_room()), (1000, Width { places: 0, bytes: 0 }));
        // Sent again while the old attempt is going: it counts once.
        lanes.begin((7, 2), 500, now);
        assert_eq!(lanes.slow_beside(), Width { places: 2, bytes: 1000 });
        lanes.end((7, 1), SLOW_AFTER);
        lanes.end((7, 2), SLOW_AFTER);
        assert_eq!((lanes.slow_beside().bytes, lanes.slow_room()), (0, FOUR));
    }

    #[test]
    fn those_that_have_ended_are_not_looked_at_again() {
        let (mut lanes, now) = (Lanes::new(FOUR), Instant::now());
        for seq in 1..=1000 {
            lanes.begin((1, seq), 1, now);
            lanes.end((1, seq), QUICK);
        }
        lanes.begin((2, 1), 1, now + QUICK);
        assert_eq!(lanes.change(now + QUICK), Some(now + QUICK + SLOW_AFTER));
        assert_eq!(lanes.begun.len(), 1);
    }
}
