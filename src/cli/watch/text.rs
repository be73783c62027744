//! Text of a known width. Names, reasons and errors come from the database, and some of them from receivers:
//! what goes into a [`Line`] is cleaned there, so that nothing can be forgotten.

use std::fmt::Write as _;

/// What a text means. Each meaning is also in the words: colour only repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Dim,
    Strong,
    Good,
    Warning,
    Bad,
    Alarm,
}

impl Tone {
    fn sgr(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Dim => "\x1b[2m",
            Tone::Strong => "\x1b[1m",
            Tone::Good => "\x1b[32m",
            Tone::Warning => "\x1b[33m",
            Tone::Bad => "\x1b[1;31m",
            Tone::Alarm => "\x1b[1;97;41m",
        }
    }
}

/// One line of the screen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Line {
    spans: Vec<(Tone, String)>,
    width: usize,
}

impl Line {
    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn put(&mut self, tone: Tone, text: &str) -> &mut Self {
        let text = clean(text);
        self.width += width(&text);
        self.spans.push((tone, text));
        self
    }

    pub(super) fn plain(&mut self, text: &str) -> &mut Self {
        self.put(Tone::Plain, text)
    }

    /// In a column: cut or filled to this width.
    pub(super) fn left(&mut self, tone: Tone, text: &str, columns: usize) -> &mut Self {
        let text = fit(&clean(text), columns);
        let fill = columns.saturating_sub(width(&text));
        self.put(tone, &text).plain(&" ".repeat(fill))
    }

    /// In a column, at its right edge.
    pub(super) fn right(&mut self, tone: Tone, text: &str, columns: usize) -> &mut Self {
        let text = fit(&clean(text), columns);
        let fill = columns.saturating_sub(width(&text));
        self.plain(&" ".repeat(fill)).put(tone, &text)
    }

    /// Fills up to that column.
    pub(super) fn to(&mut self, column: usize, tone: Tone, fill: &str) -> &mut Self {
        self.put(tone, &fill.repeat(column.saturating_sub(self.width)))
    }

    /// The same in no more than so many columns.
    pub(super) fn cut(mut self, columns: usize) -> Self {
        if self.width <= columns {
            return self;
        }
        let mut room = columns;
        let mut line = Self::default();
        for (tone, text) in self.spans.drain(..) {
            if width(&text) < room {
                room -= width(&text);
                line.put(tone, &text);
            } else {
                // More follows, or is cut off here.
                line.put(tone, &fit(&format!("{text}…"), room));
                break;
            }
        }
        line
    }

    /// What is written to the terminal.
    pub(super) fn paint(&self, colour: bool, unicode: bool) -> String {
        let mut painted = String::new();
        for (tone, text) in &self.spans {
            let sgr = if colour { tone.sgr() } else { "" };
            painted.push_str(sgr);
            if unicode {
                painted.push_str(text);
            } else {
                text.chars().for_each(|c| ascii(c, &mut painted));
            }
            if !sgr.is_empty() {
                painted.push_str("\x1b[0m");
            }
        }
        painted
    }
}

/// Without what a terminal obeys, what reorders text, and what has no width of its own (accents that are
/// characters of their own, too: a heap of them covers other lines). Breaks become spaces.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .filter_map(|c| match u32::from(c) {
            0x09 | 0x0A | 0x0D | 0x85 | 0x2028 | 0x2029 => Some(' '),
            _ if c.is_control() => None,
            0xAD
            | 0x034F
            | 0x0300..=0x036F
            | 0x0483..=0x0489
            | 0x0591..=0x05BD
            | 0x0600..=0x0605
            | 0x0610..=0x061C
            | 0x064B..=0x065F
            | 0x06DD
            | 0x070F
            | 0x115F..=0x1160
            | 0x17B4..=0x17B5
            | 0x180B..=0x180F
            | 0x1AB0..=0x1AFF
            | 0x1DC0..=0x1DFF
            | 0x200B..=0x200F
            | 0x202A..=0x202E
            | 0x2060..=0x206F
            | 0x20D0..=0x20FF
            | 0x3164
            | 0xFE00..=0xFE0F
            | 0xFE20..=0xFE2F
            | 0xFEFF
            | 0xFFA0
            | 0xFFF0..=0xFFFB
            | 0x110BD
            | 0x1BCA0..=0x1BCA3
            | 0x1D173..=0x1D17A
            | 0xE0000..=0xE0FFF => None,
            _ => Some(c),
        })
        .collect()
}

