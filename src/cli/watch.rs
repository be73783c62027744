//! `outboxd status --watch`: a screen to leave open, or where there is none a line each second.
//!
//! `figures` asks the database, in a task of its own; `screen` turns the answers into lines and is pure;
//! `text` knows widths and lets nothing through that a terminal would obey; `terminal` is the only one that
//! touches it.

mod figures;
mod screen;
mod terminal;
#[cfg(test)]
mod tests;
mod text;

use super::{Exit, fail};
use crate::config::{Config, ConnectSettings};
use figures::{Asker, Figures, News, Session, Wish};
use screen::View;
use std::io::{self, Write};
use std::time::{Duration, Instant};
use terminal::{Key, Terminal};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch as wishing};
use tokio_postgres::config::Host;

/// Between two looks, in seconds.
const INTERVALS_S: [u64; 6] = [1, 2, 5, 10, 30, 60];

/// Shows how things stand until it is told to stop. A database that cannot be reached at the start is an
/// error; one that is lost later is waited for.
pub(super) async fn watch(config: &Config) -> Exit {
    let target = match config.database.connect_settings() {
        Ok(target) => target,
        Err(e) => return fail(e),
    };
    let (mut stop, mut resized) = match (Stop::new(), signal(SignalKind::window_change())) {
        (Ok(stop), Ok(resized)) => (stop, resized),
        (Err(e), _) | (_, Err(e)) => return fail(format_args!("cannot hear signals: {e}")),
    };
    let wish = Wish { paused: false, interval: Duration::from_secs(INTERVALS_S[0]), minutes: 10 };
    let mut asker = Asker::new(host(&target));
    let begin = async {
        let session = Session::open(&target).await?;
        let figures = asker.ask(&session, wish.minutes).await?;
        Ok::<_, figures::Trouble>((session, figures))
    };
    let (session, figures) = tokio::select! {
        () = stop.wanted() => return Exit::Done,
        begun = begin => match begun {
            Ok(begun) => begun,
            Err(trouble) => return fail(trouble),
        },
    };

    let (wishes, wished) = wishing::channel(wish);
    let (told, news) = mpsc::channel(1);
    tokio::spawn(figures::fetch(target, asker, session, wished, told));
    let watched = Watched { figures, answered: Instant::now(), lost: None, wish, wishes, news };
    let ended = if terminal::is_there() {
        watched.on_screen(&mut stop, &mut resized).await
    } else {
        watched.in_lines(&mut stop).await
    };
    match ended {
        Ok(()) => Exit::Done,
        // Nobody reads on.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(e) => fail(format_args!("cannot write: {e}")),
    }
}

/// Where the configuration says the database is; never who logs in, nor with what.
fn host(target: &ConnectSettings) -> String {
    let ports = target.server.get_ports();
    let hosts = target.server.get_hosts().iter().enumerate().map(|(at, host)| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => format!("{}:{port}", path.display()),
        }
    });
    hosts.collect::<Vec<_>>().join(",")
}

/// The signals that mean: stop.
struct Stop([Signal; 3]);

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    async fn wanted(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

struct Watched {
    figures: Figures,
    /// When the last answer came.
    answered: Instant,
    /// Why none has come since.
    lost: Option<String>,
    wish: Wish,
    wishes: wishing::Sender<Wish>,
    news: mpsc::Receiver<News>,
}

impl Watched {
    fn hear(&mut self, news: News) {
        match news {
            News::Figures(figures) => {
                (self.figures, self.answered, self.lost) = (*figures, Instant::now(), None);
            }
            News::Lost(reason) => self.lost = Some(reason),
        }
    }

    async fn in_lines(mut self, stop: &mut Stop) -> io::Result<()> {
        loop {
            let line = match &self.lost {
                None => screen::log_line(&self.figures),
                Some(reason) => screen::lost_line(&self.figures, self.answered.elapsed(), reason),
            };
            let mut out = io::stdout().lock();
            writeln!(out, "{line}")?;
            out.flush()?;
            drop(out);
            tokio::select! {
                () = stop.wanted() => return Ok(()),
                news = self.news.recv() => match news {
                    Some(news) => self.hear(news),
                    None => return Err(io::Error::other("the task that asks the database has ended")),
                },
            }
        }
    }

    async fn on_screen(mut self, stop: &mut Stop, resized: &mut Signal) -> io::Result<()> {
        let mut terminal = Terminal::take()?;
        let mut keys = terminal::keys();
        let (mut help, mut has_keys) = (false, true);
        // The silence is counted while nothing is heard.
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            let size @ (columns, rows) = Terminal::size();
            let lost = self.lost.clone().map(|reason| (self.answered.elapsed(), reason));
            let Wish { paused, interval, minutes } = self.wish;
            let shown = Figures { minutes, ..self.figures.clone() };
            let view = View { columns, rows, paused, help, interval, lost };
            terminal.draw(&screen::screen(&shown, &view), size)?;
            tokio::select! {
                () = stop.wanted() => return Ok(()),
                _ = resized.recv() => {}
                _ = ticks.tick() => {}
                news = self.news.recv() => match news {
                    Some(news) => self.hear(news),
                    None => return Err(io::Error::other("the task that asks the database has ended")),
                },
                key = keys.recv(), if has_keys => match key {
                    Some(Key::Quit) => return Ok(()),
                    Some(Key::Help) => help = !help,
                    Some(key) => self.obey(key),
                    None => has_keys = false,
                },
            }
        }
    }

    fn obey(&mut self, key: Key) {
        let seconds = self.wish.interval.as_secs();
        match key {
            Key::Pause => self.wish.paused = !self.wish.paused,
            Key::Slower => {
                let longer = INTERVALS_S.into_iter().find(|s| *s > seconds);
                self.wish.interval = Duration::from_secs(longer.unwrap_or(seconds));
            }
            Key::Faster => {
                let shorter = INTERVALS_S.into_iter().rev().find(|s| *s < seconds);
                self.wish.interval = Duration::from_secs(shorter.unwrap_or(seconds));
            }
            Key::Span(minutes) => self.wish.minutes = minutes,
            Key::Quit | Key::Help => {}
        }
        // The fetcher is there as long as its news are heard.
        let _ = self.wishes.send(self.wish);
    }
}
