//! Endpoints as the relay holds them: parsed once, kept until a lease names another version.

use crate::config::Secret;
use crate::db::{Db, DbError, Lease, StoredKey, SubscriptionRow};
use crate::egress;
use crate::envelope::Envelope;
use crate::secrets::{self, Form, Secrets, Stored};
use crate::send::{OwnTls, Sender, TlsOptions};
use crate::sign::{Key, Profile, Scheme};
use hyper::Uri;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

/// Beyond this many the cache is emptied: memory is bounded by configuration, not by subscriptions.
const CACHE_LIMIT: usize = 20_000;

/// So long the files of secrets may take.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// Reads of such files at once, at most: one that hangs keeps its thread, and name lookups need those threads, too.
const READERS: usize = 4;
/// How long a secret that could not be read counts as such before it is looked for again.
const UNREAD: Duration = Duration::from_secs(5);

/// One subscription, ready to be sent to.
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

impl std::fmt::Debug for Endpoint {
    // Static headers, and the query of a URL, may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("tenant_id", &self.tenant_id)
            .field("host", &self.uri.host())
            .field("scheme", &self.scheme)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// A subscription in one version: an endpoint, or why it is none (then every attempt is a relay_error).
#[derive(Debug)]
pub struct Known {
    version: i64,
    /// A secret by reference could not be read, or may have changed since: it is read again then.
    stale_at: Option<Instant>,
    /// Attempts under way at once, if the subscription names a limit of its own.
    pub max_in_flight: Option<usize>,
    /// The endpoint, or what is wrong with the subscription.
    pub endpoint: Result<Endpoint, String>,
}

/// `outbox.subscription.tls`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    ca: Option<String>,
    #[serde(default)]
    pins: Vec<String>,
    client: Option<String>,
}

#[derive(Default)]
struct Cache {
    known: HashMap<i64, Arc<Known>>,
    /// How often it was forgotten.
    forgotten: u64,
}

/// The cache.
pub struct Endpoints {
    known: Mutex<Cache>,
    user_agent: HeaderValue,
    sender: Sender,
    insecure_http: AtomicBool,
    secrets: Arc<Secrets>,
    readers: Arc<Semaphore>,
}

impl Endpoints {
    /// An empty cache. Requests say `user_agent` and go out through `sender`; secrets are opened with `secrets`.
    pub fn new(user_agent: HeaderValue, sender: Sender, secrets: Arc<Secrets>) -> Self {
        let (insecure_http, readers) = (AtomicBool::new(false), Arc::new(Semaphore::new(READERS)));
        Self { known: Mutex::default(), user_agent, sender, insecure_http, secrets, readers }
    }

    /// What secrets are opened with.
    pub fn secrets(&self) -> &Arc<Secrets> {
        &self.secrets
    }

    /// Follows the setting `allow_insecure_http`; a change makes every URL be judged anew.
    pub fn allow_insecure_http(&self, allowed: bool) {
        if self.insecure_http.swap(allowed, Ordering::Relaxed) != allowed {
            self.forget();
        }
    }

    /// Loads every subscription anew from now on.
    pub fn forget(&self) {
        let mut cache = self.lock();
        cache.known.clear();
        cache.forgotten += 1;
    }

    /// The endpoints of the leases, in their order, in the versions the leases name (or later ones).
    ///
    /// # Errors
    /// If one had to be loaded and the database cannot be asked.
    pub async fn resolve(&self, db: &Db, leases: &[Lease]) -> Result<Vec<Arc<Known>>, DbError> {
        let mut missing: BTreeMap<i64, i64> = BTreeMap::new();
        let forgotten = {
            let cache = self.lock();
            for lease in leases {
                if cache.known.get(&lease.subscription_id).is_none_or(|k| k.version < lease.version || k.is_stale()) {
                    missing.insert(lease.subscription_id, lease.version);
                }
            }
            cache.forgotten
        };
        if !missing.is_empty() {
            let ids: Vec<i64> = missing.keys().copied().collect();
            let rows = db.load_subscriptions(&ids).await?;
            let opened = self.open(&rows).await;
            let renamed = self.keep(rows, opened, leases, forgotten);
            tell_names(db, renamed).await;
        }
        let known = &self.lock().known;
        let of = |lease: &Lease| known.get(&lease.subscription_id).cloned();
        Ok(leases.iter().map(|lease| of(lease).unwrap_or_else(|| Arc::new(Known::gone()))).collect())
    }

