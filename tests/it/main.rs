//! One integration binary on a real PostgreSQL: each test has its own database, cloned from a template.
//! The modules stand in the order an event meets them.

mod support;

mod accounting;
mod claim_and_record;
mod expand;
mod maintain;
mod operate;
mod produce;
mod roles;
mod subscriptions;
