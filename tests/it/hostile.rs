//! Receivers that mean harm: what each is recorded as, what it costs, and that nobody beside it feels it.
//!
//! `tests/hostile-responses.tsv` is the table: the name of a receiver (its script is in
//! `support/hostile`), the outcome, and words of the error.

use crate::support::hostile::{self, Certificates, Hostile};
use crate::support::{Daemon, Db, Outboxd, Session, Sink, raw_sink};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const TABLE: &str = include_str!("../hostile-responses.tsv");

/// The rows of one kind: what is given, and the verdicts that are right.
pub(crate) fn rows(kind: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(move |line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [of, input, verdict] = columns[..] else { panic!("not three columns: {line}") };
        (of == kind).then_some((input, verdict))
    })
}

/// Whether `outcome: error` is one of the alternatives of a verdict, each an outcome with words of the error.
pub(crate) fn fits(verdict: &str, outcome: &str, error: &str) -> bool {
    verdict.split(" | ").any(|alternative| match alternative.split_once(": ") {
        Some((expected, words)) => outcome == expected && error.contains(words),
        None => outcome == alternative,
    })
}

/// A relay that trusts the authority, and may dial the loopback interface.
async fn relay(db: &Db, certificates: &Certificates) -> (Daemon, CaFile) {
    let file = CaFile::new(&certificates.ca_pem());
    let relay = trusting(Daemon::relay(&db.url(), "relay-1"), &file).spawn().registered().await;
    (relay, file)
}

fn trusting(outboxd: Outboxd, file: &CaFile) -> Outboxd {
    outboxd.set("OUTBOXD_HTTP__CA_FILE", file.0.to_str().expect("a path"))
}

/// The authority's certificate in a file, as long as the test runs.
struct CaFile(std::path::PathBuf);

impl CaFile {
    fn new(pem: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("outboxd-ca-{}-{}.pem", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, pem).expect("a file");
        Self(path)
    }
}

