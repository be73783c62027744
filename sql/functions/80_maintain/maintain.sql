create or replace function outbox_relay.maintain()
returns table (action text, segment bigint, detail text)
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off
as $$
-- Housekeeping, from one relay at a time about once a minute: makes segments ahead, begins a new one when
-- the current is old or large enough, drops those past retention, prunes idempotency keys, cancels what
-- was created for a subscription in the moment it was unsubscribed, and disables those that have failed for
-- too long. Says what it did, a row each; as long as it made, began or dropped something, there may be more to do,
-- each in a transaction of its own.
--
-- Locks are tried for a tenth of a second; what cannot be had is left for the next time, because a queued
-- exclusive lock stops every writer behind it.
-- If nobody cut a segment in time, what came lies in the default partitions and stays there: the log moves on to the
-- next segment, and retention deletes it. Where positions come to an end no more segments are made.
-- Invariants: no DELETE on event, finished or attempt, but for what lies in the default partitions; a segment goes
-- only when all its events are expanded and the queue holds nothing of it.
#variable_conflict use_column
declare
    width     constant bigint := 10000000000;
    -- The last that is whole: 2^63 - 1 lies in the one behind it.
    last      constant bigint := 922337202;
    head      bigint;
    current   bigint;
    interval_ interval;
    events    bigint;
    retention interval;
    n         bigint;
    c         outbox_relay.cursor;
    s         record;
    parent    text;
    is_uncut  boolean;
    is_left   boolean;
    made      boolean := false;
