//! Getting work: one expand or one claim, and the endpoints its leases are for.

use crate::db::{Db, DbError, Lease, Room};
use crate::endpoint::{Endpoints, Known};
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// A lease and what is needed to send it.
pub type Work = (Lease, Arc<Known>);

/// What a look at the log or at the queue brought.
pub enum Leased {
    /// From the log.
    Expanded {
        /// To be sent.
        work: Vec<Work>,
        /// Events expanded.
        events: usize,
        /// Deliveries queued rather than leased.
        queued: usize,
        /// Whether there is more to expand.
        more: bool,
        /// Whether some of it is not to wait its turn.
        prioritised: bool,
    },
    /// From the queue.
    Claimed {
        /// To be sent.
        work: Vec<Work>,
        /// When the next delivery is due, from now.
        next_due: Option<Duration>,
        /// Whether some that are due were left for lack of room.
        more: bool,
    },
    /// Versions of the subscriptions whose filters do not end, and how many of these events come before.
    Tried {
        /// Or why they could not be tried.
        slow: Result<Vec<(i64, usize)>, DbError>,
        /// Of how many events.
        events: usize,
    },
    /// On hold, or fenced: nothing is handed out.
    Refused,
    /// The log could not be expanded.
    ExpandFailed(DbError),
    /// The queue could not be claimed from.
    ClaimFailed(DbError),
}

/// How to expand.
pub struct Expand {
    /// So many events at most.
    pub events: usize,
    /// Evaluate no filter.
    pub skip_filters: bool,
    /// Versions of subscriptions whose filters do not end.
    pub slow: Vec<i64>,
    /// For so long at most.
    pub patience: Duration,
}

/// Expands what is new.
pub async fn expand(db: Db, endpoints: Arc<Endpoints>, epoch: i32, room: Room, call: Expand) -> Leased {
    let events = i32::try_from(call.events).unwrap_or(i32::MAX);
    match db.expand(epoch, events, &room, call.skip_filters, &call.slow, call.patience).await {
        Ok(Some(found)) => {
            let (events, queued, more, prioritised) = (found.events, found.queued, found.more, found.prioritised);
            Leased::Expanded { work: equip(&db, &endpoints, found.leases).await, events, queued, more, prioritised }
        }
        Ok(None) => Leased::Refused,
        Err(e) => Leased::ExpandFailed(e),
    }
}

/// Claims what is due.
pub async fn claim(db: Db, endpoints: Arc<Endpoints>, epoch: i32, room: Room) -> Leased {
    match db.claim(epoch, &room).await {
        Ok(Some(found)) => {
            let (next_due, more) = (found.next_due, found.more);
            Leased::Claimed { work: equip(&db, &endpoints, found.leases).await, next_due, more }
        }
        Ok(None) => Leased::Refused,
        Err(e) => Leased::ClaimFailed(e),
    }
}

/// The leases exist by now, so this does not give up: either the endpoints load, or the relay is stopped
/// or fenced and the leases are handed back.
async fn equip(db: &Db, endpoints: &Endpoints, leases: Vec<Lease>) -> Vec<Work> {
    let mut wait = Duration::from_millis(50);
    loop {
        match endpoints.resolve(db, &leases).await {
            Ok(known) => return leases.into_iter().zip(known).collect(),
            Err(error) => {
                warn!(%error, "subscriptions could not be loaded; trying again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(2));
            }
        }
    }
}