impl Drop for CaFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn subscribe(session: &Session, url: &str, name: &str, types: &str, timeout: &str) -> i64 {
    session
        .one_of(
            "select (outbox.subscribe($1, array[$2], name => $3, retry_policy => 'none', timeout => $4::text::interval)).subscription_id",
            &[&url, &types, &name, &timeout],
        )
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_has_its_outcome_and_its_bounds_and_nobody_beside_it_feels_it() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let certificates = Certificates::new();
    // Where redirects lead.
    let trapped = Arc::new(AtomicUsize::new(0));
    let count = trapped.clone();
    let trap = raw_sink(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Vec::new())
    })
    .await;
    let mut receivers = Vec::new();
    for (name, verdict) in rows("response") {
        let hostile = Hostile::start(name, &certificates, trap).await;
        // What is to run out of time does so soon; a loaded machine makes nothing else run out of it.
        let timeout = if verdict.starts_with("timeout") { "700 milliseconds" } else { "15 seconds" };
        let id = subscribe(&session, hostile.url(), name, "strike", timeout).await;
        receivers.push((hostile, id, verdict));
    }
    let hangs_on = Hostile::start("slow: silence", &certificates, trap).await;
    let hanging = subscribe(&session, hangs_on.url(), "hangs on", "strike", "60 seconds").await;
    let sink = Sink::accepting().await;
    let healthy = subscribe(&session, &sink.url("/in"), "healthy", "beat", "15 seconds").await;

    session.insert("strike", "{}").await;
    let (_relay, _file) = relay(&db, &certificates).await;
    session.wait_for_state(hanging, "leased", 1).await;
    session.insert_many("beat", 50).await;
    session.wait_for_state(healthy, "succeeded", 50).await;
    session
        .wait_until("select count(*) = 1 from outbox.delivery where state not in ('succeeded', 'dead_letter')")
        .await;

    let mut wrong = Vec::new();
    for (hostile, id, verdict) in &receivers {
        let sql = "select outcome, coalesce(error, ''), latency_ms, coalesce(octet_length(response_excerpt), 0), status_code::int
                     from outbox.attempt where subscription_id = $1";
        let row = session.query_one(sql, &[id]).await.expect("one attempt");
        let (outcome, error, latency_ms): (String, String, i32) = (row.get(0), row.get(1), row.get(2));
        let (excerpt_bytes, sent): (i32, u64) = (row.get(3), hostile.sent());
        if std::env::var_os("HOSTILE_PRINT").is_some() {
            println!(
                "response\t{}\t{outcome}: {error}\t{latency_ms} ms\t{sent} bytes\t{} connections",
                hostile.name,
                hostile.connections()
            );
        }
        if !fits(verdict, &outcome, &error) {
            wrong.push(format!("{}: {outcome}: {error:?}, not {verdict:?}", hostile.name));
        }
        if (outcome == "delivered") != error.is_empty() {
            wrong.push(format!("{}: {outcome} and {error:?}", hostile.name));
        }
        if outcome == "delivered" && !matches!(row.get::<_, Option<i32>>(4), Some(200..=299)) {
            wrong.push(format!("{}: delivered without a 2xx", hostile.name));
        }
        if error.len() > 300 || excerpt_bytes > 1024 {
            wrong.push(format!("{}: an error of {}, an excerpt of {excerpt_bytes} bytes", hostile.name, error.len()));
        }
        if outcome == "timeout" && !(700..10_000).contains(&latency_ms) {
            wrong.push(format!("{}: {latency_ms} ms of 700", hostile.name));
        }
        if sent > MOST_SENT {
            wrong.push(format!("{}: got rid of {sent} bytes", hostile.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), receivers.len(), wrong.join("\n"));
    assert_eq!(trapped.load(Ordering::SeqCst), 0, "a redirect was followed");
    session.assert_accounted().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_used_before_neither_loses_a_request_nor_answers_for_another() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    session.without_circuits().await;
    let certificates = Certificates::new();
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let closing = Hostile::start("kept: closes under every second request", &certificates, nobody).await;
    let splitting = Hostile::start("early: two answers at once", &certificates, nobody).await;
    let one_by_one = "retry_policy => 'quick', max_in_flight => 1";
    let closed = session.endpoint(closing.url(), &format!("name => 'closed', {one_by_one}")).await.id;
    // Two tenants at one host: what was sent ahead on the connection of one must not serve the other.
    let first = session.endpoint(splitting.url(), &format!("name => 'first', {one_by_one}")).await.id;
    let second = session.endpoint(splitting.url(), &format!("tenant_id => 'other', {one_by_one}")).await.id;
    let (_relay, _file) = relay(&db, &certificates).await;
    for _ in 0..10 {
        session
            .run("insert into outbox.event (tenant_id, type, payload) values ('default', 'a', '{}'), ('other', 'a', '{}')")
            .await;
        session
            .wait_until("select not exists (select from outbox.delivery where state not in ('succeeded', 'dead_letter')) and (select unexpanded_events = 0 from outbox.status())")
            .await;
    }
    for id in [closed, first, second] {
        session.wait_for_state(id, "succeeded", 10).await;
    }
    // Every success is an answer that was sent, every other attempt says that there was none.
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".len() as u64;
    assert_eq!(closing.sent(), 10 * answer);
    let others: Vec<String> = session
        .all(&format!("select distinct outcome || ': ' || error from outbox.attempt where subscription_id = {closed} and outcome <> 'delivered'"))
        .await;
    assert!(others.iter().all(|other| other.starts_with("protocol_error: ")), "{others:?}");
    let smuggled: i64 = session.one("select count(*) from outbox.attempt where response_headers ? 'x-smuggled'").await;
    assert_eq!(smuggled, 0, "an answer that was sent ahead was taken");
    session.assert_accounted().await;
}

/// What a receiver may get rid of in one attempt: the limits of headers and body, and what buffers on the way hold.
const MOST_SENT: u64 = 2 << 20;

#[test]
fn every_receiver_is_in_the_table_once() {
    let in_table: Vec<&str> = rows("response").map(|(name, _)| name).collect();
    let names: HashSet<&str> = hostile::names().into_iter().collect();
    assert_eq!(in_table.iter().copied().collect::<HashSet<_>>(), names);
    assert_eq!(in_table.len(), names.len());
}
