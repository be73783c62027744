create or replace function outbox_relay.begin_request(token_id bigint, key text, fingerprint bytea)
returns table (status smallint, answer text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
-- Before a request that carries an Idempotency-Key: no row if it is the first, which is then to be done and
-- ended with outbox_relay.end_request in the same transaction; else how the first was answered.
-- Two at once: the second waits for the first's transaction, for as long as its lock_timeout says.
begin
    insert into outbox_relay.idempotent_request as r (token_id, key, fingerprint)
    values (begin_request.token_id, begin_request.key, begin_request.fingerprint)
    on conflict on constraint idempotent_request_pkey do nothing;
    if found then
        return;
    end if;
    if (select r.fingerprint <> begin_request.fingerprint from outbox_relay.idempotent_request r
        where r.token_id = begin_request.token_id and r.key = begin_request.key) then
        raise exception using errcode = 'OB061', message = 'this Idempotency-Key was used for another request',
            hint = 'Use a new key for a new request; repeat the first one to have its answer again.';
    end if;
    return query select r.status, r.answer from outbox_relay.idempotent_request r
    where r.token_id = begin_request.token_id and r.key = begin_request.key;
end
$$;
comment on function outbox_relay.begin_request is 'Whether a request with this Idempotency-Key was made before, and how it was answered.';
