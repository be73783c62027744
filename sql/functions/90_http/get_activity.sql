create or replace function outbox_http.get_activity(tenant text, request jsonb)
returns json
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    minutes constant integer := coalesce((request ->> 'minutes')::integer, 10);
    answer  json;
begin
    perform outbox_http.require_unbound(tenant);
    with a as materialized (select * from outbox.activity(minutes)),
    shown as (
        select a.at, json_build_object('at', coalesce(a.at, (select min(b.at) from a b)), 'delivered', a.delivered, 'failed', a.failed,
            'first_delivered', a.first_delivered, 'first_failed', a.first_failed,
            'attempt_ms', json_build_object('p50', a.attempt_p50_ms, 'p95', a.attempt_p95_ms, 'p99', a.attempt_p99_ms),
            'commit_ms', json_build_object('p50', a.commit_p50_ms, 'p95', a.commit_p95_ms, 'p99', a.commit_p99_ms)) as span
        from a)
    select json_build_object('step_seconds', minutes, 'steps', json_agg(s.span order by s.at) filter (where s.at is not null),
        'total', (select t.span from shown t where t.at is null)) into answer
    from shown s;
    return answer;
end
$$;
comment on function outbox_http.get_activity is 'GET /activity';
