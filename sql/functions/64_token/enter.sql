create or replace function outbox_relay.enter(kind text, sha256 bytea, idle_limit interval, touch boolean)
returns table (token_id bigint, role text, tenant_id text, description text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Who holds this credential (kind token: a token; kind session: a console's cookie), given by its SHA-256;
-- no row if nobody does. From here on the transaction acts in that name, see outbox_relay.actor, and is confined to
-- the token's tenant, see outbox_relay.bound_tenants.
-- A session ends when nothing was done for idle_limit, after twelve hours, and with its token. With touch false
-- (what the console asks by itself) being here does not count as doing something.
-- Called by the HTTP API twice a request: with touch in a transaction of its own, so that no request holds these
-- rows while it works and one that is refused is noted too; and at the start of the transaction that does the work.
#variable_conflict use_column
declare
    t outbox.token;
begin
    select k.* into t from outbox.token k
    where k.token_id = case enter.kind
            when 'token' then (select h.token_id from outbox_relay.token_hash h where h.sha256 = enter.sha256)
            when 'session' then (select s.token_id from outbox_relay.session s where s.sha256 = enter.sha256
                and s.seen_at > now() - enter.idle_limit and s.created_at > now() - interval '12 hours') end
      and k.revoked_at is null and (k.expires_at is null or k.expires_at > now());
    if not found then
        return;
    end if;
    perform set_config('outbox.actor', format('token %s', t.token_id) || coalesce(' (' || t.description || ')', ''), true);
    perform set_config('outbox.tenant', coalesce(t.tenant_id, ''), true);
    if enter.touch then
        -- To the minute, and not if somebody else is at it: a request waits for no other.
        update outbox.token k set last_used_at = now()
        where k.token_id = (select i.token_id from outbox.token i where i.token_id = t.token_id
            and (i.last_used_at is null or i.last_used_at < now() - interval '1 minute') for no key update skip locked);
        if enter.kind = 'session' then
            update outbox_relay.session s set seen_at = now()
            where s.sha256 = (select i.sha256 from outbox_relay.session i where i.sha256 = enter.sha256
                and i.seen_at < now() - least(interval '1 minute', enter.idle_limit / 4) for no key update skip locked);
        end if;
    end if;
    return query select t.token_id, t.role, t.tenant_id, t.description;
end
$$;
comment on function outbox_relay.enter is 'Who holds a credential of the HTTP API; the transaction acts in that name from then on.';
