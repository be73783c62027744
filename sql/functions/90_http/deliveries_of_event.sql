create or replace function outbox_http.deliveries_of_event(tenant text, request jsonb)
returns json
language plpgsql stable set search_path = pg_catalog, pg_temp
-- Each delivery is looked up by its key; what the statistics say of history must not lead to reading it.
set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
-- A page of the deliveries of one event, for list_deliveries. An id can stand for several events, of several tenants.
declare
    about  constant text := outbox_http.tenant_of(tenant, request ->> 'tenant_id');
    before constant bigint[] := coalesce(outbox_http.position_of(request ->> 'cursor', 2), '{9223372036854775807,9223372036854775807}');
    page   constant integer := coalesce((request ->> 'limit')::integer, 50);
    id     constant uuid := (request ->> 'event_id')::uuid;
    answer json;
begin
    with found_ as materialized (
        select d.* from outbox.event e
        join outbox.subscription s on s.tenant_id = e.tenant_id
        cross join lateral (select v.* from outbox.delivery v where v.subscription_id = s.subscription_id and v.event_seq = e.event_seq) d
        where e.event_id = id and (about is null or e.tenant_id = about)
          and e.event_seq <= before[1] and (e.event_seq < before[1] or s.subscription_id < before[2])
          and (request ->> 'subscription_id' is null or d.subscription_id = (request ->> 'subscription_id')::bigint)
          and (request ->> 'state' is null or d.state = request ->> 'state')
          and (request ->> 'type' is null or outbox_http.fits(e.type, request ->> 'type'))
          and (request ->> 'since' is null or d.created_at >= (request ->> 'since')::timestamptz)
          and (request ->> 'until' is null or d.created_at < (request ->> 'until')::timestamptz)
        order by d.event_seq desc, d.subscription_id desc limit page + 1),
    shown as (select * from found_ order by event_seq desc, subscription_id desc limit page)
    select json_build_object(
        'data', (select coalesce(json_agg(outbox_http.delivery(s.*::outbox.delivery) order by s.event_seq desc, s.subscription_id desc), '[]') from shown s),
        'next_cursor', case when (select count(*) from found_) > page
            then (select s.event_seq || '-' || s.subscription_id from shown s order by s.event_seq, s.subscription_id limit 1) end)
    into answer;
    return answer;
end
$$;
comment on function outbox_http.deliveries_of_event is 'A page of the deliveries of one event.';
