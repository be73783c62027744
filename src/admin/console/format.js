// How times, amounts and states are worded.

import { now } from './api.js';
import { h, badge } from './dom.js';

/** A time, relative, with the absolute one in the title. `ticking` keeps all of them fresh. */
export function time(iso) {
    if (iso === null || iso === undefined) return '–';
    const ms = Date.parse(iso);
    if (!Number.isFinite(ms)) return String(iso);
    return h('time', { datetime: iso, title: utc(ms) }, relative(ms));
}

/** Rewords every time on the page as it passes. */
export function ticking() {
    setInterval(() => {
        for (const element of document.querySelectorAll('time[datetime]')) {
            const words = relative(Date.parse(element.dateTime));
            if (element.textContent !== words) element.textContent = words;
        }
    }, 1000);
}

/** 2026-01-02 03:04:05 UTC */
export const utc = (ms) => new Date(ms).toISOString().replace('T', ' ').replace(/\.\d+Z$/, ' UTC');

/** "3 min ago", "in 2 h". */
export function relative(ms) {
    const seconds = (ms - now()) / 1000;
    if (Math.abs(seconds) < 1) return 'now';
    const amount = Math.abs(seconds);
    const words = duration(amount < 60 || amount >= 3600 ? amount : Math.round(amount / 60) * 60);
    return seconds < 0 ? `${words} ago` : `in ${words}`;
}

/** Seconds in the two largest fitting units at most: "1 h 30 min". */
export function duration(seconds) {
    if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
    let rest = Math.round(seconds);
    const parts = [];
    for (const [size, name] of [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']]) {
        const count = Math.floor(rest / size);
        rest -= count * size;
        if (count > 0) parts.push(`${count} ${name}`);
        else if (parts.length) break;
    }
    return parts.slice(0, 2).join(' ') || '0 s';
}

export const count = (n) => n === null || n === undefined ? '–' : n.toLocaleString('en');
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

export const share = (part, whole) => whole === 0 ? '–' : percent(part / whole);

/** Never rounds up to 100 %: one failure in a million is one. */
export function percent(ratio) {
    const shown = Math.min(ratio === 1 ? 100 : 99.99, ratio * 100);
    return `${shown === 100 || shown === 0 ? shown : shown.toFixed(shown > 99 ? 2 : 1)} %`;
}

/** Milliseconds with about three digits. */
export function millis(ms) {
    if (ms === null || ms === undefined) return '–';
    if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
    return ms < 60_000 ? `${(ms / 1000).toFixed(2)} s` : duration(ms / 1000);
}

export const rate = (perSecond) => perSecond >= 100 ? count(Math.round(perSecond)) : perSecond >= 10 ? perSecond.toFixed(1) : perSecond.toFixed(2);

export const json = (value) => JSON.stringify(value, null, 2);

/** The state of a delivery. */
export function stateBadge(delivery) {
    const [text, tone] = STATES[delivery.state] ?? [delivery.state, 'calm'];
    return delivery.parked ? badge('waits its turn', 'calm', 'Waits for an earlier event of its ordering key') : badge(text, tone);
}

export const STATES = {
    pending: ['pending', 'calm'],
    leased: ['leased', 'info'],
    failed: ['failed, retrying', 'warn'],
    succeeded: ['succeeded', 'good'],
    dead_letter: ['dead letter', 'bad'],
    cancelled: ['cancelled', 'calm'],
};

/** Whether a subscription sends: active, paused by somebody, or ended. */
export function activityBadge(webhook) {
    if (webhook.unsubscribed_at) return badge('unsubscribed', 'calm');
    if (webhook.active) return badge('active', 'good');
    return badge('paused', 'warn', webhook.disabled_reason);
}

export function circuitBadge(health) {
    if (health.circuit === 'open') return badge('circuit open', 'bad');
    if (health.circuit === 'half_open') return badge('circuit half open', 'warn');
    return badge('circuit closed', 'calm');
}

/** The delays of a retry policy as a sentence. */
export function scheduleWords(policy) {
    if (policy.delays_seconds.length === 0) return 'One attempt, no retry.';
    const jitter = policy.jitter > 0 ? `, each up to ${Math.round(policy.jitter * 100)} % longer at random` : '';
    const age = policy.max_age_seconds ? ` Given up after ${duration(policy.max_age_seconds)}.` : '';
    return `${policy.delays_seconds.length + 1} attempts; after a failure waits ${policy.delays_seconds.map(duration).join(', ')}${jitter}.${age}`;
}
