//! One control connection, from the greeting to QUIT.

use core::fmt::Write as _;
use core::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::data::{Outcome, Passive, Source, Upload, send};
use super::store::{Entry, Incoming, Stored, name, resolve};
use super::{Family, Inner, MAX_LINE, PROMPTLY, Quirk};

/// A control connection's stream. What it has ready is, in TLS, one record.
pub(super) trait Control: AsyncBufRead + AsyncWrite + Unpin {}

impl<T: AsyncBufRead + AsyncWrite + Unpin> Control for T {}

/// The ends of a control connection, and what its data connections are to show. Nothing in memory.
pub(super) struct Peer {
    pub(super) ours: Option<IpAddr>,
    pub(super) theirs: Option<IpAddr>,
    pub(super) tls: Option<Arc<ServerConfig>>,
}

/// Whether the session continues.
type Goes = Result<(), Over>;

/// The session is over.
pub(super) struct Over;

pub(super) struct Session {
    inner: Rc<Inner>,
    control: Box<dyn Control>,
    peer: Peer,
    named: bool,
    known: bool,
    folder: String,
    private: bool,
    passive: Option<Passive>,
    restart: u64,
    renaming: Option<String>,
    /// The user has been given, and is not the one.
    stranger: bool,
}

impl Session {
    pub(super) fn new(inner: &Rc<Inner>, control: Box<dyn Control>, peer: Peer) -> Self {
        Self {
            inner: Rc::clone(inner),
            control,
            peer,
            named: false,
            known: false,
            folder: "/".to_owned(),
            private: false,
            passive: None,
            restart: 0,
            renaming: None,
            stranger: false,
        }
    }

    /// From the greeting to the end.
    pub(super) async fn converse(mut self, over_limit: bool) {
        let _over = self.until_over(over_limit).await;
        self.close_passive();
        if over_limit || !self.known {
            // An orderly end, so that the last answer arrives.
            let _ended = timeout(PROMPTLY, self.control.shutdown()).await;
        }
    }

    async fn until_over(&mut self, over_limit: bool) -> Goes {
        if over_limit {
            return self.say("421 There are too many connected users, please try later.").await;
        }
        match self.inner.family {
            Family::Esp32 => self.say("220 FTP server ready.").await?,
            Family::Vsftpd => self.say("220 (vsFTPd 3.0.5)").await?,
        }
        loop {
            let line = self.line().await?;
            self.inner.count(|seen| seen.command(&line));
            let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let verb = verb.to_ascii_uppercase();
            self.obey(&verb, rest).await?;
        }
    }

    /// The next command, without its end.
    async fn line(&mut self) -> Result<String, Over> {
        loop {
            let idle = self.inner.idle.get();
            let line = match self.inner.family {
                Family::Esp32 => timeout(idle, self.record()).await.map_err(|_| Over)??,
                Family::Vsftpd => Some(timeout(idle, self.whole_line()).await.map_err(|_| Over)??),
            };
            match line {
                Some(line) => return Ok(line),
                // As ESP32 printers do: each half of a line that arrives in two records is a command.
                None if self.named && !self.known => self.say("332 Need account.").await?,
                None => self.say("502 Command not implemented.").await?,
            }
        }
    }

    /// One TLS record, which has to be one line.
    async fn record(&mut self) -> Result<Option<String>, Over> {
        let record = self.control.fill_buf().await.map_err(|_| Over)?;
        if record.is_empty() {
            return Err(Over);
        }
        let len = record.len();
        let text = String::from_utf8_lossy(record).into_owned();
        self.control.consume(len);
        let Some((line, more)) = text.split_once('\n') else {
            self.inner.count(|seen| seen.split += 1);
            return Ok(None);
        };
        if !more.is_empty() {
            self.inner.count(|seen| seen.pipelined += 1);
        }
        let line = line.trim_end_matches('\r');
        Ok((!line.is_empty()).then(|| line.to_owned()))
    }