begin
    if not pg_try_advisory_xact_lock(1869968482, 5) then
        return;
    end if;
    perform set_config('lock_timeout', '100ms', true);
    select value::interval into interval_ from outbox.setting where name = 'segment_interval';
    select value::bigint into events from outbox.setting where name = 'segment_events';
    select value::interval into retention from outbox.setting where name = 'retention';
    select last_value - (not is_called)::integer into head from outbox.event_event_seq_seq;
    current := head / width;
    select * into c from outbox_relay.cursor order by cursor_id desc limit 1;

    -- Pruning first: the locks that dropping takes are held until the end.
    delete from outbox_relay.idempotency_key k
    where k.ctid = any (array(select i.ctid from outbox_relay.idempotency_key i
        where i.created_at < now() - (select value::interval from outbox.setting where name = 'idempotency_retention')
        order by i.created_at limit 50000));
    get diagnostics n = row_count;
    if n > 0 then
        action := 'pruned'; segment := null; detail := format('%s idempotency keys', n);
        return next;
    end if;

    begin
        perform outbox_relay.cancel_outstanding(u.subscription_id, reason => 'unsubscribed', leased_too => false)
        from outbox.subscription u
        where u.unsubscribed_at is not null
          and exists (select from outbox_relay.queue q where q.subscription_id = u.subscription_id and q.state <> 'leased');
    exception when lock_not_available then
        -- Somebody's open transaction has one of them: the next time.
        null;
    end;
    for n in select outbox_relay.disable(array[h.subscription_id],
                 format('nothing but failures since %s', to_char(h.failing_since at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')))
             from outbox.subscription_health h
             join outbox.subscription s on s.subscription_id = h.subscription_id and s.active
             where h.last_failure_at - h.failing_since >= (select value::interval from outbox.setting where name = 'auto_disable_after') loop
        action := 'disabled'; segment := null; detail := format('subscription %s', n);
        return next;
    end loop;
    perform outbox_relay.mend_clock();
    delete from outbox_relay.relay r where r.fenced_at < now() - interval '30 days';
    delete from outbox_relay.cursor k where k.cursor_id < c.cursor_id - 64;
    perform outbox_relay.compact_samples();
    -- So many at a time: a backlog must not use up the time that segments need.
    delete from outbox.audit a
    where a.ctid = any (array(select i.ctid from outbox.audit i
        where i.at < now() - (select value::interval from outbox.setting where name = 'audit_retention') order by i.at limit 50000));
    delete from outbox_relay.session t where t.seen_at < now() - interval '1 day';
    delete from outbox_relay.idempotent_request t
    where t.ctid = any (array(select i.ctid from outbox_relay.idempotent_request i
        where i.created_at < now() - (select value::interval from outbox.setting where name = 'idempotency_retention') order by i.created_at limit 50000));

    if current >= last / 10 * 9 then
        action := 'running out'; segment := null; detail := format('position %s of %s: outbox.event takes no event after the last', head, 9223372036854775807);
        return next;
    end if;

    for n in current .. least(current + 2, last) loop
        if not exists (select from outbox_relay.segment g where g.segment = n) then
            begin
                perform outbox_relay.make_segment(n);
                made := true;
                action := 'made'; segment := n; detail := null;
                return next;
            exception
                when lock_not_available then
                    action := 'postponed'; segment := n; detail := 'making: ' || sqlerrm;
                    return next;
                when check_violation then
                    insert into outbox_relay.segment (segment) values (n);
                    action := 'passed over'; segment := n; detail := 'it was not cut in time: what it has lies in the default partitions';
                    return next;
            end;
        end if;
    end loop;

    update outbox_relay.segment g set opened_at = now() where g.segment = current and g.opened_at is null;
    update outbox_relay.segment g set opened_at = coalesce(g.opened_at, now()), closed_at = now()
    where g.segment < current and g.closed_at is null;

    -- The current segment has events, is old or large enough or has no partitions, and the next one is there to move to.
    -- The gap that the sequence jumps is what makes reading and moving it safe without a lock, see V2__log.sql.
    is_uncut := to_regclass(format('outbox.event_s%s', current)) is null;
    if current < last and head > current * width
        and (head - current * width >= events or is_uncut
            or exists (select from outbox_relay.segment g where g.segment = current and g.opened_at <= now() - interval_))
        and to_regclass(format('outbox.event_s%s', current + 1)) is not null
        and (current + 1) * width - head > width / 2 then
        perform setval('outbox.event_event_seq_seq', (current + 1) * width, false);
        update outbox_relay.segment g set closed_at = now() where g.segment = current;
        update outbox_relay.segment g set opened_at = now() where g.segment = current + 1;
        action := 'begun'; segment := current + 1; detail := format('after %s events', head - current * width);
        return next;
    end if;

    -- Making one has locked the default partitions until the end, dropping one locks the whole first, and so does
    -- whoever reads: both in one transaction and a reader wait for each other. The caller comes again.
    if made then
        return;
    end if;
    for s in select g.segment from outbox_relay.segment g where g.closed_at < now() - retention order by g.segment loop
        segment := s.segment;
        if c.floor_seq < (s.segment + 1) * width - 1 and exists (
            select from outbox.event e where e.event_seq >= s.segment * width and e.event_seq < (s.segment + 1) * width
            and not outbox_relay.expanded_before(e.xact, e.event_seq, c.seen, c.target, c.position, c.floor_seq)) then
            action := 'postponed'; detail := 'dropping: it has events that are not expanded';
        elsif exists (select from outbox_relay.queue q where q.event_seq >= s.segment * width and q.event_seq < (s.segment + 1) * width) then
            action := 'postponed'; detail := 'dropping: it has deliveries outstanding';
        else
            begin
                is_left := false;
                is_uncut := to_regclass(format('outbox.event_s%s', s.segment)) is null;
                foreach parent in array array['outbox.event', 'outbox_relay.finished', 'outbox.attempt'] loop
                    if is_uncut then
                        execute format('delete from %1$s_default d where d.ctid = any (array(select i.ctid from %1$s_default i
                            where i.event_seq >= %2$s and i.event_seq < %3$s limit 50000))',
                            parent, s.segment * width, (s.segment + 1) * width);
                        get diagnostics n = row_count;
                        is_left := is_left or n = 50000;
                    else
                        execute format('drop table %s_s%s', parent, s.segment);
                    end if;
                end loop;
                if exists (select from outbox_relay.queue q where q.event_seq >= s.segment * width and q.event_seq < (s.segment + 1) * width) then
                    raise lock_not_available using message = 'a delivery of it was replayed just now';
                end if;
                if is_left then
                    action := 'postponed'; detail := 'dropping: more of it lies in the default partitions';
                else
                    delete from outbox_relay.segment g where g.segment = s.segment;
                    action := 'dropped'; detail := null;
                end if;
            exception when lock_not_available then
                action := 'postponed'; detail := 'dropping: ' || sqlerrm;
                return next;
                -- What is in the way of this one is in the way of the next, for which all would stand still again.
                return;
            end;
        end if;
        return next;
    end loop;
end
$$;
comment on function outbox_relay.maintain is 'Housekeeping: segments, retention, idempotency keys.';
