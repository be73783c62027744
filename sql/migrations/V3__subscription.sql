-- Who wants which events, and what a subscription was at any moment.

create table outbox.retry_policy (
    name       text primary key,
    delays     interval[] not null,
    jitter     double precision not null default 0.1,
    max_age    interval,
    created_at timestamptz not null default now(),
    constraint retry_policy_name check (name ~ '^[a-z][a-z0-9_-]{0,62}$'),
    constraint retry_policy_max_age check (max_age > interval '0'),
    constraint retry_policy_jitter check (jitter between 0 and 1),
    constraint retry_policy_delays check (cardinality(delays) <= 100 and array_position(delays, null) is null
        and interval '0' <= all (delays) and interval '30 days' >= all (delays))
);
comment on table outbox.retry_policy is 'A named schedule: n delays are n + 1 attempts.';
comment on column outbox.retry_policy.delays is 'The wait before the first retry, the second, and so on.';
comment on column outbox.retry_policy.jitter is 'Up to this share of a delay is added at random.';
comment on column outbox.retry_policy.max_age is 'A delivery that waited longer than this is given up rather than attempted; null is without limit. Replays are not limited.';

insert into outbox.retry_policy (name, delays) values
    ('standard',  '{5s,5m,30m,2h,5h,10h,14h,20h,24h}'),
    ('quadratic', '{10s,40s,90s,160s,250s}'),
    ('stepped',   '{1m,5m,30m,2h,24h}'),
    ('short',     '{1m,5m,30m}'),
    ('none',      '{}');

create sequence outbox_relay.subscription_version_seq as bigint;

create table outbox.subscription (
    subscription_id bigint generated always as identity primary key,
    tenant_id       text not null default 'default',
    name            text not null,
    url             text not null,
    event_types     text[] not null,
    filter          jsonpath,
    headers         jsonb not null default '{}',
    signature       text not null default 'standard',
    signature_header text,
    envelope        text not null default 'standard',
    retry_policy    text not null references outbox.retry_policy (name) on update cascade,
    timeout         interval,
    max_in_flight   integer,
    rate_limit      numeric,
    ordered         boolean not null default false,
    tls             jsonb,
    active          boolean not null default true,
    disabled_at     timestamptz,
    disabled_reason text,
    description     text,
    managed_by      text,
    created_by      text not null default session_user,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    unsubscribed_at timestamptz,
    version         bigint not null default nextval('outbox_relay.subscription_version_seq'),
    constraint subscription_disabled check (active = (disabled_at is null)),
    constraint subscription_unsubscribed check (unsubscribed_at is null or not active)
);
create unique index subscription_tenant_id_name_key on outbox.subscription (tenant_id, name) where unsubscribed_at is null;
comment on table outbox.subscription is 'One endpoint of one tenant. Made by outbox.subscribe; history is kept after outbox.unsubscribe.';
comment on column outbox.subscription.name is 'Unique among the tenant''s living subscriptions.';
comment on column outbox.subscription.event_types is 'order.created, order.* (everything below order) or *.';
comment on column outbox.subscription.filter is 'Over the payload: matches when its first item exists and is neither false nor null.';
comment on column outbox.subscription.headers is 'Static request headers, name to value.';
comment on column outbox.subscription.signature is 'The signature profile.';
comment on column outbox.subscription.signature_header is 'The header that carries the signature; null is the profile''s own.';
comment on column outbox.subscription.envelope is 'The shape of the body.';
comment on column outbox.subscription.timeout is 'The time one attempt may take; null is the setting default_timeout.';
comment on column outbox.subscription.max_in_flight is 'Attempts under way at once in one relay; null is the relay''s own max_in_flight.';
comment on column outbox.subscription.rate_limit is 'Attempts a second, by all relays together; null is without limit.';
comment on column outbox.subscription.ordered is 'Events with one ordering_key are delivered one after the other, in log order; those without have no order.';
comment on column outbox.subscription.tls is 'What holds for TLS with this receiver: ca (PEM, trusted instead of all others), pins (sha256//… of its public key), client (file:NAME, a certificate to show, with its key); null is the relay''s own authorities.';
comment on column outbox.subscription.active is 'False while paused, disabled or unsubscribed: nothing is created or sent.';
comment on column outbox.subscription.managed_by is 'configuration, if outboxd''s configuration keeps it in step; null if it was made by hand.';
comment on column outbox.subscription.version is 'Rises with each change; a relay reloads what it holds in an older version.';
comment on index outbox.subscription_tenant_id_name_key is 'A name may be used again after its subscription was unsubscribed.';

