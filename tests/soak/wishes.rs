//! The subscriptions of a run, and how their receivers behave.

use super::plan::{Drawn, TYPES};

/// How a receiver behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Temper {
    Good,
    /// Answers a tenth of the first attempts with 503.
    Flaky,
    /// Does not answer one of a hundred first attempts in time.
    Hangs,
    /// Nobody listens there.
    Dead,
}

/// A subscription, and what it wants.
pub(crate) struct Wish {
    pub(crate) path: &'static str,
    pub(crate) tenant: u8,
    /// Arguments of `outbox.subscribe` besides URL and tenant.
    pub(crate) arguments: &'static str,
    pub(crate) wants: fn(&Drawn) -> bool,
    pub(crate) temper: Temper,
    /// Whether commit to receipt is measured here: nothing but the relays stands in the way.
    pub(crate) timed: bool,
}

/// The retry policies of a run. What a dead endpoint does not take is given up soon, so that its segments can go.
pub(crate) const POLICIES: &str = "insert into outbox.retry_policy (name, delays, max_age) values
    ('soak', '{500ms,1s,2s,3s,5s,5s,10s,10s}', null), ('dead', '{1s,2s,4s}', '20s')";

/// Subscriptions of one tenant, at most.
pub(crate) const SLOTS: usize = 4;

pub(crate) const WISHES: [Wish; 8] = [
    Wish {
        path: "/all-a",
        tenant: 0,
        arguments: "'{*}', retry_policy => 'soak'",
        wants: |_| true,
        temper: Temper::Good,
        timed: true,
    },
    Wish {
        path: "/ordered",
        tenant: 0,
        arguments: "'{order.*}', ordered => true, retry_policy => 'soak'",
        wants: is_order,
        temper: Temper::Good,
        timed: false,
    },
    Wish {
        path: "/filtered",
        tenant: 0,
        arguments: "'{*}', filter => '$.amount >= 50', retry_policy => 'soak'",
        wants: |event| event.amount >= 50,
        temper: Temper::Good,
        timed: true,
    },
    Wish {
        path: "/flaky",
        tenant: 0,
        arguments: "'{invoice.*}', retry_policy => 'soak'",
        wants: |event| !is_order(event),
        temper: Temper::Flaky,
        timed: false,
    },
    Wish {
        path: "/all-b",
        tenant: 1,
        arguments: "'{*}', retry_policy => 'soak'",
        wants: |_| true,
        temper: Temper::Good,
        timed: true,
    },
    Wish {
        path: "/hangs",
        tenant: 1,
        arguments: "'{order.paid}', timeout => '2 seconds', retry_policy => 'soak'",
        wants: |event| TYPES[usize::from(event.kind)] == "order.paid",
        temper: Temper::Hangs,
        timed: false,
    },
    Wish {
        path: "/all-c",
        tenant: 2,
        arguments: "'{*}', retry_policy => 'soak'",
        wants: |_| true,
        temper: Temper::Good,
        timed: true,
    },
    Wish {
        path: "/dead",
        tenant: 2,
        arguments: "'{*}', retry_policy => 'dead'",
        wants: |_| true,
        temper: Temper::Dead,
        timed: false,
    },
];

fn is_order(event: &Drawn) -> bool {
    TYPES[usize::from(event.kind)].starts_with("order.")
}

/// The place of a subscription among those of its tenant.
pub(crate) fn slot(wish: usize) -> usize {
    WISHES[..wish].iter().filter(|other| other.tenant == WISHES[wish].tenant).count()
}

/// Where this event is to arrive.
pub(crate) fn wanted(event: &Drawn) -> impl Iterator<Item = usize> {
    (0..WISHES.len()).filter(|wish| {
        let wish = &WISHES[*wish];
        wish.temper != Temper::Dead && wish.tenant == event.tenant && (wish.wants)(event)
    })
}
