//! The catalogue of causes: why something does not work, and what a user can do about it.
//!
//! One cause has one text, one hint and one anchor. The log's messages, `pandaproxy check` and the services' status have
//! their texts from here; `boards/TROUBLESHOOTING.md` is made from it, with a heading for each anchor.

use core::fmt;

/// Why something does not work. `Display` is `TEXT; HINT`, with `…` in the place of the text's argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Heading in the troubleshooting page.
    pub anchor: &'static str,
    /// What is wrong. `{}` stands for an argument.
    pub text: &'static str,
    /// What to do.
    pub hint: &'static str,
}

/// Makes the catalogue: name, anchor, text, hint, and what the page says beside them.
macro_rules! causes {
    ($($name:ident $anchor:literal $text:literal, $hint:literal, $page:literal;)*) => {
        impl Cause {
            $(#[doc = $text]
            pub const $name: Self = Self { anchor: $anchor, text: $text, hint: $hint };)*

            /// Every cause.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Every cause, and what the troubleshooting page says beside text and hint. The program does not use it, so
            /// that it is not in the binary.
            pub const PAGE: &'static [(Self, &'static str)] = &[$((Self::$name, $page)),*];
        }
    };
}

causes! {
    SETTINGS "settings" "the settings are not accepted",
        "correct the setting that the message names",
        "The file of settings is `/etc/pandaproxy/pandaproxy.conf`, or the one of `--config`. Only root and the service's user \
         can read it: run `pandaproxy check` with `sudo`.";
    SERIAL_SHAPE "serial-shape" "the serial number has {} characters, a printer's has 15",
        "compare it with the one on the printer's screen",
        "A serial number that is cut or mistyped is refused by the printer: its certificate has the right one.";
    CODE_SHAPE "code-shape" "the access code has {} characters, a printer's has 8",
        "compare it with the one on the printer's screen",
        "The access code is shown at *Settings > Network* (older firmware: *Settings > General > LAN Only*).";
    MODEL_UNKNOWN "model-unknown" "no known model has serial numbers that begin with {}",
        "compare the serial number with the printer's; a new model is served as it shows itself",
        "The first three characters of a serial number name the model. A new main board changes the serial number: the \
         printer's screen counts, not its sticker.";
    PORT_TAKEN "port-taken" "port {} is in use by another program",
        "end it, choose another port (--port) or address (--bind), or leave its service out of --services",
        "Home Assistant's Mosquitto add-on has 8883, Grafana and AdGuard Home have 3000. Slicers need the printer's own ports: \
         give the other program another port, or this machine a second address and `BIND_ADDRESS`.";
    ONE_ADDRESS "one-address" "port {} is in use by another proxy of this machine",
        "give each printer an address of its own (BIND_ADDRESS)",
        "Slicers know fixed ports, so the proxies of several printers have the same ports at an address each, the first one too: \
         without `BIND_ADDRESS` a proxy has all addresses. boards/README.md (*Several printers*) says how a machine gets a second \
         one.";
    PORT_PRIVILEGE "port-privilege" "port {} is below 1024",
        "start as a service that has CAP_NET_BIND_SERVICE, or choose another port with --port",
        "The systemd unit has this capability. A program started by hand needs root.";
    NO_ADDRESS "no-address" "this machine does not have the address {}",
        "correct BIND_ADDRESS, or give this machine the address",
        "The service waits for its address; until the network has it no client can connect.";
    BRIDGED "bridged" "this container has a network of its own",
        "use the host's network, or set ADVERTISE_IP to the host's address",
        "Broadcasts do not leave a container's bridge, so slicers find no printer, and the address inside it is of no use to \
         clients.";
    NO_SUCH_NAME "no-such-name" "the printer's name cannot be resolved",
        "give its address instead",
        "The router does not know the name. Give the printer a fixed address in the router and use that.";
    ITSELF "itself" "the printer's address {} is this machine: the proxy would connect to itself",
        "give the printer's own address",
        "`PRINTER_IP` is the printer's address; slicers get the address of this machine.";
    PRINTER_OFF "printer-off" "the printer does not answer",
        "is it switched on, and is this its address?",
        "The printer's screen shows its address under *Settings > Network*. `pandaproxy check` tells a printer that is off \
         from a port that is filtered.";
    PORT_CLOSED "port-closed" "the printer's port {} is closed",
        "it is still starting, or LAN mode is off",
        "Something answers at the address and refuses the port. Switch on *LAN Only Mode*; after a start the ports open within \
         two minutes. If it stays so, the address may be another device's.";
    PORT_FILTERED "port-filtered" "no answer from the printer's port {}",
        "is the printer on, and does a firewall or another network (VLAN) drop its packets?",
        "If some ports answer and others do not, a firewall is between. If none does, the printer is off or elsewhere.";
    UNREACHABLE "unreachable" "the printer's network is unreachable",
        "compare its address with this machine's networks",
        "This machine has no route to the address: the address is wrong, or the machine's network is not connected.";
    NO_HANDSHAKE "no-handshake" "the printer does not answer the TLS handshake",
        "other programs may hold all its connections: close them or restart the printer",
        "A printer accepts one to four connections. Programs that were switched off without a goodbye may hold theirs for \
         hours: restart the printer, and connect other programs to the proxy.";
    NOT_TLS "not-tls" "TLS handshake failed",
        "is this address a printer?",
        "Another device has the printer's address, or the printer is starting.";
    WRONG_SERIAL "wrong-serial" "issued to printer {}",
        "correct --serial-number or --printer-ip",
        "The certificate has the serial number of the printer that answers. Either the address is that of another printer, or \
         the setting is wrong. A repaired printer may have a new number.";
    UNKNOWN_AUTHORITY "unknown-authority" "signed by an unknown authority",
        "give the authority with --printer-ca",
        "The device is no printer, or its firmware has a new authority of Bambu Lab's.";
    CERTIFICATE "certificate" "the printer's certificate is rejected",
        "is this address a printer? See the line for the reason",
        "The line names the reason. A man in the middle is possible; an expired certificate may be this machine's date.";
    FIRST_USE "first-use" "signed by an authority that is not built in",
        "the service pins it when it first connects",
        "Models whose authority is not published are trusted on first use: the file `pins` in the state directory has the \
         certificate from then on.";
    INSECURE "insecure" "the printer's certificate is not verified",
        "remove INSECURE_PRINTER",
        "Without verification any device in the network can pose as the printer and learn the access code.";
    CLOCK "clock" "this machine's clock is not set",
        "let it reach a time server; until then expiry is not checked",
        "Boards without a battery start in 1970.";
    WRONG_CODE "wrong-code" "the printer refuses the access code",
        "compare it with the one on the printer's screen (it changes when LAN mode is switched)",
        "The printer makes a new access code when LAN mode is switched or its network is reset.";
    SLOTS_FULL "slots-full" "closed before the printer answered",
        "other programs may hold all its connections",
        "Connect Home Assistant, slicers and panels to the proxy instead of the printer, then restart the printer.";
    NO_CONNACK "no-connack" "no answer from the printer's broker in {} s",
        "other programs may hold all its connections: close them or restart the printer",
        "The printer took the connection and does not answer the login: its connections are in use, or it hangs.";
    BROKER "broker" "the printer's broker ended the session",
        "see the line for the reason, and restart the printer if it stays so",
        "The login did not come to an end.";
    SUBSCRIPTION "subscription" "the printer's broker refuses the subscription",
        "is this the printer's serial number?",
        "A1 and P1 close the connection over the topic of another serial number.";
    NO_REPORT "no-report" "logged in, but no report came in {} s",
        "restart the printer",
        "The broker answers and the printer's program does not: a hanging printer, or one whose serial number differs in the \
         topic.";
    DEVELOPER_MODE "developer-mode" "the printer's Developer Mode is off",
        "if light works but pause and print do not, switch it on at the printer",
        "With Developer Mode off the printer obeys signed commands only: Bambu Studio signs them, most other programs do not.";
    LIVE_VIEW "rtsps-off" "the RTSPS camera (port 322) does not answer",
        "switch on LAN live view at the printer",
        "X1, P2S, X2D and H2 have it under *Settings > General* or *Network*.";
    CHAMBER_DARK "chamber-dark" "the chamber camera (port 6000) accepts the login and sends no picture",
        "live view may be switched off, or other programs hold its connections",
        "The camera serves one or two programs. Close others, or restart the printer.";
    CHAMBER_BUSY "chamber-busy" "the chamber camera (port 6000) closes after the login",
        "it is starting, or other programs hold its connections (the access code is right)",
        "Another service of the printer accepts the access code, so it is right.";
    CHAMBER_CODE "chamber-code" "the chamber camera (port 6000) closes after the login",
        "the access code may be wrong or have changed: see the printer's screen",
        "No other service of the printer was logged in to, so the access code may be wrong or have changed.";
    NO_CAMERA "no-camera" "the printer has no camera on ports 6000 and 322",
        "it is still starting, or LAN mode is off",
        "Both ports are closed.";
    CAMERA "camera" "the printer's camera shows no picture",
        "see the line for the reason; close other programs that use it, or restart the printer",
        "The camera answers, and does not come as far as a picture.";
    FILES_BUSY "files-busy" "the printer's FTP server is busy",
        "do other programs use its sessions?",
        "A1 and P1 have one FTP session. Slicers hold it for as long as they run: connect them to the proxy.";
    FILES "files" "the printer's FTP server does not list its files",
        "see the line for the reason; is a storage card in the printer?",
        "The login worked. Without a card some models refuse a listing; a firewall may drop the data port (A1, P1: 2024 and \
         above, others: 50000 to 50100).";
    NOT_OURS "not-ours" "another program answers at the advertised address {}",
        "does a second proxy or another host have this address?",
        "The certificate there is not signed by this proxy's authority. Clients that trust the authority refuse it.";
    NOT_REACHED "not-reached" "this service is not reached at the advertised address {}",
        "correct ADVERTISE_IP, or open the port in the firewall",
        "Clients are sent to this address. `ADVERTISE_IP` has to be an address of this machine, or of the container's host.";
    NO_OWN_ADDRESS "no-own-address" "no address is known at which clients reach this machine",
        "connect it to its network, or give the address with ADVERTISE_IP",
        "Each client is given the address that it has connected to, or `ADVERTISE_IP`. This machine has no IPv4 address in a network \
         with broadcasts, and no way out of it.";
    OTHER_PROXY "other-proxy" "another proxy at {} announces this printer",
        "slicers take turns between the two: set ANNOUNCE=off at one",
        "Slicers take the address that they hear last. Stop one of the two, or give them different printers.";
    ANNOUNCED_ELSEWHERE "announced-elsewhere" "the printer announces itself at {}, which is not the configured address",
        "correct PRINTER_IP, and give the printer a fixed address in the router",
        "The service follows a printer that proves its identity; the setting is still worth correcting.";
    CLOUD_MODE "cloud-mode" "the printer announces that it is in cloud mode",
        "switch on LAN Only Mode at the printer",
        "In cloud mode some firmware refuses local logins, and slicers do not offer it as a LAN printer.";
    UNHEARD "unheard" "no announcement of the printer was heard",
        "is the printer in another network, or does the network block broadcasts?",
        "Printers announce themselves every five seconds by broadcast on UDP 2021. The service works without; only its address \
         is not followed.";
    STATE_DIR "state-dir" "the state directory {} cannot be written",
        "see its owner, and whether the disk is full or read-only",
        "Certificates are made there at the first start. One with certificates in it serves all the same.";
    DISK_SPACE "disk-space" "the disk has only {} left",
        "free some space: df -h shows what is full",
        "The state directory takes half a MiB at most: certificates, keys and pins. An update needs room for the new program and for \
         the old one, which is kept; without it the update is refused, and the old program serves on.";
    DISK_FILES "disk-files" "the disk takes only {} more files",
        "remove small files: df -i shows what is full",
        "A file system has a fixed number of files, and may have used them up while space is left. Certificates, keys and pins are a \
         file each.";
    MEMORY "memory" "no more than {} of memory are available",
        "choose the build of a smaller board, or end other programs",
        "`pandaproxy --budget` prints what this build may need.";
    OPEN_FILES "open-files" "at most {} files may be open",
        "raise LimitNOFILE of the unit, or ulimit -n",
        "Each connection is an open file.";
    CLIENT_TRUST "client-trust" "proxy's certificate not trusted",
        "import the authority that `sudo pandaproxy ca` prints into the client",
        "The README's *Connect programs* says how for each program. A slicer's update removes it again.";
    CLIENT_NAME "client-name" "it asks for {}, a name that the proxy's certificate does not have",
        "add it with --advertise-name, or connect to another name or address of this machine",
        "The certificate has this machine's own names and addresses; a name of the router's or of a VPN has to be added.";
    CLIENT_CODE "client-code" "wrong access code",
        "give the client the printer's access code",
        "Clients need the same access code as for the printer. Five wrong ones in a minute lock an address out for a minute.";
    CLIENT_SLOTS "client-slots" "all {} slots are in use",
        "close clients that are not used, or take the build of a larger board",
        "`pandaproxy --limits` prints how many clients each service of this build has.";
    STATUS_OFF "status-off" "the service is running: the printer is not asked a second time",
        "see its log; with http among its --services its status is shown here",
        "A second login would take one of the printer's few connections. Where the service answers HTTP, its status is asked \
         instead; else stop the service for a full check.";
    HIDDEN "hidden" "port {} is held by a program of another user",
        "run pandaproxy check with sudo: root sees whether that is the service, or else which program",
        "Only root, and the service's own user, can tell the running service from another program. It may be the service: the \
         printer is not asked a second time.";
}

