//! Once a second, beside the loop: the database is told that the relay lives and asked how things stand; health,
//! samples and new secrets are written, segments looked after.

use super::attempts::Unwanted;
use super::{Relay, TICK};
use crate::crash_point::{Point, reached};
use crate::db::{Db, DbError, HealthDelta, Tick};
use crate::metrics::Sample;
use crate::record;
use crate::secrets::Secrets;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

/// How often segments and retention are looked after.
const MAINTAIN: Duration = Duration::from_secs(60);
/// A lease that has not begun after so long is handed back: nobody's attempts end, and what is to be sent may have
/// changed meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What came of it.
pub(super) struct Housekept {
    epoch: i32,
    tick: Result<Tick, DbError>,
    pub(super) unwritten: Vec<(i64, HealthDelta)>,
    /// Leases that could not be handed back yet.
    pub(super) unwanted: Vec<Unwanted>,
    /// They may have been handed back, or not.
    doubt: Vec<(i32, DbError)>,
}

impl Relay {
    pub(super) fn start_housekeeping(&mut self, now: Instant) {
        self.tick_at = now + TICK;
        let maintain = self.has_ticked && now >= self.maintain_at && self.hold.is_none() && self.drain_until.is_none();
        if maintain {
            self.maintain_at = now + MAINTAIN;
        }
        let deltas: Vec<_> = self.health.drain().collect();
        let sample = self.take_sample(now);
        if let Some(since) = now.checked_sub(LONGEST_WAIT) {
            self.give_up_waiting(since);
        }
        self.housekeeping = Some(tokio::spawn(housekeep(
            self.db.clone(),
            self.epoch,
            deltas,
            sample,
            std::mem::take(&mut self.unwanted),
            maintain,
            self.endpoints.secrets().clone(),
        )));
    }

    pub(super) async fn on_housekept(&mut self, housekept: Housekept) {
        record::put_back(&mut self.health, housekept.unwritten);
        self.results.append(&mut self.held_up);
        self.unwanted.extend(housekept.unwanted);
        for (epoch, error) in &housekept.doubt {
            self.doubt_after(error, *epoch).await;
        }
        let tick = match housekept.tick {
            Ok(tick) => tick,
            Err(error) => {
                warn!(%error, "the tick failed");
                return;
            }
        };
        self.has_ticked = true;
        self.excerpt_bytes = tick.response_excerpt_bytes;
        self.circuit_failures = if tick.circuit_failures == 0 { i64::MAX } else { tick.circuit_failures };
        self.endpoints.allow_insecure_http(tick.allow_insecure_http);
        if tick.handed_back > 0 {
            info!(deliveries = tick.handed_back, "a relay is gone; what it had leased is due at once");
            self.due_at = Some(Instant::now());
        }
        if tick.fenced && housekept.epoch == self.epoch {
            error!(epoch = self.epoch, "this relay was taken for dead; it begins again");
            self.epoch = 0;
            self.give_up_waiting(Instant::now());
            self.lose_direct();
        }
        if tick.hold != self.hold {
            match &tick.hold {
                Some(reason) => {
                    warn!(reason, "on hold: nothing is sent");
                    // What waits for a place is not begun any more.
                    self.give_up_waiting(Instant::now());
                    self.hand_back_now();
                }
                None => {
                    info!("the hold is lifted");
                    self.log_wanted = true;
                    self.due_at = Some(Instant::now());
                }
            }
            self.lease_at = Instant::now();
            self.hold = tick.hold;
        }
        self.keep_or_leave_bell().await;
    }
}

async fn housekeep(
    db: Db,
    epoch: i32,
    deltas: Vec<(i64, HealthDelta)>,
    sample: Option<(Duration, Sample)>,
    unwanted: Vec<Unwanted>,
    maintain: bool,
    secrets: Arc<Secrets>,
) -> Housekept {
    let tick = db.tick(epoch).await;
    reached(Point::TickAnswered);
    let mut unwritten = deltas;
    if !unwritten.is_empty() {
        match db.add_health(&unwritten).await {
            Ok(written) => unwritten.retain(|(id, _)| !written.contains(id)),
            Err(error) => warn!(%error, "health could not be written; it is kept"),
        }
    }
    if let Some((span, sample)) = sample
        && let Err(error) = db.add_sample(epoch, span, &sample).await
    {
        warn!(%error, "a sample of the activity could not be kept");
    }
    let (unwanted, doubt) = hand_back(&db, unwanted).await;
    if maintain {
        match db.maintain().await {
            Ok(done) => done.iter().for_each(|line| info!(done = line, "maintained")),
            Err(error) => warn!(%error, "maintenance failed"),
        }
    }
    // On hold the database may be of another environment, whose relays do not have this key.
    let to_seal = tick.as_ref().is_ok_and(|tick| tick.unsealed && tick.hold.is_none());
    if to_seal && secrets.keyring.current().is_some() {
        match db.seal_found(&secrets.keyring).await {
            Ok(0) => {} // another relay was first
            Ok(secrets) => info!(secrets, "sealed what was made in SQL"),
            Err(error) => warn!(%error, "secrets could not be sealed; it is tried again"),
        }
    }
    debug!(epoch, "tick");
    Housekept { epoch, tick, unwritten, unwanted, doubt }
}

/// Returns what could not be handed back yet, and epochs of which it is not known.
pub(super) async fn hand_back(db: &Db, mut unwanted: Vec<Unwanted>) -> (Vec<Unwanted>, Vec<(i32, DbError)>) {
    let (mut left, mut doubt) = (Vec::new(), Vec::new());
    unwanted.sort_unstable();
    for same in unwanted.chunk_by(|a, b| a.0 == b.0) {
        let (epoch, leases) = (same[0].0, same.iter().map(|(_, lease)| *lease).collect::<Vec<_>>());
        let handed_back = db.hand_back(epoch, &leases).await;
        reached(Point::HandBackAnswered);
        match handed_back {
            Ok(locked) => left.extend(locked.into_iter().map(|lease| (epoch, lease))),
            // Once only: see the function in SQL. The end of the epoch hands back what this did not.
            Err(error) if error.leaves_doubt() => doubt.push((epoch, error)),
            Err(error) => {
                warn!(%error, leases = leases.len(), "leases could not be handed back; it is tried again");
                left.extend_from_slice(same);
            }
        }
    }
    (left, doubt)
}
