//! The pin of one printer, in memory, and the thread that reads and writes its [file](super::pins) and that of its
//! [chain](super::chains).
//!
//! A disk may take seconds for a write, and a network file system for ever. So the thread that serves only
//! exchanges values here: what has to be read or written is done by a thread that is started for it and ends after it.
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | threads | one | it does the next thing after this one |
//! | things to do | one | a newer one replaces it |
//! | chains to be written | one, of [`MAX_CHAIN`] bytes | a newer one replaces it |
//! | the wait for another process' lock | [`LOCK_TIMEOUT`](super::LOCK_TIMEOUT) | the pin is not written |

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use super::chains::{Chains, MAX_CHAIN};
use super::pins::{Fingerprint, PinError, Pins, fingerprint};

/// The stack of the thread.
pub(crate) const PIN_STACK: usize = 64 * 1024;

/// The pin of one printer. A clone is the same pin.
#[derive(Clone, Debug)]
pub(crate) struct Pin(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pins: Pins,
    /// Where the printer's chain is kept, if it is.
    chains: Option<Chains>,
    serial: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The pin as the file has it, as far as is known.
    known: Result<Option<Fingerprint>, PinError>,
    /// What the thread does, or is to do next.
    job: Option<Job>,
    is_running: bool,
    /// Whether the last pin of a first use could not be written.
    has_failed: bool,
    /// Whether the pin has rejected a certificate since the file was read.
    is_doubted: bool,
    /// Whether a certificate was trusted on first use.
    has_added: bool,
    /// The SHA-256 of the chain that the file has, or that is being written.
    chain: Option<Fingerprint>,
    /// The certificate that this chain begins with.
    chain_of: Option<Fingerprint>,
    /// A chain to be written.
    unwritten: Option<String>,
}

/// What a printer has shown, and how its file is written.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    /// The fingerprint of its certificate.
    pub(crate) of: Fingerprint,
    /// Whether authorities vouch for it: a pinned certificate stands alone.
    pub(crate) is_vouched_for: bool,
    /// The file's text.
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    /// Reads the file again.
    Read,
    /// Pins the certificate unless there is a pin.
    Add(Fingerprint),
    /// Pins the certificate in place of another one.
    Replace(Fingerprint),
}

impl Pin {
    /// The pin of the printer with the serial number `serial`. Reads the file, which may block.
    pub(crate) fn load(pins: Pins, serial: &str) -> Self {
        let known = pins.get(serial);
        let state = State {
            known,
            job: None,
            is_running: false,
            has_failed: false,
            is_doubted: false,
            has_added: false,
            chain: None,
            chain_of: None,
            unwritten: None,
        };
        let (serial, state) = (serial.into(), Mutex::new(state));
        Self(Arc::new(Shared { pins, chains: None, serial, state }))
    }

    /// The same, and keeps the printer's chain. `first` returns the first certificate of a file. Reads the file.
    pub(crate) fn keeping(self, chains: Chains, first: fn(&str) -> Option<Fingerprint>) -> Self {
        // A file that cannot be read is written again.
        let text = chains.get(&self.0.serial).ok().flatten().unwrap_or_default();
        let state = State {
            chain: Some(fingerprint(text.as_bytes())),
            chain_of: first(&text),
            unwritten: None,
            ..*self.0.state()
        };
        let (pins, serial) = (self.0.pins.clone(), self.0.serial.clone());
        Self(Arc::new(Shared { pins, chains: Some(chains), serial, state: Mutex::new(state) }))
    }

    /// Whether the printer's chain is kept.
    pub(crate) fn keeps_chain(&self) -> bool {
        self.0.chains.is_some()
    }

    /// Has the chain written that a printer has shown, unless the file has it. A certificate that stands alone does not
    /// replace what once vouched for it: not every port shows the authorities.
    pub(crate) fn show(&self, chain: Chain) {
        let mut state = self.0.state();
        let shown = fingerprint(chain.text.as_bytes());
        let is_less = !chain.is_vouched_for && state.chain_of == Some(chain.of);
        if self.0.chains.is_none() || is_less || state.chain == Some(shown) {
            return;
        }
        if chain.text.len() > MAX_CHAIN {
            log::debug!("the printer's certificates are too long to be kept");
            return;
        }
        (state.chain, state.chain_of) = (Some(shown), Some(chain.of));
        state.unwritten = Some(chain.text);
        self.run(&mut state);
    }

