-- A queue and two logs. What still has to happen is in outbox_relay.queue, whose size is what is
-- outstanding; what has happened is appended to outbox_relay.finished and outbox.attempt, which are
-- never visited again. A delivery is in exactly one of queue and finished.
--
-- No foreign keys here: each would cost a lookup and a row lock a delivery.

create table outbox_relay.relay (
    epoch       integer generated always as identity primary key,
    name        text not null,
    version     text not null,
    environment text not null,
    hold        text,
    started_at  timestamptz not null default now(),
    fenced_at   timestamptz
);
comment on table outbox_relay.relay is 'One life of one relay. Alive as long as its session holds the advisory lock of its epoch.';
comment on column outbox_relay.relay.hold is 'Why this relay sends nothing, if it does not.';
comment on column outbox_relay.relay.fenced_at is 'When it ended or was found dead; its leases were handed back in the same transaction.';

create table outbox_relay.queue (
    subscription_id  bigint      not null,
    event_seq        bigint      not null,
    next_attempt_at  timestamptz,
    created_at       timestamptz not null default now(),
    updated_at       timestamptz not null default now(),
    epoch            integer,
    attempts         integer     not null default 0,
    failures         integer     not null default 0,
    priority         smallint    not null default 0,
    last_status_code smallint,
    state            text        not null,
    cause            text        not null default 'schedule',
    last_error       text,
    ordering_key     text,
    constraint queue_pkey primary key (subscription_id, event_seq),
    constraint queue_state check (state in ('pending', 'leased', 'failed')),
    constraint queue_lease check ((state = 'leased') = (epoch is not null)),
    constraint queue_due check ((state = 'leased') = (next_attempt_at is null)),
    constraint queue_cause check (cause in ('schedule', 'replay', 'test'))
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 200000,
        autovacuum_vacuum_cost_delay = 0);
-- Only rows with a due time are in it, so the way to success never touches it.
create index queue_due_idx on outbox_relay.queue (subscription_id, priority, next_attempt_at) where next_attempt_at is not null;
create index queue_retry_idx on outbox_relay.queue (subscription_id, next_attempt_at) where state = 'failed';
create index queue_leased_key_idx on outbox_relay.queue (subscription_id, ordering_key) where state = 'leased' and ordering_key is not null;
create index queue_test_idx on outbox_relay.queue (next_attempt_at) where cause = 'test' and next_attempt_at is not null;
create index queue_ordering_key_idx on outbox_relay.queue (subscription_id, ordering_key, event_seq) where ordering_key is not null;
comment on table outbox_relay.queue is 'Outstanding deliveries: pending, leased to a relay, or failed with another attempt scheduled.';
comment on column outbox_relay.queue.next_attempt_at is 'When it is due; null while it is leased; infinity while it is parked behind an earlier event of its ordering key.';
comment on column outbox_relay.queue.epoch is 'The relay that holds the lease. Results count only while it does: this column is the fence.';
comment on column outbox_relay.queue.attempts is 'Attempts made so far, over all runs.';
comment on column outbox_relay.queue.failures is 'Failed attempts of this run: the position in the retry schedule.';
comment on column outbox_relay.queue.cause is 'Why the next attempt is made.';
comment on column outbox_relay.queue.ordering_key is 'Set where the subscription was ordered when the event was expanded: such deliveries are made one after the other.';
comment on index outbox_relay.queue_due_idx is 'What is due, subscription by subscription, so that one of them cannot stand in the way of another.';
comment on index outbox_relay.queue_ordering_key_idx is 'Finds the first outstanding delivery of an ordering key.';
comment on index outbox_relay.queue_retry_idx is 'Retries, which keep to their schedule while a circuit holds back what was never attempted.';
comment on index outbox_relay.queue_leased_key_idx is 'Whether one of an ordering key is under way.';
comment on index outbox_relay.queue_test_idx is 'Tests, which are sent even while the subscription is paused.';

-- What outbox_relay.expand returns: the first fourteen columns are its answer, the rest is what it works with.
create type outbox_relay.expansion as (
    event_seq bigint, event_id uuid, tenant_id text, type text, payload text, occurred_at timestamptz, traceparent text,
    subscription_ids bigint[], versions bigint[], expanded integer, queued integer, more boolean, prioritised boolean,
    kept_back integer, stored jsonb, read_end bigint, batch_end bigint, matched_under pg_snapshot, dead_ids bigint[], dead_seqs bigint[]);
comment on type outbox_relay.expansion is 'A row of what outbox_relay.expand returns.';

create table outbox.stopped_key (
    subscription_id bigint      not null,
    ordering_key    text        not null,
    event_seq       bigint      not null,
    stopped_at      timestamptz not null default now(),
    primary key (subscription_id, ordering_key)
);
comment on table outbox.stopped_key is 'Ordering keys that wait because one of their events was given up (setting ordered_on_dead_letter). outbox.skip, outbox.park or outbox.replay of that event lets them go on.';
comment on column outbox.stopped_key.event_seq is 'The event that was given up.';

