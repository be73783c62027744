// The console in a browser: the whole life of an endpoint, from its creation to a replay, as an operator; then what
// a viewer, a tenant's operator and somebody without a session see.

import assert from "node:assert/strict";
import { BASE, accessible, call, open, picture, publish, receiver, settled, signIn, until, visit } from "./browser.mjs";

const chromium = await open();
const shop = await receiver();
await call("PUT", "/settings/allow_insecure_http", { value: "true" });

/** Steps are told as they are taken, so that a failure says where. */
async function step(what, doing) {
  try {
    await doing();
    console.log(`  ${what}`);
  } catch (error) {
    await picture(page, "failed").catch(() => {});
    throw new Error(`${what}: ${error.message}`, { cause: error });
  }
}

const button = (scope, name) => scope.getByRole("button", { name, exact: true });
const dialog = () => page.getByRole("dialog");
let page = await chromium.page({ viewport: { width: 1280, height: 900 }, colorScheme: "light" });
let id;

await step("somebody without a token is asked for one, and a wrong one is refused", async () => {
  await page.goto(`${BASE}/`);
  await accessible(page, "sign-in");
  await page.getByLabel("Token").fill("outboxd_wrong");
  await button(page, "Sign in").click();
  await page.getByRole("alert").filter({ hasText: /unknown|Not signed in/ }).first().waitFor();
});

await step("an operator signs in; the cookie is out of reach of scripts and other sites", async () => {
  await signIn(page, process.env.OPERATOR);
  const [cookie] = await page.context().cookies();
  assert.deepEqual([cookie.httpOnly, cookie.sameSite], [true, "Strict"]);
  assert.equal(await page.evaluate(() => document.cookie + localStorage.length), "0");
});

await step("a subscription is created, and its secret is shown this once", async () => {
  await visit(page, "#/webhooks");
  await button(page, "New subscription").or(page.getByRole("link", { name: "New subscription" })).first().click();
  await page.getByLabel("URL", { exact: true }).fill(shop.url);
  await page.getByLabel("Event types").fill("order.*");
  await page.getByLabel("Name", { exact: true }).fill("warehouse");
  await page.getByLabel("Retry policy").selectOption("none");
  await accessible(page, "form");
  await button(page, "Create").click();
  const secret = await dialog().getByRole("textbox", { name: "Secret" }).inputValue();
  assert.match(secret, /^whsec_/);
  await accessible(page, "secret");
  await button(dialog(), "Done").click();
  await settled(page);
  id = (await call("GET", "/webhooks?search=warehouse")).data[0].subscription_id;
  assert.ok(!(await page.content()).includes(secret), "the secret is gone with its dialog");
});

await step("a URL that is refused says why and what to do", async () => {
  await visit(page, `#/webhooks/${id}`);
  await button(page, "Edit").or(page.getByRole("link", { name: "Edit", exact: true })).first().click();
  await page.getByLabel("URL", { exact: true }).fill("ftp://example.com");
  await button(page, "Save").click();
  await page.getByRole("alert").first().waitFor();
  await page.getByLabel("URL", { exact: true }).fill(`${shop.url}?edited=1`);
  await button(page, "Save").click();
  await until("the edit", async () => (await call("GET", `/webhooks/${id}`)).url.endsWith("edited=1"));
});

await step("a test is sent, and the receiver's answer is shown as text", async () => {
  shop.state.body = "<script>document.title = 'owned'</script><b>thanks</b>";
  await visit(page, `#/webhooks/${id}`);
  await button(page, "Send test").click();
  await button(dialog(), "Send test").click();
  await dialog().getByText("<b>thanks</b>").first().waitFor();
  await accessible(page, "test");
  await button(dialog(), "Close").click();
  assert.ok(!(await page.title()).includes("owned"));
  assert.equal(shop.state.came.length, 1);
});

