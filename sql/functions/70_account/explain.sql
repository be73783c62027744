create or replace function outbox.explain(event_id uuid, tenant_id text default null)
returns table (subscription_id bigint, name text, verdict text, detail text, attempts integer, next_attempt_at timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off
as $$
-- What became of an event, subscription by subscription of its tenant: the state of its delivery, or why
-- there is none. Judged by what each subscription was when the event was expanded.
--
-- verdict: a state of outbox.delivery, or one of unexpanded, created_later, unsubscribed, paused, type,
-- filter, addressed (the event was a test for another), unknown (expanded before this database was adopted).
#variable_conflict use_column
declare
    e record;
    c outbox_relay.cursor;
    config pg_snapshot;
    bound constant text[] := outbox_relay.bound_tenants();
begin
    select * into c from outbox_relay.cursor order by cursor_id desc limit 1;
    if not exists (select from outbox.event v where v.event_id = explain.event_id and coalesce(v.tenant_id = any (bound), true)) then
        raise exception using errcode = 'OB021', message = format('there is no event %s', coalesce(explain.event_id::text, 'null')),
            hint = 'It was not committed, or its segment was dropped (setting retention).';
    elsif explain.tenant_id is not null
        and not exists (select from outbox.event v where v.event_id = explain.event_id and v.tenant_id = explain.tenant_id
            and coalesce(v.tenant_id = any (bound), true)) then
        raise exception using errcode = 'OB022', message = 'tenant mismatch',
            hint = 'The event does not belong to the tenant named in the call.';
    end if;
    for e in select v.*, outbox_relay.expanded_before(v.xact, v.event_seq, c.seen, c.target, c.position, c.floor_seq) as expanded
             from outbox.event v where v.event_id = explain.event_id and v.tenant_id = coalesce(explain.tenant_id, v.tenant_id)
               and coalesce(v.tenant_id = any (bound), true) loop
        config := case when e.expanded then outbox_relay.regime_of(e.xact, e.event_seq) end;
        return query
        select s.subscription_id, s.name,
            case
                when d.state is not null then d.state
                when e.addressed_to is not null then 'addressed'
                when not e.expanded then 'unexpanded'
                when config is null then 'unknown'
                when v.version is null then 'created_later'
                when not v.active then case when s.unsubscribed_at <= e.occurred_at then 'unsubscribed' else 'paused' end
                when not outbox_relay.matches(e.type, e.payload, v.patterns, null) then 'type'
                else 'filter' end,
            case
                when d.next_attempt_at = 'infinity' then coalesce(
                    (select format('waits because event %s of its ordering key was given up; see outbox.stopped_key', t.event_seq)
                     from outbox.stopped_key t where t.subscription_id = s.subscription_id and t.ordering_key = outbox_relay.queue_key(e.ordering_key)),
                    'waits for an earlier event of its ordering key')
                when d.state in ('pending', 'failed') and h.circuit <> 'closed' then concat_ws('; ', d.last_error, format('the circuit is %s', h.circuit))
                when d.state is not null then d.last_error
                when e.addressed_to is not null then format('a test for subscription %s alone', e.addressed_to)
                when not e.expanded then 'committed, waiting to be expanded'
                when config is null then 'expanded before this database was adopted from another cluster'
                when v.version is null then format('subscribed at %s, after the event was expanded; see outbox.replay_missing', s.created_at)
                when not v.active then 'not active when the event was expanded; see outbox.replay_missing'
                when not outbox_relay.matches(e.type, e.payload, v.patterns, null) then format('%s is not among %s', e.type, v.patterns)
                else format('the payload did not pass %s', v.filter) end,
            coalesce(d.attempts, 0), d.next_attempt_at
        from outbox.subscription s
        left join outbox.delivery d on d.subscription_id = s.subscription_id and d.event_seq = e.event_seq
        left join outbox.subscription_health h on h.subscription_id = s.subscription_id
        left join lateral (
            select v.* from outbox_relay.subscription_version v
            where v.tenant_id = s.tenant_id and v.subscription_id = s.subscription_id and pg_visible_in_snapshot(v.xact, config)
            order by v.version desc limit 1) v on true
        where s.tenant_id = e.tenant_id
        order by s.subscription_id;
    end loop;
end
$$;
comment on function outbox.explain is 'Per subscription of the tenant: the state of the event''s delivery, or why there is none.';
