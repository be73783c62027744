drop function if exists outbox_relay.expand(integer, integer, integer, integer, bigint[], integer[], boolean, boolean, bigint[], bigint);
drop function if exists outbox_relay.expand(integer, integer, integer, integer, bigint[], integer[], boolean, boolean, bigint[], bigint, integer);
create or replace function outbox_relay.expand(
    epoch integer, event_limit integer, lease_limit integer, default_max_in_flight integer,
    busy_subscription_ids bigint[], busy_counts integer[], skip_filters boolean, asynchronous boolean,
    slow_versions bigint[] default '{}', byte_limit bigint default 67108864,
    keep_back_ms integer default 0)
returns setof outbox_relay.expansion
language plpgsql security definer
set search_path = pg_catalog, pg_temp
-- The plan must be the same with no statistics and with stale ones: each step below has one index that
-- can serve it, and what could lead away from it is switched off. (That adds 10^10 to costs, which
-- would wake JIT.)
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
-- Turns the next events of the log into deliveries: exactly once for each event and subscription.
--
-- The cursor is a snapshot, seen: the events of every transaction complete in it have been expanded.
-- New is what is complete in a later snapshot, target, and was not in seen. It is walked along
-- event_seq in batches; when a batch comes back short, target becomes seen. So nothing is missed when
-- transactions commit out of order, a transaction that stays open delays only itself, and what was
-- committed before another event was inserted comes before it.
--
-- Where new events lie: a transaction gets its id before it draws a position (see outbox.event), so
--   late   transactions open in seen and complete in target: their events up to seen_seq are found
--          through event_xact_idx, transaction by transaction, above floor_seq
--   new    everything above seen_seq, read along the primary key
-- seen_seq must lie before every transaction from the upper end of seen on. That end is the last id that
-- had *completed*, plus one: transactions beyond it may have been under way and drawn their positions,
-- and no list has them. So the sequence's value when the snapshot is taken will not do (events were lost
-- that way). What will: its value before some transaction got an id that had completed by then. Expand is
-- such a transaction each time it writes: head_xact is its id, head_seq what it read before it had one.
-- The price is to read again what lies between head_seq and the snapshot, about one batch.
-- Both come in order of event_seq and all that is late lies before all that is new.
--
-- Deliveries are born leased to the caller as far as lease_limit and each subscription's room allow
-- (busy_… say what the caller has in flight; 2147483647: it is to be given nothing), and are returned with
-- their events; the rest is queued, due now or at deliver_at. Not a row is written for an event that nobody
-- wants. Of one subscription the higher priority is leased first; prioritised says that beyond this batch there
-- is an event that is not to wait its turn, so that the relay goes on expanding even without room and claim can choose.
--
-- With keep_back_ms the batch ends at its last event that leads anywhere: what is behind, and wanted only by
-- subscriptions that have no room of their own left, stays in the log and is read again (kept_back counts it). A
-- delivery that is queued costs an update, an index entry and a claim more than one that is born leased. But others'
-- events lie behind, and would wait as well: so not if the first of these was inserted longer ago than that, as in
-- every backlog, nor if that cannot be told by its id, as when it is dated in the future. The relay gives it up too where no room comes.
--
-- Some deliveries are never born leased. With a rate limit or a circuit that is not closed, claim decides.
-- For an ordered subscription: of one key in this batch all but the first are parked (next_attempt_at
-- infinity), which is safe because all become visible at once; and the first, if something of its key is
-- outstanding or the key is stopped, is due now and left to claim to judge (outbox_relay.park_behind). If
-- nothing is, nothing can be meanwhile: only expand brings new events in, and it is alone.
--
-- With skip_filters no filter is evaluated: whoever has one gets a dead letter that says so. The relay
-- asks for that, for a single event, after a batch of one has failed: a filter that takes for ever on
-- some payload must not stop everybody else. slow_versions are subscriptions whose filters outbox_relay.try_filters has
-- found not to end: they get a dead letter for the events of this call, and are disabled in the same transaction, so
-- that nothing lies between. With three of a tenant none of its filters is evaluated.
--
-- No more than byte_limit is leased, counted in bytes of payload as text for each lease, but one at least; what goes
-- beyond is queued. A payload that cannot be written within bounds (payload_text) is given up.
--
-- Rejected: a flag or a pending table with SKIP LOCKED (3 to 7 thousand events/s on the plan that stale
-- statistics give, 2 dead rows an event; this walk: 45 to 80 thousand, none). A high-water mark of
-- event_seq (loses what commits late).
--
-- Returns one row for each event with leases, then one row with event_seq null that sums up: events
-- expanded, deliveries queued that may be claimed, whether there may be more. No row at all: on hold, or fenced.
-- A row goes out as the query made it, but for the text of its payload: assigning thirteen output columns one by one
-- took a third of the whole call.
-- Called by the relay's loop. Writes cursor, queue, regime.
-- Invariant: one expand at a time; read, match and record happen in one transaction.
#variable_conflict use_column
declare
    c             outbox_relay.cursor;
    began_at      record;
    r             outbox_relay.expansion;
    summary       outbox_relay.expansion;
    opened        boolean;
    new_id        bigint;
    began_seq     bigint;
    slow_tenants  text[] := '{}';
    bytes_left    bigint := byte_limit;
    max_bytes     constant integer := outbox_relay.limit_of('max_payload_bytes');
    stored_bytes  integer;             -- of a payload, unpacked
    wary          boolean := false;    -- a payload of this call was far longer written than stored
    needed        bigint;
    filled        boolean;             -- there was more than event_limit
    fitting       integer;             -- leases of an event that bytes are left for
    beyond_ids    bigint[] := '{}';     -- leased in vain: no bytes left
    beyond_seqs   bigint[] := '{}';
    vast          bigint[] := '{}';     -- events that cannot be written
