//! A world: a printer, the proxy, and clients of both, with the random faults of a seed. Each step is one
//! action, drawn by weight, and a pause. After each step every promise is checked; at the end everything has
//! to become idle.

use core::cell::Cell;
use core::time::Duration;
use std::rc::Rc;

use pandaproxy::board::BOARD;
use pandaproxy::ftp::upstream::STORED_TIMEOUT;
use pandaproxy::runtime::files::transfer::STALL_TIMEOUT;
use pandaproxy::runtime::stream::{PRINTER_WRITE_TIMEOUT, WRITE_TIMEOUT};
use pandaproxy::service::Service as _;
use tokio::task::spawn_local;
use tokio::time::{Instant, advance, sleep};

use crate::cameras::{Player, Viewer};
use crate::detect;
use crate::files::{FILM, Filer, Ledger, Surroundings};
use crate::lan::net::SimNet;
use crate::lan::weather::{Chance, Line, Net, Sky};
use crate::lan::{CODE, ms, secs};
use crate::mqtt::{Code, Reader, Truth};
use crate::notes::{broken, note, promise};
use crate::proxy::{At, CHAMBER, DETECT, FTP, MQTT, Port, Proxy, RTSP, SHARES, Store, allowed};
use crate::share::Share;
use crate::talk::{Leave, Mood, Talk};
use printer::ftp::{Family, FileServer, Quirk as FileVice};
use printer::rtsp::{Media, Rtsp};
use printer::{Camera, Model, Printer, Quirk};

/// Actions of a run.
const ACTIONS: usize = 60;

/// How long the proxy may keep a connection after it could know that the peer has disconnected: it may be
/// in the middle of a piece of output, and of closing.
const LET_GO_TIMEOUT: Duration =
    Duration::from_secs(6 * WRITE_TIMEOUT.as_secs() + WRITE_TIMEOUT.as_secs() + 2);

/// How long recovery may take once faults have stopped: the longest wait between two attempts to reach the
/// printer, and a margin.
const WELL_TIMEOUT: Duration = Duration::from_secs(420);

/// The clients, each with its connection.
type There<T> = Vec<(u32, Rc<Line>, Rc<T>)>;

struct Mqtt {
    printer: Printer,
    truth: Rc<Truth>,
    port: Port,
    readers: There<Talk<Reader>>,
    /// Clients that have lost their connection and have something to resend, with what they begin again with.
    lost: Vec<(u32, (Reader, Vec<u8>))>,
}

/// What the printer has on 6000 or 322.
enum Eye {
    Chamber { camera: Camera, viewers: There<Talk<Viewer>> },
    Rtsp { camera: Rtsp, players: There<Talk<Player>>, reboots: Rc<Cell<u32>> },
}

struct Cameras {
    eye: Eye,
    ports: [Port; 2],
}

struct Storage {
    around: FileServer,
    ledger: Rc<Ledger>,
    port: Port,
    filers: There<Filer>,
}

pub(crate) struct World {
    chance: Chance,
    net: Net,
    /// Between the proxy and the printer.
    line: Rc<Line>,
    /// The network that the proxy is on.
    own: SimNet,
    proxy: Proxy,
    mqtt: Mqtt,
    cameras: Cameras,
    storage: Option<Storage>,
    started: [usize; SHARES.len()],
    number: u32,
    slept: Option<(Instant, Duration)>,
}

