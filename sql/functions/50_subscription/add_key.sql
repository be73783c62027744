create or replace function outbox_relay.add_key(subscription_id bigint, signature text, secret text, secret_ref text default null, out new_secret text, out new_key_id text)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Gives a subscription a secret, made here unless one is given, and returns it with its key id.
-- Called by subscribe, rotate_secret and reconcile; the first two show it to the caller this once.
-- A secret by reference is not seen here: its key id is that of the reference, until a relay has read it and says
-- the true one (outbox_relay.name_key). One that the daemon offers arrives sealed, and is not seen either.
declare
    -- 256 bits: the hash of three random UUIDs, which hold 366 random bits of the server's strong source.
    random bytea := sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
    public bytea;
    offer  outbox_relay.offered_key;
begin
    if add_key.secret_ref is not null then
        if add_key.secret is not null then
            raise exception using errcode = 'OB015', message = 'secret and secret_ref are both given',
                hint = 'Pass the secret, or a reference to where the relay finds it.';
        end if;
        perform outbox_relay.check_reference(add_key.secret_ref);
        perform outbox_relay.refuse_reference('secret_ref');
        if exists (select from outbox_relay.signing_secret x join outbox.signing_key k using (subscription_id, key_id)
                where x.subscription_id = add_key.subscription_id and x.secret_ref = add_key.secret_ref
                  and k.revoked_at is null and (k.expires_at is null or k.expires_at > now())) then
            raise exception using errcode = 'OB015', message = 'the subscription has this reference already',
                hint = 'Rotate to another name, so that both secrets can be read during the overlap.';
        end if;
        new_key_id := outbox_relay.key_id(add_key.secret_ref);
    elsif add_key.secret is not null then
        perform outbox_relay.check_secret(add_key.signature, add_key.secret);
        new_secret := add_key.secret;
        if add_key.signature = 'standard-ed25519' then
            public := outbox_relay.ed25519_public_key(substring(decode(substr(new_secret, 6), 'base64') for 32));
        end if;
    else
        delete from outbox_relay.offered_key o
        where o.xact = pg_current_xact_id() and o.subscription_id = add_key.subscription_id returning * into offer;
    end if;
    if offer.key_id is not null then
        perform outbox_relay.check_stored(add_key.signature, null, offer.form);
        new_key_id := offer.key_id;
    elsif coalesce(new_secret, add_key.secret_ref) is not null then
        null;
    elsif add_key.signature = 'standard-ed25519' then
        -- libsodium's form of a private key, which the tools of others read: the seed, then the public key.
        public := outbox_relay.ed25519_public_key(random);
        new_secret := 'whsk_' || translate(encode(random || public, 'base64'), E'\n', '');
    else
        new_secret := 'whsec_' || encode(random, 'base64');
    end if;
    new_key_id := coalesce(new_key_id, outbox_relay.key_id(new_secret));
    begin
        -- Not now(): of two keys made in one transaction the first is the older, and signs first.
        insert into outbox.signing_key (subscription_id, key_id, algorithm, public_key, created_at)
        values (add_key.subscription_id, new_key_id, case add_key.signature when 'standard-ed25519' then 'ed25519' else 'hmac-sha256' end,
            coalesce(offer.public_key, 'whpk_' || encode(public, 'base64')), clock_timestamp());
    exception when unique_violation then
        raise exception using errcode = 'OB015', message = 'the subscription has or had this secret already',
            hint = 'Rotate to a secret that was not used before, or leave secret out and one is made.';
    end;
    insert into outbox_relay.signing_secret (subscription_id, key_id, secret, sealed, sealed_with, secret_ref, form)
    values (add_key.subscription_id, new_key_id, new_secret, offer.sealed, offer.sealed_with, add_key.secret_ref, offer.form);
end
$$;
comment on function outbox_relay.add_key is 'Gives a subscription a secret and returns it with its key id.';
