//! FTP over unreliable networks: clients that upload, download and list files, and that abandon uploads. The proxy's
//! connection to the printer is watched.

use core::cell::{Cell, RefCell};
use core::net::IpAddr;
use core::pin::pin;
use core::time::Duration;
use std::collections::HashMap;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::select;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::lan::net::SimNet;
use crate::lan::weather::{Chance, Cutter, Line, Net, Seen, Wire, aside};
use crate::notes::{note, promise};
use crate::talk::Leave;
use printer::ftp::FileServer;

/// Time that a client waits for a reply.
const PATIENCE: Duration = Duration::from_secs(90);

/// The file on the printer that clients download.
pub(crate) const FILM: &str = "film.mp4";

/// What clients want to store, by name, and how often each command was sent to the printer.
#[derive(Default)]
pub(crate) struct Ledger {
    files: RefCell<HashMap<String, Rc<[u8]>>>,
    commands: RefCell<HashMap<String, u32>>,
}

impl Ledger {
    /// Watches a new session with the printer.
    pub(crate) fn watch(self: &Rc<Self>, server: &FileServer, wire: Wire) -> Wire {
        let (ledger, server) = (Rc::clone(self), server.clone());
        let (mut up, mut down) = (Lines::default(), Lines::default());
        let mut storing: Option<String> = None;
        wire.tapped(move |seen| match seen {
            Seen::Wrote(bytes) => {
                up.0.extend(bytes);
                while let Some(line) = up.next() {
                    let (verb, name) = line.split_once(' ').unwrap_or((&line, ""));
                    storing = (verb == "STOR").then(|| name.to_owned());
                    if matches!(verb, "STOR" | "MKD") {
                        ledger.count_command(&line);
                    }
                }
            }
            Seen::Read(bytes) => {
                down.0.extend(bytes);
                while let Some(line) = down.next() {
                    if line.starts_with("226 ")
                        && let Some(name) = storing.take()
                    {
                        let whole = ledger.is_whole(&server, &name);
                        promise(
                            "ftp: what the printer believes to be whole is whole",
                            whole,
                            || format!("{name} is not what was to be stored"),
                        );
                    }
                }
            }
        })
    }

    fn count_command(&self, line: &str) {
        let mut commands = self.commands.borrow_mut();
        let times = commands.entry(line.to_owned()).or_default();
        *times += 1;
        let times = *times;
        promise("ftp: a command is done once", times == 1, || format!("{line:?}: {times} times"));
    }

    fn is_whole(&self, server: &FileServer, name: &str) -> bool {
        let meant = self.files.borrow().get(name).cloned();
        let stored = server.file(&format!("/{name}")).and_then(|stored| stored.content);
        meant.is_some() && meant.as_deref() == stored.as_deref()
    }
}

#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn next(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.0.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}

/// A client's surroundings.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) net: Net,
    /// The proxy's network.
    pub(crate) own: SimNet,
    /// The client's address.
    pub(crate) from: IpAddr,
    pub(crate) line: Rc<Line>,
    pub(crate) server: FileServer,
    pub(crate) ledger: Rc<Ledger>,
}

/// A client of the printer's files.
pub(crate) struct Filer {
    leaving: Cell<Option<Leave>>,
    stopping: Notify,
    ended: Cell<bool>,
}

impl Filer {
    /// Starts a client that runs a few commands over a wire to the proxy.
    pub(crate) fn begin(
        number: u32,
        knows_the_code: bool,
        around: Surroundings,
        wire: Wire,
        chance: Chance,
    ) -> Rc<Self> {
        let filer = Rc::new(Self {
            leaving: Cell::new(None),
            stopping: Notify::new(),
            ended: Cell::new(false),
        });
        let own = Rc::clone(&filer);
        spawn_local(async move {
            let control = wire.cutter();
            let (from, to) = split(wire);
            let (lines, data) = (Lines::default(), Rc::<RefCell<Option<Cutter>>>::default());
            let its = Rc::clone(&data);
            let mut session = Session { number, around, from, to, lines, data: its, chance };
            // Dropped after the wires have ended by `how`, since a drop would close them in order.
            let mut run = pin!(session.run(knows_the_code));
            let done = select! {
                biased;
                () = own.stopping.notified() => None,
                done = &mut run => done,
            };
            let how = own.leaving.get();
            note(format_args!("filer {number} leaves: {done:?} {how:?}"));
            let data = data.take();
            match how {
                Some(Leave::Vanishes) => {
                    control.vanish();
                    data.iter().for_each(Cutter::vanish);
                }
                Some(Leave::Resets) => {
                    control.reset();
                    data.iter().for_each(Cutter::reset);
                }
                // A transfer that is not finished is reset; the rest is closed in order.
                Some(Leave::Closes | Leave::Said | Leave::Abandons) | None => {
                    if done.is_none() {
                        data.iter().for_each(Cutter::reset);
                    }
                }
            }
            own.ended.set(true);
        });
        filer
    }