impl World {
    /// A world without clients; the printer is off.
    pub(crate) async fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let net = Net::new(chance.child());
        let line = Line::new(Sky::default());
        let own = SimNet::new();
        let model = chance.of(&[Model::P1S, Model::A1Mini, Model::P1S, Model::X1C, Model::H2D]);
        note(format_args!("a {model:?}"));
        let small = matches!(model, Model::P1S | Model::A1Mini);
        let mqtt = Mqtt::new(model, &net, &own, &line, &mut chance);
        let cameras = Cameras::new(small, &net, &own, &line);
        let storage = small.then(|| Storage::new(&net, &own, &line, &mut chance));
        let proxy = Proxy::start(&own, model, small);
        let mut world = Self {
            chance,
            net,
            line,
            own,
            proxy,
            mqtt,
            cameras,
            storage,
            started: [0; SHARES.len()],
            number: 0,
            slept: None,
        };
        world.each_port(|port| port.is(At::Off));
        sleep(secs(1)).await;
        world.started = world.held();
        world.each_port(|port| port.is(At::Open));
        if !small {
            world.cameras.ports[0].is(At::Closed);
        }
        world
    }

    /// Heap bytes of each share of the proxy.
    fn held(&self) -> [usize; SHARES.len()] {
        self.proxy.shares.each_ref().map(Share::now)
    }

    fn is_small(&self) -> bool {
        self.storage.is_some()
    }

    fn each_port(&self, act: impl Fn(&Port)) {
        act(&self.mqtt.port);
        self.cameras.ports.iter().for_each(&act);
        self.storage.iter().for_each(|storage| act(&storage.port));
    }

    /// Runs to the end; returns the broken promise, if any.
    pub(crate) async fn run(mut self) -> Result<(), String> {
        for _ in 0..ACTIONS {
            self.act();
            self.pass().await;
            self.check()?;
        }
        self.calms_down().await?;
        self.ends().await
    }

    async fn pass(&mut self) {
        let chance = &mut self.chance;
        match chance.below(100) {
            0..60 => sleep(chance.ms(300)).await,
            60..88 => sleep(chance.ms(3000)).await,
            88..96 => sleep(chance.ms(15_000)).await,
            96..98 => sleep(chance.ms(60_000)).await,
            _ => {
                // The machine sleeps, and its clock has jumped when it wakes.
                let time = chance.ms(90_000);
                note(format_args!("sleeps for {time:?}"));
                self.slept = Some((Instant::now() + time, time));
                advance(time).await;
                sleep(ms(10)).await;
            }
        }
    }

    // ---- what happens -----------------------------------------------------------------------------

    fn act(&mut self) {
        match self.chance.below(100) {
            0..14 => self.joins(),
            14..26 => self.commands(),
            26..30 => self.asks(),
            30..38 => self.printer_talks(),
            38..44 => self.watches(),
            44..51 => self.wants_files(),
            51..57 => self.moods(),
            57..60 => self.detects(),
            60..70 => self.leaves(),
            70..80 => self.weather(),
            80..88 => self.wires_end(),
            88..95 => self.printer_fails(),
            _ => self.cameras_fail(),
        }
    }

    fn number(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    fn mood(&mut self) -> Mood {
        match self.chance.below(8) {
            0 => Mood::Deaf,
            1 => Mood::Slow(self.chance.of(&[1, 50, 1000, 4000])),
            _ => Mood::Keen,
        }
    }

    fn sky(&mut self) -> Sky {
        if self.chance.once_in(2) { Sky::default() } else { Sky::drawn(&mut self.chance) }
    }

    fn joins(&mut self) {
        let (number, sky, mood) = (self.number(), self.sky(), self.mood());
        let code = if self.chance.once_in(10) { Code::Wrong } else { Code::Right };
        note(format_args!("client {number} joins: {code:?}, {mood:?}, {sky:?}"));
        let line = Line::new(sky);
        let room = self.chance.of(&[2048, 16 * 1024, 64 * 1024]);
        let (near, far) = self.net.wire("mqtt: a client", &line, room);
        self.proxy.arrive(MQTT, self.mqtt.truth.overhears_a_client(near));
        let topic = self.mqtt.printer.request_topic();
        let again = self.mqtt.lost.pop().filter(|_| self.chance.once_in(2));
        let (reader, first) = match again {
            Some((number, again)) => {
                note(format_args!("it is client {number} again, and resends"));
                again
            }
            None => Reader::new(number, code, &self.mqtt.truth, topic),
        };
        self.mqtt.readers.push((number, line, Talk::begin(reader, &first, mood, far)));
    }

    fn commands(&mut self) {
        let count = self.mqtt.readers.len();
        if count == 0 {
            return;
        }
        let (number, _, talk) = &self.mqtt.readers[self.chance.below(count as u64) as usize];
        let times = 1 + self.chance.below(8);
        note(format_args!("client {number} sends {times} commands"));
        for _ in 0..times {
            let (qos, size) = (self.chance.of(&[0, 1, 1, 2]), self.chance.of(&[0, 300, 3000]));
            let bytes = talk.party.borrow_mut().command(qos, size);
            talk.say(&bytes);
        }
    }

    fn asks(&mut self) {
        let count = self.mqtt.readers.len();
        if count == 0 {
            return;
        }
        let (number, _, talk) = &self.mqtt.readers[self.chance.below(count as u64) as usize];
        let what = self.chance.of(&[
            r#"{"pushing":{"sequence_id":"7","command":"pushall"}}"#,
            r#"{"info":{"sequence_id":"8","command":"get_version"}}"#,
            r#"{"pushing":{"sequence_id":"9","command":"stop"}}"#,
        ]);
        note(format_args!("client {number} asks {what}"));
        let bytes = talk.party.borrow_mut().asks(what);
        talk.say(&bytes);
    }

    fn printer_talks(&mut self) {
        let printer = &self.mqtt.printer;
        let what = match self.chance.below(10) {
            0..5 => ("deltas", (0..=self.chance.below(6)).map(|_| printer.delta()).max()),
            5..8 => ("full", Some(printer.full())),
            8 => ("large", Some(printer.large(30_000))),
            _ => ("too large", Some(printer.large(60_000))),
        };
        note(format_args!("the printer tells: {what:?}"));
    }

    fn watches(&mut self) {
        let (number, sky, mood) = (self.number(), self.sky(), self.mood());
        let knows = !self.chance.once_in(10);
        note(format_args!("{number} watches: {knows}, {mood:?}, {sky:?}"));
        let line = Line::new(sky);
        let room = self.chance.of(&[4096, 64 * 1024]);
        match &mut self.cameras.eye {
            Eye::Chamber { camera, viewers, .. } => {
                let (near, far) = self.net.wire("chamber: a viewer", &line, room);
                self.proxy.arrive(CHAMBER, near);
                let (viewer, first) = Viewer::new(number, camera, knows);
                viewers.push((number, line, Talk::begin(viewer, &first, mood, far)));
            }
            Eye::Rtsp { camera, players, reboots, .. } => {
                let (near, far) = self.net.wire("rtsp: a player", &line, room);
                self.proxy.arrive(RTSP, near);
                let (player, first) = Player::new(number, camera, reboots, knows);
                players.push((number, line, Talk::begin(player, &first, mood, far)));
            }
        }
    }

    fn wants_files(&mut self) {
        let (number, sky) = (self.number(), self.sky());
        let (knows, chance) = (!self.chance.once_in(10), self.chance.child());
        let Some(storage) = &mut self.storage else { return };
        note(format_args!("filer {number} comes: {knows}, {sky:?}"));
        let line = Line::new(sky);
        let (near, far) = self.net.wire("ftp: a client", &line, 4096);
        let from = self.proxy.arrive(FTP, near);
        let around = Surroundings {
            net: self.net.clone(),
            own: self.own.clone(),
            from,
            line: Rc::clone(&line),
            server: storage.around.clone(),
            ledger: Rc::clone(&storage.ledger),
        };
        storage.filers.push((number, line, Filer::begin(number, knows, around, far, chance)));
    }

    fn detects(&mut self) {
        let (number, sky, asks) = (self.number(), self.sky(), self.chance.of(&detect::ALL));
        note(format_args!("{number} asks detect: {asks:?}, {sky:?}"));
        let line = Line::new(sky);
        let (near, far) = self.net.wire("detect: a client", &line, 1024);
        self.proxy.arrive(DETECT, near);
        spawn_local(detect::ask(number, asks, self.mqtt.printer.serial(), line, far));
    }

    fn moods(&mut self) {
        let mood = self.mood();
        let at = self.chance.below(64) as usize;
        let of = |count: usize| if count == 0 { None } else { Some(at % count) };
        let number = match &self.cameras.eye {
            Eye::Chamber { viewers, .. } if at.is_multiple_of(3) => {
                of(viewers.len()).map(|at| (viewers[at].0, viewers[at].2.is(mood)))
            }
            Eye::Rtsp { players, .. } if at.is_multiple_of(3) => {
                of(players.len()).map(|at| (players[at].0, players[at].2.is(mood)))
            }
            Eye::Chamber { .. } | Eye::Rtsp { .. } => {
                let readers = &self.mqtt.readers;
                of(readers.len()).map(|at| (readers[at].0, readers[at].2.is(mood)))
            }
        };
        note(format_args!("{number:?} is {mood:?}"));
    }

    fn leaves(&mut self) {
        let chance = &mut self.chance;
        let how = chance.of(&[
            Leave::Said,
            Leave::Closes,
            Leave::Resets,
            Leave::Vanishes,
            Leave::Abandons,
        ]);
        let at = chance.below(64) as usize;
        let which = chance.below(4);
        let number = match (which, &self.cameras.eye, &self.storage) {
            (0, Eye::Chamber { viewers, .. }, _) if !viewers.is_empty() => {
                let (number, _, talk) = &viewers[at % viewers.len()];
                talk.leave(how);
                *number
            }
            (0, Eye::Rtsp { players, .. }, _) if !players.is_empty() => {
                let (number, _, talk) = &players[at % players.len()];
                talk.leave(how);
                *number
            }
            (1, _, Some(storage)) if !storage.filers.is_empty() => {
                let (number, _, filer) = &storage.filers[at % storage.filers.len()];
                filer.leave(how);
                *number
            }
            _ if !self.mqtt.readers.is_empty() => {
                let (number, _, talk) = &self.mqtt.readers[at % self.mqtt.readers.len()];
                if how == Leave::Said {
                    talk.say(&[0xe0, 0]);
                }
                talk.leave(how);
                *number
            }
            _ => return,
        };
        note(format_args!("{number} leaves: {how:?}"));
    }

    fn lines(&self) -> Vec<(u32, Rc<Line>)> {
        let mut lines: Vec<_> =
            self.mqtt.readers.iter().map(|(number, line, _)| (*number, Rc::clone(line))).collect();
        match &self.cameras.eye {
            Eye::Chamber { viewers, .. } => {
                lines.extend(viewers.iter().map(|(number, line, _)| (*number, Rc::clone(line))));
            }
            Eye::Rtsp { players, .. } => {
                lines.extend(players.iter().map(|(number, line, _)| (*number, Rc::clone(line))));
            }
        }
        for storage in self.storage.iter() {
            let filers = storage.filers.iter();
            lines.extend(filers.map(|(number, line, _)| (*number, Rc::clone(line))));
        }
        lines
    }

    /// A random quality of the printer's connection. Commands arrive whole, as they do in TLS records.
    fn printer_sky(&mut self) -> Sky {
        Sky { drips: false, sips: false, ..self.sky() }
    }

    fn weather(&mut self) {
        let out = self.chance.once_in(3).then(|| self.chance.ms(20_000));
        if self.chance.once_in(2) {
            let sky = self.printer_sky();
            note(format_args!("the printer's line: {sky:?}, out {out:?}"));
            self.line.turn(sky);
            out.iter().for_each(|out| self.line.out(*out));
            return;
        }
        let (lines, sky) = (self.lines(), self.sky());
        if lines.is_empty() {
            return;
        }
        let (number, line) = &lines[self.chance.below(lines.len() as u64) as usize];
        note(format_args!("the line of {number}: {sky:?}, out {out:?}"));
        line.turn(sky);
        out.iter().for_each(|out| line.out(*out));
    }

    fn wires_end(&mut self) {
        let what = self.chance.of(&[
            "mqtt: the printer",
            "mqtt: the printer",
            "camera: port 6000",
            "camera: port 322",
            "ftp: the printer",
            "ftp: data of the printer",
            "ftp: data of a client",
        ]);
        let silently = self.chance.once_in(3);
        let ended = self.net.end_all(what, silently);
        note(format_args!("{what}: {ended} ended, silently: {silently}"));
    }

    fn printer_fails(&mut self) {
        let printer = &self.mqtt.printer;
        let time = self.chance.ms(20_000);
        match self.chance.below(9) {
            0..3 => {
                note(format_args!("the printer reboots: {time:?}"));
                self.reboot(time);
            }
            3 => {
                note(format_args!("the printer cuts a report"));
                printer.cut();
            }
            4 => {
                note(format_args!("garbage"));
                printer.raw(printer::GARBAGE);
            }
            5 => self.turns(Quirk::HalfOpen, time),
            6 => self.turns(Quirk::NoPuback, 5 * time),
            7 => self.turns(Quirk::Silence, 3 * time),
            _ => {
                note(format_args!("the printer is off: {time:?}"));
                self.reboot(time);
                let ports = [&self.mqtt.port, &self.cameras.ports[1]].map(Clone::clone);
                for port in ports {
                    port.is(At::Off);
                    spawn_local(async move {
                        sleep(time).await;
                        port.is(At::Open);
                    });
                }
            }
        }
    }

    fn turns(&self, quirk: Quirk, time: Duration) {
        note(format_args!("the printer: {quirk:?} for {time:?}"));
        let printer = self.mqtt.printer.clone();
        printer.turn(quirk, true);
        spawn_local(async move {
            sleep(time).await;
            printer.turn(quirk, false);
            if quirk == Quirk::HalfOpen {
                // What it had to send meanwhile is lost; it sends all of it now.
                printer.full();
            }
        });
    }

    fn reboot(&self, time: Duration) {
        self.mqtt.printer.reboot(time);
        match &self.cameras.eye {
            Eye::Chamber { camera, .. } => camera.reboot(time),
            Eye::Rtsp { camera, reboots, .. } => {
                reboots.set(reboots.get() + 1);
                camera.reboot(time);
            }
        }
        self.storage.iter().for_each(|storage| storage.around.die(time));
    }

    fn cameras_fail(&mut self) {
        if let Some(storage) = &self.storage
            && self.chance.once_in(2)
        {
            let quirk = self.chance.of(&[
                FileVice::CutsControl(10_000),
                FileVice::CutsData(10_000),
                FileVice::Stalls(10_000),
                FileVice::FailsThoughComplete,
                FileVice::Truncates(10_000),
                FileVice::NoSpace(10_000),
                FileVice::BadName,
                FileVice::RefusesData,
            ]);
            note(format_args!("the file server: {quirk:?}"));
            storage.around.turn_for(quirk, 1);
            return;
        }
        let cuts = self.chance.once_in(2);
        note(format_args!("the camera closes, in the middle of something: {cuts}"));
        match &self.cameras.eye {
            Eye::Chamber { camera, .. } if cuts => camera.cut(),
            Eye::Chamber { camera, .. } => camera.close(),
            Eye::Rtsp { camera, .. } if cuts => camera.cut(),
            Eye::Rtsp { camera, .. } => camera.close(),
        }
    }

    // ---- invariants -------------------------------------------------------------------------------

    fn check(&mut self) -> Result<(), String> {
        let one = |name, what| {
            let held = self.net.held(what);
            promise(name, held <= 1, || format!("{held} of them"));
        };
        one("mqtt: one connection to the printer", "mqtt: the printer");
        if self.is_small() {
            one("chamber: one connection to the camera", "camera: port 6000");
            one("ftp: one session with the printer", "ftp: the printer");
        } else {
            one("rtsp: one connection to the camera", "camera: port 322");
        }
        let slept = self.slept.filter(|(at, _)| at.elapsed() < 2 * LET_GO_TIMEOUT);
        let within = LET_GO_TIMEOUT + slept.map_or(Duration::ZERO, |(_, time)| time);
        if self.net.bereft() > 0 {
            // A data connection waits for its command's turn, even if its client has disconnected.
            let overdue = self.net.overdue(|what| (!what.contains("data")).then_some(within));
            promise("a disconnected end is closed in time", overdue.is_none(), || {
                overdue.clone().unwrap_or_default()
            });
        }
        if self.net.waits() > 0 {
            let slept = within - LET_GO_TIMEOUT + secs(3);
            let stuck = self.net.stuck(|what| {
                let timeout = if what.contains("data") {
                    STALL_TIMEOUT
                } else if what.contains("the printer") || what.starts_with("camera") {
                    PRINTER_WRITE_TIMEOUT
                } else {
                    WRITE_TIMEOUT
                };
                slept + timeout
            });
            promise("an end that does not read is closed in time", stuck.is_none(), || {
                stuck.clone().unwrap_or_default()
            });
        }
        for (service, share) in SHARES.iter().zip(&self.proxy.shares) {
            let (peak, allowed) = (share.peak(), allowed(service));
            promise("the heap stays within the budget", peak <= allowed, || {
                format!("{service}: {peak} bytes, {allowed} are allowed")
            });
        }
        let lost = &mut self.mqtt.lost;
        self.mqtt.readers.retain(|(number, _, talk)| {
            let over = talk.is_over();
            if over && let Some(again) = talk.party.borrow().again() {
                lost.push((*number, again));
            }
            !over
        });
        match &mut self.cameras.eye {
            Eye::Chamber { viewers, .. } => viewers.retain(|(_, _, talk)| {
                let over = talk.is_over();
                if over {
                    talk.party.borrow().finish();
                }
                !over
            }),
            Eye::Rtsp { players, .. } => {
                players.retain(|(_, _, talk)| !talk.is_over());
                for (_, _, talk) in players.iter() {
                    let bytes = talk.party.borrow_mut().keeps_alive();
                    talk.say(&bytes);
                }
            }
        }
        for storage in self.storage.iter_mut() {
            storage.filers.retain(|(_, _, filer)| !filer.is_over());
        }
        match broken() {
            Some(broken) => Err(broken),
            None => Ok(()),
        }
    }

    /// Advances time until a condition holds; returns whether it does.
    async fn until(
        &mut self,
        within: Duration,
        is: impl Fn(&Self) -> bool,
    ) -> Result<bool, String> {
        let end = Instant::now() + within;
        while !is(self) {
            if Instant::now() >= end {
                return Ok(false);
            }
            sleep(ms(500)).await;
            self.check()?;
        }
        Ok(true)
    }

    /// Faults stop, the printer behaves, all clients read: everything has to recover.
    async fn calms_down(&mut self) -> Result<(), String> {
        note(format_args!("the weather clears"));
        self.line.turn(Sky::default());
        self.lines().iter().for_each(|(_, line)| line.turn(Sky::default()));
        for quirk in [Quirk::HalfOpen, Quirk::NoPuback, Quirk::Silence] {
            self.mqtt.printer.turn(quirk, false);
        }
        self.storage.iter().for_each(|storage| storage.around.turn(None));
        self.mqtt.readers.iter().for_each(|(_, _, talk)| talk.is(Mood::Keen));
        match &self.cameras.eye {
            Eye::Chamber { viewers, .. } => {
                viewers.iter().for_each(|(_, _, talk)| talk.is(Mood::Keen));
            }
            Eye::Rtsp { players, .. } => {
                players.iter().for_each(|(_, _, talk)| talk.is(Mood::Keen));
            }
        }
        // Clients that have vanished are found.
        for _ in 0..13 {
            sleep(secs(10)).await;
            self.check()?;
        }
        let live = self.until(WELL_TIMEOUT, |world| world.proxy.mqtt.is_live()).await?;
        promise(WELL, live, || "the printer is not connected to".to_owned());
        // New clients are served, and the earlier ones still are.
        self.late_comer();
        let printer = self.mqtt.printer.clone().quiet();
        sleep(secs(5)).await;
        printer.full();
        sleep(secs(10)).await;
        self.check()?;
        let truth = self.mqtt.truth.state();
        let mut heard = 0;
        for (number, _, talk) in &self.mqtt.readers {
            let reader = talk.party.borrow();
            if talk.is_keen() && reader.is_subscribed() {
                heard += 1;
                promise(WELL, reader.state() == truth && truth.is_some(), || {
                    let (heard, known) = (reader.heard(), reader.state().is_some());
                    format!("client {number} has heard {heard} reports and knows a state: {known}")
                });
            }
        }
        promise(WELL, heard > 0, || "no client has received a report".to_owned());
        self.pictures_come().await
    }

    fn late_comer(&mut self) {
        let number = self.number();
        let line = Line::new(Sky::default());
        let (near, far) = self.net.wire("mqtt: a client", &line, 64 * 1024);
        if self.mqtt.readers.len() >= BOARD.clients.mqtt {
            // A slot has to be free for it.
            self.mqtt.readers[0].2.leave(Leave::Closes);
        }
        let topic = self.mqtt.printer.request_topic();
        let (reader, first) = Reader::new(number, Code::Right, &self.mqtt.truth, topic);
        let talk = Talk::begin(reader, &first, Mood::Keen, far);
        self.mqtt.readers.push((number, line, talk));
        note(format_args!("client {number} comes late"));
        self.proxy.arrive(MQTT, self.mqtt.truth.overhears_a_client(near));
    }

    /// Every viewer and player receives a new picture.
    async fn pictures_come(&mut self) -> Result<(), String> {
        let counts = |world: &Self| -> Vec<(u32, u32)> {
            match &world.cameras.eye {
                Eye::Chamber { viewers, .. } => viewers
                    .iter()
                    .filter(|(_, _, talk)| talk.is_keen())
                    .map(|(number, _, talk)| (*number, talk.party.borrow().pictures))
                    .collect(),
                Eye::Rtsp { players, .. } => players
                    .iter()
                    .filter(|(_, _, talk)| talk.is_keen() && talk.party.borrow().watches())
                    .map(|(number, _, talk)| (*number, talk.party.borrow().pictures))
                    .collect(),
            }
        };
        let before = counts(self);
        let more = |world: &Self| {
            let now = counts(world);
            before.iter().all(|(number, seen)| {
                now.iter().find(|(own, _)| own == number).is_none_or(|(_, now)| now > seen)
            })
        };
        let come = self.until(WELL_TIMEOUT, more).await?;
        if !before.is_empty() {
            promise("without faults viewers receive pictures", come, || {
                format!("{before:?}, and then {:?}", counts(self))
            });
        }
        self.check()
    }

    /// All clients disconnect, and everything they held is freed.
    async fn ends(&mut self) -> Result<(), String> {
        note(format_args!("everybody leaves"));
        let ways = [Leave::Said, Leave::Closes, Leave::Resets, Leave::Vanishes];
        let mut chance = self.chance.child();
        let mut how = || chance.of(&ways);
        self.mqtt.readers.iter().for_each(|(_, _, talk)| talk.leave(how()));
        match &self.cameras.eye {
            Eye::Chamber { viewers, .. } => {
                viewers.iter().for_each(|(_, _, talk)| talk.leave(how()));
            }
            Eye::Rtsp { players, .. } => {
                players.iter().for_each(|(_, _, talk)| talk.leave(how()));
            }
        }
        for storage in self.storage.iter() {
            storage.filers.iter().for_each(|(_, _, filer)| filer.leave(how()));
        }
        let clients = ["mqtt: a client", "chamber: a viewer", "rtsp: a player", "ftp: a client"];
        let gone = self
            .until(secs(120) + 2 * LET_GO_TIMEOUT, |world| {
                clients.iter().all(|what| world.net.held(what) == 0)
            })
            .await?;
        let held: Vec<_> = clients.iter().map(|what| (what, self.net.held(what))).collect();
        promise(GIVEN_BACK, gone, || format!("{held:?}"));
        // Data connections without a command are kept for a while, and the outcome of an upload is awaited
        // for clients that are still connected.
        let rests = self.until(STORED_TIMEOUT + secs(60), |world| world.left().is_empty()).await?;
        promise(GIVEN_BACK, rests, || format!("{:?}", self.left()));
        // The printer is off, as at the beginning.
        self.each_port(|port| port.is(At::Off));
        self.net.end_all("mqtt: the printer", false);
        self.until(secs(60), |world| world.net.held("mqtt: the printer") == 0).await?;
        sleep(secs(1)).await;
        let held = self.held();
        promise(
            "at the end there is as much heap as at the beginning",
            held == self.started,
            || format!("{held:?} bytes, and {:?} at the beginning", self.started),
        );
        self.check()
    }

    /// What was not freed.
    fn left(&self) -> Vec<(&'static str, usize)> {
        let mut left = vec![
            ("mqtt clients", self.proxy.mqtt.clients()),
            ("mqtt connections", self.proxy.mqtt.connections()),
            ("viewers", self.proxy.chamber.connections()),
            ("players", self.proxy.rtsp.connections()),
            ("ftp connections", self.proxy.ftp.as_ref().map_or(0, |files| files.connections())),
            ("data ports", self.proxy.data_ports()),
            ("camera on 6000", self.net.held("camera: port 6000")),
            ("camera on 322", self.net.held("camera: port 322")),
            ("data of clients", self.net.held("ftp: data of a client")),
            ("data of the printer", self.net.held("ftp: data of the printer")),
            ("ftp session", self.net.held("ftp: the printer")),
        ];
        left.retain(|(_, count)| *count > 0);
        left
    }
}

