//! Slots for clients: a fixed number, made at the start and used by one client after another.
//!
//! A slot is what a service's hub and one client's session share. It is [taken](Slots::take) before the
//! client has shown the access code and free again when its [guard](SlotGuard) is dropped, with everything
//! that was kept for the client.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::ops::Deref;

use super::pool::RC_COUNTS;
use crate::clock::Instant;
use crate::notify::Notify;
use crate::peer::Peer;

/// State of a slot. `R` is why a client has to be disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState<R> {
    /// No client has it.
    Vacant,
    /// A client has it that has not shown the access code yet.
    PreAuth,
    /// A client has it that has shown the code.
    Active,
    /// A client has it that has to be disconnected.
    Dismissed(R),
}

/// Bytes kept of what a client calls itself: identifiers of slicers and phones have up to 40.
pub const LABEL: usize = 48;

/// The client that has a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// Its name in the log.
    pub peer: Peer,
    /// When it connected.
    pub since: Instant,
}

/// A slot's state, its client, and what wakes the client's session.
pub struct Occupancy<R> {
    state: Cell<SlotState<R>>,
    occupant: Cell<Option<Occupant>>,
    label: Label,
    notify: Notify,
}

impl<R: Copy> Occupancy<R> {
    /// Of a vacant slot.
    pub fn new() -> Self {
        Self {
            state: Cell::new(SlotState::Vacant),
            occupant: Cell::new(None),
            label: Label::default(),
            notify: Notify::default(),
        }
    }

    /// The state.
    pub const fn state(&self) -> SlotState<R> {
        self.state.get()
    }

    /// Whether no client has the slot.
    pub const fn is_vacant(&self) -> bool {
        matches!(self.state.get(), SlotState::Vacant)
    }

    /// Whether a client has the slot that has shown the access code and may stay.
    pub const fn is_active(&self) -> bool {
        matches!(self.state.get(), SlotState::Active)
    }

    /// The client that has the slot; `None` until it is known.
    pub const fn occupant(&self) -> &Cell<Option<Occupant>> {
        &self.occupant
    }

    /// What the client calls itself: an identifier, or a user agent. Empty: unknown.
    pub const fn label(&self) -> &Label {
        &self.label
    }

    /// A client takes the slot that has not shown the access code yet.
    pub fn take(&self) {
        self.state.set(SlotState::PreAuth);
    }

    /// The client has shown the access code.
    pub fn activate(&self) {
        self.state.set(SlotState::Active);
    }

    /// The client has to be disconnected. The first of several reasons counts.
    pub fn dismiss(&self, reason: R) {
        match self.state() {
            SlotState::PreAuth | SlotState::Active => self.state.set(SlotState::Dismissed(reason)),
            SlotState::Vacant | SlotState::Dismissed(_) => {}
        }
        self.notify.notify();
    }

    /// Wakes the client's session.
    pub fn notify(&self) {
        self.notify.notify();
    }

    /// Completes when there is something for the client's session.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }
}

impl<R: Copy> Default for Occupancy<R> {
    fn default() -> Self {
        Self::new()
    }
}

/// The only reason of a service that disconnects its clients when the proxy shuts down, and never else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopping;

/// The beginning of what a client calls itself, to be shown.
#[derive(Default)]
pub struct Label(RefCell<heapless::String<LABEL>>);

impl Label {
    /// Keeps the first [`LABEL`] bytes of `name`, or somewhat less, to the end of a character.
    pub fn set(&self, name: &str) {
        let mut kept = self.0.borrow_mut();
        kept.clear();
        for c in name.chars() {
            if kept.push(c).is_err() {
                break;
            }
        }
    }

    /// Has `then` read it.
    pub fn with<R>(&self, then: impl FnOnce(&str) -> R) -> R {
        then(&self.0.borrow())
    }

    /// Forgets it.
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

/// What a service's hub and one client's session share.
pub trait Slot {
    /// Why a client has to be disconnected.
    type Reason: Copy;

    /// The slot's state, and what wakes its client's session.
    fn occupancy(&self) -> &Occupancy<Self::Reason>;

    /// Drops everything that was kept for the client that had the slot last.
    fn clear(&self);

    /// The slot's state.
    fn state(&self) -> SlotState<Self::Reason> {
        self.occupancy().state()
    }

    /// Wakes the client's session.
    fn notify(&self) {
        self.occupancy().notify();
    }

    /// Completes when there is something for the client's session.
    fn notified(&self) -> impl Future<Output = ()> {
        self.occupancy().notified()
    }

