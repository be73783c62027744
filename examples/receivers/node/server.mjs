// A receiver of webhooks with Express.
import express from "express";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.WEBHOOK_SECRET); // whsec_…
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

function handle(event) {
  console.log(`processed ${event.id} ${event.type}`);
}

app.listen(process.env.PORT ?? 8000, "127.0.0.1");
