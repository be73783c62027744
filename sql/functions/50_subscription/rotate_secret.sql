create or replace function outbox.rotate_secret(subscription_id bigint, overlap interval default null, secret text default null, tenant_id text default null, secret_ref text default null)
returns outbox.new_key
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Gives a subscription a new secret, shown this once. The old ones go on signing beside it until the
-- overlap is over, so that the receiver can change at leisure. Five at most: each is a signature in every request.
declare
    created outbox.new_key;
    live  bigint;
    first_end timestamptz;
    s     outbox.subscription := outbox_relay.require_subscription(rotate_secret.subscription_id, rotate_secret.tenant_id);
    until timestamptz := now() + coalesce(rotate_secret.overlap, (select t.value::interval from outbox.setting t where t.name = 'secret_overlap'));
begin
    if s.unsubscribed_at is not null then
        raise exception using errcode = 'OB023', message = format('subscription %s was unsubscribed', s.subscription_id),
            hint = 'Make a new one with outbox.subscribe.';
    elsif until not between now() and now() + interval '30 days' then
        raise exception using errcode = 'OB018', message = format('overlap %s is out of range', rotate_secret.overlap),
            hint = 'Use 0 to 30 days.';
    end if;
    perform outbox_relay.require_unmanaged(s);
    update outbox.signing_key k set expires_at = least(k.expires_at, until)
    where k.subscription_id = s.subscription_id and k.revoked_at is null and (k.expires_at is null or k.expires_at > now());
    select count(*), min(k.expires_at) into live, first_end from outbox.signing_key k
    where k.subscription_id = s.subscription_id and k.revoked_at is null and k.expires_at > now();
    if live >= 5 then
        raise exception using errcode = 'OB018', message = format('subscription %s has 5 secrets that sign, and no more are allowed', s.subscription_id),
            hint = format('Wait until %s, when the first of them expires, or end the overlap of all: overlap => ''0''.', first_end);
    end if;
    -- The update makes a new version: relays load the keys anew.
    update outbox.subscription t set updated_at = now() where t.subscription_id = s.subscription_id;
    select k.new_secret, k.new_key_id into created from outbox_relay.add_key(s.subscription_id, s.signature, rotate_secret.secret, rotate_secret.secret_ref) k;
    perform outbox_relay.audit('rotate_secret', s.tenant_id, s.subscription_id,
        detail => jsonb_build_object('key_id', created.key_id, 'old_keys_expire_at', until));
    return created;
end
$$;
comment on function outbox.rotate_secret is 'A new secret, shown this once; the old one signs beside it until the overlap is over.';
