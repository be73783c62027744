create or replace function outbox_http.list_tokens(tenant text, request jsonb)
returns json
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    before constant bigint := (outbox_http.position_of(request ->> 'cursor', 1))[1];
    page   constant integer := coalesce((request ->> 'limit')::integer, 50);
    answer json;
begin
    with found_ as materialized (
        select t.* from outbox.token t
        where (tenant is null or t.tenant_id = tenant) and (before is null or t.token_id < before)
        order by t.token_id desc limit page + 1),
    shown as (select * from found_ order by token_id desc limit page)
    select json_build_object('data', (select coalesce(json_agg(outbox_http.token(s.*::outbox.token) order by s.token_id desc), '[]') from shown s),
        'next_cursor', case when (select count(*) from found_) > page then (select min(token_id) from shown)::text end)
    into answer;
    return answer;
end
$$;
comment on function outbox_http.list_tokens is 'GET /tokens';
