//! What the server counts of the statements of one database.

use crate::support::{Db, Session};
use tokio::sync::{Mutex, MutexGuard};

/// Whose statements are counted has the server for itself: a transaction in another database decides, too, when dead
/// rows may be cleared away, that which makes a database as well.
static TURN: Mutex<()> = Mutex::const_new(());

/// What statements took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Taken {
    /// Round trips, if each statement is one.
    pub(super) statements: f64,
    /// Statements inside of functions.
    pub(super) nested: f64,
    /// Buffers looked at, in the cache or not.
    pub(super) buffers: f64,
    /// Of them those that were clean and are no longer.
    pub(super) dirtied: f64,
    pub(super) wal_records: f64,
    /// Without images of pages, which are not written here.
    pub(super) wal_bytes: f64,
}

impl Taken {
    /// The statements of one of so many calls, the rest of one of so many deliveries; in the order of the table.
    pub(super) fn of_each(self, calls: usize, deliveries: usize) -> [f64; 6] {
        let Self { statements, nested, buffers, dirtied, wal_records, wal_bytes } = self;
        let (calls, deliveries) = (calls as f64, deliveries as f64);
        [
            statements / calls,
            nested / calls,
            buffers / deliveries,
            dirtied / deliveries,
            wal_records / deliveries,
            wal_bytes / deliveries,
        ]
    }
}

/// Counts the statements of one database, from a session that is in another.
pub(super) struct Counter {
    session: Session,
    database: String,
    _turn: MutexGuard<'static, ()>,
}

impl Counter {
    /// A database whose statements are counted, made when nobody else counts any more.
    pub(super) async fn with_database() -> (Self, Db) {
        let turn = TURN.lock().await;
        let db = Db::counted().await;
        let database = db.session().await.one("select current_database()::text").await;
        (Self { session: db.beside().await, database, _turn: turn }, db)
    }

    /// Counts from now on.
    pub(super) async fn start(&self) {
        self.session
            .run(&format!(
                "select pg_stat_statements_reset(0, oid, 0) from pg_database where datname = '{}'",
                self.database
            ))
            .await;
    }

    /// What has been counted since.
    pub(super) async fn taken(&self) -> Taken {
        // What a statement took holds what those inside of it took.
        let row = self
            .session
            .query_one(
                "select array[coalesce(sum(s.calls) filter (where s.toplevel), 0), coalesce(sum(s.calls) filter (where not s.toplevel), 0),
                         coalesce(sum(s.shared_blks_hit + s.shared_blks_read) filter (where s.toplevel), 0),
                         coalesce(sum(s.shared_blks_dirtied) filter (where s.toplevel), 0),
                         coalesce(sum(s.wal_records) filter (where s.toplevel), 0),
                         coalesce(sum(s.wal_bytes) filter (where s.toplevel), 0)]::float8[]
                     from pg_stat_statements s join pg_database d on d.oid = s.dbid where d.datname = $1",
                &[&self.database],
            )
            .await
            .expect("the counts");
        let counts: Vec<f64> = row.get(0);
        let [statements, nested, buffers, dirtied, wal_records, wal_bytes] = counts[..] else {
            panic!("six counts: {counts:?}")
        };
        Taken { statements, nested, buffers, dirtied, wal_records, wal_bytes }
    }

    /// The statements that clients sent, and how often each.
    pub(super) async fn sent(&self) -> Vec<(String, i64)> {
        let rows = self
            .session
            .query(
                "select s.query, s.calls from pg_stat_statements s join pg_database d on d.oid = s.dbid
                 where d.datname = $1 and s.toplevel order by s.calls desc",
                &[&self.database],
            )
            .await
            .expect("the statements");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}
