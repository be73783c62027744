//! Behind PgBouncer in transaction mode: statements through the pool, the epoch and LISTEN on `listen_url`.

use crate::support::{Daemon, Db, Endpoint, Outage, Outboxd, POOL_SIZE, Pooler, Seat, Session, Sink, Writer};
use hyper::StatusCode;
use std::time::{Duration, Instant};

/// Between two events of a producer that goes on throughout.
const PAUSE: Duration = Duration::from_millis(5);

#[tokio::test]
async fn behind_a_pooler_deliveries_retries_and_kills_work() {
    let db = Db::new().await;
    let direct = db.url();
    let Some(pooler) = Pooler::start(&direct, "transaction", "") else { return };
    let pooled = pooler.url(&direct);
    let session = db.session().await;
    session.allow_http().await;
    let sink =
        Sink::new(|_, nth| if nth == 1 && fastrand::bool() { StatusCode::BAD_GATEWAY } else { StatusCode::OK }).await;
    let endpoint = session.endpoint(&sink.url("/in"), "retry_policy => 'quick'").await;
    let start = |name: &'static str| {
        Daemon::relay(&pooled, name)
            .set("OUTBOXD_DATABASE__LISTEN_URL", &direct)
            .set("OUTBOXD_DATABASE__POOL_SIZE", "4")
            .set("OUTBOXD_RELAY__POLL_INTERVAL", "60s")
            .spawn()
            .registered()
    };
    let mut first = start("first").await;
    let second = start("second").await;
    let mut total = 0;
    for round in 0..10 {
        for _ in 0..10 {
            session.insert_many("order.created", 5).await;
            total += 5;
        }
        if round % 3 == 1 {
            first.kill();
            session.insert_many("order.created", 5).await;
            total += 5;
            first = start("first").await;
        }
        let sent = usize::try_from(total).expect("a count") - 50;
        sink.wait_for(sent).await;
    }
    session.wait_for_state(endpoint.id, "succeeded", total).await;
    assert_eq!(sink.times().len(), usize::try_from(total).expect("a count"));
    session.assert_accounted().await;

    let sessions: i64 = session
        .one("select count(*) from pg_stat_activity where datname = current_database() and application_name like 'outboxd%'")
        .await;
    assert!(
        usize::try_from(sessions).expect("a count") <= POOL_SIZE + 2,
        "{sessions}: the statements went through the pool"
    );
    for log in [first.log(), second.log()] {
        assert!(!log.contains("prepared statement") && !log.contains("cannot start"), "{log}");
    }

    // A sleeping relay is rung, long before it would look by itself.
    session.insert("order.created", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", total + 1).await;
}

/// Sends through the pool, and has its one session at `listen_url`.
fn relay(pooled: &str, listen_url: &str) -> Outboxd {
    Daemon::relay(pooled, "relay-1")
        .set("OUTBOXD_DATABASE__LISTEN_URL", listen_url)
        .set("OUTBOXD_DATABASE__POOL_SIZE", "4")
}

async fn stage() -> (Db, Session, Sink, Endpoint) {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let sink = Sink::accepting().await;
    // A pooler that is killed is to have results on their way.
    sink.dawdle(Duration::from_millis(10));
    let endpoint = session.endpoint(&sink.url("/in"), "").await;
    (db, session, sink, endpoint)
}

