"""A receiver of webhooks with Flask."""

import os
import queue
import threading

from flask import Flask, request
from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])  # whsec_…
seen = set()  # in real life: a table with the id as its primary key
lock = threading.Lock()
work = queue.Queue()  # in real life: a job table, written before the answer

app = Flask(__name__)


@app.post("/webhooks")
def receive():
    try:
        # The signature covers the bytes as they came: request.json would have parsed them already.
        event = webhook.verify(request.get_data(), dict(request.headers))
    except WebhookVerificationError:
        return "", 401
    # At least once means that an event may come again: its id tells.
    event_id = request.headers["webhook-id"]
    with lock:
        is_new = event_id not in seen
        seen.add(event_id)
    if is_new:
        work.put(event)
    return "", 204


def handle_events():
    while True:
        event = work.get()
        print(f"processed {event['id']} {event['type']}", flush=True)


if __name__ == "__main__":
    threading.Thread(target=handle_events, daemon=True).start()
    app.run("127.0.0.1", int(os.environ.get("PORT", 8000)), threaded=True)
