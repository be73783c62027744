//! What healthy subscriptions feel of others that hang, are dead, are slow or fail.
//!
//! Every subscription is of a tenant of its own and wants its tenant's events. Phases alternate: the healthy alone, then
//! beside bad ones, then alone again; the same events are written in all of them, for the bad ones at the same rate each
//! as for the healthy, and in a phase without them nobody wants those. A phase is a steady beat for the healthy, from the
//! moment on at which events for the bad ones begin, then a backlog of the same mixture, timed until the last of the
//! healthy ones' deliveries has arrived. All of it has the relay's own defaults: an attempt may take 15 s, one
//! subscription may have 64 of them under way.

use super::clock::Clock;
use super::payloads::Payloads;
use super::report::{Report, Row, Table, column, spread_column};
use super::scene::{Turn, delivered, log_end};
use super::stage::{Relay, Stage};
use super::writers::{BEAT, Beat};
use super::{Arguments, BenchError};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(300);
/// As `relay.max_in_flight` has it: the benchmark's relays would let one subscription have all there is.
const MAX_IN_FLIGHT: i32 = 64;

#[derive(clap::Args, serde::Serialize, Clone)]
#[command(next_help_heading = "Isolation")]
#[group(skip)]
pub(super) struct Options {
    /// Healthy subscriptions
    #[arg(long, value_name = "N", default_value_t = 70, default_value_if("quick", "true", "14"), value_parser = clap::value_parser!(u64).range(1..))]
    healthy: u64,
    /// Bad ones beside them
    #[arg(long, value_name = "N", default_value_t = 30, default_value_if("quick", "true", "6"), value_parser = clap::value_parser!(u64).range(1..))]
    bad: u64,
    /// What is bad about them, by phase
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Bad::Nothing, Bad::Hanging, Bad::Dead, Bad::Slow, Bad::Failing, Bad::Mixed])]
    bad_kinds: Vec<Bad>,
    /// Events a second for all healthy ones together
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    isolation_rate: u64,
    /// Seconds of a phase's beat
    #[arg(long, value_name = "S", default_value = "5", default_value_if("quick", "true", "1"), value_parser = super::seconds)]
    #[serde(serialize_with = "super::in_seconds")]
    isolation_seconds: Duration,
    /// Events for all healthy ones together in a phase's backlog
    #[arg(long, value_name = "N", default_value_t = 10_000, default_value_if("quick", "true", "1000"))]
    isolation_events: u64,
}

#[derive(clap::ValueEnum, serde::Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Bad {
    /// Answer at once: what the load of so many more does
    Nothing,
    /// Accept and never answer
    Hanging,
    /// Refuse the connection
    Dead,
    /// Answer after two seconds
    Slow,
    /// Answer 500
    Failing,
    /// Of each a share
    Mixed,
}

impl Bad {
    const EACH: [Self; 4] = [Self::Hanging, Self::Dead, Self::Slow, Self::Failing];

    fn describe(self) -> &'static str {
        match self {
            Self::Nothing => "more healthy ones",
            Self::Hanging => "that hang",
            Self::Dead => "that are dead",
            Self::Slow => "that answer after 2 s",
            Self::Failing => "that answer 500",
            Self::Mixed => "of all four kinds",
        }
    }

    /// Where the nth of them is.
    fn url(self, nth: usize, sink: u16, dead: SocketAddr) -> String {
        match self {
            Self::Nothing => format!("http://127.0.0.1:{sink}/in"),
            Self::Hanging => format!("http://127.0.0.1:{sink}/hang"),
            Self::Dead => format!("http://{dead}/in"),
            Self::Slow => format!("http://127.0.0.1:{sink}/slow/2000"),
            Self::Failing => format!("http://127.0.0.1:{sink}/status/500"),
            Self::Mixed => Self::EACH[nth % Self::EACH.len()].url(nth, sink, dead),
        }
    }
}

struct Scene<'a> {
    stage: &'a Stage,
    options: &'a Options,
    clock: Clock,
    payloads: Payloads,
    healthy: Vec<String>,
    bad: Vec<String>,
    sink: u16,
    /// Bound, and never listened at.
    dead: SocketAddr,
}

