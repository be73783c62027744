//! The trace of an event ([W3C Trace Context](https://www.w3.org/TR/trace-context/)) goes on through outboxd.
//!
//! `traceparent` in an event's metadata is the producer's. Its trace id is in the log line of every failed attempt,
//! and the receiver gets the header. Built with the feature `otlp` and told where to (`trace.endpoint`), outboxd
//! takes part itself: of a sampled trace it exports a span from the event's insert to its lease (`outbox expand`)
//! and below it one for each attempt, whose id the receiver then gets as its parent. Without, the header is passed
//! on as it came, as the specification asks of those who do not take part. No trace is begun here.

use crate::db::Lease;
use std::fmt;

#[cfg(feature = "otlp")]
mod otlp;
#[cfg(feature = "otlp")]
pub use otlp::Tracer;

/// A place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The whole trace; never zero.
    pub trace_id: u128,
    /// The span that whoever comes next is a child of; never zero.
    pub span_id: u64,
    /// Bit 0: sampled.
    pub flags: u8,
}

impl TraceContext {
    /// Reads the header `traceparent`. Of a later version than 00 what version 00 knows is read, as the
    /// specification asks.
    pub fn parse(header: &str) -> Option<Self> {
        let hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let mut parts = header.split('-');
        let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_whole = hex(version, 2) && hex(trace_id, 32) && hex(span_id, 16) && hex(flags, 2);
        if !is_whole || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let context = Self {
            trace_id: u128::from_str_radix(trace_id, 16).ok()?,
            span_id: u64::from_str_radix(span_id, 16).ok()?,
            flags: u8::from_str_radix(flags, 16).ok()?,
        };
        (context.trace_id != 0 && context.span_id != 0).then_some(context)
    }

    /// Where the event of a lease came from, if it says so.
    pub fn of(lease: &Lease) -> Option<Self> {
        Self::parse(lease.event.as_ref()?.traceparent.as_deref()?)
    }

    /// The trace's id, as it is written everywhere.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// Takes no part: this outboxd was built without the feature `otlp`.
#[cfg(not(feature = "otlp"))]
#[derive(Clone, Debug)]
pub struct Tracer;

#[cfg(not(feature = "otlp"))]
impl Tracer {
    /// One that takes no part.
    pub fn off() -> Self {
        Self
    }

    /// The span of an attempt: none.
    pub fn begin(&self, _lease: &Lease) -> Option<TraceContext> {
        None
    }

    /// Nothing to export.
    pub fn end(
        &self,
        _span: Option<TraceContext>,
        _lease: &Lease,
        _finished: &crate::db::Finished,
        _url: Option<&str>,
    ) {
    }

    /// Nothing is left to export.
    pub fn finish(&self) {}
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_example_of_the_specification_is_read_and_written() {
        let context = TraceContext::parse(EXAMPLE).expect("a context");
        assert_eq!((context.to_string().as_str(), context.flags), (EXAMPLE, 1));
    }

    #[test]
    fn what_is_no_context_is_none() {
        for header in [
            "",
            "00",
            "00-ab-cd-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(header), None, "{header}");
        }
        assert!(TraceContext::parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later").is_some());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,80}") {
            if let Some(context) = TraceContext::parse(&text) {
                prop_assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
            }
        }
    }
}
