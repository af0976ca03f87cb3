//! Viewers of the chamber camera and players of the RTSPS camera. Each compares what it receives with what
//! the camera sent.

use core::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::io::{Empty, empty};

use crate::clients::rtsp::{Assembly, Client, Heard, Response, Scheme};
use crate::lan::rtsp::{URL, number};
use crate::notes::{note, promise};
use crate::talk::Party;
use printer::Camera;
use printer::camera::login;
use printer::picture_number;
use printer::rtsp::Rtsp;

const RIGHT: &str = "12345678";
const WRONG: &str = "87654321";

/// A viewer of the chamber camera.
pub(crate) struct Viewer {
    name: u32,
    camera: Camera,
    knows_the_code: bool,
    inbox: Vec<u8>,
    last: Option<u32>,
    pub(crate) pictures: u32,
}

impl Viewer {
    /// A new client, and the bytes that it begins with.
    pub(crate) fn new(name: u32, camera: &Camera, knows_the_code: bool) -> (Self, Vec<u8>) {
        let camera = camera.clone();
        let viewer =
            Self { name, camera, knows_the_code, inbox: Vec::new(), last: None, pictures: 0 };
        (viewer, login(if knows_the_code { RIGHT } else { WRONG }).to_vec())
    }

    /// Ends the connection: a viewer with a wrong code must have seen no picture.
    pub(crate) fn finish(&self) {
        if !self.knows_the_code {
            promise("chamber: a wrong code sees nothing", self.pictures == 0, || {
                format!("viewer {} does not know the code and saw a picture", self.name)
            });
        }
    }

    fn sees(&mut self, picture: &[u8]) {
        self.pictures += 1;
        let number = picture_number(picture);
        let whole = number.is_some_and(|number| *self.camera.picture(number) == *picture);
        let newer = self.last.is_none_or(|last| number.is_some_and(|number| last < number));
        promise(
            "chamber: a picture is the camera's to the byte, and newer than the one before",
            whole && newer,
            || format!("viewer {}: {number:?} after {:?}, whole: {whole}", self.name, self.last),
        );
        self.last = number;
    }
}

impl Party for Viewer {
    fn hears(&mut self, bytes: &[u8], _says: &mut VecDeque<u8>) {
        self.inbox.extend(bytes);
        while let Some(head) = self.inbox.first_chunk::<16>() {
            let ours = head[4..] == *b"\0\0\0\0\x01\0\0\0\0\0\0\0";
            let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
            if !ours || len > 1 << 20 {
                let head = *head;
                promise(
                    "chamber: a picture is the camera's to the byte, and newer than the one before",
                    false,
                    || format!("viewer {}: a head of {head:?}", self.name),
                );
                return;
            }
            let Some(picture) = self.inbox.get(16..16 + len) else { return };
            let picture = picture.to_vec();
            self.inbox.drain(..16 + len);
            self.sees(&picture);
        }
    }
}

/// A player's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Describe,
    Setup,
    Play,
    Watches,
    Refused,
}

/// A player of the RTSPS camera.
pub(crate) struct Player {
    name: u32,
    camera: Rtsp,
    knows_the_code: bool,
    client: Client<Empty>,
    step: Step,
    assembly: Assembly,
    last: Option<u64>,
    /// Starts of the camera so far, now and at the last picture.
    reboots: (Rc<Cell<u32>>, u32),
    pub(crate) pictures: u32,
}

impl Player {
    /// A new client, and the bytes that it begins with.
    pub(crate) fn new(
        name: u32,
        camera: &Rtsp,
        reboots: &Rc<Cell<u32>>,
        knows_the_code: bool,
    ) -> (Self, Vec<u8>) {
        let code = if knows_the_code { RIGHT } else { WRONG };
        let mut client = Client::over(empty()).knowing(Scheme::Basic, code);
        let first = client.written("DESCRIBE", URL, "Accept: application/sdp\r\n");
        let player = Self {
            name,
            camera: camera.clone(),
            knows_the_code,
            client,
            step: Step::Describe,
            assembly: Assembly::default(),
            last: None,
            // The stream may have restarted just now, and earlier packets may still be in flight.
            reboots: (Rc::clone(reboots), reboots.get().saturating_sub(1)),
            pictures: 0,
        };
        (player, first)
    }

    fn is_answered(&mut self, response: &Response, says: &mut VecDeque<u8>) {
        let status = response.status;
        if self.step == Step::Describe {
            note(format_args!("player {}: {status}", self.name));
        }
        if !self.knows_the_code {
            promise("rtsp: a wrong code is refused", status == 401, || {
                format!("player {}: {status}", self.name)
            });
        }
        if status != 200 {
            self.step = Step::Refused;
            return;
        }
        self.step = match self.step {
            Step::Describe => {
                self.client.takes_track(response, URL);
                let transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
                let track = self.client.track.clone();
                says.extend(self.client.written("SETUP", &track, transport));
                Step::Setup
            }
            Step::Setup => {
                self.client.session = response.session().map(str::to_owned);
                says.extend(self.client.written("PLAY", URL, "Range: npt=0.000-\r\n"));
                Step::Play
            }
            Step::Play | Step::Watches => Step::Watches,
            Step::Refused => Step::Refused,
        };
    }

    /// Whether PLAY was answered with 200.
    pub(crate) fn watches(&self) -> bool {
        self.step == Step::Watches
    }

    /// Sends a keep-alive.
    pub(crate) fn keeps_alive(&mut self) -> Vec<u8> {
        if self.step != Step::Watches {
            return Vec::new();
        }
        self.client.written("GET_PARAMETER", URL, "")
    }

    fn sees(&mut self, packet: &[u8]) {
        let Some(picture) = self.assembly.take(packet) else { return };
        self.pictures += 1;
        // Stops the run unless the bytes are the camera's.
        let number = number(&self.camera, &picture);
        if self.reboots.1 != self.reboots.0.get() && self.last.is_some_and(|last| last >= number) {
            // Sequence numbers restart with a new session.
            self.reboots.1 += 1;
            self.last = None;
        }
        let newer = self.last.is_none_or(|last| last < number);
        promise(
            "rtsp: a picture is the camera's to the byte, and newer than the one before",
            newer && self.knows_the_code,
            || format!("player {}: {number} after {:?}", self.name, self.last),
        );
        if self.last.is_none_or(|last| last + 1 != number) {
            promise(
                "rtsp: after a loss a player continues with a key frame",
                picture.is_key(),
                || format!("player {}: {number} after {:?}", self.name, self.last),
            );
        }
        self.last = Some(number);
    }
}

impl Party for Player {
    fn hears(&mut self, bytes: &[u8], says: &mut VecDeque<u8>) {
        self.client.demand(bytes);
        while let Some(heard) = self.client.parsed() {
            match heard {
                Heard::Response(response) => self.is_answered(&response, says),
                Heard::Frame(frame) if frame.channel == 0 => self.sees(&frame.bytes),
                Heard::Frame(_) | Heard::Request(_) | Heard::End => {}
            }
        }
    }
}
