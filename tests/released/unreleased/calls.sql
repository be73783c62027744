-- What the daemon of this version asks the database for (src/db, src/wake.rs): what each statement is
-- given (or, with "asks", what the server says it takes) and the columns it gets. Written by `make released`.

-- src/db/housekeeping.rs
-- gives int4
-- gets fenced bool, hold text, handed_back int4, response_excerpt_bytes int4, allow_insecure_http bool, circuit_failures int8, unsealed bool
select * from outbox_relay.tick($1);

-- src/db/housekeeping.rs
-- gives _int8, _int8, _int8, _int8, _timestamptz, _timestamptz
-- gets add_health int8
select * from outbox_relay.add_health($1, $2, $3, $4, $5, $6);

-- src/db/housekeeping.rs
-- gives int4, float4, int8, int8, int8, int8, _int8, _int8, bool
-- gets add_sample void
select outbox_relay.add_sample($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- src/db/housekeeping.rs
-- gives 
-- gets is_step bool, line text
select action in ('made', 'begun', 'dropped') as is_step, concat_ws(' ', action, 'segment ' || segment, detail) as line from outbox_relay.maintain();

-- src/db/housekeeping.rs
-- gives int4
-- gets fence int4
select outbox_relay.fence($1);

-- src/db/housekeeping.rs
-- gives int4, _int8, _int8
-- gets subscription_id int8, event_seq int8
select subscription_id, event_seq from outbox_relay.locked($1, $2, $3);

-- src/db/housekeeping.rs
-- gives int4, _int8, _int8
-- gets subscription_id int8, event_seq int8
select subscription_id, event_seq from outbox_relay.hand_back($1, $2, $3) where is_left;

-- src/db/mod.rs
-- gives int4, int4, int4, int4, _int8, _int4, bool, bool, _int8, int8, int4
-- gets event_seq int8, event_id uuid, tenant_id text, type text, payload text, occurred_at timestamptz, traceparent text, subscription_ids _int8, versions _int8, expanded int4, queued int4, more bool, prioritised bool, kept_back int4
select event_seq, event_id, tenant_id, type, payload, occurred_at, traceparent, subscription_ids, versions, expanded, queued, more, prioritised, kept_back from outbox_relay.expand($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- src/db/mod.rs
-- gives int4, int4, int4, _int8, _int4, bool, int8
-- gets event_seq int8, event_id uuid, tenant_id text, type text, payload text, occurred_at timestamptz, traceparent text, subscription_id int8, version int8, attempts int4, cause text, next_due_at timestamptz, more bool, next_due_ms int8
select *, (extract(epoch from next_due_at - clock_timestamp()) * 1000)::int8 as next_due_ms from outbox_relay.claim($1, $2, $3, $4, $5, $6, $7);

-- src/db/mod.rs
-- gives int4, text, _int8, _int8, _timestamptz, _int4, _text, _int2, _text, _text, _text, _text, _text, _int4, _text, bool, _uuid
-- gets subscription_id int8, event_seq int8, attempt int4, state text, next_attempt_at timestamptz, next_due_ms int8
select *, (extract(epoch from next_attempt_at - clock_timestamp()) * 1000)::int8 as next_due_ms from outbox_relay.record($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17);

-- src/db/mod.rs
-- gives _int8
-- gets subscription_id int8, version int8, tenant_id text, url text, headers text, signature text, signature_header text, envelope text, tls text, timeout_ms int4, max_in_flight int4, key_ids _text, secrets _text, sealed _bytea, sealed_with _text, secret_refs _text, expire_ats _timestamptz
select * from outbox_relay.load_subscriptions($1);

-- src/db/mod.rs
-- gives int8, text, text, text, text
-- gets name_key bool
select outbox_relay.name_key($1, $2, $3, $4, $5);

-- src/db/mod.rs
-- gives 
-- gets pg_notify void
select pg_notify('outbox_signal', 'help');

-- src/db/mod.rs
-- gives 
-- gets to_jsonb text
select to_jsonb(s)::text from outbox.status() s;

-- src/db/mod.rs
-- gives text, text, bool
-- gets action text, concat_ws text, detail text
select action, concat_ws('/', tenant_id, name), detail from outbox_relay.reconcile($1, $2::text::jsonb, $3);

-- src/db/offer.rs
-- gives int8, text
-- gets id int8, signature text
select id, signature from outbox_relay.offer_for($1, $2);

-- src/db/offer.rs
-- gives int8, text, text, text, bytea, text
-- gets offer_key void
select outbox_relay.offer_key($1, $2, $3, $4, $5, $6);

-- src/db/seat.rs
-- gives bytea, bytea
-- gets open_session bool
select outbox_relay.open_session($1, $2);

-- src/db/seat.rs
-- gives text, bytea, text, bool
-- gets token_id int8, role text, tenant_id text, description text
select * from outbox_relay.enter($1, $2, $3::text::interval, $4);

-- src/db/seat.rs
-- gives 
-- gets has_tokens bool
select outbox_relay.has_tokens();

-- src/db/seat.rs
-- gives bytea
-- gets close_session bool
select outbox_relay.close_session($1);

-- src/db/seat.rs
-- gives 
-- gets log_head int8, unexpanded_events int8, pending int8, leased int8, failed int8, dead_letters int8, relays int8, on_hold bool, lag_s float8, oldest_due_s float8, segments int8, closed_segments int8, stopped_keys int8, circuits_open int8, circuits_half_open int8, disabled int8
select * from outbox_relay.gauges();

-- src/db/seat.rs
-- gives 
-- gets tenant_id text, subscription_id int8, delivered int8, failed int8, outstanding int8
select * from outbox_relay.subscription_gauges();

-- src/db/seat.rs
-- gives 
-- gets type text, description text, version text, schema text, example text
select * from outbox_relay.catalog();

-- src/db/seat.rs
-- gives int8, text, bytea
-- gets status int2, answer text
select * from outbox_relay.begin_request($1, $2, $3);

-- src/db/seat.rs
-- gives int8, text, int2, text
-- gets end_request void
select outbox_relay.end_request($1, $2, $3, $4);

-- src/db/secrets.rs
-- gives int4
-- gets subscription_id int8, key_id text, secret text
select subscription_id, key_id, secret from outbox_relay.unsealed($1);

-- src/db/secrets.rs
-- gives text, int8, text, int4
-- gets subscription_id int8, key_id text, sealed bytea, sealed_with text
select subscription_id, key_id, sealed, sealed_with from outbox_relay.sealed_otherwise($1, $2, $3, $4);

-- src/db/secrets.rs
-- gives int8, text, bytea, bytea, text, text
-- gets seal bool
select outbox_relay.seal($1, $2, $3, $4, $5, $6);

-- src/db/secrets.rs
-- gives 
-- gets form text, detail text, count int8
select form, detail, count from outbox_relay.secret_counts();

-- src/db/trial.rs
-- gives 
-- gets begin_trial void
select outbox_relay.begin_trial();

-- src/db/trial.rs
-- gives int4, int4, int8, int8, _int8, _int8, _float4
-- gets suspect int8, is_sure bool, events_before int4, reached_seq int8, reached_id int8, versions _int8, ms _float4, done bool
select * from outbox_relay.try_filters($1, $2, $3, $4, $5, $6, $7);

-- src/db/watch.rs
-- gives 
-- gets at float8, database text, user text, log_head int8, unexpanded_events int8, pending int8, leased int8, failed int8, dead_letters int8, oldest_due timestamptz, lag interval, relays int8, hold text, environment text, oldest_due_s float8, lag_s float8
select extract(epoch from clock_timestamp())::float8 as at, current_database()::text as database, current_user::text as "user", s.*, extract(epoch from s.oldest_due)::float8 as oldest_due_s, extract(epoch from s.lag)::float8 as lag_s from outbox.status() s;

-- src/db/watch.rs
-- gives int4
-- gets at timestamptz, seconds float8, delivered int8, failed int8, first_delivered int8, first_failed int8, attempt_p50_ms float8, attempt_p95_ms float8, attempt_p99_ms float8, commit_p50_ms float8, commit_p95_ms float8, commit_p99_ms float8
select * from outbox.activity($1);

-- src/db/watch.rs
-- gives 
-- gets epoch int4, name text, version text, environment text, hold text, alive bool, leased int8, started_at timestamptz, ended_at timestamptz, started_s float8, ended_s float8
select r.*, extract(epoch from r.started_at)::float8 as started_s, extract(epoch from r.ended_at)::float8 as ended_s from outbox.relays() r order by r.alive desc, r.epoch desc;

-- src/db/watch.rs
-- gives int8
-- gets subscription_id int8, tenant_id text, name text, active bool, disabled_reason text, circuit text, circuit_until float8, failures int8, failing_since float8, of int8
select s.subscription_id, s.tenant_id, s.name, s.active, s.disabled_reason, coalesce(h.circuit, 'closed') as circuit, extract(epoch from h.circuit_until)::float8 as circuit_until, coalesce(h.consecutive_failures, 0) as failures, extract(epoch from h.failing_since)::float8 as failing_since, count(*) over () as of from outbox.subscription s left join outbox.subscription_health h using (subscription_id) where s.unsubscribed_at is null and (not s.active or h.circuit <> 'closed' or h.consecutive_failures > 0) order by s.active and h.circuit <> 'closed' desc nulls last, not s.active and h.to_recover desc nulls last, s.active desc, h.consecutive_failures desc nulls last, s.subscription_id limit $1;

-- src/db/watch.rs
-- gives int8
-- gets subscription_id int8, event_seq int8, attempts int4, last_status_code int2, last_error text, failed_at float8, next_attempt_at float8
select d.subscription_id, d.event_seq, d.attempts, d.last_status_code, d.last_error, extract(epoch from d.updated_at)::float8 as failed_at, extract(epoch from d.next_attempt_at)::float8 as next_attempt_at from outbox.delivery d where d.state = 'failed' order by d.updated_at desc limit $1;

-- src/wake.rs
-- gives 
-- gets pg_try_advisory_lock bool
select pg_try_advisory_lock(1869968482, 1);

-- src/wake.rs
-- gives 
-- gets pg_advisory_unlock bool
select pg_advisory_unlock(1869968482, 1);

-- src/wake.rs
-- gives 
-- gets pg_try_advisory_lock bool
select pg_try_advisory_lock(1869968482, 2);

-- src/wake.rs
-- gives 
-- gets pg_advisory_unlock bool
select pg_advisory_unlock(1869968482, 2);

-- src/wake.rs
-- gives 
-- gets set_config text
select set_config(name, '0', false) from pg_settings where setting <> '0' and name in ('lock_timeout', 'idle_session_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout');

-- src/wake.rs
-- asks int4
-- gets resume_epoch bool
select outbox_relay.resume_epoch($1);

-- src/wake.rs
-- asks text, text, text
-- gets register int4
select outbox_relay.register($1, $2, $3);
