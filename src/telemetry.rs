//! Logs: one line an event, to stderr, as text or JSON.

use std::io::IsTerminal;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{EnvFilter, FilterFn, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log.level` does not parse; a loaded configuration has been checked for it.
    #[error("log.level is not a list of directives")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody in this process was first.
    #[error("logging is set up already")]
    AlreadySet(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends the process's log to stderr from now on; once a process.
///
/// # Errors
/// If `log.level` does not parse or logging is set up already.
pub fn init(log: &Log) -> Result<(), TelemetryError> {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    subscriber(log, colour, std::io::stderr)?.try_init()?;
    Ok(())
}

fn subscriber<W>(log: &Log, colour: bool, writer: W) -> Result<impl Subscriber + Send + Sync + 'static, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let level = EnvFilter::builder().parse(&log.level)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colour);
    let lines = match log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    Ok(tracing_subscriber::registry().with(level).with(without_parameters()).with(lines))
}

/// tokio-postgres logs the parameters of every statement at debug: payloads and secrets. Those who carry requests
/// may log what is in them at trace. No setting brings either into the log.
fn without_parameters() -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    const CARRIERS: [&str; 8] =
        ["deadpool", "h2", "hyper", "hyper_util", "jsonschema", "reqwest", "rustls", "tokio_rustls"];
    filter_fn(|metadata| {
        // Modules of a crate, and crates whose names begin with its name.
        let is_of = |name: &&str| metadata.target().starts_with(*name);
        let most = if metadata.target().starts_with("tokio_postgres") {
            Level::INFO
        } else if CARRIERS.iter().any(is_of) {
            Level::DEBUG
        } else {
            Level::TRACE
        };
        *metadata.level() <= most
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: &str, body: impl FnOnce()) -> String {
        let lines = Lines::default();
        let log = Log { format, level: level.to_owned() };
        let writer = lines.clone();
        let subscriber = subscriber(&log, false, move || writer.clone()).expect("directives");
        tracing::subscriber::with_default(subscriber, body);
        let bytes = lines.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(LogFormat::Json, "info", || tracing::info!(event_seq = 7, "sent"));
        let line: serde_json::Value = serde_json::from_str(&text).expect("one object");
        assert_eq!(line["message"], "sent");
        assert_eq!(line["event_seq"], 7);
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn text_obeys_the_directives() {
        let text = logged(LogFormat::Text, "info,outboxd=warn", || {
            tracing::info!(target: "outboxd::send", "quiet");
            tracing::info!(target: "elsewhere", "heard");
        });
        assert!(!text.contains("quiet") && text.contains("heard"), "{text}");
    }

    #[test]
    fn statement_parameters_are_never_logged() {
        let text = logged(LogFormat::Text, "trace,tokio_postgres=trace", || {
            tracing::debug!(target: "tokio_postgres::query", "executing statement s1 with parameters: [\"secret\"]");
            tracing::info!(target: "tokio_postgres::connection", "a notice");
        });
        assert!(!text.contains("secret") && text.contains("a notice"), "{text}");
    }

    #[test]
    fn what_carries_requests_does_not_trace_them() {
        let text = logged(LogFormat::Text, "trace,hyper=trace,h2=trace", || {
            tracing::trace!(target: "h2::codec::framed_write", "secret");
            tracing::trace!(target: "hyper_util::client", "secret");
            tracing::debug!(target: "hyper::client", "connected");
            tracing::trace!(target: "outboxd::send", "own");
        });
        assert!(!text.contains("secret") && text.contains("connected") && text.contains("own"), "{text}");
    }
}
