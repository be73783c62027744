create or replace function outbox_relay.check_stored(signature text, secret text, form text)
returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
-- Refuses a profile that a stored secret cannot sign for. Of one that cannot be read here its form is known; of
-- one that no relay has read yet nothing is, and the relay will say. Called by add_key, and when a subscription
-- changes its profile.
begin
    if check_stored.secret is not null then
        perform outbox_relay.check_secret(check_stored.signature, check_stored.secret);
    elsif not (case check_stored.signature
            when 'standard' then check_stored.form = 'whsec'
            when 'standard-ed25519' then check_stored.form = 'whsk'
            else check_stored.form <> 'whsk' end) then
        raise exception using errcode = 'OB015', message = format('a secret of the subscription cannot sign for the profile %s', quote_literal(check_stored.signature)),
            hint = 'standard signs with whsec_…, standard-ed25519 with whsk_…, the others with any shared secret: make a new subscription with the other profile.';
    end if;
end
$$;
comment on function outbox_relay.check_stored is 'Refuses a profile that a stored secret cannot sign for.';
