// The one door to the daemon: every call of the console goes through `request`.

/** Reads. `options`: query, signal, background, exact. */
export const get = (path, options) => request('GET', path, options);
export const put = (path, body, options) => request('PUT', path, { ...options, body });
export const patch = (path, body, options) => request('PATCH', path, { ...options, body });
export const remove = (path, options) => request('DELETE', path, options);

/**
 * One wish of the operator, behind one form or dialog. If no answer came it is unknown whether the wish was granted,
 * so its repetition carries the same Idempotency-Key; any answer, or another wording, makes a new key.
 */
export function intent() {
    let key = null, wording = null;
    return {
        async post(path, body, options) {
            const words = path + JSON.stringify(body);
            if (key === null || words !== wording) [key, wording] = [uuid(), words];
            try {
                const answer = await request('POST', path, { ...options, body, key });
                key = null;
                return answer;
            } catch (error) {
                if (error instanceof Problem && error.answered) key = null;
                throw error;
            }
        },
    };
}

/** The session of the cookie, or null. */
export async function session() {
    try {
        return await request('GET', '/session', { signingIn: true });
    } catch (error) {
        if (error.status === 401) return null;
        throw error;
    }
}

export const signIn = (token) => request('POST', '/session', { body: { token }, signingIn: true });
export const signOut = () => request('DELETE', '/session', { signingIn: true });

/** `listener` is called when the daemon says 401 to anything but a sign-in. */
export function onSignedOut(listener) {
    signedOut = listener;
}

/** Walks the pages of a list, up to `pages` of 200; `complete` tells whether that was all. */
export async function walk(path, { query = {}, pages = 5, ...options } = {}) {
    const data = [];
    let cursor = null;
    for (let page = 0; page < pages; page++) {
        const answer = await get(path, { ...options, query: { ...query, cursor, limit: 200 } });
        data.push(...answer.data);
        cursor = answer.next_cursor;
        if (cursor === null) break;
    }
    return { data, complete: cursor === null };
}

/** The daemon's time: the browser's clock may be off, and "3 minutes ago" must not be. */
export const now = () => Date.now() + skewMs;

/** What the daemon refused and why (RFC 9457), or that it did not answer (status 0). */
export class Problem extends Error {
    constructor({ title, detail, hint, code, errors, status }) {
        super(title);
        Object.assign(this, { title, detail, hint, code, errors: errors ?? [], status });
    }

    /** Whether the daemon judged the request, so that nothing is left in doubt. */
    get answered() {
        return this.status >= 400 && this.status < 500;
    }
}

let signedOut = () => {};
let skewMs = 0;

async function request(method, path, { query, body, key, background, signal, exact, signingIn } = {}) {
    const headers = { accept: 'application/json, application/problem+json' };
    if (body !== undefined) headers['content-type'] = 'application/json';
    if (method !== 'GET') headers['x-outboxd-console'] = '1';
    if (background) headers['x-outboxd-background'] = '1';
    if (key) headers['idempotency-key'] = key;

    // A refresh that hangs would leave old figures standing as if they were new.
    const patience = AbortSignal.timeout(background ? 10_000 : 60_000);
    let response, text;
    try {
        response = await fetch(path + search(query), {
            method, headers, cache: 'no-store', credentials: 'same-origin', redirect: 'error',
            body: body === undefined ? undefined : JSON.stringify(body),
            signal: signal ? AbortSignal.any([signal, patience]) : patience,
        });
        text = await response.text();
    } catch (error) {
        if (signal?.aborted) throw error;
        throw new Problem({ status: 0, title: 'No answer', detail: 'outboxd did not answer.', hint: 'Is it running, and is the network up? Try again.' });
    }

    followClock(response.headers.get('date'));
    if (response.ok) return text === '' ? null : parse(text, exact);
    if (response.status === 401 && !signingIn) signedOut();
    throw problemOf(response, text);
}

function problemOf(response, text) {
    let problem = {};
    try {
        problem = JSON.parse(text) ?? {};
    } catch {
        // A proxy's page, say; the status has to do.
    }
    return new Problem({ ...problem, title: problem.title ?? `The answer was ${response.status} ${response.statusText}`.trim(), status: response.status });
}

// `exact` names a member whose numbers stay as they are written (12.50, not 12.5), where the browser can.
function parse(text, exact) {
    const value = JSON.parse(text);
    if (!exact || !JSON.rawJSON) return value;
    const raw = JSON.parse(text, (name, member, context) => typeof member === 'number' && context ? JSON.rawJSON(context.source) : member);
    return { ...value, [exact]: raw[exact] };
}

function search(query) {
    const given = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null && value !== '');
    return given.length ? '?' + new URLSearchParams(given) : '';
}

// The header has whole seconds and is a little old: small differences are no skew.
function followClock(date) {
    const difference = Date.parse(date ?? '') - Date.now();
    if (Number.isFinite(difference)) skewMs = Math.abs(difference) > 3000 ? difference : 0;
}

// crypto.randomUUID is missing where the page came over plain http from elsewhere than localhost.
function uuid() {
    if (crypto.randomUUID) return crypto.randomUUID();
    return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
