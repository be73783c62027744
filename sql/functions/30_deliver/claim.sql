create or replace function outbox_relay.claim(
    epoch integer, lease_limit integer, default_max_in_flight integer,
    busy_subscription_ids bigint[], busy_counts integer[], asynchronous boolean,
    byte_limit bigint default 67108864)
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
-- back, and what expand did not lease.
--
--   survey   the subscriptions that have anything waiting, and at which priorities, by skipping through
--            queue_due_idx, one probe each. So a paused or saturated subscription with a million rows
--            costs one probe, and stands in nobody's way.
--   admit    what each of them may be given: room, and where there is one, rate limit and circuit
--   give up  what is too old, some at a time
--   pick     so many of each, the highest priority and then the longest due first; their rows are locked
--   sort out what is too old after all is given up, what is not the first of its ordering key is parked
--   weigh    no more than byte_limit, in bytes of payload as text, but one at least; a payload that cannot be written
--            within bounds (payload_text) is given up
--   lease    the rest
--
-- Each step is a statement of its own, because the judgement of an ordering key needs a snapshot taken after
-- its row was locked (outbox_relay.park_behind).
-- Rejected: one index on the due time over all subscriptions. Its head fills with rows that cannot be
-- sent, and every claim wades through them.
--
-- Returns one row a lease, then one row with event_seq null: when the next waiting delivery is due, and
-- whether some that are due were left for lack of room. No row at all: on hold, or fenced.
-- Called by the relay's loop. Writes queue; finished for what is too old; pace and health. Tests are counted
-- by neither.
#variable_conflict use_column
declare
    r           record;
    s           record;
    due         record;
    picked      record;
    rooms       integer[];
    retry_rooms integer[];
    held_ids    bigint[];
    probed_ids  bigint[];
    admitted    integer := 0;
    max_bytes   constant integer := outbox_relay.limit_of('max_payload_bytes');
    old_limit   constant integer := 100;
    gave_up     boolean := false;
