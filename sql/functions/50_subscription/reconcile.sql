create or replace function outbox_relay.reconcile(environment text, wanted jsonb, dry_run boolean default false)
returns table (action text, tenant_id text, name text, detail text)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s'
as $$
-- Brings the subscriptions that the configuration manages into step with it, all or none, and says what it
-- did, a row each; with dry_run what it would do, by doing it and undoing it. wanted is an array of objects with
-- the arguments of outbox.subscribe, and besides
--   max_retries   instead of a retry policy: the first so many delays of standard, the last one repeated
--   take_over     whether a subscription of that name that somebody made by hand may be managed from now on
--
-- What the configuration no longer names is paused, not unsubscribed: a file that could not be mounted must
-- lose nothing. It is resumed when it is named again. What somebody has paused by hand stays paused. Without
-- any entry nothing is managed and nothing is touched; nor is it in a database of another environment, where
-- the relay will hold. Where somebody's open transaction is in the way it gives up with 55P03: outboxd run tries
-- again until it is told to stop, and says each time why.
-- A change of signature leaves only the secret of the configuration live; who verifies must change anyway.
-- Called by outboxd run before it begins, and by outboxd check. One at a time.
#variable_conflict use_column
declare
    gone    constant text := 'no longer in the configuration';
    w       jsonb;
    s       outbox.subscription;
    d       outbox.subscription;        -- as it is to be
    changed text;
    revoked boolean;
    key     text;
    made    bigint;
    did     text[];                     -- action, tenant, name, detail in turn
    code    text;
    message text;
    mend    text;
