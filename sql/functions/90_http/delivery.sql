create or replace function outbox_http.delivery(d outbox.delivery)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
-- A delivery as the API shows it: #/components/schemas/Delivery.
select json_build_object('delivery_id', d.subscription_id || '-' || d.event_seq, 'subscription_id', d.subscription_id,
    'subscription', (select s.name from outbox.subscription s where s.subscription_id = d.subscription_id), 'event_seq', d.event_seq,
    'event_id', e.event_id, 'type', e.type, 'tenant_id', d.tenant_id, 'state', d.state, 'attempts', d.attempts,
    'next_attempt_at', case when isfinite(d.next_attempt_at) then d.next_attempt_at end, 'parked', coalesce(d.next_attempt_at = 'infinity', false),
    'leased_by', d.leased_by, 'last_status_code', d.last_status_code, 'last_error', d.last_error,
    'created_at', d.created_at, 'updated_at', d.updated_at, 'finished_at', d.finished_at)
from (select d.event_seq) w left join outbox.event e using (event_seq)
$$;
comment on function outbox_http.delivery is 'A delivery as the API shows it.';
