// Who did what, when, on which rows.

import { get, now } from './api.js';
import { h, badge, button, link, table } from './dom.js';
import { field, input, select } from './forms.js';
import { time, utc } from './format.js';
import { webhookChoices } from './webhooks.js';

const ACTIONS = [
    'subscribe', 'change', 'unsubscribe', 'pause', 'resume', 'disable', 'rotate_secret', 'send_test', 'replay', 'replay_failed', 'replay_missing',
    'cancel', 'skip', 'park', 'hold', 'release', 'set', 'adopt', 'define_event_type', 'archive_event_type', 'create_token', 'revoke_token', 'sign_in',
];

/** The trail, newest first. */
export async function audit(page) {
    const subscription = select(page.query.get('subscription_id') ?? '', await webhookChoices(page));
    const known = h('datalist', { id: 'actions-known' });
    const action = input(page.query.get('action'), { type: 'search', 'data-search': true, maxlength: 63, list: 'actions-known', class: 'mono' });
    const list = h('div'), paging = h('div', { class: 'actions' }), read = h('p', { class: 'help' });
    const seen = new Set(ACTIONS);
    let trail = [null], next = null, turn = 0;

    const load = async () => {
        const filters = { subscription_id: subscription.value, action: action.value.trim() };
        page.remember(filters);
        const mine = ++turn;
        const answer = await get('/audit', { signal: page.signal, query: { ...filters, cursor: trail.at(-1), limit: 50 } });
        if (mine !== turn) return;
        next = answer.next_cursor;
        for (const entry of answer.data) seen.add(entry.action);
        known.replaceChildren(...[...seen].sort().map((name) => h('option', { value: name })));
        list.replaceChildren(entries(answer.data));
        paging.replaceChildren(...[
            trail.length > 1 && button('Newer', () => { trail.pop(); return load().catch(page.failed); }),
            next && button('Older', () => { trail.push(next); return load().catch(page.failed); }),
            button('Refresh', () => load().catch(page.failed)),
        ].filter(Boolean));
        read.textContent = `As of ${utc(now())}.`;
        page.fresh();
    };
    const first = () => { trail = [null]; return load().catch(page.failed); };

    page.show('Audit', null, h('form', { class: 'filters', role: 'search', 'aria-label': 'Audit trail', onsubmit: (event) => { event.preventDefault(); first(); }, onchange: first },
        field('Action', 'action', action), known, field('Subscription', 'subscription_id', subscription), h('button', { type: 'submit' }, 'Filter')),
    list, paging, read);
    await load();
}

const entries = (rows) => table('Audit trail', [
    { title: 'When', cell: (entry) => time(entry.at) },
    { title: 'Who', head: true, cell: (entry) => [entry.actor, entry.db_user !== entry.actor && h('div', { class: 'quiet' }, `as ${entry.db_user}`)] },
    { title: 'Via', cell: (entry) => badge(entry.via) },
    { title: 'What', cell: (entry) => h('code', null, entry.action) },
    { title: 'On', cell: (entry) => rowsOf(entry) },
    { title: 'Detail', cell: (entry) => detail(entry.detail) },
], rows, { key: (entry) => entry.audit_id, empty: 'Nobody did any of this.' });

function rowsOf({ subscription_id: subscription, event_seq: event, tenant_id: tenant }) {
    const parts = [
        subscription && link(`#/webhooks/${subscription}`, `subscription ${subscription}`),
        subscription && event && link(`#/deliveries/${subscription}-${event}`, `delivery ${subscription}-${event}`),
        tenant && h('span', { class: 'quiet' }, `tenant ${tenant}`),
    ].filter(Boolean);
    return parts.length ? parts.map((part) => h('div', null, part)) : 'everything';
}

function detail(values) {
    const pairs = Object.entries(values ?? {});
    if (pairs.length === 0) return '–';
    return pairs.map(([name, value]) => h('div', { class: 'detail' }, h('span', { class: 'quiet' }, `${name}: `), wording(value)));
}

// A change is noted as what was and what is.
function wording(value) {
    if (value === null || value === '') return 'empty';
    if (typeof value === 'object' && Object.keys(value).sort().join() === 'from,to') return `${wording(value.from)} → ${wording(value.to)}`;
    return typeof value === 'string' ? value : JSON.stringify(value);
}
