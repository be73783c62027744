create or replace function outbox_relay.check_tls(tls jsonb, url text)
returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
-- Refuses what a subscription says of TLS if the relay could not use it, as far as SQL can know; a private key is
-- refused with a word of its own, since it would be readable here. Called by check_subscription.
declare
    ca   constant text := tls ->> 'ca';
    bad  text;
    mend text := 'Use {"ca": PEM, "pins": ["sha256//…"], "client": "file:NAME"}, each of them if you need it.';
begin
    bad := case
        when tls is null then null
        when jsonb_typeof(tls) <> 'object' then 'is not a JSON object'
        when tls - array['ca', 'pins', 'client'] <> '{}' then 'has a key that is none of ca, pins, client'
        when tls = '{}' then 'is empty'
        when check_tls.url ~ '^http://' then 'is given, and the URL is http:'
        when tls ? 'ca' and jsonb_typeof(tls -> 'ca') <> 'string' then 'ca is not a text'
        when ca ~ 'PRIVATE KEY' then 'ca holds a private key'
        when ca !~ '^\s*-----BEGIN CERTIFICATE-----\s+[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----' then 'ca is not a certificate in PEM'
        when octet_length(ca) > 65536 then 'ca is longer than 65536 bytes'
        when tls ? 'pins' and jsonb_typeof(tls -> 'pins') <> 'array' then 'pins is not a list'
        when tls ? 'client' and (tls ->> 'client' is null or tls ->> 'client' !~ '^file:[A-Za-z0-9][A-Za-z0-9._-]{0,99}$')
            then 'client is not file:NAME'
        end;
    if bad is null and tls ? 'pins' then
        bad := case
            when jsonb_array_length(tls -> 'pins') not between 1 and 10 then 'pins has none or more than 10 entries'
            when exists (select from jsonb_array_elements(tls -> 'pins') p
                where jsonb_typeof(p.value) <> 'string' or p.value #>> '{}' !~ '^sha256//[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$')
                then 'pins has an entry that is not sha256// and the base64 of 32 bytes'
            end;
        mend := 'A pin is what openssl x509 -in cert.pem -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64 says, after sha256//.';
    end if;
    if bad is not null then
        raise exception using errcode = 'OB019', message = format('tls %s', bad),
            hint = case when bad = 'ca holds a private key'
                then 'Anybody who may see the subscription would read it, and it is not needed: pass the certificate alone. If that key is in use, replace it.'
                else mend end;
    end if;
end
$$;
comment on function outbox_relay.check_tls is 'Refuses what a subscription says of TLS if the relay could not use it.';
