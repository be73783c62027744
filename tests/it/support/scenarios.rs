//! One line for each fault that was lived through, for the report that counts them.

use super::programs::append_line;
use std::fs::create_dir_all;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Cases that run at once.
const AT_ONCE: usize = 4;

/// Runs every case, so many at a time; a panic names its case.
pub(crate) async fn at_once<F>(cases: impl IntoIterator<Item = (String, F)>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for (name, case) in cases {
        let places = places.clone();
        running.spawn(async move {
            let _place = places.acquire_owned().await;
            tokio::spawn(case).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    }
}

/// Prints the line and adds it to `target/faults/scenarios.txt`.
pub(crate) fn note_scenario(line: &str) {
    println!("{line}");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/faults");
    create_dir_all(&directory).expect("target/faults");
    append_line(&directory.join("scenarios.txt"), line);
}
