create or replace function outbox_relay.end_request(token_id bigint, key text, status smallint, answer text)
returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$
-- Keeps the answer to a request that carried an Idempotency-Key, for its repetitions. A secret is not kept.
update outbox_relay.idempotent_request r
set status = end_request.status,
    answer = case when end_request.answer::jsonb ? 'secret'
        then (end_request.answer::jsonb || '{"secret": null}')::text else end_request.answer end
where r.token_id = end_request.token_id and r.key = end_request.key;
$$;
comment on function outbox_relay.end_request is 'Keeps the answer to a request that carried an Idempotency-Key.';
