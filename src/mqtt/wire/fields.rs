//! The fields of a packet, read one behind the other, never behind the packet's end.

use core::str;

use super::{
    BRIDGE, CLEAN, Connect, ConnectCode, DUP, Fault, Filters, LEVEL_5, MQTT_3_1, MQTT_3_1_1,
    PASSWORD, PacketId, Protocol, Publish, QOS, Qos, RESERVED, RETAIN, SESSION_PRESENT, SubAck,
    Subscribe, SubscribeCode, Subscriptions, USER_NAME, Unsubscribe, WILL, WILL_QOS, WILL_RETAIN,
    Will, WireError,
};

/// What has not been read yet of a packet's body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fields<'a> {
    pub(super) rest: &'a [u8],
    /// Where `rest` begins, counted from the packet's first byte.
    pub(super) at: u32,
}

impl<'a> Fields<'a> {
    pub(super) const fn fault(&self, fault: Fault) -> WireError {
        WireError { at: self.at, fault }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(self.fault(Fault::Truncated))?;
        self.rest = rest;
        // No packet is longer than MAX_REMAINING, which is far from the end of u32.
        self.at += len as u32;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        let (&byte, rest) = self.rest.split_first().ok_or(self.fault(Fault::Truncated))?;
        self.rest = rest;
        self.at += 1;
        Ok(byte)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        let (&bytes, rest) = self.rest.split_first_chunk().ok_or(self.fault(Fault::Truncated))?;
        self.rest = rest;
        self.at += 2;
        Ok(u16::from_be_bytes(bytes))
    }

    pub(super) fn id(&mut self) -> Result<PacketId, WireError> {
        let zero = self.fault(Fault::PacketId);
        PacketId::new(self.u16()?).ok_or(zero)
    }

