// Settings of the whole outbox, and the tokens of this API.

import { get, put, remove } from './api.js';
import { h, badge, button, problemBox, section, table, toast } from './dom.js';
import { dialog, field, input, select } from './forms.js';
import { time } from './format.js';

/** Both lists; a token bound to a tenant may see neither. */
export async function settings(page) {
    const settingList = h('div'), tokenList = h('div'), more = h('div', { class: 'actions' });
    let tokens = [], cursor = null;

    const loadSettings = () => into(settingList, async () => {
        const { data } = await get('/settings', { signal: page.signal });
        return settingTable(data, page.operator, loadSettings);
    });
    const loadTokens = (older) => into(tokenList, async () => {
        const answer = await get('/tokens', { signal: page.signal, query: { cursor: older ? cursor : null, limit: 100 } });
        tokens = older ? [...tokens, ...answer.data] : answer.data;
        cursor = answer.next_cursor;
        more.replaceChildren(...[cursor && button('More', () => loadTokens(true))].filter(Boolean));
        return tokenTable(tokens, page.operator, () => loadTokens());
    });

    page.show('Settings', null,
        section('Settings of the outbox', settingList),
        section('Tokens', h('p', { class: 'help' }, 'Made in SQL: ', h('code', null, "select outbox.create_token('operator', description => 'ci')")), tokenList, more));
    await Promise.all([loadSettings(), loadTokens()]);
}

async function into(part, load) {
    try {
        part.replaceChildren(await load());
    } catch (problem) {
        if (problem.status === undefined || problem.status === 0) throw problem;
        part.replaceChildren(problemBox(problem));
    }
}

const settingTable = (settings, operator, reload) => table('Settings of the outbox', [
    { title: 'Setting', head: true, cell: (setting) => h('code', null, setting.name) },
    { title: 'Value', cell: (setting) => setting.value === null || setting.value === '' ? h('span', { class: 'quiet' }, 'empty') : h('strong', null, setting.value) },
    { title: 'Meaning', cell: (setting) => setting.description },
    { title: 'Changed', cell: (setting) => [time(setting.updated_at), h('div', { class: 'quiet' }, `by ${setting.updated_by}`)] },
    ...(operator ? [{ title: 'Action', cell: (setting) => button('Change', () => changeDialog(setting, reload), { 'aria-label': `Change ${setting.name}` }) }] : []),
], settings, { key: (setting) => setting.name });

async function changeDialog(setting, reload) {
    const choices = setting.kind === 'boolean' ? ['true', 'false'] : setting.kind === 'retry_policy'
        ? (await get('/retry-policies').catch(() => ({ data: [] }))).data.map(({ name }) => name) : setting.choices;
    const value = choices?.length ? select(setting.value, choices) : input(setting.value, { maxlength: 1000 });
    const range = [setting.minimum && `at least ${setting.minimum}`, setting.maximum && `at most ${setting.maximum}`].filter(Boolean).join(', ');
    dialog(`Change ${setting.name}`, [
        h('p', null, setting.description),
        field('Value', 'value', value, [setting.kind.replace('_', ' '), range].filter(Boolean).join(', ')),
    ], {
        action: 'Save', submit: async () => {
            const saved = await put(`/settings/${encodeURIComponent(setting.name)}`, { value: value.value });
            toast(`${saved.name} is ${saved.value === '' ? 'empty' : saved.value} now.`);
            await reload();
        },
    });
}

const tokenTable = (tokens, operator, reload) => table('Tokens', [
    { title: 'Token', head: true, cell: (token) => [`${token.token_id} `, token.description] },
    { title: 'Role', cell: (token) => badge(token.role) },
    { title: 'Tenant', cell: (token) => token.tenant_id ?? 'all' },
    { title: 'State', cell: (token) => tokenState(token) },
    { title: 'Last used', cell: (token) => token.last_used_at ? time(token.last_used_at) : 'never' },
    { title: 'Created', cell: (token) => [time(token.created_at), h('div', { class: 'quiet' }, `by ${token.created_by}`)] },
    ...(operator ? [{ title: 'Action', cell: (token) => token.revoked_at ? '–' : button('Revoke', () => revokeDialog(token, reload), { 'aria-label': `Revoke token ${token.token_id}`, class: 'danger' }) }] : []),
], tokens, { key: (token) => token.token_id, empty: 'No token.' });

function tokenState(token) {
    if (token.revoked_at) return badge('revoked', 'warn');
    if (token.expires_at && Date.parse(token.expires_at) < Date.now()) return badge('expired', 'warn');
    return [badge('valid', 'good'), token.expires_at && [' expires ', time(token.expires_at)]];
}

function revokeDialog(token, reload) {
    dialog(`Revoke token ${token.token_id}?`, [
        h('p', null, `The ${token.role}’s token `, h('strong', null, token.description ?? String(token.token_id)), ' and its sessions are refused from now on.'),
        h('p', null, 'If it is the one you signed in with, you are signed out.'),
    ], {
        action: 'Revoke', danger: true, submit: async () => {
            await remove(`/tokens/${token.token_id}`);
            toast(`Token ${token.token_id} is revoked.`);
            await reload();
        },
    });
}
