create or replace function outbox_relay.name_key(subscription_id bigint, key_id text, true_key_id text, form text, public_key text)
returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s'
as $$
-- Gives a key that is kept by reference the id of the secret that a relay has read, and what else is public of it.
-- False if another relay was first, or the subscription has that secret under another key, which keeps the id.
-- Attempts are logged under the true id from the first on. Called by relays.
begin
    if not exists (select from outbox_relay.signing_secret x
            where x.subscription_id = name_key.subscription_id and x.key_id = name_key.key_id and x.secret_ref is not null)
       or (name_key.true_key_id <> name_key.key_id and exists (select from outbox.signing_key k
            where k.subscription_id = name_key.subscription_id and k.key_id = name_key.true_key_id)) then
        return false;
    end if;
    update outbox.signing_key k
    set key_id = name_key.true_key_id,
        public_key = case when k.algorithm = 'ed25519' then name_key.public_key end
    where k.subscription_id = name_key.subscription_id and k.key_id = name_key.key_id;
    update outbox_relay.signing_secret x set form = name_key.form
    where x.subscription_id = name_key.subscription_id and x.key_id = name_key.true_key_id and x.form is distinct from name_key.form;
    return true;
exception when unique_violation then
    return false;
end
$$;
comment on function outbox_relay.name_key is 'Gives a key kept by reference the id of the secret that a relay has read.';
