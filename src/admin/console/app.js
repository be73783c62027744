// The shell: session, navigation, keyboard, theme; and the frame each view is shown in.

import * as api from './api.js';
import { h, badge, button, problemBox, toast } from './dom.js';
import { dialog, field, form, input, select, checkbox } from './forms.js';
import { ticking, time, duration, utc } from './format.js';
import { overview } from './overview.js';
import { webhooks, webhook } from './webhooks.js';
import { newWebhook, editWebhook } from './webhookform.js';
import { deliveries } from './deliveries.js';
import { delivery } from './delivery.js';
import { event } from './events.js';
import { catalog, eventType, defineType } from './catalog.js';
import { audit } from './audit.js';
import { settings } from './settings.js';

const NAVIGATION = [
    ['Overview', '#/', 'o'], ['Subscriptions', '#/webhooks', 's'], ['Deliveries', '#/deliveries', 'd'],
    ['Catalog', '#/catalog', 'c'], ['Audit', '#/audit', 'a'], ['Settings', '#/settings', 't'],
];

const ROUTES = [
    ['', overview], ['webhooks', webhooks], ['webhooks/new', operatorsOnly(newWebhook)], ['webhooks/:id', webhook], ['webhooks/:id/edit', operatorsOnly(editWebhook)],
    ['deliveries', deliveries], ['deliveries/:id', delivery], ['events/:id', event],
    ['catalog', catalog], ['catalog/:type', eventType], ['define', operatorsOnly(defineType)], ['define/:type', operatorsOnly(defineType)],
    ['audit', audit], ['settings', settings],
];

const main = document.getElementById('main');
const shell = document.getElementById('shell');
let session = null;
let page = null;

start();

async function start() {
    ticking();
    window.addEventListener('hashchange', show);
    document.addEventListener('keydown', shortcut);
    document.querySelector('.skip').addEventListener('click', (event) => {
        event.preventDefault();     // #main would be taken for a route
        main.focus();
    });
    api.onSignedOut(() => {
        if (session === null) return;
        const idle = session.idle_seconds;
        session = null;
        leave();
        signInView(idle ? `You were signed out: after ${duration(idle)} without use a session ends.` : 'Your session has ended.');
    });
    try {
        session = await api.session();
    } catch (problem) {
        main.replaceChildren(problemBox(problem), button('Try again', () => location.reload()));
        return;
    }
    if (session) enter();
    else signInView();
}

/** What a view works with: its parameters, the session, the frame to show things in, and its lifetime. */
class Page {
    constructor(params, query) {
        this.params = params;
        this.query = query;
        this.session = session;
        this.ending = new AbortController();
        this.signal = this.ending.signal;
        this.staleness = h('div');
        this.body = h('div', { class: 'page' });
        this.answeredAt = null;
        this.failed = (problem) => this.stale(problem);     // for promises
    }

    /** Whether controls that change things are shown. The daemon decides anyway. */
    get operator() {
        return this.session.role === 'operator';
    }

    /** Heading with its actions, and the body below; moves the focus to the heading, as a page load would. */
    show(title, actions, ...content) {
        if (this.signal.aborted) return;
        document.title = `${title} · outboxd`;
        const heading = h('h1', { tabindex: '-1' }, title);
        this.body.replaceChildren(...content.flat(Infinity).filter(Boolean));
        main.replaceChildren(h('header', { class: 'head' }, heading, h('div', { class: 'actions' }, actions)), this.staleness, this.body);
        heading.focus({ preventScroll: true });
        window.scrollTo(0, 0);
    }

    /** Writes filters into the address without navigating. */
    remember(values) {
        const given = Object.entries(values).filter(([, value]) => value !== '' && value !== null && value !== undefined && value !== false);
        const [path] = location.hash.split('?');
        history.replaceState(null, '', path + (given.length ? '?' + new URLSearchParams(given) : ''));
    }

