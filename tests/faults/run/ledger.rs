//! What was written and what arrived, kept outside the database: no fault reaches it.

use super::plan::Plan;
use hyper::StatusCode;
use outboxd::receiver::{self, Arrived, Reply};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What became of the transaction that wrote an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Open,
    /// The server has acknowledged it.
    Committed(Instant),
    RolledBack,
    /// The connection broke before the answer came: the log tells.
    Unknown,
}

impl Fate {
    /// After the statement that was to end the transaction.
    pub(crate) fn of<E>(ended: &Result<(), E>, commits: bool) -> Self {
        match (ended, commits) {
            (_, false) => Self::RolledBack,
            (Ok(()), true) => Self::Committed(Instant::now()),
            (Err(_), true) => Self::Unknown,
        }
    }
}

/// An event as its writer knows it.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) id: String,
    pub(crate) tenant: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) n: i32,
    /// Events of one key are all of one writer, in the order in which it wrote them.
    pub(crate) key: Option<String>,
    pub(crate) fate: Fate,
}

/// A request at a receiver.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) event_id: String,
    /// The place of the relay that sent it.
    pub(crate) relay: usize,
    pub(crate) at: Instant,
    /// When it was accepted; `None` if it was answered otherwise, or not at all.
    pub(crate) accepted: Option<Instant>,
}

/// A subscription of a run, and what it wants.
pub(crate) struct Wish {
    pub(crate) path: &'static str,
    pub(crate) tenant: &'static str,
    /// Arguments of `outbox.subscribe` besides the URL and the tenant.
    pub(crate) arguments: &'static str,
    pub(crate) wants: fn(&Written) -> bool,
}

/// The subscriptions of every run.
pub(crate) const WISHES: [Wish; 5] = [
    Wish { path: "/all", tenant: "a", arguments: "'{*}'", wants: |_| true },
    Wish { path: "/orders", tenant: "a", arguments: "'{order.*}', max_in_flight => 4", wants: is_order },
    Wish { path: "/big", tenant: "a", arguments: "'{*}', filter => '$.n >= 50'", wants: |event| event.n >= 50 },
    Wish { path: "/keys", tenant: "a", arguments: "'{order.*}', ordered => true", wants: is_order },
    Wish { path: "/other", tenant: "b", arguments: "'{*}'", wants: |_| true },
];

/// What the relay of that place calls itself (`http.user_agent`).
pub(crate) fn agent(place: usize) -> String {
    format!("place-{place}")
}

fn sender(arrived: &Arrived) -> Option<usize> {
    arrived.headers.get("user-agent")?.to_str().ok()?.strip_prefix("place-")?.parse().ok()
}

fn is_order(event: &Written) -> bool {
    event.kind.starts_with("order.")
}

/// Where this event is to arrive.
pub(crate) fn paths(event: &Written) -> impl Iterator<Item = &'static str> {
    WISHES.iter().filter(|wish| wish.tenant == event.tenant && (wish.wants)(event)).map(|wish| wish.path)
}

/// How the receivers answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    Good,
    /// Any of several, drawn for each request.
    Moving,
}

/// The books of a run, and its receivers.
pub(crate) struct Ledger {
    written: Mutex<Vec<Written>>,
    requests: Mutex<Vec<Request>>,
    /// How often each event was accepted at each path.
    accepted: Mutex<HashMap<(String, String), usize>>,
    answers: watch::Sender<Answers>,
}

/// Receivers that are gone when this is dropped.
pub(crate) struct Receivers {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Receivers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while the books are written")
}

impl Ledger {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            written: Mutex::default(),
            requests: Mutex::default(),
            accepted: Mutex::default(),
            answers: watch::Sender::new(Answers::Good),
        })
    }

    /// Enters an event whose transaction is open; its index.
    pub(crate) fn open(&self, event: Written) -> usize {
        let mut written = locked(&self.written);
        written.push(event);
        written.len() - 1
    }

    pub(crate) fn close(&self, events: &[usize], fate: Fate) {
        let mut written = locked(&self.written);
        for event in events {
            written[*event].fate = fate;
        }
    }

    pub(crate) fn written(&self) -> Vec<Written> {
        locked(&self.written).clone()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        locked(&self.requests).clone()
    }

    pub(crate) fn answer(&self, answers: Answers) {
        self.answers.send_replace(answers);
    }

    /// How many events that were committed by then have not arrived everywhere.
    pub(crate) fn missing(&self, until: Instant) -> usize {
        let accepted = locked(&self.accepted);
        let has =
            |event: &Written| paths(event).all(|path| accepted.contains_key(&(path.to_owned(), event.id.clone())));
        locked(&self.written)
            .iter()
            .filter(|event| matches!(event.fate, Fate::Committed(at) if at <= until) && !has(event))
            .count()
    }

    /// Begins to receive.
    pub(crate) async fn receive(self: &Arc<Self>, plan: &Plan) -> Receivers {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (ledger, draws) = (self.clone(), Arc::new(Mutex::new(fastrand::Rng::with_seed(plan.seed))));
        let handle = move |arrived: Arrived| {
            let (ledger, draw) = (ledger.clone(), locked(&draws).u32(..));
            async move { ledger.take(arrived, draw).await }
        };
        Receivers { address, task: tokio::spawn(receiver::serve(listener, handle)) }
    }

    async fn take(&self, arrived: Arrived, draw: u32) -> Reply {
        let (path, event_id) = (arrived.path.clone(), arrived.event_id().to_owned());
        let relay = sender(&arrived).expect("a relay tells its place");
        let at = Instant::now();
        let request = Request { path: path.clone(), event_id: event_id.clone(), relay, at, accepted: None };
        let index = {
            let mut requests = locked(&self.requests);
            requests.push(request);
            requests.len() - 1
        };
        // A killed relay is to have something under way.
        sleep(Duration::from_millis(u64::from(draw % 20))).await;
        let answers = *self.answers.borrow();
        let status = match (answers, draw % 6) {
            (Answers::Good, _) | (Answers::Moving, 0 | 1) => StatusCode::OK,
            (Answers::Moving, 2) => StatusCode::INTERNAL_SERVER_ERROR,
            (Answers::Moving, 3) => StatusCode::TOO_MANY_REQUESTS,
            (Answers::Moving, 4) => StatusCode::FOUND,
            // None, until they are good again or the sender has had enough.
            (Answers::Moving, _) => {
                let _ = self.answers.subscribe().wait_for(|answers| *answers == Answers::Good).await;
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        if status == StatusCode::OK {
            locked(&self.requests)[index].accepted = Some(Instant::now());
            *locked(&self.accepted).entry((path, event_id)).or_default() += 1;
        }
        Reply::now(status)
    }
}
