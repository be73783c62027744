create or replace function outbox_relay.add_key(subscription_id bigint, signature text, secret text, out new_secret text, out new_key_id text)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Gives a subscription a secret, made here unless one is given, and returns it with its key id.
-- Called by subscribe, rotate_secret and reconcile; the first two show it to the caller this once.
declare
    -- 256 bits: the hash of three random UUIDs, which hold 366 random bits of the server's strong source.
    random bytea := sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
    public bytea;
begin
    if add_key.secret is not null then
        perform outbox_relay.check_secret(add_key.signature, add_key.secret);
        new_secret := add_key.secret;
        if add_key.signature = 'standard-ed25519' then
            public := outbox_relay.ed25519_public_key(substring(decode(substr(new_secret, 6), 'base64') for 32));
        end if;
    elsif add_key.signature = 'standard-ed25519' then
        -- libsodium's form of a private key, which the tools of others read: the seed, then the public key.
        public := outbox_relay.ed25519_public_key(random);
        new_secret := 'whsk_' || translate(encode(random || public, 'base64'), E'\n', '');
    else
        new_secret := 'whsec_' || encode(random, 'base64');
    end if;
    new_key_id := left(encode(sha256(convert_to(new_secret, 'UTF8')), 'hex'), 16);
    begin
        -- Not now(): of two keys made in one transaction the first is the older, and signs first.
        insert into outbox.signing_key (subscription_id, key_id, algorithm, public_key, created_at)
        values (add_key.subscription_id, new_key_id, case when public is null then 'hmac-sha256' else 'ed25519' end,
            'whpk_' || encode(public, 'base64'), clock_timestamp());
    exception when unique_violation then
        raise exception using errcode = 'OB015', message = 'the subscription has or had this secret already',
            hint = 'Rotate to a secret that was not used before, or leave secret out and one is made.';
    end;
    insert into outbox_relay.signing_secret (subscription_id, key_id, secret) values (add_key.subscription_id, new_key_id, new_secret);
end
$$;
comment on function outbox_relay.add_key is 'Gives a subscription a secret and returns it with its key id.';
