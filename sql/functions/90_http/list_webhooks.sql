create or replace function outbox_http.list_webhooks(tenant text, request jsonb)
returns json
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    about  constant text := outbox_http.tenant_of(tenant, request ->> 'tenant_id');
    before constant bigint := (outbox_http.position_of(request ->> 'cursor', 1))[1];
    page   constant integer := coalesce((request ->> 'limit')::integer, 50);
    answer json;
begin
    with found_ as materialized (
        select s.* from outbox.subscription s
        where (about is null or s.tenant_id = about) and (before is null or s.subscription_id < before)
          and (request ->> 'active' is null or s.active = (request ->> 'active')::boolean)
          and (coalesce((request ->> 'unsubscribed')::boolean, false) or s.unsubscribed_at is null)
          and (request ->> 'search' is null or position(lower(request ->> 'search') in lower(s.name || ' ' || s.url)) > 0)
        order by s.subscription_id desc limit page + 1),
    shown as (select * from found_ order by subscription_id desc limit page)
    select json_build_object(
        'data', (select coalesce(json_agg(outbox_http.webhook(s.*::outbox.subscription) order by s.subscription_id desc), '[]') from shown s),
        'next_cursor', case when (select count(*) from found_) > page then (select min(subscription_id) from shown)::text end)
    into answer;
    return answer;
end
$$;
comment on function outbox_http.list_webhooks is 'GET /webhooks';
