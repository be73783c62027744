// The delivery log.

import { get, intent, now } from './api.js';
import { h, button, link, table, toast } from './dom.js';
import { dialog, field, fromLocal, input, select, toLocal, zone } from './forms.js';
import { STATES, count, plural, stateBadge, time, utc } from './format.js';
import { webhookChoices } from './webhooks.js';

const UUID = '[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}';
const TYPE = '([A-Za-z0-9_\\-]+\\.)*([A-Za-z0-9_\\-]+|\\*)';
const MOST = 1000;

/** Deliveries, filtered by the daemon, page by page, with a selection to replay. */
export async function deliveries(page) {
    const asked = (name) => page.query.get(name) ?? '';
    const controls = {
        event_id: input(asked('event_id'), { type: 'search', 'data-search': true, pattern: UUID, title: 'A UUID', class: 'mono', placeholder: '01a2…' }),
        subscription_id: select(asked('subscription_id'), await webhookChoices(page)),
        type: input(asked('type'), { class: 'mono', pattern: TYPE, title: 'A type, or a pattern as order.*', maxlength: 130, placeholder: 'order.*' }),
        state: select(asked('state'), [['', 'All'], ...Object.entries(STATES).map(([state, [name]]) => [state, name])]),
        since: input(toLocal(asked('since')), { type: 'datetime-local' }),
        until: input(toLocal(asked('until')), { type: 'datetime-local' }),
    };
    const selected = new Set();
    const list = h('div'), selection = h('div', { class: 'selection', role: 'status' }), paging = h('div', { class: 'actions' }), read = h('p', { class: 'help' });
    let trail = [null], rows = [], next = null, turn = 0;

    const filters = () => ({
        ...Object.fromEntries(Object.entries(controls).map(([name, control]) => [name, control.value.trim()])),
        since: fromLocal(controls.since.value), until: fromLocal(controls.until.value),
    });
    const load = async () => {
        page.remember(filters());
        const mine = ++turn;
        let answer = await get('/deliveries', { signal: page.signal, query: { ...filters(), cursor: trail.at(-1), limit: 50 } });
        // A page may be empty before the end; a few are walked over.
        for (let i = 0; i < 5 && answer.data.length === 0 && answer.next_cursor; i++) {
            trail[trail.length - 1] = answer.next_cursor;
            answer = await get('/deliveries', { signal: page.signal, query: { ...filters(), cursor: answer.next_cursor, limit: 50 } });
        }
        if (mine !== turn) return;
        [rows, next] = [answer.data, answer.next_cursor];
        read.textContent = `As of ${utc(now())}.`;
        draw();
        page.fresh();
    };
    const first = () => { trail = [null]; return load(); };
    const draw = () => {
        const choose = (id, on) => {
            if (on && selected.size < MOST) selected.add(id);
            else selected.delete(id);
            drawSelection();
        };
        list.replaceChildren(deliveryTable(rows, { selected: page.operator ? selected : null, choose, more: next !== null }));
        paging.replaceChildren(...[
            trail.length > 1 && button('Newer', () => { trail.pop(); return load().catch(page.failed); }),
            next && button('Older', () => { trail.push(next); return load().catch(page.failed); }),
            button('Refresh', () => load().catch(page.failed)),
        ].filter(Boolean));
        drawSelection();
    };
    const drawSelection = () => selection.replaceChildren(...(selected.size === 0 ? [] : [
        h('span', null, `${plural(selected.size, 'delivery', 'deliveries')} selected${selected.size === MOST ? ', the most at once' : ''}`),
        button('Replay selection', () => replayDialog([...selected], async () => { selected.clear(); await load(); }), { class: 'primary' }),
        button('Clear selection', () => { selected.clear(); draw(); }),
    ]));

    page.show('Deliveries', null, h('form', {
        class: 'filters', role: 'search', 'aria-label': 'Deliveries',
        onsubmit: (event) => { event.preventDefault(); return first().catch(page.failed); },
        onchange: (event) => event.currentTarget.checkValidity() && first().catch(page.failed),
    },
        field('Event id', 'event_id', controls.event_id), field('Subscription', 'subscription_id', controls.subscription_id),
        field('Type', 'type', controls.type), field('State', 'state', controls.state),
        field('Since', 'since', controls.since), field('Until', 'until', controls.until),
        h('button', { type: 'submit' }, 'Filter'), h('p', { class: 'help' }, `Times ${zone()}.`)),
    selection, list, paging, read);
    await load();
}

