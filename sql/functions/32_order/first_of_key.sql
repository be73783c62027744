create or replace function outbox_relay.first_of_key(subscription_id bigint, ordering_key text)
returns bigint
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off
as $$
-- The position of the first outstanding delivery of an ordering key, or null: one probe of
-- queue_ordering_key_idx, however many there are.
-- Rejected: equalities and order by event_seq. Both indexes can serve that, and with no statistics the
-- primary key is chosen, which walks everything else the subscription has outstanding (9 ms a probe at 3,000).
-- Called by expand, park_behind, release_next.
declare
    f record;
begin
    select q.subscription_id, q.ordering_key, q.event_seq into f
    from outbox_relay.queue q
    where q.ordering_key is not null
      and (q.subscription_id, q.ordering_key, q.event_seq) >= (first_of_key.subscription_id, first_of_key.ordering_key, 0)
    order by q.subscription_id, q.ordering_key, q.event_seq limit 1;
    return case when f.subscription_id = first_of_key.subscription_id and f.ordering_key = first_of_key.ordering_key then f.event_seq end;
end
$$;
comment on function outbox_relay.first_of_key is 'The position of the first outstanding delivery of an ordering key.';
