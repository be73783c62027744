create or replace function outbox_relay.judge_environment(epoch integer)
returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Puts a relay on hold if this database is not its own, lets it go if it is, and returns the reason.
--
-- Two things are compared: the environment (a staging clone of production must not send), and the
-- cluster (after a logical restore transaction ids begin again, and the cursor means nothing).
-- outbox.adopt(environment) settles both. Called by register and tick.
declare
    reason text;
begin
    select case
        when outbox_relay.was_moved() then 'this database was restored into another cluster: if it is to send from here, select outbox.adopt(' || quote_literal(r.environment) || ')'
        when s.value <> r.environment
            then format('this database belongs to environment %s, the relay to %s: select outbox.adopt(%s) if that is to change',
                quote_literal(s.value), quote_literal(r.environment), quote_literal(r.environment))
        end
    into reason
    from outbox_relay.relay r, outbox.setting s
    where r.epoch = judge_environment.epoch and s.name = 'environment';
    update outbox_relay.relay r set hold = reason
    where r.epoch = judge_environment.epoch and r.hold is distinct from reason;
    return reason;
end
$$;
comment on function outbox_relay.judge_environment is 'Holds a relay that is configured for another environment or faces a restored database.';
