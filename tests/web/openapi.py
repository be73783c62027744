"""The OpenAPI document, for every profile and envelope, before a validator."""

import json
import os
import urllib.request

from openapi_spec_validator import OpenAPIV31SpecValidator

for signature in ["standard", "standard-ed25519", "x-signature", "x-webhook", "github", "stripe"]:
    for envelope in ["standard", "event", "resource", "cloudevents", "payload"]:
        url = f"{os.environ['BASE']}/openapi.json?signature={signature}&envelope={envelope}"
        document = json.load(urllib.request.urlopen(url))
        OpenAPIV31SpecValidator(document).validate()
        assert set(document["webhooks"]) == {"order.created", "order.paid", "parcel.sent", "outbox.test"}
print("30 documents are valid")
