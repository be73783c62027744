//! Attempts and calls: what each of their steps does, and what a lost answer leads to.

use super::{Attempt, Call, Leases, Phase, Progress, Relay, State, Step, Variant, members, one};

impl Leases {
    pub(super) fn begin(s: &mut State, r: usize, attempt: usize) {
        let Attempt { delivery, epoch, .. } = s.relays[r].attempts[attempt];
        let sent = &mut s.sent[usize::from(delivery)];
        if *sent & !s.shaken != 0 && s.shaken & one(epoch) == 0 {
            s.wrong = Some("a delivery is sent again, and nothing explains it");
        }
        *sent |= one(epoch);
        s.relays[r].attempts[attempt].phase = Phase::Sending(s.next_attempt);
        s.relays[r].attempts.sort_unstable();
        s.next_attempt += 1;
    }

    /// At once, unless a call is under way: to wait with it is to have no result yet.
    pub(super) fn send_results(relay: &mut Relay) {
        if relay.record.is_some() {
            return;
        }
        let first = relay.attempts.iter().find(|a| matches!(a.phase, Phase::Ended { .. }));
        let Some(epoch) = first.map(|attempt| attempt.epoch) else { return };
        for attempt in relay.attempts.iter_mut().filter(|attempt| attempt.epoch == epoch) {
            if let Phase::Ended { attempt: id, ok } = attempt.phase {
                attempt.phase = Phase::Recording { attempt: id, ok };
            }
        }
        relay.record = Some((epoch, Progress::Sent));
        relay.attempts.sort_unstable();
    }

    fn take_leases(relay: &mut Relay) {
        let Some((epoch, Progress::Ran(got))) = relay.lease.take() else { return };
        if epoch == relay.epoch || relay.retired & one(epoch) != 0 {
            relay.attempts.extend(members(got).map(|delivery| Attempt { delivery, epoch, phase: Phase::Waiting }));
            relay.attempts.sort_unstable();
        }
    }

    /// Steps of a call of a relay, and what its answer leads to.
    pub(super) fn call_step(&self, s: &mut State, step: &Step) -> Option<()> {
        match *step {
            Step::AskForLeases(r) => s.relays[r].lease = Some((s.relays[r].epoch, Progress::Sent)),
            Step::LookAtEpoch(r) => {
                let (epoch, progress) = s.relays[r].lease.as_mut()?;
                let is_fenced = s.db.fenced & one(*epoch) != 0;
                *progress = if is_fenced { Progress::Ran(0) } else { Progress::Looked };
            }
            Step::RunLease { relay, got } => {
                let (epoch, progress) = s.relays[relay].lease?;
                Self::apply_lease(s, epoch, got, progress == Progress::Looked);
                s.relays[relay].lease = Some((epoch, Progress::Ran(got)));
            }
            Step::TakeLeases(r) => Self::take_leases(&mut s.relays[r]),
            Step::RunRecord(r) => {
                let ((epoch, _), batch) = (s.relays[r].record?, Self::batch(&s.relays[r]));
                self.apply_record(s, epoch, &batch);
                s.relays[r].record = Some((epoch, Progress::Ran(0)));
            }
            Step::Settle(r) => {
                let relay = &mut s.relays[r];
                relay.record = None;
                relay.attempts.retain(|attempt| !matches!(attempt.phase, Phase::Recording { .. }));
                Self::settle(relay);
                Self::send_results(relay);
            }
            Step::SendHandBack(r) => {
                let relay = &mut s.relays[r];
                let epoch = relay.unwanted.first()?.0;
                let same = relay.unwanted.extract_if(.., |(of, _)| *of == epoch);
                let deliveries = same.map(|(_, delivery)| one(delivery)).fold(0, |all, one| all | one);
                relay.hand_back = Some((epoch, deliveries, Progress::Sent));
            }
            Step::RunHandBack(r) => {
                let (epoch, deliveries, _) = s.relays[r].hand_back?;
                Self::apply_hand_back(s, epoch, deliveries);
                // This one commits synchronously.
                s.durable = s.db.clone();
                s.relays[r].hand_back = Some((epoch, deliveries, Progress::Ran(0)));
            }
            Step::HandedBack(r) => s.relays[r].hand_back = None,
            Step::Doubt(r) => {
                let (epoch, _) = s.relays[r].lease.take()?;
                self.doubt_after(s, r, epoch);
            }
            Step::DoubtHandBack(r) => {
                let (epoch, deliveries, _) = s.relays[r].hand_back.take()?;
                if self.is(Variant::HandedBackAgain) {
                    s.relays[r].unwanted.extend(members(deliveries).map(|delivery| (epoch, delivery)));
                    s.relays[r].unwanted.sort_unstable();
                } else {
                    self.doubt_after(s, r, epoch);
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// What goes wrong, but for the death of a relay or the server.
    pub(super) fn lose(s: &mut State, step: &Step) -> Option<()> {
        s.losses_left -= 1;
        match *step {
            Step::LoseLease(r) => {
                let (epoch, progress) = s.relays[r].lease.replace((s.relays[r].lease?.0, Progress::Lost))?;
                if progress == Progress::Sent {
                    Self::forget(s, Call::Lease { epoch });
                }
            }
            Step::LoseRecord(r) => {
                let epoch = s.relays[r].record?.0;
                if s.relays[r].record.replace((epoch, Progress::Sent))?.1 == Progress::Sent {
                    let batch = Self::batch(&s.relays[r]);
                    Self::forget(s, Call::Record { epoch, batch });
                }
            }
            Step::LoseHandBack(r) => {
                let (epoch, deliveries, progress) = s.relays[r].hand_back?;
                s.relays[r].hand_back = Some((epoch, deliveries, Progress::Lost));
                if progress == Progress::Sent {
                    Self::forget(s, Call::HandBack { epoch, deliveries });
                }
            }
            Step::Cut(r) => {
                s.shaken |= one(s.relays[r].epoch);
                Self::lose_direct(&mut s.relays[r]);
            }
            _ => return None,
        }
        Some(())
    }
}
