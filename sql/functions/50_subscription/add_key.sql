create or replace function outbox_relay.add_key(subscription_id bigint, signature text, secret text, out new_secret text, out new_key_id text)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
-- Gives a subscription a secret, made here unless one is given, and returns it with its key id.
-- Called by subscribe and rotate_secret, which show it to the caller this once.
declare
    decoded bytea;
begin
    -- 256 bits: the hash of three random UUIDs, which hold 366 random bits of the server's strong source.
    new_secret := coalesce(add_key.secret, 'whsec_' || encode(sha256(
        uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64'));
    if new_secret !~ '^[\x21-\x7e]+$' or length(new_secret) not between 16 and 512 then
        raise exception using errcode = 'OB015', message = format('the secret has %s characters or one that is not printable ASCII', length(new_secret)),
            hint = 'Use 16 to 512 printable ASCII characters without spaces, or leave secret out and one is made.';
    end if;
    if add_key.signature = 'standard' then
        begin
            decoded := decode(substr(new_secret, 7), 'base64');
        exception when others then
            decoded := null;
        end;
        if left(new_secret, 6) <> 'whsec_' or decoded is null or octet_length(decoded) not between 24 and 64 then
            raise exception using errcode = 'OB015', message = 'the secret is not whsec_ with the base64 of 24 to 64 bytes',
                hint = 'The standard profile signs with the decoded part of whsec_…; leave secret out and one is made.';
        end if;
    end if;
    new_key_id := left(encode(sha256(convert_to(new_secret, 'UTF8')), 'hex'), 16);
    begin
        insert into outbox.signing_key (subscription_id, key_id) values (add_key.subscription_id, new_key_id);
    exception when unique_violation then
        raise exception using errcode = 'OB015', message = 'the subscription has or had this secret already',
            hint = 'Rotate to a secret that was not used before, or leave secret out and one is made.';
    end;
    insert into outbox_relay.signing_secret (subscription_id, key_id, secret) values (add_key.subscription_id, new_key_id, new_secret);
end
$$;
comment on function outbox_relay.add_key is 'Gives a subscription a secret and returns it with its key id.';
