//! Clocks that jump by an hour, forwards and back: the relay's, and the database's.

use super::PAUSE;
use crate::support::{Daemon, Db, Outage, Outboxd, Session, Sink, Writer};
use hyper::StatusCode;
use outboxd::throwaway::{Options, Throwaway};
use std::path::{Path, PathBuf};

/// Debian's libfaketime, by which a process sees another time than its host.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// A clock that can be set while a process looks at it.
struct Clock {
    file: PathBuf,
}

impl Clock {
    /// `None` if the library is not installed.
    fn new() -> Option<Self> {
        if !Path::new(LIBRARY).is_file() {
            crate::support::left_out("clocks that jump", "libfaketime is not installed (apt-get install faketime)");
            return None;
        }
        let clock = Self { file: std::env::temp_dir().join(format!("outboxd-clock-{:08x}", fastrand::u32(..))) };
        clock.set("+0");
        Some(clock)
    }

    /// So far from the host's; in one step, for whoever reads it meanwhile.
    fn set(&self, offset: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{offset}\n")).and_then(|()| std::fs::rename(&new, &self.file)).expect("a file");
    }

    /// What a process needs in its environment to go by it. A clock that jumps is no monotonic one.
    fn environment(&self) -> Vec<(String, String)> {
        [
            ("LD_PRELOAD", LIBRARY),
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_str().expect("UTF-8")),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

#[tokio::test]
async fn a_relay_whose_clock_jumps_goes_on_at_its_pace() {
    let Some(clock) = Clock::new() else { return };
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    // Something is always to be retried, at a time that the database names.
    let sink = Sink::new(|_, nth| if nth == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }).await;
    session.without_circuits().await;
    let endpoint = session.endpoint(&sink.url("/in"), "retry_policy => 'quick'").await;
    let mut relay = Daemon::relay(&db.url(), "relay-1");
    for (name, value) in clock.environment() {
        relay = relay.set(&name, &value);
    }
    let relay = relay.spawn().registered().await;
    let writer = Writer::start(&db.url(), PAUSE);
    let mut outage = Outage::is_over("clock-relay");
    for offset in ["+0", "+3600", "-3600", "+0"] {
        clock.set(offset);
        outage = Outage::is_over("clock-relay");
        let arrived = sink.arrived().len();
        sink.wait_for(arrived + 60).await;
        // What it signs says what it believes.
        let stamp =
            sink.arrived().last().and_then(|a| a.headers.get("webhook-timestamp").cloned()).expect("a timestamp");
        let stamp: i64 = stamp.to_str().expect("digits").parse().expect("a number");
        let now: i64 = session.one("select extract(epoch from clock_timestamp())::int8").await;
        let wanted: i64 = offset.parse().expect("a number");
        assert!((stamp - now - wanted).abs() < 30, "{offset}: {stamp} at {now}");
    }
    let written = writer.stop().await;
    assert_eq!(outage.recovered(&session, &sink, &written.committed).await, 0);
    let count = i64::try_from(written.committed.len()).expect("a count");
    session.wait_for_state(endpoint.id, "succeeded", count).await;
    assert_eq!(session.one::<i32>("select max(attempts) from outbox.delivery").await, 2, "as the receiver answered");
    assert!(!relay.log().contains("lost"), "{}", relay.log());
}

#[tokio::test]
async fn a_database_whose_clock_jumps_loses_nothing_and_what_it_had_put_off_can_be_sent() {
    let Some(clock) = Clock::new() else { return };
    let options = Options { environment: clock.environment(), ..Options::default() };
    let server = Throwaway::start(options.without_durability().set("autovacuum", "off")).expect("a server");
    let url = server.url("postgres");
    let output = Outboxd::on(&url, &["migrate"]).output().await;
    assert_eq!(output.code, Some(0), "{output:?}");
    let session = Session::at(&url).await;
    session.allow_http().await;
    let sink =
        Sink::new(
            |arrived, nth| {
                if nth == 1 && arrived.path == "/late" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
            },
        )
        .await;
    session.endpoint(&sink.url("/in"), "").await;
    let late = session.endpoint(&sink.url("/late"), "name => 'late', filter => '$.is_late == true'").await;
    let relay = Daemon::relay(&url, "relay-1").spawn().registered().await;
    let host_s = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("later").as_secs_f64();
    let writer = Writer::start(&url, PAUSE);
    let mut outage = Outage::is_over("clock-database");
    let mut put_off = 0;
    for offset in ["+0", "+3600", "+0", "-3600", "+0"] {
        clock.set(offset);
        outage = Outage::is_over("clock-database");
        let now_s: f64 = session.one("select extract(epoch from clock_timestamp())::float8").await;
        let wanted_s: f64 = offset.parse().expect("a number");
        assert!((now_s - host_s() - wanted_s).abs() < 30.0, "{offset}: {now_s}");
        let arrived = sink.arrived().len();
        sink.wait_for(arrived + 60).await;
        if offset == "+3600" {
            put_off = session.insert("late.one", r#"{"is_late": true}"#).await;
            session.wait_for_state(late.id, "failed", 1).await;
        }
    }
    let written = writer.stop().await;
    // Put off by five seconds and a clock that was an hour ahead. The time of everything else is now.
    let due: bool = session
        .one("select next_attempt_at > clock_timestamp() + interval '50 minutes' from outbox.delivery where state = 'failed'")
        .await;
    assert!(due);
    session.run(&format!("select outbox.replay({}, {put_off})", late.id)).await;
    assert_eq!(outage.recovered(&session, &sink, &written.committed).await, 0);
    assert!(!relay.log().contains("lost"), "{}", relay.log());
}
