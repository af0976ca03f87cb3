//! What can be wrong with a packet, and where it shows.

use core::fmt;

/// What is wrong with a packet, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    /// Bytes from the packet's first byte to where it shows: a byte of a string that may not be
    /// there, or the beginning of the field.
    pub at: u32,
    /// What is wrong.
    pub fault: Fault,
}

/// What can be wrong with a packet. All of it is the sender's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A packet type that there is not: 0 or 15 (§2.2.1).
    Type(u8),
    /// Flags that this packet type does not have (§2.2.2).
    Flags,
    /// A remaining length of more than four bytes (§2.2.3).
    Length,
    /// A field goes on behind the end of the packet.
    Truncated,
    /// The packet goes on behind its last field.
    Trailing,
    /// Packet identifier 0 (§2.3.1).
    PacketId,
    /// A string that is not UTF-8 (§1.5.3).
    Utf8,
    /// U+0000 in a string (§1.5.3).
    Nul,
    /// QoS 3 (§3.3.1.2).
    Qos,
    /// A QoS 0 message sent again (§3.3.1.1).
    Dup,
    /// A message on no topic (§4.7.3).
    EmptyTopic,
    /// A message on `+` or `#` (§4.7.1).
    WildcardInTopic,
    /// A topic filter without a character (§4.7.3).
    EmptyFilter,
    /// SUBSCRIBE or UNSUBSCRIBE without a filter (§3.8.3, §3.10.3).
    NoFilters,
    /// SUBACK without a code (§3.9.3).
    NoCodes,
    /// A CONNACK or SUBACK code that is reserved (§3.2.2.3, §3.9.3).
    Code(u8),
    /// A bit that must be 0 is not.
    ReservedBits,
    /// A CONNECT whose protocol name is neither `MQTT` nor `MQIsdp` (§3.1.2.1).
    ProtocolName,
    /// A CONNECT with the name of one version and this level, of another (§3.1.2.2).
    ProtocolMismatch(u8),
    /// A CONNECT with the QoS or retain flag of a will, and no will (§3.1.2.6, §3.1.2.7).
    WillFlags,
    /// A CONNECT with a password and no user name (§3.1.2.9).
    PasswordAlone,
}

impl core::error::Error for WireError {}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.fault, self.at)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Type(number) => return write!(f, "unexpected packet type {number}"),
            Self::Flags => "flags that the packet type does not have",
            Self::Length => "remaining length of more than four bytes",
            Self::Truncated => "field longer than its packet",
            Self::Trailing => "packet longer than its fields",
            Self::PacketId => "packet identifier 0",
            Self::Utf8 => "string that is not utf-8",
            Self::Nul => "U+0000 in a string",
            Self::Qos => "qos 3",
            Self::Dup => "dup at qos 0",
            Self::EmptyTopic => "empty topic",
            Self::WildcardInTopic => "wildcard in a topic",
            Self::EmptyFilter => "empty topic filter",
            Self::NoFilters => "no topic filter",
            Self::NoCodes => "no return code",
            Self::Code(code) => return write!(f, "reserved return code {code}"),
            Self::ReservedBits => "reserved bit set",
            Self::ProtocolName => "unknown protocol name",
            Self::ProtocolMismatch(level) => {
                return write!(f, "protocol level {level} under another version's name");
            }
            Self::WillFlags => "flags of a will without a will",
            Self::PasswordAlone => "password without a user name",
        })
    }
}
