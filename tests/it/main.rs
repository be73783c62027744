//! One integration binary on a real PostgreSQL: each test has its own database, cloned from a template.
//!
//! In the order an event meets them: `produce`, `expand` (and `expand_plans`), `claim_and_record`; then what
//! people do: `subscriptions`, `operate`, `accounting`, `maintain`, `roles`.

mod support;

mod accounting;
mod claim_and_record;
mod expand;
mod expand_plans;
mod maintain;
mod operate;
mod produce;
mod roles;
mod subscriptions;
mod answers;
mod delivery;
mod isolation;
mod relays;
mod doorbell;
mod survival;
mod command_line;
mod pooler;
mod schema_upgrade;
