//! `make soak`: steady load for an hour, with relays killed, PostgreSQL crashed, transactions held open and segments cut
//! and dropped all the while, and the question whether anything grows: memory, file descriptors, tables, latency.
//!
//! A ledger outside the database knows what was committed and what arrived. A program rather than a test: how long it
//! runs is chosen, and what it finds is a table and a picture. See docs/soak.md.

mod chart;
mod demands;
mod flat;
mod injector;
mod ledger;
mod options;
mod plan;
mod proc;
mod receivers;
mod report;
mod sampler;
mod stage;
mod wishes;
mod writers;

use injector::Kept;
use ledger::{Happened, Ledger};
use options::Options;
use plan::Jobs;
use receivers::Receivers;
use report::{Run, Warnings};
use sampler::{Samples, is_calm};
use stage::Stage;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::sleep;

pub(crate) type SoakError = Box<dyn std::error::Error + Send + Sync>;

/// How long what is left may take once nothing is written any more.
const PATIENCE: Duration = Duration::from_secs(90);
/// What is never held against a run: endpoints are meant to fail.
const EXPECTED_WARNING: &str = "attempt failed";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = match Options::parse(&arguments) {
        Ok(options) => options,
        Err(unknown) => {
            eprintln!("{unknown}\n\n{}", Options::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all was well.
async fn run(options: Options) -> Result<bool, SoakError> {
    std::fs::create_dir_all(&options.out)?;
    let plan = plan::faults(&options);
    println!(
        "{} events/s for {} min, {} relays, {} faults, --seed {}",
        options.rate,
        options.minutes,
        options.relays,
        plan.len(),
        options.seed
    );
    let stage = Arc::new(Stage::set(&options).await?);
    let receivers = Receivers::open().await?;
    let secrets = stage.subscribe(&receivers.live.to_string(), &receivers.dead.to_string()).await?;
    for number in 1..=options.relays {
        stage.start_relay(number)?;
    }
    wait_for_relays(&stage, options.relays).await?;

    let (ledger, kept, samples) = (Arc::new(Ledger::new()), Arc::new(Kept::default()), Samples::default());
    let began_at = SystemTime::now();
    let beside = [
        tokio::spawn(receivers.serve(ledger.clone(), secrets)),
        tokio::spawn(injector::keep(stage.clone(), options.clone(), kept.clone())),
        tokio::spawn(sampler::watch(stage.clone(), ledger.clone(), options.clone(), samples.clone())),
        tokio::spawn(injector::supervise(stage.clone(), ledger.clone(), kept.clone())),
        tokio::spawn(tell(samples.clone())),
    ];
    let injecting = tokio::spawn(injector::inject(stage.clone(), ledger.clone(), plan));
    writers::write(&stage, &ledger, Jobs::new(&options)).await;
    injecting.await??;

    let written = Instant::now();
    while ledger.missing() > 0 && written.elapsed() < PATIENCE {
        sleep(Duration::from_millis(100)).await;
    }
    let arrived_s = written.elapsed().as_secs_f64();
    let mut wrong = left_behind(&stage, &ledger).await?;
    let emptied_s = written.elapsed().as_secs_f64();
    injector::audit(&stage.connection().await, &kept).await?;
    beside.iter().for_each(|task| task.abort());
    stage.stop_relays();
    stage.keep_log()?;

    let faults = ledger.faults();
    let ended = kept.ended.lock().expect("no panic while supervising").clone();
    // One that starts while the server is away gives up, and is started again.
    let unexplained = ended.iter().filter(|at| is_calm(&faults, **at - 2.0, **at));
    wrong.extend(unexplained.map(|at| format!("a relay ended by itself at {at:.0} s")));
    let samples = samples.lock().expect("no panic while sampling").clone();
    let warnings = warnings(&stage, &options, &faults, began_at)?;
    let tally = ledger.tally();
    let run = Run { options, samples, faults, tally, kept, warnings, wrong, arrived_s, emptied_s };
    let (text, is_good) = run.write()?;
    println!("\n{text}");
    for file in ["report.md", "report.json", "chart.svg"] {
        println!("{}", run.options.out.join(file).display());
    }
    println!("{}", if is_good { "flat, and nothing lost" } else { "NOT flat, or something is wrong: see above" });
    Ok(is_good)
}

async fn wait_for_relays(stage: &Stage, count: usize) -> Result<(), SoakError> {
    let (client, began) = (stage.connection().await, Instant::now());
    let live = "select count(*) from outbox_relay.live_epochs()";
    while client.query_one(live, &[]).await?.get::<_, i64>(0) < count as i64 {
        if began.elapsed() > Duration::from_secs(20) || !stage.ended().is_empty() {
            return Err(format!("the relays do not start; see {}", stage.log(1).display()).into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Says now and then how it goes.
async fn tell(samples: Samples) {
    loop {
        sleep(Duration::from_secs(30)).await;
        let Some(last) = samples.lock().expect("no panic while sampling").last().cloned() else { continue };
        let figure = |name: &str| last.figures.get(name).map_or("–".to_owned(), |value| format!("{value:.1}"));
        println!(
            "{:>6.0} s  {} deliveries/s, p50 {} ms, p99 {} ms, outstanding {}, segments {}, log {} MiB, relay 1 {} MiB",
            last.at_s,
            figure("deliveries_per_s"),
            figure("latency.p50"),
            figure("latency.p99"),
            figure("outstanding"),
            figure("segments"),
            figure("size.history"),
            figure("relay-1.rss"),
        );
    }
}

/// Waits until nothing is outstanding; what still is after that, a sentence each.
async fn left_behind(stage: &Stage, ledger: &Ledger) -> Result<Vec<String>, SoakError> {
    let (client, began, mut wrong) = (stage.connection().await, Instant::now(), vec![]);
    let queued = "select count(*), count(*) filter (where state = 'leased') from outbox_relay.queue";
    loop {
        let row = client.query_one(queued, &[]).await?;
        let (outstanding, leased): (i64, i64) = (row.get(0), row.get(1));
        if outstanding == 0 {
            break;
        }
        if began.elapsed() > PATIENCE {
            wrong.push(format!("{outstanding} deliveries are still in the queue, {leased} of them leased"));
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let status = client.query_one("select unexpanded_events, hold from outbox.status()", &[]).await?;
    if status.get::<_, i64>(0) > 0 || status.get::<_, Option<String>>(1).is_some() {
        wrong.push(format!("{} events are not expanded", status.get::<_, i64>(0)));
    }
    let astray =
        "select (select count(*) from outbox.event_default) + (select count(*) from outbox_relay.finished_default)
        + (select count(*) from outbox.attempt_default)";
    let astray: i64 = client.query_one(astray, &[]).await?.get(0);
    if astray > 0 {
        wrong.push(format!("{astray} rows are in the default partitions"));
    }
    // What is missing explains itself, if its segment is still there.
    for (number, path) in ledger.tally().examples {
        let explain = "select e.event_id::text, x.verdict, x.detail from outbox.event e
            left join lateral outbox.explain(e.event_id) x on x.name = $2 where (e.payload ->> 'number')::int8 = $1";
        match client.query_opt(explain, &[&(number as i64), &path]).await? {
            None => wrong.push(format!("event {number} did not arrive at {path}, and is not in the log any more")),
            Some(row) => {
                let (id, verdict, detail): (String, Option<String>, Option<String>) =
                    (row.get(0), row.get(1), row.get(2));
                wrong.push(format!("event {id} did not arrive at {path}: {verdict:?}, {detail:?}"));
            }
        }
    }
    Ok(wrong)
}

/// What the relays logged, message by message.
fn warnings(
    stage: &Stage,
    options: &Options,
    faults: &[Happened],
    began_at: SystemTime,
) -> Result<Warnings, SoakError> {
    let mut warnings = Warnings::new();
    for number in 1..=options.relays {
        for line in std::fs::read_to_string(stage.log(number))?.lines() {
            // The last line of a relay that was killed may be half of one.
            let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let message = line["message"].as_str().unwrap_or_default();
            if message == EXPECTED_WARNING {
                continue;
            }
            let at = line["timestamp"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
            let since = at.and_then(|at| SystemTime::from(at).duration_since(began_at).ok()).unwrap_or_default();
            let error = line["error"].as_str().map_or(String::new(), |error| format!(": {error}"));
            let (times, calm) = warnings.entry(format!("{message}{error}")).or_default();
            *times += 1;
            *calm += u64::from(is_calm(faults, since.as_secs_f64(), since.as_secs_f64()));
        }
    }
    Ok(warnings)
}