    fn binary(&mut self) -> Result<&'a [u8], WireError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A string in which `forbid` finds nothing wrong with any byte.
    fn text(&mut self, forbid: impl Fn(u8) -> Option<Fault>) -> Result<&'a str, WireError> {
        let len = self.u16()?;
        let begin = self.at;
        let bytes = self.take(usize::from(len))?;
        let text = str::from_utf8(bytes).map_err(|error| WireError {
            at: begin + error.valid_up_to() as u32,
            fault: Fault::Utf8,
        })?;
        for (at, &byte) in (begin..).zip(bytes) {
            if let Some(fault) = forbid(byte) {
                return Err(WireError { at, fault });
            }
        }
        Ok(text)
    }

    fn string(&mut self) -> Result<&'a str, WireError> {
        self.text(|byte| (byte == 0).then_some(Fault::Nul))
    }

    pub(super) fn filter(&mut self) -> Result<&'a str, WireError> {
        let empty = self.fault(Fault::EmptyFilter);
        let filter = self.string()?;
        if filter.is_empty() { Err(empty) } else { Ok(filter) }
    }

    fn topic(&mut self) -> Result<&'a str, WireError> {
        let empty = self.fault(Fault::EmptyTopic);
        let topic = self.text(|byte| match byte {
            0 => Some(Fault::Nul),
            b'+' | b'#' => Some(Fault::WildcardInTopic),
            _ => None,
        })?;
        if topic.is_empty() { Err(empty) } else { Ok(topic) }
    }

    pub(super) fn connect(&mut self) -> Result<Connect<'a>, WireError> {
        let protocol = self.protocol()?;
        if matches!(protocol, Protocol::V5 | Protocol::Other(_)) {
            self.rest = &[];
            return Ok(Connect::unread(protocol));
        }
        let at = self.at;
        let flags = self.u8()?;
        let has = |flag: u8| flags & flag != 0;
        let wrong = |fault| WireError { at, fault };
        let qos = Qos::of((flags & WILL_QOS) >> 3).ok_or(wrong(Fault::Qos))?;
        if has(RESERVED) {
            return Err(wrong(Fault::ReservedBits));
        }
        if has(WILL_QOS | WILL_RETAIN) && !has(WILL) {
            return Err(wrong(Fault::WillFlags));
        }
        if has(PASSWORD) && !has(USER_NAME) {
            return Err(wrong(Fault::PasswordAlone));
        }
        let keep_alive = self.u16()?;
        let client_id = self.string()?;
        let will = if has(WILL) { Some(self.will(qos, has(WILL_RETAIN))?) } else { None };
        let user_name = if has(USER_NAME) { Some(self.string()?) } else { None };
        let password = if has(PASSWORD) { Some(self.binary()?) } else { None };
        let clean = has(CLEAN);
        Ok(Connect { protocol, clean, keep_alive, client_id, will, user_name, password })
    }

    fn protocol(&mut self) -> Result<Protocol, WireError> {
        let unknown = self.fault(Fault::ProtocolName);
        let name = self.binary()?;
        let of_3_1 = name == MQTT_3_1.0.as_bytes();
        if !of_3_1 && name != MQTT_3_1_1.0.as_bytes() {
            return Err(unknown);
        }
        let at = self.at;
        let level = self.u8()?;
        const BRIDGE_3_1: u8 = BRIDGE | MQTT_3_1.1;
        const BRIDGE_3_1_1: u8 = BRIDGE | MQTT_3_1_1.1;
        let (protocol, named) = match level {
            level if level == MQTT_3_1.1 => (Protocol::V3_1, of_3_1),
            level if level == MQTT_3_1_1.1 => (Protocol::V3_1_1, !of_3_1),
            BRIDGE_3_1 => (Protocol::V3_1, of_3_1),
            BRIDGE_3_1_1 => (Protocol::V3_1_1, !of_3_1),
            LEVEL_5 => (Protocol::V5, !of_3_1),
            level => (Protocol::Other(level), true),
        };
        let mismatch = WireError { at, fault: Fault::ProtocolMismatch(level) };
        if named { Ok(protocol) } else { Err(mismatch) }
    }

    fn will(&mut self, qos: Qos, retain: bool) -> Result<Will<'a>, WireError> {
        let topic = self.topic()?;
        let payload = self.binary()?;
        Ok(Will { topic, payload, qos, retain })
    }

    pub(super) fn connack(&mut self) -> Result<(bool, ConnectCode), WireError> {
        let reserved = self.fault(Fault::ReservedBits);
        let flags = self.u8()?;
        if flags & !SESSION_PRESENT != 0 {
            return Err(reserved);
        }
        let at = self.at;
        let number = self.u8()?;
        let code = ConnectCode::of(number).ok_or(WireError { at, fault: Fault::Code(number) })?;
        Ok((flags == SESSION_PRESENT, code))
    }

    pub(super) fn publish(&mut self, flags: u8) -> Result<Publish<'a>, WireError> {
        let qos = Qos::of((flags & QOS) >> 1).ok_or(WireError { at: 0, fault: Fault::Qos })?;
        let topic = self.topic()?;
        let id = if qos == Qos::AtMostOnce { None } else { Some(self.id()?) };
        let payload = self.take(self.rest.len())?;
        let (dup, retain) = (flags & DUP != 0, flags & RETAIN != 0);
        Ok(Publish { dup, qos, retain, topic, id, payload })
    }

    pub(super) fn subscribe(&mut self) -> Result<Subscribe<'a>, WireError> {
        let id = self.id()?;
        let fields = Fields { rest: self.rest, at: 0 };
        let left = self.count(|fields| fields.subscription().map(drop))?;
        Ok(Subscribe { id, filters: Subscriptions { fields, left } })
    }

    pub(super) fn subscription(&mut self) -> Result<(&'a str, Qos), WireError> {
        let filter = self.filter()?;
        let at = self.at;
        let options = self.u8()?;
        if options & !0b11 != 0 {
            return Err(WireError { at, fault: Fault::ReservedBits });
        }
        let qos = Qos::of(options).ok_or(WireError { at, fault: Fault::Qos })?;
        Ok((filter, qos))
    }

    pub(super) fn unsubscribe(&mut self) -> Result<Unsubscribe<'a>, WireError> {
        let id = self.id()?;
        let fields = Fields { rest: self.rest, at: 0 };
        let left = self.count(|fields| fields.filter().map(drop))?;
        Ok(Unsubscribe { id, filters: Filters { fields, left } })
    }

    /// Reads entries up to the packet's end, and returns how many. There has to be one at least.
    fn count(
        &mut self,
        entry: impl Fn(&mut Self) -> Result<(), WireError>,
    ) -> Result<usize, WireError> {
        if self.rest.is_empty() {
            return Err(self.fault(Fault::NoFilters));
        }
        let mut count = 0;
        while !self.rest.is_empty() {
            entry(self)?;
            count += 1;
        }
        Ok(count)
    }

    pub(super) fn suback(&mut self) -> Result<SubAck<'a>, WireError> {
        let id = self.id()?;
        if self.rest.is_empty() {
            return Err(self.fault(Fault::NoCodes));
        }
        let begin = self.at;
        let codes = self.take(self.rest.len())?;
        for (at, &code) in (begin..).zip(codes) {
            SubscribeCode::of(code).ok_or(WireError { at, fault: Fault::Code(code) })?;
        }
        Ok(SubAck { id, codes })
    }
}

impl Connect<'_> {
    pub(super) const fn unread(protocol: Protocol) -> Self {
        Self {
            protocol,
            clean: false,
            keep_alive: 0,
            client_id: "",
            will: None,
            user_name: None,
            password: None,
        }
    }
}