await step("the secret is rotated, and the overlap is shown", async () => {
  await button(page, "Rotate secret").click();
  await dialog().getByLabel("Overlap").fill("2 hours");
  await button(dialog(), "Rotate secret").click();
  await dialog().getByRole("textbox", { name: "Secret" }).waitFor();
  await accessible(page, "rotated");
  await button(dialog(), "Done").click();
  assert.equal((await call("GET", `/webhooks/${id}`)).keys.length, 2);
});

await step("it is paused with a reason, and resumed", async () => {
  await button(page, "Pause").click();
  await dialog().getByLabel("Reason").fill("inventory");
  await button(dialog(), "Pause").click();
  await page.getByText("inventory").first().waitFor();
  await publish(3);
  await button(page, "Resume").click();
  await until("the resumption", async () => (await call("GET", `/webhooks/${id}`)).active);
});

await step("what was missed in the pause is counted and replayed", async () => {
  await settled(page);
  await button(page, "Replay missing").click();
  await button(dialog(), "Count").click();
  await dialog().getByRole("button", { name: "Replay 3" }).click();
  await until("the three", async () => shop.state.came.length === 4);
});

let failed;
await step("deliveries that fail are found, and a selection is counted and replayed", async () => {
  shop.state.status = 503;
  await publish(4);
  failed = await until("four dead letters", async () => {
    const { data } = await call("GET", `/webhooks/${id}/deliveries?state=dead_letter`);
    return data.length === 4 && data;
  });
  await visit(page, "#/deliveries");
  await page.getByLabel("State").selectOption("dead_letter");
  await button(page, "Filter").click();
  await page.getByLabel(`Select ${failed[0].delivery_id}`).check();
  await page.getByLabel(`Select ${failed[1].delivery_id}`).check();
  await accessible(page, "deliveries");
  await picture(page, "deliveries");
  shop.state.status = 200;
  await button(page, "Replay selection").click();
  await dialog().getByRole("button", { name: "Replay 2" }).click();
  await until("two of four", async () => (await call("GET", `/webhooks/${id}/deliveries?state=dead_letter`)).data.length === 2);
});

await step("an event is found by its id, and one delivery shows every attempt", async () => {
  await visit(page, "#/deliveries");
  await page.getByLabel("Event id").fill(failed[0].event_id);
  await button(page, "Filter").click();
  await page.getByRole("link", { name: new RegExp(failed[0].delivery_id) }).first().click();
  await page.getByText("untrusted text").first().waitFor();
  await page.getByText("<b>thanks</b>").first().waitFor();
  await accessible(page, "delivery");
  await picture(page, "delivery", { fullPage: true });
  await page.getByRole("link", { name: /Explain/ }).first().click();
  await page.getByRole("heading", { level: 1 }).waitFor();
  await settled(page);
  await button(page, "Show payload").click();
  await page.getByText("EUR").first().waitFor();
  await accessible(page, "event");
});

await step("one is replayed from its own page", async () => {
  await visit(page, `#/deliveries/${failed[2].delivery_id}`);
  await button(page, "Replay").click();
  await until("it", async () => (await call("GET", `/deliveries/${failed[2].delivery_id}`)).state === "succeeded");
});

await step("all that failed is replayed from the subscription", async () => {
  await visit(page, `#/webhooks/${id}`);
  await button(page, "Replay failed").click();
  await button(dialog(), "Count").click();
  await dialog().getByRole("button", { name: "Replay 1" }).click();
  await until("the last", async () => (await call("GET", `/webhooks/${id}/deliveries?state=dead_letter`)).data.length === 0);
  await settled(page);
  await picture(page, "subscription", { fullPage: true });
});

