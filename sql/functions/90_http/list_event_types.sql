create or replace function outbox_http.list_event_types(tenant text, request jsonb)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
-- By name in byte order; the cursor is the last name.
with page as (
    select t.* from outbox.event_type t
    where request ->> 'cursor' is null or t.type collate "C" > request ->> 'cursor'
    order by t.type collate "C" limit coalesce((request ->> 'limit')::integer, 50) + 1),
shown as (select * from page order by type collate "C" limit coalesce((request ->> 'limit')::integer, 50))
select json_build_object('data', (select coalesce(json_agg(outbox_http.event_type(s.*::outbox.event_type) order by s.type collate "C"), '[]') from shown s),
    'next_cursor', case when (select count(*) from page) > (select count(*) from shown) then (select max(type collate "C") from shown) end)
$$;
comment on function outbox_http.list_event_types is 'GET /event-types';
