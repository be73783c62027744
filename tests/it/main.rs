//! One integration binary on a real PostgreSQL: each test has its own database, cloned from a template.
//!
//! In the order an event meets them: `produce`, `published`, `expand` (and `plans`), `claim_and_record`; the policies
//! of a subscription: `retry_schedule`, `priority`, `ordered`, `pace`, `circuit`, `operational`; then what people do: `subscriptions`, `signatures`, `managed`, `operate`, `accounting`, `maintain`, `roles`, `rights`, `tenants`, `tenant_escapes`, `audit`.
//! The operator's seat: `http_api`, `http_access`, `metrics`; with the feature `otlp`, `traces`.
//! With the real program: `delivery` and `answers`, `egress`, `tls`, `isolation`, `doorbell`, `relays`, `pooler`, `command_line`, `status_watch`,
//! `bench` and `bench_scenes`, `schema_upgrade`, `upgrade` and `pg_upgrade`, on another server: `versions`; `failover`, `restores`; killed at each step:
//! `crash_points`; when something runs out: `exhaustion`; by chance: `faults`; and all of it at once: `survival`.
//! What people hand in who mean harm, or do not look: `hostile_inputs`, `injection`, and by chance: `properties`.
//! What one leaves open or gets wrong and the others must not feel: `stalls`, `filters`, and `limits` of what one may ask
//! for; receivers and name servers that mean harm: `hostile`, `dns`. How `make soak` judges and draws: `soak`.

mod support;

mod accounting;
mod answers;
mod audit;
mod bench;
mod bench_scenes;
mod circuit;
mod claim_and_record;
mod command_line;
mod costs;
mod crash_points;
mod delivery;
mod dns;
mod doorbell;
mod egress;
mod exhaustion;
mod expand;
mod failover;
mod faults;
mod filters;
mod hostile;
mod hostile_inputs;
mod http_access;
mod http_api;
mod injection;
mod isolation;
mod limits;
mod maintain;
mod managed;
mod metrics;
mod operate;
mod operational;
mod ordered;
mod pace;
mod pg_upgrade;
mod plans;
mod pooler;
mod priority;
mod produce;
mod properties;
mod published;
mod relays;
mod restores;
mod retry_schedule;
mod rights;
mod roles;
mod schema_upgrade;
mod secrets;
mod secrets_leak;
mod signatures;
mod soak;
mod stalls;
mod status_watch;
mod subscriptions;
mod survival;
mod tenant_escapes;
mod tenants;
mod tls;
#[cfg(feature = "otlp")]
mod traces;
mod upgrade;
mod versions;
