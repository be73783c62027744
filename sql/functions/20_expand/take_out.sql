create or replace function outbox_relay.take_out(versions bigint[], event_seq bigint)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Disables the subscriptions, in these versions, whose filters did not end in time, tells so, and remembers it. With
-- the third of a tenant within an hour all its subscriptions that have a filter go: who can write one such filter can
-- write a thousand, and each costs everybody some seconds to find.
-- Called by expand, in the transaction that has given their events up. Writes subscription, slow_filter.
declare
    waited text := (select s.value from outbox.setting s where s.name = 'filter_timeout');
    t      record;
begin
    for t in select v.tenant_id, array_agg(v.subscription_id) as ids, array_agg(v.version) as versions
             from outbox_relay.subscription_version v
             join outbox.subscription s on s.subscription_id = v.subscription_id and s.version = v.version and s.active
             where v.version = any (take_out.versions) group by v.tenant_id loop
        insert into outbox_relay.slow_filter (tenant_id, subscription_id, version, event_seq)
        select t.tenant_id, x.id, x.version, take_out.event_seq from unnest(t.ids, t.versions) x (id, version)
        on conflict do nothing;
        perform outbox_relay.disable(t.ids, format('its filter did not end within %s, at the latest on event_seq %s', waited, take_out.event_seq));
        if (select count(*) >= 3 from outbox_relay.slow_filter f where f.tenant_id = t.tenant_id and f.found_at > now() - interval '1 hour') then
            perform outbox_relay.disable(
                array(select s.subscription_id from outbox.subscription s where s.tenant_id = t.tenant_id and s.active and s.filter is not null),
                format('three filters of the tenant did not end within %s; this one was not tried', waited));
        end if;
    end loop;
    delete from outbox_relay.slow_filter f where f.found_at < now() - interval '1 day';
end
$$;
comment on function outbox_relay.take_out is 'Disables subscriptions whose filters did not end in time.';
