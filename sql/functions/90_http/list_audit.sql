create or replace function outbox_http.list_audit(tenant text, request jsonb)
returns json
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
-- Only the conditions that are asked for are in the statement, so that each finds its index.
declare
    about  constant text := outbox_http.tenant_of(tenant, request ->> 'tenant_id');
    before constant bigint := (outbox_http.position_of(request ->> 'cursor', 1))[1];
    page   constant integer := coalesce((request ->> 'limit')::integer, 50);
    answer json;
begin
    execute format($sql$
        with page as materialized (
            select a.* from outbox.audit a
            where true %s %s %s %s
            order by a.audit_id desc limit $5 + 1),
        shown as (select * from page order by audit_id desc limit $5)
        select json_build_object('data', (select coalesce(json_agg(json_build_object('audit_id', a.audit_id, 'at', a.at, 'actor', a.actor,
                'db_user', a.db_user, 'via', a.via, 'action', a.action, 'tenant_id', a.tenant_id, 'subscription_id', a.subscription_id,
                'event_seq', a.event_seq, 'detail', a.detail) order by a.audit_id desc), '[]') from shown a),
            'next_cursor', case when (select count(*) from page) > (select count(*) from shown) then (select min(audit_id) from shown)::text end)$sql$,
        case when about is not null then 'and a.tenant_id = $1' end,
        case when request ->> 'subscription_id' is not null then 'and a.subscription_id = $2' end,
        case when request ->> 'action' is not null then 'and a.action = $3' end,
        case when before is not null then 'and a.audit_id < $4' end)
    into answer using about, (request ->> 'subscription_id')::bigint, request ->> 'action', before, page;
    return answer;
end
$$;
comment on function outbox_http.list_audit is 'GET /audit';
