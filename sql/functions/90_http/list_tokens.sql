create or replace function outbox_http.list_tokens(tenant text, request jsonb)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
with page as (
    select t.* from outbox.token t
    where (tenant is null or t.tenant_id = tenant)
      and (request ->> 'cursor' is null or t.token_id < (outbox_http.position_of(request ->> 'cursor', 1))[1])
    order by t.token_id desc limit coalesce((request ->> 'limit')::integer, 50) + 1),
shown as (select * from page order by token_id desc limit coalesce((request ->> 'limit')::integer, 50))
select json_build_object('data', (select coalesce(json_agg(outbox_http.token(s.*::outbox.token) order by s.token_id desc), '[]') from shown s),
    'next_cursor', case when (select count(*) from page) > (select count(*) from shown) then (select min(token_id) from shown)::text end)
$$;
comment on function outbox_http.list_tokens is 'GET /tokens';
