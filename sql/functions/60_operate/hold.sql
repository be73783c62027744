create or replace function outbox.hold(reason text)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Stops all sending: nothing is expanded or claimed any more, attempts under way end. Lift it with outbox.release().
begin
    perform outbox_relay.require_all_tenants();
    if coalesce(hold.reason, '') = '' then
        raise exception using errcode = 'OB018', message = 'hold needs a reason',
            hint = 'Say why, for whoever finds it: select outbox.hold(''database moves at noon'').';
    end if;
    insert into outbox_relay.hold (reason, created_by) values (hold.reason, (outbox_relay.actor()).actor);
    perform outbox_relay.audit('hold', detail => jsonb_build_object('reason', hold.reason));
    perform pg_notify('outbox_signal', 'control');
end
$$;
comment on function outbox.hold is 'Stops all sending until outbox.release().';
