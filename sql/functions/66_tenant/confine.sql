create or replace function outbox_relay.confine() returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Makes the policies that are missing, so that who is bound to tenants sees their rows alone, and lets the views
-- over such tables run with the rights of who reads them. What is there is left alone: each of these statements needs
-- its table for itself. To change a policy, drop it in a migration.
--
-- The owner is not subject to policies, so the relay's functions plan and run as if there were none. Null means that
-- the caller is not bound, and coalesce rather than "is null or" because the planner takes the one for every second row
-- and the other for one in two hundred, and then joins as if there were hardly any.
-- outbox.event has its policy, but not yet its row level security: COPY into a table that has it is refused, to
-- everybody but its owner. outbox.bind_role switches it on.
-- Called by migrate and by outbox.bind_role.
declare
    by_tenant constant text := 'coalesce(tenant_id = any ((select outbox_relay.bound_tenants(current_user))::text[]), true)';
    -- What is nobody's is not theirs.
    by_tenant_or_all constant text := 'coalesce(coalesce(tenant_id, '''') = any ((select outbox_relay.bound_tenants(current_user))::text[]), true)';
    by_subscription constant text := 'coalesce((select outbox_relay.bound_subscriptions(current_user)) @> subscription_id, true)';
    p record;
    seen_through text;
begin
    for p in
        select v.place::regclass as place, v.rule, c.relrowsecurity as is_on,
               exists (select from pg_policy y where y.polrelid = c.oid and y.polname = 'own_tenant') as is_made
        from (values
            ('outbox.event', by_tenant), ('outbox.subscription', by_tenant), ('outbox_relay.role_tenant', by_tenant),
            ('outbox.audit', by_tenant_or_all), ('outbox.token', by_tenant_or_all),
            ('outbox.subscription_health', by_subscription), ('outbox.signing_key', by_subscription),
            ('outbox.stopped_key', by_subscription), ('outbox.attempt', by_subscription),
            ('outbox_relay.queue', by_subscription), ('outbox_relay.finished', by_subscription)) v (place, rule)
        join pg_class c on c.oid = v.place::regclass
    loop
        if not p.is_made then
            execute format('create policy own_tenant on %s using (%s)', p.place, p.rule);
            execute format('comment on policy own_tenant on %s is ''Who is bound to tenants by outbox.bind_role, or by a token, has their rows alone.''', p.place);
        end if;
        if not p.is_on and p.place <> 'outbox.event'::regclass then
            execute format('alter table %s enable row level security', p.place);
        end if;
    end loop;
    -- Without it, in PostgreSQL 14, a view shows what its owner may see, and outbox.bind_role refuses.
    if current_setting('server_version_num')::integer >= 150000 then
        foreach seen_through in array array['outbox.delivery', 'outbox.role_binding'] loop
            if not coalesce('security_invoker=true' = any ((select c.reloptions from pg_class c where c.oid = seen_through::regclass)::text[]), false) then
                execute format('alter view %s set (security_invoker = true)', seen_through);
            end if;
        end loop;
    end if;
end
$$;
comment on function outbox_relay.confine is 'Makes the policies by which a role that is bound to tenants sees their rows alone.';

select outbox_relay.confine();
