//! What `make soak` says of a run: when a series is flat, and the picture of it.

#[path = "../soak/chart.rs"]
mod chart;
#[path = "../soak/flat.rs"]
#[allow(dead_code, reason = "who gathers the points looks at the rest")]
mod flat;
#[path = "../soak/ledger.rs"]
#[allow(dead_code, reason = "who plays a run looks at the rest")]
mod ledger;
#[path = "../soak/options.rs"]
#[allow(dead_code, reason = "a run has options")]
mod options;
#[path = "../soak/plan.rs"]
#[allow(dead_code, reason = "a run has a plan")]
mod plan;
#[path = "../soak/wishes.rs"]
#[allow(dead_code, reason = "a run has subscriptions")]
mod wishes;

use chart::{Line, Mark, Panel, draw};
use flat::{Demand, judge, median, slope};
use ledger::{Fate, Ledger};
use plan::{Drawn, Kind};
use wishes::{WISHES, wanted};

const MEMORY: Demand =
    Demand { what: "memory", figure: "rss", unit: "MiB", calm: false, share: 0.1, amount: 3.0, both: false };

/// A point a second, for four hundred seconds.
fn series(value: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    (0..400).map(|second| (f64::from(second), value(f64::from(second)))).collect()
}

fn is_flat(demand: &Demand, value: impl Fn(f64) -> f64) -> bool {
    judge(demand, &series(value), 0.0, 400.0).flat
}

#[test]
fn noise_and_saw_teeth_are_flat_and_a_slow_leak_is_not() {
    assert!(is_flat(&MEMORY, |_| 50.0));
    assert!(is_flat(&MEMORY, |at| 50.0 + 20.0 * (at % 20.0) / 20.0));
    assert!(is_flat(&MEMORY, |at| if (at as u32).is_multiple_of(50) { 500.0 } else { 50.0 }), "a few wild points");
    // Ten percent of fifty in three quarters of the time.
    assert!(is_flat(&MEMORY, |at| 50.0 + 4.8 * at / 300.0));
    assert!(!is_flat(&MEMORY, |at| 50.0 + 5.6 * at / 300.0));
}

#[test]
fn less_is_as_wrong_as_more_where_it_is_said_so() {
    let falls = |at: f64| 200.0 - at / 4.0;
    assert!(is_flat(&MEMORY, falls));
    assert!(!is_flat(&Demand { both: true, ..MEMORY }, falls));
}

#[test]
fn what_comes_before_is_not_judged_and_too_few_points_are_not_flat() {
    let grows_at_first = |at: f64| if at < 100.0 { at } else { 100.0 };
    assert!(judge(&MEMORY, &series(grows_at_first), 100.0, 400.0).flat);
    assert!(!judge(&MEMORY, &series(grows_at_first), 0.0, 400.0).flat);
    let few = judge(&MEMORY, &[(0.0, 1.0), (1.0, 1.0), (399.0, 1.0)], 0.0, 400.0);
    assert!(!few.flat && few.first.is_none() && few.last.is_none());
}

#[test]
fn the_trend_is_that_of_most_pairs() {
    let trend = judge(&MEMORY, &series(|at| if at == 7.0 { 1e6 } else { 50.0 + at / 360.0 }), 0.0, 400.0).per_hour;
    assert!((trend.expect("a trend") - 10.0).abs() < 0.01, "{trend:?}");
    assert_eq!(slope(&[(1.0, 5.0)]), None);
    let many: Vec<(f64, f64)> = (0..5000).map(|at| (f64::from(at), 2.0 * f64::from(at))).collect();
    assert_eq!(slope(&many), Some(2.0));
    assert_eq!((median(vec![]), median(vec![3.0, 1.0]), median(vec![9.0, 1.0, 2.0])), (None, Some(2.0), Some(2.0)));
}

const DRAWN: Drawn = Drawn { tenant: 1, kind: 0, amount: 0, key: None, filler: 0, published: false };

/// An event of that fate, accepted so often wherever it is wanted.
fn enter(ledger: &Ledger, fate: Fate, times: usize) {
    let number = ledger.open(DRAWN);
    ledger.close(&[number], fate);
    for wish in (0..times).flat_map(|_| wanted(&DRAWN)) {
        ledger.receive(Some(number), wish);
    }
}

