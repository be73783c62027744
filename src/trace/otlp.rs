//! Spans for a collector, over OTLP/HTTP with JSON. Export is in a thread of its own and drops spans rather than
//! keep deliveries waiting.

use super::TraceContext;
use crate::db::{Finished, Lease};
use crate::outcome::Outcome;
use opentelemetry::trace::{SpanContext, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, SpanId, TraceId};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::SystemTime;

/// Takes part in the traces of events. Cheap to clone; without an endpoint it takes none.
#[derive(Clone, Debug)]
pub struct Tracer(Option<Arc<BatchSpanProcessor>>);

impl Tracer {
    /// One that takes no part.
    pub fn off() -> Self {
        Self(None)
    }

    /// Exports to a collector, as `http://127.0.0.1:4318/v1/traces`, in the name of this relay.
    ///
    /// # Errors
    /// If the exporter cannot be made.
    pub fn to(endpoint: &str, relay: &str) -> Result<Self, String> {
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpJson)
            .with_endpoint(endpoint)
            .build()
            .map_err(|e| e.to_string())?;
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", "outboxd"),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", relay.to_owned()),
            ])
            .build();
        opentelemetry_sdk::trace::SpanExporter::set_resource(&mut exporter, &resource);
        Ok(Self(Some(Arc::new(BatchSpanProcessor::builder(exporter).build()))))
    }

    /// The span of an attempt that begins, if its event is of a sampled trace.
    pub fn begin(&self, lease: &Lease) -> Option<TraceContext> {
        self.0.as_ref()?;
        let came = TraceContext::of(lease).filter(|context| context.flags & 1 == 1)?;
        Some(TraceContext { span_id: span_id(lease, lease.attempts.unsigned_abs() + 1), ..came })
    }

    /// Exports the span of an attempt, and before the first one that of its way here.
    pub fn end(&self, span: Option<TraceContext>, lease: &Lease, finished: &Finished, url: Option<&str>) {
        let (Some(processor), Some(span), Some(came)) = (&self.0, span, TraceContext::of(lease)) else { return };
        let Some(event) = &lease.event else { return };
        let common = [
            KeyValue::new("messaging.system", "outboxd"),
            KeyValue::new("messaging.message.id", event.id.to_string()),
            KeyValue::new("messaging.destination.name", event.kind.clone()),
            KeyValue::new("outboxd.event_seq", event.seq),
            KeyValue::new("outboxd.subscription_id", lease.subscription_id),
        ];
        // Every attempt is below the same span, whichever relay makes it: its id follows from the delivery.
        let expand_id = span_id(lease, 0);
        if lease.attempts == 0 {
            processor.on_end(data(
                TraceContext { span_id: expand_id, ..came },
                came.span_id,
                true,
                ("outbox expand".into(), SpanKind::Consumer),
                (event.inserted_at().min(finished.started_at), finished.started_at),
                common.to_vec(),
                Status::Unset,
            ));
        }
        let mut attributes = common.to_vec();
        attributes.push(KeyValue::new("http.request.method", "POST"));
        attributes.push(KeyValue::new("http.request.resend_count", i64::from(lease.attempts)));
        attributes.push(KeyValue::new("outboxd.outcome", finished.outcome.as_str()));
        attributes.push(KeyValue::new("outboxd.cause", finished.cause.as_str()));
        attributes.extend(url.map(|url| KeyValue::new("server.address", url.to_owned())));
        attributes.extend(finished.status_code.map(|s| KeyValue::new("http.response.status_code", i64::from(s))));
        let status = match finished.outcome {
            Outcome::Delivered => Status::Ok,
            outcome => Status::error(outcome.as_str()),
        };
        processor.on_end(data(
            span,
            expand_id,
            false,
            (format!("POST {}", event.kind).into(), SpanKind::Client),
            (finished.started_at, finished.started_at + finished.latency),
            attributes,
            status,
        ));
    }

    /// Exports what is left.
    pub fn finish(&self) {
        if let Some(processor) = &self.0 {
            let _ = processor.shutdown();
        }
    }
}

fn data(
    at: TraceContext,
    parent_span_id: u64,
    parent_span_is_remote: bool,
    (name, span_kind): (std::borrow::Cow<'static, str>, SpanKind),
    (start_time, end_time): (SystemTime, SystemTime),
    attributes: Vec<KeyValue>,
    status: Status,
) -> SpanData {
    SpanData {
        span_context: SpanContext::new(
            TraceId::from(at.trace_id),
            SpanId::from(at.span_id),
            TraceFlags::new(at.flags),
            false,
            TraceState::default(),
        ),
        parent_span_id: SpanId::from(parent_span_id),
        parent_span_is_remote,
        span_kind,
        name,
        start_time,
        end_time,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status,
        instrumentation_scope: InstrumentationScope::builder("outboxd").with_version(env!("CARGO_PKG_VERSION")).build(),
    }
}

/// The id of a delivery's span (`nth` 0) or of its nth attempt: the same wherever it is made.
fn span_id(lease: &Lease, nth: u32) -> u64 {
    let digest = Sha256::new()
        .chain_update(lease.subscription_id.to_be_bytes())
        .chain_update(lease.event_seq.to_be_bytes())
        .chain_update(nth.to_be_bytes())
        .finalize();
    let id = digest.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte));
    // Zero is no id.
    if id == 0 { 1 } else { id }
}
