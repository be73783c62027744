create or replace function outbox_http.webhook(s outbox.subscription)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
-- A subscription as the API shows it: #/components/schemas/Webhook.
select json_build_object('subscription_id', s.subscription_id, 'tenant_id', s.tenant_id, 'name', s.name, 'url', s.url,
    'event_types', s.event_types, 'filter', s.filter::text, 'headers', s.headers, 'signature', s.signature,
    'signature_header', s.signature_header, 'envelope', s.envelope, 'retry_policy', s.retry_policy, 'timeout', s.timeout::text,
    'max_in_flight', s.max_in_flight, 'rate_limit', s.rate_limit, 'ordered', s.ordered, 'tls', s.tls, 'active', s.active,
    'disabled_at', s.disabled_at, 'disabled_reason', s.disabled_reason, 'description', s.description, 'managed_by', s.managed_by,
    'created_by', s.created_by, 'created_at', s.created_at, 'updated_at', s.updated_at, 'unsubscribed_at', s.unsubscribed_at,
    'health', (select json_build_object('circuit', coalesce(h.circuit, 'closed'), 'circuit_until', h.circuit_until,
            'consecutive_failures', coalesce(h.consecutive_failures, 0), 'failure_count', coalesce(h.failure_count, 0),
            'success_count', coalesce(h.success_count, 0), 'last_success_at', h.last_success_at,
            'last_failure_at', h.last_failure_at, 'failing_since', h.failing_since)
        from (select s.subscription_id) w left join outbox.subscription_health h using (subscription_id)),
    'keys', outbox_http.live_keys(s.subscription_id))
$$;
comment on function outbox_http.webhook is 'A subscription as the API shows it.';
