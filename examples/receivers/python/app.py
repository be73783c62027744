"""A receiver of webhooks with Flask."""

import base64
import binascii
import os
import queue
import threading

from flask import Flask, request
from standardwebhooks import Webhook, WebhookVerificationError


def checked(secret):
    """whsec_…; anything shorter or cut off would let others sign too."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < 24 or secret != "whsec_" + base64.b64encode(key).decode():
        raise SystemExit("WEBHOOK_SECRET is not whsec_ and the base64 of at least 24 bytes")
    return secret


webhook = Webhook(checked(os.environ.get("WEBHOOK_SECRET", "")))
seen = set()  # in real life: a table with the id as its primary key
lock = threading.Lock()
work = queue.Queue()  # in real life: a job table, written before the answer

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 2 << 20  # beyond it the answer is 413


@app.post("/webhooks")
def receive():
    try:
        # The signature covers the bytes as they came: request.json would have parsed them already.
        event = webhook.verify(request.get_data(), dict(request.headers))
    except (WebhookVerificationError, ValueError):  # the latter: webhook-signature is no list of signatures
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