#[tokio::test]
async fn whichever_way_to_the_database_is_away_deliveries_go_on_when_it_is_back() {
    let (db, session, sink, _) = stage().await;
    let (Some(mut pool), Some(mut direct)) =
        (Pooler::start(&db.url(), "transaction", ""), Pooler::start(&db.url(), "session", ""))
    else {
        return;
    };
    let environment = [
        ("OUTBOXD_DATABASE__LISTEN_URL", direct.url(&db.url())),
        ("OUTBOXD_DATABASE__POOL_SIZE", "4".to_owned()),
        ("OUTBOXD_DATABASE__CONNECT_TIMEOUT", "2s".to_owned()),
    ];
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut seat = Seat::at(&pool.url(&db.url()), &session, &environment).await;
    for (fault, kills, said) in [
        ("pgbouncer-killed", [true, false], "could not be"),
        ("pgbouncer-of-listen-url-killed", [false, true], "the direct connection is lost"),
        ("pgbouncers-killed", [true, true], "the database cannot be reached"),
    ] {
        let writer = Writer::start(&db.url(), PAUSE);
        let arrived = sink.arrived().len();
        sink.wait_for(arrived + 50).await;
        let log = seat.daemon.log().len();
        for (pooler, is_killed) in [&mut pool, &mut direct].into_iter().zip(kills) {
            if is_killed {
                pooler.kill();
            }
        }
        let began = Instant::now();
        while !seat.daemon.log()[log..].contains(said) {
            assert!(began.elapsed() < Duration::from_secs(15), "{fault}: no {said:?}:\n{}", &seat.daemon.log()[log..]);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // What it heard of the database may be a second old.
        loop {
            let ready = seat.send("GET", "/readyz", &[], "").await;
            if ready.status == StatusCode::SERVICE_UNAVAILABLE {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(15), "{fault}: {ready:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for (pooler, is_killed) in [&mut pool, &mut direct].into_iter().zip(kills) {
            if is_killed {
                pooler.start_again();
            }
        }
        let outage = Outage::is_over(fault);
        let arrived = sink.arrived().len();
        sink.wait_for(arrived + 50).await;
        let written = writer.stop().await;
        outage.recovered(&session, &sink, &written.committed).await;
    }
    seat.daemon.terminate();
    assert!(seat.daemon.ended().await.success());
}

#[tokio::test]
async fn server_connections_that_come_and_go_behind_the_pooler_are_not_noticed() {
    let (db, session, sink, _) = stage().await;
    let Some(pooler) = Pooler::start(&db.url(), "transaction", "server_lifetime = 1\nserver_idle_timeout = 1") else {
        return;
    };
    let mut relay = relay(&pooler.url(&db.url()), &db.url()).spawn().registered().await;
    let writer = Writer::start(&db.url(), PAUSE);
    let (console, connection) = tokio_postgres::connect(&pooler.console(), tokio_postgres::NoTls).await.expect("it");
    tokio::spawn(connection);
    let pooled = "select pid from pg_stat_activity where datname = current_database() and backend_type = 'client backend' and query ~ 'outbox_relay'";
    let mut backends = std::collections::BTreeSet::new();
    for n in 1..=15 {
        sink.wait_for(n * 30).await;
        console.batch_execute("reconnect").await.expect("RECONNECT");
        backends.extend(session.all::<i32>(pooled).await);
    }
    let outage = Outage::is_over("pgbouncer-reconnect");
    let written = writer.stop().await;
    assert_eq!(outage.recovered(&session, &sink, &written.committed).await, 0);
    assert!(backends.len() > 10, "they came and went: {backends:?}");
    assert!(!relay.log().contains("WARN"), "{}", relay.log());
    relay.terminate();
    assert!(relay.ended().await.success());
}

#[tokio::test]
async fn nothing_of_a_call_stays_behind_in_the_session_it_had() {
    let (db, session, sink, endpoint) = stage().await;
    let Some(pooler) = Pooler::start(&db.url(), "transaction", "") else { return };
    let pooled = pooler.url(&db.url());
    let before: Vec<String> = Session::at(&db.url()).await.all(SETTINGS).await;
    let environment = [("OUTBOXD_DATABASE__LISTEN_URL", db.url())];
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let seat = Seat::at(&pooled, &session, &environment).await;
    session.insert_many("order.created", 50).await;
    session.wait_for_state(endpoint.id, "succeeded", 50).await;
    // Requests run as who asks, on the transaction alone.
    seat.call("GET", "/webhooks", None).await.ok();
    seat.call("GET", "/status", None).await.ok();
    drop(seat);
    sink.wait_for(50).await;
    // Two transactions at once have both of the pool's sessions.
    let (one, other) = (Session::at(&pooled).await, Session::at(&pooled).await);
    for session in [&one, &other] {
        session.run("begin").await;
    }
    let mut pids = Vec::new();
    for session in [&one, &other] {
        pids.push(session.one::<i32>("select pg_backend_pid()").await);
        assert_eq!(session.all::<String>(SETTINGS).await, before);
        let kept = "select format('%s %s %s %s', (select count(*) from pg_prepared_statements where not from_sql),
                        (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()),
                        (select count(*) from pg_listening_channels()),
                        (select count(*) from pg_class where relnamespace = pg_my_temp_schema()))";
        assert_eq!(session.one::<String>(kept).await, "1 0 0 0", "statements (this one), locks, channels, tables");
        assert_eq!(session.one::<String>("select current_user || ' ' || session_user").await, "postgres postgres");
    }
    assert_ne!(pids[0], pids[1]);
}

/// All that a session can be told to do otherwise; who it is for is the client's own.
const SETTINGS: &str = "select name || ' = ' || setting from pg_settings
    where source in ('session', 'client', 'override', 'interactive') and name not in ('application_name', 'client_encoding')
    union all select 'outbox.' || n || ' = ' || coalesce(current_setting('outbox.' || n, true), '') from unnest('{tenant,actor,quiet}'::text[]) n
    order by 1";

#[tokio::test]
async fn a_statement_that_is_given_up_is_cancelled_through_the_pooler() {
    let (db, session, _sink, _) = stage().await;
    let Some(pooler) = Pooler::start(&db.url(), "transaction", "") else { return };
    let slow = session
        .endpoint(
            "http://127.0.0.1:9/slow",
            "name => 'slow', filter => '$.s like_regex \"^(x+)(x+)(x+)\\\\1\\\\2\\\\3$\"'",
        )
        .await;
    let relay = relay(&pooler.url(&db.url()), &db.url())
        .set("OUTBOXD_DATABASE__STATEMENT_TIMEOUT", "1s")
        .spawn()
        .registered()
        .await;
    // An odd number of x is no even one, and the expression has to try them all.
    session
        .run("insert into outbox.event (type, payload) values ('order.created', jsonb_build_object('s', repeat('x', 4001)))")
        .await;
    session.wait_for_state(slow.id, "dead_letter", 1).await;
    session.wait_until("select disabled_reason ~ 'did not end' from outbox.subscription where name = 'slow'").await;
    let evaluating = "select exists (select from pg_stat_activity where datname = current_database() and state = 'active'
        and query ~ 'outbox_relay.(expand|try_filters)' and pid <> pg_backend_pid() and query_start < now() - interval '1 second')";
    session.wait_until(&format!("select not ({evaluating})")).await;
    assert!(!relay.log().contains("could not be asked to stop"), "{}", relay.log());
}

