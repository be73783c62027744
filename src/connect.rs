//! Connections to PostgreSQL: TLS as `sslmode` says, a direct one, and the pool. Which of several hosts: [`hosts`].

mod cancel;
pub mod history;
mod hosts;
mod pool;

pub use cancel::Canceller;
pub use pool::{Object, Pool, pool};

use crate::config::{ConnectSettings, TlsMode};
use crate::schema::describe;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// PostgreSQL, or the way to it.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// A standby, or a server that is to write nothing.
    #[error(
        "the server is read-only ({}): a standby? Name the primary too, with target_session_attrs=read-write",
        describe(.0)
    )]
    ReadOnly(tokio_postgres::Error),
    /// Something accepted the connection, perhaps, but no server spoke.
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
    /// The host's name leads nowhere.
    #[error("its name cannot be resolved: {0}")]
    Name(std::io::Error),
    /// It was the primary before another one took over.
    #[error(
        "the server is on timeline {found}, and this relay has been on {newest}: an old primary that came back? \
         If it is the right one, restart the relay"
    )]
    Behind {
        /// Its timeline.
        found: u32,
        /// The newest that this process has seen of the same cluster.
        newest: u32,
    },
    /// None of several hosts would do.
    #[error("{}", .0.iter().map(|(host, error)| format!("{host}: {error}")).collect::<Vec<_>>().join("; "))]
    Hosts(Vec<(String, ConnectError)>),
    /// The server could not be asked to stop a statement.
    #[error("{0}")]
    Cancel(std::io::Error),
    /// The CA file or the system's certificates.
    #[error("certificates: {0}")]
    Certificates(String),
    /// The pool could not be made.
    #[error("pool: {0}")]
    Pool(String),
}

/// What a statement that writes failed with.
pub fn writing(error: tokio_postgres::Error) -> ConnectError {
    match error.code() {
        Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => ConnectError::ReadOnly(error),
        _ => ConnectError::Postgres(error),
    }
}

/// A connection that `Client` speaks through; whoever opens it must drive it.
pub type Driver = Connection<Socket, <Tls as MakeTlsConnect<Socket>>::Stream>;

/// TLS, where the way to the server has it.
#[derive(Clone)]
pub struct Tls(MakeRustlsConnect);

impl<S> MakeTlsConnect<S> for Tls
where
    MakeRustlsConnect: MakeTlsConnect<S>,
{
    type Stream = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<S>>::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Self::TlsConnect, Self::Error> {
        // tokio-postgres asks before it knows whether there will be TLS, for a Unix socket too, which has no name.
        self.0.make_tls_connect(if domain.is_empty() { "localhost" } else { domain })
    }
}

/// So long a connection may take where the settings say nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One connection.
pub struct Opened {
    /// What it is used by.
    pub client: Client,
    /// Must be driven for the client to work.
    pub driver: Driver,
    /// Stops the client's statements.
    pub canceller: Canceller,
}

/// Opens one connection.
///
/// # Errors
/// If no host of the target answers as it should.
pub async fn open(target: &ConnectSettings) -> Result<Opened, ConnectError> {
    hosts::connect(target, &tls(&target.tls)?).await
}

/// Opens one connection and drives it in the background.
///
/// # Errors
/// As [`open`].
pub async fn open_driven(target: &ConnectSettings) -> Result<Client, ConnectError> {
    let Opened { client, driver, .. } = open(target).await?;
    tokio::spawn(async move {
        // Its end shows as an error of the client's next call.
        let _ = driver.await;
    });
    Ok(client)
}

/// TLS as `sslmode` says.
///
/// # Errors
/// If the certificates to trust cannot be read.
pub fn tls(mode: &TlsMode) -> Result<Tls, ConnectError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| ConnectError::Certificates(e.to_string()))?;
    let config = match mode {
        TlsMode::VerifyFull { ca_file } => {
            builder.with_root_certificates(roots(ca_file.as_deref())?).with_no_client_auth()
        }
        TlsMode::VerifyCa { ca_file } => {
            let full = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(Some(ca_file))?), provider.clone())
                .build()
                .map_err(|e| ConnectError::Certificates(e.to_string()))?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Lenient { full: Some(full), provider }))
                .with_no_client_auth()
        }
        // As libpq does: encrypted, against whoever answers.
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Lenient { full: None, provider }))
            .with_no_client_auth(),
    };
    Ok(Tls(MakeRustlsConnect::new(config)))
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, ConnectError> {
    let mut store = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let bad = |e: String| ConnectError::Certificates(format!("{}: {e}", path.display()));
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(e.to_string()))? {
                store.add(certificate.map_err(|e| bad(e.to_string()))?).map_err(|e| bad(e.to_string()))?;
            }
            if store.is_empty() {
                return Err(bad("holds no certificate".into()));
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(store)
}

/// `sslmode` below verify-full: the chain is checked if there is a verifier for it, the name never.
#[derive(Debug)]
struct Lenient {
    full: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(full) = &self.full else { return Ok(ServerCertVerified::assertion()) };
        match full.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
