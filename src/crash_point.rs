//! Where a test lets the process die: between any two steps of the loop.
//!
//! `OUTBOXD_CRASH_AT=record:answered#3` kills the process as it comes to that point for the third time: SIGKILL, so no
//! destructor runs and nothing drains. With `,stop` behind it the process is stopped there instead (SIGSTOP), so that
//! the database can be crashed meanwhile; SIGCONT lets it go on. Either way its last line says where it was.
//!
//! A release build has none of this: [`reached`] and [`unread`] are empty there, and the variable means nothing.
//! (Not the crate `fail`: its actions cannot kill, and it lets pass a name that no point has, so that a misspelt test
//! would test nothing.)

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident $name:literal,)*) => {
        /// A place between two steps, in the order in which an event meets them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point { $($(#[$doc])* $point,)* }

        impl Point {
            /// All there are; a test sees to it that each is hit.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// As `OUTBOXD_CRASH_AT` names it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$point => $name,)* }
            }
        }
    };
}

points! {
    /// A migration is committed; the next one, or the functions, are to come.
    MigrationApplied "migrate:migration",
    /// A function is made in the transaction that makes them all.
    FileApplied "migrate:file",
    /// All of them are made, and nothing of that is committed.
    FilesApplied "migrate:files",
    /// Plain secrets are read, none is sealed.
    SealFound "seal:found",
    /// One of them is sealed.
    SealCommitted "seal:committed",
    /// The relay has an epoch and leases nothing yet.
    Registered "registered",
    /// Producers ring from here on; the second look at the log is to come.
    DoorTaken "door:taken",
    /// The answer of expand is here and not read: the deliveries are born.
    ExpandCommitted "expand:committed",
    /// It is read; the endpoints are not known.
    ExpandAnswered "expand:answered",
    /// The endpoints are known, the leases not taken in.
    ExpandResolved "expand:resolved",
    /// The answer of claim is here and not read: the leases are given.
    ClaimCommitted "claim:committed",
    /// It is read; the endpoints are not known.
    ClaimAnswered "claim:answered",
    /// The endpoints are known, the leases not taken in.
    ClaimResolved "claim:resolved",
    /// Leases are taken in, and none has begun.
    LeaseTaken "lease:taken",
    /// An attempt has begun; its request is not written.
    AttemptBegun "attempt:begun",
    /// Its request is written, and not answered.
    AttemptWritten "attempt:written",
    /// It is answered, and the loop does not know.
    AttemptAnswered "attempt:answered",
    /// Results are noted, and no record call knows of them.
    ResultNoted "result:noted",
    /// The answer of record is here and not read: the results are kept.
    RecordCommitted "record:committed",
    /// It is read; what was recorded still counts as outstanding.
    RecordAnswered "record:answered",
    /// The loop is done with them.
    RecordSettled "record:settled",
    /// The answer of tick is here and not read: dead relays are fenced.
    TickCommitted "tick:committed",
    /// It is read; health is to be written.
    TickAnswered "tick:answered",
    /// Health is written, and not forgotten here.
    HealthCommitted "health:committed",
    /// A sample of the activity is written, and not forgotten here.
    SampleCommitted "sample:committed",
    /// The answer of hand_back is here and not read: the leases are due again.
    HandBackCommitted "hand_back:committed",
    /// It is read; the loop does not know.
    HandBackAnswered "hand_back:answered",
    /// Segments are looked after, and what was done is not read.
    MaintainCommitted "maintain:committed",
    /// Told to stop; what has not begun is not handed back.
    StopTold "stop:told",
    /// Drained; the epoch has not ended.
    Drained "drain:done",
    /// The answer of fence is here and not read: the epoch has ended.
    FenceCommitted "fence:committed",
}

#[cfg(debug_assertions)]
pub use present::arm;
#[cfg(debug_assertions)]
pub(crate) use present::{reached, unread};

#[cfg(not(debug_assertions))]
pub use absent::arm;
#[cfg(not(debug_assertions))]
pub(crate) use absent::{reached, unread};

#[cfg(debug_assertions)]
mod present {
    use super::Point;
    use rustix::process::{Signal, getpid, kill_process};
    use std::future::poll_fn;
    use std::io::Write;
    use std::pin::pin;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;
    use std::time::Duration;

    const VARIABLE: &str = "OUTBOXD_CRASH_AT";