    /**
     * Runs `load` every so many seconds (`seconds` may be a function; 0 ends it) while the tab is seen. When no
     * answer comes the page says since when, rather than letting old figures pass for new ones.
     */
    poll(seconds, load) {
        const wait = () => {
            const period = typeof seconds === 'function' ? seconds() : seconds;
            if (period > 0 && !this.signal.aborted) setTimeout(tick, period * 1000);
        };
        const tick = async () => {
            if (this.signal.aborted) return;
            if (document.hidden) {
                document.addEventListener('visibilitychange', tick, { once: true, signal: this.signal });
                return;
            }
            try {
                await load({ background: true, signal: this.signal });
                this.fresh();
            } catch (problem) {
                this.stale(problem);
            }
            wait();
        };
        this.fresh();
        wait();
    }

    fresh() {
        this.answeredAt = new Date(api.now()).toISOString();
        if (this.staleness.firstChild) this.staleness.replaceChildren();
        this.body.classList.remove('stale');
    }

    stale(problem) {
        if (this.signal.aborted) return;
        if (!(problem instanceof api.Problem)) console.error(problem);
        if (problem.answered) {
            this.staleness.replaceChildren(problemBox(problem));
            return;
        }
        this.body.classList.add('stale');
        if (this.staleness.firstChild) return;
        this.staleness.append(h('div', { class: 'banner bad' },
            h('strong', { role: 'alert' }, `No answer since ${utc(Date.parse(this.answeredAt))}`), ', ', time(this.answeredAt), '. ',
            `What you see is from then. ${problem.detail ?? problem.title ?? ''} Trying on.`));
    }
}

function enter() {
    shell.replaceChildren(bar());
    show();
    showEnvironment();
}

function leave() {
    page?.ending.abort();
    page = null;
    for (const open of document.querySelectorAll('dialog')) open.close();
}

async function show() {
    if (session === null) return;
    leave();
    const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
    const [view, params] = route(path.replace(/\/$/, ''));
    for (const anchor of shell.querySelectorAll('nav a')) {
        const mine = anchor.hash === '#/' ? path === '' : `#/${path}`.startsWith(anchor.hash);
        if (mine) anchor.setAttribute('aria-current', 'page');
        else anchor.removeAttribute('aria-current');
    }
    const shown = page = new Page(params, new URLSearchParams(query));
    if (session.role === 'producer') {
        shown.show('Producer', null, h('p', null, 'This token may publish events (POST /events) and nothing else. Sign in with an operator’s or a viewer’s token to look around.'));
        return;
    }
    main.setAttribute('aria-busy', 'true');
    try {
        await view(shown);
    } catch (problem) {
        if (shown.signal.aborted) return;
        if (!(problem instanceof api.Problem)) console.error(problem);
        shown.show(problem.status === 404 ? 'Not found' : 'This did not work', null, problemBox(problem), button('Try again', show));
        // A daemon that restarts comes back by itself; so does the page.
        if (problem.status === 0) setTimeout(() => shown.signal.aborted || show(), 5000);
    } finally {
        if (page === shown) main.removeAttribute('aria-busy');
    }
}

function route(path) {
    const parts = path.split('/');
    for (const [pattern, view] of ROUTES) {
        const names = pattern.split('/');
        if (names.length !== parts.length || !names.every((name, i) => name.startsWith(':') ? parts[i] : name === parts[i])) continue;
        return [view, Object.fromEntries(names.map((name, i) => [name.slice(1), decode(parts[i])]).filter((_, i) => names[i].startsWith(':')))];
    }
    return [(page) => page.show('Not found', null, h('p', null, 'There is no such page. ', h('a', { href: '#/' }, 'To the overview'))), {}];
}

function operatorsOnly(view) {
    return (page) => page.operator ? view(page) : page.show('For operators', null, h('p', null, 'Your token may look, but not change this.'));
}

function decode(part) {
    try {
        return decodeURIComponent(part);
    } catch {
        return part;
    }
}

function bar() {
    const who = [session.description, session.tenant_id && `tenant ${session.tenant_id}`].filter(Boolean).join(', ');
    return h('header', { class: 'bar' },
        h('a', { href: '#/', class: 'brand', 'aria-label': 'outboxd' }, h('img', { src: '/console/icon.svg', alt: '', width: 22, height: 22 }), 'outboxd'),
        h('span', { id: 'environment' }),
        session.role !== 'producer' && h('nav', { 'aria-label': 'Main' }, NAVIGATION.map(([name, href]) => h('a', { href }, name))),
        h('div', { class: 'account' },
            h('span', { class: 'who', title: who || null }, badge(session.role), who && h('span', { class: 'quiet' }, ' ', who)),
            h('button', { type: 'button', onclick: help, title: 'Keyboard shortcuts (?)', class: 'keysbutton' }, 'Keys'),
            themeSelect(),
            button('Sign out', async () => {
                try {
                    await api.signOut();
                } catch (problem) {
                    if (problem.status !== 401) return toast(`Still signed in: ${problem.detail ?? problem.title}`);
                }
                session = null;
                leave();
                signInView();
            })));
}

