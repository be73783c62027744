//! How the application uses the outbox: a state change and its event in one transaction, or neither.
//!
//! The application's login holds `outbox_producer` and nothing more. It never waits for a delivery and
//! does not know whether there is a relay.

use super::DemoError;
use std::cell::RefCell;
use std::collections::BTreeMap;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

/// What transactions came to.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    /// Committed.
    pub(super) committed: u32,
    /// Committed without an event: a form that had come before.
    pub(super) repeated: u32,
    /// Rolled back, and why: the constraint, or the words of whoever withdrew.
    pub(super) rolled_back: BTreeMap<String, u32>,
    /// Parts of a committed transaction that were rolled back to a savepoint.
    pub(super) savepoints: u32,
}

impl Tally {
    /// Adds another office's.
    pub(super) fn add(&mut self, other: &Tally) {
        self.committed += other.committed;
        self.repeated += other.repeated;
        self.savepoints += other.savepoints;
        for (reason, count) in &other.rolled_back {
            *self.rolled_back.entry(reason.clone()).or_default() += count;
        }
    }

    /// All that were rolled back.
    pub(super) fn rolled_back_total(&self) -> u32 {
        self.rolled_back.values().sum()
    }
}

/// Why a transaction is not to be committed.
pub(super) enum Stop {
    /// The database said so.
    Database(tokio_postgres::Error),
    /// Somebody thought better of it.
    Withdrawn(&'static str),
}

impl From<tokio_postgres::Error> for Stop {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

/// How a transaction ended.
#[must_use]
pub(super) enum Outcome<T> {
    /// Committed.
    Committed(T),
    /// Rolled back: the constraint that was violated, or why it was withdrawn.
    RolledBack(String),
}

impl<T> Outcome<T> {
    /// What the transaction returned.
    ///
    /// # Errors
    /// If it was rolled back: the story does not want that.
    pub(super) fn committed(self) -> Result<T, DemoError> {
        match self {
            Self::Committed(value) => Ok(value),
            Self::RolledBack(reason) => Err(DemoError::Unexpected(format!("a transaction was rolled back: {reason}"))),
        }
    }

    /// # Errors
    /// Unless it was rolled back for that reason.
    pub(super) fn rolled_back(self, wanted: &str) -> Result<(), DemoError> {
        match self {
            Self::RolledBack(reason) if reason == wanted => Ok(()),
            Self::RolledBack(reason) => Err(DemoError::Unexpected(format!("rolled back by {reason}, not by {wanted}"))),
            Self::Committed(_) => Err(DemoError::Unexpected(format!("{wanted} let a transaction through"))),
        }
    }
}

/// One of the application's sessions.
pub(super) struct Office {
    client: Client,
    /// What its transactions came to.
    pub(super) tally: Tally,
    /// Drawn from with a fixed seed.
    pub(super) random: fastrand::Rng,
}

impl Office {
    /// An office with its own connection and its own luck.
    pub(super) fn new(client: Client, seed: u64) -> Self {
        Self { client, tally: Tally::default(), random: fastrand::Rng::with_seed(seed) }
    }

    /// The session, for what needs no event.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Does a piece of work in one transaction, and counts what came of it.
    ///
    /// # Errors
    /// On anything but a violated constraint.
    pub(super) async fn transact<T>(
        &mut self,
        work: impl AsyncFnOnce(&Desk<'_>) -> Result<T, Stop>,
    ) -> Result<Outcome<T>, DemoError> {
        let Ended { result, published, mut undone } = attempt(&mut self.client, work).await?;
        self.tally.savepoints += undone.len() as u32;
        let outcome = match result {
            Ok(value) => {
                self.tally.committed += 1;
                Outcome::Committed(value)
            }
            Err(stop) => {
                let reason = match stop {
                    Stop::Withdrawn(reason) => reason.to_owned(),
                    Stop::Database(e) => violated_constraint(&e).ok_or(e)?,
                };
                *self.tally.rolled_back.entry(reason.clone()).or_default() += 1;
                undone.extend(published.into_iter().map(|(id, kind)| (id, kind, reason.clone())));
                Outcome::RolledBack(reason)
            }
        };
        for (id, kind, reason) in undone {
            let note = "insert into petanque.undone (event_id, type, reason) values ($1, $2, $3)";
            self.client.execute(note, &[&id, &kind, &reason]).await?;
        }
        Ok(outcome)
    }
}

/// What a transaction leaves behind.
struct Ended<T> {
    result: Result<T, Stop>,
    published: Vec<(Uuid, &'static str)>,
    undone: Vec<(Uuid, &'static str, String)>,
}

async fn attempt<T>(
    client: &mut Client,
    work: impl AsyncFnOnce(&Desk<'_>) -> Result<T, Stop>,
) -> Result<Ended<T>, DemoError> {
    let desk =
        Desk { transaction: client.transaction().await?, published: RefCell::default(), undone: RefCell::default() };
    let result = work(&desk).await;
    let Desk { transaction, published, undone } = desk;
    let result = match result {
        // A deferred constraint speaks up only here.
        Ok(value) => transaction.commit().await.map(|()| value).map_err(Stop::Database),
        Err(stop) => {
            transaction.rollback().await?;
            Err(stop)
        }
    };
    Ok(Ended { result, published: published.into_inner(), undone: undone.into_inner() })
}

/// A transaction under way.
pub(super) struct Desk<'a> {
    /// The transaction, for the application's own tables.
    pub(super) transaction: Transaction<'a>,
    published: RefCell<Vec<(Uuid, &'static str)>>,
    undone: RefCell<Vec<(Uuid, &'static str, String)>>,
}

impl Desk<'_> {
    /// Publishes through the function: with an idempotency key the same thing is published once, however
    /// often the form is sent.
    pub(super) async fn publish(
        &self,
        kind: &'static str,
        payload: &serde_json::Value,
        ordering_key: &str,
        key: Option<&str>,
    ) -> Result<Uuid, Stop> {
        let publish = "select outbox.publish($1, $2::text::jsonb, ordering_key => $3, idempotency_key => $4)";
        let row = self.transaction.query_one(publish, &[&kind, &payload.to_string(), &ordering_key, &key]).await?;
        let id = row.get(0);
        self.published.borrow_mut().push((id, kind));
        Ok(id)
    }

    /// Notes an event that the application inserted itself, under an id of its own.
    pub(super) fn inserted(&self, id: Uuid, kind: &'static str) {
        self.published.borrow_mut().push((id, kind));
    }

    /// Does a part of the work that may fail alone; returns the constraint that refused it.
    pub(super) async fn in_savepoint(
        &self,
        work: impl AsyncFnOnce() -> Result<(), Stop>,
    ) -> Result<Option<String>, Stop> {
        self.transaction.batch_execute("savepoint part").await?;
        let before = self.published.borrow().len();
        match work().await {
            Ok(()) => {
                self.transaction.batch_execute("release savepoint part").await?;
                Ok(None)
            }
            Err(Stop::Database(e)) => {
                let reason = violated_constraint(&e).ok_or(e)?;
                self.transaction.batch_execute("rollback to savepoint part").await?;
                let undone = self.published.borrow_mut().split_off(before);
                self.undone.borrow_mut().extend(undone.into_iter().map(|(id, kind)| (id, kind, reason.clone())));
                Ok(Some(reason))
            }
            Err(withdrawn) => Err(withdrawn),
        }
    }
}

fn violated_constraint(error: &tokio_postgres::Error) -> Option<String> {
    let error = error.as_db_error()?;
    error.code().code().starts_with("23").then(|| error.constraint().unwrap_or("a constraint").to_owned())
}
