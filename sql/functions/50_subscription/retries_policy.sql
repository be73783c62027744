create or replace function outbox_relay.retries_policy(retries integer)
returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- The name of a policy with that many retries, made if it is missing: the first delays of standard, the last
-- one repeated. Called by reconcile, for WEBHOOK_MAX_RETRIES.
declare
    policy constant text := 'retries-' || retries;
begin
    insert into outbox.retry_policy (name, delays)
    select policy, array(select s.delays[least(n, cardinality(s.delays))] from generate_series(1, retries) n)
    from outbox.retry_policy s where s.name = 'standard'
    on conflict on constraint retry_policy_pkey do nothing;
    return policy;
end
$$;
comment on function outbox_relay.retries_policy is 'The name of a retry policy with that many retries.';
