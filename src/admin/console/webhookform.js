// The form of a subscription, for a new one and for changes.

import { get, patch, intent, walk } from './api.js';
import { h, button, link, section, toast } from './dom.js';
import { checkbox, field, form, input, select, textarea } from './forms.js';
import { scheduleWords } from './format.js';
import { secretDialog } from './webhookactions.js';

const SIGNATURES = [
    ['standard', 'standard: Standard Webhooks, HMAC'], ['standard-ed25519', 'standard-ed25519: Standard Webhooks, public key'],
    ['x-signature', 'x-signature: X-Signature over the body'], ['x-webhook', 'x-webhook: X-Webhook-Signature over the body'],
    ['github', 'github: X-Hub-Signature-256'], ['stripe', 'stripe: Stripe-Signature'],
];
const ENVELOPES = [
    ['standard', 'standard: id, type, timestamp, tenant_id, data'], ['event', 'event: id, type, tenant, occurred_at, payload'],
    ['resource', 'resource: id, type, created_at, data.object'], ['cloudevents', 'cloudevents: CloudEvents 1.0'], ['payload', 'payload: the payload alone'],
];

/** Subscribe an endpoint; the secret is shown once. */
export async function newWebhook(page) {
    const fields = await subscriptionFields(page, null);
    const wish = intent();
    page.show('New subscription', link('#/webhooks', 'Back to the list'), form('Create', async (element) => {
        const values = fields.read(element);
        const body = Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null && value !== ''));
        const { webhook, secret, key_id: keyId } = await wish.post('/webhooks', body);
        toast(`${webhook.name} is subscribed.`);
        // After the navigation, which closes dialogs: the secret is shown this once.
        window.addEventListener('hashchange', () => secretDialog(webhook, secret, keyId, webhook.keys), { once: true });
        location.hash = `#/webhooks/${webhook.subscription_id}`;
    }, fields.content, { label: 'New subscription' }));
}

/** Change a subscription: only what was changed is sent. */
export async function editWebhook(page) {
    const path = `/webhooks/${encodeURIComponent(page.params.id)}`;
    const webhook = await get(path, { signal: page.signal });
    const fields = await subscriptionFields(page, webhook);
    const back = `#/webhooks/${webhook.subscription_id}`;
    const element = form('Save', async (form) => {
        const values = fields.read(form);
        const changed = Object.fromEntries(Object.entries(values).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name])));
        if (Object.keys(changed).length > 0) {
            await patch(path, changed);
            toast(`Saved ${Object.keys(changed).join(', ')}.`);
        }
        location.hash = back;
    }, fields.content, { label: `Edit ${webhook.name}` });
    page.show(`Edit ${webhook.name}`, link(back, 'Back'), element);
    // Read as the form gives it, so that only a change of the operator's counts as one.
    const before = fields.read(element);
}

