//! From figures to lines: no terminal, no clock, no I/O.

use super::figures::{Figures, Part};
use super::text::{Line, Tone, clock, count, fit, logged, millis, rate, share, span, sparkline};
use crate::db::{Activity, FailedDelivery, LiveRelay, Standing, Step, Troubled};
use std::time::Duration;

/// Columns before a sparkline, and behind it.
const LABEL: usize = 10;

/// What the screen is like, apart from the figures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    pub(super) columns: usize,
    pub(super) rows: usize,
    pub(super) paused: bool,
    pub(super) help: bool,
    pub(super) interval: Duration,
    /// How long there has been no answer, and why.
    pub(super) lost: Option<(Duration, String)>,
}

/// The whole screen: at most `rows` lines, none wider than `columns`.
pub(super) fn screen(figures: &Figures, view: &View) -> Vec<Line> {
    let mut lines = vec![header(figures, view), state(figures, view)];
    let room = view.rows.saturating_sub(lines.len() + 1);
    lines.extend(if view.help { help() } else { body(figures, view, room) });
    lines.truncate(view.rows.saturating_sub(1));
    lines.resize(view.rows.saturating_sub(1), Line::default());
    lines.push(footer(figures, view));
    lines.truncate(view.rows);
    lines.into_iter().map(|line| line.cut(view.columns)).collect()
}

fn header(figures: &Figures, view: &View) -> Line {
    let standing = &figures.standing;
    let time = clock(standing.at, "%Y-%m-%d %H:%M:%S UTC");
    let environment = standing.environment.as_deref().unwrap_or("no environment yet");
    let mut line = Line::default();
    line.put(Tone::Strong, "outboxd").plain("  ").put(Tone::Strong, environment);
    line.plain(&format!("  {} on {}", standing.database, figures.host));
    // The time is always there, whatever the names are like.
    let mut line = line.cut(view.columns.saturating_sub(time.len() + 2));
    line.to(view.columns.saturating_sub(time.len()), Tone::Plain, " ").plain(&time);
    line
}

/// The one line that says whether anything is wrong.
fn state(figures: &Figures, view: &View) -> Line {
    let standing = &figures.standing;
    let relays = match standing.relays {
        0 => "no relay is live".to_owned(),
        1 => "1 relay live".to_owned(),
        n => format!("{} relays live", count(n)),
    };
    let mut line = Line::default();
    let mut alarm = |text: String| {
        let text = fit(&super::text::clean(&text), view.columns);
        line.put(Tone::Alarm, &text);
        line.to(view.columns, Tone::Alarm, " ");
    };
    if let Some((silence, reason)) = &view.lost {
        let since = clock(standing.at, "%H:%M:%S UTC");
        alarm(format!(" NO ANSWER since {since} ({}): {reason}", span(silence.as_secs_f64().round())));
    } else if let Some(hold) = &standing.hold {
        alarm(format!(" HOLD, nothing is sent: {hold}  ({relays})"));
    } else if standing.relays == 0 {
        alarm(" NO RELAY IS LIVE, nothing is sent: start outboxd run".to_owned());
    } else {
        line.put(Tone::Good, &relays);
        match standing.lag_s {
            ..5.0 => line.plain("  ").put(Tone::Good, "no hold, keeping up"),
            lag => line.plain("  ").put(Tone::Warning, &format!("no hold, BEHIND by {}", span(lag))),
        };
    }
    if view.paused {
        line = line.cut(view.columns.saturating_sub(9));
        line.plain(" ").put(Tone::Alarm, " PAUSED ");
    }
    line
}

fn footer(figures: &Figures, view: &View) -> Line {
    let mut line = Line::default();
    line.put(Tone::Dim, "q quit  p pause  1/2/3 span  +/- interval  ? help");
    let now = format!("{}, every {} s", span_name(figures.minutes), view.interval.as_secs());
    if view.columns > line.width() + now.len() {
        line.to(view.columns - now.len(), Tone::Dim, " ").put(Tone::Dim, &now);
    }
    line
}

fn span_name(minutes: i32) -> String {
    match minutes {
        60 => "last hour".into(),
        1440 => "last 24 h".into(),
        minutes => format!("last {minutes} min"),
    }
}

