create or replace function outbox_relay.begin_trial()
returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$
-- Limits the statements of this transaction to twice filter_timeout. A statement's own limit cannot be changed while
-- it runs, so this is a call of its own. Called by the relay before try_filters.
select set_config('statement_timeout', ceil(2000 * extract(epoch from s.value::interval))::text, true)
from outbox.setting s where s.name = 'filter_timeout'
$$;
comment on function outbox_relay.begin_trial is 'Limits the statements of this transaction to what try_filters may take.';