/// Columns that a clean text takes at most. Where terminals disagree about a character, it counts as wide:
/// better a gap than a line that is wider than the screen.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(|c| if is_wide(c) { 2 } else { 1 }).sum()
}

fn is_wide(c: char) -> bool {
    matches!(
        u32::from(c),
        0x1100..=0x11FF
            | 0x231A..=0x231B
            | 0x2329..=0x232A
            | 0x23E9..=0x23FA
            | 0x25FD..=0x25FE
            | 0x2600..=0x27BF
            | 0x2B05..=0x2B07
            | 0x2B1B..=0x2B1C
            | 0x2B50..=0x2B55
            | 0x2E80..=0xA4CF
            | 0xA960..=0xA97F
            | 0xAC00..=0xD7FF
            | 0xF900..=0xFAFF
            | 0xFE10..=0xFE19
            | 0xFE30..=0xFE6F
            | 0xFF01..=0xFF60
            | 0xFFE0..=0xFFE6
            | 0x16FE0..=0x18DFF
            | 0x1AFF0..=0x1B2FF
            | 0x1F000..=0x1FAFF
            | 0x20000..=0x3FFFD
    )
}

/// A clean text in no more than so many columns; what was cut ends with an ellipsis.
pub(super) fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else { return String::new() };
    let mut taken = 0;
    let mut short: String = text
        .chars()
        .take_while(|c| {
            taken += if is_wide(*c) { 2 } else { 1 };
            taken <= room
        })
        .collect();
    short.push('…');
    short
}

/// For a terminal that says it is not UTF-8.
fn ascii(c: char, painted: &mut String) {
    match c {
        c if c.is_ascii() => painted.push(c),
        '─' => painted.push('-'),
        '·' => painted.push('|'),
        '…' => painted.push('~'),
        '▁'..='█' => painted.push(char::from(b"_.:-=+*#"[(c as usize - '▁' as usize).min(7)])),
        c if is_wide(c) => painted.push_str("??"),
        _ => painted.push('?'),
    }
}

/// Heights of a column each, the highest full; what is not nothing can be seen.
pub(super) fn sparkline(values: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = values.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        if *value <= 0.0 { ' ' } else { BARS[((value / highest * 8.0).ceil() as usize).clamp(1, 8) - 1] }
    };
    values.iter().map(bar).collect()
}

/// 1,234,567.
pub(super) fn count(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many a second.
pub(super) fn rate(events: i64, seconds: f64) -> String {
    if events == 0 || seconds <= 0.0 {
        return "0/s".into();
    }
    match events as f64 / seconds {
        few if few < 0.01 => "<0.01/s".into(),
        few if few < 1.0 => format!("{few:.2}/s"),
        some if some < 100.0 => format!("{some:.1}/s"),
        many => format!("{}/s", count(many.round() as i64)),
    }
}

/// A share in percent; 100 only if it is all.
pub(super) fn share(good: i64, bad: i64) -> String {
    match (good, bad) {
        (0, 0) => "-".into(),
        (_, 0) => "100 %".into(),
        _ => format!("{:.2} %", (good as f64 * 100.0 / (good + bad) as f64).min(99.99)),
    }
}

/// A latency.
pub(super) fn millis(ms: Option<f64>) -> String {
    match ms {
        None => "-".into(),
        Some(ms) if ms < 10.0 => format!("{ms:.1} ms"),
        Some(ms) if ms < 10_000.0 => format!("{ms:.0} ms"),
        Some(ms) => span(ms / 1000.0),
    }
}

/// A span of time in its two largest units.
pub(super) fn span(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "ever".into();
    }
    let whole = seconds.max(0.0).round() as u64;
    let (d, h, m, s) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match (d, h, m) {
        (0, 0, 0) if (0.0..9.95).contains(&seconds) && seconds.fract() != 0.0 => format!("{seconds:.1} s"),
        (0, 0, 0) => format!("{s} s"),
        (0, 0, _) => format!("{m} m {s:02} s"),
        (0, ..) => format!("{h} h {m:02} m"),
        _ => format!("{} d {h:02} h", count(d as i64)),
    }
}

/// `2026-11-24 00:30:39 UTC`, by its format.
pub(super) fn clock(epoch_s: f64, format: &str) -> String {
    let time = jiff::Timestamp::from_second(epoch_s as i64).unwrap_or_default();
    time.strftime(format).to_string()
}

/// A value of a log line: quoted where it must be.
pub(super) fn logged(text: &str) -> String {
    let text = fit(&clean(text), 200);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-/:@".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text;
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        let _ = write!(quoted, "{c}");
    }
    quoted.push('"');
    quoted
}