fn help() -> Vec<Line> {
    const HELP: [&str; 21] = [
        "",
        "q, Esc, Ctrl-C   quit                 p   pause and go on",
        "1  2  3          span: 10 minutes, 1 hour, 24 hours",
        "+  -             ask less often, more often",
        "h, ?             this page, and back",
        "",
        "success          of all attempts; first attempt: of the first one of each delivery",
        "commit to byte   from an event's insert to the first byte of its first answer",
        "unexpanded       events that are not yet deliveries",
        "pending          deliveries to be made; leased: a relay is at it",
        "failed           wait for another attempt; dead letters: given up",
        "oldest due       how long the longest delivery that could be sent now has waited",
        "lag              the same with unexpanded events; what a pause, a circuit or a",
        "                 rate limit holds back does not count",
        "log head         the last position in the log: its change is what came in",
        "circuit open     failed so often in a row that only probes are sent",
        "",
        "The figures in brackets are changes since a minute ago. Nothing here changes",
        "anything: outbox.resume, outbox.replay_failed, outbox.release do, by an operator.",
        "What your role may not read says so: outbox_viewer may read all of it.",
        "Lists that cost the server much are asked for seldom.",
    ];
    HELP.iter()
        .map(|text| {
            let mut line = Line::default();
            line.plain(text);
            line
        })
        .collect()
}

/// The sections that fit, the lists as long as there is room.
fn body(figures: &Figures, view: &View, room: usize) -> Vec<Line> {
    let (throughput, backlog) = (throughput(figures, view), backlog(figures, view));
    let mut sections = vec![throughput, backlog];
    // What waits is worth more than what was.
    while sections.iter().map(Vec::len).sum::<usize>() > room && sections.len() > 1 {
        sections.remove(0);
    }
    let taken: usize = sections.iter().map(Vec::len).sum();
    let lists = [relays(figures, view), troubled(figures, view), failures(figures, view)];
    let shares = share_out(room.saturating_sub(taken), &lists.each_ref().map(Vec::len));
    for (mut list, lines) in lists.into_iter().zip(shares) {
        list.truncate(lines);
        sections.push(list);
    }
    sections.retain(|section| !section.is_empty());
    let mut spare = room.saturating_sub(sections.iter().map(Vec::len).sum());
    let mut lines = Vec::new();
    for section in sections {
        if spare > 0 && !lines.is_empty() {
            lines.push(Line::default());
            spare -= 1;
        }
        lines.extend(section);
    }
    lines.truncate(room);
    lines
}

/// A title and one line for each while that is possible, then a line in turn to those that have more.
fn share_out(room: usize, wanted: &[usize; 3]) -> [usize; 3] {
    let mut left = room;
    let mut shares = [0; 3];
    for (share, wanted) in shares.iter_mut().zip(wanted) {
        if left >= 2 {
            *share = 2.min(*wanted);
            left -= *share;
        }
    }
    while left > 0 {
        let before = left;
        for (share, wanted) in shares.iter_mut().zip(wanted) {
            if left > 0 && *share > 0 && *share < *wanted {
                (*share, left) = (*share + 1, left - 1);
            }
        }
        if left == before {
            break;
        }
    }
    shares
}

fn title(view: &View, name: &str, note: &str) -> Line {
    let mut line = Line::default();
    line.put(Tone::Dim, "── ").put(Tone::Strong, name);
    if !note.is_empty() {
        line.plain(" ").put(Tone::Dim, "·").plain(" ").plain(note);
    }
    line.plain(" ").to(view.columns, Tone::Dim, "─");
    line
}

/// What stands in the place of figures that are not there.
fn absent<T>(part: &Part<T>, what: &str, figures: &Figures) -> Option<Line> {
    let mut line = Line::default();
    match part {
        Part::Known(_) => return None,
        Part::Waiting => line.put(Tone::Dim, "…"),
        Part::Forbidden => line.put(
            Tone::Warning,
            &format!("{} may not read {what}: grant outbox_viewer, or log in as another role", figures.standing.user),
        ),
        Part::Refused(reason) => line.put(Tone::Warning, &format!("{what}: {reason}")),
    };
    Some(line)
}