pub(super) async fn run(stage: &mut Stage, arguments: &Arguments) -> Result<Report, BenchError> {
    let options = &arguments.isolation;
    let sink = stage.sink()?.port;
    let bound = TcpSocket::new_v4()?;
    bound.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let payloads = Payloads::of_size(1024);
    stage.load(&payloads).await?;
    let tenants = |name: &str, count: u64| (0..count).map(|n| format!("{name}-{n}")).collect::<Vec<_>>();
    let scene = Scene {
        stage,
        options,
        clock: Clock::start()?,
        payloads,
        healthy: tenants("healthy", options.healthy),
        bad: tenants("bad", options.bad),
        sink,
        dead: bound.local_addr()?,
    };
    for (event_type, url) in [("order.*", scene.clock.url()), (BEAT, scene.clock.timed_url())] {
        let urls = vec![url; scene.healthy.len()];
        scene.subscribe(&scene.healthy, &urls, event_type).await?;
    }
    let mut alone =
        Row::new(format!("{} healthy alone", options.healthy), json!({ "healthy": options.healthy, "bad": 0 }));
    let mut before = scene.phase(None, &mut alone).await?;
    before.add_to(&mut alone);
    let mut rows: Vec<Row> = options
        .bad_kinds
        .iter()
        .map(|bad| {
            Row::new(
                format!("beside {} {}", options.bad, bad.describe()),
                json!({ "healthy": options.healthy, "bad": options.bad, "kind": format!("{bad:?}").to_lowercase() }),
            )
        })
        .collect();
    // A round has a dozen phases.
    for _ in 0..arguments.runs.div_ceil(3) {
        for (bad, row) in options.bad_kinds.iter().zip(&mut rows) {
            let beside = scene.phase(Some(*bad), row).await?;
            let after = scene.phase(None, &mut alone).await?;
            beside.add_beside(&[before, after], row);
            after.add_to(&mut alone);
            before = after;
        }
    }
    rows.insert(0, alone);
    let columns = vec![
        spread_column("p50_ms", "p50 ms", 2),
        spread_column("p99_ms", "p99 ms", 2),
        spread_column("p999_ms", "p99.9 ms", 2),
        column("p50_ratio", "p50 of alone", 2),
        column("p99_ratio", "p99 of alone", 2),
        column("p999_ratio", "p99.9 of alone", 2),
        spread_column("deliveries_per_s", "deliveries/s", 0),
        column("deliveries_ratio", "of alone", 2),
    ];
    let notes = vec![format!(
        "healthy ones only: {} events a second for {} s from commit to receipt, {} from a backlog; every subscription, \
         good or bad, gets the same share, and in the phases alone the bad ones' events are written too; ratios are to \
         the mean of the phases before and after",
        options.isolation_rate,
        options.isolation_seconds.as_secs_f64(),
        options.isolation_events
    )];
    Ok(Report { tables: vec![Table { name: "rows", heading: "", columns, rows }], notes })
}

impl Scene<'_> {
    async fn subscribe(&self, tenants: &[String], urls: &[String], event_type: &str) -> Result<(), BenchError> {
        self.stage
            .client
            .execute(
                "select outbox.subscribe(url, array[$3], tenant_id => tenant, max_in_flight => $4)
                 from unnest($1::text[], $2::text[]) s (tenant, url)",
                &[&tenants, &urls, &event_type, &MAX_IN_FLIGHT],
            )
            .await?;
        Ok(())
    }

    /// The healthy ones' share of it. The relay, and whoever is bad, begin anew with it.
    async fn phase(&self, bad: Option<Bad>, row: &mut Row) -> Result<Turn, BenchError> {
        let began = log_end(self.stage).await?;
        if let Some(bad) = bad {
            let urls: Vec<String> = (0..self.bad.len()).map(|nth| bad.url(nth, self.sink, self.dead)).collect();
            self.subscribe(&self.bad, &urls, "*").await?;
        }
        let relays = self.stage.relays(1).await?;
        let beat = |tenants: &[String], per_s| Beat { tenants: tenants.into(), ..Beat::new(per_s, &self.payloads) };
        let rate = self.options.isolation_rate as f64;
        let healthy = beat(&self.healthy, rate);
        // As many events for each of the bad as each of the healthy gets. They are written whether the bad are there or
        // not: what more writers do to the latency is not to be taken for what the bad do.
        let bad = beat(&self.bad, rate * self.bad.len() as f64 / self.healthy.len() as f64);
        let lasts = self.options.isolation_seconds;
        // Connections and plans are warm then, as those of a relay are that has run for a while.
        healthy.last(self.stage, &self.clock, Duration::ZERO, lasts / 8).await?;
        let (latency, written) = tokio::join!(
            healthy.last(self.stage, &self.clock, Duration::ZERO, lasts),
            bad.only_write(self.stage, &self.clock, lasts)
        );
        written?;
        let (latency, per_s) = (latency?, self.backlog().await?);
        row.add("delivered", self.end(relays, began).await? as f64);
        Ok(Turn { per_s, latency })
    }

    /// Deliveries a second to the healthy, from a backlog of events for everybody in turn.
    async fn backlog(&self) -> Result<f64, BenchError> {
        let (healthy, tenants) = (self.healthy.len() as u64, [self.healthy.clone(), self.bad.clone()].concat());
        let rounds = (self.options.isolation_events / healthy).max(1);
        self.stage.hold(true).await?;
        self.stage.fill_for(&tenants, rounds * tenants.len() as u64).await?;
        self.stage.checkpoint().await?;
        self.clock.reset();
        let began = Instant::now();
        self.stage.hold(false).await?;
        self.clock.wait_for(rounds * healthy, LIMIT).await?;
        Ok((rounds * healthy) as f64 / began.elapsed().as_secs_f64())
    }

    /// Nothing is left to the next phase. How much was delivered to the healthy.
    async fn end(&self, relays: Vec<Relay>, began: i64) -> Result<u64, BenchError> {
        let recorded =
            "select not exists (select from outbox_relay.queue join outbox.subscription using (subscription_id)
             where starts_with(tenant_id, 'healthy-'))";
        self.stage.wait_until(recorded, &[], LIMIT, "what has arrived is not recorded").await?;
        drop(relays);
        self.stage.alone().await?;
        // What a relay does that finds another one dead, then what an operator does.
        self.stage
            .client
            .batch_execute(
                "select outbox_relay.fence_dead();
                 select outbox.unsubscribe(subscription_id) from outbox.subscription
                 where starts_with(tenant_id, 'bad-') and unsubscribed_at is null",
            )
            .await?;
        let count = "select count(*) from outbox_relay.queue";
        let left: i64 = self.stage.client.query_one(count, &[]).await?.get(0);
        if left > 0 {
            return Err(format!("{left} deliveries are left in the queue").into());
        }
        delivered(self.stage, began, Some("bad-")).await
    }
}
