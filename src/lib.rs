//! outboxd turns rows inserted in a PostgreSQL transaction into signed webhooks.
//!
//! The modules in the order an event meets them:
//!
//! 1. [`schema`] puts the tables and functions of `sql/` into the database.
//! 2. [`wake`] hears that something was committed.
//! 3. [`relay`] is the loop: wait, expand, sign, send, record.
//! 4. [`db`] is one Rust function for each SQL function the loop calls.
//! 5. [`envelope`] and [`sign`] make the request.
//! 6. [`egress`] judges the address, [`send`] makes one attempt, [`outcome`] names what came of it.
//!
//! Around them: [`admin`] (the operator's seat: HTTP API, console, metrics), [`metrics`], [`config`], [`secrets`] (sealed, or by reference), [`reconcile`] (the subscriptions that the configuration manages), [`telemetry`], [`throwaway`] (a private PostgreSQL for the demo, the
//! benchmark and the tests), [`crash_point`] (where tests kill the daemon) and [`cli`].

pub mod admin;
pub mod attempt;
pub mod cli;
pub mod config;
pub mod connect;
pub mod crash_point;
pub mod db;
pub mod egress;
pub mod endpoint;
pub mod envelope;
pub mod lease;
pub mod metrics;
pub mod outcome;
pub mod receiver;
pub mod reconcile;
pub mod record;
pub mod relay;
pub mod schema;
pub mod secrets;
pub mod send;
pub mod sign;
pub mod telemetry;
pub mod throwaway;
pub mod trace;
pub mod wake;
