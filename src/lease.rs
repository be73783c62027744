//! Getting work: one expand or one claim, and the endpoints its leases are for.

use crate::crash_point::{Point, reached};
use crate::db::{Claimed, Db, DbError, Expand, Expanded, Lease, Room};
use crate::endpoint::{Endpoints, Known};
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// A lease and what is needed to send it.
pub type Work = (Lease, Arc<Known>);

/// What a look at the log or at the queue brought.
pub enum Leased {
    /// From the log, and what else became of it.
    Expanded(Vec<Work>, Expanded),
    /// From the queue.
    Claimed(Vec<Work>, Claimed),
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

/// Expands what is new.
pub async fn expand(db: Db, endpoints: Arc<Endpoints>, epoch: i32, room: Room, call: Expand) -> Leased {
    match db.expand(epoch, &room, &call).await {
        Ok(Some(mut found)) => {
            reached(Point::ExpandAnswered);
            let leases = std::mem::take(&mut found.leases);
            let work = equip(&db, &endpoints, leases).await;
            reached(Point::ExpandResolved);
            Leased::Expanded(work, found)
        }
        Ok(None) => Leased::Refused,
        Err(e) => Leased::ExpandFailed(e),
    }
}

/// Claims what is due.
pub async fn claim(db: Db, endpoints: Arc<Endpoints>, epoch: i32, room: Room) -> Leased {
    match db.claim(epoch, &room).await {
        Ok(Some(mut found)) => {
            reached(Point::ClaimAnswered);
            let leases = std::mem::take(&mut found.leases);
            let work = equip(&db, &endpoints, leases).await;
            reached(Point::ClaimResolved);
            Leased::Claimed(work, found)
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
