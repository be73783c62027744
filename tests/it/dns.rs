//! What names resolve to: every answer is judged, for each new connection anew, and what is dialled is what was judged.
//!
//! The rows `dns` of `tests/hostile-responses.tsv` are the table. A verdict with `; then ` is of two attempts.

use crate::hostile::{fits, rows};
use crate::support::dns::{NameServer, PUBLIC, host};
use crate::support::{Daemon, Db, raw_answer};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers 200 at that address and port and closes; counts who came.
async fn receiver(address: (&str, u16)) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                // The body of an event ends with a brace.
                let mut request = Vec::new();
                while !request.ends_with(b"}") && stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {}
                let _ = stream.write_all(&raw_answer("200 OK", &[], b"ok")).await;
            });
        }
    });
    (port, connections)
}

/// Of such a case the verdict is that there is no answer one could use.
fn is_unusable(verdict: &str) -> bool {
    verdict.starts_with("timeout")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_of_a_name_server_has_its_verdict() {
    let name_server = run(|_, verdict| !is_unusable(verdict)).await;
    for case in ["0 seconds to live", "rebinding with a long time to live"] {
        assert_eq!(name_server.asked(case), 2, "{case}: asked for each new connection, once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_without_a_usable_answer_end_with_their_deadline_and_hold_up_no_other() {
    run(|case, verdict| is_unusable(verdict) || case == "public" || case == "loopback").await;
}

/// Lets two events go to each of these cases, and compares.
async fn run(which: impl Fn(&str, &str) -> bool) -> NameServer {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let name_server = NameServer::start().await;
    // The same port at the address that is allowed and at the one that is not.
    let (port, public) = receiver((PUBLIC, 0)).await;
    let (_, loopback) = receiver(("127.0.0.1", port)).await;
    let mut cases = Vec::new();
    for (case, verdict) in rows("dns").filter(|(case, verdict)| which(case, verdict)) {
        let timeout = if is_unusable(verdict) { "700 milliseconds" } else { "15 seconds" };
        let sql = "select (outbox.subscribe($1, array['strike'], name => $2, retry_policy => 'none', timeout => $3::text::interval)).subscription_id";
        let id: i64 = session.one_of(sql, &[&format!("http://{}:{port}/in", host(case)), &case, &timeout]).await;
        cases.push((case, id, verdict.split("; then ").collect::<Vec<_>>()));
    }
    let _relay = Daemon::relay(&db.url(), "relay-1")
        .set("OUTBOXD_HTTP__NAME_SERVERS", &format!("[\"{}\"]", name_server.address))
        .set("OUTBOXD_EGRESS__ALLOW", &format!("[\"{PUBLIC}/32\"]"))
        .spawn()
        .registered()
        .await;
    for round in 1..=2 {
        session.insert("strike", "{}").await;
        let all = i64::try_from(cases.len()).expect("not so many") * round;
        session
            .wait_until(&format!(
                "select count(*) = {all} from outbox.delivery where state in ('succeeded', 'dead_letter')"
            ))
            .await;
    }
    let mut wrong = Vec::new();
    let mut delivered = 0;
    for (case, id, verdicts) in &cases {
        let sql = "select outcome, coalesce(error, ''), latency_ms from outbox.attempt where subscription_id = $1 order by event_seq";
        let attempts = session.query(sql, &[id]).await.expect("two attempts");
        for (nth, attempt) in attempts.iter().enumerate() {
            let (outcome, error): (String, String) = (attempt.get(0), attempt.get(1));
            delivered += usize::from(outcome == "delivered");
            if std::env::var_os("HOSTILE_PRINT").is_some() {
                println!(
                    "dns\t{case}\t{outcome}: {error}\t{} ms\tasked {}",
                    attempt.get::<_, i32>(2),
                    name_server.asked(case)
                );
            }
            let verdict = verdicts.get(nth).or(verdicts.last()).expect("a verdict");
            if !fits(verdict, &outcome, &error) {
                wrong.push(format!("{case}, {}: {outcome}: {error:?}, not {verdict:?}", nth + 1));
            }
        }
        assert_eq!(attempts.len(), 2, "{case}");
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(loopback.load(Ordering::SeqCst), 0, "a refused address was dialled");
    assert_eq!(public.load(Ordering::SeqCst), delivered, "each connection is one attempt's own");
    session.assert_accounted().await;
    name_server
}
