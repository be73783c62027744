create or replace function outbox_relay.offer_key(subscription_id bigint, key_id text, form text, public_key text, sealed bytea, sealed_with text)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Hands a sealed secret to outbox.subscribe or outbox.rotate_secret, called later in this transaction in the name
-- and role of whoever asks: what they could not give themselves, since a key id that is not the secret's, or an
-- id of a subscription yet to come, would be theirs to choose. Called by the HTTP API.
begin
    -- One that nobody was given by offer_for would be in the way of the subscription that gets it later.
    if offer_key.subscription_id not between 1 and coalesce(pg_sequence_last_value(pg_get_serial_sequence('outbox.subscription', 'subscription_id')::regclass), 0) then
        raise exception using errcode = 'OB020', message = format('there is no subscription %s', offer_key.subscription_id),
            hint = 'outbox_relay.offer_for says for which a secret can be offered.';
    end if;
    insert into outbox_relay.offered_key (subscription_id, key_id, form, public_key, sealed, sealed_with)
    values (offer_key.subscription_id, offer_key.key_id, offer_key.form, offer_key.public_key, offer_key.sealed, offer_key.sealed_with);
end
$$;
comment on function outbox_relay.offer_key is 'Hands a sealed secret to outbox.subscribe or outbox.rotate_secret.';