begin
    perform outbox_relay.require_read_committed();
    if asynchronous then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    perform pg_advisory_xact_lock_shared(1869968482, 4);
    if not exists (select from outbox_relay.relay r where r.epoch = claim.epoch and r.fenced_at is null and r.hold is null
            and coalesce(r.timeline = outbox_relay.timeline(), true))
        or exists (select from outbox_relay.hold) then
        return;
    end if;

    with recursive waiting as (
        (select q.subscription_id, q.priority, q.next_attempt_at from outbox_relay.queue q
         where q.next_attempt_at is not null order by q.subscription_id, q.priority, q.next_attempt_at limit 1)
        union all
        select n.subscription_id, n.priority, n.next_attempt_at
        from waiting w
        cross join lateral (
            select q.subscription_id, q.priority, q.next_attempt_at from outbox_relay.queue q
            where q.next_attempt_at is not null and (q.subscription_id, q.priority) > (w.subscription_id, w.priority)
            order by q.subscription_id, q.priority, q.next_attempt_at limit 1) n),
    -- Grouped rather than joined with what is busy: there may be thousands of both.
    waiting_at as (
        select w.subscription_id,
               min(w.next_attempt_at) filter (where w.next_attempt_at > now() and isfinite(w.next_attempt_at)) as next_due_at,
               min(w.next_attempt_at) filter (where w.next_attempt_at <= now()) as due_at,
               max(w.priority) filter (where w.next_attempt_at <= now()) as priority,
               array_agg(w.priority order by w.priority desc) filter (where w.next_attempt_at <= now()) as priorities,
               coalesce(sum(w.busy), 0) as busy
        from (select w.subscription_id, w.priority, w.next_attempt_at, null::integer as busy from waiting w
              union all
              select b.id, null, null, b.count from unnest(claim.busy_subscription_ids, claim.busy_counts) b (id, count)) w
        group by w.subscription_id having count(w.next_attempt_at) > 0),
    active as materialized (
        select w.subscription_id, w.priority, w.priorities, p.max_age, s.rate_limit is not null or h.circuit is not null as held,
               -- What an open circuit holds back needs no admission: most of those that fail are in this state.
               case when h.shut then h.held_until else w.next_due_at end as next_due_at,
               case when h.shut is not true then w.due_at end as due_at,
               greatest(coalesce(s.max_in_flight, claim.default_max_in_flight) - w.busy, 0)::integer as room
        from waiting_at w
        join outbox.subscription s on s.subscription_id = w.subscription_id and s.active
        join outbox.retry_policy p on p.name = s.retry_policy
        left join lateral (
            select c.circuit, least(c.circuit_until, f.next_attempt_at) as held_until,
                   least(c.circuit_until, f.next_attempt_at) > now() as shut
            from outbox.subscription_health c
            left join lateral (
                select q.next_attempt_at from outbox_relay.queue q
                where q.subscription_id = w.subscription_id and q.state = 'failed'
                order by q.next_attempt_at limit 1) f on true
            where c.subscription_id = w.subscription_id and c.circuit <> 'closed' offset 0) h on true),
    roomy as (
        select a.*, row_number() over (order by a.priority desc, a.due_at)::integer as nth from active a where a.due_at is not null and a.room > 0)
    select (select min(a.next_due_at) from active a) as next_due_at,
           (select coalesce(bool_or(true), false) from active a where a.due_at is not null and a.room <= 0) as saturated,
           array_agg(y.subscription_id order by y.nth) as ids, array_agg(y.room order by y.nth) as rooms,
           array_agg(y.priorities::text order by y.nth) as priorities, array_agg(y.max_age order by y.nth) as max_ages,
           array_agg(y.nth order by y.nth) filter (where y.held) as held
    into due from roomy y;
    next_due_at := due.next_due_at;
    more := due.saturated;
    rooms := due.rooms;
    retry_rooms := array_fill(0, array[coalesce(cardinality(due.ids), 0)]);

    for r in select h.nth from unnest(due.held) h (nth) loop
        if admitted >= lease_limit then
            -- The others keep their turn, and their accounts unlocked.
            rooms[r.nth] := 0;
            more := true;
            continue;
        end if;
        select due.ids[r.nth] as subscription_id, r.nth, a.* into s from outbox_relay.admit(due.ids[r.nth], due.rooms[r.nth]) a;
        admitted := admitted + s.room + s.retry_room;
        rooms[s.nth] := s.room;
        retry_rooms[s.nth] := s.retry_room;
        if s.room + s.retry_room > 0 then
            held_ids := held_ids || s.subscription_id;
        end if;
        if s.room > 0 then
            probed_ids := probed_ids || s.subscription_id;
        end if;
        next_due_at := least(next_due_at, s.held_until);
    end loop;

    -- Beforehand, and without using room: a probe is one delivery, and it would never be made while more grow old than
    -- there are claims.
    if cardinality(array_remove(due.max_ages, null)) > 0 then
        for r in
            select q.subscription_id as id, q.event_seq as seq
            from unnest(due.ids, rooms, due.priorities, due.max_ages) d (subscription_id, room, priorities, max_age)
            cross join lateral unnest(d.priorities::smallint[]) p (priority)
            cross join lateral (
                select q.* from outbox_relay.queue q
                where q.subscription_id = d.subscription_id and q.priority = p.priority and q.next_attempt_at <= now()
                order by q.next_attempt_at limit old_limit) q
            where d.max_age is not null and d.room > 0 and q.cause = 'schedule' and q.created_at < now() - d.max_age
            limit old_limit
        loop
            perform from outbox_relay.queue q
            where q.subscription_id = any (array[r.id]) and q.event_seq = r.seq and q.next_attempt_at <= now() for no key update skip locked;
            if found then
                gave_up := outbox_relay.give_up_old(r.id, r.seq) or gave_up;
            end if;
        end loop;
    end if;

    with tests as materialized (
        -- They go whatever the subscription's state; a row that another call has locked is in good hands.
        select q.subscription_id, q.event_seq
        from outbox_relay.queue q
        join outbox.subscription s on s.subscription_id = q.subscription_id and s.unsubscribed_at is null
        where q.cause = 'test' and q.next_attempt_at <= now()
        order by q.next_attempt_at limit 8 for no key update of q skip locked),
    in_turn as materialized (
        select q.subscription_id, q.event_seq, q.ordering_key, d.nth, d.room, q.too_old
        from unnest(due.ids, rooms, due.priorities, due.max_ages) with ordinality d (subscription_id, room, priorities, max_age, nth)
        cross join lateral (
            select q.* from unnest(d.priorities::smallint[]) p (priority)
            cross join lateral (
                select q.subscription_id, q.event_seq, q.ordering_key, q.cause = 'schedule' and q.created_at < now() - d.max_age as too_old
                from outbox_relay.queue q
                where q.subscription_id = d.subscription_id and q.priority = p.priority and q.next_attempt_at <= now() and q.cause <> 'test'
                order by q.next_attempt_at limit least(d.room, claim.lease_limit) for no key update skip locked) q
            limit least(d.room, claim.lease_limit)) q
        where d.room > 0
        limit claim.lease_limit),
    again as materialized (
        select q.subscription_id, q.event_seq, q.ordering_key, q.too_old
        from unnest(due.ids, retry_rooms, due.max_ages) d (subscription_id, room, max_age)
        cross join lateral (
            select q.subscription_id, q.event_seq, q.ordering_key, q.cause = 'schedule' and q.created_at < now() - d.max_age as too_old
            from outbox_relay.queue q
            where q.subscription_id = d.subscription_id and q.state = 'failed' and q.next_attempt_at <= now() and q.cause <> 'test'
            order by q.next_attempt_at limit least(d.room, claim.lease_limit) for no key update skip locked) q
        where d.room > 0
        limit claim.lease_limit)
    select array_agg(a.subscription_id) as ids, array_agg(a.event_seq) as seqs, count(*) as count,
           array_agg(a.nth) filter (where a.ordering_key is not null or a.too_old) as doubtful,
           array_agg(a.ordering_key) as keys, array_agg(a.is_test) as tests, array_agg(coalesce(a.too_old, false)) as too_old,
           -- what rate or circuit hold back is not left for lack of room
           exists (select from (select i.nth, i.room, count(*) as count from in_turn i group by i.nth, i.room) f
                   where f.count >= f.room and f.nth <> all (coalesce(due.held, '{}'))) as filled
    into picked
    from (select i.*, row_number() over () as nth from (
              select t.subscription_id, t.event_seq, null as ordering_key, false as too_old, true as is_test from tests t
              union all
              select i.subscription_id, i.event_seq, i.ordering_key, i.too_old, false from in_turn i
              union all
              select g.subscription_id, g.event_seq, g.ordering_key, g.too_old, false from again g) i) a;
    more := more or picked.filled or picked.count >= lease_limit;
    if gave_up then
        next_due_at := now();           -- there may be more of it
    end if;

    if picked.doubtful is not null then
        for r in select n.nth, picked.ids[n.nth] as id, picked.seqs[n.nth] as seq, picked.keys[n.nth] as key, picked.too_old[n.nth] as too_old
                 from unnest(picked.doubtful::integer[]) n (nth) order by id, seq loop
            if r.too_old and outbox_relay.give_up_old(r.id, r.seq) then
                null;
            elsif r.key is not null and outbox_relay.park_behind(r.id, r.seq, r.key) then
                null;
            else
                continue;
            end if;
            picked.ids[r.nth] := null;
            next_due_at := now();       -- it has used room: look again at once
        end loop;
    end if;

    for r in
        select w.nth, w.id, w.seq, w.bytes is null as vast
        from (select p.nth, p.id, p.seq, b.bytes, sum(b.bytes) over (order by p.nth) - b.bytes as before
              from unnest(picked.ids, picked.seqs) with ordinality p (id, seq, nth)
              cross join lateral (
                  -- as a wary expand: what is small is soon written, even if it is meant to be vast
                  select case when z.size > 2000 then octet_length(outbox_relay.payload_text(e.payload))
                         when t.bytes <= 8::bigint * greatest(max_bytes, z.size) then t.bytes end as bytes
                  from outbox.event e
                  cross join lateral (select pg_column_size(e.payload #> '{}') as size offset 0) z
                  cross join lateral (select case when z.size <= 2000 then octet_length(e.payload::text) end as bytes offset 0) t
                  where e.event_seq = p.seq offset 0) b
              where p.id is not null) w
        where w.bytes is null or w.before > 0 and w.before + w.bytes > byte_limit
    loop
        if r.vast then
            perform outbox_relay.give_up(r.id, r.seq, 'the payload as JSON text is over eight times max_payload_bytes');
        else
            more := true;
        end if;
        picked.ids[r.nth] := null;
        next_due_at := now();
    end loop;

    for r in
        with leased as (
            update outbox_relay.queue q
            set state = 'leased', epoch = claim.epoch, next_attempt_at = null, updated_at = now()
            from unnest(picked.ids, picked.seqs) p (subscription_id, event_seq)
            where q.subscription_id = any (array[p.subscription_id]) and q.event_seq = p.event_seq
            returning q.subscription_id, q.event_seq, q.attempts, q.cause)
        select l.*, e.event_id, e.tenant_id, e.type, e.payload::text as payload, e.occurred_at, left(e.metadata ->> 'traceparent', 256) as traceparent,
               (select s.version from outbox.subscription s where s.subscription_id = l.subscription_id) as version
        from leased l
        left join lateral (select e.* from outbox.event e where e.event_seq = l.event_seq offset 0) e on true
    loop
        event_seq := r.event_seq; event_id := r.event_id; tenant_id := r.tenant_id; type := r.type; payload := r.payload;
        occurred_at := r.occurred_at; traceparent := r.traceparent; subscription_id := r.subscription_id; version := r.version;
        attempts := r.attempts; cause := r.cause;
        return next;
    end loop;

    if held_ids is not null then
        next_due_at := least(next_due_at, outbox_relay.charge(held_ids, probed_ids,
            array(select p.id from unnest(picked.ids, picked.tests) p (id, is_test) where p.id is not null and not p.is_test)));
    end if;
    event_seq := null; event_id := null; tenant_id := null; type := null; payload := null; occurred_at := null;
    traceparent := null; subscription_id := null; version := null; attempts := null; cause := null;
    return next;
end
$$;
comment on function outbox_relay.claim is 'Leases deliveries that wait and are due, fairly among subscriptions.';
