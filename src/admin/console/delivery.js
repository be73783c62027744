// One delivery: what was tried, what was answered, what comes.

import { get, intent } from './api.js';
import { h, badge, button, code, facts, link, morphChildren, problemBox, section, toast } from './dom.js';
import { dialog } from './forms.js';
import { count, json, millis, plural, stateBadge, time } from './format.js';

const OUTSTANDING = new Set(['pending', 'leased', 'failed']);
const CAUSES = { schedule: 'by schedule', replay: 'a replay', test: 'a test' };

// What each action does, in words; those with a question are asked first.
const ACTIONS = [
    { name: 'Replay', verb: 'replay', fits: (state) => state !== 'leased', done: 'It will be sent again.' },
    {
        name: 'Skip', verb: 'skip', fits: (state) => OUTSTANDING.has(state) || state === 'dead_letter', done: 'Skipped.',
        question: 'It becomes cancelled, and its ordering key goes on with the next event. Replay failed will not send it.',
    },
    {
        name: 'Park', verb: 'park', fits: (state) => OUTSTANDING.has(state) || state === 'dead_letter', done: 'Parked.',
        question: 'It becomes a dead letter, for Replay failed later, and its ordering key goes on with the next event.',
    },
    {
        name: 'Cancel delivery', verb: 'cancel', fits: (state) => OUTSTANDING.has(state), danger: true, done: 'Cancelled.',
        question: 'It is not tried again. An attempt under way is not called back, but its result no longer counts.',
    },
];

/** Refreshes by itself while it is outstanding. */
export async function delivery(page) {
    const path = `/deliveries/${encodeURIComponent(page.params.id)}`;
    const body = h('div', { class: 'stack' }), actions = h('div', { class: 'actions' });
    const wish = intent();      // of the page, not of a drawing: a refresh must not forget its key
    let shown, asked = 0, drawn = 0;
    const draw = (fresh) => {
        shown = fresh;
        morphChildren(body, view(shown));
        if (page.operator) morphChildren(actions, ACTIONS.filter(({ fits }) => fits(shown.state)).map((action) => actionButton(action, path, wish, reload)));
    };
    const load = async (options = { signal: page.signal }) => {
        const mine = ++asked, fresh = await get(path, options);
        if (mine < drawn) return;       // what an operator did since is newer
        drawn = mine;
        draw(fresh);
    };
    const reload = async () => {
        const ended = !OUTSTANDING.has(shown.state);
        await load().then(() => page.fresh(), page.failed);
        if (ended) page.poll(period, load);
    };
    // What ends may be replayed elsewhere; but an ended one need not be asked about.
    const period = () => OUTSTANDING.has(shown.state) ? 1.5 : 0;

    const first = await get(path, { signal: page.signal });
    page.show(`Delivery ${first.delivery_id}`, actions, body);
    draw(first);
    page.poll(period, load);
}

function actionButton({ name, verb, question, danger, done }, path, wish, reload) {
    const act = async () => {
        await wish.post(`${path}/${verb}`);
        toast(done);
        await reload();
    };
    return button(name, () => question
        ? dialog(`${name}?`, h('p', null, question), { action: name, danger, submit: act })
        : act().catch((problem) => dialog(`${name}: refused`, problemBox(problem))), { 'data-key': name, class: danger ? 'danger' : null });
}

