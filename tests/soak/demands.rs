//! What is to be flat and by how much, and what is drawn.

use crate::chart::{Line, Mark, Panel};
use crate::flat::Demand;
use crate::ledger::Happened;
use crate::plan::Kind;
use crate::sampler::Sample;

const fn demand(what: &'static str, figure: &'static str, unit: &'static str, share: f64, amount: f64) -> Demand {
    Demand { what, figure, unit, calm: false, share, amount, both: false }
}

const fn calm(what: &'static str, figure: &'static str, unit: &'static str, share: f64, amount: f64) -> Demand {
    Demand { what, figure, unit, calm: true, share, amount, both: false }
}

/// Tolerances are what noise of a shared machine and the saw teeth of segments need, not what would be good.
pub(crate) const DEMANDS: [Demand; 33] = [
    demand("memory of the relay that was never killed", "relay-1.rss", "MiB", 0.1, 8.0),
    demand("its file descriptors", "relay-1.fds", "", 0.1, 40.0),
    demand("PostgreSQL, memory of its own", "postgres.anonymous", "MiB", 0.1, 8.0),
    demand("PostgreSQL, file descriptors", "postgres.fds", "", 0.1, 60.0),
    demand("PostgreSQL, processes", "postgres.processes", "", 0.0, 4.0),
    demand("segments", "segments", "", 0.25, 1.0),
    demand("event, finished, attempt", "size.history", "MiB", 0.15, 4.0),
    demand("queue", "size.queue", "MiB", 0.25, 2.0),
    demand("queue, rows", "rows.queue", "", 0.25, 150.0),
    demand("cursor", "size.cursor", "MiB", 0.25, 2.0),
    demand("cursor, rows", "rows.cursor", "", 0.25, 500.0),
    demand("sample", "size.sample", "MiB", 0.25, 0.5),
    demand("sample, rows", "rows.sample", "", 0.25, 20.0),
    demand("relay", "size.relay", "MiB", 0.25, 0.2),
    demand("relay, rows", "rows.relay", "", 0.25, 4.0),
    demand("audit", "size.audit", "MiB", 0.0, 0.1),
    demand("audit, rows", "rows.audit", "", 0.0, 0.0),
    demand("subscription_health", "size.subscription_health", "MiB", 0.25, 0.5),
    demand("subscription_health, dead rows", "dead.subscription_health", "", 0.5, 500.0),
    demand("subscription_version, rows", "rows.subscription_version", "", 0.0, 0.0),
    demand("idempotency_key", "size.idempotency_key", "MiB", 0.25, 1.0),
    demand("idempotency_key, rows", "rows.idempotency_key", "", 0.25, 200.0),
    demand("PostgreSQL's catalogs", "size.catalogs", "MiB", 0.1, 2.0),
    demand("the whole database", "size.database", "MiB", 0.1, 8.0),
    calm("commit to receipt, p50", "latency.p50", "ms", 0.5, 2.0),
    calm("commit to receipt, p99", "latency.p99", "ms", 1.0, 20.0),
    Demand {
        what: "deliveries",
        figure: "deliveries_per_s",
        unit: "/s",
        calm: true,
        share: 0.15,
        amount: 5.0,
        both: true,
    },
    calm("events not yet expanded", "unexpanded", "", 0.5, 50.0),
    calm("deliveries outstanding", "outstanding", "", 0.25, 150.0),
    calm("dead letters in the log", "dead_letters", "", 0.25, 200.0),
    calm("WAL", "wal_per_s", "MiB/s", 0.25, 0.2),
    calm("CPU of all relays", "cpu.relays", "%", 0.3, 4.0),
    calm("CPU of PostgreSQL", "cpu.postgres", "%", 0.3, 8.0),
];

/// The panels of the chart; a relay has a line each.
pub(crate) fn panels(samples: &[Sample], relays: usize) -> Vec<Panel> {
    let panel = |title, unit, lines: &[(&str, &str)]| Panel {
        title,
        unit,
        lines: lines.iter().map(|(label, figure)| line(label, figure, samples)).collect(),
    };
    let of_relays = |title, unit, what: &str| Panel {
        title,
        unit,
        lines: (1..=relays)
            .map(|n| {
                let label = if n == 1 { "relay 1, never killed".to_owned() } else { n.to_string() };
                line(&label, &format!("relay-{n}.{what}"), samples)
            })
            .collect(),
    };
    vec![
        of_relays("Memory of the relays", "MiB", "rss"),
        of_relays("File descriptors of the relays", "open", "fds"),
        panel("Commit to receipt, beside faults", "ms", &[("p50", "latency.p50"), ("p99", "latency.p99")]),
        panel(
            "Memory of PostgreSQL",
            "MiB",
            &[("its own", "postgres.anonymous"), ("RSS, all together", "postgres.rss")],
        ),
        panel("PostgreSQL's descriptors", "open", &[("file descriptors", "postgres.fds")]),
        panel("Commit to receipt, in and after faults", "ms", &[("p50", "recovery.p50"), ("slowest", "recovery.max")]),
        panel(
            "The log",
            "MiB",
            &[
                ("event", "size.event"),
                ("finished", "size.finished"),
                ("attempt", "size.attempt"),
                ("all", "size.history"),
            ],
        ),
        panel("Segments", "made", &[("all", "segments"), ("closed, kept", "closed_segments")]),
        panel("Deliveries", "a second", &[("accepted", "deliveries_per_s")]),
        panel("Database", "MiB", &[("whole", "size.database"), ("catalogs", "size.catalogs")]),
        panel(
            "Small tables",
            "MiB",
            &[
                ("queue", "size.queue"),
                ("cursor", "size.cursor"),
                ("sample", "size.sample"),
                ("relay", "size.relay"),
                ("health", "size.subscription_health"),
            ],
        ),
        panel("Backlog", "rows", &[("not expanded", "unexpanded"), ("outstanding", "outstanding")]),
        panel(
            "Rows of control tables",
            "rows",
            &[("cursor", "rows.cursor"), ("sample", "rows.sample"), ("relay", "rows.relay"), ("audit", "rows.audit")],
        ),
        panel(
            "Dead rows",
            "rows",
            &[
                ("queue", "dead.queue"),
                ("health", "dead.subscription_health"),
                ("cursor", "dead.cursor"),
                ("attempt", "dead.attempt"),
            ],
        ),
        panel(
            "CPU",
            "% of a core",
            &[
                ("relays", "cpu.relays"),
                ("PostgreSQL", "cpu.postgres"),
                ("soak", "cpu.soak"),
                ("machine", "cpu.machine"),
            ],
        ),
        panel("WAL", "MiB/s", &[("written", "wal_per_s")]),
        panel("Idempotency keys", "rows", &[("kept", "rows.idempotency_key")]),
        panel("Dead letters in the log", "rows", &[("of the dead endpoint", "dead_letters")]),
    ]
}

fn line(label: &str, figure: &str, samples: &[Sample]) -> Line {
    let points = samples.iter().map(|sample| (sample.at_s / 60.0, sample.figures.get(figure).copied())).collect();
    Line { label: label.to_owned(), points }
}

pub(crate) fn marks(faults: &[Happened]) -> Vec<Mark> {
    let class = |kind| match kind {
        Kind::Kill { .. } => "kill",
        Kind::Restart => "restart",
        Kind::Hold { .. } => "hold",
    };
    let mark = |fault: &Happened| Mark {
        class: class(fault.kind),
        from: fault.began_s() / 60.0,
        to: fault.over_s().unwrap_or(fault.began_s()) / 60.0,
    };
    faults.iter().map(mark).collect()
}
