//! Screens, as they are: what is asked of a terminal is only to show these lines.

use super::figures::{Figures, Part};
use super::screen::{View, log_line, lost_line, screen};
use super::text::{Line, Tone, clean, count, fit, millis, rate, share, span, sparkline, width};
use crate::db::{Activity, FailedDelivery, LiveRelay, Standing, Step, Troubled};
use proptest::prelude::*;
use std::time::Duration;

const NOW: f64 = 1_795_480_239.0;

fn view(columns: usize, rows: usize) -> View {
    View { columns, rows, paused: false, help: false, interval: Duration::from_secs(1), lost: None }
}

fn standing() -> Standing {
    Standing {
        at: NOW,
        database: "shop".into(),
        user: "grafana".into(),
        environment: Some("production".into()),
        hold: None,
        relays: 2,
        log_head: 1_234_567,
        unexpanded: 3,
        pending: 1520,
        leased: 64,
        failed: 12,
        dead_letters: 7,
        oldest_due: Some(NOW - 1.25),
        lag_s: 1.25,
    }
}

fn figures() -> Figures {
    let step = |at: i64| Step {
        seconds: 10.0,
        delivered: 2000 + at * 50,
        failed: if at % 15 == 14 { at } else { 0 },
        ..Step::default()
    };
    let whole = Step {
        seconds: 600.0,
        delivered: 208_500,
        failed: 116,
        first_delivered: 208_420,
        first_failed: 96,
        attempt_ms: [Some(4.2), Some(38.0), Some(12_400.0)],
        commit_ms: [Some(9.6), Some(61.0), None],
    };
    let relay = |name: &str, alive, leased, hold: Option<&str>| LiveRelay {
        name: name.into(),
        version: "0.1.0".into(),
        hold: hold.map(Into::into),
        alive,
        leased,
        started_at: NOW - 11_700.0,
        ended_at: (!alive).then_some(NOW - 240.0),
    };
    let trouble = |subscription_id, name: &str, circuit: &str, consecutive_failures| Troubled {
        subscription_id,
        tenant_id: "acme".into(),
        name: name.into(),
        active: true,
        circuit: circuit.into(),
        circuit_until: (circuit != "closed").then_some(NOW + 32.0),
        consecutive_failures,
        failing_since: Some(NOW - 754.0),
        of: 4,
        ..Troubled::default()
    };
    let stopped = |subscription_id, name: &str, reason: &str| Troubled {
        active: false,
        disabled_reason: Some(reason.into()),
        ..trouble(subscription_id, name, "closed", 0)
    };
    let failure = |event_seq, status_code, error: &str| FailedDelivery {
        subscription_id: 17,
        event_seq,
        attempts: 3,
        status_code,
        error: Some(error.into()),
        failed_at: NOW - 12.0,
        next_attempt_at: Some(NOW + 288.0),
    };
    Figures {
        host: "db1.example.com:5432".into(),
        standing: standing(),
        earlier: Some(Standing {
            at: NOW - 60.2,
            log_head: 1_213_000,
            pending: 1600,
            failed: 9,
            oldest_due: None,
            ..standing()
        }),
        minutes: 10,
        activity: Part::Known(Activity { steps: (0..60).map(step).collect(), whole }),
        relays: Part::Known(vec![
            relay("relay-b", true, 40, None),
            relay("relay-a", true, 24, Some("the environment is another")),
            relay("relay-0", false, 0, None),
        ]),
        troubled: Part::Known(vec![
            trouble(17, "orders-to-erp", "open", 15),
            stopped(9, "audit", "410 Gone"),
            trouble(21, "Überweisungen", "closed", 2),
            stopped(4, "legacy", "paused"),
        ]),
        failures: Part::Known(vec![
            failure(1_234_001, Some(503), "503 Service Unavailable"),
            failure(1_233_990, None, "connection refused"),
            failure(1_233_871, Some(500), "500 Internal Server Error"),
        ]),
    }
}

/// As on a screen without colour, each line without its empty end.
fn shown(lines: &[Line]) -> String {
    lines.iter().map(|line| line.paint(false, true).trim_end().to_owned() + "\n").collect()
}

fn assert_shows(lines: &[Line], expected: &str) {
    let shown = shown(lines);
    assert!(shown == expected.trim_start_matches('\n'), "this is shown:\n{shown}");
}