function view(delivery) {
    return [
        h('p', { class: 'state' }, stateBadge(delivery), delivery.last_error && [' ', h('span', null, delivery.last_error)]),
        h('div', { class: 'columns' }, section('Delivery', facts([
            ['Event', delivery.event_id ? h('span', null, h('code', null, delivery.event_id), ' ', link(`#/events/${delivery.event_id}`, 'Explain')) : 'gone: its segment was dropped'],
            ['Type', delivery.type && h('code', null, delivery.type)],
            ['Subscription', link(`#/webhooks/${delivery.subscription_id}`, delivery.subscription)],
            ['Tenant', delivery.tenant_id], ['Place in the log', count(delivery.event_seq)],
            ['Attempts', count(delivery.attempts)],
            ['Next attempt', delivery.parked ? 'after an earlier event of its ordering key' : delivery.next_attempt_at && time(delivery.next_attempt_at)],
            ['Leased by', delivery.leased_by],
            ['Created', time(delivery.created_at)], ['Changed', time(delivery.updated_at)],
            ['Ended', delivery.finished_at && time(delivery.finished_at)],
            ['History', link(`#/audit?subscription_id=${delivery.subscription_id}`, 'Audit trail of the subscription')],
        ])), section('Timeline', timeline(delivery))),
        section('Attempts', delivery.attempt_log.length === 0
            ? h('p', { class: 'empty' }, 'It was not attempted yet.')
            : delivery.attempt_log.toReversed().map((attempt, i) => attemptView(attempt, i === 0))),
    ];
}

// From the first attempt to the last that is to come. Long histories are shown by their ends.
function timeline({ attempt_log: log, schedule, state, created_at: created }) {
    const cut = log.length > 14;
    const past = cut ? [...log.slice(0, 3), null, ...log.slice(-10)] : log;
    const entry = (key, style, ...content) => h('li', { 'data-key': key, class: style }, content);
    return h('ol', { class: 'timeline' },
        entry('created', 'calm', 'Created ', time(created)),
        past.map((attempt) => attempt
            ? entry(`past ${attempt.attempt}`, attempt.outcome === 'delivered' ? 'good' : 'bad', `Attempt ${attempt.attempt}: ${words(attempt)}, `, time(attempt.started_at))
            : entry('cut', 'calm', `${log.length - 13} more attempts`)),
        state === 'leased' && entry('now', 'info', 'An attempt is under way'),
        schedule.map((at, i) => entry(`next ${i}`, 'coming', `Attempt ${(log.at(-1)?.attempt ?? 0) + i + 1}${i > 0 ? ', if that fails too,' : ''} `, time(at))),
        OUTSTANDING.has(state)
            ? schedule.length > 0 && entry('end', 'coming', 'After that it would be a dead letter')
            : entry('ended', state === 'succeeded' ? 'good' : 'calm', `Ended: ${state.replace('_', ' ')}`));
}

const words = (attempt) => attempt.status_code ? `HTTP ${attempt.status_code}` : attempt.outcome.replaceAll('_', ' ');

function attemptView(attempt, newest) {
    return h('details', { class: 'attempt', open: newest, 'data-key': `attempt ${attempt.attempt}` },
        h('summary', null, h('strong', null, `Attempt ${attempt.attempt}`), ' ',
            badge(words(attempt), attempt.outcome === 'delivered' ? 'good' : 'bad'), ` ${millis(attempt.latency_ms)}, `, time(attempt.started_at)),
        facts([
            ['Outcome', attempt.outcome.replaceAll('_', ' ')], ['Error', attempt.error],
            ['Cause', CAUSES[attempt.cause] ?? attempt.cause], ['Relay', attempt.relay],
            [attempt.key_ids.length === 1 ? 'Signed by key' : 'Signed by keys', attempt.key_ids.length ? attempt.key_ids.map((id) => [h('code', null, id), ' ']) : null],
        ]),
        attempt.response_excerpt !== null && h('div', { class: 'answer' }, h('h3', null, 'Answer of the receiver: untrusted text'),
            code(attempt.response_excerpt, `Answer of the receiver to attempt ${attempt.attempt}: untrusted text`)),
        h('div', { class: 'columns' },
            headers('Request headers', attempt.request_headers, attempt, 'As sent, without signatures.'),
            headers('Response headers', attempt.response_headers, attempt)));
}

function headers(title, values, attempt, note) {
    const names = Object.keys(values ?? {});
    return h('details', { 'data-key': title }, h('summary', null, `${title} (${plural(names.length, 'header')})`),
        note && h('p', { class: 'help' }, note),
        code(names.map((name) => `${name}: ${typeof values[name] === 'string' ? values[name] : json(values[name])}`).join('\n') || 'none', `${title} of attempt ${attempt.attempt}`));
}