    /// The pin, whether or not it is written yet.
    ///
    /// # Errors
    ///
    /// [`PinError::Unreadable`].
    pub(crate) fn get(&self) -> Result<Option<Fingerprint>, PinError> {
        self.0.state().pin()
    }

    /// Pins the printer to `fingerprint` unless it has a pin; returns its pin. It is written later:
    /// [`settled`](Self::settled) says whether it is.
    ///
    /// # Errors
    ///
    /// [`PinError::Unreadable`].
    pub(crate) fn add(&self, fingerprint: Fingerprint) -> Result<Fingerprint, PinError> {
        let mut state = self.0.state();
        if let Some(pinned) = state.pin()? {
            return Ok(pinned);
        }
        state.has_failed = false;
        state.has_added = true;
        self.start(&mut state, Job::Add(fingerprint));
        Ok(fingerprint)
    }

    /// Whether a certificate was trusted on first use by this program.
    pub(crate) fn has_added(&self) -> bool {
        self.0.state().has_added
    }

    /// Pins the printer to `fingerprint` in place of its former pin. Where the file cannot be written, that holds until the
    /// program ends.
    pub(crate) fn replace(&self, fingerprint: Fingerprint) {
        let mut state = self.0.state();
        if state.pin() != Ok(Some(fingerprint)) {
            self.start(&mut state, Job::Replace(fingerprint));
        }
    }

    /// Notes that a certificate was rejected: the user may change the file before the next one.
    pub(crate) fn doubt(&self) {
        self.0.state().is_doubted = true;
    }

    /// Begins to read the file again if a certificate has been rejected since it was read.
    pub(crate) fn refresh(&self) {
        let mut state = self.0.state();
        if state.is_doubted && state.job.is_none() {
            self.start(&mut state, Job::Read);
        }
    }

    /// Whether the pin of a first use is written; `None` while it is being written, or while the file is being read.
    pub(crate) fn settled(&self) -> Option<Result<(), PinError>> {
        let state = self.0.state();
        match state.job {
            Some(Job::Read | Job::Add(_)) => None,
            Some(Job::Replace(_)) | None if state.has_failed => Some(Err(PinError::NotKept)),
            Some(Job::Replace(_)) | None => Some(Ok(())),
        }
    }

    /// Whether there is nothing to do.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        !self.0.state().is_running
    }

    fn start(&self, state: &mut State, job: Job) {
        state.job = Some(job);
        self.run(state);
    }

    /// Starts the thread unless it runs.
    fn run(&self, state: &mut State) {
        if state.is_running {
            return;
        }
        let shared = Arc::clone(&self.0);
        let thread = thread::Builder::new().name("pins".into()).stack_size(PIN_STACK);
        match thread.spawn(move || shared.work()) {
            Ok(_) => state.is_running = true,
            Err(error) => {
                log::error!("cannot start a thread to write pins: {error}");
                if let Some(job) = state.job {
                    state.finish(job, &Err(PinError::NotKept));
                }
                state.forget_chain();
            }
        }
    }
}

impl Shared {
    /// The lock is held only while values are copied.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what there is to do.
    fn work(&self) {
        loop {
            let job = {
                let mut state = self.state();
                match (state.job, state.unwritten.take()) {
                    (Some(job), unwritten) => {
                        state.unwritten = unwritten;
                        job
                    }
                    (None, Some(text)) => {
                        drop(state);
                        self.write(&text);
                        continue;
                    }
                    (None, None) => {
                        state.is_running = false;
                        return;
                    }
                }
            };
            let outcome = match job {
                Job::Read => self.pins.get(&self.serial),
                Job::Add(fingerprint) => self.pins.add(&self.serial, fingerprint).map(Some),
                Job::Replace(fingerprint) => {
                    self.pins.replace(&self.serial, fingerprint).map(|()| Some(fingerprint))
                }
            };
            self.state().finish(job, &outcome);
        }
    }
}

impl Shared {
    /// Writes a chain. It is written again after the next handshake if it cannot be.
    fn write(&self, text: &str) {
        let Some(chains) = &self.chains else { return };
        if let Err(error) = chains.set(&self.serial, text) {
            log::warn!("{}", NotKept { serial: &self.serial, error: &error });
            self.state().forget_chain();
        }
    }
}