#[test]
fn the_books_find_what_is_lost_undone_strange_and_made_twice() {
    let wishes = wanted(&DRAWN).count() as u64;
    let ledger = Ledger::new();
    enter(&ledger, Fate::Committed, 1);
    enter(&ledger, Fate::RolledBack, 0);
    let tally = ledger.tally();
    assert_eq!((tally.committed, tally.rolled_back, tally.expected), (1, 1, wishes));
    assert_eq!((tally.missing, tally.undone_but_sent, tally.strangers, tally.duplicates), (0, 0, 0, 0));

    enter(&ledger, Fate::Committed, 0);
    enter(&ledger, Fate::RolledBack, 1);
    let elsewhere = WISHES.iter().position(|wish| wish.tenant != DRAWN.tenant).expect("three tenants");
    ledger.receive(Some(0), elsewhere);
    ledger.receive(None, 0);
    enter(&ledger, Fate::Open, 0);
    let tally = ledger.tally();
    assert_eq!((tally.missing, tally.undone_but_sent, tally.strangers, tally.open), (wishes, 1, 2, 1));
    assert_eq!(tally.duplicates, 0);

    enter(&ledger, Fate::Committed, 2);
    let tally = ledger.tally();
    assert_eq!((tally.duplicates, tally.unexplained_duplicates), (wishes, wishes), "nothing happened");
    // A transaction that stays open makes nobody send twice; a crash does.
    let hold = ledger.begin(Kind::Hold { with_id: true, lasts: std::time::Duration::ZERO, commits: true });
    ledger.end(hold);
    assert_eq!(ledger.tally().unexplained_duplicates, wishes);
    // Later, by the ledger's clock.
    std::thread::sleep(std::time::Duration::from_millis(1));
    let crash = ledger.begin(Kind::Restart);
    enter(&ledger, Fate::Committed, 2);
    ledger.end(crash);
    let tally = ledger.tally();
    assert_eq!((tally.duplicates, tally.unexplained_duplicates), (2 * wishes, wishes), "{:?}", tally.unexplained);
}

/// The text of the elements of that class.
fn texts<'a>(svg: &'a str, class: &str) -> Vec<&'a str> {
    let open = format!("class=\"{class}\"");
    let texts = svg.split("<text ").skip(1).filter(|text| text.contains(&open));
    texts.filter_map(|text| text.split_once('>')?.1.split_once("</text>").map(|(text, _)| text)).collect()
}

#[test]
fn a_chart_has_its_units_its_faults_and_gaps_where_nothing_is_known() {
    let points = [(0.0, Some(0.0)), (2.5, Some(40.0)), (5.0, None), (7.5, Some(80.0)), (10.0, Some(80.0))];
    let line = |label: &str| Line { label: label.to_owned(), points: points.to_vec() };
    let panels = [Panel { title: "Memory", unit: "MiB", lines: vec![line("a < b"), line("c")] }];
    let marks = [
        Mark { class: "kill", from: 5.0, to: 5.1 },
        Mark { class: "restart", from: 6.0, to: 6.2 },
        Mark { class: "hold", from: 7.0, to: 9.0 },
    ];
    let svg = draw("Soak & more", &panels, &marks, 2.0, 10.0);
    assert_eq!(texts(&svg, "title"), ["Memory, MiB"]);
    assert_eq!(texts(&svg, "head"), ["Soak &amp; more"]);
    assert_eq!((texts(&svg, "c0"), texts(&svg, "c1")), (vec!["a &lt; b"], vec!["c"]));
    let lines: Vec<&str> = svg
        .lines()
        .filter(|line| line.contains("class=\"line c0\""))
        .filter_map(|line| line.split('"').nth(3))
        .collect();
    // From 46 to 330 and from 160 up to 38, which is 100: two strokes with a gap between.
    assert_eq!(lines, ["M46.0 160.0h0.1L117.0 111.2M259.0 62.4h0.1L330.0 62.4"]);
    let count = |text: &str| svg.matches(text).count();
    // Each once in the panel, and once in the legend.
    assert_eq!((count("class=\"kill\""), count("class=\"restart\""), count("class=\"hold\"")), (2, 2, 2));
    assert!(count(">100</text>") == 1 && count(">0</text>") == 2 && count(">10 min</text>") == 1, "{svg}");
}

#[test]
fn a_long_run_is_a_small_picture() {
    let points = (0..17_280).map(|nth| (f64::from(nth) / 12.0, Some(f64::from(nth % 7)))).collect();
    let panels = [Panel { title: "p99", unit: "ms", lines: vec![Line { label: "p99".into(), points }] }];
    let svg = draw("A day", &panels, &[], 0.0, 1440.0);
    assert!(svg.len() < 10_000, "{} bytes", svg.len());
}
