//! demo
use super::Exit;
/// Flags
#[derive(clap::Args)]
pub struct Arguments {}
/// Demo
pub async fn demo(_: &Arguments) -> Exit { Exit::Done }