await step("an event type is defined, and its schema is drawn", async () => {
  await visit(page, "#/catalog");
  await button(page, "Define event type").or(page.getByRole("link", { name: "Define event type" })).first().click();
  await page.getByLabel("Type", { exact: true }).fill("stock.low");
  await page.getByLabel("Schema").fill('{"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string", "description": "What runs out"}}}');
  await page.getByLabel("Example").fill('{"sku": "A-1"}');
  await button(page, "Save").click();
  await until("the type", async () => (await fetch(`${BASE}/openapi.json`).then((answer) => answer.json())).webhooks["stock.low"]);
  await visit(page, "#/catalog");
  await accessible(page, "catalog");
  await picture(page, "catalog");
});

await step("all is held, loudly, and released", async () => {
  await visit(page, "#/");
  await button(page, "Hold…").click();
  await dialog().getByLabel("Reason").fill("moving the database");
  await button(dialog(), "Hold").click();
  await page.getByRole("alert").filter({ hasText: "moving the database" }).waitFor();
  await accessible(page, "hold");
  await button(page, "Release").click();
  await until("the release", async () => (await call("GET", "/status")).hold === null);
});

await step("the audit trail says who did all this", async () => {
  await visit(page, "#/audit");
  for (const action of ["release", "hold", "define_event_type", "replay_failed", "replay", "resume", "pause", "rotate_secret", "send_test"]) {
    await page.getByText(action, { exact: true }).first().waitFor();
  }
  await page.getByText("operator in tests").first().waitFor();
  await accessible(page, "audit");
  await visit(page, "#/settings");
  await accessible(page, "settings");
});

await step("every view in the dark, on a phone", async () => {
  const state = await page.context().storageState();
  page = await chromium.page({ viewport: { width: 390, height: 844 }, colorScheme: "dark", storageState: state, isMobile: true });
  for (const hash of ["#/", "#/webhooks", `#/webhooks/${id}`, "#/deliveries", `#/deliveries/${failed[0].delivery_id}`, `#/events/${failed[0].event_id}`, "#/catalog", "#/audit", "#/settings"]) {
    await visit(page, hash);
    await accessible(page, `${hash} on a phone`);
  }
  await visit(page, "#/");
  await picture(page, "phone");
});

await step("it is unsubscribed, after being asked", async () => {
  page = await chromium.page({ viewport: { width: 1280, height: 900 } });
  await signIn(page, process.env.OPERATOR);
  await visit(page, `#/webhooks/${id}`);
  await button(page, "Unsubscribe").click();
  await button(dialog(), "Unsubscribe").click();
  await until("its end", async () => (await call("GET", `/webhooks/${id}`)).unsubscribed_at);
});

await step("who signs out is out, also with the old cookie", async () => {
  const [cookie] = await page.context().cookies();
  await button(page, "Sign out").click();
  await page.getByLabel("Token").waitFor();
  const answer = await fetch(`${BASE}/status`, { headers: { cookie: `${cookie.name}=${cookie.value}` } });
  assert.equal(answer.status, 401);
});

await step("a viewer sees and cannot do; payloads are not shown", async () => {
  page = await chromium.page({ viewport: { width: 1280, height: 900 } });
  await signIn(page, process.env.VIEWER);
  await visit(page, "#/webhooks");
  assert.equal(await button(page, "New subscription").count(), 0);
  await visit(page, `#/events/${failed[0].event_id}`);
  assert.equal(await page.getByText("EUR").count(), 0);
  await accessible(page, "viewer's event");
});

await step("a tenant's operator sees nothing of others", async () => {
  page = await chromium.page({ viewport: { width: 1280, height: 900 } });
  await signIn(page, process.env.ACME);
  for (const hash of ["#/", "#/webhooks", "#/deliveries", "#/audit", "#/settings"]) {
    await visit(page, hash);
    assert.equal(await page.getByText("warehouse").count(), 0, hash);
  }
  await visit(page, `#/webhooks/${id}`);
  await page.getByText(/no subscription/).first().waitFor();
});

await chromium.browser.close();
shop.close();
assert.deepEqual(chromium.complaints, [], "nothing on the browser's console");
assert.deepEqual([...chromium.origins], [new URL(BASE).origin]);
console.log("  no console error, no violation, no request to another origin");