const WELL: &str = "mqtt: merged reports are the printer's state";
const GIVEN_BACK: &str = "at the end everything is given back";

impl Mqtt {
    fn new(model: Model, net: &Net, own: &SimNet, line: &Rc<Line>, chance: &mut Chance) -> Self {
        let printer = Printer::new(model).deltas_every(secs(chance.of(&[2, 5, 5, 20])));
        let truth = Rc::<Truth>::default();
        let (serving, hears) = (printer.clone(), Rc::clone(&truth));
        let room = chance.of(&[512, 4096, 64 * 1024]);
        let port = Port::new("mqtt: the printer", net, line, room, move |wire| {
            let printer = serving.clone();
            spawn_local(async move { printer.serve(wire).await });
        });
        let port = port.tapped(move |wire| hears.overhears(wire));
        own.put(MQTT, port.clone());
        Self { printer, truth, port, readers: Vec::new(), lost: Vec::new() }
    }
}

impl Cameras {
    fn new(is_chamber: bool, net: &Net, own: &SimNet, line: &Rc<Line>) -> Self {
        let (camera, stream) =
            (Camera::new(), crate::lan::rtsp::showing(Media::made(4, 8, 9000, 2000)));
        let (serving, playing) = (camera.clone(), stream.clone());
        let six_thousand = Port::new("camera: port 6000", net, line, 64 * 1024, move |wire| {
            let camera = serving.clone();
            spawn_local(async move { camera.serve(wire).await });
        });
        let port_322 = Port::new("camera: port 322", net, line, 64 * 1024, move |wire| {
            let camera = playing.clone();
            spawn_local(async move { camera.serve(wire).await });
        });
        own.put(CHAMBER, six_thousand.clone());
        own.put(RTSP, port_322.clone());
        let eye = if is_chamber {
            Eye::Chamber { camera, viewers: Vec::new() }
        } else {
            Eye::Rtsp { camera: stream, players: Vec::new(), reboots: Rc::default() }
        };
        Self { eye, ports: [six_thousand, port_322] }
    }
}

impl Storage {
    fn new(net: &Net, own: &SimNet, line: &Rc<Line>, chance: &mut Chance) -> Self {
        let family = chance.of(&[Family::Esp32, Family::Vsftpd]);
        let server = FileServer::new(family).code(CODE).rate(chance.of(&[0, 0, 200_000, 20_000]));
        let server = server.late(secs(chance.of(&[0, 0, 3, 40])));
        let film: Vec<u8> = (0..80_000_u64).map(|at| (at * at / 251 % 256) as u8).collect();
        server.put(&format!("/{FILM}"), &film);
        let ledger = Rc::<Ledger>::default();
        let (serving, hears, knows) = (server.clone(), Rc::clone(&ledger), server.clone());
        let port = Port::new("ftp: the printer", net, line, 4096, move |wire| {
            let server = serving.clone();
            spawn_local(async move { server.serve(wire).await });
        });
        let port = port.tapped(move |wire| hears.watch(&knows, wire));
        own.put(FTP, port.clone());
        let store = Store { net: net.clone(), line: Rc::clone(line), server: server.clone() };
        own.put_data(move |port| store.clone().reach(port));
        Self { around: server, ledger, port, filers: Vec::new() }
    }
}
