// A browser that notes everything it should not see: errors on the console, requests to other origins, violations of
// the content security policy. And a receiver that answers as it is told.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { chromium } from "playwright-core";

export const BASE = process.env.BASE;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PICTURES = process.env.OUTBOXD_PICTURES ?? join(process.env.OUT, "pictures");
mkdirSync(PICTURES, { recursive: true });

/** A Chromium without a network of its own; `complaints` is what it saw. */
export async function open() {
  const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  const complaints = [];
  const origins = new Set();

  async function page(options) {
    const context = await browser.newContext({ reducedMotion: "reduce", bypassCSP: false, ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(15_000);
    page.on("console", (message) => {
      // What the tests provoke: no session yet, a wrong URL, another tenant's subscription.
      const expected = /status of 40[0134]/.test(message.text());
      if (["error", "warning"].includes(message.type()) && !expected) complaints.push(`console: ${message.text()}`);
    });
    page.on("pageerror", (error) => complaints.push(`exception: ${error}`));
    page.on("request", (request) => {
      const { origin, protocol } = new URL(request.url());
      if (protocol === "data:") return;
      origins.add(origin);
      if (origin !== new URL(BASE).origin) complaints.push(`another origin: ${request.url()}`);
    });
    return page;
  }
  return { browser, page, complaints, origins };
}

/** Signs in with a token. */
export async function signIn(page, token) {
  await page.goto(`${BASE}/`);
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await page.getByRole("heading", { level: 1 }).waitFor();
  await page.getByRole("navigation", { name: "Main" }).waitFor();
}

/** Goes to a place of the console by its hash. */
export async function visit(page, hash) {
  await page.goto(`${BASE}/${hash}`);
  await page.getByRole("heading", { level: 1 }).waitFor();
  await settled(page);
}

/** Nothing is loading any more. */
export async function settled(page) {
  await page.waitForFunction(() => !document.querySelector('[aria-busy="true"]'));
}

/** No violation of WCAG 2.2 A and AA as axe-core sees it, and nothing wider than the window. */
export async function accessible(page, where) {
  // Evaluated by the driver, not loaded by the page: its policy would refuse it.
  await page.evaluate(AXE);
  const found = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  const told = found.violations.map((violation) => `${violation.id}: ${violation.nodes.map((node) => node.target).join(" ")}`);
  assert.deepEqual(told, [], `axe at ${where}`);
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(overflow <= 0, `${where} is ${overflow} px wider than the window`);
}

/** Keeps a picture, named so that they sort as the story goes. */
export async function picture(page, name, options) {
  await page.screenshot({ path: join(PICTURES, `${name}.png`), animations: "disabled", ...options });
}

/** A receiver on loopback whose answer can be changed, and which keeps what came. */
export async function receiver() {
  const state = { status: 200, body: "thank you", came: [] };
  const server = createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      state.came.push({ headers: request.headers, body: Buffer.concat(chunks).toString() });
      response.writeHead(state.status, { "content-type": "text/html", "x-hostile": "<img src=x onerror=alert(1)>" });
      response.end(state.body);
    });
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { state, url: `http://127.0.0.1:${server.address().port}/in`, close: () => server.close() };
}

/** Calls the API. */
export async function call(method, path, body, token = process.env.OPERATOR) {
  const answer = await fetch(BASE + path, {
    method,
    headers: { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { "content-type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${text}`);
  return JSON.parse(text);
}

/** Publishes events, so many milliseconds apart, and returns their ids. */
export async function publish(count, type = "order.paid", apart = 0) {
  const ids = [];
  for (let n = 0; n < count; n++) {
    const payload = { order_id: 4711 + n, total: 12.5, currency: "EUR" };
    ids.push((await call("POST", "/events", { type, payload }, process.env.PRODUCER)).event_id);
    await new Promise((done) => setTimeout(done, apart));
  }
  return ids;
}

/** Asks until it is so. */
export async function until(what, is) {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const value = await is();
    if (value) return value;
    assert.ok(Date.now() < deadline, `${what} did not come about`);
    await new Promise((done) => setTimeout(done, 50));
  }
}