    /// What the variable says.
    #[derive(Debug)]
    struct Plan {
        point: Point,
        /// The how manieth time, from 1.
        nth: usize,
        stops: bool,
        hits: AtomicUsize,
    }

    static PLAN: OnceLock<Plan> = OnceLock::new();

    /// Reads the variable, if it is set.
    ///
    /// # Errors
    /// It names no point.
    pub fn arm() -> Result<(), String> {
        let Some(text) = std::env::var_os(VARIABLE) else { return Ok(()) };
        let text = text.to_string_lossy();
        let plan = parse(&text).ok_or_else(|| {
            let names: Vec<&str> = Point::ALL.iter().map(|point| point.name()).collect();
            format!(
                "{VARIABLE} = {text:?}: expected one of {}, then #n or nothing, then ,stop or nothing",
                names.join(", ")
            )
        })?;
        PLAN.set(plan).map_err(|_| format!("{VARIABLE} was read already"))
    }

    fn parse(text: &str) -> Option<Plan> {
        let (rest, stops) = text.strip_suffix(",stop").map_or((text, false), |rest| (rest, true));
        let (name, nth) = rest.split_once('#').unwrap_or((rest, "1"));
        let nth = nth.parse().ok().filter(|nth| *nth > 0)?;
        let point = *Point::ALL.iter().find(|point| point.name() == name)?;
        Some(Plan { point, nth, stops, hits: AtomicUsize::new(0) })
    }

    /// The process has come to this point.
    pub(crate) fn reached(point: Point) {
        let Some(plan) = PLAN.get().filter(|plan| plan.point == point) else { return };
        if plan.hits.fetch_add(1, Ordering::SeqCst) + 1 != plan.nth {
            return;
        }
        let (signal, what) = if plan.stops { (Signal::Stop, "stopped") } else { (Signal::Kill, "killed") };
        // In one write, and whatever becomes of it.
        let _ = std::io::stderr().write_all(format!("crash point {}#{}: {what}\n", point.name(), plan.nth).as_bytes());
        let _ = kill_process(getpid(), signal);
        // A stop reaches the main thread first; this one must not get ahead of it.
        std::thread::sleep(Duration::from_millis(100));
    }

    /// A call of the database that comes to its point `…:committed` when its answer is here and nothing has been made of
    /// it. (Rejected: when it is polled again. What wakes it need not be the answer.)
    pub(crate) async fn unread<T, E>(call: &str, asked: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let point = match call {
            "expand" => Point::ExpandCommitted,
            "claim" => Point::ClaimCommitted,
            "record" => Point::RecordCommitted,
            "tick" => Point::TickCommitted,
            "add_health" => Point::HealthCommitted,
            "sample" => Point::SampleCommitted,
            "hand_back" => Point::HandBackCommitted,
            "maintain" => Point::MaintainCommitted,
            "fence" => Point::FenceCommitted,
            _ => return asked.await,
        };
        let mut asked = pin!(asked);
        poll_fn(|cx| {
            let polled = asked.as_mut().poll(cx);
            if matches!(polled, Poll::Ready(Ok(_))) {
                reached(point);
            }
            polled
        })
        .await
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_point_is_named_with_its_turn_and_its_end_and_anything_else_is_refused() {
            let plan = parse("record:answered#3").expect("a plan");
            assert!((plan.point, plan.nth, plan.stops) == (Point::RecordAnswered, 3, false), "{plan:?}");
            let plan = parse("registered,stop").expect("a plan");
            assert!((plan.point, plan.nth, plan.stops) == (Point::Registered, 1, true), "{plan:?}");
            for wrong in ["", "record", "record:answered#0", "record:answered#", "registered,pause", "Registered"] {
                assert!(parse(wrong).is_none(), "{wrong:?}");
            }
        }

        #[test]
        fn every_point_has_a_name_of_its_own() {
            let names: std::collections::HashSet<_> = Point::ALL.iter().map(|point| point.name()).collect();
            assert_eq!(names.len(), Point::ALL.len());
        }
    }
}

#[cfg(not(debug_assertions))]
mod absent {
    use super::Point;

    /// Nothing, in a release build.
    ///
    /// # Errors
    /// Never.
    pub fn arm() -> Result<(), String> {
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn reached(_: Point) {}

    #[inline(always)]
    pub(crate) fn unread<T>(_: &str, asked: impl Future<Output = T>) -> impl Future<Output = T> {
        asked
    }
}
