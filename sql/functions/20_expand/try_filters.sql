create or replace function outbox_relay.try_filters(
    epoch integer, event_limit integer, after_seq bigint, after_id bigint, slow_versions bigint[], tried_versions bigint[], tried_ms real[])
returns table (suspect bigint, is_sure boolean, events_before integer, reached_seq bigint, reached_id bigint, versions bigint[], ms real[], done boolean)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
-- Looks for the filter that kept expand from coming to an end: evaluates the filters of the next event_limit events
-- one at a time, behind (after_seq, after_id), and stops at the first suspect, when filter_timeout is spent, or at the
-- end (done). Nothing is locked and nothing written, so other relays and producers go on meanwhile.
--
-- No filter is begun once filter_timeout is spent, and begin_trial has set the statement's limit to twice that: a
-- filter that is cancelled has had at least filter_timeout for itself. What is spent by one subscription over the events
-- is added up and handed from call to call (versions, ms): many slow events are as bad as one that does not end, if each
-- is slow beyond doubt. For a single event its tenant's filters are added up too, and the dearest is the suspect:
-- that one is sure. Any other is asked for again with the same arguments before it is believed, because a machine
-- may have slept for a moment. What stands in slow_versions is passed over, and with three of a tenant all of it.
-- A payload is unpacked before the clock is started.
--
-- Called by the relay after an expand was cancelled, behind begin_trial. The batch is expand's, see there.
#variable_conflict use_column
declare
    allowed constant real := 1000 * extract(epoch from (select s.value::interval from outbox.setting s where s.name = 'filter_timeout'));
    began   constant timestamptz := clock_timestamp();
    began_at         timestamptz;       -- the filter under way
    slow_tenants     text[];
    c                outbox_relay.cursor;
    e                record;
    m                record;
    doc              jsonb;
    nth              integer;
    took             real;
begin
    versions := tried_versions;
    ms := tried_ms;
    events_before := -1;
    is_sure := false;
    done := false;
    slow_tenants := array(select v.tenant_id from outbox_relay.subscription_version v
                          where v.version = any (slow_versions) group by v.tenant_id having count(*) >= 3);
    select * into c from outbox_relay.cursor order by cursor_id desc limit 1;
    if c.target is null then
        select pg_current_snapshot() into c.target;
        select last_value into c.target_end from outbox.event_event_seq_seq;
        c.position := 0;
        c.late := array(select x from pg_snapshot_xip(c.seen) x where pg_visible_in_snapshot(x, c.target));
    end if;
    begin
        for e in
            select * from (
                (select e.* from (
                    select l.event_seq from outbox_relay.late_seqs(c.late, greatest(c.position, c.floor_seq), c.seen_seq, try_filters.event_limit) l (event_seq)
                    where c.late <> '{}' order by l.event_seq limit try_filters.event_limit) l
                cross join lateral (
                    select e.event_seq, e.tenant_id, e.type, e.payload, e.addressed_to
                    from outbox.event e where e.event_seq = l.event_seq offset 0) e)
                union all
                (select e.event_seq, e.tenant_id, e.type, e.payload, e.addressed_to
                from outbox.event e
                where e.event_seq > greatest(c.position, c.seen_seq) and e.event_seq <= c.target_end
                  and pg_visible_in_snapshot(e.xact, c.target) and not pg_visible_in_snapshot(e.xact, c.seen)
                order by e.event_seq limit try_filters.event_limit)) d
            order by event_seq limit try_filters.event_limit
        loop
            events_before := events_before + 1;
            continue when e.event_seq < after_seq or e.addressed_to is not null or e.tenant_id = any (slow_tenants);
            doc := null;
            for m in
                select r.subscription_id, r.version, r.filter
                from outbox_relay.patterns_of(e.type) p (pattern)
                cross join lateral (select r.* from outbox_relay.route r where r.tenant_id = e.tenant_id and r.pattern = p.pattern offset 0) r
                where r.filter is not null and r.version <> all (slow_versions) and (e.event_seq, r.subscription_id) > (after_seq, after_id)
                order by r.subscription_id
            loop
                if doc is null then
                    doc := e.payload #> '{}';
                end if;
                began_at := clock_timestamp();
                perform jsonb_path_query_first(doc, m.filter, '{}', true);
                took := 1000 * extract(epoch from clock_timestamp() - began_at);
                began_at := null;
                nth := array_position(versions, m.version);
                if nth is null then
                    versions := versions || m.version;
                    ms := ms || took;
                    nth := cardinality(ms);
                else
                    ms[nth] := ms[nth] + took;
                end if;
                reached_seq := e.event_seq;
                reached_id := m.subscription_id;
                if took >= allowed / 50 and ms[nth] >= allowed then
                    suspect := m.version;
                elsif event_limit = 1 and (select sum(t) >= 4 * allowed from unnest(versions, ms) d (v, t) where v <> all (slow_versions)) then
                    select v into suspect from unnest(versions, ms) d (v, t) where v <> all (slow_versions) order by t desc limit 1;
                    is_sure := true;
                end if;
                if suspect is not null or 1000 * extract(epoch from clock_timestamp() - began) >= allowed then
                    return next;
                    return;
                end if;
            end loop;
        end loop;
    exception when query_canceled then
        -- Somebody else's cancel, or too much besides the filters.
        if began_at is null or 1000 * extract(epoch from clock_timestamp() - began_at) < allowed then
            raise;
        end if;
        suspect := m.version;
        return next;
        return;
    end;
    done := true;
    return next;
end
$$;
comment on function outbox_relay.try_filters is 'Looks for the filter that kept expand from coming to an end.';