    pub(crate) fn leave(&self, how: Leave) {
        self.leaving.set(Some(how));
        self.stopping.notify_one();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.ended.get()
    }
}

struct Session {
    number: u32,
    around: Surroundings,
    from: ReadHalf<Wire>,
    to: WriteHalf<Wire>,
    lines: Lines,
    /// The wire of the current transfer.
    data: Rc<RefCell<Option<Cutter>>>,
    chance: Chance,
}

impl Session {
    async fn run(&mut self, knows_the_code: bool) -> Option<()> {
        self.reply().await?;
        self.command("USER bblp").await?;
        let code = if knows_the_code { "12345678" } else { "87654321" };
        let reply = self.command(&format!("PASS {code}")).await?;
        if !knows_the_code {
            promise("ftp: a wrong code is refused", reply.starts_with("530"), || reply.clone());
            return Some(());
        }
        if !reply.starts_with("230") {
            return Some(());
        }
        self.command("TYPE I").await?;
        self.command("PROT C").await?;
        for turn in 0..=self.chance.below(3) {
            match self.chance.below(8) {
                0..=3 => self.store(turn).await?,
                4 => self.fetch().await?,
                5 => self.list().await?,
                6 => {
                    let (number, name) = (self.number, format!("folder-{}-{turn}", self.number));
                    let reply = self.command(&format!("MKD {name}")).await?;
                    note(format_args!("filer {number}: MKD: {reply}"));
                }
                _ => self.abandon_upload(turn).await?,
            }
        }
        self.command("QUIT").await?;
        Some(())
    }

    /// The last line of the next reply. `None`: the connection is closed, or the reply takes too long.
    async fn reply(&mut self) -> Option<String> {
        let read = async {
            loop {
                while let Some(line) = self.lines.next() {
                    if line.as_bytes().get(3) == Some(&b' ') {
                        return Some(line);
                    }
                }
                let mut room = [0; 512];
                match self.from.read(&mut room).await {
                    Ok(0) | Err(_) => return None,
                    Ok(len) => self.lines.0.extend(&room[..len]),
                }
            }
        };
        timeout(PATIENCE, read).await.ok().flatten()
    }

    async fn command(&mut self, line: &str) -> Option<String> {
        let line = format!("{line}\r\n");
        timeout(PATIENCE, self.to.write_all(line.as_bytes())).await.ok()?.ok()?;
        self.reply().await
    }

    /// A data connection. `Some(None)`: no port was given, or it is closed.
    async fn data(&mut self) -> Option<Option<Wire>> {
        let reply = self.command("EPSV").await?;
        let port = reply.split("(|||").nth(1).and_then(|rest| rest.strip_suffix("|)"));
        let Some(port) = port.and_then(|port| port.parse().ok()) else { return Some(None) };
        let Surroundings { net, own, from, line, .. } = &self.around;
        let wire = aside(|| {
            let (near, far) = net.wire("ftp: data of a client", line, 16 * 1024);
            own.arrive(port, *from, near).then_some(far)
        });
        *self.data.borrow_mut() = wire.as_ref().map(Wire::cutter);
        Some(wire)
    }

