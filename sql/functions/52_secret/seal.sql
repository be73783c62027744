create or replace function outbox_relay.seal(subscription_id bigint, key_id text, was_sha256 bytea, sealed bytea, sealed_with text, form text)
returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s'
as $$
-- Puts a sealed secret in the place of what was read there, which is known by its hash; false if it has changed
-- meanwhile, as when another relay was first. Called by relays and outboxd seal.
begin
    update outbox_relay.signing_secret x
    set secret = null, sealed = seal.sealed, sealed_with = seal.sealed_with, form = seal.form
    where x.subscription_id = seal.subscription_id and x.key_id = seal.key_id
      and sha256(coalesce(x.sealed, convert_to(x.secret, 'UTF8'))) = seal.was_sha256;
    return found;
end
$$;
comment on function outbox_relay.seal is 'Puts a sealed secret in the place of what was read there.';