fn throughput(figures: &Figures, view: &View) -> Vec<Line> {
    let mut note = span_name(figures.minutes);
    if let Part::Known(Activity { steps, .. }) = &figures.activity
        && let Some(step) = steps.first()
    {
        note = format!("{note}, a column is {}", span_of_step(step.seconds));
    }
    let mut lines = vec![title(view, "Throughput", &note)];
    if let Some(line) = absent(&figures.activity, "outbox.activity()", figures) {
        lines.push(line);
    }
    if let Part::Known(activity) = &figures.activity {
        lines.extend(throughput_of(activity, view));
    }
    lines
}

fn span_of_step(seconds: f64) -> String {
    if seconds < 60.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

fn throughput_of(Activity { steps, whole }: &Activity, view: &View) -> Vec<Line> {
    let room = view.columns.saturating_sub(2 * LABEL);
    let steps = &steps[steps.len().saturating_sub(room)..];
    let last = steps.last().cloned().unwrap_or_default();
    let curve = |label: &str, of: fn(&Step) -> i64, tone: Tone| {
        let heights: Vec<f64> = steps.iter().map(|step| of(step) as f64).collect();
        let now_tone = if of(&last) == 0 { Tone::Plain } else { tone };
        let mut line = Line::default();
        line.left(Tone::Plain, label, LABEL).put(tone, &sparkline(&heights));
        line.right(now_tone, &rate(of(&last), last.seconds), LABEL);
        let peak = steps.iter().map(of).max().unwrap_or_default();
        if view.columns >= line.width() + 20 {
            line.put(Tone::Dim, &format!("  peak {}", rate(peak, last.seconds)));
        }
        line
    };
    let mut sums = Line::default();
    sums.plain(&format!("in all    {} delivered, ", count(whole.delivered)));
    sums.put(if whole.failed > 0 { Tone::Bad } else { Tone::Plain }, &format!("{} failed", count(whole.failed)));
    sums.plain("; success ").put(Tone::Strong, &share(whole.delivered, whole.failed));
    sums.plain(", first attempt ").put(Tone::Strong, &share(whole.first_delivered, whole.first_failed));
    let latencies = |label: &str, [p50, p95, p99]: [Option<f64>; 3]| {
        let mut line = Line::default();
        line.left(Tone::Plain, label, 22);
        for (name, ms) in [("p50", p50), ("p95", p95), ("p99", p99)] {
            line.put(Tone::Dim, name).right(Tone::Plain, &millis(ms), 11).plain("   ");
        }
        line
    };
    vec![
        curve("delivered", |step| step.delivered, Tone::Good),
        curve("failed", |step| step.failed, Tone::Bad),
        sums,
        latencies("attempt", whole.attempt_ms),
        latencies("commit to first byte", whole.commit_ms),
    ]
}

fn backlog(figures: &Figures, view: &View) -> Vec<Line> {
    let (now, earlier) = (&figures.standing, figures.earlier.as_ref());
    let counted = |label: &'static str, of: fn(&Standing) -> i64, worse: Tone| {
        let change = earlier.map(|earlier| of(now) - of(earlier));
        let tone = if change.is_some_and(|change| change > 0) { worse } else { Tone::Plain };
        let change = change.map_or(String::new(), |change| match change {
            0 => "(=)".into(),
            grown @ 1.. => format!("(+{})", count(grown)),
            shrunk => format!("({})", count(shrunk)),
        });
        (label, count(of(now)), if of(now) == 0 { Tone::Plain } else { tone }, change)
    };
    let timed = |label: &'static str, of: fn(&Standing) -> Option<f64>| {
        let change = earlier.map(|earlier| of(now).unwrap_or(0.0) - of(earlier).unwrap_or(0.0));
        let change = change.map_or(String::new(), |change| match change {
            -0.5..0.5 => "(=)".into(),
            0.5.. => format!("(+{})", span(change.round())),
            _ => format!("(-{})", span(-change.round())),
        });
        let tone = match of(now) {
            Some(60.0..) if now.hold.is_none() => Tone::Bad,
            Some(5.0..) => Tone::Warning,
            _ => Tone::Plain,
        };
        (label, of(now).map_or("-".into(), span), tone, change)
    };
    let cells = [
        counted("unexpanded", |s| s.unexpanded, Tone::Warning),
        counted("dead letters", |s| s.dead_letters, Tone::Bad),
        counted("pending", |s| s.pending, Tone::Warning),
        timed("oldest due", |s| s.oldest_due.map(|due| (s.at - due).max(0.0))),
        counted("leased", |s| s.leased, Tone::Plain),
        timed("lag", |s| Some(s.lag_s)),
        counted("failed", |s| s.failed, Tone::Warning),
        counted("log head", |s| s.log_head, Tone::Plain),
    ];
    let note = match earlier.map(|earlier| now.at - earlier.at) {
        Some(..58.0) => format!("in brackets the change in {}", span(earlier.map_or(0.0, |e| (now.at - e.at).round()))),
        Some(_) => "in brackets the change in 1 min".into(),
        None => String::new(),
    };
    let mut lines = vec![title(view, "Backlog", &note)];
    // Two columns where they fit.
    let a_line = if view.columns >= 76 { 2 } else { 1 };
    for cells in cells.chunks(a_line) {
        let mut line = Line::default();
        for (at, (label, value, tone, change)) in cells.iter().enumerate() {
            line.to(at * 40, Tone::Plain, " ");
            line.left(Tone::Plain, label, 13).right(*tone, value, 12).plain(" ").left(Tone::Dim, change, 12);
        }
        lines.push(line);
    }
    lines
}