    async fn whole_line(&mut self) -> Result<String, Over> {
        let mut line = Vec::new();
        loop {
            let ready = self.control.fill_buf().await.map_err(|_| Over)?;
            if ready.is_empty() {
                return Err(Over);
            }
            let end = ready.iter().position(|byte| *byte == b'\n');
            let len = end.map_or(ready.len(), |end| end + 1);
            line.extend(&ready[..len]);
            let more = ready.len() > len;
            self.control.consume(len);
            if line.len() > MAX_LINE {
                self.say("500 Input line too long.").await?;
                return Err(Over);
            }
            if more {
                self.inner.count(|seen| seen.pipelined += 1);
            }
            if end.is_none() {
                self.inner.count(|seen| seen.split += 1);
                continue;
            }
            let text = String::from_utf8_lossy(&line);
            return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
        }
    }

    async fn say(&mut self, answer: &str) -> Goes {
        let control = &mut self.control;
        let said = timeout(PROMPTLY, async {
            control.write_all(format!("{answer}\r\n").as_bytes()).await?;
            control.flush().await
        });
        said.await.map_err(|_| Over)?.map_err(|_| Over)
    }

    async fn say_either(&mut self, went_well: bool, well: &str, badly: &str) -> Goes {
        self.say(if went_well { well } else { badly }).await
    }

    fn path(&self, named: &str) -> String {
        resolve(&self.folder, named)
    }

    fn is_vsftpd(&self) -> bool {
        self.inner.family == Family::Vsftpd
    }

    async fn obey(&mut self, verb: &str, rest: &str) -> Goes {
        match verb {
            "USER" => {
                (self.named, self.known) = (true, false);
                self.stranger = rest != "bblp";
                self.say("331 Please specify the password.").await
            }
            "PASS" => self.pass(rest).await,
            "QUIT" => {
                self.say("221 Goodbye.").await?;
                self.known = false;
                Err(Over)
            }
            "PBSZ" => self.say("200 PBSZ set to 0.").await,
            "PROT" => match rest {
                "P" | "p" => {
                    self.private = true;
                    self.say("200 PROT now Private.").await
                }
                "C" | "c" => {
                    self.private = false;
                    self.say("200 PROT now Clear.").await
                }
                _ => self.say("504 PROT not supported.").await,
            },
            "FEAT" if self.is_vsftpd() => {
                let features = "EPRT|EPSV|MDTM|PASV|PBSZ|PROT|REST STREAM|SIZE|TVFS";
                let lines = features.replace('|', "\r\n ");
                self.say(&format!("211-Features:\r\n {lines}\r\n211 End")).await
            }
            "FEAT" => self.say("502 no-features").await,
            "OPTS" if self.is_vsftpd() => {
                let known = rest.eq_ignore_ascii_case("utf8 on");
                self.say_either(known, "200 Always in UTF8 mode.", "501 Option not understood.")
                    .await
            }
            _ if !self.known => self.say("530 Please login with USER and PASS.").await,
            _ => self.obey_known(verb, rest).await,
        }
    }

    async fn pass(&mut self, code: &str) -> Goes {
        if self.known {
            return self.say("230 Already logged in.").await;
        }
        if !self.named {
            return self.say("503 Login with USER first.").await;
        }
        if code.is_empty() && !self.is_vsftpd() {
            return self.say("332 Need account.").await;
        }
        self.named = false;
        self.known = !self.stranger && *self.inner.code.borrow() == code;
        let known = self.known;
        self.inner.count(|seen| {
            if known {
                seen.logins += 1;
            } else {
                seen.wrong_codes += 1;
            }
        });
        self.say_either(known, "230 Login successful.", "530 Login incorrect.").await
    }