    /// Puts what was loaded into the cache; returns the ids that secrets kept by reference turned out to have. What was
    /// read before the cache was last forgotten serves these leases, and is read again for the next.
    fn keep(&self, rows: Vec<SubscriptionRow>, opened: Vec<Secured>, leases: &[Lease], forgotten: u64) -> Vec<Renamed> {
        let mut renamed = Vec::new();
        let mut cache = self.lock();
        let is_old = cache.forgotten != forgotten;
        let known = &mut cache.known;
        if known.len() + rows.len() > CACHE_LIMIT {
            let wanted: BTreeSet<i64> = leases.iter().map(|l| l.subscription_id).collect();
            known.retain(|id, _| wanted.contains(id));
        }
        for (row, opened) in rows.into_iter().zip(opened) {
            let (id, version, max_in_flight) = (row.subscription_id, row.version, row.max_in_flight);
            let mut keys = row.keys.iter().zip(&opened.keys);
            let unread = keys.any(|(key, opened)| key.is_reference() && opened.is_err())
                || opened.client.as_ref().is_some_and(Result::is_err);
            // One warning for each version, however often it is tried again.
            let is_news = known.get(&id).is_none_or(|before| before.version < version);
            let endpoint = self.parse(row, opened, is_news, &mut renamed);
            let stale_at = if is_old { Some(Instant::now()) } else { unread.then(|| Instant::now() + UNREAD) };
            known.insert(id, Arc::new(Known { version, stale_at, max_in_flight, endpoint }));
        }
        renamed
    }

    /// The secrets of the rows. Files are read aside: a disk that hangs must not hold up a thread of the runtime, and
    /// refuses none of those whose secrets are elsewhere; they wait with the others for [`READ_WITHIN`].
    async fn open(&self, rows: &[SubscriptionRow]) -> Vec<Secured> {
        let rows = rows.iter().map(Unopened::new).enumerate();
        let (in_files, here): (Vec<_>, Vec<_>) = rows.partition(|(_, row)| row.is_in_file());
        let mut opened: BTreeMap<_, _> = here.into_iter().map(|(nth, row)| (nth, row.open(&self.secrets))).collect();
        if !in_files.is_empty() {
            opened.extend(self.read_files(in_files.into()).await);
        }
        opened.into_values().collect()
    }

    async fn read_files(&self, rows: Arc<[(usize, Unopened)]>) -> Vec<(usize, Secured)> {
        let (readers, secrets, ours) = (self.readers.clone(), self.secrets.clone(), rows.clone());
        let read = async move {
            let reader = readers.acquire_owned().await.ok()?;
            let read = tokio::task::spawn_blocking(move || {
                let read = ours.iter().map(|(nth, row)| (*nth, row.open(&secrets))).collect();
                drop(reader);
                read
            });
            read.await.ok()
        };
        // A file system that hangs must not keep everybody's work.
        let read = tokio::time::timeout(READ_WITHIN, read).await.ok().flatten();
        read.unwrap_or_else(|| rows.iter().map(|(nth, row)| (*nth, row.unread())).collect())
    }

    fn parse(
        &self,
        row: SubscriptionRow,
        opened: Secured,
        is_news: bool,
        renamed: &mut Vec<Renamed>,
    ) -> Result<Endpoint, String> {
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
        let keys = signers(profile, &row, opened.keys, is_news, renamed)?;
        let client = opened.client.transpose()?;
        let tls = row.tls.as_deref().map(|tls| self.own_tls(tls, client.as_ref())).transpose()?;
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
        Ok(Endpoint { tenant_id: row.tenant_id, uri, headers, scheme, envelope, timeout: row.timeout, tls, keys })
    }