/// The log line about a chain that cannot be written.
struct NotKept<'a> {
    serial: &'a str,
    error: &'a io::Error,
}

impl fmt::Display for NotKept<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { serial, error } = self;
        write!(f, "cannot write {serial}.chain: {error}; `pandaproxy ca` does not print it")
    }
}

/// Each message of this module once.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<String> {
    let error = io::ErrorKind::StorageFull.into();
    alloc::vec![alloc::format!("{}", NotKept { serial: "09400A000000001", error: &error })]
}

impl State {
    /// The file may not have the chain.
    const fn forget_chain(&mut self) {
        (self.chain, self.chain_of) = (None, None);
    }

    fn pin(&self) -> Result<Option<Fingerprint>, PinError> {
        match self.job {
            Some(Job::Add(fingerprint) | Job::Replace(fingerprint)) => Ok(Some(fingerprint)),
            Some(Job::Read) | None => self.known,
        }
    }

    fn finish(&mut self, job: Job, outcome: &Result<Option<Fingerprint>, PinError>) {
        match (job, outcome) {
            (Job::Read, read) => {
                self.known = *read;
                self.is_doubted = read.is_err();
            }
            (_, Ok(pinned)) => self.known = Ok(*pinned),
            // The file is not changed, and the certificate is not accepted.
            (Job::Add(_), Err(error)) => {
                self.has_failed = true;
                self.is_doubted |= *error == PinError::Unreadable;
            }
            (Job::Replace(fingerprint), Err(_)) => self.known = Ok(Some(fingerprint)),
        }
        // A newer thing to do stays.
        self.job.take_if(|done| *done == job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::Lock;
    use crate::state_dir::scratch::Scratch;
    use core::time::Duration;
    use std::fs;

    /// Waits until there is nothing more to do.
    fn finished(pin: &Pin) {
        while !pin.is_idle() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Guards: a disk that hangs stops the thread that serves.
    #[test]
    fn a_lock_that_another_process_holds_blocks_nothing() {
        let dir = Scratch::new("pin");
        let pin = Pin::load(Pins::in_dir(&dir), "A");
        let lock = Lock::take(&dir, Duration::ZERO).unwrap();
        assert_eq!(pin.add([1; 32]), Ok([1; 32]));
        assert_eq!(pin.settled(), None, "not yet written");
        assert_eq!(pin.get(), Ok(Some([1; 32])));
        assert_eq!(pin.add([2; 32]), Ok([1; 32]), "the first one counts");
        assert!(!dir.join("pins").exists());
        drop(lock);
        finished(&pin);
        assert_eq!(pin.settled(), Some(Ok(())));
        assert!(fs::read_to_string(dir.join("pins")).unwrap().starts_with("A 0101"));
    }

    #[test]
    fn a_pin_that_cannot_be_written_is_none() {
        let dir = Scratch::new("pin");
        fs::create_dir(dir.join(".pins.new")).unwrap();
        let pin = Pin::load(Pins::in_dir(&dir), "A");
        for _ in 0..2 {
            assert_eq!(pin.add([1; 32]), Ok([1; 32]));
            finished(&pin);
            assert_eq!(pin.settled(), Some(Err(PinError::NotKept)));
            assert_eq!(pin.get(), Ok(None));
        }
        // A verified certificate is accepted without a pin in the file, and no other one after it.
        pin.replace([3; 32]);
        finished(&pin);
        assert_eq!(pin.get(), Ok(Some([3; 32])));
    }

    #[test]
    fn a_pin_that_the_user_removes_is_forgotten_at_the_next_dial() {
        let dir = Scratch::new("pin");
        let pin = Pin::load(Pins::in_dir(&dir), "A");
        assert_eq!(pin.add([1; 32]), Ok([1; 32]));
        finished(&pin);
        fs::remove_file(dir.join("pins")).unwrap();
        pin.refresh();
        assert_eq!(pin.get(), Ok(Some([1; 32])), "read again only after a rejection");
        pin.doubt();
        pin.refresh();
        finished(&pin);
        assert_eq!((pin.get(), pin.settled()), (Ok(None), Some(Ok(()))));
    }
}
