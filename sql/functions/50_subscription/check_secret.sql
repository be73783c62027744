create or replace function outbox_relay.check_secret(signature text, secret text)
returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
-- Refuses a secret that a signature profile cannot sign with, or that is something else than a secret, and
-- says how to mend it without repeating it. Called by add_key, and when a subscription changes its profile.
declare
    bare    text := btrim(secret, E' \t\r\n"''');
    encoded text;
    decoded bytea;
    bad     text;
    mend    text;
begin
    if starts_with(secret, 'whsk_') or starts_with(secret, 'whsec_') then
        begin
            encoded := substr(secret, position('_' in secret) + 1);
            decoded := decode(encoded, 'base64');
        exception when others then
            decoded := null;
        end;
    end if;
    if secret <> bare then
        bad := 'has white space or quotes around it';
        mend := 'Pass the secret alone.';
    elsif starts_with(secret, 'v1,') or starts_with(secret, 'v1a,') then
        bad := 'begins with a version and a comma, which some consoles put before it';
        mend := 'Pass what stands behind the comma.';
    elsif starts_with(secret, 'whpk_') then
        bad := 'is a public key: it verifies and cannot sign';
        mend := case when signature = 'standard-ed25519' then 'Pass the private key, whsk_…, or leave secret out and a pair is made.'
            else 'Leave secret out and one is made.' end;
    elsif signature = 'standard-ed25519' then
        if not starts_with(secret, 'whsk_') then
            bad := 'is not a private key of ed25519';
            mend := 'standard-ed25519 signs with whsk_…; leave secret out and a pair is made, or use another signature profile.';
        elsif secret !~ '^[\x21-\x7e]+$' then
            bad := 'has a character that is not printable ASCII, or white space inside';
            mend := 'Copy it whole and in one line, or leave secret out and a pair is made.';
        elsif decoded is null or octet_length(decoded) not in (32, 64) then
            bad := 'is not whsk_ with the base64 of 32 bytes (a seed) or 64 (a seed and its public key)';
            mend := 'Copy it whole, or leave secret out and a pair is made.';
        elsif octet_length(decoded) = 64 and substring(decoded from 33) <> outbox_relay.ed25519_public_key(substring(decoded for 32)) then
            bad := 'has a public half that does not belong to its private half';
            mend := 'Copy it whole, or pass the seed of 32 bytes alone.';
        end if;
    elsif starts_with(secret, 'whsk_') then
        bad := 'is a private key of ed25519, where a shared secret belongs';
        mend := 'Use signature => ''standard-ed25519'', or leave secret out and one is made. A private key is not to be given to receivers.';
    elsif secret !~ '^[\x21-\x7e]+$' or length(secret) not between 16 and 512 then
        bad := format('has %s characters, or one that is not printable ASCII', length(secret));
        mend := 'Use 16 to 512 printable ASCII characters without spaces, or leave secret out and one is made.';
    elsif signature = 'standard' and not starts_with(secret, 'whsec_') then
        bad := 'does not begin with whsec_';
        mend := 'The standard profile signs with the decoded part of whsec_…: put whsec_ before the base64 of 24 to 64 bytes, or leave secret out and one is made.';
    elsif signature = 'standard' and decoded is null then
        bad := 'has something else than base64 behind whsec_';
        mend := 'Copy it whole, padding (=) included, or leave secret out and one is made.';
    elsif signature = 'standard' and octet_length(decoded) not between 24 and 64 then
        bad := format('has %s bytes behind whsec_', octet_length(decoded));
        mend := 'Standard Webhooks takes 24 to 64 bytes; leave secret out and one is made.';
    end if;
    -- decode() reads over white space, padding in the middle and stray last bits; the relay does not, nor do many receivers.
    if bad is null and signature in ('standard', 'standard-ed25519') and encoded <> translate(encode(decoded, 'base64'), E'\n', '') then
        bad := 'has base64 that strict decoders refuse: padding (=) inside, or a last character with bits that belong to no byte';
        mend := 'Copy it whole, or encode its bytes anew, which leaves the receiver''s key as it is; or leave secret out and one is made.';
    end if;
    if bad is not null then
        raise exception using errcode = 'OB015', message = format('the secret %s', bad), hint = mend;
    end if;
end
$$;
comment on function outbox_relay.check_secret is 'Refuses a secret that a signature profile cannot sign with.';
