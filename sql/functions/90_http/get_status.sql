create or replace function outbox_http.get_status(tenant text, request jsonb)
returns json
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
-- outbox.status(). A token that is bound to a tenant sees the counts of its own subscriptions, and of the log nothing.
declare
    st record;
    own record;
begin
    select * into st from outbox.status();
    if tenant is null then
        return json_build_object('log_head', st.log_head, 'unexpanded_events', st.unexpanded_events, 'pending', st.pending, 'leased', st.leased,
            'failed', st.failed, 'dead_letters', st.dead_letters, 'oldest_due', st.oldest_due,
            'lag_seconds', round(extract(epoch from st.lag), 3), 'relays', st.relays, 'hold', st.hold, 'environment', st.environment);
    end if;
    select count(*) filter (where d.state = 'pending') as pending, count(*) filter (where d.state = 'leased') as leased,
           count(*) filter (where d.state = 'failed') as failed into own
    from outbox.delivery d where d.tenant_id = tenant and d.state in ('pending', 'leased', 'failed');
    return json_build_object('log_head', null, 'unexpanded_events', null, 'pending', own.pending, 'leased', own.leased, 'failed', own.failed,
        'dead_letters', (select count(*) from outbox.delivery d where d.tenant_id = tenant and d.state = 'dead_letter'),
        'oldest_due', null, 'lag_seconds', round(extract(epoch from st.lag), 3), 'relays', st.relays, 'hold', st.hold, 'environment', st.environment);
end
$$;
comment on function outbox_http.get_status is 'GET /status';
