//! The proxy's private keys: making them, and reading and writing them as PKCS#8 in PEM (RFC 5958, RFC 7468).

use alloc::string::String;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm};
use rsa::RsaPrivateKey;
use rsa::pkcs8::EncodePrivateKey;
use rustls::pki_types::PrivatePkcs8KeyDer;
use zeroize::Zeroizing;

/// Bits of an RSA key: the smallest size that all clients accept.
const RSA_BITS: usize = 2048;

/// The kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// RSA-2048, which all clients accept.
    Rsa,
    /// ECDSA P-256, with which a Pi Zero signs several times faster.
    Ecdsa,
}

/// A key cannot be made: the system provides no randomness or no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotMade;

impl Kind {
    /// Makes a key. An RSA key takes about a second on a PC and up to minutes on a Pi Zero.
    ///
    /// # Errors
    ///
    /// [`NotMade`].
    pub(super) fn make(self) -> Result<KeyPair, NotMade> {
        match self {
            Self::Ecdsa => KeyPair::generate_for(self.algorithm()).map_err(|_| NotMade),
            Self::Rsa => {
                log::info!("making an RSA key (up to minutes on a slow board)");
                // ring signs with RSA keys but makes none.
                let key =
                    RsaPrivateKey::new(&mut rand_core::OsRng, RSA_BITS).map_err(|_| NotMade)?;
                let der = key.to_pkcs8_der().map_err(|_| NotMade)?;
                let der = PrivatePkcs8KeyDer::from(der.as_bytes());
                KeyPair::from_pkcs8_der_and_sign_algo(&der, self.algorithm()).map_err(|_| NotMade)
            }
        }
    }

    /// Reads a key in PEM; `None` if it is not PKCS#8 or of another kind.
    pub(super) fn read(self, pem: &str) -> Option<KeyPair> {
        KeyPair::from_pkcs8_pem_and_sign_algo(pem, self.algorithm()).ok()
    }

    fn algorithm(self) -> &'static SignatureAlgorithm {
        match self {
            Self::Rsa => &PKCS_RSA_SHA256,
            Self::Ecdsa => &PKCS_ECDSA_P256_SHA256,
        }
    }
}

/// The key as text, wiped when dropped.
pub(super) fn text(key: &KeyPair) -> Zeroizing<String> {
    Zeroizing::new(key.serialize_pem())
}
