// What an operator does to a subscription.

import { get, intent, remove, now } from './api.js';
import { h, button, code, copyable, leads, link, problemBox, toast } from './dom.js';
import { dialog, field, fromLocal, input, parseJson, textarea, zone } from './forms.js';
import { duration, millis, plural, stateBadge } from './format.js';
import { keyList } from './webhooks.js';

/** The buttons that fit the subscription's state; `reload` is called after each. */
export function actionsOf(webhook, reload) {
    if (webhook.unsubscribed_at) return [];
    const path = `/webhooks/${webhook.subscription_id}`;
    const managed = webhook.managed_by !== null;
    const act = (label, work, style) => button(label, work, { 'data-key': label, class: style });
    return [
        !managed && leads('Edit', `#${path}/edit`, { 'data-key': 'Edit' }),
        webhook.active ? act('Pause', () => pauseDialog(webhook, path, reload)) : act('Resume', () => resume(webhook, path, reload), 'primary'),
        act('Send test', () => testDialog(webhook, path, reload)),
        !managed && act('Rotate secret', () => rotateDialog(webhook, path, reload)),
        act('Replay failed', () => replayDialog(webhook, `${path}/replay-failed`, 'Replay failed',
            'Sends the dead letters of a window again.', 'dead letter', reload)),
        act('Replay missing', () => replayDialog(webhook, `${path}/replay-missing`, 'Replay missing',
            'Sends matching events that never got a delivery, because the subscription came later or was paused.', 'event', reload)),
        !managed && act('Unsubscribe', () => unsubscribeDialog(webhook, path), 'danger'),
    ];
}

/** A secret, this one time. Null: the repetition of a request whose first answer was lost. */
export function secretDialog(webhook, secret, keyId, keys) {
    dialog(`Secret of ${webhook.name}`, [
        secret ? [
            h('p', null, h('strong', null, 'Shown this once. '), 'Give it to the receiver now; nobody can look it up later.'),
            copyable('Secret', secret),
        ] : h('p', null, 'This request had been granted before and its answer was lost. The secret is not shown a second time: rotate it to get another.'),
        h('p', { class: 'help' }, 'Key ', h('code', null, keyId)),
        h('div', null, keyList(keys, dialogWidth())),
    ], { dismiss: 'Done' });
}

function pauseDialog(webhook, path, reload) {
    const reason = input('', { maxlength: 500 }), wish = intent();
    dialog(`Pause ${webhook.name}`, [
        h('p', null, 'Nothing new is created or sent for it; what is outstanding waits.'),
        field('Reason', 'reason', reason, 'For your colleagues; may be empty.'),
    ], {
        action: 'Pause', submit: async () => {
            await wish.post(`${path}/pause`, reason.value.trim() ? { reason: reason.value.trim() } : {});
            toast(`${webhook.name} is paused.`);
            await reload();
        },
    });
}

async function resume(webhook, path, reload) {
    try {
        await intent().post(`${path}/resume`);
        toast(`${webhook.name} goes on. Events from the pause: Replay missing.`);
    } catch (problem) {
        dialog('Not resumed', problemBox(problem));
    }
    await reload();
}

function unsubscribeDialog(webhook, path) {
    dialog(`Unsubscribe ${webhook.name}?`, [
        h('p', null, 'Ends the subscription ', h('strong', null, webhook.name), ' to ', h('code', null, webhook.url), ' for good. What is outstanding is cancelled; history is kept.'),
    ], {
        action: 'Unsubscribe', danger: true, submit: async () => {
            const { cancelled } = await remove(path);
            toast(`${webhook.name} is unsubscribed, ${plural(cancelled, 'delivery', 'deliveries')} cancelled.`);
            location.hash = '#/webhooks';
        },
    });
}

function rotateDialog(webhook, path, reload) {
    const overlap = input('', { maxlength: 64, placeholder: '24 hours' });
    const secret = input('', { type: 'password', maxlength: 1024, class: 'mono' });
    const wish = intent();
    dialog(`Rotate the secret of ${webhook.name}`, [
        h('p', null, 'A new key signs from now on. The old one signs beside it until the overlap is over, so that the receiver can change over.'),
        field('Overlap', 'overlap', overlap, 'As “2 days”, “6 hours”; “0 s” ends the old key at once; empty: as the setting secret_overlap says.'),
        field('Secret', 'secret', secret, 'One of your own; empty: one is generated.'),
    ], {
        action: 'Rotate secret', submit: async (form, close) => {
            const body = {};
            if (overlap.value.trim()) body.overlap = overlap.value.trim();
            if (secret.value.trim()) body.secret = secret.value.trim();
            const answer = await wish.post(`${path}/rotate-secret`, body);
            close();
            secretDialog(webhook, answer.secret, answer.key_id, answer.keys);
            await reload();
        },
    });
}