    /// The client has gone: the slot is cleared, and free for the next.
    fn vacate(&self) {
        self.clear();
        self.occupancy().occupant.set(None);
        self.occupancy().label.clear();
        self.occupancy().state.set(SlotState::Vacant);
    }
}

/// A slot that keeps nothing.
impl<R: Copy> Slot for Occupancy<R> {
    type Reason = R;

    fn occupancy(&self) -> &Self {
        self
    }

    fn clear(&self) {}
}

/// Fails the build if a slot is larger than its line in the memory budget.
pub const fn assert_fits<S: Slot>(line: usize) {
    assert!(size_of::<S>() + RC_COUNTS <= line, "a slot is larger than its budget line");
}

/// The slots of a service. A clone has the same slots.
pub struct Slots<S>(Rc<[Rc<S>]>);

impl<S> Clone for Slots<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: Slot> Slots<S> {
    /// As many vacant slots, each made from its index.
    pub fn new(count: usize, make: impl FnMut(usize) -> Rc<S>) -> Self {
        Self((0..count).map(make).collect())
    }

    /// Takes a vacant slot for a client that has not shown the access code yet. `None` if there is none.
    pub fn take(&self) -> Option<SlotGuard<S>> {
        let slot = self.iter().find(|slot| slot.occupancy().is_vacant())?;
        slot.occupancy().take();
        Some(SlotGuard(Rc::clone(slot)))
    }

    /// All slots, by index.
    pub fn iter(&self) -> core::slice::Iter<'_, Rc<S>> {
        self.0.iter()
    }

    /// The slot with this index.
    pub fn get(&self, index: usize) -> Option<&Rc<S>> {
        self.0.get(index)
    }

    /// The clients that have shown the access code and may stay, each with the index of its slot.
    pub fn occupants(&self) -> impl Iterator<Item = (usize, &S, Occupant)> {
        self.all_occupants().filter(|(_, slot, _)| slot.occupancy().is_active())
    }

    /// Every client, whether it has shown the access code or not, each with the index of its slot.
    pub fn all_occupants(&self) -> impl Iterator<Item = (usize, &S, Occupant)> {
        let slots = self.iter().enumerate();
        slots.filter_map(|(index, slot)| Some((index, &**slot, slot.occupancy().occupant.get()?)))
    }

    /// How many slots are not vacant: connections that are being served.
    pub fn connections(&self) -> usize {
        self.iter().filter(|slot| !slot.occupancy().is_vacant()).count()
    }

    /// How many clients have shown the access code and may stay.
    pub fn active(&self) -> usize {
        self.iter().filter(|slot| slot.occupancy().is_active()).count()
    }
}

/// A client's hold on its slot. Dropping it clears the slot and leaves it vacant.
pub struct SlotGuard<S: Slot>(Rc<S>);

impl<S: Slot> Deref for SlotGuard<S> {
    type Target = Rc<S>;

    fn deref(&self) -> &Rc<S> {
        &self.0
    }
}

impl<S: Slot> Drop for SlotGuard<S> {
    fn drop(&mut self) {
        self.0.vacate();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Kept {
        occupancy: Occupancy<&'static str>,
        sent: Cell<u32>,
    }

    impl Slot for Kept {
        type Reason = &'static str;

        fn occupancy(&self) -> &Occupancy<&'static str> {
            &self.occupancy
        }

        fn clear(&self) {
            self.sent.set(0);
        }
    }

    #[test]
    fn a_slot_is_cleared_and_free_when_its_guard_is_dropped() {
        let slots = Slots::new(2, |_| Rc::<Kept>::default());
        let first = slots.take().unwrap();
        let second = slots.take().unwrap();
        assert!(slots.take().is_none(), "there are two");
        assert_eq!((slots.connections(), slots.active()), (2, 0));
        second.occupancy().activate();
        second.sent.set(9);
        assert_eq!((slots.connections(), slots.active()), (2, 1));
        drop(second);
        assert_eq!((slots.connections(), slots.active()), (1, 0));
        let third = slots.take().unwrap();
        assert_eq!(third.occupancy().state(), SlotState::PreAuth);
        assert_eq!(third.sent.get(), 0, "of the client before");
        drop(first);
    }

    #[test]
    fn the_first_reason_to_disconnect_counts() {
        let slots = Slots::new(1, |_| Rc::<Kept>::default());
        let Some(slot) = slots.iter().next() else { unreachable!("there is one") };
        slot.occupancy().dismiss("vacant");
        assert!(slot.occupancy().is_vacant(), "there is no client to disconnect");
        let guard = slots.take().unwrap();
        guard.occupancy().dismiss("full");
        guard.occupancy().dismiss("shutting down");
        assert_eq!(guard.occupancy().state(), SlotState::Dismissed("full"));
        assert_eq!((slots.connections(), slots.active()), (1, 0));
    }
}
