//! Endpoints as the relay holds them: parsed once, kept until a lease names another version.

use crate::db::{Db, DbError, Lease, SubscriptionRow};
use crate::egress;
use crate::envelope::Envelope;
use crate::send::OwnTls;
use crate::sign::{Key, Profile, Scheme};
use hyper::Uri;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tracing::warn;
use zeroize::Zeroizing;

/// Beyond this many the cache is emptied: memory is bounded by configuration, not by subscriptions.
const CACHE_LIMIT: usize = 20_000;

/// One subscription, ready to be sent to.
#[derive(Debug)]
pub struct Endpoint {
    /// Whose it is.
    pub tenant_id: String,
    /// Where to.
    pub uri: Uri,
    /// Headers that are the same in every request.
    pub headers: HeaderMap,
    /// How it is signed.
    pub scheme: Scheme,
    /// The shape of the body.
    pub envelope: Envelope,
    /// The time one attempt may take.
    pub timeout: Duration,
    /// What the subscription says of TLS with its receiver.
    pub tls: Option<Arc<OwnTls>>,
    /// Oldest first; some may have expired since.
    pub keys: Vec<Key>,
}

/// A subscription in one version: an endpoint, or why it is none (then every attempt is a relay_error).
#[derive(Debug)]
pub struct Known {
    version: i64,
    /// The endpoint, or what is wrong with the subscription.
    pub endpoint: Result<Endpoint, String>,
}

/// The cache.
pub struct Endpoints {
    known: Mutex<HashMap<i64, Arc<Known>>>,
    user_agent: HeaderValue,
    insecure_http: AtomicBool,
}

impl Endpoints {
    /// An empty cache. Requests say `user_agent`.
    pub fn new(user_agent: HeaderValue) -> Self {
        Self { known: Mutex::default(), user_agent, insecure_http: AtomicBool::new(false) }
    }

    /// Follows the setting `allow_insecure_http`; a change makes every URL be judged anew.
    pub fn allow_insecure_http(&self, allowed: bool) {
        if self.insecure_http.swap(allowed, Ordering::Relaxed) != allowed {
            self.lock().clear();
        }
    }

    /// The endpoints of the leases, in their order, in the versions the leases name (or later ones).
    ///
    /// # Errors
    /// If one had to be loaded and the database cannot be asked.
    pub async fn resolve(&self, db: &Db, leases: &[Lease]) -> Result<Vec<Arc<Known>>, DbError> {
        let mut missing: BTreeMap<i64, i64> = BTreeMap::new();
        {
            let known = self.lock();
            for lease in leases {
                if known.get(&lease.subscription_id).is_none_or(|k| k.version < lease.version) {
                    missing.insert(lease.subscription_id, lease.version);
                }
            }
        }
        if !missing.is_empty() {
            let ids: Vec<i64> = missing.keys().copied().collect();
            let rows = db.load_subscriptions(&ids).await?;
            let mut known = self.lock();
            if known.len() + rows.len() > CACHE_LIMIT {
                let wanted: BTreeSet<i64> = leases.iter().map(|l| l.subscription_id).collect();
                known.retain(|id, _| wanted.contains(id));
            }
            for row in rows {
                let (id, version) = (row.subscription_id, row.version);
                let endpoint = self.parse(row);
                known.insert(id, Arc::new(Known { version, endpoint }));
            }
        }
        let known = self.lock();
        let unknown = || Arc::new(Known { version: 0, endpoint: Err("the subscription is gone".into()) });
        Ok(leases.iter().map(|l| known.get(&l.subscription_id).cloned().unwrap_or_else(unknown)).collect())
    }

    fn parse(&self, row: SubscriptionRow) -> Result<Endpoint, String> {
        let url = egress::check_url(&row.url, self.insecure_http.load(Ordering::Relaxed)).map_err(|e| e.to_string())?;
        let uri: Uri = url.as_str().parse().map_err(|_| "the URL cannot be a request target".to_owned())?;
        let profile =
            Profile::from_name(&row.signature).ok_or_else(|| format!("unknown signature profile {}", row.signature))?;
        let scheme = Scheme::new(profile, row.signature_header.as_deref())?;
        let envelope =
            Envelope::from_name(&row.envelope).ok_or_else(|| format!("unknown envelope {}", row.envelope))?;
        if row.keys.is_empty() {
            return Err("the subscription has no live secret: rotate it with outbox.rotate_secret".into());
        }
        let keys = signers(profile, row.subscription_id, row.keys)?;
        let mut headers = HeaderMap::new();
        let named: BTreeMap<String, String> =
            serde_json::from_str(&row.headers).map_err(|_| "headers is not an object of strings".to_owned())?;
        for (name, value) in named {
            let name = HeaderName::try_from(&name).map_err(|_| format!("header name {name:?} is not valid"))?;
            headers.insert(
                name.clone(),
                HeaderValue::try_from(value).map_err(|_| format!("the value of header {name} is not valid"))?,
            );
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(envelope.content_type()));
        headers.insert(USER_AGENT, self.user_agent.clone());
        Ok(Endpoint { tenant_id: row.tenant_id, uri, headers, scheme, envelope, timeout: row.timeout, tls: None, keys })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys that can sign. One that cannot, because it is older than a rule or was not written by our functions, must
/// not silence the others: it is left out, and said so once for each version of the subscription.
fn signers(
    profile: Profile,
    subscription_id: i64,
    live: Vec<(String, Zeroizing<String>, Option<SystemTime>)>,
) -> Result<Vec<Key>, String> {
    let mut keys = Vec::with_capacity(live.len());
    let mut refused = None;
    for (key_id, secret, expires_at) in live {
        match Key::new(profile, key_id.clone(), &secret, expires_at) {
            Ok(key) => keys.push(key),
            Err(error) => {
                warn!(subscription_id, key_id, error = %error, "a key cannot sign and is left out");
                refused = Some(error);
            }
        }
    }
    match refused {
        Some(error) if keys.is_empty() => Err(error.to_string()),
        _ => Ok(keys),
    }
}
