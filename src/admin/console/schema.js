// A JSON Schema as a tree for readers. Pure: a schema in, elements out.

import { h, badge } from './dom.js';
import { json } from './format.js';

const DEEPEST = 12;
const LIMITS = {
    minimum: 'at least', maximum: 'at most', exclusiveMinimum: 'above', exclusiveMaximum: 'below', multipleOf: 'multiple of',
    minLength: 'characters, at least', maxLength: 'characters, at most', minItems: 'items, at least', maxItems: 'items, at most', pattern: 'matches',
};

/** The properties of `schema`, nested, with type, description, choices and limits. */
export function schemaTree(schema) {
    if (schema === null || schema === undefined) return h('p', { class: 'empty' }, 'No schema: any payload.');
    if (schema === true) return h('p', null, 'Any payload.');
    if (schema === false) return h('p', null, 'No payload fits.');
    return h('ul', { class: 'schema' }, node('payload', schema, true, schema, 0, []));
}

function node(name, given, required, root, depth, seen) {
    const recursion = given?.$ref && seen.includes(given.$ref);
    const schema = resolve(given, root);
    const within = given?.$ref ? [...seen, given.$ref] : seen;
    return h('li', null,
        h('div', { class: 'property' }, h('code', { class: 'property-name' }, name), ' ', h('span', { class: 'quiet' }, typeWords(schema)), ' ',
            required && depth > 0 && badge('required', 'info'), ' ', schema.deprecated && badge('deprecated', 'warn')),
        (schema.title || schema.description) && h('div', { class: 'describe' }, schema.description ?? schema.title),
        limits(schema),
        recursion ? h('div', { class: 'quiet' }, 'as above') : depth < DEEPEST && children(schema, root, depth, within));
}

function children(schema, root, depth, seen) {
    const required = new Set(schema.required ?? []);
    const nodes = Object.entries(schema.properties ?? {}).map(([name, property]) => node(name, property, required.has(name), root, depth + 1, seen));
    for (const [pattern, property] of Object.entries(schema.patternProperties ?? {})) nodes.push(node(`/${pattern}/`, property, false, root, depth + 1, seen));
    if (isSchema(schema.additionalProperties)) nodes.push(node('any other name', schema.additionalProperties, false, root, depth + 1, seen));
    if (isSchema(schema.items)) nodes.push(node('each item', schema.items, false, root, depth + 1, seen));
    (schema.prefixItems ?? []).forEach((item, i) => nodes.push(node(`item ${i + 1}`, item, false, root, depth + 1, seen)));
    for (const [keyword, words] of [['oneOf', 'one of'], ['anyOf', 'any of'], ['allOf', 'and']]) {
        (schema[keyword] ?? []).forEach((part, i) => nodes.push(node(`${words} (${i + 1})`, part, false, root, depth + 1, seen)));
    }
    return nodes.length > 0 && h('ul', null, nodes);
}

function typeWords(schema) {
    const types = [schema.type ?? (schema.properties ? 'object' : schema.enum || 'const' in schema ? null : 'any')].flat().filter(Boolean);
    const items = isSchema(schema.items) && schema.items.type ? ` of ${[schema.items.type].flat().join(' or ')}` : '';
    return [types.join(' or ') + (types.includes('array') ? items : ''), schema.format].filter(Boolean).join(', ');
}

function limits(schema) {
    const found = Object.entries(LIMITS).filter(([keyword]) => keyword in schema).map(([keyword, words]) => `${words} ${schema[keyword]}`);
    if (schema.enum) found.push(`one of ${schema.enum.map((value) => JSON.stringify(value)).join(', ')}`);
    if ('const' in schema) found.push(`always ${JSON.stringify(schema.const)}`);
    if ('default' in schema) found.push(`default ${JSON.stringify(schema.default)}`);
    if (schema.additionalProperties === false) found.push('no other properties');
    return found.length > 0 && h('div', { class: 'quiet mono' }, found.join('; '));
}

// References into the same document only; others are shown as they are.
function resolve(schema, root) {
    if (!isSchema(schema)) return schema === false ? { description: 'never' } : {};
    if (typeof schema.$ref !== 'string') return schema;
    if (!schema.$ref.startsWith('#')) return { ...schema, description: `see ${schema.$ref}` };
    const target = schema.$ref.slice(1).split('/').filter(Boolean)
        .reduce((at, part) => at?.[decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~')], root);
    return isSchema(target) ? { ...target, ...schema } : { ...schema, description: `see ${json(schema.$ref)}` };
}

const isSchema = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
