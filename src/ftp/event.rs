//! What the upstream learns from the printer about a client's command.
//!
//! The upstream is the only reader of the printer's replies. It never writes a client's
//! [`Slot`](super::slot::Slot): it emits an [`Event`], and `Hub::apply` changes the slot.
//! The events are passed to the hub by a call, not returned by
//! [`Session::handle_input`](crate::session::Session::handle_input), since many follow from a data connection's event
//! or from a deadline, for which the session's contract has no return value.

use core::fmt;

/// What became of a client's command, or of one of the client's settings.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A line of the printer's reply for the client; the command is still under way.
    Line(&'a [u8]),
    /// The printer's final reply line: the command is finished.
    Reply(&'a [u8]),
    /// The proxy's own final reply line: the command is finished.
    Answer(fmt::Arguments<'a>),
    /// CWD or CDUP succeeded; the absolute path of the client's directory, as PWD gave it.
    Directory(&'a [u8]),
    /// REST was accepted: the offset in bytes of the client's next transfer. `None`: its argument is not a number.
    RestartOffset(Option<u64>),
    /// RNFR was accepted: its whole line, which is sent again before RNTO. Empty: no rename is pending.
    Renaming(&'a [u8]),
    /// The printer's reply to SIZE.
    Size {
        /// Hash of the file's name.
        name: u64,
        /// Bytes in the file. `None`: the printer gave no size.
        size: Option<u64>,
    },
    /// ALLO: the size in bytes of the client's next upload, if its argument is a number.
    Announced(Option<u64>),
}