create table outbox_relay.finished (
    subscription_id  bigint      not null,
    event_seq        bigint      not null,
    created_at       timestamptz not null,
    finished_at      timestamptz not null default now(),
    attempts         integer     not null,
    last_status_code smallint,
    state            text        not null,
    last_error       text,
    constraint finished_pkey primary key (subscription_id, event_seq),
    constraint finished_state check (state in ('succeeded', 'dead_letter', 'cancelled'))
) partition by range (event_seq);
create index finished_dead_letter_idx on outbox_relay.finished (subscription_id, event_seq) where state = 'dead_letter';
comment on table outbox_relay.finished is 'Deliveries that came to an end.';
comment on index outbox_relay.finished_dead_letter_idx is 'Counts and replays dead letters without reading what succeeded.';

create table outbox.attempt (
    subscription_id  bigint      not null,
    event_seq        bigint      not null,
    started_at       timestamptz not null,
    attempt          integer     not null,
    latency_ms       integer     not null,
    status_code      smallint,
    outcome          text        not null,
    cause            text        not null,
    relay            text        not null,
    error            text,
    response_excerpt text,
    response_headers jsonb,
    request_headers  jsonb,
    key_ids          text[]      not null default '{}',
    constraint attempt_pkey primary key (subscription_id, event_seq, attempt),
    constraint attempt_outcome check (outcome in ('delivered', 'rejected', 'timeout', 'dns_error', 'connect_error',
        'tls_error', 'egress_refused', 'protocol_error', 'relay_error')),
    constraint attempt_cause check (cause in ('schedule', 'replay', 'test'))
) partition by range (event_seq);
comment on table outbox.attempt is 'One HTTP attempt, successful or not; append-only.';
comment on column outbox.attempt.attempt is 'Counts from 1 over all runs of the delivery.';
comment on column outbox.attempt.latency_ms is 'From the start of the attempt to its outcome, in milliseconds.';
comment on column outbox.attempt.response_excerpt is 'The first bytes of the answer as text (setting response_excerpt_bytes). Hostile text: escape it.';
comment on column outbox.attempt.request_headers is 'As sent, without signatures.';
comment on column outbox.attempt.key_ids is 'The keys that signed.';
comment on column outbox.attempt.relay is 'The name of the relay that made the attempt.';

-- The first segments, and default partitions that catch what comes if nobody cut one.
create table outbox.event_default partition of outbox.event default;
create table outbox_relay.finished_default partition of outbox_relay.finished default;
create table outbox.attempt_default partition of outbox.attempt default;
comment on table outbox.event_default is 'Catches positions outside every segment; empty as long as outbox_relay.maintain runs.';
comment on table outbox_relay.finished_default is 'As outbox.event_default.';
comment on table outbox.attempt_default is 'As outbox.event_default.';
create table outbox.event_s0 partition of outbox.event for values from (0) to (10000000000);
create table outbox_relay.finished_s0 partition of outbox_relay.finished for values from (0) to (10000000000);
create table outbox.attempt_s0 partition of outbox.attempt for values from (0) to (10000000000);
-- Nobody plans by what is in these columns, and to sort a sample of documents takes ANALYZE seconds. New segments follow.
alter table outbox.event alter column payload set statistics 0, alter column metadata set statistics 0;
alter table outbox.attempt alter column response_excerpt set statistics 0, alter column response_headers set statistics 0,
    alter column request_headers set statistics 0, alter column key_ids set statistics 0;
insert into outbox_relay.segment (segment, opened_at) values (0, now());

create view outbox.delivery as
select d.subscription_id, d.event_seq, s.tenant_id, d.state, d.attempts, d.next_attempt_at, r.name as leased_by,
       d.last_status_code, d.last_error, d.created_at, d.updated_at, d.finished_at
from (
    select subscription_id, event_seq, state, attempts, next_attempt_at, epoch, last_status_code, last_error,
           created_at, updated_at, null::timestamptz as finished_at
    from outbox_relay.queue
    union all
    select subscription_id, event_seq, state, attempts, null, null, last_status_code, last_error,
           created_at, finished_at, finished_at
    from outbox_relay.finished
) d
left join outbox.subscription s on s.subscription_id = d.subscription_id
left join outbox_relay.relay r on r.epoch = d.epoch;
comment on view outbox.delivery is 'One event for one subscription: outstanding or finished.';
comment on column outbox.delivery.state is 'pending, leased, failed (another attempt is scheduled), succeeded, dead_letter (given up) or cancelled.';
comment on column outbox.delivery.next_attempt_at is 'When it is due; infinity while it waits for an earlier event of its ordering key.';
comment on column outbox.delivery.attempts is 'Attempts made so far, over all runs.';
