//! The protocols on which "nothing is lost" rests, explored in every order of their steps: `docs/model.md`.
//!
//! Each model says what a state is, which steps it allows and which invariant it breaks, if any. The model of what is
//! built must hold; each variant, which leaves out one thing that the design says is needed, must fail.

mod cursor;
mod doorbell;
mod explore;
mod leases;
