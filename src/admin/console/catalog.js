// The catalog of event types.

import { get, put, remove } from './api.js';
import { h, badge, button, code, facts, leads, link, section, table, toast } from './dom.js';
import { dialog, field, form, input, parseJson, textarea } from './forms.js';
import { json, time } from './format.js';
import { schemaTree } from './schema.js';

/** All types, page by page. */
export async function catalog(page) {
    const list = h('div'), more = h('div', { class: 'actions' });
    const shown = [];
    let cursor = null;
    const load = async () => {
        const answer = await get('/event-types', { signal: page.signal, query: { cursor, limit: 100 } });
        shown.push(...answer.data);
        cursor = answer.next_cursor;
        list.replaceChildren(table('Event types', [
            { title: 'Type', head: true, cell: (type) => link(address(type), h('code', null, type.type)) },
            { title: 'Description', cell: (type) => type.description ?? '–' },
            { title: 'Version', cell: (type) => type.version ?? '–' },
            { title: 'Schema', cell: (type) => type.schema === null ? 'none' : 'yes' },
            { title: 'State', cell: (type) => stateOf(type) },
            { title: 'Changed', cell: (type) => time(type.updated_at) },
        ], shown, { empty: 'No type is defined: events of any type are taken. From the first definition on, undefined types are refused.' }));
        more.replaceChildren(...[cursor && button('More', () => load().catch(page.failed))].filter(Boolean));
    };
    page.show('Catalog', [
        link('/openapi.json', 'OpenAPI description'),
        page.operator && leads('Define event type', '#/define', { class: 'primary' }),
    ], list, more);
    await load();
}

/** One type, its schema as a tree. */
export async function eventType(page) {
    const path = `/event-types/${encodeURIComponent(page.params.type)}`;
    const type = await get(path, { signal: page.signal });
    page.show(type.type, page.operator && [
        leads(type.archived_at ? 'Define anew' : 'Edit', `#/define/${encodeURIComponent(type.type)}`),
        !type.archived_at && button('Archive', () => archiveDialog(type, path), { class: 'danger' }),
    ],
    h('p', { class: 'state' }, stateOf(type)),
    facts([
        ['Description', type.description], ['Version', type.version],
        ['Defined', time(type.created_at)], ['Changed', time(type.updated_at)], ['Archived', type.archived_at && time(type.archived_at)],
        ['Deliveries', link(`#/deliveries?type=${encodeURIComponent(type.type)}`, 'Of this type')],
    ]),
    section('Payload', schemaTree(type.schema)),
    type.example !== null && section('Example', code(json(type.example), 'Example payload')),
    type.schema !== null && h('details', null, h('summary', null, 'The schema as JSON'), code(json(type.schema), 'Schema')));
}

/** Define a type, or define it anew: what is left empty is empty then. */
export async function defineType(page) {
    const known = page.params.type ? await get(`/event-types/${encodeURIComponent(page.params.type)}`, { signal: page.signal }) : null;
    const type = input(known?.type ?? '', {
        required: true, maxlength: 128, class: 'mono', placeholder: 'order.created', readonly: known !== null, pattern: '[A-Za-z0-9_\\-]+(\\.[A-Za-z0-9_\\-]+)*', title: 'A dotted name',
    });
    const description = textarea(known?.description, { maxlength: 10000 });
    const version = input(known?.version, { maxlength: 100 });
    const schema = textarea(known && known.schema !== null ? json(known.schema) : '', { rows: 14, class: 'mono' });
    const example = textarea(known && known.example !== null ? json(known.example) : '', { rows: 8, class: 'mono' });

    page.show(known ? `Define ${known.type}` : 'Define event type', link(known ? address(known) : '#/catalog', 'Back'), form('Save', async () => {
        const definition = {
            description: description.value.trim() || null, version: version.value.trim() || null,
            schema: parseJson('The schema', schema.value) ?? null, example: parseJson('The example', example.value) ?? null,
        };
        const isSchema = definition.schema === null || typeof definition.schema === 'boolean' || (typeof definition.schema === 'object' && !Array.isArray(definition.schema));
        if (!isSchema) throw { title: 'The schema is no JSON Schema', detail: 'It must be an object, or true or false.' };
        const saved = await put(`/event-types/${encodeURIComponent(type.value)}`, definition);
        toast(`${saved.type} is defined.`);
        location.hash = address(saved);
    }, [
        h('p', { class: 'help' }, 'From the first definition on, events of undefined types are refused in the producer’s transaction.'),
        field('Type', 'type', type, 'A dotted name.'), field('Description', 'description', description),
        field('Version', 'version', version), field('Schema', 'schema', schema, 'JSON Schema of the payload; empty: none.'),
        field('Example', 'example', example, 'A payload, as JSON.'),
    ], { label: 'Event type' }));
}

const address = (type) => `#/catalog/${encodeURIComponent(type.type)}`;
const stateOf = (type) => type.archived_at ? badge('archived', 'warn') : badge('in use', 'good');

function archiveDialog(type, path) {
    dialog(`Archive ${type.type}?`, h('p', null, 'Events of the type ', h('strong', null, type.type), ' are refused from now on, in the producer’s transaction. Defining it anew takes that back.'), {
        action: 'Archive', danger: true, submit: async () => {
            await remove(path);
            toast(`${type.type} is archived.`);
            location.hash = '#/catalog';
        },
    });
}
