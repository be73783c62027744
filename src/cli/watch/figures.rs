//! The figures, and who fetches them: a task of its own, so that the keys answer while the database does not.

use crate::config::ConnectSettings;
use crate::connect::{self, Canceller, ConnectError, Opened};
use crate::db::{self, Activity, FailedDelivery, LiveRelay, Standing, Troubled};
use crate::schema::describe;
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// After this long without an answer the connection is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Rows of a list: more than any screen shows.
const ROWS: i64 = 200;
/// Changes are told over so long.
const MINUTE_S: f64 = 60.0;

/// What is on the screen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// Where the database is, by the configuration.
    pub(super) host: String,
    pub(super) standing: Standing,
    /// The same a minute ago, or as long ago as anything is known.
    pub(super) earlier: Option<Standing>,
    /// The minutes that `activity` is about.
    pub(super) minutes: i32,
    pub(super) activity: Part<Activity>,
    pub(super) relays: Part<Vec<LiveRelay>>,
    pub(super) troubled: Part<Vec<Troubled>>,
    pub(super) failures: Part<Vec<FailedDelivery>>,
}

/// Some of the figures: not every role may read all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Part<T> {
    #[default]
    Waiting,
    /// The role may not.
    Forbidden,
    /// PostgreSQL refused it for another reason.
    Refused(String),
    Known(T),
}

/// What the keys change about the fetching.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wish {
    pub(super) paused: bool,
    pub(super) interval: Duration,
    pub(super) minutes: i32,
}

/// What the fetcher tells.
#[derive(Debug)]
pub(super) enum News {
    Figures(Box<Figures>),
    /// No answer, and why.
    Lost(String),
}

/// One connection; its driver ends with it.
pub(super) struct Session {
    client: Client,
    canceller: Canceller,
    driver: JoinHandle<()>,
}

impl Session {
    pub(super) async fn open(target: &ConnectSettings) -> Result<Self, Trouble> {
        let opened = tokio::time::timeout(PATIENCE, connect::open(target)).await.map_err(|_| Trouble::Silent)?;
        let Opened { client, driver, canceller } = opened.map_err(Trouble::Unreachable)?;
        // Its end shows as an error of the client's next call.
        let driver = tokio::spawn(async move { drop(driver.await) });
        Ok(Self { client, canceller, driver })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Why there are no figures.
#[derive(Debug)]
pub(super) enum Trouble {
    Unreachable(ConnectError),
    Refused(tokio_postgres::Error),
    Silent,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Unreachable(e) => write!(f, "cannot reach the database: {e}"),
            Trouble::Refused(e) => write!(f, "outbox.status(): {}", describe(e)),
            Trouble::Silent => write!(f, "no answer within {} s", PATIENCE.as_secs()),
        }
    }
}

/// When a statement is next worth its price: one that takes long is asked for seldom, so that watching costs
/// the server some of one connection and no more. `outbox.status()` over a million outstanding deliveries takes
/// 0.6 s, and is then asked for every 2.6 s.
#[derive(Default)]
struct Pace {
    not_before: Option<Instant>,
}

impl Pace {
    fn is_due(&self) -> bool {
        self.not_before.is_none_or(|at| at <= Instant::now())
    }

    /// It took so long, and is to take no more than one part in `parts` of the time.
    fn asked(&mut self, began: Instant, at_least: Duration, parts: u32) {
        self.not_before = Some(began + at_least.max(began.elapsed() * parts));
    }
}

/// Asks, and remembers what was.
pub(super) struct Asker {
    figures: Figures,
    history: VecDeque<Standing>,
    paces: [Pace; 5],
}

impl Asker {
    pub(super) fn new(host: String) -> Self {
        Self { figures: Figures { host, ..Figures::default() }, history: VecDeque::new(), paces: Default::default() }
    }

    /// All figures that are due.
    pub(super) async fn ask(&mut self, session: &Session, minutes: i32) -> Result<Figures, Trouble> {
        match tokio::time::timeout(PATIENCE, self.try_ask(&session.client, minutes)).await {
            Ok(Ok(())) => Ok(self.figures.clone()),
            Ok(Err(e)) => Err(Trouble::Refused(e)),
            Err(_) => {
                // It may still run: ask the server to stop it, or the next one would stand beside it.
                let canceller = session.canceller.clone();
                tokio::spawn(async move { drop(canceller.cancel().await) });
                Err(Trouble::Silent)
            }
        }
    }

