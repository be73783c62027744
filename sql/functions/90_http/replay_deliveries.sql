create or replace function outbox_http.replay_deliveries(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- All of them or, if one is not there, none.
declare
    dry_run constant boolean := coalesce((request #>> '{body,dry_run}')::boolean, false);
    d       outbox.delivery;
    id      text;
    n       integer := 0;
begin
    for id in select distinct t.value from jsonb_array_elements_text(request #> '{body,delivery_ids}') t order by 1 loop
        d := outbox_http.find_delivery(tenant, id);
        if not dry_run then
            perform outbox.replay(d.subscription_id, d.event_seq, tenant_id => tenant);
        end if;
        n := n + 1;
    end loop;
    return json_build_object('count', n, 'dry_run', dry_run);
end
$$;
comment on function outbox_http.replay_deliveries is 'POST /deliveries/replay';
