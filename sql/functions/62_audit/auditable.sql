create or replace function outbox_relay.auditable(s outbox.subscription)
returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
-- What an operator can change of a subscription, for outbox.audit. The query of a URL may hold a token of the
-- receiver: a change of it shows as its hash.
select jsonb_build_object('name', s.name,
    'url', split_part(s.url, '?', 1) || case when s.url like '%?%' then '?…' || left(encode(sha256(convert_to(substr(s.url, position('?' in s.url) + 1), 'UTF8')), 'hex'), 8) else '' end,
    'event_types', s.event_types, 'filter', s.filter::text, 'headers', s.headers, 'signature', s.signature,
    'signature_header', s.signature_header, 'envelope', s.envelope, 'retry_policy', s.retry_policy, 'timeout', s.timeout::text,
    'max_in_flight', s.max_in_flight, 'rate_limit', s.rate_limit, 'ordered', s.ordered, 'tls', s.tls, 'description', s.description, 'managed_by', s.managed_by)
$$;
comment on function outbox_relay.auditable is 'What an operator can change of a subscription, for the audit.';
