//! Connections to PostgreSQL: TLS as `sslmode` says, a direct one, and the pool.

use crate::config::{ConnectSettings, TlsMode};
use crate::schema::describe;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::{Client, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// PostgreSQL, or the way to it.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The CA file or the system's certificates.
    #[error("certificates: {0}")]
    Certificates(String),
    /// The pool could not be made.
    #[error("pool: {0}")]
    Pool(String),
}

/// A connection that `Client` speaks through; whoever opens it must drive it.
pub type Driver = Connection<Socket, <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<Socket>>::Stream>;

/// Opens one connection.
///
/// # Errors
/// If no host of the target answers as it should.
pub async fn open(target: &ConnectSettings) -> Result<(Client, Driver), ConnectError> {
    Ok(target.server.connect(tls(&target.tls)?).await?)
}

/// Opens one connection and drives it in the background.
///
/// # Errors
/// As [`open`].
pub async fn open_driven(target: &ConnectSettings) -> Result<Client, ConnectError> {
    let (client, driver) = open(target).await?;
    tokio::spawn(async move {
        // Its end shows as an error of the client's next call.
        let _ = driver.await;
    });
    Ok(client)
}

/// A pool of `size` connections, opened as they are needed.
///
/// # Errors
/// If the certificates cannot be read.
pub fn pool(target: &ConnectSettings, size: usize, wait: Duration) -> Result<Pool, ConnectError> {
    let manager = Manager::from_config(
        target.server.clone(),
        tls(&target.tls)?,
        ManagerConfig { recycling_method: RecyclingMethod::Fast },
    );
    Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(wait))
        .create_timeout(Some(wait))
        .build()
        .map_err(|e| ConnectError::Pool(e.to_string()))
}

/// TLS as `sslmode` says.
///
/// # Errors
/// If the certificates to trust cannot be read.
pub fn tls(mode: &TlsMode) -> Result<MakeRustlsConnect, ConnectError> {
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
    Ok(MakeRustlsConnect::new(config))
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
