create or replace function outbox_http.find_webhook(tenant text, id bigint)
returns outbox.subscription
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
-- The subscription, if the token may see it; otherwise, and of another tenant, there is none.
declare
    s outbox.subscription;
begin
    select * into s from outbox.subscription t
    where t.subscription_id = find_webhook.id and (find_webhook.tenant is null or t.tenant_id = find_webhook.tenant);
    if not found then
        raise exception using errcode = 'OB020', message = format('there is no subscription %s', find_webhook.id),
            hint = 'GET /webhooks lists those that this token may see.';
    end if;
    return s;
end
$$;
comment on function outbox_http.find_webhook is 'The subscription, if the token may see it.';
