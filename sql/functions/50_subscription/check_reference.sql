create or replace function outbox_relay.check_reference(secret_ref text)
returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
-- Refuses what is no reference to a variable or a plain file. Whether it may be read, and is there, only a relay
-- can know. It is not repeated: somebody may have passed the secret. Called by add_key.
begin
    if secret_ref !~ '^env:[A-Za-z_][A-Za-z0-9_]{0,127}$' and secret_ref !~ '^file:[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$' then
        raise exception using errcode = 'OB015', message = 'secret_ref is no reference',
            hint = 'Write env:NAME for a variable of the relay, as env:OUTBOXD_SECRET_ORDERS, or file:NAME for a file of its secrets.directory; NAME has no slash and does not begin with a dot.';
    end if;
end
$$;
comment on function outbox_relay.check_reference is 'Refuses what is no reference to a secret.';
