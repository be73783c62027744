// One event: what became of it, and what it said.

import { get } from './api.js';
import { h, badge, button, code, facts, link, problemBox, section, table } from './dom.js';
import { STATES, count, json, time } from './format.js';

const VERDICTS = {
    unexpanded: ['not expanded yet', 'calm', 'Committed, and waiting for a relay to expand it.'],
    created_later: ['subscribed later', 'calm', 'The subscription came after the event was expanded. Replay missing sends it.'],
    unsubscribed: ['unsubscribed', 'calm', 'The subscription had ended.'],
    paused: ['paused', 'warn', 'The subscription was paused. Replay missing sends it.'],
    type: ['other type', 'calm', 'The subscription does not ask for this type.'],
    filter: ['filtered out', 'calm', 'The payload did not pass the subscription’s filter.'],
    addressed: ['for another', 'calm', 'The event was a test for another subscription.'],
    unknown: ['unknown', 'calm', 'Expanded before this database was adopted from another cluster.'],
};
const OUTCOMES = {
    pending: 'Waits to be sent.', leased: 'An attempt is under way.', failed: 'Failed so far; it will be tried again.',
    succeeded: 'Delivered.', dead_letter: 'Given up.', cancelled: 'Cancelled by somebody.',
};

/** The verdict of every subscription of the tenant; the payload on demand, for not everybody may see it. */
export async function event(page) {
    const path = `/events/${encodeURIComponent(page.params.id)}`;
    const explanation = await get(`${path}/explain`, { signal: page.signal });
    const payload = h('div', { 'aria-live': 'polite' });
    const show = button('Show payload', async () => {
        try {
            payload.replaceChildren(view(await get(path, { exact: 'payload', signal: page.signal })));
        } catch (problem) {
            payload.replaceChildren(problem.status === 403
                ? h('p', { class: 'banner calm' }, 'Payloads may hold what not everybody should read: your role does not show them. Ask an operator.')
                : problemBox(problem));
        }
    });
    page.show(`Event ${explanation.event_id}`, link(`#/deliveries?event_id=${explanation.event_id}`, 'Its deliveries'),
        section('What became of it', h('p', { class: 'help' }, 'Judged by what each subscription was when the event was expanded.'), verdicts(explanation.data)),
        page.operator
            ? section('Event', show, payload)
            : section('Event', h('p', { class: 'help' }, 'Payloads may hold what not everybody should read; an operator’s token shows them.')));
}

const verdicts = (rows) => table('Verdicts', [
    { title: 'Subscription', head: true, cell: (row) => link(`#/webhooks/${row.subscription_id}`, row.name) },
    { title: 'Verdict', cell: ({ verdict }) => badge(...(STATES[verdict] ?? VERDICTS[verdict] ?? [verdict, 'calm'])) },
    { title: 'In words', cell: ({ verdict, detail }) => [h('div', null, OUTCOMES[verdict] ?? VERDICTS[verdict]?.[2] ?? ''), detail && h('div', { class: 'quiet' }, detail)] },
    { title: 'Attempts', class: 'num', cell: (row) => count(row.attempts) },
    { title: 'Next', cell: (row) => row.next_attempt_at ? time(row.next_attempt_at) : '–' },
    { title: 'Delivery', cell: (row) => row.delivery_id ? link(`#/deliveries/${row.delivery_id}`, row.delivery_id) : 'none' },
], rows, { empty: 'The tenant has no subscription.' });

function view(event) {
    return h('div', null,
        facts([
            ['Type', h('code', null, event.type)], ['Tenant', event.tenant_id], ['Place in the log', String(event.event_seq)],
            ['Occurred', time(event.occurred_at)], ['Ordering key', event.ordering_key && h('code', null, event.ordering_key)],
            ['Priority', String(event.priority)], ['Deliver at', event.deliver_at && time(event.deliver_at)],
        ]),
        h('h3', null, 'Payload'), code(json(event.payload), 'Payload'),
        event.metadata && [h('h3', null, 'Metadata'), code(json(event.metadata), 'Metadata')]);
}
