// A receiver of webhooks with Express.
import express from "express";
import { Webhook } from "standardwebhooks";

// whsec_…; anything shorter or cut off would let others sign too.
const secret = process.env.WEBHOOK_SECRET ?? "";
const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
if (secret !== `whsec_${key.toString("base64")}` || key.length < 24) {
  throw new Error("WEBHOOK_SECRET is not whsec_ and the base64 of at least 24 bytes");
}
const webhook = new Webhook(secret);
const seen = new Set(); // in real life: a table with the id as its primary key

const app = express();

// The signature covers the bytes as they came: take the body raw, and parse it only afterwards.
app.post("/webhooks", express.raw({ type: () => true, limit: "2mb" }), (request, response) => {
  let event;
  try {
    event = webhook.verify(request.body.toString("utf8"), request.headers);
  } catch {
    return response.sendStatus(401);
  }
  // At least once means that an event may come again: its id tells.
  const id = request.get("webhook-id");
  const isNew = !seen.has(id);
  seen.add(id);
  response.sendStatus(204); // first the answer,
  if (isNew) setImmediate(() => handle(event)); // then the work
});

// A body that is too large or breaks off: a status and nothing else, where Express would show its stack.
app.use((error, request, response, next) => {
  if (response.headersSent) return next(error);
  response.status(error.status ?? 500).end();
});

function handle(event) {
  console.log(`processed ${event.id} ${event.type}`);
}

app.listen(process.env.PORT ?? 8000, "127.0.0.1");
