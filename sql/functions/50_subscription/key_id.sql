create or replace function outbox_relay.key_id(secret text)
returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$
-- What a secret is known by; the same in src/secrets/rules.rs. 64 bits of the hash of 256 random ones tell nothing.
select left(encode(sha256(convert_to(secret, 'UTF8')), 'hex'), 16)
$$;
comment on function outbox_relay.key_id is 'The id of a secret: the first 16 hex digits of its SHA-256.';
