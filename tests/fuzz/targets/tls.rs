//! Certificates of printers: no bytes cause a panic, and none are accepted without a signature of Bambu Lab's.

use pandaproxy::tls::authorities::BAMBU_LAB;
use pandaproxy::tls::chain::{Verdict, judge};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;

/// The expected serial number, which the seeds have.
const SERIAL: &str = "01P00A3C1200417";

/// Seconds since 1970, while the seeds are valid.
const NOW: i64 = 1_800_000_000;

/// A leaf, its length in two bytes before it, and a certificate that is sent along.
///
/// No private key of Bambu Lab's is known here, so nothing that libFuzzer makes of the seeds, which other
/// authorities signed, can be verified. A certificate that is accepted for pinning names the printer.
pub(crate) fn chain(data: &[u8]) {
    let Some((len, rest)) = data.split_first_chunk() else { return };
    let (leaf, sent) = rest.split_at(usize::from(u16::from_be_bytes(*len)).min(rest.len()));
    let sent = [CertificateDer::from(sent)];
    let sent = if sent[0].is_empty() { &sent[..0] } else { &sent[..] };
    let algorithms = default_provider().signature_verification_algorithms;
    let judged = judge(leaf, sent, SERIAL, BAMBU_LAB.iter(), &algorithms, NOW);
    let judged = judged.map(|judged| judged.verdict);
    assert!(
        !matches!(judged, Ok(Verdict::Verified | Verdict::VerifiedUndated)),
        "vouched for without a key"
    );
    if judged.is_ok() {
        let names = leaf.windows(SERIAL.len()).any(|seen| seen == SERIAL.as_bytes());
        assert!(names, "accepted under another name");
    }
}
