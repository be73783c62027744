-- The log of events, and how far it has been expanded.
--
-- A segment is one range of event_seq, ten thousand million positions wide, and a partition of each
-- of outbox.event, outbox_relay.finished and outbox.attempt. Segments are not filled up: when one is
-- old or large enough, outbox_relay.maintain() moves the sequence to the start of the next. The gap it
-- jumps is so wide (at a million events a second, more than two hours) that the sequence cannot reach
-- the next start between being read and being moved, so no lock against producers is needed.
--
-- Rejected: bounds that follow the data (they need the sequence locked, so one long transaction of a
-- producer would stop all others).

create sequence outbox.event_event_seq_seq as bigint cache 1;
comment on sequence outbox.event_event_seq_seq is 'Positions in the log. CACHE must stay 1: the cursor relies on a position being drawn after its transaction got its id.';

-- xact stands before event_seq on purpose: defaults are evaluated in column order, so a transaction
-- has its id before it draws a position. Therefore: a transaction that gets its id after the sequence was
-- read lies, in the log, after what was read. The cursor stands on this.
create table outbox.event (
    xact         xid8        not null default pg_current_xact_id(),
    event_seq    bigint      not null default nextval('outbox.event_event_seq_seq'),
    event_id     uuid        not null default
        -- UUID version 7 (RFC 9562, 5.7): 48 bits of milliseconds over a random version 4.
        encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
            placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
            from 1 for 6), 52, 1), 53, 1), 'hex')::uuid,
    tenant_id    text        not null default 'default',
    type         text        not null,
    payload      jsonb       not null,
    occurred_at  timestamptz not null default now(),
    ordering_key text,
    priority     smallint    not null default 0,
    deliver_at   timestamptz,
    metadata     jsonb,
    addressed_to bigint,
    constraint event_pkey primary key (event_seq)
) partition by range (event_seq);
alter sequence outbox.event_event_seq_seq owned by outbox.event.event_seq;

create index event_xact_idx on outbox.event (xact, event_seq);
create index event_event_id_idx on outbox.event (event_id);
create index event_priority_idx on outbox.event (event_seq) where priority <> 0;

comment on table outbox.event is 'The log: one domain event a row, immutable. Applications insert here, in their own transaction.';
comment on column outbox.event.xact is 'The transaction that inserted the row; leave it to its default.';
comment on column outbox.event.event_seq is 'Position in the log; leave it to its default.';
comment on column outbox.event.event_id is 'The public id, sent to receivers; a version 7 UUID unless given.';
comment on column outbox.event.tenant_id is 'Only subscriptions of the same tenant receive the event.';
comment on column outbox.event.type is 'Dotted name, as order.created.';
comment on column outbox.event.payload is 'Sent as it is stored, numbers digit for digit.';
comment on column outbox.event.occurred_at is 'When it happened, by the application''s account.';
comment on column outbox.event.ordering_key is 'At an ordered subscription, the events of one key are delivered one after the other, in log order.';
comment on column outbox.event.priority is 'Of what is due for a subscription, the higher goes first.';
comment on column outbox.event.deliver_at is 'Not to be delivered before this time.';
comment on column outbox.event.metadata is 'An object for the application''s use; traceparent in it is passed on to receivers.';
comment on column outbox.event.addressed_to is 'Null, or the one subscription the event is for (outbox.send_test).';
comment on index outbox.event_xact_idx is 'Finds the events of a transaction that committed late.';
comment on index outbox.event_event_id_idx is 'Finds an event by its public id.';
comment on index outbox.event_priority_idx is 'Whether something in the log is not to wait its turn, in one probe; costs an ordinary event nothing.';

create table outbox_relay.segment (
    segment    bigint primary key,
    opened_at  timestamptz,
    closed_at  timestamptz,
    constraint segment_order check (closed_at is null or opened_at is not null)
);
comment on table outbox_relay.segment is 'Segment n holds event_seq from n * 10^10 up to the next. Opened when the sequence entered it, closed when it left.';

