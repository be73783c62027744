create or replace function outbox_relay.claim(
    epoch integer, lease_limit integer, default_max_in_flight integer,
    busy_subscription_ids bigint[], busy_counts integer[], asynchronous boolean)
returns table (
    event_seq bigint, event_id uuid, tenant_id text, type text, payload text, occurred_at timestamptz, traceparent text,
    subscription_id bigint, version bigint, attempts integer, cause text, next_due_at timestamptz, more boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
-- Leases deliveries that wait and whose time has come: retries, replays, tests, what deliver_at held
-- back, and what found no room when it was expanded.
--
-- First the subscriptions that have anything waiting are found by skipping through queue_due_idx, one
-- probe each; then each gives what it has room for, the longest due first. So a paused or saturated
-- subscription with a million rows costs one probe, and stands in nobody's way.
--
-- Rejected: one index on the due time over all subscriptions. Its head fills with rows that cannot be
-- sent, and every claim wades through them.
--
-- Returns one row a lease, then one row with event_seq null: when the next waiting delivery is due, and
-- whether some that are due were left for lack of room. No row at all: on hold, or fenced.
-- Called by the relay's loop. Writes queue.
#variable_conflict use_column
declare
    r          record;
    due_ids    bigint[];
    due_rooms  integer[];
    saturated  boolean;
begin
    perform outbox_relay.require_read_committed();
    if asynchronous then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    perform pg_advisory_xact_lock_shared(1869968482, 4);
    if not exists (select from outbox_relay.relay r where r.epoch = claim.epoch and r.fenced_at is null and r.hold is null)
        or exists (select from outbox_relay.hold) then
        return;
    end if;

    with recursive waiting as (
        (select q.subscription_id, q.next_attempt_at from outbox_relay.queue q
         where q.next_attempt_at is not null order by q.subscription_id, q.next_attempt_at limit 1)
        union all
        select n.subscription_id, n.next_attempt_at
        from waiting w
        cross join lateral (
            select q.subscription_id, q.next_attempt_at from outbox_relay.queue q
            where q.next_attempt_at is not null and q.subscription_id > w.subscription_id
            order by q.subscription_id, q.next_attempt_at limit 1) n),
    active as materialized (
        select w.subscription_id, w.next_attempt_at,
               coalesce(s.max_in_flight, claim.default_max_in_flight)
                   - coalesce((select b.count from unnest(claim.busy_subscription_ids, claim.busy_counts) b (subscription_id, count)
                               where b.subscription_id = w.subscription_id), 0) as room
        from waiting w join outbox.subscription s on s.subscription_id = w.subscription_id and s.active)
    select min(a.next_attempt_at) filter (where a.next_attempt_at > now() and isfinite(a.next_attempt_at)),
           coalesce(bool_or(a.room <= 0) filter (where a.next_attempt_at <= now()), false),
           coalesce(array_agg(a.subscription_id order by a.next_attempt_at) filter (where a.next_attempt_at <= now() and a.room > 0), '{}'),
           coalesce(array_agg(a.room order by a.next_attempt_at) filter (where a.next_attempt_at <= now() and a.room > 0), '{}')
    into next_due_at, saturated, due_ids, due_rooms
    from active a;
    more := saturated;

    for r in
        with due as materialized (
            select q.subscription_id, q.event_seq, d.room, d.nth
            from unnest(due_ids, due_rooms) with ordinality d (subscription_id, room, nth)
            cross join lateral (
                select q.subscription_id, q.event_seq from outbox_relay.queue q
                where q.subscription_id = d.subscription_id and q.next_attempt_at <= now()
                order by q.next_attempt_at limit least(d.room, claim.lease_limit) for update skip locked) q
            limit claim.lease_limit),
        tests as materialized (
            select q.subscription_id, q.event_seq
            from outbox_relay.queue q
            join outbox.subscription s on s.subscription_id = q.subscription_id and not s.active and s.unsubscribed_at is null
            where q.cause = 'test' and q.next_attempt_at <= now()
            order by q.next_attempt_at limit 8 for update of q skip locked),
        picked as (
            select * from due union all select subscription_id, event_seq, null, null from tests),
        leased as (
            update outbox_relay.queue q
            set state = 'leased', epoch = claim.epoch, next_attempt_at = null, updated_at = now()
            from picked p
            where q.subscription_id = p.subscription_id and q.event_seq = p.event_seq
            returning q.subscription_id, q.event_seq, q.attempts, q.cause, p.room, p.nth)
        select l.*, e.event_id, e.tenant_id, e.type, e.payload::text as payload, e.occurred_at, e.metadata ->> 'traceparent' as traceparent,
               (select s.version from outbox.subscription s where s.subscription_id = l.subscription_id) as version,
               count(*) over (partition by l.nth) >= l.room as filled
        from leased l
        left join lateral (select e.* from outbox.event e where e.event_seq = l.event_seq offset 0) e on true
    loop
        event_seq := r.event_seq; event_id := r.event_id; tenant_id := r.tenant_id; type := r.type; payload := r.payload;
        occurred_at := r.occurred_at; traceparent := r.traceparent; subscription_id := r.subscription_id; version := r.version;
        attempts := r.attempts; cause := r.cause;
        more := more or coalesce(r.filled, false);
        lease_limit := lease_limit - 1;
        return next;
    end loop;

    more := more or lease_limit <= 0;
    event_seq := null; event_id := null; tenant_id := null; type := null; payload := null; occurred_at := null;
    traceparent := null; subscription_id := null; version := null; attempts := null; cause := null;
    return next;
end
$$;
comment on function outbox_relay.claim is 'Leases deliveries that wait and are due, fairly among subscriptions.';