// Which database one is about to change should be seen on every page.
async function showEnvironment() {
    if (session.role === 'producer') return;
    try {
        const { environment } = await api.get('/status', { background: true });
        if (environment) document.getElementById('environment')?.replaceChildren(badge(environment, 'info', 'The environment of this database'));
    } catch {
        // A token bound to a tenant may not ask.
    }
}

function themeSelect() {
    const chosen = document.documentElement.dataset.theme ?? 'system';
    const control = select(chosen, [['system', 'System'], ['light', 'Light'], ['dark', 'Dark']], { 'aria-label': 'Theme' });
    control.onchange = () => {
        if (control.value === 'system') delete document.documentElement.dataset.theme;
        else document.documentElement.dataset.theme = control.value;
        remember('outboxd.theme', control.value);
    };
    return control;
}

function signInView(reason) {
    shell.replaceChildren(h('header', { class: 'bar' },
        h('span', { class: 'brand' }, h('img', { src: '/console/icon.svg', alt: '', width: 22, height: 22 }), 'outboxd'),
        h('div', { class: 'account' }, themeSelect())));
    document.title = 'Sign in · outboxd';
    const token = input('', { type: 'password', required: true, autocomplete: 'off', class: 'mono' });
    main.replaceChildren(h('div', { class: 'signin' }, h('h1', { tabindex: '-1' }, 'Sign in'),
        reason && h('div', { class: 'banner warn', role: 'alert' }, reason),
        form('Sign in', async () => {
            session = await api.signIn(token.value.trim());
            enter();
        }, [
            field('Token', 'token', token),
            h('p', { class: 'help' }, 'Tokens are made in SQL, by who may:'),
            h('pre', null, "select outbox.create_token('operator');"),
            h('p', { class: 'help' }, h('code', null, "'viewer'"), ' reads only. The session is a cookie of this browser and ends when it is not used.'),
        ])));
    token.focus();
}

function help() {
    const keys = [['?', 'Keyboard shortcuts'], ['/', 'Search'], ...NAVIGATION.map(([name, , key]) => [`g ${key}`, name]), ['n', 'New subscription'], ['Esc', 'Close a dialog']];
    const shown = dialog('Keyboard shortcuts', [
        h('dl', { class: 'keys' }, keys.map(([key, what]) => h('div', null, h('dt', null, key.split(' ').map((k) => h('kbd', null, k))), h('dd', null, what)))),
        checkbox('Single keys do something', 'shortcuts', shortcutsOn(), 'Switch off if you speak or use keys by accident.'),
    ]);
    shown.querySelector('input').onchange = (event) => remember('outboxd.shortcuts', event.target.checked ? 'on' : 'off');
}

let waitingForGo = 0;

function shortcut(event) {
    if (session === null || event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
    if (event.target.closest?.('input:not([type=checkbox]), textarea, select, [contenteditable]') || !shortcutsOn()) return;
    const going = Date.now() - waitingForGo < 1500;
    waitingForGo = 0;
    const destination = going && NAVIGATION.find(([, , key]) => key === event.key);
    if (destination) location.hash = destination[1];
    else if (event.key === 'g') waitingForGo = Date.now();
    else if (event.key === '?') help();
    else if (event.key === '/') main.querySelector('[data-search]')?.focus();
    else if (event.key === 'n' && session.role === 'operator') location.hash = '#/webhooks/new';
    else return;
    event.preventDefault();
}

function shortcutsOn() {
    try {
        return localStorage.getItem('outboxd.shortcuts') !== 'off';
    } catch {
        return true;
    }
}

function remember(name, value) {
    try {
        localStorage.setItem(name, value);
    } catch {
        // Without storage it holds until the page is closed.
    }
}