#[tokio::test]
async fn a_mode_that_cannot_work_is_refused_by_check() {
    let (db, session, sink, _) = stage().await;
    let (Some(transaction), Some(statement), Some(one_session)) = (
        Pooler::start(&db.url(), "transaction", ""),
        Pooler::start(&db.url(), "statement", ""),
        Pooler::start(&db.url(), "session", ""),
    ) else {
        return;
    };
    let check = async |url: &Pooler, listen_url: String| {
        let check = Outboxd::on(&url.url(&db.url()), &["check"]).set("OUTBOXD_DATABASE__LISTEN_URL", &listen_url);
        let output = check.output().await;
        (output.code, output.printed)
    };
    let (code, printed) = check(&transaction, db.url()).await;
    assert!(code == Some(0) && printed.contains("through a pooler"), "{printed}");
    let (code, printed) = check(&statement, db.url()).await;
    assert!(code == Some(1) && printed.contains("statement mode"), "{printed}");
    let (code, printed) = check(&transaction, transaction.url(&db.url())).await;
    assert!(code == Some(1) && printed.contains("keeps no session"), "{printed}");
    // One session for each client is a direct connection to all intents.
    let (code, printed) = check(&one_session, one_session.url(&db.url())).await;
    assert!(code == Some(0), "{printed}");
    let _relay = relay(&one_session.url(&db.url()), &db.url())
        .set("OUTBOXD_DATABASE__POOL_SIZE", "1")
        .spawn()
        .registered()
        .await;
    session.insert("order.created", "{}").await;
    sink.wait_for(1).await;
}
