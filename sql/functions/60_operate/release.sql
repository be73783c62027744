create or replace function outbox.release()
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Lifts every hold that outbox.hold put. A relay that holds because of its environment needs outbox.adopt.
begin
    perform outbox_relay.require_all_tenants();
    delete from outbox_relay.hold;
    perform outbox_relay.audit('release');
    perform pg_notify('outbox_signal', 'control');
end
$$;
comment on function outbox.release is 'Restarts sending after outbox.hold.';
