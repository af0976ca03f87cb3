//! A relay of files as a running service.

use alloc::rc::Rc;
use core::cell::RefCell;
use core::fmt::{self, Write};

use crate::runtime::files::relay::Relay;
use crate::service::{Service, Visitor};

/// A relay as a running service. Its clients are reset when the program ends.
pub struct Relayed {
    name: &'static str,
    /// `None` while port 6000 is the chamber camera's.
    relay: RefCell<Option<Rc<Relay>>>,
}

impl Relayed {
    pub(super) fn new(name: &'static str) -> Rc<Self> {
        Rc::new(Self { name, relay: RefCell::new(None) })
    }

    /// The relay that runs from now on.
    pub(super) fn set(&self, relay: Option<Rc<Relay>>) {
        self.relay.replace(relay);
    }
}

impl Service for Relayed {
    fn name(&self) -> &'static str {
        self.name
    }

    fn connections(&self) -> usize {
        self.relay.borrow().as_ref().map_or(0, |relay| relay.connections())
    }

    fn describe(&self, visitor: &mut dyn Visitor) {
        if let Some(relay) = &*self.relay.borrow() {
            relay.describe(visitor);
        }
    }

    fn disconnect_all(&self) {
        if let Some(relay) = &*self.relay.borrow() {
            relay.disconnect_all();
        }
    }

    fn shut_down(&self) {}

    fn write_status(&self, out: &mut dyn Write) -> fmt::Result {
        self.relay.borrow().as_ref().map_or(Ok(()), |relay| relay.write_status(out))
    }
}
