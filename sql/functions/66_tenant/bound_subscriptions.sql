create or replace function outbox_relay.bound_subscriptions(caller name default null)
returns int8multirange
language plpgsql stable parallel restricted security definer set search_path = pg_catalog, pg_temp
as $$
-- The subscriptions of the tenants that the caller is confined to; null if to none. For the policies of tables
-- that name no tenant. A multirange is searched by halves, and as the value of an init plan it costs the planner
-- nothing: a subquery over outbox.subscription would be charged to each of the rows that a join looks up.
declare
    tenants text[] := outbox_relay.bound_tenants(bound_subscriptions.caller);
begin
    if tenants is null then
        return null;
    end if;
    return (select coalesce(range_agg(int8range(s.subscription_id, s.subscription_id, '[]')), '{}')
            from outbox.subscription s where s.tenant_id = any (tenants));
end
$$;
comment on function outbox_relay.bound_subscriptions is 'The subscriptions of the tenants that the caller is confined to; null if to none.';
