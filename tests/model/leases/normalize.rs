//! States that differ in nothing that can matter are made one, so that fewer are looked at.
//!
//! What is dropped leads nowhere: calls and leases to be handed back of an epoch that was fenced, epochs that nobody
//! knows of any more. Epochs and attempts are then numbered anew, in their order, and the relays are sorted.

use super::{Call, Db, Phase, Relay, Row, Set, State, members, one};

pub(super) fn normalize(s: &mut State) {
    let fenced = s.db.fenced;
    s.forgotten.retain(|call| one(*epoch_of(call)) & fenced == 0);
    for relay in &mut s.relays {
        relay.unwanted.retain(|(epoch, _)| one(*epoch) & fenced == 0);
    }
    number_epochs(s);
    number_attempts(s);
    s.relays.sort_unstable();
}

fn epoch_of(call: &Call) -> &u8 {
    match call {
        Call::Lease { epoch } | Call::Record { epoch, .. } | Call::HandBack { epoch, .. } => epoch,
    }
}

/// Where each member of the set goes, if they are numbered from `first` on.
fn places(set: Set, first: u8) -> [u8; 16] {
    let mut places = [0; 16];
    for (nth, member) in members(set).enumerate() {
        places[usize::from(member)] = first + nth as u8;
    }
    places
}

fn moved(set: Set, kept: Set, places: &[u8; 16]) -> Set {
    members(set & kept).map(|member| one(places[usize::from(member)])).sum()
}

fn each_epoch(relay: &mut Relay, mut f: impl FnMut(&mut u8)) {
    f(&mut relay.epoch);
    f(&mut relay.doubted);
    relay.attempts.iter_mut().for_each(|attempt| f(&mut attempt.epoch));
    relay.unwanted.iter_mut().for_each(|(epoch, _)| f(epoch));
    relay.lease.iter_mut().for_each(|(epoch, _)| f(epoch));
    relay.record.iter_mut().for_each(|(epoch, _)| f(epoch));
    relay.hand_back.iter_mut().for_each(|(epoch, ..)| f(epoch));
}

fn number_epochs(s: &mut State) {
    let mut known: Set = s.relays.iter().map(|relay| relay.retired).fold(0, |all, some| all | some);
    for relay in &mut s.relays {
        each_epoch(relay, |epoch| known |= one(*epoch));
    }
    known |= s.forgotten.iter().map(|call| one(*epoch_of(call))).fold(0, |all, one| all | one);
    for (row, _) in s.db.rows.iter().chain(&s.durable.rows) {
        known |= if let Row::Leased(epoch) = row { one(*epoch) } else { 0 };
    }
    known &= !1;
    // What a touched epoch sent explains itself.
    s.sent.iter_mut().for_each(|sent| *sent &= !s.shaken);
    known |= s.sent.iter().fold(0, |all, sent| all | sent);

    let places = places(known, 1);
    for relay in &mut s.relays {
        each_epoch(relay, |epoch| *epoch = places[usize::from(*epoch)]);
        relay.retired = moved(relay.retired, known, &places);
        relay.attempts.sort_unstable();
    }
    for call in &mut s.forgotten {
        match call {
            Call::Lease { epoch } | Call::Record { epoch, .. } | Call::HandBack { epoch, .. } => {
                *epoch = places[usize::from(*epoch)];
            }
        }
    }
    s.forgotten.sort_unstable();
    for db in [&mut s.db, &mut s.durable] {
        db.fenced = moved(db.fenced, known, &places);
        for (row, _) in &mut db.rows {
            if let Row::Leased(epoch) = row {
                *epoch = places[usize::from(*epoch)];
            }
        }
    }
    s.sent.iter_mut().for_each(|sent| *sent = moved(*sent, known, &places));
    s.sessions = moved(s.sessions, known, &places);
    s.shaken = moved(s.shaken, known, &places);
    s.registered = known.count_ones() as u8;
}

fn number_attempts(s: &mut State) {
    let mut known: Set = 0;
    each_attempt(s, |attempt| known |= one(*attempt));
    let places = places(known, 0);
    each_attempt(s, |attempt| *attempt = places[usize::from(*attempt)]);
    let of = |db: &Db| moved(db.logged, known, &places);
    (s.db.logged, s.durable.logged) = (of(&s.db), of(&s.durable));
    s.next_attempt = known.count_ones() as u8;
    s.relays.iter_mut().for_each(|relay| relay.attempts.sort_unstable());
    s.forgotten.sort_unstable();
}

fn each_attempt(s: &mut State, mut f: impl FnMut(&mut u8)) {
    for relay in &mut s.relays {
        for attempt in &mut relay.attempts {
            match &mut attempt.phase {
                Phase::Sending(id) | Phase::Ended { attempt: id, .. } | Phase::Recording { attempt: id, .. } => f(id),
                Phase::Waiting => {}
            }
        }
    }
    for call in &mut s.forgotten {
        if let Call::Record { batch, .. } = call {
            batch.iter_mut().for_each(|(_, id, _)| f(id));
        }
    }
}
