//! What a run costs: read before and after it, the difference is told per delivery.
//!
//! Processor time comes from `/proc` (proc(5); ticks of 1/100 s) and is there for a server on this machine only.
//! PostgreSQL's is that of the postmaster, its living children and those that have ended: the postmaster has waited
//! for them, so theirs is in its `cutime` and `cstime`.
//!
//! Statements are counted by `pg_stat_statements`, in the sessions of [`Stage::counted_relays`] alone: the library is
//! loaded with `track = none`, and their URL sets `all`. A top-level statement is a round trip. (The relay prepares each
//! of its statements once a connection, which is not counted.)

use super::BenchError;
use super::report::Row;
use super::stage::{Relay, Stage};
use std::fs;
use std::time::Duration;
use tokio::time::Instant;

/// Processor seconds by process, WAL and statements up to now.
pub(super) struct Meter {
    at: Instant,
    relays_s: f64,
    postgres_s: Option<f64>,
    sink_s: f64,
    bench_s: f64,
    wal_bytes: f64,
    cores: Cores,
    /// Round trips, and statements with those that functions run.
    calls: Option<(f64, f64)>,
    dead: Dead,
}

/// What was used between two readings.
#[derive(Clone, Debug)]
pub(super) struct Used {
    pub(super) took: Duration,
    pub(super) relays_s: f64,
    /// None if the server is not on this machine.
    pub(super) postgres_s: Option<f64>,
    pub(super) sink_s: f64,
    /// This process: the writers.
    pub(super) bench_s: f64,
    pub(super) wal_bytes: f64,
    /// None if they were not counted.
    pub(super) round_trips: Option<f64>,
    pub(super) statements: Option<f64>,
    /// What the machine's cores did not do, as shares of all they could have done: had nothing to do, or were lent by
    /// the hypervisor to somebody else, by which figures of two runs differ that ought not to.
    pub(super) idle_share: f64,
    pub(super) stolen_share: f64,
    /// Greatest resident memory of each relay since it was started.
    pub(super) peak_rss_mib: Vec<f64>,
}

/// Row versions that were left dead, vacuumed or not, since the meter was started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dead {
    pub(super) event: f64,
    pub(super) finished: f64,
    pub(super) attempt: f64,
    pub(super) queue: f64,
}

impl Meter {
    pub(super) async fn start(stage: &Stage, relays: &[Relay]) -> Result<Self, BenchError> {
        let dead = Dead::so_far(stage).await?;
        Self::now(stage, relays, dead).await
    }

    async fn now(stage: &Stage, relays: &[Relay], dead: Dead) -> Result<Self, BenchError> {
        let wal = "select (pg_current_wal_insert_lsn() - '0/0')::float8";
        Ok(Self {
            wal_bytes: stage.client.query_one(wal, &[]).await?.get(0),
            calls: if relays.iter().any(|relay| relay.counted) { calls(stage).await? } else { None },
            at: Instant::now(),
            cores: Cores::so_far(),
            relays_s: relays.iter().map(|relay| cpu_s(relay.id())).sum(),
            postgres_s: stage.postmaster.map(tree_cpu_s),
            sink_s: stage.sink_id().map_or(0.0, cpu_s),
            bench_s: cpu_s(std::process::id()),
            dead,
        })
    }

    /// What was used since the start. `relays` are those the meter was started with.
    pub(super) async fn read(&self, stage: &Stage, relays: &[Relay]) -> Result<Used, BenchError> {
        let took = self.at.elapsed();
        let now = Self::now(stage, relays, self.dead).await?;
        let calls = self.calls.zip(now.calls);
        Ok(Used {
            took,
            relays_s: now.relays_s - self.relays_s,
            postgres_s: self.postgres_s.zip(now.postgres_s).map(|(before, after)| after - before),
            sink_s: now.sink_s - self.sink_s,
            bench_s: now.bench_s - self.bench_s,
            wal_bytes: now.wal_bytes - self.wal_bytes,
            round_trips: calls.map(|(before, after)| after.0 - before.0),
            statements: calls.map(|(before, after)| after.1 - before.1),
            idle_share: (now.cores.idle - self.cores.idle) / (now.cores.all - self.cores.all).max(1.0),
            stolen_share: (now.cores.stolen - self.cores.stolen) / (now.cores.all - self.cores.all).max(1.0),
            peak_rss_mib: relays.iter().map(|relay| peak_rss_mib(relay.id())).collect(),
        })
    }

    /// Ends the relays, with which they hand in their statistics, and tells what dead rows there are since the start.
    pub(super) async fn dead(&self, stage: &Stage, relays: Vec<Relay>) -> Result<Dead, BenchError> {
        drop(relays);
        stage.alone().await?;
        let now = Dead::so_far(stage).await?;
        Ok(Dead {
            event: now.event - self.dead.event,
            finished: now.finished - self.dead.finished,
            attempt: now.attempt - self.dead.attempt,
            queue: now.queue - self.dead.queue,
        })
    }
}

impl Used {
    /// CPU of relays, PostgreSQL and writers: of all but the sink. None if PostgreSQL's is not known.
    pub(super) fn cpu_s(&self) -> Option<f64> {
        self.postgres_s.map(|postgres_s| self.relays_s + postgres_s + self.bench_s)
    }

