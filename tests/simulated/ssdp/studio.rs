//! A model of Bambu Studio's list of devices, as its `DevManager` was read (`src/protocol.md`, discovery): which address
//! a print job for a printer would go to at any moment.
//!
//! The model has its own parser of datagrams and shares no code with the proxy.

use std::collections::BTreeMap;

/// One printer in the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    /// Where a job would go.
    pub(super) address: String,
    /// The interface that the address is kept for.
    connection_name: String,
    pub(super) name: String,
    pub(super) bind_state: String,
    pub(super) connect_type: String,
    has_code: bool,
}

impl Device {
    /// Whether a job could be started.
    pub(super) fn is_usable(&self) -> bool {
        self.has_code && self.bind_state == "free" && self.connect_type == "lan"
    }
}

/// The list, and the device that the user has selected.
#[derive(Default)]
pub(super) struct Studio {
    devices: BTreeMap<String, Device>,
    selected: Option<String>,
    /// How often the page of the selected device was reset.
    pub(super) resets: u32,
    /// Datagrams that were dropped because something is missing in them.
    pub(super) dropped: u32,
}

/// The headers of a datagram, with names in lower case; the first of a name counts.
fn headers(text: &str) -> Option<BTreeMap<String, String>> {
    let mut lines = text.split("\r\n");
    if !lines.next()?.contains("HTTP/1.") {
        return None;
    }
    let mut found = BTreeMap::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        found.entry(name.to_lowercase()).or_insert_with(|| value.trim().to_owned());
    }
    Some(found)
}

impl Studio {
    /// The user gives address and code: by hand, or at the last start.
    pub(super) fn add_by_address(&mut self, serial: &str, address: &str) {
        let device = Device {
            address: address.to_owned(),
            bind_state: "free".to_owned(),
            connect_type: "lan".to_owned(),
            has_code: true,
            ..Device::default()
        };
        self.devices.insert(serial.to_owned(), device);
    }

    /// The user selects a device and gives its code.
    pub(super) fn select(&mut self, serial: &str) {
        self.selected = Some(serial.to_owned());
        if let Some(device) = self.devices.get_mut(serial) {
            device.has_code = true;
        }
    }

    pub(super) fn device(&self, serial: &str) -> Option<&Device> {
        self.devices.get(serial)
    }

    /// A datagram on port 2021: `on_machine_alive`.
    pub(super) fn hear(&mut self, text: &str) {
        let Some(headers) = headers(text) else { return };
        // What the printer leaves out, the plug-in makes empty; these two have to be there.
        let get = |name: &str| headers.get(name).cloned().unwrap_or_default();
        let (serial, model) = (get("usn"), get("devmodel.bambu.com"));
        if serial.is_empty() || model.is_empty() {
            self.dropped += 1;
            return;
        }
        let (address, name) = (get("location"), get("devname.bambu.com"));
        let interface = get("devinf.bambu.com");
        let mut connect_type = get("devconnect.bambu.com");
        let mut bind_state = get("devbind.bambu.com");
        if connect_type == "farm" {
            (connect_type, bind_state) = ("lan".to_owned(), "free".to_owned());
        }
        let Some(device) = self.devices.get_mut(&serial) else {
            let device = Device {
                address,
                connection_name: interface,
                name,
                bind_state,
                connect_type,
                has_code: false,
            };
            self.devices.insert(serial, device);
            return;
        };
        if device.address != address {
            if interface.is_empty() {
                device.address = address;
            } else if device.connection_name.is_empty() || device.connection_name == interface {
                device.address = address;
                device.connection_name = interface;
            }
        }
        let becomes_free = device.bind_state != bind_state && bind_state == "free";
        if becomes_free && self.selected.as_deref() == Some(&serial) {
            self.resets += 1;
        }
        (device.name, device.bind_state, device.connect_type) = (name, bind_state, connect_type);
    }
}

fn packet(address: &str, interface: &str) -> String {
    format!(
        "NOTIFY * HTTP/1.1\r\nLocation: {address}\r\nUSN: S\r\nDevModel.bambu.com: C12\r\n\
         DevName.bambu.com: n\r\nDevConnect.bambu.com: lan\r\nDevBind.bambu.com: free\r\n\
         DevInf.bambu.com: {interface}\r\n\r\n"
    )
}

/// The address after these datagrams.
fn after(studio: &mut Studio, packets: &[(&str, &str)]) -> String {
    for (address, interface) in packets {
        studio.hear(&packet(address, interface));
    }
    studio.device("S").unwrap().address.clone()
}

#[test]
fn the_model_of_studio_has_studios_rules() {
    // The first to be heard keeps the address for its interface.
    assert_eq!(after(&mut Studio::default(), &[("us", "panda0"), ("printer", "wlan0")]), "us");
    assert_eq!(after(&mut Studio::default(), &[("printer", "wlan0"), ("us", "panda0")]), "printer");
    // An empty interface always takes it.
    assert_eq!(after(&mut Studio::default(), &[("printer", "wlan0"), ("us", "")]), "us");
    assert_eq!(after(&mut Studio::default(), &[("us", "panda0"), ("printer", "")]), "printer");
    // A printer that was added by address takes the serial number of its first announcement.
    let mut added = Studio::default();
    added.add_by_address("S", "us");
    assert_eq!(after(&mut added, &[("us", "panda0"), ("printer", "wlan0")]), "printer");
    assert_eq!(after(&mut added, &[("us", "panda0")]), "printer");
    assert_eq!(after(&mut added, &[("us", "")]), "us");
    assert_eq!(after(&mut added, &[("printer", "wlan0")]), "printer");
}