begin
    perform outbox_relay.require_read_committed();
    if asynchronous then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    perform pg_advisory_xact_lock(1869968482, 3);
    perform pg_advisory_xact_lock_shared(1869968482, 4);
    if not exists (select from outbox_relay.relay r where r.epoch = expand.epoch and r.fenced_at is null and r.hold is null
            and coalesce(r.timeline = outbox_relay.timeline(), true))
        or exists (select from outbox_relay.hold) then
        return;
    end if;

    select * into c from outbox_relay.cursor order by cursor_id desc limit 1;
    opened := c.target is null;
    if pg_current_xact_id_if_assigned() is null then
        select last_value - (not is_called)::integer into began_seq from outbox.event_event_seq_seq;
    end if;
    if opened then
        select pg_current_snapshot() into c.target;
        c.target_seq := case when c.head_xact < pg_snapshot_xmax(c.target) then c.head_seq else c.seen_seq end;
        select last_value - (not is_called)::integer into c.target_end from outbox.event_event_seq_seq;
        c.position := 0;
        c.late := array(select x from pg_snapshot_xip(c.seen) x where pg_visible_in_snapshot(x, c.target));
    end if;
    select c.seen, case when not opened then c.target end as target, case when not opened then c.position end as position into began_at;

    if slow_versions <> '{}' then
        slow_tenants := array(select v.tenant_id from outbox_relay.subscription_version v
                              where v.version = any (slow_versions) group by v.tenant_id having count(*) >= 3);
    end if;

    for r in
        with batch as materialized (
            select * from (
                (select e.* from (
                    select l.event_seq from outbox_relay.late_seqs(c.late, greatest(c.position, c.floor_seq), c.seen_seq, expand.event_limit) l (event_seq)
                    where c.late <> '{}' order by l.event_seq limit expand.event_limit) l
                cross join lateral (
                    select e.event_seq, e.event_id, e.tenant_id, e.type, e.payload, e.occurred_at, e.priority, e.deliver_at, e.ordering_key, e.metadata, e.addressed_to
                    from outbox.event e where e.event_seq = l.event_seq offset 0) e)
                union all
                (select e.event_seq, e.event_id, e.tenant_id, e.type, e.payload, e.occurred_at, e.priority, e.deliver_at, e.ordering_key, e.metadata, e.addressed_to
                from outbox.event e
                where e.event_seq > greatest(c.position, c.seen_seq) and e.event_seq <= c.target_end
                  and pg_visible_in_snapshot(e.xact, c.target) and not pg_visible_in_snapshot(e.xact, c.seen)
                order by e.event_seq limit expand.event_limit)) d
            order by event_seq limit expand.event_limit),
        -- Each tenant and type of the batch is looked up once for all its events. It is lateral throughout: no join
        -- whose order statistics could turn round.
        kinds as materialized (
            select b.tenant_id, b.type, array_agg(b.event_seq) as event_seqs, array_agg(b.priority) as priorities,
                   array_agg(b.deliver_at) as deliver_ats, array_agg(b.ordering_key) as ordering_keys
            from batch b where b.addressed_to is null group by b.tenant_id, b.type),
        wanted as materialized (
            select k.event_seqs, k.priorities, k.deliver_ats, k.ordering_keys, m.*, m.filter is not null
                       and (expand.skip_filters or m.version = any (expand.slow_versions) or m.tenant_id = any (slow_tenants)) as undecided
            from kinds k
            cross join lateral outbox_relay.patterns_of(k.type) p (pattern)
            cross join lateral (
                -- offset 0 keeps this a look-up by the primary key, whatever the statistics say
                select m.* from outbox_relay.route m where m.tenant_id = k.tenant_id and m.pattern = p.pattern offset 0) m),
        chosen as (
            select e.event_seq, e.priority, e.deliver_at, e.ordering_key, w.subscription_id, w.version, w.max_in_flight, w.paced, w.ordered, w.undecided
            from wanted w
            cross join lateral unnest(w.event_seqs, w.priorities, w.deliver_ats, w.ordering_keys) e (event_seq, priority, deliver_at, ordering_key)
            where w.filter is null or w.undecided
            union all
            -- A filter reads the payload, which is not carried along above; without any this costs nothing.
            select b.event_seq, b.priority, b.deliver_at, b.ordering_key, m.subscription_id, m.version, m.max_in_flight, m.paced, m.ordered, false
            from batch b
            cross join lateral outbox_relay.patterns_of(b.type) p (pattern)
            cross join lateral (
                select m.* from outbox_relay.route m
                where m.tenant_id = b.tenant_id and m.pattern = p.pattern and m.filter is not null offset 0) m
            where (select coalesce(bool_or(w.filter is not null and not w.undecided), false) from wanted w) and b.addressed_to is null
              -- One condition, so that no filter is evaluated that is not to be.
              and case when expand.skip_filters or m.version = any (expand.slow_versions) or m.tenant_id = any (slow_tenants) then false
                  else coalesce(jsonb_path_query_first(b.payload, m.filter, '{}', true) not in ('false', 'null'), false) end),
        matched as materialized (
            select h.event_seq, h.priority, h.deliver_at, h.subscription_id, h.version, h.max_in_flight, h.paced,
                   case when h.ordered then outbox_relay.queue_key(h.ordering_key) end as ordering_key,
                   h.deliver_at is null or h.deliver_at <= now() as due, h.undecided
            from chosen h),
        keyed as (
            select k.subscription_id, k.event_seq, row_number() over (partition by k.subscription_id, k.ordering_key order by k.event_seq) > 1 as parked,
                   outbox_relay.first_of_key(k.subscription_id, k.ordering_key) is not null
                   or exists (select from outbox.stopped_key t where t.subscription_id = k.subscription_id and t.ordering_key = k.ordering_key) as behind
            from matched k where k.ordering_key is not null and not k.undecided),
        judged as (
            select j.*, j.due and j.busy < 2147483647 and not (j.undecided or j.paced or j.shut or j.parked or j.behind) as may_lease
            from (select m.*, coalesce(b.count, 0) as busy, coalesce(k.parked, false) as parked, coalesce(k.behind, false) as behind,
                         -- a hashed look-up, however many there are
                         m.subscription_id in (select h.subscription_id from outbox.subscription_health h where h.circuit <> 'closed') as shut
                  from matched m
                  left join unnest(expand.busy_subscription_ids, expand.busy_counts) b (subscription_id, count) on b.subscription_id = m.subscription_id
                  left join keyed k on k.subscription_id = m.subscription_id and k.event_seq = m.event_seq) j),
        fitting as (
            select j.*, j.may_lease and row_number() over (partition by j.subscription_id, j.may_lease order by j.priority desc, j.event_seq)
                <= coalesce(j.max_in_flight, expand.default_max_in_flight) - j.busy as fits
            from judged j),
        led as (
            select coalesce(max(b.event_seq), 0) as at from batch b
            where expand.keep_back_ms > 0
              and b.event_seq not in (select f.event_seq from fitting f group by f.event_seq having bool_and(f.may_lease and not f.fits))),
        ended as materialized (
            select case when expand.keep_back_ms > 0 and (
                       select outbox_relay.made_at(k.event_id) between clock_timestamp() - make_interval(secs => expand.keep_back_ms / 1000.0)
                           and clock_timestamp()
                       from (select b.event_id from batch b where b.event_seq > l.at order by b.event_seq limit 1) k)
                   then nullif(l.at, 0) else (select max(b.event_seq) from batch b) end as at
            from led l),
        placed as materialized (
            select f.*, f.fits and row_number() over (partition by f.fits order by f.priority desc, f.event_seq) <= expand.lease_limit as leased
            from fitting f
            where f.event_seq <= (select d.at from ended d)),
        born as (
            insert into outbox_relay.queue (subscription_id, event_seq, priority, state, epoch, next_attempt_at, ordering_key)
            select subscription_id, event_seq, priority, case when leased then 'leased' else 'pending' end,
                   case when leased then expand.epoch end,
                   case when parked then 'infinity' when not leased then greatest(deliver_at, now()) end, ordering_key
            from placed where not undecided),
        given_up as (
            insert into outbox_relay.finished (subscription_id, event_seq, created_at, attempts, state, last_error)
            select subscription_id, event_seq, now(), 0, 'dead_letter', 'the filter could not be evaluated in time'
            from placed where undecided
            returning subscription_id, event_seq)
        (select b.event_seq, b.event_id, b.tenant_id, b.type, null, b.occurred_at, left(b.metadata ->> 'traceparent', 256), l.subscription_ids, l.versions,
               null, null, null, null, null, b.payload, null::bigint, null::bigint, null::pg_snapshot, null::bigint[], null::bigint[]
        from batch b
        join (select event_seq, array_agg(subscription_id) as subscription_ids, array_agg(version) as versions
              from placed where leased group by event_seq) l using (event_seq)
        order by b.priority desc, b.event_seq)
        union all
        select null, null, null, null, null, null, null, null, null,
               t.expanded, (select count(*)::integer from placed where not leased and not undecided and not shut and not parked),
               null, t.prioritised, t.read - t.expanded, null, t.read_end, t.batch_end, pg_current_snapshot(),
               (select array_agg(subscription_id) from given_up), (select array_agg(event_seq) from given_up)
        from (select count(*) filter (where b.event_seq <= d.at)::integer as expanded, count(*)::integer as read, max(b.event_seq) as read_end,
                     max(d.at) as batch_end, coalesce(bool_or(b.priority <> 0 and b.event_seq > coalesce(d.at, 0)), false) as prioritised
              from ended d cross join batch b) t
    loop
        if r.event_seq is null then
            summary := r;
            continue;
        end if;
        if bytes_left > 0 then
            -- What payload_text does with a small one, without the call: it is soon written, even if it is meant to be vast.
            -- Up to 16 KiB that takes a fifth of a second at worst (1,200 numbers such as 1e131071); the first that turns out
            -- to be such a one makes this call weigh all that are over 2,000 bytes before it writes them.
            stored_bytes := pg_column_size(r.stored #> '{}');
            r.payload := case when stored_bytes <= case when wary then 2000 else 16384 end then r.stored::text else outbox_relay.payload_text(r.stored) end;
            wary := wary or (octet_length(r.payload) <= 8 * stored_bytes) is not true;
            if r.payload is null or octet_length(r.payload) > 8::bigint * greatest(max_bytes, stored_bytes) then
                vast := vast || r.event_seq;
                continue;
            end if;
            needed := cardinality(r.subscription_ids) * octet_length(r.payload)::bigint;
            if needed <= bytes_left then
                r.stored := null;
                bytes_left := bytes_left - needed;
                return next r;
                continue;
            end if;
        end if;
        fitting := case when bytes_left > 0 then greatest(bytes_left / octet_length(r.payload), (bytes_left = byte_limit)::integer) else 0 end;
        beyond_ids := beyond_ids || r.subscription_ids[fitting + 1:];
        beyond_seqs := beyond_seqs || array_fill(r.event_seq, array[cardinality(r.subscription_ids) - fitting]);
        if fitting > 0 then
            r.subscription_ids := r.subscription_ids[:fitting];
            r.versions := r.versions[:fitting];
            r.stored := null;
            bytes_left := bytes_left - fitting * octet_length(r.payload)::bigint;
            return next r;
        end if;
    end loop;
    if summary.dead_ids is not null then
        perform outbox_relay.dead_lettered(summary.dead_ids, summary.dead_seqs, null);
    end if;
    if slow_versions <> '{}' then
        perform outbox_relay.take_out(slow_versions, summary.batch_end);
    end if;
    if beyond_ids <> '{}' then
        update outbox_relay.queue q set state = 'pending', epoch = null, next_attempt_at = now()
        from unnest(beyond_ids, beyond_seqs) b (subscription_id, event_seq)
        where q.subscription_id = any (array[b.subscription_id]) and q.event_seq = b.event_seq;
        summary.queued := summary.queued + cardinality(beyond_ids);
    end if;
    if vast <> '{}' then
        perform outbox_relay.give_up(q.subscription_id, q.event_seq, 'the payload as JSON text is over eight times max_payload_bytes')
        from outbox_relay.queue q join unnest(vast) v (event_seq) using (event_seq)
        where q.epoch = expand.epoch;
    end if;

    -- A target that an earlier call opened says nothing of what was committed since: look again.
    filled := summary.expanded + summary.kept_back = event_limit;
    summary.more := filled or summary.kept_back > 0 or not opened;
    summary.prioritised := summary.prioritised or summary.more
        and exists (select from outbox.event e where e.event_seq > coalesce(summary.read_end, c.target_end) and e.priority <> 0);
    return next summary;
    if summary.expanded = 0 and summary.kept_back > 0 then
        return;     -- the same again, once there is room
    end if;
    if summary.expanded = 0 and opened and greatest(c.target_seq, began_seq) - c.seen_seq < 1000 then
        return;     -- nothing new: leave no trace, unless every look would read a long stretch again
    end if;

    if summary.expanded > 0 and exists (
        select from (select g.config from outbox_relay.regime g order by regime_id desc limit 1) g,
            lateral (select v.xact from outbox_relay.subscription_version v where v.xact >= pg_snapshot_xmax(g.config)
                     union all
                     select v.xact from pg_snapshot_xip(g.config) x join outbox_relay.subscription_version v on v.xact = x) v
        where pg_visible_in_snapshot(v.xact, summary.matched_under)) then
        insert into outbox_relay.regime (config, seen, target, position, floor_seq)
        values (summary.matched_under, began_at.seen, began_at.target, began_at.position, c.floor_seq);
    end if;

    if filled or summary.kept_back > 0 then
        c.position := summary.batch_end;
    else
        if pg_snapshot_xmin(c.target) >= c.next_xact then
            c.floor_xact := c.next_xact;
            c.floor_seq := c.next_seq;
            c.next_xact := pg_snapshot_xmax(c.target);
            c.next_seq := c.target_seq;
        end if;
        c.seen := c.target;
        c.seen_seq := c.target_seq;
        c.target := null; c.target_seq := null; c.target_end := null; c.position := null; c.late := null;
    end if;
    if began_seq is not null then
        c.head_xact := pg_current_xact_id();
        c.head_seq := began_seq;
    end if;
    insert into outbox_relay.cursor (seen, seen_seq, target, target_seq, target_end, position, late, floor_xact, floor_seq, next_xact, next_seq,
        head_xact, head_seq)
    values (c.seen, c.seen_seq, c.target, c.target_seq, c.target_end, c.position, c.late, c.floor_xact, c.floor_seq, c.next_xact, c.next_seq,
        c.head_xact, c.head_seq)
    returning cursor_id into new_id;
    -- One row out for each row in, by its key: a range would walk the dead rows an old snapshot keeps.
    delete from outbox_relay.cursor where cursor_id = new_id - 16;
end
$$;
comment on function outbox_relay.expand is 'Turns the next events of the log into deliveries, leased to the caller as far as it has room.';
