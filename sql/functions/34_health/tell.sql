create or replace function outbox_relay.tell(tenant_id text, type text, payload jsonb)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Publishes an operational event for a tenant, and for the setting operator_tenant: an event like any other,
-- in the transaction of what it tells. Only if somebody has subscribed to it, so that a dead endpoint does
-- not fill the log with news that nobody reads. Nor is anything inserted then: an insert of no row rings the
-- doorbell, too, and a call that notifies queues up behind all committers that do.
-- Called by dead_lettered, disable and add_health.
declare
    tenants constant text[] := array(
        select t.tenant_id
        from (select tell.tenant_id union select s.value from outbox.setting s where s.name = 'operator_tenant' and s.value <> '') t
        where exists (
            select from outbox_relay.route r
            where r.tenant_id = t.tenant_id
              and r.pattern in (tell.type, 'outbox.' || split_part(tell.type, '.', 2) || '.*', 'outbox.*')));
begin
    if tenants <> '{}' then
        insert into outbox.event (tenant_id, type, payload) select t, tell.type, tell.payload from unnest(tenants) t;
    end if;
end
$$;
comment on function outbox_relay.tell is 'Publishes an operational event, if anybody has subscribed to it.';
