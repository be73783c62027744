create or replace function outbox_relay.audit(
    action text, tenant_id text default null, subscription_id bigint default null, event_seq bigint default null, detail jsonb default null)
returns void
language sql set search_path = pg_catalog, pg_temp
as $$
-- Notes an operator's action, in the transaction of the action: what is rolled back was not done.
-- Called by every function that operators call, and by the triggers on outbox.subscription and outbox.retry_policy.
insert into outbox.audit (actor, via, action, tenant_id, subscription_id, event_seq, detail)
select a.actor, a.via, audit.action, audit.tenant_id, audit.subscription_id, audit.event_seq,
       nullif(jsonb_strip_nulls(audit.detail), '{}')
from outbox_relay.actor() a
$$;
comment on function outbox_relay.audit is 'Notes an operator''s action in outbox.audit.';
