//! One integration binary on a real PostgreSQL: each test has its own database, cloned from a template.
//!
//! In the order an event meets them: `produce`, `expand` (and `expand_plans`), `claim_and_record`; then what
//! people do: `subscriptions`, `operate`, `accounting`, `maintain`, `roles`.
//! With the real program: `delivery` and `answers`, `isolation`, `doorbell`, `relays`, `pooler`, `command_line`,
//! `schema_upgrade`, and all of it at once: `survival`.
//! What one leaves open or gets wrong and the others must not feel: `stalls`.

mod support;

mod accounting;
mod answers;
mod claim_and_record;
mod command_line;
mod delivery;
mod doorbell;
mod expand;
mod expand_plans;
mod isolation;
mod maintain;
mod operate;
mod pooler;
mod produce;
mod relays;
mod roles;
mod schema_upgrade;
mod stalls;
mod subscriptions;
mod survival;
