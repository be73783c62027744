drop function if exists outbox_relay.record(integer, text, bigint[], bigint[], timestamptz[], integer[], text[], smallint[], text[], text[], text[], text[], text[], integer[], text[], boolean);
create or replace function outbox_relay.record(
    epoch integer, relay text, subscription_ids bigint[], event_seqs bigint[], started_ats timestamptz[], latencies_ms integer[],
    outcomes text[], status_codes smallint[], errors text[], response_excerpts text[], response_headers text[],
    request_headers text[], key_ids text[], retry_afters_s integer[], causes text[], asynchronous boolean,
    event_ids uuid[] default null)
returns table (subscription_id bigint, event_seq bigint, attempt integer, state text, next_attempt_at timestamptz)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
-- Records the results of attempts: each in the attempt log, and as the delivery's new state if the
-- lease still holds.
--
--   delivered   out of the queue, into finished, in one statement for all of them: the common way
--   failed      back into the queue with the due time of the next attempt; into finished as dead_letter
--               when the schedule is exhausted or would lead beyond its max_age, when it was a test, or when
--               the endpoint said 410
--   late        the lease was lost to another relay, a cancel or an unsubscribe: the attempt is logged,
--               the state is not touched. (After a failover that lost the event its position may be another
--               event's, which event_ids tell: then nothing is logged. No lease of this epoch can be that
--               other event's, because expand and claim give none to an epoch of an earlier timeline.)
--   known       recorded by an earlier call whose answer was lost: nothing. That the epoch holds the lease does not tell,
--               it may be the next one of the same delivery; a delivery without attempts has none to be known.
--
-- The arrays are parallel and hold a delivery at most once; key_ids has the ids of one attempt between commas.
-- No statement joins two sets of the batch with each other (hash joins are off): what a later step needs is
-- carried along by RETURNING. That queue is reached by its key, row by row, is held by = any (array[x]), which an
-- index takes but no merge does. With a plain = the planner may walk the whole index for its order, and
-- prefers that if queue was empty when it was last analyzed: each of its rows was then compared with
-- each result, and 512 results took 110 ms instead of 6.
--
-- Returns a row for each result that was not a success, and for each late one (state null); and one with
-- event_seq null if the next delivery of an ordering key is due now.
-- A row that an operator's open transaction has locked is waited for a fifth of a second; then the call
-- fails (55P03), and the relay keeps that result and records the others.
-- Called by the relay's loop. Writes queue, finished, attempt; what follows a dead letter; on 410 subscription.
-- Invariant: succeeded only with a lease of this epoch.
#variable_conflict use_column
declare
    done       bigint[];
    rest       bigint[];
    r          record;
    freed_ids  bigint[];
    freed_keys text[];
    dead_ids   bigint[];
    dead_seqs  bigint[];
    dead_keys  text[];
    released   boolean := false;
    gone       bigint[];
begin
    perform outbox_relay.require_read_committed();
    if asynchronous then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    perform set_config('lock_timeout', '200ms', true);

    with result as (
        select * from unnest(record.subscription_ids, record.event_seqs, record.started_ats, record.latencies_ms, record.outcomes,
                record.status_codes, record.response_excerpts, record.response_headers, record.request_headers, record.key_ids)
            with ordinality as r (subscription_id, event_seq, started_at, latency_ms, outcome, status_code, response_excerpt,
                response_headers, request_headers, key_ids, nth)
        where outcome = 'delivered'),
    ended as (
        delete from outbox_relay.queue q using result r
        where q.subscription_id = any (array[r.subscription_id]) and q.event_seq = r.event_seq and q.epoch = record.epoch
          and (q.attempts = 0 or not outbox_relay.is_recorded(r.subscription_id, r.event_seq, r.started_at))
        returning r.*, q.created_at, q.attempts + 1 as attempts, q.cause, q.ordering_key),
    logged as (
        insert into outbox.attempt (subscription_id, event_seq, started_at, attempt, latency_ms, status_code, outcome, cause, relay,
            response_excerpt, response_headers, request_headers, key_ids)
        select subscription_id, event_seq, started_at, attempts, latency_ms, status_code, outcome, cause, record.relay,
            response_excerpt, response_headers::jsonb, request_headers::jsonb, string_to_array(key_ids, ',') from ended),
    kept as (
        insert into outbox_relay.finished (subscription_id, event_seq, created_at, attempts, last_status_code, state)
        select subscription_id, event_seq, created_at, attempts, status_code, 'succeeded' from ended)
    select coalesce(array_agg(nth), '{}'), array_agg(subscription_id) filter (where ordering_key is not null),
           array_agg(ordering_key) filter (where ordering_key is not null)
    into done, freed_ids, freed_keys from ended;
    if freed_ids is not null then
        released := outbox_relay.release_next(freed_ids, freed_keys);
    end if;
    if cardinality(done) = cardinality(subscription_ids) then
        if released then
            next_attempt_at := now();
            return next;
        end if;
        return;
    end if;

    rest := array(select nth from generate_series(1, cardinality(subscription_ids)) nth
                  where outcomes[nth] <> 'delivered' order by subscription_ids[nth], event_seqs[nth]);
    for r in
        with result as (
            select nth, record.subscription_ids[nth] as subscription_id, record.event_seqs[nth] as event_seq, record.started_ats[nth] as started_at,
                   record.latencies_ms[nth] as latency_ms, record.outcomes[nth] as outcome, record.status_codes[nth] as status_code,
                   record.errors[nth] as error, record.response_excerpts[nth] as response_excerpt, record.response_headers[nth] as response_headers,
                   record.request_headers[nth] as request_headers, record.key_ids[nth] as key_ids,
                   make_interval(secs => record.retry_afters_s[nth]) as retry_after
            from unnest(rest) nth),
        scheduled as (
            select r.*, case
                when q.cause = 'test' or r.status_code = 410 then null
                when r.retry_after is not null and q.failures < cardinality(p.delays)
                    -- the receiver's wish, within the schedule's shortest and longest wait
                    then greatest(least(r.retry_after, (select max(d) from unnest(p.delays) d)), (select min(d) from unnest(p.delays) d))
                else p.delays[q.failures + 1] end * (1 + p.jitter * random()) as delay,
                case when q.cause = 'schedule' and p.max_age is not null
                    then greatest(q.created_at, (select e.deliver_at from outbox.event e where e.event_seq = q.event_seq)) + p.max_age end as give_up_at
            from result r
            -- offset 0: or it is joined by subscription alone, and the event looked for among all that is outstanding
            cross join lateral (
                select q.* from outbox_relay.queue q
                where q.subscription_id = r.subscription_id and q.event_seq = r.event_seq and q.epoch = record.epoch offset 0) q
            join outbox.subscription s on s.subscription_id = r.subscription_id
            join outbox.retry_policy p on p.name = s.retry_policy),
        decided as materialized (
            -- wait is null when there is no further attempt
            select s.*, case when clock_timestamp() + s.delay > s.give_up_at then null else s.delay end as wait from scheduled s),
        ended as (
            delete from outbox_relay.queue q using decided d
            where q.subscription_id = any (array[d.subscription_id]) and q.event_seq = d.event_seq and q.epoch = record.epoch and d.wait is null
              and (q.attempts = 0 or not outbox_relay.is_recorded(d.subscription_id, d.event_seq, d.started_at))
            returning d.*, q.created_at, q.attempts + 1 as attempt, q.cause, q.ordering_key),
        retried as (
            update outbox_relay.queue q
            set state = 'failed', epoch = null, attempts = q.attempts + 1, failures = q.failures + 1, updated_at = now(),
                next_attempt_at = clock_timestamp() + d.wait, last_status_code = d.status_code, last_error = coalesce(d.error, d.outcome)
            from decided d
            where q.subscription_id = any (array[d.subscription_id]) and q.event_seq = d.event_seq and q.epoch = record.epoch and d.wait is not null
              and (q.attempts = 0 or not outbox_relay.is_recorded(d.subscription_id, d.event_seq, d.started_at))
            returning d.*, q.created_at, q.attempts as attempt, q.cause, q.ordering_key, q.next_attempt_at),
        all_done as materialized (
            select *, null::timestamptz as next_attempt_at from ended union all select * from retried),
        logged as (
            insert into outbox.attempt (subscription_id, event_seq, started_at, attempt, latency_ms, status_code, outcome, cause, relay,
                error, response_excerpt, response_headers, request_headers, key_ids)
            select subscription_id, event_seq, started_at, attempt, latency_ms, status_code, outcome, cause, record.relay,
                error, response_excerpt, response_headers::jsonb, request_headers::jsonb, coalesce(string_to_array(key_ids, ','), '{}') from all_done),
        kept as (
            insert into outbox_relay.finished (subscription_id, event_seq, created_at, attempts, last_status_code, state, last_error)
            select subscription_id, event_seq, created_at, attempt, status_code, 'dead_letter', coalesce(error, outcome) from ended)
        select nth, subscription_id, event_seq, attempt, ordering_key, next_attempt_at, status_code from all_done
    loop
        done := done || r.nth;
        if r.next_attempt_at is null then
            dead_ids := dead_ids || r.subscription_id; dead_seqs := dead_seqs || r.event_seq; dead_keys := dead_keys || r.ordering_key;
        end if;
        if r.status_code = 410 then
            gone := gone || r.subscription_id;
        end if;
        subscription_id := r.subscription_id; event_seq := r.event_seq; attempt := r.attempt; next_attempt_at := r.next_attempt_at;
        state := case when r.next_attempt_at is null then 'dead_letter' else 'failed' end;
        return next;
    end loop;

    if dead_ids is not null then
        released := outbox_relay.dead_lettered(dead_ids, dead_seqs, dead_keys) or released;
    end if;
    if gone is not null then
        begin
            perform outbox_relay.disable(gone, 'the endpoint answered 410 Gone');
        exception when others then
            raise warning 'subscription % answered 410 and could not be disabled: %', gone, sqlerrm;
        end;
    end if;

    if released then
        subscription_id := null; event_seq := null; attempt := null; state := null; next_attempt_at := now();
        return next;
    end if;
    if cardinality(done) < cardinality(subscription_ids) then
        state := null; next_attempt_at := null;
        for r in select nth from generate_series(1, cardinality(subscription_ids)) nth where nth <> all (done) loop
            subscription_id := subscription_ids[r.nth]; event_seq := event_seqs[r.nth];
            -- The relay tries again when an answer was lost: what the lost call did is not done twice.
            continue when outbox_relay.is_recorded(subscription_ids[r.nth], event_seqs[r.nth], started_ats[r.nth]);
            continue when event_ids[r.nth] is not null and not exists (select from outbox.event e
                where e.event_seq = event_seqs[r.nth] and e.event_id = event_ids[r.nth]);
            -- The row, wherever it is now, hands out the number, so that two late results cannot take the same.
            update outbox_relay.queue q set attempts = q.attempts + 1
            where q.subscription_id = subscription_ids[r.nth] and q.event_seq = event_seqs[r.nth]
            returning q.attempts into attempt;
            if not found then
                update outbox_relay.finished f set attempts = f.attempts + 1
                where f.subscription_id = subscription_ids[r.nth] and f.event_seq = event_seqs[r.nth]
                returning f.attempts into attempt;
            end if;
            if found then
                insert into outbox.attempt (subscription_id, event_seq, started_at, attempt, latency_ms, status_code, outcome, cause, relay,
                    error, response_excerpt, response_headers, request_headers, key_ids)
                values (subscription_ids[r.nth], event_seqs[r.nth], started_ats[r.nth], attempt, latencies_ms[r.nth], status_codes[r.nth],
                    outcomes[r.nth], causes[r.nth], record.relay, errors[r.nth], response_excerpts[r.nth], response_headers[r.nth]::jsonb,
                    request_headers[r.nth]::jsonb, coalesce(string_to_array(key_ids[r.nth], ','), '{}'));
                return next;
            end if;
        end loop;
    end if;
end
$$;
comment on function outbox_relay.record is 'Records the results of attempts: appended to the log, and the delivery''s state while the lease holds.';