create table outbox.subscription_health (
    subscription_id      bigint primary key references outbox.subscription,
    consecutive_failures bigint not null default 0,
    failure_count        bigint not null default 0,
    success_count        bigint not null default 0,
    last_success_at      timestamptz,
    last_failure_at      timestamptz,
    failing_since        timestamptz,
    circuit              text not null default 'closed',
    circuit_until        timestamptz,
    circuit_trips        integer not null default 0,
    to_recover           boolean not null default false,
    constraint subscription_health_circuit check (circuit in ('closed', 'open', 'half_open')),
    constraint subscription_health_until check ((circuit = 'closed') = (circuit_until is null))
);
create index subscription_health_circuit_idx on outbox.subscription_health (subscription_id) where circuit <> 'closed';
comment on table outbox.subscription_health is 'Counters of one subscription, kept apart so that a delivery never rewrites the subscription. Written about once a second; a relay that is killed takes its last second of counts with it, outbox.attempt has them all.';
comment on column outbox.subscription_health.failing_since is 'The first failure after the last success; null while all is well.';
comment on column outbox.subscription_health.circuit is 'closed: sent to as usual. open: what was never attempted waits, one is let in as a probe at circuit_until. half_open: the probe is under way.';
comment on column outbox.subscription_health.circuit_until is 'When the next probe may be sent.';
comment on column outbox.subscription_health.circuit_trips is 'Probes that failed since the circuit opened.';
comment on column outbox.subscription_health.to_recover is 'It was disabled for its failures: the next success is told as outbox.subscription.recovered.';
comment on index outbox.subscription_health_circuit_idx is 'The subscriptions that are not sent to as usual; expand and claim ask each time.';

-- The secret stands in a table of its own: outbox.signing_key is for everybody who may look.
create table outbox.signing_key (
    key_id          text not null,
    subscription_id bigint not null references outbox.subscription,
    algorithm       text not null default 'hmac-sha256',
    public_key      text,
    created_at      timestamptz not null default now(),
    expires_at      timestamptz,
    revoked_at      timestamptz,
    primary key (subscription_id, key_id),
    constraint signing_key_algorithm check (algorithm in ('hmac-sha256', 'ed25519')),
    constraint signing_key_public_key check (algorithm = 'ed25519' or public_key is null)
);
comment on table outbox.signing_key is 'One secret of one subscription, without the secret.';
comment on column outbox.signing_key.key_id is 'The first 16 hex digits of the SHA-256 of the secret''s text; of the reference''s, until a relay has read what it stands for.';
comment on column outbox.signing_key.public_key is 'whpk_…, what receivers verify an ed25519 signature with; not a secret. Null until a relay has read a key that is kept by reference.';
comment on column outbox.signing_key.expires_at is 'Signs until then; null is without end.';

create table outbox_relay.signing_secret (
    subscription_id bigint not null,
    key_id          text not null,
    secret          text,
    sealed          bytea,
    sealed_with     text,
    secret_ref      text,
    form            text,
    primary key (subscription_id, key_id),
    foreign key (subscription_id, key_id) references outbox.signing_key on update cascade on delete cascade,
    constraint signing_secret_one_of_three check (num_nonnulls(secret, sealed, secret_ref) = 1),
    constraint signing_secret_sealed check ((sealed is null) = (sealed_with is null)),
    constraint signing_secret_form check (form in ('whsec', 'whsk', 'text'))
);
create index signing_secret_unsealed_idx on outbox_relay.signing_secret (subscription_id, key_id) where secret is not null;
comment on table outbox_relay.signing_secret is 'The secrets themselves, in one of three forms. No role is granted this table; the relay reads it through outbox_relay.load_subscriptions.';
comment on column outbox_relay.signing_secret.secret is 'Plain: made in SQL. A relay that has a sealing key seals it within about a second.';
comment on column outbox_relay.signing_secret.sealed is 'Sealed by a relay with XChaCha20-Poly1305, for this subscription and key id alone.';
comment on column outbox_relay.signing_secret.sealed_with is 'The id of the sealing key that opens it.';
comment on column outbox_relay.signing_secret.secret_ref is 'env:NAME or file:NAME: the secret is on the relay''s host and never comes here.';
comment on column outbox_relay.signing_secret.form is 'Which profiles it can sign for: whsec all but that of ed25519, whsk that alone, text those that sign with a secret''s text; null while it is plain or unread.';
comment on index outbox_relay.signing_secret_unsealed_idx is 'Whether there is a plain secret, in one probe; relays ask each second.';

