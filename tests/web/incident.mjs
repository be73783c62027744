// An incident in six pictures, from the alert to the replay: an endpoint goes down, somebody on call sees it, finds
// out why, and sends again what was given up. The pictures are in docs/incident.md.

import assert from "node:assert/strict";
import { accessible, call, open, picture, publish, receiver, settled, signIn, until, visit } from "./browser.mjs";

const chromium = await open();
const [warehouse, billing] = [await receiver(), await receiver()];
await call("PUT", "/settings/allow_insecure_http", { value: "true" });
await call("PUT", "/settings/circuit_failures", { value: "0" });
const make = async (name, url, types) =>
  (await call("POST", "/webhooks", { name, url, event_types: types, retry_policy: "none", description: `The ${name} system` })).webhook.subscription_id;
const id = await make("warehouse", warehouse.url, ["order.*"]);
await make("billing", billing.url, ["order.paid"]);

// A quiet shop, and then a deployment of the warehouse that goes wrong. For the pictures it takes its time.
const apart = process.env.OUTBOXD_PICTURES ? 1000 : 0;
await publish(60, "order.paid", 3 * apart);
await until("the quiet time", async () => warehouse.state.came.length === 60);
warehouse.state.status = 500;
warehouse.state.body = '{"error": "relation \\"stock\\" does not exist"}';
await publish(60, "order.paid", apart);
const failed = await until("the failures", async () => {
  const { data } = await call("GET", `/webhooks/${id}/deliveries?state=dead_letter&limit=200`);
  return data.length === 60 && data;
});
// What the charts show is counted in steps.
await until("the figures", async () => (await call("GET", "/activity")).total.failed >= 60);

const page = await chromium.page({ viewport: { width: 1280, height: 960 }, colorScheme: "light" });
await signIn(page, process.env.OPERATOR);
const button = (scope, name) => scope.getByRole("button", { name, exact: true });
const dialog = () => page.getByRole("dialog");

await visit(page, "#/");
await page.getByRole("alert").first().waitFor();
await picture(page, "incident-1-alert");

await visit(page, "#/webhooks");
await picture(page, "incident-2-subscriptions");

await visit(page, `#/deliveries?subscription_id=${id}&state=dead_letter`);
await picture(page, "incident-3-deliveries");

await visit(page, `#/deliveries/${failed[0].delivery_id}`);
await page.getByText("does not exist").first().waitFor();
await accessible(page, "the failed delivery");
await picture(page, "incident-4-delivery");

// The warehouse is mended; a test says so.
warehouse.state.status = 200;
warehouse.state.body = '{"ok": true}';
await visit(page, `#/webhooks/${id}`);
await button(page, "Send test").click();
await button(dialog(), "Send test").click();
await dialog().getByText('"ok"').first().waitFor();
await picture(page, "incident-5-test");
await button(dialog(), "Close").click();

await button(page, "Replay failed").click();
await button(dialog(), "Count").click();
await dialog().getByRole("button", { name: "Replay 60" }).click();
await until("all of them", async () => (await call("GET", `/webhooks/${id}/deliveries?state=dead_letter`)).data.length === 0);
await settled(page);
await visit(page, `#/deliveries?subscription_id=${id}`);
await picture(page, "incident-6-replayed");

await chromium.browser.close();
warehouse.close();
billing.close();
assert.deepEqual(chromium.complaints, []);
assert.equal(new Set(warehouse.state.came.filter(({ body }) => body.includes("order_id")).map(({ headers }) => headers["webhook-id"])).size, 120);
console.log("  60 failed, were seen, understood, and sent again; each of 120 events arrived");