    /// What a subscription says of TLS, as outbox_relay.check_tls has let it in.
    fn own_tls(&self, tls: &str, client: Option<&Secret>) -> Result<Arc<OwnTls>, String> {
        let said: Tls = serde_json::from_str(tls).map_err(|_| "tls is not what outbox.subscribe takes".to_owned())?;
        let options =
            TlsOptions { authority: said.ca.as_deref(), pins: &said.pins, identity: client.map(Secret::expose) };
        self.sender.own_tls(options).map(Arc::new)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A secret, or why it cannot be had.
type Opened = Result<Secret, String>;

/// The secrets of one subscription.
struct Secured {
    keys: Vec<Opened>,
    /// The client certificate of its `tls`, with the key.
    client: Option<Opened>,
}

/// The secrets of one subscription as they are stored.
struct Unopened {
    subscription_id: i64,
    keys: Vec<(String, Stored)>,
    /// Where the client certificate is.
    client: Option<String>,
}

impl Unopened {
    fn new(row: &SubscriptionRow) -> Self {
        let keys = row.keys.iter().map(|key| (key.key_id.clone(), key.stored.clone())).collect();
        let said = row.tls.as_deref().and_then(|tls| serde_json::from_str::<Tls>(tls).ok());
        Self { subscription_id: row.subscription_id, keys, client: said.and_then(|tls| tls.client) }
    }

    fn is_in_file(&self) -> bool {
        let of_keys = self.keys.iter().filter_map(|(_, stored)| match stored {
            Stored::Reference(reference) => Some(reference),
            _ => None,
        });
        of_keys.chain(&self.client).any(|reference| reference.starts_with("file:"))
    }

    /// Blocks if one of them is in a file.
    fn open(&self, secrets: &Secrets) -> Secured {
        let key = |(key_id, stored): &(String, Stored)| {
            secrets.open(self.subscription_id, key_id, stored).map_err(|error| error.to_string())
        };
        let client = |reference: &String| secrets.read(reference).map_err(|error| error.to_string());
        Secured { keys: self.keys.iter().map(key).collect(), client: self.client.as_ref().map(client) }
    }

    fn unread(&self) -> Secured {
        let unread = || Err("it could not be read".to_owned());
        Secured { keys: self.keys.iter().map(|_| unread()).collect(), client: self.client.as_ref().map(|_| unread()) }
    }
}

/// What a secret behind a reference turned out to be.
struct Renamed {
    subscription_id: i64,
    key_id: String,
    true_key_id: String,
    form: Form,
    public_key: Option<String>,
}

impl Known {
    /// A subscription that is no longer there.
    pub fn gone() -> Self {
        let endpoint = Err("the subscription is gone".into());
        Self { version: 0, stale_at: None, max_in_flight: None, endpoint }
    }

    fn is_stale(&self) -> bool {
        self.stale_at.is_some_and(|at| Instant::now() >= at)
    }
}

/// Tells the database the ids of secrets that it has never seen. It does not matter when: attempts name the true ones.
async fn tell_names(db: &Db, renamed: Vec<Renamed>) {
    for Renamed { subscription_id, key_id, true_key_id, form, public_key } in renamed {
        match db.name_key(subscription_id, &key_id, &true_key_id, form.as_str(), public_key.as_deref()).await {
            Ok(true) => debug!(subscription_id, key_id, true_key_id, "a secret kept by reference has its id"),
            // Another relay was first, or the same secret stands there under another key.
            Ok(false) => {}
            Err(error) => {
                warn!(subscription_id, key_id, %error, "the id of a secret could not be told; it will be again")
            }
        }
    }
}

/// The keys that can sign. One that cannot, because it is older than a rule, was not written by our functions, does
/// not open or is not where its reference says, must not silence the others: it is left out, and said so once for
/// each version of the subscription.
fn signers(
    profile: Profile,
    row: &SubscriptionRow,
    opened: Vec<Opened>,
    is_news: bool,
    renamed: &mut Vec<Renamed>,
) -> Result<Vec<Key>, String> {
    let subscription_id = row.subscription_id;
    let mut keys = Vec::with_capacity(opened.len());
    let mut refused = None;
    for (stored, opened) in row.keys.iter().zip(opened) {
        let signer = opened.and_then(|secret| {
            let mut key_id = stored.key_id.clone();
            if let Stored::Reference(reference) = &stored.stored {
                // No rule has judged it yet.
                secrets::check(&row.signature, secret.expose()).map_err(|error| format!("{reference}: {error}"))?;
                let true_key_id = secrets::key_id(secret.expose());
                if true_key_id != key_id {
                    renamed.push(Renamed {
                        subscription_id,
                        key_id,
                        true_key_id: true_key_id.clone(),
                        form: Form::of(secret.expose()),
                        public_key: secrets::public_key(secret.expose()),
                    });
                }
                key_id = true_key_id;
            }
            Key::new(profile, key_id, secret.expose(), stored.expires_at).map_err(|error| error.to_string())
        });
        match signer {
            Ok(key) => keys.push(key),
            Err(error) => {
                let key_id = &stored.key_id;
                if is_news {
                    warn!(subscription_id, key_id, %error, "a key cannot sign and is left out");
                } else {
                    debug!(subscription_id, key_id, %error, "a key still cannot sign");
                }
                refused = Some(error);
            }
        }
    }
    match refused {
        Some(error) if keys.is_empty() => Err(error),
        _ => Ok(keys),
    }
}

impl StoredKey {
    fn is_reference(&self) -> bool {
        matches!(self.stored, Stored::Reference(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn row(stored: Vec<Stored>) -> SubscriptionRow {
        let key = |(n, stored)| StoredKey { key_id: format!("key-{n}"), stored, expires_at: None };
        SubscriptionRow {
            subscription_id: 7,
            version: 1,
            tenant_id: "default".into(),
            url: "https://hooks.example.com/in?token=hunter2".into(),
            headers: r#"{"X-Team": "hunter2"}"#.into(),
            signature: "standard".into(),
            signature_header: None,
            envelope: "standard".into(),
            tls: None,
            max_in_flight: None,
            timeout: Duration::from_secs(1),
            keys: stored.into_iter().enumerate().map(key).collect(),
        }
    }

    /// Dials nothing.
    fn sender() -> Sender {
        let settings = crate::send::Settings {
            pool_idle_timeout: Duration::from_secs(1),
            max_response_bytes: 0,
            max_response_header_bytes: 8192,
            extra_roots_pem: None,
            http2: false,
            http2_keep_alive_interval: Duration::from_secs(1),
            name_servers: Vec::new(),
            proxy: None,
        };
        Sender::new(settings, Arc::new(egress::Policy::new(&[], &[], &[]).expect("a policy"))).expect("a sender")
    }

    async fn known(stored: Vec<Stored>) -> (Arc<Known>, Vec<Renamed>) {
        let endpoints = Endpoints::new(HeaderValue::from_static("test"), sender(), Arc::default());
        let rows = vec![row(stored)];
        let opened = endpoints.open(&rows).await;
        let renamed = endpoints.keep(rows, opened, &[], 0);
        let known = endpoints.lock().known.get(&7).cloned();
        endpoints.forget();
        assert!(endpoints.lock().known.is_empty());
        (known.expect("kept"), renamed)
    }

    #[tokio::test]
    async fn what_cannot_be_had_is_left_out_and_named_if_nothing_is_left() {
        let plain = || Stored::Plain(Secret::new(SECRET.into()));
        let sealed = || Stored::Sealed { with: "0123456789abcdef".into(), bytes: vec![1; 60] };
        let missing = || Stored::Reference("env:OUTBOXD_SECRET_NOBODY_SETS_THIS".into());
        let (one, _) = known(vec![sealed(), plain(), missing()]).await;
        let endpoint = one.endpoint.as_ref().expect("one signs");
        assert_eq!(endpoint.keys.iter().map(|key| key.key_id.as_str()).collect::<Vec<_>>(), ["key-1"]);
        assert!(one.stale_at.is_some(), "what could not be read is looked for again");
        let (none, _) = known(vec![sealed()]).await;
        let reason = none.endpoint.as_ref().expect_err("none signs");
        assert!(reason.contains("0123456789abcdef") && none.stale_at.is_none(), "{reason}");
        let (none, _) = known(vec![missing()]).await;
        assert_eq!(
            none.endpoint.as_ref().err().map(String::as_str),
            Some("env:OUTBOXD_SECRET_NOBODY_SETS_THIS: the variable is not set")
        );
    }

    #[tokio::test]
    async fn files_that_hang_are_in_the_way_of_no_other_secret() {
        let endpoints = Endpoints::new(HeaderValue::from_static("test"), sender(), Arc::default());
        let hanging = endpoints.readers.clone().acquire_many_owned(READERS as u32).await.expect("free");
        let of = |stored: Stored| row(vec![stored]);
        let rows = [
            of(Stored::Reference("file:signing".into())),
            of(Stored::Plain(Secret::new(SECRET.into()))),
            of(Stored::Reference("env:OUTBOXD_SECRET_NOBODY_SETS_THIS".into())),
        ];
        let said = async |endpoints: &Endpoints| -> Vec<String> {
            let opened = endpoints.open(&rows).await.into_iter().flat_map(|row| row.keys);
            opened.map(|key| key.err().unwrap_or_else(|| "opened".to_owned())).collect()
        };
        let unset = "env:OUTBOXD_SECRET_NOBODY_SETS_THIS: the variable is not set";
        assert_eq!(said(&endpoints).await, ["it could not be read", "opened", unset]);
        drop(hanging);
        let said = said(&endpoints).await;
        assert!(said[0].starts_with("file:signing: ") && said[1..] == ["opened", unset], "{said:?}");
    }

    #[tokio::test]
    async fn what_was_read_while_the_cache_was_forgotten_is_read_again() {
        let endpoints = Endpoints::new(HeaderValue::from_static("test"), sender(), Arc::default());
        for (forgotten, is_stale) in [(0, true), (1, false)] {
            let rows = vec![row(vec![Stored::Plain(Secret::new(SECRET.into()))])];
            let opened = endpoints.open(&rows).await;
            if forgotten == 0 {
                endpoints.forget();
            }
            endpoints.keep(rows, opened, &[], forgotten);
            let known = endpoints.lock().known.get(&7).cloned().expect("kept for its leases");
            assert!(known.endpoint.is_ok());
            assert_eq!(known.is_stale(), is_stale);
        }
    }

    #[tokio::test]
    async fn debug_shows_neither_secret_nor_header_nor_query() {
        let stored = Stored::Plain(Secret::new(SECRET.into()));
        let key = StoredKey { key_id: "k".into(), stored: stored.clone(), expires_at: None };
        let (known, _) = known(vec![stored]).await;
        let shown = format!("{known:?} {:?} {key:?}", known.endpoint.as_ref().map(|endpoint| &endpoint.keys));
        assert!(shown.contains("key-0") && shown.contains("hooks.example.com"), "{shown}");
        for hidden in ["hunter2", "whsec", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }
}