-- What arrives sealed is handed from the daemon to outbox.subscribe or outbox.rotate_secret, which run as the
-- caller's role, within one transaction. Nobody else can: only the relay's role may write here.
create table outbox_relay.offered_key (
    xact            xid8 primary key default pg_current_xact_id(),
    subscription_id bigint not null,
    key_id          text not null,
    form            text not null,
    public_key      text,
    sealed          bytea not null,
    sealed_with     text not null
);
comment on table outbox_relay.offered_key is 'A sealed secret on its way into outbox_relay.signing_secret; no row outlives its transaction.';

-- What a subscription was, so that outbox.explain and outbox.unaccounted can repeat the match as of
-- the moment an event was expanded.
create table outbox_relay.subscription_version (
    version         bigint primary key,
    subscription_id bigint not null,
    tenant_id       text not null,
    active          boolean not null,
    patterns        text[] not null,
    filter          jsonpath,
    xact            xid8 not null default pg_current_xact_id(),
    created_at      timestamptz not null default now()
);
create index subscription_version_tenant_id_idx on outbox_relay.subscription_version (tenant_id, subscription_id, version);
create index subscription_version_xact_idx on outbox_relay.subscription_version (xact);
comment on table outbox_relay.subscription_version is 'Append-only history of what decides a match.';
comment on index outbox_relay.subscription_version_tenant_id_idx is 'What a tenant''s subscriptions were, newest last.';
comment on index outbox_relay.subscription_version_xact_idx is 'Whether anything changed since a snapshot, in one probe.';

create table outbox_relay.route (
    tenant_id       text not null,
    pattern         text not null,
    subscription_id bigint not null,
    version         bigint not null,
    filter          jsonpath,
    max_in_flight   integer,
    ordered         boolean not null,
    paced           boolean not null,
    primary key (tenant_id, pattern, subscription_id)
);
create index route_subscription_id_idx on outbox_relay.route (subscription_id);
comment on table outbox_relay.route is 'Where expand looks: one row for each pattern of each active subscription, none of which covers another.';
comment on column outbox_relay.route.paced is 'It has a rate limit: nothing is born leased, outbox_relay.claim counts.';
comment on index outbox_relay.route_subscription_id_idx is 'Finds the rows of a subscription that has changed.';

create table outbox_relay.pace (
    subscription_id bigint primary key,
    spent_until     timestamptz not null
) with (fillfactor = 50);
comment on table outbox_relay.pace is 'The rate limit''s account, a row for each subscription that has one: up to when its rate has been spent (GCRA, ITU-T I.371).';

-- From one row to the next every event was expanded under the same set of subscriptions: those whose
-- versions are visible in config.
create table outbox_relay.regime (
    regime_id  bigint generated always as identity primary key,
    config     pg_snapshot not null,
    seen       pg_snapshot not null,
    target     pg_snapshot,
    position   bigint,
    floor_seq  bigint not null,
    created_at timestamptz not null default now()
);
comment on table outbox_relay.regime is 'The points of the log at which the set of subscriptions had changed. Events not yet expanded at this point (seen, target, position, floor_seq as in the cursor) were matched under config, until the next row.';
insert into outbox_relay.regime (config, seen, floor_seq) select pg_snapshot '3:3:', seen, 0 from outbox_relay.cursor;

create type outbox.new_subscription as (subscription_id bigint, secret text, key_id text);
comment on type outbox.new_subscription is 'What outbox.subscribe returns; the only time the secret is shown.';
create type outbox.new_key as (secret text, key_id text);
comment on type outbox.new_key is 'What outbox.rotate_secret returns; the only time the secret is shown.';
