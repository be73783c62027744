create or replace function outbox_relay.tick(epoch integer)
returns table (fenced boolean, hold text, handed_back integer, response_excerpt_bytes integer, allow_insecure_http boolean, circuit_failures bigint, unsealed boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off
as $$
-- Once a second from every relay: fences the dead, and tells the relay how things stand. One that registered on an
-- earlier timeline counts as fenced: expand and claim give it nothing any more.
begin
    handed_back := outbox_relay.fence_dead(but => tick.epoch);
    return query
    select coalesce((select r.fenced_at is not null or r.timeline <> outbox_relay.timeline() from outbox_relay.relay r where r.epoch = tick.epoch), true),
           coalesce((select h.reason from outbox_relay.hold h order by h.hold_id limit 1), outbox_relay.judge_environment(tick.epoch)),
           tick.handed_back,
           (select s.value::integer from outbox.setting s where s.name = 'response_excerpt_bytes'),
           (select s.value::boolean from outbox.setting s where s.name = 'allow_insecure_http'),
           (select s.value::bigint from outbox.setting s where s.name = 'circuit_failures'),
           exists (select from outbox_relay.signing_secret x where x.secret is not null);
end
$$;
comment on function outbox_relay.tick is 'Fences dead relays, and tells the calling one how things stand.';
