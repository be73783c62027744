//! Through a forward proxy.

use std::sync::Mutex;

use hyper::header::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A proxy that answers every CONNECT with `answer` and, if that is a 200, connects to `target` whatever name it
/// was told. Returns its settings and what it was asked for.
async fn proxy(answer: &'static str, target: SocketAddr) -> (Proxy, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let uri = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("a URI");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && client.read_buf(&mut head).await.is_ok_and(|read| read > 0) {}
            kept.lock().expect("kept").push(String::from_utf8_lossy(&head).into_owned());
            let _ = client.write_all(answer.as_bytes()).await;
            if answer.starts_with("HTTP/1.1 200") {
                let mut receiver = TcpStream::connect(target).await.expect("the receiver");
                tokio::spawn(async move { copy_bidirectional(&mut client, &mut receiver).await });
            }
        }
    });
    (Proxy { uri, authorization: None }, asked)
}

const CONNECTED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

#[tokio::test]
async fn a_proxy_is_told_the_name_and_the_port_and_who_asks() {
    let sink = Sink::raw("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Then::Keep).await;
    let (mut proxy, asked) = proxy(CONNECTED, sink.addr()).await;
    proxy.authorization = Some(HeaderValue::from_static("Basic aHVudGVyMg=="));
    let sender = sender_with(Settings { proxy: Some(proxy), ..settings() }, &[]);
    for (url, target) in [
        ("http://hooks.example.test/in", "hooks.example.test:80"),
        ("http://hooks.example.test:8080/in", "hooks.example.test:8080"),
        ("http://1.1.1.1:443/in", "1.1.1.1:443"),
    ] {
        let attempted = sender.send(outgoing(url, PATIENT)).await;
        assert_eq!(attempted.outcome, Outcome::Delivered, "{:?}", attempted.error);
        let asked = asked.lock().expect("kept").pop().expect("it was asked");
        assert!(asked.starts_with(&format!("CONNECT {target} HTTP/1.1\r\n")), "{asked}");
        assert!(asked.to_lowercase().contains("\r\nproxy-authorization: basic "), "{asked}");
    }
    assert!(!format!("{sender:?}{:?}", sender.shared.settings).contains("aHVudGVyMg"));
}

#[tokio::test]
async fn a_literal_address_is_judged_before_the_proxy_is_asked() {
    let sink = Sink::raw("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Then::Keep).await;
    let (proxy, asked) = proxy(CONNECTED, sink.addr()).await;
    let sender = sender_with(Settings { proxy: Some(proxy), ..settings() }, &[]);
    for host in ["127.0.0.1", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]", "[64:ff9b::7f00:1]"] {
        let attempted = sender.send(outgoing(&format!("http://{host}/"), PATIENT)).await;
        assert_failed(&attempted, Outcome::EgressRefused, "egress refused: ");
    }
    assert!(asked.lock().expect("kept").is_empty());
}

#[tokio::test]
async fn tls_is_the_receivers_through_a_proxy_too() {
    let (pem, acceptor) = authority("hooks.example.test", &["h2", "http/1.1"]);
    let sink = Sink::tls(acceptor).await;
    let (proxy, _) = proxy(CONNECTED, sink.addr()).await;
    let settings = Settings { proxy: Some(proxy), extra_roots_pem: Some(pem), ..settings() };
    let sender = sender_with(settings, &[]);
    let attempted = sender.send(outgoing("https://hooks.example.test/", PATIENT)).await;
    assert_eq!(attempted.outcome, Outcome::Delivered, "{:?}", attempted.error);
    let attempted = sender.send(outgoing("https://other.example.test/", PATIENT)).await;
    assert_failed(&attempted, Outcome::TlsError, "certificate for another name");
}

#[tokio::test]
async fn a_proxy_that_refuses_or_is_not_there_is_a_connect_error() {
    let nowhere: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    for (answer, words) in [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "the proxy refuses"),
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the proxy refuses"),
        ("nonsense", "the proxy refuses"),
    ] {
        let (proxy, _) = proxy(answer, nowhere).await;
        let sender = sender_with(Settings { proxy: Some(proxy), ..settings() }, &[]);
        let attempted = sender.send(outgoing("http://hooks.example.test/", PATIENT)).await;
        assert_failed(&attempted, Outcome::ConnectError, words);
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let uri = format!("http://{}", closed.local_addr().expect("an address")).parse().expect("a URI");
    drop(closed);
    let sender = sender_with(Settings { proxy: Some(Proxy { uri, authorization: None }), ..settings() }, &[]);
    let attempted = sender.send(outgoing("http://hooks.example.test/", PATIENT)).await;
    assert_failed(&attempted, Outcome::ConnectError, "the proxy: cannot connect");
}