    async fn obey_known(&mut self, verb: &str, rest: &str) -> Goes {
        let inner = Rc::clone(&self.inner);
        let renaming = self.renaming.take();
        match verb {
            "PWD" | "XPWD" => {
                let answer = format!("257 \"{}\" is the current directory", self.folder);
                self.say(&answer).await
            }
            "CWD" | "XCWD" => self.enter(self.path(rest)).await,
            "CDUP" | "XCUP" => self.enter(self.path("..")).await,
            "TYPE" => match rest.get(..1) {
                Some("I" | "i") => self.say("200 Switching to Binary mode.").await,
                Some("A" | "a") => self.say("200 Switching to ASCII mode.").await,
                _ => self.say("500 Unrecognised TYPE command.").await,
            },
            "SYST" => self.say("215 UNIX Type: L8").await,
            "NOOP" => self.say("200 NOOP ok.").await,
            "PASV" => self.listen(false).await,
            "EPSV" if self.is_vsftpd() && rest.eq_ignore_ascii_case("all") => {
                self.say("200 EPSV ALL ok.").await
            }
            "EPSV" if self.is_vsftpd() => self.listen(true).await,
            "PORT" | "EPRT" if self.is_vsftpd() => self.say("550 Permission denied.").await,
            "LIST" | "NLST" => self.list(verb == "LIST", rest).await,
            "SIZE" => match self.file(rest) {
                Some(stored) => self.say(&format!("213 {}", stored.len)).await,
                None => self.say("550 Could not get file size.").await,
            },
            "MDTM" => match self.file(rest) {
                Some(_) => self.say(&format!("213 {}", self.stamp())).await,
                None => self.say("550 Could not get file modification time.").await,
            },
            "REST" if self.is_vsftpd() => {
                self.restart = rest.parse().unwrap_or(0);
                self.say(&format!("350 Restart position accepted ({}).", self.restart)).await
            }
            "RETR" => self.retrieve(rest).await,
            "STOR" => {
                let from = core::mem::take(&mut self.restart);
                self.store(rest, from).await
            }
            "APPE" if self.is_vsftpd() => {
                let from = self.file(rest).map_or(0, |stored| stored.len);
                self.store(rest, from).await
            }
            "DELE" => {
                let locked = matches!(inner.quirk.get(), Some((Quirk::Locked, _)));
                let done = !locked && inner.store.borrow_mut().remove_file(&self.path(rest));
                self.say_either(done, "250 Delete operation successful.", "550 Delete failed.")
                    .await
            }
            "RNFR" => {
                self.renaming = self.file(rest).map(|_| self.path(rest));
                let known = self.renaming.is_some();
                self.say_either(known, "350 Ready for RNTO.", "550 RNFR command failed.").await
            }
            "RNTO" => {
                let Some(from) = renaming else {
                    return self.say("503 RNFR required first.").await;
                };
                let done = inner.store.borrow_mut().rename(&from, &self.path(rest));
                self.say_either(done, "250 Rename successful.", "550 Rename failed.").await
            }
            "MKD" | "XMKD" => {
                let path = self.path(rest);
                let done = inner.store.borrow_mut().make_folder(&path);
                let well = format!("257 \"{path}\" created");
                self.say_either(done, &well, "550 Create directory operation failed.").await
            }
            "RMD" | "XRMD" => {
                let done = inner.store.borrow_mut().remove_folder(&self.path(rest));
                self.say_either(done, "250 Directory removed.", "550 Remove directory failed.")
                    .await
            }
            "ABOR" => self.say("225 No transfer to ABOR.").await,
            "STAT" if self.is_vsftpd() => {
                self.say("211-FTP server status:\r\n     Logged in\r\n211 End of status").await
            }
            "AVBL" if !self.is_vsftpd() => self.say("213 1000000000").await,
            _ if self.is_vsftpd() => self.say("500 Unknown command.").await,
            _ => self.say("502 Command not implemented.").await,
        }
    }