begin
    if jsonb_array_length(reconcile.wanted) = 0 then
        return;
    end if;
    if exists (select from outbox.setting t where t.name = 'environment' and t.value <> reconcile.environment) then
        action := 'left alone';
        detail := (select format('the database belongs to environment %s', quote_literal(t.value)) from outbox.setting t where t.name = 'environment');
        return next;
        return;
    end if;
    perform set_config('outbox.override_managed', 'on', true);
    perform set_config('outbox.actor', 'configuration', true);
    begin
        perform pg_advisory_xact_lock(1869968482, 7);
        for w in select e.value from jsonb_array_elements(reconcile.wanted) e loop
            begin
                d := null;
                d.tenant_id := coalesce(w ->> 'tenant_id', 'default');
                d.name := w ->> 'name';
                d.url := w ->> 'url';
                d.event_types := array(select t.value from jsonb_array_elements_text(w -> 'event_types') t);
                d.filter := (w ->> 'filter')::jsonpath;
                d.headers := coalesce(w -> 'headers', '{}');
                d.signature := coalesce(w ->> 'signature', 'standard');
                d.signature_header := w ->> 'signature_header';
                d.envelope := coalesce(w ->> 'envelope', 'standard');
                d.retry_policy := case when w ? 'max_retries' then outbox_relay.retries_policy((w ->> 'max_retries')::integer)
                    else coalesce(w ->> 'retry_policy', (select t.value from outbox.setting t where t.name = 'default_retry_policy')) end;
                d.timeout := (w ->> 'timeout')::interval;
                d.max_in_flight := (w ->> 'max_in_flight')::integer;
                d.rate_limit := (w ->> 'rate_limit')::numeric;
                d.ordered := coalesce((w ->> 'ordered')::boolean, false);
                d.description := w ->> 'description';
                d.tls := w -> 'tls';
                select t.* into s from outbox.subscription t
                where t.tenant_id = d.tenant_id and t.name = d.name and t.unsubscribed_at is null for no key update;
                if not found then
                    select n.subscription_id into made
                    from outbox.subscribe(d.url, d.event_types, tenant_id => d.tenant_id, name => d.name, secret => w ->> 'secret', secret_ref => w ->> 'secret_ref',
                        filter => d.filter::text, headers => d.headers, signature => d.signature, signature_header => d.signature_header,
                        envelope => d.envelope, retry_policy => d.retry_policy, timeout => d.timeout, max_in_flight => d.max_in_flight,
                        rate_limit => d.rate_limit, ordered => d.ordered, description => d.description, tls => d.tls) n;
                    update outbox.subscription t set managed_by = 'configuration' where t.subscription_id = made;
                    did := did || array['created', d.tenant_id, d.name, null];
                    continue;
                end if;
                if s.managed_by is null then
                    if not coalesce((w ->> 'take_over')::boolean, false) then
                        raise exception using errcode = 'OB025', message = format('subscription %s of that name was made by hand', s.subscription_id),
                            hint = 'Say take_over = true to manage it from the configuration, or choose another name.';
                    end if;
                    did := did || array['taken over', d.tenant_id, d.name, null];
                end if;

                if w ? 'secret_ref' then
                    key := (select x.key_id from outbox_relay.signing_secret x
                        where x.subscription_id = s.subscription_id and x.secret_ref = w ->> 'secret_ref' order by x.key_id limit 1);
                else
                    key := outbox_relay.key_id(w ->> 'secret');
                end if;
                if not exists (select from outbox.signing_key k join outbox_relay.signing_secret x using (subscription_id, key_id)
                        where k.subscription_id = s.subscription_id and k.key_id = key and k.expires_at is null and k.revoked_at is null
                          and x.secret_ref is not distinct from w ->> 'secret_ref') then
                    changed := 'secret';
                    -- It may be one that was used before.
                    delete from outbox.signing_key k where k.subscription_id = s.subscription_id and k.key_id = key;
                else
                    changed := null;
                end if;
                revoked := false;
                if changed is not null or s.signature <> d.signature then
                    -- No other goes on under a new profile, which it may not fit; else those that rotate_secret has room for.
                    update outbox.signing_key k set revoked_at = now()
                    where k.subscription_id = s.subscription_id and k.revoked_at is null and (k.expires_at is null or k.expires_at > now())
                      and k.key_id is distinct from key
                      and k.key_id not in (
                        select n.key_id from outbox.signing_key n
                        where n.subscription_id = s.subscription_id and n.revoked_at is null and (n.expires_at is null or n.expires_at > now())
                        order by n.created_at desc limit case when s.signature = d.signature then 4 else 0 end);
                    revoked := found;
                end if;
                if (s.url, s.event_types, s.filter::text, s.headers, s.signature, s.signature_header, s.envelope, s.retry_policy, s.timeout,
                        s.max_in_flight, s.rate_limit, s.ordered, s.description, s.tls, s.managed_by)
                    is distinct from (d.url, d.event_types, d.filter::text, d.headers, d.signature, d.signature_header, d.envelope, d.retry_policy,
                        d.timeout, d.max_in_flight, d.rate_limit, d.ordered, d.description, d.tls, 'configuration') then
                    update outbox.subscription t
                    set url = d.url, event_types = d.event_types, filter = d.filter, headers = d.headers, signature = d.signature,
                        signature_header = d.signature_header, envelope = d.envelope, retry_policy = d.retry_policy, timeout = d.timeout,
                        max_in_flight = d.max_in_flight, rate_limit = d.rate_limit, ordered = d.ordered, description = d.description, tls = d.tls,
                        managed_by = 'configuration'
                    where t.subscription_id = s.subscription_id;
                end if;
                if changed is not null then
                    perform outbox.rotate_secret(s.subscription_id, secret => w ->> 'secret', secret_ref => w ->> 'secret_ref');
                end if;
                -- Names of columns, never values.
                changed := concat_ws(', ', changed, (
                    select string_agg(o.key, ', ' order by o.key)
                    from jsonb_each(to_jsonb(s)) o join jsonb_each(to_jsonb(d)) n on n.key = o.key and n.value <> o.value
                    where o.key in ('url', 'event_types', 'filter', 'headers', 'signature', 'signature_header', 'envelope', 'retry_policy', 'timeout',
                        'max_in_flight', 'rate_limit', 'ordered', 'description', 'tls')), case when revoked then 'old secrets revoked' end);
                if changed <> '' then
                    did := did || array['changed', d.tenant_id, d.name, changed];
                end if;
                if not s.active and s.disabled_reason = gone then
                    perform outbox.resume(s.subscription_id);
                    did := did || array['resumed', d.tenant_id, d.name, null];
                end if;
            exception when others then
                get stacked diagnostics code = returned_sqlstate, message = message_text, mend = pg_exception_hint;
                raise exception using errcode = case when left(code, 2) in ('22', '23', '42') then 'OB018' else code end, message = format('subscription %s/%s: %s', d.tenant_id, d.name, message), hint = mend;
            end;
        end loop;

        for s in select t.* from outbox.subscription t
                 where t.managed_by is not null and t.active
                   and not exists (select from jsonb_array_elements(reconcile.wanted) e
                       where t.tenant_id = coalesce(e.value ->> 'tenant_id', 'default') and t.name = e.value ->> 'name')
                 order by t.subscription_id loop
            perform outbox.pause(s.subscription_id, reason => gone);
            did := did || array['paused', s.tenant_id, s.name, gone];
        end loop;
        if reconcile.dry_run then
            raise exception using errcode = 'OB099', message = 'undo';
        end if;
    exception
        when sqlstate 'OB099' then      -- not OB000, which would mean the whole class
            null;
        when lock_not_available then
            raise exception using errcode = 'lock_not_available', message = format('%s: somebody''s open transaction is in the way', sqlerrm),
                hint = 'Commit it or roll it back: select pid, usename, state, query from pg_stat_activity where xact_start < now() - interval ''3 s'' order by xact_start.';
    end;
    perform set_config('outbox.override_managed', '', true);
    return query select did[i], did[i + 1], did[i + 2], did[i + 3] from generate_series(1, cardinality(did), 4) i;
end
$$;
comment on function outbox_relay.reconcile is 'Brings managed subscriptions into step with the configuration, and says what it did.';
