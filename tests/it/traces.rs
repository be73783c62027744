//! The trace of an event goes on: with the feature `otlp` outboxd takes part and exports its spans.

use crate::support::{Daemon, Db, Sink};
use hyper::StatusCode;
use serde_json::Value;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PRODUCER: &str = "b7ad6b7169203331";

/// Every span that the collector was sent.
fn spans(collector: &Sink) -> Vec<Value> {
    let mut spans = Vec::new();
    for export in collector.arrived_at("/v1/traces") {
        let export: Value = serde_json::from_slice(&export.body).expect("JSON");
        for resource in export["resourceSpans"].as_array().expect("a list") {
            for scope in resource["scopeSpans"].as_array().expect("a list") {
                spans.extend(scope["spans"].as_array().expect("a list").iter().cloned());
            }
        }
    }
    spans
}

#[tokio::test]
async fn a_sampled_trace_has_the_expansion_and_every_attempt_and_the_receiver_below_them() {
    let db = Db::new().await;
    let app = db.session().await;
    app.allow_http().await;
    let (collector, sink) = (
        Sink::accepting().await,
        Sink::new(|_, nth| if nth == 1 { StatusCode::BAD_GATEWAY } else { StatusCode::OK }).await,
    );
    let endpoint = app.endpoint(&sink.url("/in"), "retry_policy => 'quick'").await;
    let daemon = Daemon::relay(&db.url(), "relay-1").set("OUTBOXD_TRACE__ENDPOINT", &collector.url("/v1/traces"));
    let mut daemon = daemon.spawn().registered().await;
    for flags in ["01", "00"] {
        app.run(&format!(
            r#"select outbox.publish('order.paid', '{{}}', metadata => '{{"traceparent": "00-{TRACE}-{PRODUCER}-{flags}"}}')"#
        ))
        .await;
    }
    app.wait_for_state(endpoint.id, "succeeded", 2).await;
    daemon.terminate();
    assert!(daemon.ended().await.success());

    let spans = spans(&collector);
    let named = |name: &str| spans.iter().filter(|span| span["name"] == name).collect::<Vec<_>>();
    let (expand, attempts) = (named("outbox expand"), named("POST order.paid"));
    assert_eq!((expand.len(), attempts.len(), spans.len()), (1, 2, 3), "what is not sampled is not exported");
    assert!(spans.iter().all(|span| span["traceId"] == TRACE));
    assert_eq!(expand[0]["parentSpanId"], PRODUCER);
    assert!(attempts.iter().all(|span| span["parentSpanId"] == expand[0]["spanId"]));
    let headers: Vec<String> = sink.arrived().iter().map(|arrived| arrived.header("traceparent").to_owned()).collect();
    for attempt in attempts {
        let expected = format!("00-{TRACE}-{}-01", attempt["spanId"].as_str().expect("an id"));
        assert!(headers.contains(&expected), "{expected} in {headers:?}");
    }
    let untouched = format!("00-{TRACE}-{PRODUCER}-00");
    assert_eq!(headers.iter().filter(|header| **header == untouched).count(), 2, "who takes no part passes it on");
}

#[tokio::test]
async fn a_collector_that_is_away_keeps_no_delivery_waiting() {
    let db = Db::new().await;
    let app = db.session().await;
    app.allow_http().await;
    let sink = Sink::accepting().await;
    app.endpoint(&sink.url("/in"), "").await;
    let daemon = Daemon::relay(&db.url(), "relay-1").set("OUTBOXD_TRACE__ENDPOINT", "http://127.0.0.1:9/v1/traces");
    let mut daemon = daemon.spawn().registered().await;
    let metadata = format!(r#"{{"traceparent": "00-{TRACE}-{PRODUCER}-01"}}"#);
    app.run(&format!("insert into outbox.event (type, payload, metadata) select 'a', '{{}}', '{metadata}' from generate_series(1, 3000)"))
        .await;
    sink.wait_for(3000).await;
    daemon.terminate();
    assert!(daemon.ended().await.success());
}
