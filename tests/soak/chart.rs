//! A chart of many small panels as SVG, one quantity each, over the same time, with the faults marked. Pure.
//!
//! By hand rather than with a library: it is lines and text, and it has to follow the reader's colours.

use std::fmt::Write;

/// A quantity.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) lines: Vec<Line>,
}

pub(crate) struct Line {
    pub(crate) label: String,
    /// Minutes and values, in order of time; none where it is not known.
    pub(crate) points: Vec<(f64, Option<f64>)>,
}

/// A moment or a span, in minutes.
pub(crate) struct Mark {
    pub(crate) class: &'static str,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

const COLUMNS: usize = 3;
const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 38.0;
const BOTTOM: f64 = 30.0;
const HEAD: f64 = 52.0;
/// More points of a line than these are one median each.
const MOST_POINTS: usize = 180;

const STYLE: &str = "
text { font: 10px system-ui, sans-serif; fill: #59636e }
.paper { fill: #ffffff } .title { font-weight: 600; font-size: 11px; fill: #1f2328 } .head { font-weight: 600; font-size: 14px; fill: #1f2328 }
.grid { stroke: #d1d9e0; stroke-width: 0.7 } .warm { fill: #818b98; fill-opacity: 0.13 }
.line { fill: none; stroke-width: 1.3; stroke-linejoin: round }
.c0 { stroke: #0969da } .c1 { stroke: #bc4c00 } .c2 { stroke: #1a7f37 } .c3 { stroke: #8250df } .c4 { stroke: #bf3989 }
text.c0 { stroke: none; fill: #0969da } text.c1 { stroke: none; fill: #bc4c00 } text.c2 { stroke: none; fill: #1a7f37 } text.c3 { stroke: none; fill: #8250df } text.c4 { stroke: none; fill: #bf3989 }
.kill { stroke: #cf222e; stroke-opacity: 0.4; stroke-width: 0.8 } .restart { stroke: #cf222e; stroke-width: 1.4; stroke-dasharray: 4 2 }
.hold { fill: #9a6700; fill-opacity: 0.13 }
@media (prefers-color-scheme: dark) {
text { fill: #9198a1 } .paper { fill: #0d1117 } .title, .head { fill: #f0f6fc } .grid { stroke: #3d444d }
.c0 { stroke: #4493f8 } .c1 { stroke: #f0883e } .c2 { stroke: #3fb950 } .c3 { stroke: #ab7df8 } .c4 { stroke: #f778ba }
text.c0 { fill: #4493f8 } text.c1 { fill: #f0883e } text.c2 { fill: #3fb950 } text.c3 { fill: #ab7df8 } text.c4 { fill: #f778ba }
.kill, .restart { stroke: #ff7b72 } .hold { fill: #d29922; fill-opacity: 0.2 }
}
";

/// The whole picture; `warm_up` and `minutes` are the time that is not judged, and all of it.
pub(crate) fn draw(heading: &str, panels: &[Panel], marks: &[Mark], warm_up: f64, minutes: f64) -> String {
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * COLUMNS as f64, HEAD + HEIGHT * rows as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">\n\
         <title>{0}</title>\n<style>{STYLE}</style>\n<rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n\
         <text class=\"head\" x=\"12\" y=\"20\">{0}</text>\n",
        escaped(heading)
    );
    legend(&mut svg);
    for (nth, panel) in panels.iter().enumerate() {
        let (x, y) = ((nth % COLUMNS) as f64 * WIDTH, HEAD + (nth / COLUMNS) as f64 * HEIGHT);
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
        draw_panel(&mut svg, panel, marks, warm_up, minutes);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

/// Writing to a string cannot fail, here and below.
fn legend(svg: &mut String) {
    svg.push_str("<rect class=\"warm\" x=\"12\" y=\"30\" width=\"14\" height=\"12\"/><text x=\"30\" y=\"40\">not judged</text>\n");
    svg.push_str("<line class=\"kill\" x1=\"104\" x2=\"104\" y1=\"30\" y2=\"42\"/><text x=\"110\" y=\"40\">relay killed</text>\n");
    svg.push_str("<line class=\"restart\" x1=\"184\" x2=\"184\" y1=\"30\" y2=\"42\"/><text x=\"190\" y=\"40\">PostgreSQL crashed</text>\n");
    svg.push_str("<rect class=\"hold\" x=\"296\" y=\"30\" width=\"14\" height=\"12\"/><text x=\"314\" y=\"40\">a transaction held open</text>\n");
}

fn draw_panel(svg: &mut String, panel: &Panel, marks: &[Mark], warm_up: f64, minutes: f64) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let x = |at: f64| LEFT + (at / minutes).clamp(0.0, 1.0) * (right - LEFT);
    let highest = panel.lines.iter().flat_map(|line| &line.points).filter_map(|(_, value)| *value).fold(0.0, f64::max);
    let step = nice_step(highest / 3.0);
    let top = step * (highest / step).ceil().max(1.0);
    let y = |value: f64| bottom - (value / top).clamp(0.0, 1.0) * (bottom - TOP);

    let _ = writeln!(svg, "<text class=\"title\" x=\"{LEFT}\" y=\"14\">{}, {}</text>", panel.title, panel.unit);
    let _ = writeln!(
        svg,
        "<rect class=\"warm\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>",
        x(warm_up) - LEFT,
        bottom - TOP
    );
    for mark in marks {
        let (from, to) = (x(mark.from), x(mark.to));
        let _ = if mark.class == "hold" {
            let (width, height) = ((to - from).max(1.0), bottom - TOP);
            writeln!(svg, "<rect class=\"hold\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\"/>")
        } else {
            writeln!(svg, "<path class=\"{}\" d=\"M{from:.1} {TOP}V{bottom}\"/>", mark.class)
        };
    }
    for nth in 0..=(top / step).round() as usize {
        let value = nth as f64 * step;
        let at = y(value);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>");
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 5.0,
            at + 3.5,
            label(value)
        );
    }
    let step = nice_step(minutes / 5.0);
    for nth in 0..=(minutes / step).floor() as usize {
        let at = nth as f64 * step;
        let unit = if at + step > minutes { " min" } else { "" };
        let anchor = if unit.is_empty() { "middle" } else { "end" };
        let place = if unit.is_empty() { x(at) } else { x(at).max(right - 20.0) + 8.0 };
        let _ = writeln!(
            svg,
            "<text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}{unit}</text>",
            bottom + 13.0,
            label(at)
        );
    }
    let mut beside = LEFT;
    for (nth, line) in panel.lines.iter().enumerate() {
        let colour = nth % 5;
        let _ = writeln!(svg, "<text class=\"c{colour}\" x=\"{beside:.0}\" y=\"28\">{}</text>", escaped(&line.label));
        beside += 12.0 + 5.6 * line.label.chars().count() as f64;
        let _ = writeln!(svg, "<path class=\"line c{colour}\" d=\"{}\"/>", path(&thinned(&line.points), x, y));
    }
}

/// A gap where nothing is known; a lone point is a dot.
fn path(points: &[(f64, Option<f64>)], x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut pen = 'M';
    for (at, value) in points {
        let Some(value) = value else {
            pen = 'M';
            continue;
        };
        let _ = write!(path, "{pen}{:.1} {:.1}", x(*at), y(*value));
        if pen == 'M' {
            path.push_str("h0.1");
        }
        pen = 'L';
    }
    path
}

/// So few points that the picture stays small.
fn thinned(points: &[(f64, Option<f64>)]) -> Vec<(f64, Option<f64>)> {
    let size = points.len().div_ceil(MOST_POINTS).max(1);
    let middle = |chunk: &[(f64, Option<f64>)]| {
        let mut known: Vec<f64> = chunk.iter().filter_map(|(_, value)| *value).collect();
        known.sort_by(f64::total_cmp);
        (chunk[chunk.len() / 2].0, known.get(known.len() / 2).copied())
    };
    points.chunks(size).map(middle).collect()
}

/// 1, 2 or 5 times a power of ten, and not less than this.
fn nice_step(least: f64) -> f64 {
    if !least.is_finite() || least <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= least * 0.999).unwrap_or(10.0);
    factor * power
}

fn label(value: f64) -> String {
    if value >= 10_000.0 {
        return format!("{}k", (value / 100.0).round() / 10.0);
    }
    // Without what arithmetic leaves behind.
    format!("{}", (value * 1000.0).round() / 1000.0)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
