//! The commands of `outboxd`.

pub mod bench;
pub mod check;
pub mod demo;
pub mod listen;
pub mod migrate;
mod reload;
pub mod run;
pub mod seal;
pub mod status;
mod watch;

use std::process::ExitCode;

/// How a command ended; the numbers are part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0
    Done,
    /// 1
    Failed,
    /// 78, `EX_CONFIG` of sysexits.h. (2, bad usage, is clap's.)
    BadConfiguration,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Failed => Self::FAILURE,
            Exit::BadConfiguration => Self::from(78),
        }
    }
}

/// Says why a command failed.
pub(crate) fn fail(reason: impl std::fmt::Display) -> Exit {
    eprintln!("outboxd: {reason}");
    Exit::Failed
}