fn assert_fits(lines: &[Line], view: &View) {
    assert!(lines.len() <= view.rows, "{} lines in {} rows", lines.len(), view.rows);
    for line in lines {
        let text = line.paint(false, true);
        assert!(width(&text) <= view.columns && line.width() == width(&text), "{} columns: {text}", view.columns);
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}

#[test]
fn eighty_by_twenty_four() {
    assert_shows(
        &screen(&figures(), &view(80, 24)),
        "
outboxd  production  shop on db1.example.com:5432        2026-11-24 00:30:39 UTC
2 relays live  no hold, keeping up
── Throughput · last 10 min, a column is 10 s ──────────────────────────────────
delivered ▄▄▄▄▄▄▄▄▄▄▅▅▅▅▅▅▅▅▅▅▅▅▆▆▆▆▆▆▆▆▆▆▆▆▆▇▇▇▇▇▇▇▇▇▇▇▇█████████████     495/s
failed                  ▂              ▄              ▆              █     5.9/s
in all    208,500 delivered, 116 failed; success 99.94 %, first attempt 99.95 %
attempt               p50     4.2 ms   p95      38 ms   p99       12 s
commit to first byte  p50     9.6 ms   p95      61 ms   p99          -
── Backlog · in brackets the change in 1 min ───────────────────────────────────
unexpanded              3 (=)           dead letters            7 (=)
pending             1,520 (-80)         oldest due          1.2 s (+1 s)
leased                 64 (=)           lag                 1.2 s (=)
failed                 12 (+3)          log head        1,234,567 (+21,567)
── Relays · 2 live, 1 ended within a day ───────────────────────────────────────
relay-b                0.1.0    live 3 h 15 m          40 leased
relay-a                0.1.0    live 3 h 15 m          24 leased  HOLD: the env…
relay-0                0.1.0    ended 4 m 00 s ago      0 leased
── Subscriptions in trouble · 4 ────────────────────────────────────────────────
#17     acme/orders-to-erp     CIRCUIT OPEN 32 s     15 failures, 12 m 34 s
#9      acme/audit             DISABLED: 410 Gone
── Newest failures · waiting for another attempt ───────────────────────────────
#17     event 1234001      12 s ago  try 3   503 Service Unavailable
#17     event 1233990      12 s ago  try 3   connection refused
q quit  p pause  1/2/3 span  +/- interval  ? help         last 10 min, every 1 s
",
    );
}

#[test]
fn a_hundred_and_twenty_by_forty() {
    assert_shows(
        &screen(&figures(), &view(120, 40)),
        "
outboxd  production  shop on db1.example.com:5432                                                2026-11-24 00:30:39 UTC
2 relays live  no hold, keeping up
── Throughput · last 10 min, a column is 10 s ──────────────────────────────────────────────────────────────────────────
delivered ▄▄▄▄▄▄▄▄▄▄▅▅▅▅▅▅▅▅▅▅▅▅▆▆▆▆▆▆▆▆▆▆▆▆▆▇▇▇▇▇▇▇▇▇▇▇▇█████████████     495/s  peak 495/s
failed                  ▂              ▄              ▆              █     5.9/s  peak 5.9/s
in all    208,500 delivered, 116 failed; success 99.94 %, first attempt 99.95 %
attempt               p50     4.2 ms   p95      38 ms   p99       12 s
commit to first byte  p50     9.6 ms   p95      61 ms   p99          -

── Backlog · in brackets the change in 1 min ───────────────────────────────────────────────────────────────────────────
unexpanded              3 (=)           dead letters            7 (=)
pending             1,520 (-80)         oldest due          1.2 s (+1 s)
leased                 64 (=)           lag                 1.2 s (=)
failed                 12 (+3)          log head        1,234,567 (+21,567)

── Relays · 2 live, 1 ended within a day ───────────────────────────────────────────────────────────────────────────────
relay-b                                  0.1.0    live 3 h 15 m          40 leased
relay-a                                  0.1.0    live 3 h 15 m          24 leased  HOLD: the environment is another
relay-0                                  0.1.0    ended 4 m 00 s ago      0 leased

── Subscriptions in trouble · 4 ────────────────────────────────────────────────────────────────────────────────────────
#17     acme/orders-to-erp                       CIRCUIT OPEN 32 s     15 failures, 12 m 34 s
#9      acme/audit                               DISABLED: 410 Gone
#21     acme/Überweisungen                       failing               2 failures, 12 m 34 s
#4      acme/legacy                              paused

── Newest failures · waiting for another attempt ───────────────────────────────────────────────────────────────────────
#17     event 1234001      12 s ago  try 3   next in 4 m 48 s  503 Service Unavailable
#17     event 1233990      12 s ago  try 3   next in 4 m 48 s  connection refused
#17     event 1233871      12 s ago  try 3   next in 4 m 48 s  500 Internal Server Error









q quit  p pause  1/2/3 span  +/- interval  ? help                                                 last 10 min, every 1 s
",
    );
}

#[test]
fn on_hold_paused_and_without_an_answer_say_so_in_words() {
    let mut figures = figures();
    let second = |figures: &Figures, view: &View| shown(&screen(figures, view)[1..2]);
    figures.standing.hold = Some("the database moves at noon".into());
    let mut view = view(80, 24);
    assert_eq!(second(&figures, &view), " HOLD, nothing is sent: the database moves at noon  (2 relays live)\n");
    view.paused = true;
    let paused = second(&figures, &view);
    assert!(paused.contains("HOLD") && paused.trim_end().ends_with("PAUSED"), "{paused}");
    view.lost = Some((Duration::from_secs(14), "connection closed".into()));
    assert!(second(&figures, &view).starts_with(" NO ANSWER since 00:30:39 UTC (14 s): connection closed"));
    let (mut nobody, view) = (figures.clone(), self::view(80, 24));
    (nobody.standing.hold, nobody.standing.relays) = (None, 0);
    assert!(second(&nobody, &view).contains("NO RELAY IS LIVE"));
}

#[test]
fn a_role_that_may_call_status_alone_sees_that_and_reads_what_it_may_not() {
    let mut figures = figures();
    figures.activity = Part::Forbidden;
    figures.relays = Part::Forbidden;
    figures.troubled = Part::Forbidden;
    figures.failures = Part::Refused("something else (XX000)".into());
    let lines = screen(&figures, &view(80, 24));
    let shown = shown(&lines);
    assert!(shown.contains("1,520") && shown.contains("2 relays live"), "{shown}");
    for what in ["outbox.activity()", "outbox.relays()", "outbox.subscription"] {
        assert!(shown.contains(&format!("grafana may not read {what}: grant outbox_viewer")), "{shown}");
    }
    assert!(shown.contains("outbox.delivery: something else (XX000)"), "{shown}");
}

#[test]
fn what_a_receiver_or_an_operator_wrote_cannot_command_the_terminal() {
    const HOSTILE: &str = "\x1b]0;owned\x07\x1b[2J\u{9b}31m\u{202e}desrever\r\nline\0\u{200b}e\u{301}";
    assert_eq!(clean(HOSTILE), "]0;owned[2J31mdesrever  linee");
    let hostile = || Some(HOSTILE.to_owned());
    let mut figures = figures();
    (figures.standing.hold, figures.standing.environment) = (hostile(), hostile());
    (figures.standing.database, figures.host) = (HOSTILE.into(), HOSTILE.into());
    if let (Part::Known(relays), Part::Known(troubled), Part::Known(failures)) =
        (&mut figures.relays, &mut figures.troubled, &mut figures.failures)
    {
        (relays[0].name, relays[0].version, relays[0].hold) = (HOSTILE.into(), HOSTILE.into(), hostile());
        (troubled[0].name, troubled[0].tenant_id) = (HOSTILE.into(), HOSTILE.into());
        troubled[1].disabled_reason = hostile();
        failures.iter_mut().for_each(|failure| failure.error = hostile());
    }
    for (columns, rows) in [(80, 24), (120, 40), (200, 60)] {
        let mut view = view(columns, rows);
        assert_fits(&screen(&figures, &view), &view);
        view.lost = Some((Duration::ZERO, HOSTILE.into()));
        assert_fits(&screen(&figures, &view), &view);
    }
    assert!(!log_line(&figures).chars().any(char::is_control));
    assert!(log_line(&figures).ends_with(r#" hold="]0;owned[2J31mdesrever  linee""#), "{}", log_line(&figures));
    assert!(!lost_line(&figures, Duration::ZERO, HOSTILE).chars().any(char::is_control));
}

#[test]
fn it_fits_every_terminal_down_to_a_single_cell() {
    for columns in [1, 2, 10, 19, 20, 40, 60, 75, 76, 79, 80, 81, 100, 132, 300] {
        for rows in [1, 2, 3, 5, 8, 10, 14, 16, 20, 23, 24, 25, 50, 100] {
            for help in [false, true] {
                let view = View { help, paused: help, ..view(columns, rows) };
                let lines = screen(&figures(), &view);
                assert_fits(&lines, &view);
                assert_eq!(lines.len(), rows);
                assert_fits(&screen(&Figures::default(), &view), &view);
            }
        }
    }
}

#[test]
fn a_small_terminal_keeps_the_backlog() {
    let shown = shown(&screen(&figures(), &view(80, 8)));
    assert!(shown.contains("pending") && shown.contains("log head") && !shown.contains("Throughput"), "{shown}");
}

#[test]
fn colour_only_repeats_what_the_words_say() {
    let lines = screen(&figures(), &view(80, 24));
    let plain: String = lines.iter().map(|line| line.paint(false, true)).collect();
    let mut coloured: String = lines.iter().map(|line| line.paint(true, true)).collect();
    assert!(!plain.contains('\x1b') && coloured.contains("\x1b[32m"));
    for sgr in ["0", "1", "2", "32", "33", "1;31", "1;97;41"] {
        coloured = coloured.replace(&format!("\x1b[{sgr}m"), "");
    }
    assert_eq!(coloured, plain);
    assert!(lines.iter().all(|line| line.paint(false, false).is_ascii()), "and without UTF-8 it is ASCII");
}

#[test]
fn a_log_line_is_one_line_of_keys_and_values() {
    assert_eq!(
        log_line(&figures()),
        "2026-11-24T00:30:39Z environment=production relays=2 unexpanded=3 pending=1520 leased=64 failed=12 \
         dead_letters=7 lag_s=1.2 delivered_per_s=495.0 failed_per_s=5.9 troubled=4"
    );
    assert_eq!(
        lost_line(&figures(), Duration::from_secs(5), "connection closed"),
        "2026-11-24T00:30:44Z no_answer_since=2026-11-24T00:30:39Z reason=\"connection closed\""
    );
}

#[test]
fn numbers_are_written_as_people_read_them() {
    assert_eq!([0, 999, 1000, -1_234_567].map(count), ["0", "999", "1,000", "-1,234,567"]);
    assert_eq!(
        [(0, 10.0), (1, 1440.0), (5, 10.0), (123, 10.0), (12_345, 10.0)].map(|(n, s)| rate(n, s)),
        ["0/s", "<0.01/s", "0.50/s", "12.3/s", "1,235/s"]
    );
    assert_eq!(
        [(0, 0), (5, 0), (1_000_000, 1), (1, 1)].map(|(g, b)| share(g, b)),
        ["-", "100 %", "99.99 %", "50.00 %"]
    );
    assert_eq!([None, Some(1.25), Some(250.0), Some(61_000.0)].map(millis), ["-", "1.2 ms", "250 ms", "1 m 01 s"]);
    assert_eq!(
        [0.0, 1.25, 59.0, 192.0, 7500.0, 273_600.0, f64::INFINITY].map(span),
        ["0 s", "1.2 s", "59 s", "3 m 12 s", "2 h 05 m", "3 d 04 h", "ever"]
    );
    assert_eq!(sparkline(&[0.0, 0.1, 4.0, 8.0]), " ▁▄█");
}

#[test]
fn what_is_cut_says_so() {
    assert_eq!(
        [fit("abcdef", 6), fit("abcdef", 4), fit("日本語", 5), fit("日本語", 4), fit("x", 0)],
        ["abcdef", "abc…", "日本…", "日…", ""]
    );
    let mut line = Line::default();
    line.plain("abc").put(Tone::Bad, "def").plain("ghi");
    for (columns, expected) in [(9, "abcdefghi"), (8, "abcdefg…"), (6, "abcde…"), (3, "ab…"), (1, "…"), (0, "")]
    {
        assert_eq!(line.clone().cut(columns).paint(false, true), expected);
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_line_wider_than_the_screen(texts in proptest::collection::vec(any::<String>(), 1..4), columns in 0..100usize) {
        let mut line = Line::default();
        for text in &texts {
            line.left(Tone::Plain, text, 7).put(Tone::Bad, text);
        }
        let painted = line.cut(columns).paint(false, true);
        prop_assert!(width(&painted) <= columns);
        prop_assert!(!painted.chars().any(char::is_control));
    }
}
