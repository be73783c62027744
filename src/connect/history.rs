//! Which of two primaries is the later one.
//!
//! When a standby is promoted its history, the *timeline*, gets the next number. The old primary goes on with the old
//! one if nobody keeps it from coming back, and would be written to again by whoever finds it first in a list of hosts:
//! it has events that the new primary lost, and no record of what was sent since. A process that has seen a later
//! timeline of the same cluster does not connect to such a server. (That is a guard, not a fence: a process that is
//! started while both are up knows of neither.)

use super::ConnectError;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tokio_postgres::{Client, SimpleQueryMessage};

/// System identifier and timeline; 0 on a standby, whose timeline is not its own.
const ASK: &str = "select system_identifier, case when pg_is_in_recovery() then 0
                       else ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint end
                   from pg_control_system()";

/// What one process has seen of a database's histories; shared by all its connections to that database.
#[derive(Debug, Default)]
pub struct History(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    cluster: String,
    timeline: u32,
    since: Option<Instant>,
}

impl History {
    /// Whether a connection that was made then may be to a server that has been left since.
    pub fn was_left_since(&self, made_at: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).since.is_some_and(|since| made_at < since)
    }

    /// Takes note of a server's history; refuses one that another has gone beyond.
    fn note(&self, cluster: &str, timeline: u32) -> Result<(), ConnectError> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.cluster != cluster {
            // The first one, or a database that was moved: outbox_relay.was_moved holds where that is due.
            let since = (!seen.cluster.is_empty()).then(Instant::now);
            *seen = Seen { cluster: cluster.to_owned(), timeline, since };
        } else if timeline < seen.timeline {
            return Err(ConnectError::Behind { found: timeline, newest: seen.timeline });
        } else if timeline > seen.timeline {
            (seen.timeline, seen.since) = (timeline, Some(Instant::now()));
        }
        Ok(())
    }
}

/// Asks a server where it stands. Who may not ask is let in.
pub(super) async fn follow(client: &Client, history: &History) -> Result<(), ConnectError> {
    let answers = match client.simple_query(ASK).await {
        Ok(answers) => answers,
        Err(error) if error.as_db_error().is_some() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let Some(SimpleQueryMessage::Row(row)) = answers.iter().find(|m| matches!(m, SimpleQueryMessage::Row(_))) else {
        return Ok(());
    };
    match (row.get(0), row.get(1).and_then(|timeline| timeline.parse().ok())) {
        (Some(cluster), Some(timeline @ 1..)) => history.note(cluster, timeline),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_goes_forward_only_and_another_one_starts_anew() {
        let (history, before) = (History::default(), Instant::now());
        history.note("a", 1).expect("the first");
        history.note("a", 1).expect("the same");
        assert!(!history.was_left_since(before));
        history.note("a", 3).expect("a later one");
        assert!(history.was_left_since(before) && !history.was_left_since(Instant::now()));
        assert!(matches!(history.note("a", 2), Err(ConnectError::Behind { found: 2, newest: 3 })));
        let before = Instant::now();
        history.note("b", 1).expect("another cluster");
        assert!(history.was_left_since(before));
    }
}
