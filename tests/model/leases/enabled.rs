//! Which steps a state allows: those that come by themselves, and those that may come.

use super::{Call, Leases, Phase, Progress, Relay, State, Step, Variant, members, one, subsets};

impl Leases {
    /// Steps that will be made if nothing goes wrong from here on.
    pub(super) fn pending(&self, state: &State, steps: &mut Vec<Step>) {
        let unfenced = (1..=state.registered).filter(|epoch| state.db.fenced & one(*epoch) == 0);
        for epoch in unfenced.filter(|epoch| state.sessions & one(*epoch) == 0) {
            if state.relays.iter().any(|relay| relay.is_alive && relay.epoch != 0 && relay.epoch != epoch) {
                steps.push(Step::Fence(epoch));
            }
        }
        let held = members(state.sessions);
        steps.extend(held.filter(|epoch| !Self::is_kept(state, *epoch)).map(Step::SessionEnds));
        let alive = state.relays.iter().filter(|relay| relay.is_alive).count();
        for (r, relay) in state.relays.iter().enumerate() {
            if !relay.is_alive {
                steps.extend((alive < usize::from(self.relays)).then_some(Step::Start(r)));
                continue;
            }
            self.pending_of(state, r, relay, steps);
        }
    }

    fn pending_of(&self, state: &State, r: usize, relay: &Relay, steps: &mut Vec<Step>) {
        if !relay.is_connected {
            steps.push(Step::Connect(r));
        } else if state.sessions & one(relay.epoch) == 0 {
            steps.push(Step::Notice(r));
        }
        if relay.epoch != 0 && state.db.fenced & one(relay.epoch) != 0 {
            steps.push(Step::LearnFenced(r));
        }
        match relay.lease {
            None if relay.is_connected && Self::due(state) != 0 => steps.push(Step::AskForLeases(r)),
            None => {}
            Some((_, Progress::Sent)) if self.is(Variant::LeaseWithoutFence) => steps.push(Step::LookAtEpoch(r)),
            Some((epoch, progress @ (Progress::Sent | Progress::Looked))) => {
                let is_refused = state.db.fenced & one(epoch) != 0 && progress == Progress::Sent;
                let due = if is_refused { 0 } else { Self::due(state) };
                steps.extend((due == 0).then_some(Step::RunLease { relay: r, got: 0 }));
                steps.extend(subsets(due).map(|got| Step::RunLease { relay: r, got }));
            }
            Some((_, Progress::Ran(_))) => steps.push(Step::TakeLeases(r)),
            Some((_, Progress::Lost)) => steps.push(Step::Doubt(r)),
        }
        match relay.record {
            None => {}
            Some((_, Progress::Ran(_))) => steps.push(Step::Settle(r)),
            Some(_) => steps.push(Step::RunRecord(r)),
        }
        match relay.hand_back {
            None if !relay.unwanted.is_empty() && relay.epoch != 0 => steps.push(Step::SendHandBack(r)),
            None => {}
            Some((.., Progress::Ran(_))) => steps.push(Step::HandedBack(r)),
            Some((.., Progress::Lost)) => steps.push(Step::DoubtHandBack(r)),
            Some(_) => steps.push(Step::RunHandBack(r)),
        }
        for (attempt, one) in relay.attempts.iter().enumerate() {
            match one.phase {
                Phase::Waiting if relay.is_connected => steps.push(Step::Begin { relay: r, attempt }),
                Phase::Sending(_) => steps.push(Step::Receive { relay: r, attempt, ok: true }),
                _ => {}
            }
        }
    }

    /// What may also happen.
    pub(super) fn possible(&self, state: &State, steps: &mut Vec<Step>) {
        if state.durable != state.db {
            steps.push(Step::Flush);
        }
        for (call, forgotten) in state.forgotten.iter().enumerate() {
            match forgotten {
                Call::Lease { .. } => {
                    steps.extend(subsets(Self::due(state)).map(|got| Step::RunForgotten { call, got }));
                }
                _ => steps.push(Step::RunForgotten { call, got: 0 }),
            }
        }
        for (r, relay) in state.relays.iter().enumerate() {
            for (attempt, one) in relay.attempts.iter().enumerate() {
                if one.phase == Phase::Waiting && state.waits_left > 0 {
                    steps.push(Step::GiveUpWaiting { relay: r, attempt });
                }
                if matches!(one.phase, Phase::Sending(_)) && state.failures_left > 0 {
                    steps.push(Step::Receive { relay: r, attempt, ok: false });
                }
            }
        }
        if state.crashes_left > 0 {
            steps.push(Step::Crash);
        }
        if state.losses_left == 0 {
            return;
        }
        steps.extend(members(state.sessions).filter(|epoch| Self::is_kept(state, *epoch)).map(Step::SessionEnds));
        for (r, relay) in state.relays.iter().enumerate().filter(|(_, relay)| relay.epoch != 0) {
            steps.push(Step::Die(r));
            steps.extend(relay.is_connected.then_some(Step::Cut(r)));
            if matches!(relay.lease, Some((_, Progress::Sent | Progress::Ran(_)))) {
                steps.push(Step::LoseLease(r));
            }
            if relay.record.is_some() {
                steps.push(Step::LoseRecord(r));
            }
            if matches!(relay.hand_back, Some((.., Progress::Sent | Progress::Ran(_)))) {
                steps.push(Step::LoseHandBack(r));
            }
        }
    }
}
