//! The reply to FEAT (RFC 2389 section 3.2): the printer's features without those that the proxy does not support, and
//! with the proxy's own.

/// Features that the printer's reply has named so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Features {
    /// The printer's reply has more than one line.
    pub(super) begun: bool,
    seen: [bool; OURS.len()],
}

/// Features that the proxy supports itself.
const OURS: [&[u8]; 5] = [b" EPSV", b" PASV", b" PBSZ", b" PROT", b" UTF8"];

/// Features that the proxy does not support.
const NOT_OURS: [&[u8]; 10] =
    [b"AUTH", b"EPRT", b"PORT", b"CCC", b"CDC", b"SSCN", b"CPSV", b"LPRT", b"MODE", b"LANG"];

impl Features {
    /// Whether the proxy supports the feature of a line as well.
    pub(super) fn admits(&mut self, line: &[u8]) -> bool {
        let word = line.trim_ascii().split(|byte| *byte == b' ').next().unwrap_or_default();
        for (seen, ours) in self.seen.iter_mut().zip(OURS) {
            *seen |= ours.trim_ascii().eq_ignore_ascii_case(word);
        }
        !NOT_OURS.iter().any(|other| other.eq_ignore_ascii_case(word))
    }

    /// Lines for the proxy's features that the printer did not name.
    pub(super) fn missing(&self) -> [Option<&'static [u8]>; OURS.len()] {
        let mut missing = [None; OURS.len()];
        for ((missing, seen), ours) in missing.iter_mut().zip(self.seen).zip(OURS) {
            *missing = (!seen).then_some(ours);
        }
        missing
    }
}
