// Charts as SVG. Each is an image with its figures in words; the numbers themselves stand in the page's table.

import { h, s } from './dom.js';
import { utc, millis, rate, count } from './format.js';

/** Attempts a second, delivered and failed stacked. */
export function throughputChart(activity, width) {
    const { steps, step_seconds: seconds, total } = activity;
    const peak = Math.max(...steps.map((step) => (step.delivered + step.failed) / seconds), 0);
    const frame = new Frame(steps, width, peak, rate);
    const bars = steps.map((step, i) => {
        const x = frame.left + i * frame.stepWidth, w = Math.max(frame.stepWidth - 1, 0.5);
        const good = frame.y(step.delivered / seconds), top = frame.y((step.delivered + step.failed) / seconds);
        return s('g', null,
            s('title', null, `${utc(Date.parse(step.at))}: ${count(step.delivered)} delivered, ${count(step.failed)} failed`),
            s('rect', { x, y: frame.top, width: frame.stepWidth, height: frame.height, class: 'catch' }),
            step.delivered > 0 && s('rect', { x, y: good, width: w, height: frame.bottom - good, class: 'delivered' }),
            // However few they are, failures stay visible.
            step.failed > 0 && s('rect', { x, y: Math.min(top, good - 2), width: w, height: Math.max(good - top, 2), class: 'failed' }));
    });
    return figure('Attempts per second', frame, bars,
        `${count(total.delivered)} attempts delivered, ${count(total.failed)} failed, at most ${rate(peak)} a second.`,
        [['delivered', 'delivered'], ['failed', 'failed']]);
}

/** The median and the 99th percentile of `field` (commit_ms or attempt_ms). */
export function latencyChart(title, activity, field, width) {
    const { steps, total } = activity;
    const frame = new Frame(steps, width, Math.max(...steps.map((step) => step[field].p99 ?? 0), 0), millis);
    const lines = ['p99', 'p50'].map((quantile) => s('path', { class: quantile, d: path(frame, steps.map((step) => step[field][quantile])) }));
    const targets = steps.map((step, i) => s('g', null,
        s('title', null, `${utc(Date.parse(step.at))}: p50 ${millis(step[field].p50)}, p95 ${millis(step[field].p95)}, p99 ${millis(step[field].p99)}`),
        s('rect', { x: frame.left + i * frame.stepWidth, y: frame.top, width: frame.stepWidth, height: frame.height, class: 'catch' })));
    return figure(title, frame, [lines, targets],
        `Median ${millis(total[field].p50)}, 95th percentile ${millis(total[field].p95)}, 99th ${millis(total[field].p99)}.`,
        [['p50', 'p50'], ['p99', 'p99 (dashed)']]);
}

/** Which key signs until when: one bar a key over the span in which anything changes. Null if nothing will. */
export function keyTimeline(keys, nowMs, width) {
    const ends = keys.map((key) => key.expires_at && Date.parse(key.expires_at)).filter(Boolean);
    const changes = [...keys.slice(1).map((key) => Date.parse(key.created_at)), ...ends, nowMs];
    if (changes.length === 1) return null;
    const low = Math.min(...changes), high = Math.max(...changes), pad = Math.max((high - low) * 0.12, 60_000);
    const label = Math.min(150, width * 0.35);
    const x = (ms) => label + (Math.min(Math.max(ms, low - pad), high + pad) - low + pad) / (high - low + 2 * pad) * (width - label);
    const rows = keys.map((key, i) => {
        const from = x(Date.parse(key.created_at)), to = x(key.expires_at ? Date.parse(key.expires_at) : Infinity);
        return s('g', null,
            s('text', { x: 0, y: i * 26 + 17 }, clip(key.key_id, Math.floor(label / 7))),
            s('rect', { x: from, y: i * 26 + 5, width: Math.max(to - from, 2), height: 16, rx: 3, class: key.expires_at ? 'ending' : 'lasting' }));
    });
    const height = keys.length * 26 + 18;
    const words = keys.map((key) => `Key ${key.key_id} signs ${key.expires_at ? `until ${utc(Date.parse(key.expires_at))}` : 'until it is rotated'}`).join('. ');
    return s('svg', { class: 'chart keys', role: 'img', 'aria-label': words, width, height, viewBox: `0 0 ${width} ${height}` }, rows,
        s('line', { x1: x(nowMs), x2: x(nowMs), y1: 0, y2: height - 14, class: 'now' }),
        s('text', { x: x(nowMs), y: height - 2, 'text-anchor': 'middle' }, 'now'));
}

// The plot's geometry: value axis from zero to a round number, time axis over all steps.
class Frame {
    constructor(steps, width, peak, format) {
        this.steps = steps;
        this.format = format;
        this.width = width;
        this.left = 56;
        this.top = 8;
        this.bottom = 140;
        this.height = this.bottom - this.top;
        this.stepWidth = (width - this.left - 6) / Math.max(steps.length, 1);
        this.limit = roundUp(peak);
    }

    y(value) {
        return this.bottom - value / this.limit * this.height;
    }

    axes() {
        const grid = [0, 0.5, 1].map((part) => {
            const y = this.y(part * this.limit);
            return s('g', { class: 'grid' }, s('line', { x1: this.left, x2: this.width - 6, y1: y, y2: y }),
                s('text', { x: this.left - 6, y: y + 4, 'text-anchor': 'end' }, part === 0 ? '0' : this.format(part * this.limit)));
        });
        const marks = [0, Math.floor(this.steps.length / 2), this.steps.length - 1].filter((i) => this.steps[i]).map((i, n) =>
            s('text', { x: this.left + (i + (n === 2 ? 1 : 0)) * this.stepWidth, y: this.bottom + 16, 'text-anchor': ['start', 'middle', 'end'][n] }, clock(this.steps[i].at)));
        return s('g', { class: 'axes' }, grid, marks);
    }
}

function figure(title, frame, content, words, legend) {
    return h('figure', null,
        h('figcaption', null, h('strong', null, title), legend.map(([style, name]) => h('span', { class: `key ${style}` }, name))),
        s('svg', { class: 'chart', role: 'img', 'aria-label': `${title}. ${words}`, width: frame.width, height: 162, viewBox: `0 0 ${frame.width} 162` }, frame.axes(), content));
}

// Nothing happened is a gap, not a zero; a lone point is drawn as a short dash.
function path(frame, values) {
    let d = '', drawing = false;
    values.forEach((value, i) => {
        if (value === null) {
            drawing = false;
            return;
        }
        const x = (frame.left + (i + 0.5) * frame.stepWidth).toFixed(1), y = frame.y(value).toFixed(1);
        d += drawing ? `L${x} ${y}` : `M${x} ${y}h0.1`;
        drawing = true;
    });
    return d;
}

function roundUp(value) {
    if (!(value > 0)) return 1;
    const size = 10 ** Math.floor(Math.log10(value));
    return [1, 2, 3, 4, 5, 6, 8, 10].find((step) => step * size >= value) * size;
}

const clip = (text, length) => text.length > length ? `${text.slice(0, length - 1)}…` : text;

const clock = (iso) => new Date(iso).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', hour12: false });