    fn file(&mut self, turn: u64) -> (String, Rc<[u8]>) {
        let name = format!("plate-{}-{turn}.3mf", self.number);
        let len = self.chance.of(&[0, 1, 1000, 20_000, 60_000, 150_000]);
        let mut state = self.chance.below(1 << 32) as u32;
        let bytes: Rc<[u8]> = (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        self.around.ledger.files.borrow_mut().insert(name.clone(), Rc::clone(&bytes));
        (name, bytes)
    }

    async fn store(&mut self, turn: u64) -> Option<()> {
        let Some(mut data) = self.data().await? else { return Some(()) };
        let (name, bytes) = self.file(turn);
        let reply = self.command(&format!("STOR {name}")).await?;
        note(format_args!("filer {}: STOR {name} of {}: {reply}", self.number, bytes.len()));
        if !reply.starts_with('1') {
            return Some(());
        }
        let written = timeout(PATIENCE, async {
            data.write_all(&bytes).await?;
            data.shutdown().await
        });
        if !matches!(written.await, Ok(Ok(()))) {
            self.reset_data();
        }
        let reply = self.reply().await?;
        note(format_args!("filer {}: STOR {name}: {reply}", self.number));
        if reply.starts_with("226") {
            let whole = self.around.ledger.is_whole(&self.around.server, &name);
            promise("ftp: after 226 the printer has every byte", whole, || name.clone());
        }
        self.data.take();
        Some(())
    }

    /// Abandons an upload halfway: by a reset, by ABOR, or by vanishing.
    async fn abandon_upload(&mut self, turn: u64) -> Option<()> {
        let Some(mut data) = self.data().await? else { return Some(()) };
        let (name, bytes) = self.file(turn);
        let reply = self.command(&format!("STOR {name}")).await?;
        if !reply.starts_with('1') {
            return Some(());
        }
        let part = bytes.len() / 2;
        let _written = timeout(PATIENCE, data.write_all(&bytes[..part])).await;
        let way = self.chance.below(3);
        note(format_args!(
            "filer {}: gives up {name}, {part} of {}, way {way}",
            self.number,
            bytes.len()
        ));
        match way {
            0 => {
                self.reset_data();
                self.reply().await?;
            }
            1 => {
                let reply = self.command("ABOR").await?;
                self.reset_data();
                if reply.starts_with('4') {
                    self.reply().await?;
                }
            }
            // Both connections stay open until a timeout ends them.
            _ => {
                if let Some(data) = self.data.take() {
                    data.vanish();
                }
                self.reply().await?;
            }
        }
        Some(())
    }

    fn reset_data(&self) {
        if let Some(data) = self.data.take() {
            data.reset();
        }
    }

    /// All data, if the connection ends in order.
    async fn all(&mut self, mut data: Wire) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = timeout(PATIENCE, data.read_to_end(&mut bytes)).await;
        self.data.take();
        matches!(read, Ok(Ok(_))).then_some(bytes)
    }

    async fn fetch(&mut self) -> Option<()> {
        let Some(data) = self.data().await? else { return Some(()) };
        let reply = self.command(&format!("RETR {FILM}")).await?;
        if !reply.starts_with('1') {
            return Some(());
        }
        let bytes = self.all(data).await;
        let reply = self.reply().await?;
        note(format_args!("filer {}: RETR: {reply}", self.number));
        if reply.starts_with("226")
            && let Some(bytes) = bytes
        {
            let film = self.around.server.file(&format!("/{FILM}")).and_then(|film| film.content);
            let whole = film.as_deref() == Some(&bytes[..]);
            promise("ftp: after 226 the client has every byte", whole, || {
                format!("{} bytes of the film", bytes.len())
            });
        }
        Some(())
    }

    async fn list(&mut self) -> Option<()> {
        let Some(data) = self.data().await? else { return Some(()) };
        let before = self.around.server.names("/");
        let reply = self.command("NLST").await?;
        if !reply.starts_with('1') {
            return Some(());
        }
        let bytes = self.all(data).await;
        let reply = self.reply().await?;
        let after = self.around.server.names("/");
        if reply.starts_with("226")
            && let Some(bytes) = bytes
        {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let listed: Vec<&str> = text.lines().collect();
            let theirs = before.iter().all(|name| listed.contains(&name.as_str()))
                && listed.iter().all(|name| after.iter().any(|own| own == name));
            promise("ftp: after 226 a listing is the printer's", theirs, || {
                format!("{listed:?} of {after:?}")
            });
        }
        Some(())
    }
}
