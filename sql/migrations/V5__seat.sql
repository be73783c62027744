-- The operator's seat: who did what, the tokens of the HTTP API, and what the relays did lately.

create schema if not exists outbox_http;
comment on schema outbox_http is 'The HTTP API: one function for each operation of src/admin/openapi.json, named after it, run with the rights of the token''s role.';

insert into outbox.setting (name, value, kind, minimum, maximum, description) values
    ('audit_retention', '1 year', 'interval', '1 day', '100 years',
     'How long outbox.audit is kept.');

create table outbox.audit (
    audit_id        bigint generated always as identity primary key,
    at              timestamptz not null default clock_timestamp(),
    actor           text not null,
    db_user         text not null default session_user,
    via             text not null,
    action          text not null,
    tenant_id       text,
    subscription_id bigint,
    event_seq       bigint,
    detail          jsonb,
    constraint audit_via check (via in ('sql', 'http', 'relay'))
);
create index audit_subscription_id_idx on outbox.audit (subscription_id, audit_id) where subscription_id is not null;
create index audit_tenant_id_idx on outbox.audit (tenant_id, audit_id) where tenant_id is not null;
create index audit_action_idx on outbox.audit (action, audit_id);
create index audit_at_idx on outbox.audit (at);
comment on table outbox.audit is 'Who did what, when, on which rows: one row for each operator action, through SQL or HTTP, in the transaction of the action.';
comment on column outbox.audit.actor is 'The database user; through HTTP the token; of what outboxd does by itself, relay or configuration.';
comment on column outbox.audit.db_user is 'The user of the database session, whoever it acted for.';
comment on column outbox.audit.action is 'The name of the SQL function, or change for an update of a table.';
comment on column outbox.audit.detail is 'The arguments that matter, and what was changed; no secret and no payload.';
comment on index outbox.audit_subscription_id_idx is 'What was done to a subscription.';
comment on index outbox.audit_tenant_id_idx is 'What was done for a tenant.';
comment on index outbox.audit_action_idx is 'When something was done.';
comment on index outbox.audit_at_idx is 'Finds the oldest, to prune them.';

create table outbox.token (
    token_id     bigint generated always as identity primary key,
    role         text not null,
    tenant_id    text,
    description  text,
    created_by   text not null,
    created_at   timestamptz not null default now(),
    last_used_at timestamptz,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    constraint token_role check (role in ('operator', 'viewer', 'producer'))
);
comment on table outbox.token is 'A token of the HTTP API, without the token. Made by outbox.create_token, ended by outbox.revoke_token.';
comment on column outbox.token.role is 'It may do what the database role outbox_… may.';
comment on column outbox.token.tenant_id is 'The tenant it is bound to; null is all.';
comment on column outbox.token.last_used_at is 'To the minute.';

create table outbox_relay.token_hash (
    sha256   bytea primary key,
    token_id bigint not null unique references outbox.token on delete cascade
);
comment on table outbox_relay.token_hash is 'SHA-256 of each token. A token holds 256 random bits, so a plain hash gives nothing away.';

create table outbox_relay.session (
    sha256     bytea primary key,
    token_id   bigint not null references outbox.token on delete cascade,
    created_at timestamptz not null default now(),
    seen_at    timestamptz not null default now()
);
create index session_seen_at_idx on outbox_relay.session (seen_at);
comment on table outbox_relay.session is 'A browser that has signed in to the console with a token: SHA-256 of its cookie. Any daemon can serve it.';
comment on column outbox_relay.session.seen_at is 'When somebody last did something; what the console asks by itself does not count.';
comment on index outbox_relay.session_seen_at_idx is 'Finds the oldest, to prune them.';

create table outbox_relay.idempotent_request (
    token_id    bigint not null,
    key         text not null,
    fingerprint bytea not null,
    status      smallint,
    answer      text,
    created_at  timestamptz not null default now(),
    primary key (token_id, key)
);
create index idempotent_request_created_at_idx on outbox_relay.idempotent_request (created_at);
comment on table outbox_relay.idempotent_request is 'POST requests that carried an Idempotency-Key, and how they were answered (secrets removed); written in the transaction of the request, pruned by the setting idempotency_retention.';
comment on column outbox_relay.idempotent_request.fingerprint is 'SHA-256 of the operation and its request: another one under the same key is refused.';
comment on index outbox_relay.idempotent_request_created_at_idx is 'Finds the oldest, to prune them.';

create table outbox_relay.sample (
    taken_at        timestamptz not null,
    epoch           integer not null,
    seconds         real not null,
    delivered       bigint not null,
    failed          bigint not null,
    first_delivered bigint not null,
    first_failed    bigint not null,
    attempt_counts  bigint[] not null,
    commit_counts   bigint[] not null
);
create index sample_taken_at_idx on outbox_relay.sample (taken_at);
comment on table outbox_relay.sample is 'What each relay did in the seconds before taken_at; a row every few seconds in which something happened, a row a minute after an hour, kept for a day. Read it with outbox.activity().';
comment on column outbox_relay.sample.attempt_counts is 'Attempts by how long they took, in the buckets of outbox_relay.latency_bounds_ms().';
comment on column outbox_relay.sample.commit_counts is 'First attempts by the time from the event''s insert to the first byte of the answer, likewise.';
comment on index outbox_relay.sample_taken_at_idx is 'A span of time.';
