//! Who comes too often without a good token waits.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures that may come at once.
const BURST: u32 = 10;
/// How long it takes until one more may come.
const REFILL: Duration = Duration::from_secs(6);
/// Addresses and tokens remembered at most; with so many addresses in debt, another one waits.
const REMEMBERED: usize = 10_000;
/// How long a token that was good may come whatever others at its address do.
const KNOWN_FOR: Duration = Duration::from_secs(600);

/// Counts failures by address. A token of 256 bits cannot be guessed; what this saves is the database.
#[derive(Default)]
pub(crate) struct Limiter(Mutex<Memory>);

/// Whether an attempt was charged as a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what was charged is given back if the credential is good"]
pub(crate) struct Charged(bool);

impl Charged {
    /// For a credential that was just handed out, and so never charged.
    pub(crate) const NOTHING: Self = Self(false);
}

#[derive(Default)]
struct Memory {
    /// When an address will have paid for its failures.
    paid_at: HashMap<IpAddr, Instant>,
    /// Credentials that were good, by hash, and when.
    good: HashMap<[u8; 32], Instant>,
}

impl Limiter {
    /// Lets somebody from this address try, at the price of a failure that [`Limiter::succeeded`] gives back: so
    /// that neither many at once nor those who hang up get more tries. Otherwise how many seconds to wait. One who
    /// came with the same, good, credential lately may try: behind a proxy all have one address.
    pub(crate) fn charge(&self, address: IpAddr, credential: &[u8; 32]) -> Result<Charged, u64> {
        let mut memory = self.memory();
        let now = Instant::now();
        if memory.good.get(credential).is_some_and(|at| now.duration_since(*at) < KNOWN_FOR) {
            return Ok(Charged(false));
        }
        if memory.paid_at.len() >= REMEMBERED {
            memory.paid_at.retain(|_, paid_at| *paid_at > now);
        }
        if memory.paid_at.len() >= REMEMBERED {
            return Err(REFILL.as_secs());
        }
        let paid_at = memory.paid_at.entry(network(address)).or_insert(now);
        match (*paid_at + REFILL).checked_duration_since(now + REFILL * BURST) {
            Some(wait) if !wait.is_zero() => Err(wait.as_secs() + 1),
            _ => {
                *paid_at = (*paid_at).max(now) + REFILL;
                Ok(Charged(true))
            }
        }
    }

    /// The credential was not good after all: it is not known any more.
    pub(crate) fn failed(&self, credential: &[u8; 32]) {
        self.memory().good.remove(credential);
    }

    /// The credential was good: what it was charged is given back.
    pub(crate) fn succeeded(&self, address: IpAddr, credential: [u8; 32], charged: Charged) {
        let mut memory = self.memory();
        let now = Instant::now();
        if memory.good.len() >= REMEMBERED {
            memory.good.retain(|_, at| now.duration_since(*at) < KNOWN_FOR);
        }
        let was_known = memory.good.get(&credential).is_some_and(|at| now.duration_since(*at) < KNOWN_FOR);
        if was_known || memory.good.len() < REMEMBERED {
            memory.good.insert(credential, now);
        }
        // By what it was charged, not by whether it is known: of a page's first requests all are charged, and the
        // first answer makes it known.
        if charged.0
            && let Some(paid_at) = memory.paid_at.get_mut(&network(address))
        {
            *paid_at = paid_at.checked_sub(REFILL).unwrap_or(*paid_at);
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of IPv6 a host has a /64 to choose from.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOMEBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn after_ten_tries_an_address_waits_a_little_and_others_do_not() {
        let limiter = Limiter::default();
        for _ in 0..BURST {
            assert_eq!(limiter.charge(SOMEBODY, &[0; 32]), Ok(Charged(true)));
        }
        for _ in 0..100 {
            assert!(limiter.charge(SOMEBODY, &[0; 32]).is_err_and(|wait| (1..=7).contains(&wait)));
        }
        assert_eq!(limiter.charge("10.0.0.1".parse().expect("an address"), &[0; 32]), Ok(Charged(true)));
    }

    #[test]
    fn who_comes_with_a_good_token_pays_nothing() {
        let limiter = Limiter::default();
        for token in 0..3 * BURST as u8 {
            assert_eq!(limiter.charge(SOMEBODY, &[token; 32]), Ok(Charged(true)));
            limiter.succeeded(SOMEBODY, [token; 32], Charged(true));
        }
    }

    #[test]
    fn a_good_token_gets_in_beside_those_who_try() {
        let limiter = Limiter::default();
        assert_eq!(limiter.charge(SOMEBODY, &[1; 32]), Ok(Charged(true)));
        limiter.succeeded(SOMEBODY, [1; 32], Charged(true));
        while limiter.charge(SOMEBODY, &[0; 32]).is_ok() {}
        assert_eq!(limiter.charge(SOMEBODY, &[1; 32]), Ok(Charged(false)));
        limiter.failed(&[1; 32]);
        assert!(limiter.charge(SOMEBODY, &[1; 32]).is_err(), "it was revoked");
    }

    #[test]
    fn a_host_cannot_change_its_address_within_its_network() {
        let of = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    #[test]
    fn many_at_once_with_one_good_token_owe_nothing_afterwards() {
        let limiter = Limiter::default();
        for token in 1..=20 {
            let charged: Vec<_> = (0..BURST).map(|_| limiter.charge(SOMEBODY, &[token; 32]).expect("room")).collect();
            charged.into_iter().for_each(|charged| limiter.succeeded(SOMEBODY, [token; 32], charged));
        }
    }
}
