// How things stand: figures, charts, relays, and who is unhealthy.

import { get, put, remove, walk } from './api.js';
import { h, badge, button, link, table, section, morphChildren, problemBox, toast } from './dom.js';
import { dialog, field, input, select } from './forms.js';
import { throughputChart, latencyChart } from './charts.js';
import { time, duration, count, plural, share, millis, rate, utc, relative, circuitBadge, activityBadge } from './format.js';

const SPANS = [['10', '10 min'], ['60', '1 h'], ['1440', '24 h']];

/** The first page: refreshed every two seconds. */
export async function overview(page) {
    const span = select(SPANS.some(([minutes]) => minutes === page.query.get('minutes')) ? page.query.get('minutes') : '10', SPANS, { 'aria-label': 'Span of the figures' });
    const parts = Object.fromEntries(['alarms', 'tiles', 'charts', 'relays', 'unhealthy'].map((name) => [name, h('div', { class: name })]));
    const actions = h('div', { class: 'actions' });
    let subscriptions = null, looks = 0, latest = null, asked = 0, drawn = 0;

    const load = async (options = { signal: page.signal }) => {
        const seen = { minutes: span.value }, mine = ++asked;
        [seen.status, seen.activity, seen.relays] = await Promise.all([
            allowed(get('/status', options)),
            allowed(get('/activity', { ...options, query: { minutes: seen.minutes } })),
            allowed(get('/relays', options)),
        ]);
        // Health changes slowly and there may be many: every fifth time.
        if (looks++ % 5 === 0) subscriptions = await walk('/webhooks', options);
        if (mine < drawn) return;       // a later question was answered sooner
        [latest, drawn] = [seen, mine];
        draw();
    };
    const draw = () => {
        const { status, activity, relays, minutes } = latest;
        morphChildren(parts.alarms, alarms(page, status, activity, minutes, load));
        morphChildren(actions, [page.operator && status && !status.hold && button('Hold…', () => holdDialog(load))]);
        morphChildren(parts.tiles, tiles(status, activity, minutes));
        morphChildren(parts.charts, activity ? charts(activity, parts.charts.clientWidth) : h('p', { class: 'empty' }, 'Activity is not shown to this token.'));
        morphChildren(parts.relays, relays ? relayTable(relays.data) : h('p', { class: 'empty' }, 'Relays are not shown to this token.'));
        morphChildren(parts.unhealthy, unhealthy(subscriptions));
    };

    span.onchange = () => {
        page.remember({ minutes: span.value === '10' ? '' : span.value });
        load().then(() => page.fresh(), (problem) => page.stale(problem));
    };
    page.show('Overview', [h('label', { class: 'inline' }, 'Span ', span), actions],
        parts.alarms, parts.tiles, parts.charts,
        h('div', { class: 'columns' }, section('Unhealthy subscriptions', parts.unhealthy), section('Relays', parts.relays)));
    await load();
    window.addEventListener('resize', draw, { signal: page.signal });
    page.poll(() => span.value === '1440' ? 10 : 2, load);
}

// A token bound to a tenant may not see everything; the rest of the page is still worth showing.
const allowed = (answer) => answer.catch((problem) => {
    if (problem.status === 403) return null;
    throw problem;
});

function alarms(page, status, activity, minutes, load) {
    const found = [];
    if (status?.hold) {
        found.push(h('div', { class: 'banner bad', 'data-key': 'hold' }, h('div', { role: 'alert' }, h('strong', null, 'All sending is held. '), `Reason: ${status.hold}`),
            page.operator && button('Release', () => release(load))));
    }
    if (status?.relays === 0) found.push(alarm('relays', 'No relay is running.', 'Nothing is sent until one is started.'));
    if (status && !status.hold && status.lag_seconds > 10) {
        found.push(alarm('lag', 'The relays are late.', `The oldest work that could be done has waited for ${duration(status.lag_seconds)}.`));
    }
    const { delivered = 0, failed = 0 } = activity?.total ?? {};
    if (delivered < 0.9 * (delivered + failed)) {
        found.push(alarm('success', 'Less than 90 % of the attempts delivered.',
            `${share(delivered, delivered + failed)} in the last ${spanName(minutes)}; ${count(failed)} failed.`));
    }
    if (found.length) return found;
    return h('p', { class: 'allwell', role: 'status', 'data-key': 'well' },
        status ? 'Sending, and nothing calls for attention.' : 'The figures of the whole outbox are not shown to this token.');
}

const spanName = (minutes) => SPANS.find(([known]) => known === minutes)[1];

// What changes with every refresh stands outside of the alert, which would be read out again and again.
const alarm = (key, what, more) => h('div', { class: 'banner bad', 'data-key': key }, h('strong', { role: 'alert' }, what), ' ', more);