    /// Adds the figures per delivery that every scenario tells.
    pub(super) fn add_to(&self, row: &mut Row, deliveries: f64) {
        let ms = |seconds: f64| seconds * 1000.0 / deliveries;
        row.add("relay_cpu_ms", ms(self.relays_s));
        row.add_known("postgres_cpu_ms", self.postgres_s.map(ms));
        row.add("sink_cpu_ms", ms(self.sink_s));
        row.add("bench_cpu_ms", ms(self.bench_s));
        row.add_known("cpu_ms", self.cpu_s().map(ms));
        row.add("idle_share", self.idle_share);
        row.add("stolen_share", self.stolen_share);
        row.add("wal_bytes", self.wal_bytes / deliveries);
        row.add_known("round_trips", self.round_trips.map(|calls| calls / deliveries));
        row.add_known("statements", self.statements.map(|calls| calls / deliveries));
        row.add_known("relay_peak_rss_mib", self.peak_rss_mib.iter().copied().reduce(f64::max));
    }
}

impl Dead {
    /// Of all partitions. What an update or a delete left behind stays counted when it is vacuumed away; what a
    /// rollback left is only in `n_dead_tup`, until then.
    async fn so_far(stage: &Stage) -> Result<Self, BenchError> {
        let count =
            "select coalesce(sum(greatest(n_tup_upd + n_tup_del, n_dead_tup)) filter (where relname ~ $1), 0)::float8
             from pg_stat_user_tables where schemaname in ('outbox', 'outbox_relay')";
        let mut dead = [0.0; 4];
        for (dead, pattern) in dead.iter_mut().zip(["^event_(s|default)", "^finished_", "^attempt_", "^queue$"]) {
            *dead = stage.client.query_one(count, &[&pattern]).await?.get(0);
        }
        let [event, finished, attempt, queue] = dead;
        Ok(Self { event, finished, attempt, queue })
    }

    /// In `event`, `finished` and `attempt`, where there must be none, as a count; in the queue per delivery.
    pub(super) fn add_to(self, row: &mut Row, deliveries: f64) {
        row.add("dead_event_rows", self.event);
        row.add("dead_finished_rows", self.finished);
        row.add("dead_attempt_rows", self.attempt);
        row.add("dead_history_rows", self.event + self.finished + self.attempt);
        row.add("dead_queue_rows", self.queue / deliveries);
    }
}

async fn calls(stage: &Stage) -> Result<Option<(f64, f64)>, BenchError> {
    let Some(schema) = &stage.statements_in else { return Ok(None) };
    let sql = format!(
        "select coalesce(sum(calls) filter (where toplevel), 0)::float8, coalesce(sum(calls), 0)::float8
         from {schema}.pg_stat_statements where dbid = (select oid from pg_database where datname = current_database())"
    );
    let row = stage.client.query_one(&sql, &[]).await?;
    Ok(Some((row.get(0), row.get(1))))
}

/// Ticks of all cores (proc(5), /proc/stat).
#[derive(Clone, Copy, Default)]
struct Cores {
    all: f64,
    idle: f64,
    stolen: f64,
}

impl Cores {
    fn so_far() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        // user nice system idle iowait irq softirq steal; what guests use is in user already.
        let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
        let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
        let tick = |i: usize| ticks.get(i).copied().unwrap_or_default();
        Self { all: ticks.iter().sum(), idle: tick(3) + tick(4), stolen: tick(7) }
    }
}

/// The server's first process, if that is on this machine: the parent of a session of ours.
pub(super) fn postmaster_of(backend: u32) -> Option<u32> {
    let is_postgres =
        |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|s| s.starts_with("postgres"));
    let parent = stat(backend)?.parent;
    (is_postgres(backend) && is_postgres(parent)).then_some(parent)
}

/// Processor seconds a process has used.
pub(super) fn cpu_s(pid: u32) -> f64 {
    stat(pid).map_or(0.0, |stat| stat.own_s)
}

/// Processor seconds of a process, its living children and those that have ended.
pub(super) fn tree_cpu_s(root: u32) -> f64 {
    let children = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let stat = stat(entry.file_name().to_str()?.parse().ok()?)?;
        (stat.parent == root).then_some(stat.own_s)
    });
    let living: f64 = children.sum();
    living + stat(root).map_or(0.0, |stat| stat.own_s + stat.ended_children_s)
}

struct Stat {
    parent: u32,
    own_s: f64,
    ended_children_s: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name in parentheses may hold spaces and parentheses: count from behind the last.
    let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
    let seconds = |i: usize| Some(fields.get(i)?.parse::<f64>().ok()? / 100.0);
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own_s: seconds(11)? + seconds(12)?,
        ended_children_s: seconds(13)? + seconds(14)?,
    })
}

fn peak_rss_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_lead_the_reader_of_its_times_astray() {
        let stat = parse_stat("7 (a) R 1 (b) S 42 7 7 0 -1 4 1 2 3 4 150 50 700 300 20 0 1 0 9").expect("a line");
        assert_eq!((stat.parent, stat.own_s, stat.ended_children_s), (42, 2.0, 10.0));
    }

    #[test]
    fn idle_cores_wait_for_work_or_for_a_disk_and_guests_are_not_counted_twice() {
        let cores = Cores::parse("cpu  100 0 50 30 10 0 5 5 90 0\ncpu0 1 1 1 1\n");
        assert_eq!((cores.all, cores.idle, cores.stolen), (200.0, 40.0, 5.0));
    }

    #[test]
    fn the_time_of_children_that_ended_is_in_the_tree() {
        let before = tree_cpu_s(std::process::id());
        let spin = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        std::process::Command::new("sh").args(["-c", spin]).status().expect("a shell");
        assert!(tree_cpu_s(std::process::id()) >= before + 0.05);
    }
}