function testDialog(webhook, path, reload) {
    const type = input('', { maxlength: 128, class: 'mono', placeholder: 'outbox.test' });
    const payload = textarea('', { class: 'mono', placeholder: '{"total": 12.50}' });
    const result = h('div', { role: 'status', class: 'result' });
    let closed = false;
    dialog(`Send a test to ${webhook.name}`, [
        h('p', null, 'A synthetic event to this subscription alone, once, even if it is paused.'),
        field('Type', 'type', type, 'Empty: a type of outboxd’s own.'),
        field('Payload', 'payload', payload, 'JSON; empty: a small one.'),
        result,
    ], {
        action: 'Send test', onclose: () => { closed = true; reload(); }, submit: async () => {
            const body = {}, value = parseJson('The payload', payload.value);
            if (type.value.trim()) body.type = type.value.trim();
            if (value !== undefined) body.payload = value;
            result.replaceChildren('Sending…');
            try {
                const { delivery_id: id } = await intent().post(`${path}/test`, body);
                result.replaceChildren(await outcome(id, () => closed));
            } catch (problem) {
                result.replaceChildren();
                throw problem;
            }
            return false;
        },
    });
}

// Follows a test to its end; one whose relay is away may have none for long.
async function outcome(id, abandoned) {
    const started = now();
    while (!abandoned() && now() - started < 60_000) {
        await new Promise((resolve) => setTimeout(resolve, 400));
        const delivery = await get(`/deliveries/${id}`, { background: true }).catch((problem) => {
            if (problem.status === 404) return null;      // not expanded yet
            throw problem;
        });
        if (delivery?.finished_at || delivery?.attempt_log.length > 0) return testResult(delivery);
    }
    return h('div', null, `No attempt within ${duration((now() - started) / 1000)}. Is a relay running, is sending held? `, link(`#/deliveries/${id}`, 'The delivery'));
}

function testResult(delivery) {
    const attempt = delivery.attempt_log.at(-1);
    return h('div', null,
        h('p', null, stateBadge(delivery), ' ',
            attempt && [h('strong', null, attempt.status_code ? `HTTP ${attempt.status_code}` : attempt.outcome.replaceAll('_', ' ')), ` after ${millis(attempt.latency_ms)}. `],
            link(`#/deliveries/${delivery.delivery_id}`, 'The delivery')),
        (attempt?.error ?? delivery.last_error) && h('p', null, attempt?.error ?? delivery.last_error),
        attempt?.response_excerpt && [h('p', { class: 'help' }, 'Answer of the receiver: untrusted text'), code(attempt.response_excerpt, 'Answer of the receiver: untrusted text')]);
}

function replayDialog(webhook, path, title, what, unit, reload) {
    const since = input('', { type: 'datetime-local' }), until = input('', { type: 'datetime-local' });
    const answer = h('p', { role: 'status', class: 'result' });
    const wish = intent();
    let counted = null;
    const shown = dialog(`${title}: ${webhook.name}`, [
        h('p', null, what),
        field('Since', 'since', since, `Created at or after, ${zone()}; empty: as far back as history goes.`),
        field('Until', 'until', until, 'Created before; empty: now.'),
        answer,
    ], {
        action: 'Count', submit: async () => {
            const window = { since: fromLocal(since.value), until: fromLocal(until.value) };
            if (counted === null) {
                const { count } = await wish.post(path, { ...window, dry_run: true });
                counted = count;
                answer.textContent = count === 0 ? 'There is nothing to replay in this window.' : `${plural(count, unit)} would be sent again.`;
                if (count > 0) send.textContent = `Replay ${count}`;
                else counted = null;
                return false;
            }
            const { count } = await wish.post(path, { ...window, dry_run: false });
            toast(`${plural(count, unit)} will be sent.`);
            await reload();
        },
    });
    const send = shown.querySelector('button[type=submit]');
    // The count is of one window; another one is counted anew.
    shown.addEventListener('input', () => {
        counted = null;
        answer.textContent = '';
        send.textContent = 'Count';
    });
}

const dialogWidth = () => Math.min(document.documentElement.clientWidth - 60, 520);