impl Cause {
    /// The text with this argument in it, and the hint.
    pub fn with<T: fmt::Display>(self, argument: T) -> With<T> {
        With { cause: self, argument }
    }

    /// The cause whose text is in these words, whatever stands in the place of its argument. What stands behind `; ` is a hint.
    pub fn of(words: &str) -> Option<Self> {
        let words = words.split("; ").next().unwrap_or(words);
        // The last one in `EVENT: CAUSE`, and the longest: one may begin as another one does.
        let place = |cause: &&Self| {
            let mut pieces = cause.text.split("{}");
            let at = words.rfind(pieces.next()?)?;
            pieces.all(|piece| words.contains(piece)).then_some((at, cause.text.len()))
        };
        let found = Self::ALL.iter().filter_map(|cause| Some((place(&cause)?, cause)));
        found.max_by_key(|(place, _)| *place).map(|(_, cause)| *cause)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with("…").fmt(f)
    }
}

/// A cause with its argument. `Display` is `TEXT; HINT`, `{:#}` is `TEXT` alone.
#[derive(Clone, Copy, Debug)]
pub struct With<T> {
    /// The cause.
    pub cause: Cause,
    argument: T,
}

impl<T: fmt::Display> fmt::Display for With<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cause { text, hint, .. } = self.cause;
        match text.split_once("{}") {
            Some((before, after)) => write!(f, "{before}{}{after}", self.argument)?,
            None => f.write_str(text)?,
        }
        if f.alternate() { Ok(()) } else { write!(f, "; {hint}") }
    }
}

