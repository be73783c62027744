"""Asks the verifiers of PyPI. A line of JSON in, a line of JSON out:
{verifier, secret, headers, body (base64)} -> {ok, error}"""

import base64
import json
import sys

import standardwebhooks
import stripe
import svix
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def ed25519(secret, headers, body):
    """No library on PyPI verifies v1a; cryptography's ed25519 does."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(secret.removeprefix("whpk_")))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    for signature in headers["webhook-signature"].split(" "):
        version, _, encoded = signature.partition(",")
        if version == "v1a":
            try:
                return key.verify(base64.b64decode(encoded), signed)
            except Exception:  # the next one may be another key's
                continue
    raise ValueError("no signature matches")


VERIFIERS = {
    "standardwebhooks": lambda secret, headers, body: standardwebhooks.Webhook(secret).verify(body, headers),
    "svix": lambda secret, headers, body: svix.Webhook(secret).verify(body, headers),
    "stripe": lambda secret, headers, body: stripe.WebhookSignature.verify_header(
        body.decode(), headers["stripe-signature"], secret, tolerance=300
    ),
    "cryptography": ed25519,
}

for line in sys.stdin:
    request = json.loads(line)
    try:
        VERIFIERS[request["verifier"]](request["secret"], request["headers"], base64.b64decode(request["body"]))
        answer = {"ok": True}
    except Exception as error:
        answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
