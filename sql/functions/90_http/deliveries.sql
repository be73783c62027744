create or replace function outbox_http.deliveries(tenant text, request jsonb)
returns json
language plpgsql stable set search_path = pg_catalog, pg_temp
-- Of each subscription the newest are read along a primary key; a bitmap or a sort would read them all.
set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
as $$
-- A page of deliveries, newest event first, for list_deliveries and list_webhook_deliveries.
--
-- What is rare must not be searched for through all of history: a page looks at so many deliveries of each
-- subscription, 20,000 in all or a page of each, and may therefore be short, even empty, and still not be the last.
-- Where a subscription has more than was looked at, nothing older than what was seen of it is shown: horizon.
declare
    page      constant integer := coalesce((request ->> 'limit')::integer, 50);
    before    bigint[] := coalesce(outbox_http.position_of(request ->> 'cursor', 2), '{9223372036854775807,9223372036854775807}');
    wanted_id bigint := (request ->> 'subscription_id')::bigint;
    about     text;
    ids       bigint[];
    budget    integer;
    found_    record;
begin
    if wanted_id is not null then
        ids := array[(outbox_http.find_webhook(tenant, wanted_id)).subscription_id];
    else
        about := outbox_http.tenant_of(tenant, request ->> 'tenant_id');
        ids := array(select s.subscription_id from outbox.subscription s where about is null or s.tenant_id = about);
    end if;
    budget := greatest(page + 1, 20000 / greatest(cardinality(ids), 1));
    execute format($sql$
        with looked_at as materialized (
            select d.* from unnest($1) i (id) cross join lateral (
                select v.* from outbox.delivery v
                where v.subscription_id = i.id and v.event_seq <= $2 and (v.event_seq < $2 or v.subscription_id < $3) %s
                order by v.event_seq desc limit $4) d),
        horizon as (
            select max(o.oldest) as seq from (
                select min(l.event_seq) as oldest from looked_at l group by l.subscription_id having count(*) >= $4) o),
        fitting as (
            select l.* from looked_at l
            where l.event_seq >= coalesce((select seq from horizon), 0)
              and ($5 is null or l.state = $5)
              and ($6 is null or exists (select from outbox.event e where e.event_seq = l.event_seq
                   and outbox_http.fits(e.type, $6)))
              and ($7 is null or l.created_at >= $7) and ($8 is null or l.created_at < $8)
            order by l.event_seq desc, l.subscription_id desc limit $9 + 1),
        shown as (select * from fitting order by event_seq desc, subscription_id desc limit $9)
        select (select coalesce(json_agg(outbox_http.delivery(s.*::outbox.delivery) order by s.event_seq desc, s.subscription_id desc), '[]') from shown s) as data,
               case when (select count(*) from fitting) > $9
                        then (select s.event_seq || '-' || s.subscription_id from shown s order by s.event_seq, s.subscription_id limit 1)
                    else (select h.seq || '-0' from horizon h) end as next_cursor$sql$,
        -- Spelled out, so that the planner leaves out the side of the view that has none of them.
        case when request ->> 'state' in ('pending', 'leased', 'failed') then 'and v.state in (''pending'', ''leased'', ''failed'')'
             when request ->> 'state' = 'dead_letter' then 'and v.state = ''dead_letter'''
             when request ->> 'state' in ('succeeded', 'cancelled') then 'and v.state in (''succeeded'', ''dead_letter'', ''cancelled'')'
             else '' end)
    into found_
    using ids, before[1], before[2], budget, request ->> 'state', request ->> 'type',
        (request ->> 'since')::timestamptz, (request ->> 'until')::timestamptz, page;
    return json_build_object('data', found_.data, 'next_cursor', found_.next_cursor);
end
$$;
comment on function outbox_http.deliveries is 'A page of deliveries.';
