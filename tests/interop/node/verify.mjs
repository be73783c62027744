// Asks the verifiers of npm. A line of JSON in, a line of JSON out:
//   {verifier, secret, headers, body (base64)} -> {ok, error, seen}
import { createInterface } from "node:readline";
import { createPublicKey, verify as cryptoVerify } from "node:crypto";
import { Webhook as StandardWebhook } from "standardwebhooks";
import { Webhook as SvixWebhook } from "svix";
import Stripe from "stripe";
import { verify as githubVerify } from "@octokit/webhooks-methods";
import { HTTP } from "cloudevents";

const stripe = new Stripe("sk_test_not_used");

function mustBe(ok) {
  if (!ok) throw new Error("no signature matches");
}

const verifiers = {
  standardwebhooks: ({ secret, headers, body }) => void new StandardWebhook(secret).verify(body, headers),
  svix: ({ secret, headers, body }) => void new SvixWebhook(secret).verify(body, headers),
  stripe: ({ secret, headers, body }) =>
    void stripe.webhooks.signature.verifyHeader(body, headers["stripe-signature"], secret, 300),
  octokit: async ({ secret, headers, body }) =>
    mustBe(await githubVerify(secret, body, headers["x-hub-signature-256"] ?? headers["x-webhook-signature"])),
  // No library on npm verifies v1a; Node's own ed25519 does.
  "node:crypto": ({ secret, headers, raw }) => {
    const x = Buffer.from(secret.slice("whpk_".length), "base64").toString("base64url");
    const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
    const signed = Buffer.concat([Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`), raw]);
    const signatures = headers["webhook-signature"].split(" ").filter((s) => s.startsWith("v1a,"));
    mustBe(signatures.some((s) => cryptoVerify(null, signed, key, Buffer.from(s.slice(4), "base64"))));
  },
  cloudevents: ({ headers, body }) => {
    const event = HTTP.toEvent({ headers, body });
    event.validate();
    const { id, type, source, tenantid, datacontenttype, data } = event;
    return { id, type, source, tenantid, datacontenttype, time: Date.parse(event.time), hasData: data !== undefined };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { verifier, secret, headers, body } = JSON.parse(line);
  const raw = Buffer.from(body, "base64");
  let answer;
  try {
    answer = { ok: true, seen: await verifiers[verifier]({ secret, headers, raw, body: raw.toString("utf8") }) };
  } catch (error) {
    answer = { ok: false, error: String(error.message ?? error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