    /// When everything was last written, by its clock: an ESP32 has no real-time clock.
    fn stamp(&self) -> &'static str {
        if self.is_vsftpd() { "20260301120000" } else { "19800101000000" }
    }

    fn file(&self, named: &str) -> Option<Stored> {
        self.inner.store.borrow().file(&self.path(named)).cloned()
    }

    async fn enter(&mut self, path: String) -> Goes {
        let known = self.inner.store.borrow().is_folder(&path);
        if known {
            self.folder = path;
        }
        let (well, badly) =
            ("250 Directory successfully changed.", "550 Failed to change directory.");
        self.say_either(known, well, badly).await
    }

    fn close_passive(&mut self) {
        if let Some(Passive::Memory(port, _)) = self.passive.take() {
            self.inner.close_door(port);
        }
    }

    async fn listen(&mut self, extended: bool) -> Goes {
        self.close_passive();
        let (port, passive) = match self.peer.ours {
            None => {
                let (port, door) = self.inner.open_door();
                (port, Passive::Memory(port, door))
            }
            Some(ours) => {
                let opened = self.inner.open_port(ours);
                let opened = opened.and_then(|door| Ok((door.local_addr()?.port(), door)));
                let Ok((port, listener)) = opened else {
                    return self.say("425 No port for data.").await;
                };
                (port, Passive::Tcp(listener))
            }
        };
        self.passive = Some(passive);
        let (high, low) = (port >> 8, port & 0xff);
        let address = match self.peer.ours {
            Some(IpAddr::V4(ours)) if self.is_vsftpd() => ours.octets(),
            _ => [0; 4],
        };
        let [a, b, c, d] = address;
        let answer = if extended {
            format!("229 Entering Extended Passive Mode (|||{port}|)")
        } else {
            format!("227 Entering Passive Mode ({a},{b},{c},{d},{high},{low}).")
        };
        self.say(&answer).await
    }

    async fn list(&mut self, long: bool, rest: &str) -> Goes {
        let named = rest.split(' ').find(|word| !word.is_empty() && !word.starts_with('-'));
        let path = self.path(named.map_or("", |first| {
            // A name may hold spaces: from its first word on.
            rest.find(first).map_or("", |at| &rest[at..])
        }));
        let mut lines = Vec::new();
        {
            let store = self.inner.store.borrow();
            let line = |name: &str, entry: &Entry| {
                let mut line = String::new();
                if long {
                    let (kind, len) = match entry {
                        Entry::Folder => ('d', 4096),
                        Entry::File(stored) => ('-', stored.len),
                    };
                    let date = if self.is_vsftpd() { "Mar 01 12:00" } else { "Jan 01  1980" };
                    let _infallible =
                        write!(line, "{kind}rw-rw-rw-    1 0        0        {len:>12} {date} ");
                }
                line + name
            };
            match store.get(&path) {
                Some(Entry::Folder) => {
                    let children = store.children(&path);
                    lines
                        .extend(children.map(|(name, entry)| (name.to_owned(), line(name, entry))));
                }
                Some(entry) => lines.push((name(&path).to_owned(), line(name(&path), entry))),
                None => {}
            }
        }
        if self.is_vsftpd() {
            lines.sort();
        }
        let listing: String = lines.iter().map(|(_, line)| format!("{line}\r\n")).collect();
        let source = Source::Listing(listing.into_bytes());
        self.transfer("150 Here comes the directory listing.", What::Send(source)).await
    }

    async fn retrieve(&mut self, rest: &str) -> Goes {
        let from = core::mem::take(&mut self.restart);
        match self.file(rest) {
            None => self.say("550 Failed to open file.").await,
            Some(stored) => {
                let len = stored.len;
                let begin =
                    format!("150 Opening BINARY mode data connection for {rest} ({len} bytes).");
                self.transfer(&begin, What::Send(Source::File(stored, from))).await
            }
        }
    }

    async fn store(&mut self, rest: &str, from: u64) -> Goes {
        let path = self.path(rest);
        let hashing = self.inner.hashing.get();
        let has_room = !rest.is_empty() && self.inner.store.borrow().has_room_for(&path);
        let incoming = match self.file(rest) {
            _ if !has_room => None,
            Some(stored) if from > 0 => Incoming::after(&stored, from, hashing).ok(),
            None | Some(_) if from == 0 => Some(Incoming::new(hashing)),
            None | Some(_) => None,
        };
        match incoming {
            Some(incoming) => {
                self.transfer("150 Ok to send data.", What::Store(path, incoming)).await
            }
            None => self.say("553 Could not create file.").await,
        }
    }

    /// From the data connection's port to the answer after its end.
    async fn transfer(&mut self, begin: &str, what: What) -> Goes {
        let inner = Rc::clone(&self.inner);
        let inner = &*inner;
        let upload = matches!(what, What::Store(..));
        let listing = matches!(what, What::Send(Source::Listing(_)));
        let quirk = inner.quirk(upload, listing);
        match quirk {
            Some(Quirk::BadName) => return self.say("553 Could not create file.").await,
            Some(Quirk::Locked) => return self.say("550 Failed to open file.").await,
            _ => {}
        }
        let Some(mut passive) = self.passive.take() else {
            return self.say("425 Use PORT or PASV first.").await;
        };
        if self.is_vsftpd() && !self.private && self.peer.tls.is_some() {
            return self.say("522 Data connections must be encrypted.").await;
        }
        let accepted = if quirk == Some(Quirk::RefusesData) {
            Err("425 Failed to establish connection.")
        } else {
            tokio::select! {
                accepted = passive.accept(inner, self.peer.theirs) => accepted,
                gone = watch(&mut self.control, false) => match gone {
                    Watched::Gone | Watched::Abort => return Err(Over),
                },
            }
        };
        if let Passive::Memory(port, _) = passive {
            inner.close_door(port);
        }
        let data = match accepted {
            Ok(data) => data,
            Err(refused) => return self.say(refused).await,
        };
        if data.has_spoken() {
            inner.count(|seen| seen.early += 1);
        }
        self.say(begin).await?;
        let _under_way = inner.counted(
            |seen| {
                seen.transfers += 1;
                seen.most_transfers = seen.most_transfers.max(seen.transfers);
            },
            |seen| seen.transfers -= 1,
        );
        let private = self.private.then_some(self.peer.tls.as_ref()).flatten();
        let moving = async {
            // The file is there from now on, if empty.
            let what = match what {
                What::Store(path, incoming) => Ok(Upload::new(inner, path, incoming)),
                What::Send(source) => Err(source),
            };
            let data = match private {
                Some(config) => match data.shaken(inner, config).await {
                    Ok(data) => data,
                    Err(refused) => return Outcome::Failed(refused),
                },
                None => data,
            };
            match what {
                Ok(upload) => upload.receive(data, quirk).await,
                Err(source) => send(inner, data, source, quirk).await,
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = Box::pin(moving) => outcome,
            watched = watch(&mut self.control, inner.family == Family::Vsftpd) => match watched {
                Watched::Gone => Outcome::Over,
                Watched::Abort => {
                    inner.count(|seen| seen.command("ABOR"));
                    self.say("426 Failure writing network stream.").await?;
                    return self.say("226 ABOR successful.").await;
                }
            },
        };
        match outcome {
            Outcome::Done => {
                inner.count(|seen| seen.completed += 1);
                self.say("226 Transfer complete.").await
            }
            Outcome::Failed(answer) => self.say(answer).await,
            Outcome::Unanswered => Ok(()),
            Outcome::Over => Err(Over),
        }
    }
}

/// What a transfer moves.
#[allow(clippy::large_enum_variant, reason = "a transfer has one")]
enum What {
    Store(String, Incoming),
    Send(Source),
}

/// What a client does on its control connection while a transfer runs.
enum Watched {
    Gone,
    Abort,
}

/// Completes when the client disconnects or sends ABOR. Other commands are read later.
async fn watch(control: &mut Box<dyn Control>, hears_abort: bool) -> Watched {
    let ready = match control.fill_buf().await {
        Ok([]) | Err(_) => return Watched::Gone,
        Ok(ready) => ready,
    };
    let said = ready.iter().position(u8::is_ascii_alphabetic).map_or(ready, |at| &ready[at..]);
    if hears_abort && said.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"ABOR")) {
        let len = ready.len();
        control.consume(len);
        return Watched::Abort;
    }
    core::future::pending().await
}
