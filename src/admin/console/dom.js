// Elements by hand. Text only ever becomes a text node: what receivers answer is hostile.

/** An element: `on…` props become handlers, value and checked properties, everything else attributes. */
export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);

/** The same for SVG. */
export const s = (tag, props, ...children) => fill(document.createElementNS('http://www.w3.org/2000/svg', tag), props, children);

/** A button that says when it is at work, and shows a problem beside itself by `report`. */
export function button(label, onclick, props = {}) {
    return h('button', { type: 'button', ...props, onclick: (event) => busy(event.currentTarget, () => onclick(event)) }, label);
}

/** Keeps a control from being used twice while `work` runs, without taking the focus from it as `disabled` would. */
export async function busy(control, work) {
    if (control.getAttribute('aria-disabled') === 'true') return;
    control.setAttribute('aria-disabled', 'true');
    try {
        return await work();
    } finally {
        control.removeAttribute('aria-disabled');
    }
}

export const link = (href, ...children) => h('a', { href }, ...children);

/** A button that leads to a view. */
export const leads = (label, href, props) => h('button', { type: 'button', ...props, onclick: () => { location.hash = href; } }, label);

/** A visible state: always a word, the colour only helps. `tone`: good, bad, warn, calm. */
export const badge = (text, tone = 'calm', title) => h('span', { class: `badge ${tone}`, title }, text);

/**
 * A table whose rows become cards on a narrow screen. Columns: { title, cell(row), class, head }; `head` makes the
 * row's header of it. Roles are spelled out because the cards' CSS would take them away.
 */
export function table(caption, columns, rows, { key, empty = 'Nothing here.', rowClass } = {}) {
    if (rows.length === 0) return h('p', { class: 'empty' }, empty);
    return h('table', { role: 'table', class: 'cards' },
        h('caption', { class: 'hidden' }, caption),
        h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' },
            columns.map((column) => h('th', { scope: 'col', role: 'columnheader', class: column.class }, column.heading ?? column.title)))),
        h('tbody', { role: 'rowgroup' }, rows.map((row) => h('tr', { role: 'row', 'data-key': key?.(row), class: rowClass?.(row) },
            columns.map((column) => tableCell(column, column.cell(row)))))));
}

// A card leaves out what is a mere dash in a row.
const tableCell = (column, content) => h(column.head ? 'th' : 'td', {
    role: column.head ? 'rowheader' : 'cell', scope: column.head ? 'row' : null,
    class: [column.class, content === '–' && 'blank'].filter(Boolean).join(' ') || null, 'data-title': column.title,
}, h('div', null, content));

/** Term and description pairs; pairs whose description is null are left out. */
export const facts = (pairs) => h('dl', { class: 'facts' },
    pairs.filter(([, value]) => value !== null && value !== undefined).map(([term, value]) => h('div', null, h('dt', null, term), h('dd', null, value))));

/** A titled part of a page. */
export const section = (title, ...children) => h('section', { 'aria-label': title }, h('h2', null, title), ...children);

/** Text to be read as it is: JSON, answers. A region that scrolls must be reachable by keyboard. */
export const code = (text, label) => h('pre', { tabindex: '0', role: 'region', 'aria-label': label }, text);

/** What went wrong, with what to do. */
export function problemBox(problem) {
    return h('div', { class: 'problem', role: 'alert' },
        h('strong', null, problem.title ?? String(problem)),
        problem.detail && h('p', null, problem.detail),
        problem.hint && h('p', null, h('em', null, 'What to do: '), problem.hint),
        problem.errors?.length > 0 && h('ul', null, problem.errors.map((error) => h('li', null, h('code', null, error.at || '/'), ' ', error.message))),
        problem.code && h('small', null, 'Code ', h('code', null, problem.code)));
}

/** Says something in passing; screen readers hear it too. */
export function toast(text) {
    const note = h('div', { class: 'toast' }, text);
    const toasts = document.getElementById('toasts');
    toasts.append(note);
    while (toasts.childElementCount > 3) toasts.firstChild.remove();
    setTimeout(() => note.remove(), 8000);
}

/** A value shown once or often copied, in a field that can be selected, with its button. */
export function copyable(label, value) {
    const input = h('input', { readonly: true, 'aria-label': label, class: 'mono', value, onfocus: (event) => event.target.select() });
    const said = h('span', { role: 'status', class: 'help' });
    return h('div', { class: 'copyable' }, input, button('Copy', async () => { said.textContent = await copy(value, input); }, { 'aria-label': `Copy ${label.toLowerCase()}` }), said);
}

/**
 * Makes `old` equal to `fresh` with as few changes as possible, so that a refresh takes neither focus, selection, nor
 * an opened <details> away. Children with `data-key` are matched by it. Not for forms: what is typed is not an attribute.
 */
export function morph(old, fresh) {
    for (const { name } of [...old.attributes]) {
        if (!fresh.hasAttribute(name) && !belongsToUser.has(name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
        if (old.getAttribute(name) !== value && !belongsToUser.has(name)) old.setAttribute(name, value);
    }
    for (const name of new Set([...handlersOf(old), ...handlersOf(fresh)])) old[name] = fresh[name];
    handlers.set(old, handlersOf(fresh));
    morphChildren(old, [...fresh.childNodes]);
    return old;
}

/** The same for the children alone, given as for `h`. */
export function morphChildren(parent, children) {
    const fresh = present(children).map((child) => child instanceof Node ? child : document.createTextNode(child));
    const keyed = new Map([...parent.childNodes].filter((node) => node.dataset?.key).map((node) => [node.dataset.key, node]));
    let place = parent.firstChild;
    for (const node of fresh) {
        const wanted = node.dataset?.key;
        const match = wanted ? keyed.get(wanted) : place && !place.dataset?.key ? place : null;
        if (!match || match.nodeName !== node.nodeName) {
            parent.insertBefore(node, place);
            continue;
        }
        while (match !== place && place && !wantedLater(place, fresh)) place = drop(place);
        if (match !== place) parent.insertBefore(match, place);
        if (match === place) place = place.nextSibling;
        if (match.nodeType !== Node.ELEMENT_NODE) {
            if (match.data !== node.data) match.data = node.data;
        } else {
            morph(match, node);
        }
    }
    while (place) place = drop(place);
}

// The clipboard API is missing where the page came over plain http.
async function copy(text, input) {
    try {
        await navigator.clipboard.writeText(text);
    } catch {
        input.select();
        if (!document.execCommand('copy')) return 'Not allowed here: copy the selected text by hand.';
    }
    return 'Copied.';
}

const belongsToUser = new Set(['open', 'aria-disabled']);
const handlers = new WeakMap();
const handlersOf = (element) => handlers.get(element) ?? [];

// What a condition left out is false, null or undefined.
const present = (children) => [children].flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);

const wantedLater = (node, fresh) => node.dataset?.key && fresh.some((other) => other.dataset?.key === node.dataset.key);

function drop(node) {
    const next = node.nextSibling;
    node.remove();
    return next;
}

function fill(element, props, children) {
    for (const [name, value] of Object.entries(props ?? {})) {
        if (value === null || value === undefined || value === false) continue;
        if (name.startsWith('on')) {
            element[name] = value;
            handlers.set(element, [...handlersOf(element), name]);
        } else if (name === 'value' || name === 'checked') {
            element[name] = value;
        } else {
            element.setAttribute(name, value === true ? '' : value);
        }
    }
    element.append(...present(children));
    return element;
}
