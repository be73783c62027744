//! TLS with receivers: verified in full always, narrowed by what a subscription says, each failure by its name.

use crate::support::{Authority, Daemon, Db, Sink, tls_receiver};
use rcgen::date_time_ymd;
use serde_json::json;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// A subscription to `https://127.0.0.1:port`, what it says of TLS, and what the attempt must say.
struct Case {
    what: &'static str,
    port: u16,
    tls: Option<serde_json::Value>,
    expected: &'static str,
}

#[tokio::test]
async fn each_failure_of_tls_is_told_apart_and_a_subscription_may_only_narrow_whom_it_trusts() {
    let db = Db::new().await;
    let session = db.session().await;
    let (own, other, common) = (Authority::new(), Authority::new(), Authority::new());
    let directory = Directory::new();
    directory.put("common.pem", &common.pem());

    let good = own.identity("127.0.0.1", |_| {});
    let expired = own.identity("127.0.0.1", |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    });
    let future = own.identity("127.0.0.1", |params| params.not_before = date_time_ymd(2095, 1, 1));
    let misnamed = own.identity("other.example", |_| {});
    let of_common = common.identity("127.0.0.1", |_| {});
    let client = other.identity("outboxd", |_| {});
    directory.put("client.pem", &format!("{}{}", client.certificate_pem, client.key_pem));
    directory.put("stranger.pem", &{
        let stranger = own.identity("outboxd", |_| {});
        format!("{}{}", stranger.certificate_pem, stranger.key_pem)
    });

    let good_port = tls_receiver(&good, None).await.port();
    let common_port = tls_receiver(&of_common, None).await.port();
    let demanding_port = tls_receiver(&good, Some(&other)).await.port();
    let plain_port = without_tls().await.port();
    let ca = own.pem();
    let case = |what, port, tls, expected| Case { what, port, tls, expected };
    let cases = [
        case("nobody's issuer", good_port, None, "tls_error: TLS failed, unknown issuer: "),
        case("an issuer of its own", good_port, Some(json!({"ca": ca})), "delivered"),
        case("the issuer of the configuration", common_port, None, "delivered"),
        case(
            "its own instead of all others",
            common_port,
            Some(json!({"ca": ca})),
            "tls_error: TLS failed, unknown issuer: ",
        ),
        case("its key", good_port, Some(json!({"ca": ca, "pins": [good.pin]})), "delivered"),
        case("its key or another", good_port, Some(json!({"ca": ca, "pins": [client.pin, good.pin]})), "delivered"),
        case(
            "another key",
            good_port,
            Some(json!({"ca": ca, "pins": [client.pin]})),
            "tls_error: TLS failed, pinned key missing: ",
        ),
        case(
            "a pin loosens nothing",
            good_port,
            Some(json!({"pins": [good.pin]})),
            "tls_error: TLS failed, unknown issuer: ",
        ),
        case(
            "expired",
            tls_receiver(&expired, None).await.port(),
            Some(json!({"ca": ca})),
            "tls_error: TLS failed, certificate expired: ",
        ),
        case(
            "not yet",
            tls_receiver(&future, None).await.port(),
            Some(json!({"ca": ca})),
            "tls_error: TLS failed, certificate not yet valid: ",
        ),
        case(
            "another name",
            tls_receiver(&misnamed, None).await.port(),
            Some(json!({"ca": ca})),
            "tls_error: TLS failed, certificate for another name: ",
        ),
        case("no TLS", plain_port, None, "tls_error: TLS failed, protocol: "),
        case(
            "no client certificate",
            demanding_port,
            Some(json!({"ca": ca})),
            "tls_error: TLS failed, client certificate refused: ",
        ),
        case(
            "the client's certificate",
            demanding_port,
            Some(json!({"ca": ca, "client": "file:client.pem"})),
            "delivered",
        ),
        case(
            "a stranger's",
            demanding_port,
            Some(json!({"ca": ca, "client": "file:stranger.pem"})),
            "tls_error: TLS failed, client certificate refused: ",
        ),
        case(
            "a file that is not there",
            demanding_port,
            Some(json!({"ca": ca, "client": "file:gone.pem"})),
            "relay_error: file:gone.pem: there is no such file",
        ),
    ];
    let healthy = Sink::accepting().await;
    session.allow_http().await;
    let beside = session.endpoint(&healthy.url("/in"), "").await;
    let mut ids = Vec::new();
    for Case { port, tls, .. } in &cases {
        let sql =
            "select (outbox.subscribe($1, '{*}', retry_policy => 'none', tls => $2::text::jsonb)).subscription_id";
        let tls = tls.as_ref().map(ToString::to_string);
        let row = session.query_one(sql, &[&format!("https://127.0.0.1:{port}/in"), &tls]).await.expect(sql);
        ids.push(row.get::<_, i64>(0));
    }
    let _relay = Daemon::relay(&db.url(), "relay-1")
        .set("OUTBOXD_HTTP__CA_FILE", &directory.path("common.pem"))
        .set("OUTBOXD_SECRETS__DIRECTORY", &directory.path(""))
        .spawn()
        .registered()
        .await;
    // Twice: what was pooled by one subscription must not serve another.
    for round in 1..=2 {
        session.insert("a", "{}").await;
        session.wait_for_state(beside.id, "succeeded", round).await;
        let mut wrong = Vec::new();
        for (Case { what, expected, .. }, id) in cases.iter().zip(&ids) {
            session
                .wait_until(&format!("select count(*) = {round} from outbox.attempt where subscription_id = {id}"))
                .await;
            let said: String = session
                .one(&format!(
                    "select outcome || coalesce(': ' || error, '') from outbox.attempt where subscription_id = {id} order by event_seq desc limit 1"
                ))
                .await;
            if !said.starts_with(expected) {
                wrong.push(format!("{what}: {said:?} instead of {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "round {round}\n{}", wrong.join("\n"));
    }
    session.assert_accounted().await;
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_when_it_is_said() {
    let db = Db::new().await;
    let session = db.session().await;
    let ca = Authority::new();
    let pem = ca.pem();
    let pin = format!("sha256//{}=", "A".repeat(43));
    let identity = ca.identity("a.example", |_| {});
    let with_key = format!("{pem}{}", identity.key_pem);
    for (tls, words) in [
        (json!([]), "not a JSON object"),
        (json!("x"), "not a JSON object"),
        (json!({}), "is empty"),
        (json!({"verify": false}), "none of ca, pins, client"),
        (json!({"ca": pem, "insecure": true}), "none of ca, pins, client"),
        (json!({"ca": 7}), "ca is not a text"),
        (json!({"ca": "hunter2"}), "ca is not a certificate"),
        (json!({"ca": with_key}), "ca holds a private key"),
        (json!({"ca": format!("{pem}{}", " ".repeat(70_000))}), "longer than"),
        (json!({"pins": "x"}), "pins is not a list"),
        (json!({"pins": []}), "none or more than 10"),
        (json!({"pins": vec![pin.clone(); 11]}), "none or more than 10"),
        (json!({"pins": [pin.replace("//", "/")]}), "sha256//"),
        (json!({"pins": [pin.replace("AA=", "AB=")]}), "sha256//"),
        (json!({"pins": [null]}), "sha256//"),
        (json!({"client": "file:../key.pem"}), "client is not file:NAME"),
        (json!({"client": "/etc/ssl/key.pem"}), "client is not file:NAME"),
        (json!({"client": null}), "client is not file:NAME"),
    ] {
        let sql = format!("select outbox.subscribe('https://hooks.example.com/in', '{{*}}', tls => $tls${tls}$tls$)");
        let error = session.refused(&sql, "OB019").await;
        assert!(error.message().contains(words), "{tls}: {}", error.message());
        assert!(!error.message().contains("hunter2") && !error.message().contains("BEGIN"), "{}", error.message());
    }
    session.run("select outbox.set('allow_insecure_http', 'true')").await;
    let sql =
        format!("select outbox.subscribe('http://hooks.example.com/in', '{{*}}', tls => '{{\"pins\": [\"{pin}\"]}}')");
    assert!(session.refused(&sql, "OB019").await.message().contains("the URL is http:"));
    session
        .run(&format!(
            "select outbox.subscribe('https://hooks.example.com/in', '{{*}}', tls => '{{\"pins\": [\"{pin}\"]}}')"
        ))
        .await;
    session.run("update outbox.subscription set tls = null").await;
}

/// Answers whatever it is sent in plain HTTP.
async fn without_tls() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    address
}

/// Files of one test.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("outboxd-tls-{}-{:x}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("a file");
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
