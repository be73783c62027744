create or replace function outbox_http.list_audit(tenant text, request jsonb)
returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
with page as (
    select a.* from outbox.audit a
    where (outbox_http.tenant_of(tenant, request ->> 'tenant_id') is null or a.tenant_id = outbox_http.tenant_of(tenant, request ->> 'tenant_id'))
      and (request ->> 'subscription_id' is null or a.subscription_id = (request ->> 'subscription_id')::bigint)
      and (request ->> 'action' is null or a.action = request ->> 'action')
      and (request ->> 'cursor' is null or a.audit_id < (outbox_http.position_of(request ->> 'cursor', 1))[1])
    order by a.audit_id desc limit coalesce((request ->> 'limit')::integer, 50) + 1),
shown as (select * from page order by audit_id desc limit coalesce((request ->> 'limit')::integer, 50))
select json_build_object('data', (select coalesce(json_agg(json_build_object('audit_id', a.audit_id, 'at', a.at, 'actor', a.actor, 'db_user', a.db_user,
        'via', a.via, 'action', a.action, 'tenant_id', a.tenant_id, 'subscription_id', a.subscription_id, 'event_seq', a.event_seq,
        'detail', a.detail) order by a.audit_id desc), '[]') from shown a),
    'next_cursor', case when (select count(*) from page) > (select count(*) from shown) then (select min(audit_id) from shown)::text end)
$$;
comment on function outbox_http.list_audit is 'GET /audit';
