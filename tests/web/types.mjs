// Typed handlers out of the document: openapi-typescript makes the types, the compiler accepts a handler that is
// right and refuses one that is wrong.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import openapiTS, { astToString } from "openapi-typescript";

const here = dirname(fileURLToPath(import.meta.url));
const types = astToString(await openapiTS(new URL(`${process.env.BASE}/openapi.json`)));
writeFileSync(join(here, "outboxd.d.ts"), types);

const handler = (field) => `
import type { components, paths, webhooks } from "./outboxd";
type Paid = webhooks["order.paid"]["post"]["requestBody"]["content"]["application/json"];
export function onPaid(event: Paid): number {
  const currency: "EUR" | "USD" = event.data.currency;
  return event.type === "order.paid" && currency === "EUR" ? event.data.${field} : 0;
}
export type Created = components["schemas"]["event.order.created"];
export const sku = (order: Created): string | undefined => order.lines?.[0]?.sku;
export type List = paths["/webhooks"]["get"]["responses"]["200"]["content"]["application/json"];
export const urls = (list: List): string[] => list.data.map((webhook) => webhook.url);
`;

function compiles(field) {
  writeFileSync(join(here, "handler.ts"), handler(field));
  const tsc = join(here, "node_modules/typescript/bin/tsc");
  const done = spawnSync("node", [tsc, "--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler", "handler.ts"], { cwd: here, encoding: "utf8" });
  return { ok: done.status === 0, output: done.stdout };
}

const right = compiles("total");
assert.ok(right.ok, right.output);
const wrong = compiles("totl");
assert.ok(!wrong.ok && wrong.output.includes("totl"), "a wrong field compiles");
console.log(`${types.split("\n").length} lines of types; a handler compiles, one with a wrong field does not`);