fn relays(figures: &Figures, view: &View) -> Vec<Line> {
    let Part::Known(relays) = &figures.relays else {
        let mut lines = vec![title(view, "Relays", "")];
        lines.extend(absent(&figures.relays, "outbox.relays()", figures));
        return lines;
    };
    let live = relays.iter().filter(|relay| relay.alive).count();
    let ended = relays.len() - live;
    let mut note = format!("{live} live");
    if ended > 0 {
        note = format!("{note}, {ended} ended within a day");
    }
    let mut lines = vec![title(view, "Relays", &note)];
    let wide = view.columns.saturating_sub(58).clamp(12, 40);
    lines.extend(relays.iter().map(|relay| relay_line(relay, figures.standing.at, wide)));
    if relays.is_empty() {
        lines.push(none("none: start outboxd run"));
    }
    lines
}

fn relay_line(relay: &LiveRelay, now: f64, wide: usize) -> Line {
    let mut line = Line::default();
    line.left(Tone::Plain, &relay.name, wide).plain(" ").left(Tone::Dim, &relay.version, 8).plain(" ");
    let lived = |from: f64| format!("live {}", span((now - from).max(0.0).round()));
    match (relay.alive, relay.ended_at) {
        (true, _) => line.left(Tone::Good, &lived(relay.started_at), 18),
        (false, Some(ended)) => line.left(Tone::Dim, &format!("ended {}", ago(now, ended)), 18),
        (false, None) => line.left(Tone::Bad, "DEAD, not fenced", 18),
    };
    line.right(Tone::Plain, &format!("{} leased", count(relay.leased)), 14);
    if let Some(hold) = &relay.hold {
        line.plain("  ").put(Tone::Bad, &format!("HOLD: {hold}"));
    }
    line
}

fn troubled(figures: &Figures, view: &View) -> Vec<Line> {
    const NAME: &str = "Subscriptions in trouble";
    let Part::Known(troubled) = &figures.troubled else {
        let mut lines = vec![title(view, NAME, "")];
        lines.extend(absent(&figures.troubled, "outbox.subscription", figures));
        return lines;
    };
    let Some(first) = troubled.first() else {
        return vec![title(view, NAME, ""), none("none")];
    };
    let mut lines = vec![title(view, NAME, &count(first.of))];
    let wide = view.columns.saturating_sub(58).clamp(12, 40);
    lines.extend(troubled.iter().map(|subscription| troubled_line(subscription, figures.standing.at, wide)));
    lines
}

fn troubled_line(s: &Troubled, now: f64, wide: usize) -> Line {
    let mut line = Line::default();
    line.left(Tone::Dim, &format!("#{}", s.subscription_id), 7).plain(" ");
    line.left(Tone::Plain, &format!("{}/{}", s.tenant_id, s.name), wide).plain(" ");
    let failures = |line: &mut Line| {
        if s.consecutive_failures > 0 {
            line.plain(&format!(" {} failures", count(s.consecutive_failures)));
        }
        if let Some(since) = s.failing_since {
            line.plain(&format!(", {}", span((now - since).max(0.0).round())));
        }
    };
    match (s.active, s.circuit.as_str(), s.disabled_reason.as_deref()) {
        (false, _, Some("paused")) => {
            line.put(Tone::Warning, "paused");
        }
        (false, _, reason) => {
            line.put(Tone::Bad, "DISABLED").plain(": ").plain(reason.unwrap_or("no reason given"));
        }
        (true, "open", _) => {
            let probe = s.circuit_until.map_or(0.0, |until| (until - now).max(0.0));
            line.left(Tone::Bad, &format!("CIRCUIT OPEN {}", span(probe.round())), 21);
            failures(&mut line);
        }
        (true, "half_open", _) => {
            line.left(Tone::Warning, "CIRCUIT HALF OPEN", 21);
            failures(&mut line);
        }
        (true, ..) => {
            line.left(Tone::Warning, "failing", 21);
            failures(&mut line);
        }
    }
    line
}

