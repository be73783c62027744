// Fields and dialogs.

import { h, problemBox, busy } from './dom.js';

/** A labelled control. `control` gets the id, the name and the description; `help` says what the value does. */
export function field(label, name, control, help) {
    const id = `field-${++fields}`;
    control.id = id;
    control.name = name;
    if (help) control.setAttribute('aria-describedby', `${id}-help`);
    return h('div', { class: 'field' },
        h('label', { for: id }, label), control,
        help && h('p', { class: 'help', id: `${id}-help` }, help));
}

/** A checkbox with its label after it. */
export function checkbox(label, name, checked, help) {
    const id = `field-${++fields}`;
    return h('div', { class: 'field check' },
        h('input', { type: 'checkbox', id, name, checked, 'aria-describedby': help ? `${id}-help` : null }),
        h('label', { for: id }, label), help && h('p', { class: 'help', id: `${id}-help` }, help));
}

export const input = (value, props) => h('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', ...props, value: value ?? '' });
export const textarea = (value, props) => h('textarea', { rows: 4, autocomplete: 'off', spellcheck: 'false', ...props, value: value ?? '' });

/** Options: [value, label] pairs or plain values. */
export function select(value, options, props) {
    const control = h('select', props, options.map((option) => {
        const [key, label] = Array.isArray(option) ? option : [option, option];
        return h('option', { value: key }, label);
    }));
    control.value = value ?? '';
    return control;
}

/** A form that shows its problem above its buttons. `submit` gets the form; buttons follow `Submit`. */
export function form(submitLabel, submit, content, { extra, label, danger } = {}) {
    const trouble = h('div', { class: 'trouble' });
    const send = h('button', { type: 'submit', class: danger ? 'danger' : 'primary' }, submitLabel);
    return h('form', {
        'aria-label': label,
        onsubmit: (event) => {
            event.preventDefault();
            const element = event.target;
            busy(send, async () => {
                trouble.replaceChildren();
                markInvalid(element, []);
                try {
                    await submit(element);
                } catch (problem) {
                    if (problem.name === 'AbortError') return;
                    trouble.replaceChildren(problemBox(problem));
                    markInvalid(element, problem.errors ?? []);
                }
            });
        },
    }, content, trouble, h('div', { class: 'actions' }, send, extra));
}

/**
 * A modal dialog. `submit(form, close)` runs on the button named `action`; the dialog closes after it unless it
 * returns false. Without `action` it only shows. The focus goes back to where it was, or to the page's heading.
 */
export function dialog(title, content, { action, submit, danger, onclose, dismiss = 'Close' } = {}) {
    const titleId = `dialog-${++fields}`;
    const close = () => element.close();
    const closing = h('button', { type: 'button', onclick: close }, dismiss);
    const body = action
        ? form(action, async (f) => { if (await submit(f, close) !== false) close(); }, content, { extra: closing, danger })
        : h('div', null, content, h('div', { class: 'actions' }, closing));
    const element = h('dialog', { 'aria-labelledby': titleId }, h('h2', { id: titleId }, title), body);
    element.onclose = () => {
        element.remove();
        onclose?.();
        if (document.activeElement === document.body) document.querySelector('h1')?.focus();
    };
    document.body.append(element);
    element.showModal();
    return element;
}

/** Parses a text area of JSON; empty is undefined. Throws what `problemBox` shows. */
export function parseJson(label, text) {
    if (text.trim() === '') return undefined;
    try {
        return JSON.parse(text);
    } catch (error) {
        throw { title: `${label} is not JSON`, detail: error.message, hint: 'Strings and names stand in double quotes; no comma after the last item.' };
    }
}

/** The value of a datetime-local field, which is in the browser's time zone, as the API wants it. */
export const fromLocal = (value) => value ? new Date(value).toISOString() : null;

/** The other way, for showing it again. */
export function toLocal(iso) {
    const ms = Date.parse(iso ?? '');
    if (!Number.isFinite(ms)) return '';
    return new Date(ms - new Date(ms).getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

export const zone = () => `in your time zone, ${Intl.DateTimeFormat().resolvedOptions().timeZone}`;

let fields = 0;

// `at` is a pointer into the request, as /body/url; its last name is mostly a field's.
function markInvalid(element, errors) {
    for (const control of element.elements) control.removeAttribute('aria-invalid');
    for (const { at } of errors) {
        const control = String(at).split(/[/.]/).reverse().map((name) => element.elements.namedItem(name)).find((found) => found instanceof HTMLElement);
        control?.setAttribute('aria-invalid', 'true');
    }
}