function tiles(status, activity, minutes) {
    const span = spanName(minutes);
    const groups = [];
    if (activity) {
        const { total, steps, step_seconds: seconds } = activity;
        const attempts = total.delivered + total.failed, firsts = total.first_delivered + total.first_failed;
        // The newest step is still filling, so the last full minute, or step, before it speaks for "now".
        const recent = steps.slice(0, -1).slice(-Math.max(1, Math.round(60 / seconds)));
        const perSecond = recent.reduce((sum, step) => sum + step.delivered, 0) / (recent.length * seconds || 1);
        groups.push(
            tile('Throughput', `${rate(perSecond)}/s`, `deliveries; ${rate(total.delivered / (seconds * steps.length || 1))}/s over ${span}`),
            tile('Success rate', share(total.delivered, attempts), `${plural(attempts, 'attempt')} in ${span}`, attempts && total.delivered / attempts < 0.9),
            tile('First attempt', share(total.first_delivered, firsts), `succeeded, of ${plural(firsts, 'event')} first tried`),
            quantiles('Commit to first byte', total.commit_ms), quantiles('Attempt', total.attempt_ms));
    }
    if (status) {
        groups.push(
            tile('Backlog', count((status.unexpanded_events ?? 0) + status.pending), `${count(status.unexpanded_events)} unexpanded, ${count(status.pending)} pending, ${count(status.leased)} leased`),
            tile('Retrying', link('#/deliveries?state=failed', count(status.failed)), 'failed, to be tried again'),
            tile('Dead letters', link('#/deliveries?state=dead_letter', count(status.dead_letters)), 'given up', status.dead_letters > 0),
            tile('Oldest due', status.oldest_due ? time(status.oldest_due) : 'none', 'of what waits to be sent'),
            tile('Lag', duration(status.lag_seconds), 'that the relays answer for', status.lag_seconds > 10),
            tile('Relays', count(status.relays), 'alive', status.relays === 0));
    }
    return groups;
}

const tile = (name, figure, more, bad) => h('div', { class: bad ? 'tile bad' : 'tile' },
    h('div', { class: 'name' }, name), h('div', { class: 'figure' }, figure), h('div', { class: 'more' }, more));

const quantiles = (name, ms) => tile(name, millis(ms.p50), `median; p95 ${millis(ms.p95)}, p99 ${millis(ms.p99)}`);

function charts(activity, available) {
    const across = available > 900 ? 3 : available > 620 ? 2 : 1;
    const width = Math.max(240, Math.floor(available / across) - 36);
    return [
        h('div', { class: 'chartrow' },
            throughputChart(activity, width),
            latencyChart('Commit to first byte', activity, 'commit_ms', width),
            latencyChart('Attempt', activity, 'attempt_ms', width)),
        h('details', null, h('summary', null, 'The charts as a table'),
            h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Figures of the charts' }, stepTable(activity.steps))),
    ];
}

function stepTable(steps) {
    const cell = (text) => h('td', { class: 'num' }, text);
    return h('table', null, h('caption', { class: 'hidden' }, 'Attempts and latencies, newest first'),
        h('thead', null, h('tr', null, ['From', 'Delivered', 'Failed', 'Commit p50', 'Commit p95', 'Commit p99', 'Attempt p50', 'Attempt p95', 'Attempt p99'].map((title) => h('th', { scope: 'col' }, title)))),
        h('tbody', null, steps.toReversed().map((step) => h('tr', { 'data-key': step.at },
            h('th', { scope: 'row' }, utc(Date.parse(step.at))), cell(count(step.delivered)), cell(count(step.failed)),
            [step.commit_ms, step.attempt_ms].map((ms) => [ms.p50, ms.p95, ms.p99].map((value) => cell(millis(value))))))));
}

const relayTable = (relays) => table('Relays', [
    { title: 'Relay', head: true, cell: (relay) => relay.name },
    { title: 'State', cell: (relay) => !relay.alive ? badge('ended', 'calm') : relay.hold ? badge('holds', 'warn', relay.hold) : badge('alive', 'good') },
    { title: 'Under way', class: 'num', cell: (relay) => count(relay.leased) },
    { title: 'Version', cell: (relay) => relay.version },
    { title: 'Environment', cell: (relay) => relay.environment },
    { title: 'Started', cell: (relay) => time(relay.started_at) },
    { title: 'Ended', cell: (relay) => relay.ended_at ? time(relay.ended_at) : '–' },
], relays, { key: (relay) => relay.epoch, empty: 'No relay has run within a day.' });

function unhealthy({ data, complete }) {
    const failing = (webhook) => webhook.health.failing_since !== null || webhook.health.consecutive_failures > 0;
    const found = data.filter((webhook) => !webhook.active || webhook.health.circuit !== 'closed' || failing(webhook));
    return [
        table('Unhealthy subscriptions', [
            { title: 'Subscription', head: true, cell: (webhook) => link(`#/webhooks/${webhook.subscription_id}`, webhook.name) },
            { title: 'State', cell: (webhook) => [activityBadge(webhook), ' ', webhook.health.circuit !== 'closed' && circuitBadge(webhook.health)] },
            { title: 'Failures in a row', class: 'num', cell: (webhook) => count(webhook.health.consecutive_failures) },
            { title: 'Last success', cell: (webhook) => webhook.health.last_success_at ? time(webhook.health.last_success_at) : 'never' },
            { title: 'Why', cell: (webhook) => webhook.disabled_reason ?? (webhook.health.failing_since ? `failing since ${relative(Date.parse(webhook.health.failing_since))}` : '–') },
        ], found.slice(0, 50), { key: (webhook) => webhook.subscription_id, empty: 'All subscriptions are active and their last attempts delivered.' }),
        found.length > 50 && h('p', { class: 'help' }, `And ${found.length - 50} more.`),
        !complete && h('p', { class: 'help' }, `Only the newest ${count(data.length)} subscriptions were looked at.`),
    ];
}

function holdDialog(load) {
    const reason = input('', { required: true, maxlength: 500 });
    dialog('Hold all sending', [
        h('p', null, 'No relay expands or sends anything until it is released. Events go on being committed; attempts under way end.'),
        field('Reason', 'reason', reason, 'Shown to everybody who looks.'),
    ], {
        action: 'Hold', danger: true, submit: async () => {
            await put('/hold', { reason: reason.value.trim() });
            toast('Sending is held.');
            await load().catch(() => {});
        },
    });
}

async function release(load) {
    try {
        await remove('/hold');
        toast('Sending goes on.');
        await load();
    } catch (problem) {
        dialog('Not released', problemBox(problem));
    }
}