fn failures(figures: &Figures, view: &View) -> Vec<Line> {
    const NAME: &str = "Newest failures";
    let Part::Known(failures) = &figures.failures else {
        let mut lines = vec![title(view, NAME, "")];
        lines.extend(absent(&figures.failures, "outbox.delivery", figures));
        return lines;
    };
    if failures.is_empty() {
        return vec![title(view, NAME, ""), none("none waits for another attempt")];
    }
    let mut lines = vec![title(view, NAME, "waiting for another attempt")];
    lines.extend(failures.iter().map(|failure| failure_line(failure, figures.standing.at, view)));
    lines
}

fn failure_line(f: &FailedDelivery, now: f64, view: &View) -> Line {
    let mut line = Line::default();
    line.left(Tone::Dim, &format!("#{}", f.subscription_id), 7).plain(" ");
    line.left(Tone::Dim, &format!("event {}", f.event_seq), 14).plain(" ");
    line.right(Tone::Plain, &ago(now, f.failed_at), 12).plain("  ");
    line.left(Tone::Plain, &format!("try {}", f.attempts), 7).plain(" ");
    if let Some(next) = f.next_attempt_at
        && view.columns >= 100
    {
        let wait = (next - now).round();
        let next = if wait > 0.0 { format!("next in {}", span(wait)) } else { "due".into() };
        line.left(Tone::Dim, &next, 18);
    }
    let code = f.status_code.map_or(String::new(), |code| code.to_string());
    match f.error.as_deref() {
        Some(error) if error.contains(&code) => line.put(Tone::Bad, error),
        Some(error) => line.put(Tone::Bad, &format!("{code} {error}")),
        None => line.put(Tone::Bad, &format!("answered {code}")),
    };
    line
}

fn ago(now: f64, then: f64) -> String {
    format!("{} ago", span((now - then).max(0.0).round()))
}

fn none(text: &str) -> Line {
    let mut line = Line::default();
    line.put(Tone::Dim, text);
    line
}

/// The figures in one line of a log.
pub(super) fn log_line(figures: &Figures) -> String {
    let s = &figures.standing;
    let mut line = format!(
        "{} environment={} relays={} unexpanded={} pending={} leased={} failed={} dead_letters={} lag_s={:.1}",
        clock(s.at, "%Y-%m-%dT%H:%M:%SZ"),
        logged(s.environment.as_deref().unwrap_or("-")),
        s.relays,
        s.unexpanded,
        s.pending,
        s.leased,
        s.failed,
        s.dead_letters,
        s.lag_s,
    );
    if let Part::Known(Activity { steps, .. }) = &figures.activity
        && let Some(last) = steps.last()
    {
        let per_s = |events: i64| events as f64 / last.seconds.max(1.0);
        line += &format!(" delivered_per_s={:.1} failed_per_s={:.1}", per_s(last.delivered), per_s(last.failed));
    }
    if let Part::Known(troubled) = &figures.troubled {
        line += &format!(" troubled={}", troubled.first().map_or(0, |first| first.of));
    }
    if let Some(hold) = &s.hold {
        line += &format!(" hold={}", logged(hold));
    }
    line
}

/// The same when there was no answer.
pub(super) fn lost_line(figures: &Figures, silence: Duration, reason: &str) -> String {
    let now = figures.standing.at + silence.as_secs_f64();
    let since = clock(figures.standing.at, "%Y-%m-%dT%H:%M:%SZ");
    format!("{} no_answer_since={since} reason={}", clock(now, "%Y-%m-%dT%H:%M:%SZ"), logged(reason))
}
