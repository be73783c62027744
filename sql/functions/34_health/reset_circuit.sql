create or replace function outbox_relay.reset_circuit(subscription_id bigint)
returns void
language sql set search_path = pg_catalog, pg_temp
as $$
-- Closes a subscription's circuit: somebody says that it is worth trying again. Called by resume and replay.
update outbox.subscription_health h
set circuit = 'closed', circuit_until = null, circuit_trips = 0, consecutive_failures = 0, failing_since = null
where h.subscription_id = reset_circuit.subscription_id and (h.circuit <> 'closed' or h.consecutive_failures > 0)
$$;
comment on function outbox_relay.reset_circuit is 'Closes a subscription''s circuit by hand.';
