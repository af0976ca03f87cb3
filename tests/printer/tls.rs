//! The printers' side of TLS, with fixed test certificates from `pki/`.
//!
//! TLS 1.2 only, as every printer port but one (`src/protocol.md`, certificates). P1, A1 and X1 show an X.509 v1 leaf,
//! which rustls refuses to load the usual way and shows without a word through a resolver of one's
//! own. All sign with RSA PKCS#1 and SHA-256, whatever else a client offers.

use std::io;
use std::sync::Arc;

use rustls::crypto::ring::{cipher_suite, default_provider, sign};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{ServerConfig, SignatureAlgorithm, SignatureScheme, version};

use super::model::Model;

/// Who signs what the simulated printers show: "Simulated Printer CA", PEM.
pub const CA: &[u8] = include_bytes!("pki/ca.pem");

/// Another authority of the same name, which signed what a [stranger](super::Printer::stranger) shows.
pub const STRANGER_CA: &[u8] = include_bytes!("pki/stranger-ca.pem");

/// Between [`CA`] and an H2D's leaf: "Simulated Device CA", PEM.
pub const DEVICE_CA: &[u8] = include_bytes!("pki/device-ca.pem");

/// What a printer shows, apart from its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Whose certificate.
    pub model: Model,
    /// Whether the [stranger](STRANGER_CA) signed it.
    pub stranger: bool,
    /// Whether nothing follows the leaf, whatever this model usually sends.
    pub leaf_only: bool,
}

impl Shown {
    /// What a printer of this model shows unless told otherwise.
    pub const fn own(model: Model) -> Self {
        Self { model, stranger: false, leaf_only: false }
    }

    /// The server side of TLS for a printer of the family `manners` showing this.
    pub fn config(self, manners: Model) -> io::Result<Arc<ServerConfig>> {
        let esp32 = matches!(manners, Model::P1S | Model::A1Mini);
        let mut provider = default_provider();
        if manners != Model::P1S {
            provider.cipher_suites = vec![
                cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
                cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            ];
        }
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&version::TLS12])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Always(self.certified()?)));
        config.ignore_client_order = manners != Model::P1S;
        if esp32 {
            config.session_storage = Arc::new(NoServerSessionStorage {}); // printers never resume sessions
            config.max_fragment_size = Some(RECORD_PLAINTEXT + RECORD_HEADER);
        }
        Ok(Arc::new(config))
    }

    fn certified(self) -> io::Result<Arc<CertifiedKey>> {
        let (leaf, strange, key): (&[u8], &[u8], &[u8]) = match self.model {
            Model::P1S => (
                include_bytes!("pki/p1s.pem"),
                include_bytes!("pki/stranger-p1s.pem"),
                include_bytes!("pki/p1s.key"),
            ),
            Model::X1C => (
                include_bytes!("pki/x1c.pem"),
                include_bytes!("pki/stranger-x1c.pem"),
                include_bytes!("pki/x1c.key"),
            ),
            Model::A1Mini => (
                include_bytes!("pki/a1mini.pem"),
                include_bytes!("pki/stranger-a1mini.pem"),
                include_bytes!("pki/a1mini.key"),
            ),
            Model::H2D => (
                include_bytes!("pki/h2d.pem"),
                include_bytes!("pki/stranger-h2d.pem"),
                include_bytes!("pki/h2d.key"),
            ),
        };
        let mut chain = vec![certificate(if self.stranger { strange } else { leaf })?];
        // X1 and P1 send the leaf alone, an A1 mini its root as well, an H2 its intermediate.
        let above = match (self.leaf_only, self.model, self.stranger) {
            (true, _, _) | (false, Model::P1S | Model::X1C, _) => None,
            (false, Model::A1Mini | Model::H2D, true) => Some(STRANGER_CA),
            (false, Model::A1Mini, false) => Some(CA),
            (false, Model::H2D, false) => Some(DEVICE_CA),
        };
        if let Some(above) = above {
            chain.push(certificate(above)?);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(io::Error::other)?;
        let key = sign::any_supported_type(&key).map_err(io::Error::other)?;
        Ok(Arc::new(CertifiedKey::new(chain, Arc::new(Pkcs1(key)))))
    }
}

/// The plaintext an ESP32 printer puts into one record at most, in bytes (`src/protocol.md`, certificates).
const RECORD_PLAINTEXT: usize = 4096;

/// What rustls counts on top of it, in bytes.
const RECORD_HEADER: usize = 5;

fn certificate(pem: &[u8]) -> io::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem).map_err(io::Error::other)
}

/// Shows one certificate to everybody, whatever name they ask for and whatever its version.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Signs as the printers do: `rsa_pkcs1_sha256` or not at all.
#[derive(Debug)]
struct Pkcs1(Arc<dyn SigningKey>);

impl SigningKey for Pkcs1 {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        const ONLY: SignatureScheme = SignatureScheme::RSA_PKCS1_SHA256;
        offered.contains(&ONLY).then(|| self.0.choose_scheme(&[ONLY])).flatten()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}
