//! The relay and its direct connection: opening and losing it, epochs that are doubted, and the door.

use super::{BUSY, DOOR_BACKOFF, Relay};
use crate::crash_point::{Point, reached};
use crate::db::DbError;
use crate::wake::{Direct, Identity};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

/// Between two attempts to reach the database, growing: a second after it is back everything goes on.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A round trip on the direct connection that takes longer means that it is gone.
const DIRECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A round trip on the direct connection; `None` if it is gone, or as good as gone.
pub(super) async fn in_time<T>(call: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Option<T> {
    timeout(DIRECT_TIMEOUT, call).await.ok()?.ok()
}

impl Relay {
    pub(super) fn start_connecting(&mut self) {
        let (target, settings) = (self.target.clone(), self.settings.clone());
        // Taken up again only for the results that are still to be recorded under it.
        let previous = self.unrecorded.contains_key(&self.epoch).then_some(self.epoch);
        self.reconnecting = Some(tokio::spawn(async move {
            let identity = Identity { name: &settings.name, environment: &settings.environment };
            let mut wait = RECONNECT.0;
            loop {
                match Direct::open(&target, &identity, settings.listen, previous).await {
                    Ok(direct) => return direct,
                    Err(error) => {
                        warn!(%error, retry_ms = wait.as_millis() as u64, "the database cannot be reached");
                        // Spread, so that a fleet does not come back in step.
                        sleep(wait.mul_f64(0.5 + fastrand::f64())).await;
                        wait = (wait * 2).min(RECONNECT.1);
                    }
                }
            }
        }));
    }

    pub(super) async fn on_connected(&mut self, direct: Direct) {
        if self.epoch == direct.epoch {
            info!(epoch = self.epoch, "connected again");
        } else {
            info!(epoch = direct.epoch, relay = %self.settings.name, environment = %self.settings.environment, "registered");
        }
        reached(Point::Registered);
        self.epoch = direct.epoch;
        self.direct = Some(direct);
        self.note_turn();
        self.log_wanted = true;
        self.due_at = Some(Instant::now());
        self.tick_at = Instant::now();
        self.retire_doubted().await;
    }

    /// Begins a new epoch if the present one is doubted; the old one lives until its last result is recorded.
    pub(super) async fn retire_doubted(&mut self) {
        let Some(doubted) = self.doubted else { return };
        if self.direct.is_none() {
            return; // once it is back
        }
        // What waits would keep the old epoch alive, or was another relay's once it ended.
        self.give_up_waiting(Instant::now());
        let Some(direct) = self.direct.as_mut() else { return };
        if direct.epoch == doubted {
            if in_time(direct.step_down()).await.is_none() {
                return self.lose_direct();
            }
            self.retired.extend(self.direct.take().filter(|direct| self.unrecorded.contains_key(&direct.epoch)));
            self.epoch = 0;
        }
        self.doubted = None;
    }

    /// A call that may have been committed though its answer was lost left leases that nobody here knows.
    pub(super) async fn doubt_after(&mut self, error: &DbError, epoch: i32) {
        if error.leaves_doubt() && epoch == self.epoch {
            self.doubted = Some(self.epoch);
            self.retire_doubted().await;
        }
    }

    pub(super) fn lose_direct(&mut self) {
        if self.direct.take().is_some() {
            self.doubted = (self.epoch != 0).then_some(self.epoch);
            self.metrics.lost_connection();
            self.note_turn();
            warn!(epoch = self.epoch, "the direct connection is lost");
        }
    }

    /// Has the bell if nobody else has; leaves it to another relay while this one would not act on it.
    pub(super) async fn keep_or_leave_bell(&mut self) {
        let acts = self.hold.is_none() && self.drain_until.is_none();
        let Some(direct) = self.direct.as_mut() else { return };
        let had_bell = direct.has_bell();
        let done = if acts { in_time(direct.try_bell()).await.map(drop) } else { in_time(direct.leave_bell()).await };
        match done {
            None => self.lose_direct(),
            Some(()) if had_bell && !acts => self.call_for_help(),
            Some(()) => {}
        }
    }

    /// Wakes the other relays: there is something that this one does not take.
    pub(super) fn call_for_help(&mut self) {
        if self.settings.listen && self.help.as_ref().is_none_or(JoinHandle::is_finished) {
            let db = self.db.clone();
            // If it does not get through, the others poll.
            self.help = Some(tokio::spawn(async move { drop(db.call_for_help().await) }));
        }
    }

    /// Takes the door and looks once more; while a writer holds it, looks again after a little while.
    pub(super) async fn try_to_sleep(&mut self, now: Instant) {
        let Some(direct) = self.direct.as_mut() else { return };
        match in_time(direct.try_door()).await {
            Some(true) => {
                reached(Point::DoorTaken);
                self.door_backoff = DOOR_BACKOFF.0;
                self.log_wanted = true;
                self.lease_at = now;
            }
            Some(false) => {
                self.log_wanted = true;
                self.lease_at = now + self.door_backoff;
                self.door_backoff = (self.door_backoff * 2).min(DOOR_BACKOFF.1);
            }
            None => self.lose_direct(),
        }
    }

    /// Found something with the door taken: if it goes on like this, producers should not have to ring.
    pub(super) async fn leave_door_if_busy(&mut self, now: Instant, more: bool) {
        let busy = more || now.duration_since(self.rung_at) < BUSY;
        self.rung_at = now;
        if let (true, Some(direct)) = (busy, self.direct.as_mut())
            && in_time(direct.leave_door()).await.is_none()
        {
            self.lose_direct();
        }
    }
}
