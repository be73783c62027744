// Subscriptions: the list, and one of them.

import { get, walk, now } from './api.js';
import { h, badge, button, copyable, leads, link, table, section, facts, morphChildren } from './dom.js';
import { checkbox, field, input, select } from './forms.js';
import { keyTimeline } from './charts.js';
import { time, count, activityBadge, circuitBadge, scheduleWords } from './format.js';
import { actionsOf } from './webhookactions.js';
import { deliveryTable } from './deliveries.js';

/** All subscriptions, searched and filtered by the daemon. */
export async function webhooks(page) {
    const search = input(page.query.get('search'), { type: 'search', 'data-search': true, placeholder: 'Part of the name or URL', maxlength: 255 });
    const active = select(page.query.get('active') ?? '', [['', 'All'], ['true', 'Active'], ['false', 'Paused']]);
    const ended = checkbox('Ended ones too', 'unsubscribed', page.query.get('unsubscribed') === 'true');
    const list = h('div', { 'aria-live': 'off' }), more = h('div', { class: 'actions' });
    let shown = [], cursor = null, asked = 0;

    const load = async (older) => {
        const filters = { search: search.value.trim(), active: active.value, unsubscribed: ended.querySelector('input').checked || '' };
        page.remember(filters);
        const mine = ++asked;
        const answer = await get('/webhooks', { signal: page.signal, query: { ...filters, limit: 50, cursor: older ? cursor : null } });
        if (mine !== asked) return;     // a later keystroke asked again
        shown = older ? [...shown, ...answer.data] : answer.data;
        cursor = answer.next_cursor;
        list.replaceChildren(webhookTable(shown));
        more.replaceChildren(...[cursor && button('More', () => load(true).catch(page.failed))].filter(Boolean));
        page.fresh();
    };
    let pause;
    const filter = h('form', {
        class: 'filters', role: 'search', 'aria-label': 'Subscriptions',
        onsubmit: (event) => { event.preventDefault(); load().catch(page.failed); },
        oninput: () => { clearTimeout(pause); pause = setTimeout(() => load().catch(page.failed), 250); },
    }, field('Search', 'search', search), field('Shown', 'active', active), ended);

    page.show('Subscriptions', page.operator && leads('New subscription', '#/webhooks/new', { class: 'primary' }), filter, list, more);
    await load();
}

const webhookTable = (webhooks) => table('Subscriptions', [
    {
        title: 'Subscription', head: true, cell: (webhook) => [
            link(`#/webhooks/${webhook.subscription_id}`, webhook.name), webhook.managed_by && [' ', badge('managed', 'calm', `By ${webhook.managed_by}`)],
            h('div', { class: 'quiet mono' }, webhook.url)],
    },
    { title: 'Tenant', cell: (webhook) => webhook.tenant_id },
    { title: 'Receives', cell: (webhook) => patterns(webhook.event_types) },
    { title: 'State', cell: (webhook) => activityBadge(webhook) },
    { title: 'Health', cell: (webhook) => circuitBadge(webhook.health) },
    { title: 'Failures in a row', class: 'num', cell: (webhook) => count(webhook.health.consecutive_failures) },
    { title: 'Last success', cell: (webhook) => webhook.health.last_success_at ? time(webhook.health.last_success_at) : 'never' },
], webhooks, { key: (webhook) => webhook.subscription_id, empty: 'No subscription fits, or there is none yet.' });

function patterns(types) {
    const shown = types.slice(0, 3).map((type) => h('code', { class: 'token' }, type));
    return h('span', { title: types.join('\n') }, shown, types.length > 3 && ` and ${types.length - 3} more`);
}

/** One subscription: what it is, how it fares, its keys, and what can be done about it. */
export async function webhook(page) {
    const id = page.params.id, path = `/webhooks/${encodeURIComponent(id)}`;
    const body = h('div', { class: 'stack' }), actions = h('div', { class: 'actions' });
    let policies = [], asked = 0, drawn = 0;

    const draw = (subscription, recent) => {
        morphChildren(body, view(subscription, policies, recent, body.clientWidth));
        if (page.operator) morphChildren(actions, actionsOf(subscription, reload));
    };
    const load = async (options = { signal: page.signal }) => {
        const mine = ++asked;
        const [subscription, recent] = await Promise.all([get(path, options), get(`${path}/deliveries`, { ...options, query: { limit: 10 } })]);
        if (mine < drawn) return;       // what an operator did since is newer
        drawn = mine;
        draw(subscription, recent.data);
    };
    const reload = () => load().then(() => page.fresh(), (problem) => page.stale(problem));

    const [subscription, listed] = await Promise.all([get(path, { signal: page.signal }), get('/retry-policies', { signal: page.signal })]);
    policies = listed.data;
    page.show(subscription.name, actions, body);
    draw(subscription, []);
    await load();
    page.poll(5, load);
}