/// Each cause once, with a typical argument.
#[cfg(test)]
pub(crate) fn samples() -> alloc::vec::Vec<alloc::string::String> {
    Cause::ALL.iter().map(|cause| alloc::format!("{}", cause.with("8883"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn each_cause_has_one_anchor_and_one_text() {
        for (at, cause) in Cause::ALL.iter().enumerate() {
            for other in Cause::ALL.iter().skip(at + 1) {
                assert_ne!(cause.anchor, other.anchor);
                let is_same = (cause.text, cause.hint) == (other.text, other.hint);
                assert!(!is_same, "{}", cause.anchor);
            }
            let is_anchor = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(cause.anchor.chars().all(is_anchor), "{}", cause.anchor);
            assert!(!cause.text.contains("; "), "{}", cause.anchor);
        }
    }

    #[test]
    fn each_cause_is_used() {
        use std::{fs, path::Path};
        fn texts(dir: &Path, all: &mut alloc::string::String) {
            for entry in fs::read_dir(dir).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    texts(&path, all);
                } else if !path.ends_with("cause.rs") {
                    all.push_str(&fs::read_to_string(path).unwrap_or_default());
                }
            }
        }
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let (own, mut others) = (fs::read_to_string(src.join("cause.rs")).unwrap(), "".into());
        texts(&src, &mut others);
        for cause in Cause::ALL {
            let anchor = alloc::format!(" \"{}\" \"", cause.anchor);
            let name =
                own.lines().find_map(|line| line.trim_start().split_once(&anchor)).unwrap().0;
            assert!(others.contains(&alloc::format!("Cause::{name}")), "{name}");
        }
    }

    #[test]
    fn a_message_leads_to_its_cause() {
        for cause in Cause::ALL {
            let message = alloc::format!("mqtt: printer connection lost: {}", cause.with("8883"));
            let found = Cause::of(&message).map(|found| found.text);
            assert_eq!(found, Some(cause.text), "{message}");
        }
        assert_eq!(Cause::of("client disconnected"), None);
        assert_eq!(
            Cause::PORT_CLOSED.with(990).to_string().split("; ").next(),
            Some("the printer's port 990 is closed")
        );
    }
}
