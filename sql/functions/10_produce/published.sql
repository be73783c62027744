create or replace function outbox.published(type text default null, match jsonpath default null, tenant_id text default null)
returns setof outbox.published_event
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
-- The events that this transaction has inserted, in log order: for the tests of applications, which need
-- neither commit nor a relay. Those of other transactions are not shown, whoever asks, nor those of other tenants
-- to whoever is bound.
--
-- type is one of the patterns of a subscription (order.created, order.*, *), match is what a filter is: it
-- matches when its first item exists and is neither false nor null.
-- Called by the tests of applications, and by assert_published.
declare
    bound constant text[] := outbox_relay.bound_tenants();
begin
    return query
    select e.event_seq, e.event_id, e.tenant_id, e.type, e.payload, e.ordering_key, e.priority, e.occurred_at, e.deliver_at, e.metadata
    from outbox.event e
    where e.xact = pg_current_xact_id_if_assigned() and e.addressed_to is null
      and (published.type is null or outbox_relay.matches(e.type, e.payload, array[published.type], null))
      and coalesce(e.tenant_id = any (bound), true)
      and (published.tenant_id is null or e.tenant_id = published.tenant_id)
      and (published.match is null or outbox_relay.matches(e.type, e.payload, array[e.type], published.match))
    order by e.event_seq;
end
$$;
comment on function outbox.published is 'The events that this transaction has inserted; for applications'' own tests.';
