create or replace function outbox_relay.name_key(subscription_id bigint, key_id text, true_key_id text, form text, public_key text)
returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s'
as $$
-- Gives a key that is kept by reference the id of the secret that a relay has read, and what else is public of it.
-- False if another relay was first, or the subscription has that secret under another key, which keeps the id.
-- Attempts are logged under the true id from the first on. A new id, or another public key for receivers to trust,
-- leaves a row in the audit. Called by relays.
declare
    was_public text;
    new_public text;
begin
    if not exists (select from outbox_relay.signing_secret x
            where x.subscription_id = name_key.subscription_id and x.key_id = name_key.key_id and x.secret_ref is not null)
       or (name_key.true_key_id <> name_key.key_id and exists (select from outbox.signing_key k
            where k.subscription_id = name_key.subscription_id and k.key_id = name_key.true_key_id)) then
        return false;
    end if;
    select k.public_key, case when k.algorithm = 'ed25519' then name_key.public_key end into was_public, new_public
    from outbox.signing_key k where k.subscription_id = name_key.subscription_id and k.key_id = name_key.key_id for update;
    update outbox.signing_key k set key_id = name_key.true_key_id, public_key = new_public
    where k.subscription_id = name_key.subscription_id and k.key_id = name_key.key_id;
    if name_key.true_key_id <> name_key.key_id or new_public is distinct from was_public then
        perform set_config('outbox.actor', 'relay', true);
        perform outbox_relay.audit('name_key', s.tenant_id, s.subscription_id,
            detail => jsonb_build_object('key_id', name_key.true_key_id, 'was', name_key.key_id, 'public_key', new_public))
        from outbox.subscription s where s.subscription_id = name_key.subscription_id;
    end if;
    update outbox_relay.signing_secret x set form = name_key.form
    where x.subscription_id = name_key.subscription_id and x.key_id = name_key.true_key_id and x.form is distinct from name_key.form;
    return true;
exception when unique_violation then
    return false;
end
$$;
comment on function outbox_relay.name_key is 'Gives a key kept by reference the id of the secret that a relay has read.';
