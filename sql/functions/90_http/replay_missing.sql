create or replace function outbox_http.replay_missing(tenant text, request jsonb)
returns json
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    s       outbox.subscription := outbox_http.find_webhook(tenant, (request ->> 'subscription_id')::bigint);
    dry_run boolean := coalesce((request #>> '{body,dry_run}')::boolean, false);
begin
    return json_build_object('count', outbox.replay_missing(s.subscription_id, since => (request #>> '{body,since}')::timestamptz,
        until => (request #>> '{body,until}')::timestamptz, dry_run => dry_run, tenant_id => tenant), 'dry_run', dry_run);
end
$$;
comment on function outbox_http.replay_missing is 'POST /webhooks/{subscription_id}/replay-missing';
