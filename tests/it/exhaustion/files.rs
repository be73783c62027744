//! The relay's host has no more files: no receiver is blamed.

use super::{PAUSE, wait_until_ready};
use crate::support::{Db, Outage, PATIENCE, Seat, Sink, Writer};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// What the process may have open, from now on.
fn limit(pid: u32, files: u64) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(files), maximum: Some(4096) }).expect("our own child");
}

/// Somebody who looks whether it is ready, and whose connection stays open.
struct Probe {
    sender: SendRequest<Full<Bytes>>,
}

impl Probe {
    async fn new(seat: &Seat) -> Self {
        let stream = TcpStream::connect(seat.address).await.expect("it listens");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("it speaks HTTP");
        tokio::spawn(connection);
        Self { sender }
    }

    async fn ask(&mut self) -> String {
        let request = Request::get("/readyz").header("host", "127.0.0.1").body(Full::default()).expect("a request");
        let answer = self.sender.send_request(request).await.expect("it answers");
        String::from_utf8(answer.into_body().collect().await.expect("a body").to_bytes().to_vec()).expect("UTF-8")
    }
}

#[tokio::test]
async fn without_a_file_for_a_socket_attempts_are_handed_back_and_no_receiver_is_blamed() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    // At the first failure a circuit would open, and the schedule would be at its end.
    session.run("select outbox.set('circuit_failures', '1')").await;
    let sink = Sink::accepting().await;
    session.endpoint(&sink.url("/in"), "retry_policy => 'none', max_in_flight => 64").await;
    let mut seat = Seat::new(&db).await;
    let pid = seat.daemon.id();
    wait_until_ready(&seat).await;
    let mut probe = Probe::new(&seat).await;
    assert!(probe.ask().await.contains("true"));

    // What is open stays so, and nothing more can be.
    limit(pid, 3);
    let writer = Writer::start(&db.url(), PAUSE);
    seat.daemon.wait_for_log("attempts cannot be made").await;
    seat.daemon.wait_for_log("Too many open files").await;
    let began = Instant::now();
    while !probe.ask().await.contains("run out of files") {
        assert!(began.elapsed() < PATIENCE, "{}", probe.ask().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let written = writer.stop().await;
    assert!(written.committed.len() > 10 && written.refused.is_empty(), "{written:?}");
    session.wait_until("select lag > interval '0' from outbox.status()").await;

    limit(pid, 4096);
    let outage = Outage::is_over("files-exhausted");
    assert_eq!(outage.recovered(&session, &sink, &written.committed).await, 0);
    wait_until_ready(&seat).await;
    let counts: String = session
        .one("select format('%s %s %s', max(attempts), (select count(*) from outbox.attempt where outcome <> 'delivered'),
                  (select failure_count from outbox.subscription_health)) from outbox.delivery")
        .await;
    assert_eq!(counts, "1 0 0", "attempts of a delivery at most, failed ones, and failures in its health");
}