function view(webhook, policies, recent, width) {
    const policy = policies.find(({ name }) => name === webhook.retry_policy);
    const { health } = webhook;
    return [
        h('p', { class: 'state' }, activityBadge(webhook), ' ', circuitBadge(health), ' ', webhook.managed_by && badge('managed by configuration', 'info')),
        webhook.unsubscribed_at && h('div', { class: 'banner calm', 'data-key': 'ended' }, h('div', null, 'Unsubscribed ', time(webhook.unsubscribed_at), '; its history is kept.')),
        !webhook.active && !webhook.unsubscribed_at && h('div', { class: 'banner warn', 'data-key': 'paused' },
            h('div', null, h('strong', null, 'Paused '), time(webhook.disabled_at), `. ${webhook.disabled_reason ?? 'No reason was given.'}`)),
        webhook.managed_by && h('p', { class: 'help', 'data-key': 'managed' }, `Defined by ${webhook.managed_by}: it is changed, rotated and ended there.`),
        h('div', { class: 'columns', 'data-key': 'facts' },
            section('Subscription', facts([
                ['URL', h('code', null, webhook.url)],
                ['Event types', webhook.event_types.map((type) => [h('code', { class: 'token' }, type), ' '])],
                ['Filter', webhook.filter && h('code', null, webhook.filter)],
                ['Tenant', webhook.tenant_id], ['Id', String(webhook.subscription_id)],
                ['Description', webhook.description],
                ['Signature', [webhook.signature, webhook.signature_header && [' in ', h('code', null, webhook.signature_header)]]],
                ['Envelope', webhook.envelope],
                ['Headers', Object.keys(webhook.headers).length ? Object.entries(webhook.headers).map(([name, value]) => h('div', null, h('code', null, `${name}: ${value}`))) : null],
                ['Retries', [h('strong', null, webhook.retry_policy), policy && `: ${scheduleWords(policy)}`]],
                ['Timeout', webhook.timeout ?? 'as the setting default_timeout says'],
                ['At once', webhook.max_in_flight ? `${webhook.max_in_flight} attempts in each relay` : null],
                ['Rate limit', webhook.rate_limit ? `${webhook.rate_limit} attempts a second` : null],
                ['Order', webhook.ordered ? 'Events of one ordering key one after the other' : null],
                ['Created', [time(webhook.created_at), ` by ${webhook.created_by}`]], ['Changed', time(webhook.updated_at)],
                ['History', link(`#/audit?subscription_id=${webhook.subscription_id}`, 'Audit trail')],
            ])),
            h('div', null,
                section('Health', facts([
                    ['Circuit', [circuitBadge(health), health.circuit_until && [' next probe ', time(health.circuit_until)]]],
                    ['Failures in a row', count(health.consecutive_failures)],
                    ['Failing since', health.failing_since && time(health.failing_since)],
                    ['Last success', health.last_success_at ? time(health.last_success_at) : 'never'],
                    ['Last failure', health.last_failure_at ? time(health.last_failure_at) : 'never'],
                    ['In all', `${count(health.success_count)} succeeded, ${count(health.failure_count)} failed attempts`],
                ])),
                section('Keys', keyList(webhook.keys, Math.min(width, 560) - 20)))),
        section('Newest deliveries', deliveryTable(recent, { subscription: false }),
            h('p', null, link(`#/deliveries?subscription_id=${webhook.subscription_id}`, 'All deliveries of this subscription'))),
    ];
}

/** The live keys: what signs until when. */
export function keyList(keys, width) {
    if (keys.length === 0) return [h('p', { class: 'empty' }, 'No key signs any more.')];
    return [
        keyTimeline(keys, now(), Math.max(width, 240)),
        table('Keys', [
            { title: 'Key', head: true, cell: (key) => h('code', null, key.key_id) },
            { title: 'Algorithm', cell: (key) => key.algorithm },
            { title: 'Since', cell: (key) => time(key.created_at) },
            { title: 'Signs until', cell: (key) => key.expires_at ? time(key.expires_at) : 'it is rotated' },
        ], keys, { key: (key) => key.key_id }),
        keys.filter((key) => key.public_key).map((key) => h('div', { 'data-key': `public ${key.key_id}` }, copyable(`Public key of ${key.key_id}`, key.public_key))),
    ];
}

/** Choices of a subscription for a filter: [id, name] pairs. */
export async function webhookChoices(page) {
    const { data, complete } = await walk('/webhooks', { signal: page.signal, query: { unsubscribed: true } });
    const choices = data.map((webhook) => [String(webhook.subscription_id), `${webhook.name} (${webhook.subscription_id})`]);
    const given = page.query.get('subscription_id');
    // One that is older than those that were listed can still be asked for by its address.
    if (!complete && given && !choices.some(([id]) => id === given)) choices.push([given, given]);
    return [['', 'All'], ...choices];
}