    async fn try_ask(&mut self, client: &Client, minutes: i32) -> Result<(), tokio_postgres::Error> {
        let Self { figures, history, paces: [standing, activity, relays, troubled, failures] } = self;
        if figures.minutes != minutes {
            (figures.minutes, figures.activity) = (minutes, Part::Waiting);
            *activity = Pace::default();
        }
        if standing.is_due() {
            let began = Instant::now();
            figures.standing = db::standing(client).await?;
            standing.asked(began, Duration::ZERO, 4);
            figures.earlier = remember(history, &figures.standing);
        }
        if activity.is_due() {
            let began = Instant::now();
            figures.activity = part(db::activity(client, minutes).await)?;
            // A step lasts as many seconds as the span has minutes, and the last minute's sample comes late.
            activity.asked(began, Duration::from_secs(u64::from(minutes.unsigned_abs()) / 10), 20);
        }
        if relays.is_due() {
            let began = Instant::now();
            figures.relays = part(db::relays(client).await)?;
            relays.asked(began, Duration::ZERO, 20);
        }
        if troubled.is_due() {
            let began = Instant::now();
            figures.troubled = part(db::troubled(client, ROWS).await)?;
            troubled.asked(began, Duration::ZERO, 20);
        }
        if figures.standing.failed == 0 {
            // Nothing to look for; but who may not look is told so.
            if matches!(figures.failures, Part::Known(_)) {
                figures.failures = Part::Known(Vec::new());
                return Ok(());
            }
        }
        if failures.is_due() {
            let began = Instant::now();
            figures.failures = part(db::newest_failures(client, ROWS).await)?;
            failures.asked(began, Duration::ZERO, 20);
        }
        Ok(())
    }
}

/// What PostgreSQL refuses is told in its place; an error of the connection is an error.
fn part<T>(answer: Result<T, tokio_postgres::Error>) -> Result<Part<T>, tokio_postgres::Error> {
    match answer {
        Ok(known) => Ok(Part::Known(known)),
        Err(e) if e.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(Part::Forbidden),
        // Class 57: the server is being stopped, or the session was ended.
        Err(e) if e.code().is_some_and(|code| !code.code().starts_with("57P")) => Ok(Part::Refused(describe(&e))),
        Err(e) => Err(e),
    }
}

/// Keeps a minute; returns its other end.
fn remember(history: &mut VecDeque<Standing>, now: &Standing) -> Option<Standing> {
    let is_older = |then: &Standing| now.at - then.at >= MINUTE_S;
    while history.get(1).is_some_and(is_older) {
        history.pop_front();
    }
    // Another server, or its clock was set back or far forward: nothing to compare with.
    if history.front().is_some_and(|then| then.at > now.at || now.at - then.at > 2.0 * MINUTE_S) {
        history.clear();
    }
    let earlier = history.front().cloned();
    history.push_back(now.clone());
    earlier
}

/// Fetches until nobody listens any more; a connection that was lost is made anew.
pub(super) async fn fetch(
    target: ConnectSettings,
    mut asker: Asker,
    first: Session,
    mut wishes: watch::Receiver<Wish>,
    news: mpsc::Sender<News>,
) {
    let mut session = Some(first);
    loop {
        let wish = *wishes.borrow_and_update();
        let mut pause = wish.interval;
        if !wish.paused {
            let answer = match session.take() {
                Some(session) => Ok(session),
                None => Session::open(&target).await,
            };
            let answer = match answer {
                Ok(open) => {
                    let answer = asker.ask(&open, wish.minutes).await;
                    if answer.is_ok() {
                        session = Some(open);
                    }
                    answer
                }
                Err(trouble) => Err(trouble),
            };
            let told = match answer {
                Ok(figures) => News::Figures(Box::new(figures)),
                Err(trouble) => {
                    pause =
                        pause.max(if matches!(trouble, Trouble::Silent) { PATIENCE } else { Duration::from_secs(1) });
                    News::Lost(trouble.to_string())
                }
            };
            if news.send(told).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = wishes.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_remembered_and_a_clock_that_jumps_forgets_it() {
        let mut history = VecDeque::new();
        let mut at = |at: f64| remember(&mut history, &Standing { at, ..Standing::default() }).map(|then| then.at);
        assert_eq!(at(1000.0), None);
        assert_eq!(at(1010.0), Some(1000.0));
        assert_eq!(at(1059.0), Some(1000.0));
        assert_eq!(at(1060.0), Some(1000.0));
        assert_eq!(at(1071.0), Some(1010.0));
        assert_eq!(at(900.0), None);
        assert_eq!(at(901.0), Some(900.0));
        assert_eq!(at(5000.0), None);
    }
}