async function subscriptionFields(page, webhook) {
    const [policies, types] = await Promise.all([
        get('/retry-policies', { signal: page.signal }).then(({ data }) => data),
        walk('/event-types', { signal: page.signal }).then(({ data }) => data.filter((type) => !type.archived_at).map(({ type }) => type)),
    ]);
    const eventTypes = textarea(webhook?.event_types.join('\n'), { required: true, rows: 4, class: 'mono' });
    const policy = select(webhook?.retry_policy ?? '', [...(webhook ? [] : [['', 'the default']]), ...policies.map(({ name }) => name)]);
    const schedule = h('p', { class: 'help', 'aria-live': 'polite' });
    const describe = () => {
        const chosen = policies.find(({ name }) => name === policy.value);
        schedule.textContent = chosen ? scheduleWords(chosen) : 'As the setting default_retry_policy says.';
    };
    policy.onchange = describe;
    describe();
    const headers = headerRows(webhook?.headers ?? {});

    const content = h('div', { class: 'columns' },
        h('div', null, section('What goes where',
            field('URL', 'url', input(webhook?.url, { type: 'url', required: true, maxlength: 2048, class: 'mono', placeholder: 'https://' }), 'Where events are posted to.'),
            field('Event types', 'event_types', eventTypes, 'One a line: order.created; order.* for everything below order; * for all.'),
            types.length > 0 && h('div', { class: 'chips', role: 'group', 'aria-label': 'Add from the catalog' }, 'Add: ', types.slice(0, 40).map((type) =>
                h('button', { type: 'button', class: 'chip', onclick: () => { eventTypes.value = [...new Set([...lines(eventTypes.value), type])].join('\n'); } }, type))),
            field('Filter', 'filter', input(webhook?.filter, { maxlength: 2000, class: 'mono', placeholder: '$.total > 100' }), 'A jsonpath over the payload; empty: every event of these types.')),
        section('What it is called',
            field('Name', 'name', input(webhook?.name, { maxlength: 255, required: webhook !== null }), webhook ? null : 'Unique in the tenant; empty: one is made up.'),
            !webhook && !page.session.tenant_id && field('Tenant', 'tenant_id', input('', { maxlength: 128 }), 'Whose events; empty: the tenant “default”.'),
            field('Description', 'description', textarea(webhook?.description, { rows: 2, maxlength: 10000 })))),
        section('What is sent',
            field('Signature', 'signature', select(webhook?.signature ?? 'standard', SIGNATURES), 'How receivers verify that it came from here.'),
            field('Signature header', 'signature_header', input(webhook?.signature_header, { maxlength: 100, class: 'mono', placeholder: 'X-Acme-Signature' }),
                'Moves the signature to a header of this name; empty: the profile’s own.'),
            !webhook && field('Secret', 'secret', input('', { type: 'password', maxlength: 1024, class: 'mono' }), 'One of your own; empty: one is generated and shown once.'),
            field('Envelope', 'envelope', select(webhook?.envelope ?? 'standard', ENVELOPES), 'The shape of the body.'),
            headers.content),
        section('When and how fast',
            field('Retry policy', 'retry_policy', policy), schedule,
            field('Timeout', 'timeout', input(webhook?.timeout, { maxlength: 64, placeholder: '15 seconds' }), 'For one attempt, from name lookup to the last byte; empty: the default.'),
            field('At once', 'max_in_flight', input(webhook?.max_in_flight, { type: 'number', min: 1, max: 65536 }), 'Attempts under way at the same time, in each relay; empty: no limit.'),
            field('Rate limit', 'rate_limit', input(webhook?.rate_limit, { type: 'number', min: 0.001, max: 100000, step: 'any' }), 'Attempts a second, all relays together; empty: no limit.'),
            checkbox('Ordered', 'ordered', webhook?.ordered ?? false, 'Events of one ordering key go one after the other.')));
    return { content, read: (element) => read(element, webhook, headers) };
}

function read(element, webhook, headers) {
    const text = (name) => element.elements[name]?.value.trim() || null;
    const number = (name) => text(name) === null ? null : Number(text(name));
    return {
        url: text('url'), event_types: lines(element.elements.event_types.value), filter: text('filter'),
        name: text('name'), description: text('description'), signature: text('signature'), signature_header: text('signature_header'),
        envelope: text('envelope'), headers: headers.read(), retry_policy: text('retry_policy'), timeout: text('timeout'),
        max_in_flight: number('max_in_flight'), rate_limit: number('rate_limit'), ordered: element.elements.ordered.checked,
        ...(webhook ? {} : { tenant_id: text('tenant_id'), secret: text('secret') }),
    };
}

const lines = (text) => text.split(/[\s,]+/).filter(Boolean);

function headerRows(headers) {
    const rows = h('div');
    let rowsMade = 0;
    const add = (name = '', value = '') => {
        const n = ++rowsMade;
        const row = h('div', { class: 'headerrow' },
            input(name, { 'aria-label': `Header ${n}`, class: 'mono', placeholder: 'X-Team', maxlength: 200 }),
            input(value, { 'aria-label': `Value of header ${n}`, class: 'mono', maxlength: 4096 }),
            button('Remove', () => { row.remove(); adding.focus(); }, { 'aria-label': `Remove header ${n}` }));
        rows.append(row);
        return row;
    };
    for (const [name, value] of Object.entries(headers)) add(name, value);
    const adding = button('Add a header', () => add().querySelector('input').focus());
    const content = h('fieldset', null, h('legend', null, 'Static headers'),
        h('p', { class: 'help' }, 'Sent with every request. No secrets: whoever sees the subscription sees them.'), rows, adding);
    return {
        content,
        read: () => Object.fromEntries([...rows.children].map((row) => [...row.querySelectorAll('input')].map((control) => control.value.trim())).filter(([name]) => name !== '')),
    };
}
