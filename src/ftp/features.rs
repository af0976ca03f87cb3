//! What the answer to FEAT names (RFC 2389 §3.2): the printer's features, less those that are not had
//! here, and ours.

/// What FEAT has named so far that is ours to do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Features {
    /// The printer's reply has more than one line.
    pub(super) begun: bool,
    seen: [bool; OURS.len()],
}

/// What is done here, whatever the printer can.
const OURS: [&[u8]; 5] = [b" EPSV", b" PASV", b" PBSZ", b" PROT", b" UTF8"];

/// What is not had here, whatever the printer can.
const NOT_OURS: [&[u8]; 10] =
    [b"AUTH", b"EPRT", b"PORT", b"CCC", b"CDC", b"SSCN", b"CPSV", b"LPRT", b"MODE", b"LANG"];

impl Features {
    /// Whether a line of the printer's is true here as well.
    pub(super) fn admits(&mut self, line: &[u8]) -> bool {
        let word = line.trim_ascii().split(|byte| *byte == b' ').next().unwrap_or_default();
        for (seen, ours) in self.seen.iter_mut().zip(OURS) {
            *seen |= ours.trim_ascii().eq_ignore_ascii_case(word);
        }
        !NOT_OURS.iter().any(|other| other.eq_ignore_ascii_case(word))
    }

    /// The lines that are ours to add.
    pub(super) fn missing(&self) -> [Option<&'static [u8]>; OURS.len()] {
        let mut missing = [None; OURS.len()];
        for ((missing, seen), ours) in missing.iter_mut().zip(self.seen).zip(OURS) {
            *missing = (!seen).then_some(ours);
        }
        missing
    }
}
