-- The two schemas and the settings of the whole outbox.

create schema if not exists outbox;
comment on schema outbox is 'Events in, signed webhooks out: what applications, operators and DBAs touch.';

create schema if not exists outbox_relay;
comment on schema outbox_relay is 'Internals of outboxd. Functions here are called by the daemon alone.';

create table outbox.setting (
    name        text primary key,
    value       text,
    kind        text not null,
    minimum     text,
    maximum     text,
    choices     text[],
    description text not null,
    updated_at  timestamptz not null default now(),
    updated_by  text not null default session_user,
    constraint setting_kind check (kind in ('text', 'boolean', 'integer', 'interval', 'retry_policy', 'choice')),
    constraint setting_choices check ((kind = 'choice') = (choices is not null))
);
comment on table outbox.setting is 'One documented setting of the whole outbox a row; change it with outbox.set(name, value).';
comment on column outbox.setting.value is 'As text, in the form its kind reads.';
comment on column outbox.setting.kind is 'How the value is read and checked.';
comment on column outbox.setting.minimum is 'The least value outbox.set accepts, where there is one.';
comment on column outbox.setting.maximum is 'The greatest value outbox.set accepts, where there is one.';
comment on column outbox.setting.choices is 'The values of a choice.';

insert into outbox.setting (name, value, kind, minimum, maximum, description) values
    ('environment', null, 'text', null, null,
     'The environment this database belongs to. The first relay claims it; afterwards outbox.adopt(environment) changes it, and a relay configured for another one holds.'),
    ('allow_insecure_http', 'false', 'boolean', null, null,
     'Whether http: URLs are accepted. Without it, every endpoint is https:.'),
    ('retention', '30 days', 'interval', '1 minute', '100 years',
     'How long a closed segment of events, finished deliveries and attempts is kept.'),
    ('segment_interval', '1 day', 'interval', '1 second', '1 year',
     'After this time a new segment of the log is begun.'),
    ('segment_events', '10000000', 'integer', '1000', '1000000000',
     'After this many events a new segment of the log is begun.'),
    ('default_retry_policy', 'standard', 'retry_policy', null, null,
     'The retry policy of a subscription that names none; a name in outbox.retry_policy.'),
    ('default_timeout', '15 seconds', 'interval', '100 milliseconds', '5 minutes',
     'The time one attempt may take, from name lookup to the last byte of the answer, where the subscription names none.'),
    ('response_excerpt_bytes', '1024', 'integer', '0', '65536',
     'How much of a receiver''s answer is kept with the attempt.'),
    ('max_payload_bytes', '1048576', 'integer', '1024', '67108864',
     'The largest payload an event may have, measured as jsonb.'),
    ('max_metadata_bytes', '16384', 'integer', '256', '1048576',
     'The largest metadata that outbox.publish accepts.'),
    ('max_url_bytes', '2048', 'integer', '64', '2048',
     'The longest URL a subscription may have.'),
    ('max_headers', '32', 'integer', '0', '100',
     'How many static headers a subscription may have.'),
    ('max_header_bytes', '8192', 'integer', '256', '65536',
     'How large a subscription''s static headers may be, all together.'),
    ('max_event_types', '200', 'integer', '1', '1000',
     'How many patterns a subscription''s event_types may have.'),
    ('max_filter_bytes', '2000', 'integer', '64', '16384',
     'The longest filter a subscription may have.'),
    ('filter_timeout', '500 milliseconds', 'interval', '10 milliseconds', '10 seconds',
     'How long one filter may take, for one event or for the events of one look together, where a batch did not end in time. A subscription whose filter takes longer is disabled.'),
    ('max_subscriptions_per_tenant', '1000', 'integer', '1', '1000000',
     'How many subscriptions a tenant may have, paused and disabled ones among them.'),
    ('max_fan_out', '1000', 'integer', '1', '1000000',
     'How many active subscriptions of a tenant one event may be for. Judged when a subscription is made, resumed or wants other types; no event is ever refused for it.'),
    ('secret_overlap', '24 hours', 'interval', '0', '30 days',
     'How long the old secret goes on signing after outbox.rotate_secret, unless the call says otherwise.'),
    ('idempotency_retention', '7 days', 'interval', '1 minute', '1 year',
     'How long an idempotency key of outbox.publish is remembered.'),
    ('auto_disable_after', '5 days', 'interval', '1 minute', '1 year',
     'A subscription whose attempts have failed for this long without one success is disabled.'),
    ('circuit_failures', '10', 'integer', '0', '1000000',
     'After this many failed attempts in a row a subscription''s circuit opens: until one succeeds only retries are made, and now and then a first attempt as a probe. 0: never.'),
    ('circuit_interval', '1 second', 'interval', '10 milliseconds', '1 day',
     'How long after opening a circuit the first probe is sent; each probe that fails doubles it.'),
    ('circuit_max_interval', '10 minutes', 'interval', '10 milliseconds', '1 day',
     'The longest time between two probes of an open circuit.'),
    ('operator_tenant', '', 'text', null, null,
     'A tenant whose subscriptions receive the operational events (outbox.…) of all tenants; empty: none does.');
insert into outbox.setting (name, value, kind, choices, description) values
    ('ordered_on_dead_letter', 'stop', 'choice', '{stop,continue}',
     'What becomes of an ordering key of an ordered subscription when one of its events is given up: stop, until somebody skips, parks or replays it; or continue with the next.');

create table outbox_relay.applied_file (
    path       text primary key,
    sha256     text not null,
    applied_at timestamptz not null default now()
);
comment on table outbox_relay.applied_file is 'The re-appliable SQL files as last applied, by hash; outboxd migrate applies what differs.';
comment on table outbox_relay.migration is 'The once-only migrations that were applied; kept by refinery.';

create table outbox_relay.hold (
    hold_id    bigint generated always as identity primary key,
    reason     text not null,
    created_by text not null default session_user,
    created_at timestamptz not null default now()
);
comment on table outbox_relay.hold is 'While a row is here nothing is expanded or claimed; see outbox.hold(reason) and outbox.release().';

create table outbox_relay.origin (
    singleton         boolean primary key default true,
    system_identifier bigint not null,
    constraint origin_singleton check (singleton)
);
comment on table outbox_relay.origin is 'The cluster whose transaction ids the cursor speaks of; another one means a logical restore, see outbox.adopt.';
insert into outbox_relay.origin (system_identifier) select system_identifier from pg_control_system();