/** Deliveries as a table. `selected` (a Set, or null) adds check boxes that call `choose(id, on)`. */
export function deliveryTable(rows, { selected = null, choose, subscription = true, more = false } = {}) {
    const box = (delivery) => h('input', {
        type: 'checkbox', 'aria-label': `Select ${delivery.delivery_id}`, checked: selected.has(delivery.delivery_id),
        onchange: (event) => { choose(delivery.delivery_id, event.target.checked); event.target.checked = selected.has(delivery.delivery_id); },
    });
    const all = () => h('input', {
        type: 'checkbox', 'aria-label': 'Select all on this page', checked: rows.every((row) => selected.has(row.delivery_id)),
        onchange: (event) => {
            for (const control of event.target.closest('table').querySelectorAll('tbody input[type=checkbox]')) {
                if (control.checked === event.target.checked) continue;
                control.checked = event.target.checked;
                control.onchange({ target: control });
            }
        },
    });
    return table('Deliveries', [
        selected && { title: 'Select', heading: all(), class: 'select', cell: box },
        { title: 'Delivery', head: true, cell: (delivery) => link(`#/deliveries/${delivery.delivery_id}`, delivery.delivery_id) },
        { title: 'Type', cell: (delivery) => delivery.type ? h('code', null, delivery.type) : 'the event is gone' },
        subscription && { title: 'Subscription', cell: (delivery) => link(`#/webhooks/${delivery.subscription_id}`, delivery.subscription) },
        { title: 'State', cell: (delivery) => stateBadge(delivery) },
        { title: 'Attempts', class: 'num', cell: (delivery) => count(delivery.attempts) },
        { title: 'Last answer', cell: (delivery) => lastAnswer(delivery) },
        { title: 'Next', cell: (delivery) => delivery.next_attempt_at ? time(delivery.next_attempt_at) : '–' },
        { title: 'Created', cell: (delivery) => time(delivery.created_at) },
    ].filter(Boolean), rows, {
        key: (delivery) => delivery.delivery_id,
        empty: more ? 'Nothing on this page; older ones may fit.' : 'No delivery fits.',
    });
}

function lastAnswer(delivery) {
    if (delivery.last_status_code === null && delivery.last_error === null) return '–';
    const { last_status_code: status, last_error: error } = delivery;
    const said = status === null || error?.includes(String(status)) ? error : `HTTP ${status} ${error ?? ''}`;
    return h('span', { class: 'clip', title: error }, said);
}

function replayDialog(ids, done) {
    const wish = intent();
    let counted = null;
    const status = h('p', { role: 'status', class: 'result' }, 'Counting…');
    const shown = dialog('Replay selection', [
        h('p', null, 'Sends them again, now. Receivers tell a repetition by the event’s id.'), status,
    ], {
        action: 'Count', submit: async () => {
            if (counted === null) {
                await reckon();
                return false;
            }
            const { count } = await wish.post('/deliveries/replay', { delivery_ids: ids, dry_run: false });
            toast(`${plural(count, 'delivery', 'deliveries')} will be sent.`);
            await done();
        },
    });
    const send = shown.querySelector('button[type=submit]');
    const reckon = async () => {
        ({ count: counted } = await wish.post('/deliveries/replay', { delivery_ids: ids, dry_run: true }));
        status.textContent = `Of ${plural(ids.length, 'delivery', 'deliveries')} selected, ${count(counted)} would be sent again.`;
        send.textContent = `Replay ${counted}`;
    };
    // The count needs no click; a refusal is shown as by the button.
    shown.querySelector('form').requestSubmit();
}