-- The cursor: appended and pruned, never updated, so that an old snapshot elsewhere keeps no chain of
-- versions that every read would have to walk.
create table outbox_relay.cursor (
    cursor_id   bigint generated always as identity primary key,
    seen        pg_snapshot not null,
    seen_seq    bigint      not null,
    target      pg_snapshot,
    target_seq  bigint,
    target_end  bigint,
    position    bigint,
    late        xid8[],
    floor_xact  xid8        not null,
    floor_seq   bigint      not null,
    next_xact   xid8        not null,
    next_seq    bigint      not null,
    head_xact   xid8        not null,
    head_seq    bigint      not null,
    created_at  timestamptz not null default now(),
    constraint cursor_target check ((target is null) = (position is null) and (target is null) = (late is null)
        and (target is null) = (target_seq is null) and (target is null) = (target_end is null))
);
comment on table outbox_relay.cursor is 'How far the log is expanded; the newest row counts. See outbox_relay.expand for the algorithm.';
comment on column outbox_relay.cursor.seen is 'Every event whose transaction is complete in this snapshot has been expanded.';
comment on column outbox_relay.cursor.seen_seq is 'Transactions from the upper end of seen on lie after this position.';
comment on column outbox_relay.cursor.target is 'The snapshot being worked towards, or null between targets.';
comment on column outbox_relay.cursor.target_seq is 'Transactions from the upper end of target on lie after this position.';
comment on column outbox_relay.cursor.target_end is 'The sequence''s value just after target was taken: nothing complete in target lies beyond.';
comment on column outbox_relay.cursor.position is 'Of the target''s events, those up to here have been expanded.';
comment on column outbox_relay.cursor.late is 'The transactions that were open in seen and are complete in target.';
comment on column outbox_relay.cursor.floor_seq is 'Transactions from floor_xact on lie after this position; every transaction open in seen is one of them.';
comment on column outbox_relay.cursor.next_seq is 'With next_xact, the pair that becomes the floor once nothing older is open.';
comment on column outbox_relay.cursor.head_seq is 'The sequence''s value before the transaction head_xact got its id: transactions from head_xact on lie after it.';

insert into outbox_relay.cursor (seen, seen_seq, floor_xact, floor_seq, next_xact, next_seq, head_xact, head_seq)
select s, 0, pg_snapshot_xmin(s), 0, pg_snapshot_xmin(s), 0, pg_snapshot_xmin(s), 0 from pg_current_snapshot() s;

create type outbox.published_event as (
    event_seq bigint, event_id uuid, tenant_id text, type text, payload jsonb, ordering_key text, priority smallint,
    occurred_at timestamptz, deliver_at timestamptz, metadata jsonb);
comment on type outbox.published_event is 'What outbox.published returns.';

-- The catalog of event types.
create table outbox.event_type (
    type        text primary key,
    description text,
    version     text,
    schema      jsonb,
    example     jsonb,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    archived_at timestamptz
);
comment on table outbox.event_type is 'The catalog. While it is empty every type is accepted; from the first entry on, an undefined or archived type is refused in the producer''s transaction.';
comment on column outbox.event_type.schema is 'JSON Schema of the payload, for receivers.';
comment on column outbox.event_type.archived_at is 'From then on events of this type are refused.';

create table outbox_relay.idempotency_key (
    tenant_id  text not null,
    key        text not null,
    event_id   uuid not null,
    created_at timestamptz not null default now(),
    primary key (tenant_id, key)
);
create index idempotency_key_created_at_idx on outbox_relay.idempotency_key (created_at);
comment on table outbox_relay.idempotency_key is 'Keys given to outbox.publish, pruned by age (setting idempotency_retention).';
comment on index outbox_relay.idempotency_key_created_at_idx is 'Finds the oldest keys, to prune them.';
