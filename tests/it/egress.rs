//! The policy of a running daemon: what it refuses, and how it is changed.

use crate::support::{Db, Outboxd, Sink};
use std::io::Write;

#[tokio::test]
async fn a_policy_that_was_changed_is_followed_without_a_restart() {
    let db = Db::new().await;
    let session = db.session().await;
    session.allow_http().await;
    let sink = Sink::accepting().await;
    let endpoint = session.endpoint(&sink.url("/in"), "retry_policy => 'none'").await;
    let mut file = tempfile();
    let path = file.path.clone();
    file.write("[egress]\nallow = [\"127.0.0.0/8\"]\n");
    let mut relay = Outboxd::new(&["run", "--config", &path])
        .set("DATABASE_URL", &db.url())
        .set("OUTBOXD_ADMIN__LISTEN", "off")
        .spawn()
        .registered()
        .await;
    session.insert("a", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", 1).await;

    // The connection is still there, and is not used any more.
    file.write("[egress]\nallow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.1\"]\n");
    relay.hang_up();
    relay.wait_for_log("deny=[\"127.0.0.1/32\"]").await;
    session.insert("a", "{}").await;
    session.wait_for_state(endpoint.id, "dead_letter", 1).await;
    let errors: Vec<String> =
        session.all("select outcome || ': ' || error from outbox.attempt where outcome <> 'delivered'").await;
    assert_eq!(errors, ["egress_refused: egress refused: 127.0.0.1 is in 127.0.0.1/32 (denied by the configuration)"]);

    // What cannot be read changes nothing.
    file.write("[egress]\nallow = [\"nonsense\"]\n");
    relay.hang_up();
    relay.wait_for_log("the configuration is refused").await;
    session.insert("a", "{}").await;
    session.wait_for_state(endpoint.id, "dead_letter", 2).await;

    file.write("[egress]\nallow = [\"127.0.0.0/8\"]\n");
    relay.hang_up();
    relay.wait_for_log("deny=[]").await;
    session.insert("a", "{}").await;
    session.wait_for_state(endpoint.id, "succeeded", 2).await;
    assert_eq!(sink.arrived().len(), 2);
    session.assert_accounted().await;
}

/// A file of the test's own.
struct TemporaryFile {
    path: String,
}

fn tempfile() -> TemporaryFile {
    let path = std::env::temp_dir().join(format!("outboxd-egress-{}-{:x}.toml", std::process::id(), fastrand::u64(..)));
    TemporaryFile { path: path.to_str().expect("UTF-8").to_owned() }
}

impl TemporaryFile {
    fn write(&mut self, text: &str) {
        let mut file = std::fs::File::create(&self.path).expect("a file");
        file.write_all(text.as_bytes()).expect("written");
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
