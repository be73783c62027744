create or replace function outbox_relay.header_refusal(name text)
returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
-- Why a request may not carry a header that the owner of a subscription has chosen; null if it may.
-- Called by check_headers. _ counts as -: CGI, WSGI, Rack and PHP hand both to an application under one name.
select r.reason
from (values
    (1, '^(host|content-.*|transfer-encoding|te|trailer|expect|range)$', 'it frames the request'),
    (2, '^(connection|keep-alive|upgrade|proxy-.*|http2-settings|max-forwards)$', 'it is hop-by-hop: it speaks to the next proxy, not to the receiver'),
    (3, '^(x-forwarded-.*|forwarded|via|x-real-ip|((x-|x-cluster-|fastly-|true-)?client|cf-connecting)-ip|x-envoy-external-address|x-original-.*|x-rewrite-url|x-http-method.*)$',
        'it says where a request comes from or goes, and proxies believe it'),
    (4, '^(metadata.*|x-metadata-.*|x-aws-ec2-.*|x-google-metadata-.*)$', 'it opens the metadata services of clouds'),
    (5, '^(webhook-.*|x-webhook-.*|x-signature.*|x-timestamp|x-hub-.*|x-github-.*|stripe-signature.*)$', 'it belongs to the signature profiles'),
    (6, '^(user-agent|traceparent|tracestate|date)$', 'outboxd sets it'),
    (7, '^(authorization|cookie2?|set-cookie2?)$|(^|-)(auth|bearer|token|secret|password|passwd|credentials?|session(-?id)?|(api|auth|access|secret|private|signing|session|bearer)-?(keys?|tokens?))(-|$)',
        'it would carry a secret, which everybody could read who may look at subscriptions and attempts')
    ) r (nth, pattern, reason)
where translate(lower(header_refusal.name), '_', '-') ~ r.pattern
order by r.nth limit 1
$$;
comment on function outbox_relay.header_refusal is 'Why a static header may not have this name.';
