//! What tells anybody which printer this is: ports 3000 and 3002 (`src/protocol.md`, detect).
//!
//! One frame each way, and the end. A frame is `A5 A5`, its whole length in two bytes, the lower first, JSON, `A7 A7`.
//! What is no frame, and a command that is not known, get no answer.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | connections | [`MAX_STREAMS`] | closed |
//! | a question | [`QUESTION_TIMEOUT`], [`MAX_FRAME`] | closed |
//! | an answer without progress | [`WRITE_TIMEOUT`] | closed |

use core::cell::{Cell, RefCell};
use core::net::SocketAddr;
use core::time::Duration;
use std::io;
use std::rc::Rc;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::model::Model;
use super::tls::Shown;
use super::{MAX_STREAMS, WRITE_TIMEOUT, listener, witnessed};

/// The time for a question.
pub const QUESTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a frame.
pub const MAX_FRAME: usize = 4096;

/// A handle on what is behind the ports. Clones are handles on the same.
#[derive(Clone)]
pub struct Detect {
    tells: Rc<Tells>,
}

struct Tells {
    about: RefCell<Value>,
    refuses: Cell<bool>,
    silent: Cell<bool>,
    open: Cell<usize>,
    ever: Cell<u64>,
    detects: Cell<u64>,
    binds: Cell<u64>,
    changed: Notify,
}

impl Detect {
    /// A printer of this model in LAN mode, with the name that it has from the factory.
    pub fn new(model: Model) -> Self {
        let serial = model.serial();
        let about = json!({
            "command": "detect",
            "id": serial,
            "model": match model {
                Model::P1S => "C12",
                Model::A1Mini => "N1",
                Model::X1C => "BL-P001",
                Model::H2D => "O1D",
            },
            "name": format!("3DP-{}-{}", &serial[..3], &serial[12..]),
            "version": "01.07.02.00",
            "bind": "free",
            "connect": "lan",
            "dev_cap": 1,
        });
        let tells = Tells {
            about: RefCell::new(about),
            refuses: Cell::new(false),
            silent: Cell::new(false),
            open: Cell::new(0),
            ever: Cell::new(0),
            detects: Cell::new(0),
            binds: Cell::new(0),
            changed: Notify::new(),
        };
        Self { tells: Rc::new(tells) }
    }

    /// Tells this under this key: `name`, `version`, `bind`, `connect` and so on.
    pub fn telling(self, key: &str, value: &str) -> Self {
        self.tells.about.borrow_mut()[key] = value.into();
        self
    }

    /// Leaves this key out.
    pub fn keeping(self, key: &str) -> Self {
        self.tells.about.borrow_mut().as_object_mut().unwrap().remove(key);
        self
    }

    /// Whether it refuses to tell, as a P1 in LAN mode.
    pub fn refusing(self, refuses: bool) -> Self {
        self.tells.refuses.set(refuses);
        self
    }

    /// Whether it never answers.
    pub fn silent(self, silent: bool) -> Self {
        self.tells.silent.set(silent);
        self
    }

    /// Serves one connection over any stream, from accept to its end.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) {
        let tells = &*self.tells;
        if tells.open.get() < MAX_STREAMS {
            tells.open.set(tells.open.get() + 1);
            tells.ever.set(tells.ever.get() + 1);
            tells.changed.notify_waiters();
            let _ = tells.converse(&mut stream).await; // however it ends, it has ended
            tells.open.set(tells.open.get() - 1);
            tells.changed.notify_waiters();
        }
    }

    /// Listens without TLS. Where, and what has to be polled (in a `LocalSet` or `LocalRuntime`) to serve it.
    ///
    /// # Errors
    ///
    /// The address cannot be bound.
    pub async fn listen(
        &self,
        address: SocketAddr,
    ) -> io::Result<(SocketAddr, impl Future<Output = ()> + use<>)> {
        let detect = self.clone();
        listener::listen(address, move |stream| {
            let detect = detect.clone();
            async move { detect.serve(stream).await }
        })
        .await
    }

    /// Listens for TLS, with the certificate of a model.
    ///
    /// # Errors
    ///
    /// The address cannot be bound.
    pub async fn listen_tls(
        &self,
        address: SocketAddr,
        model: Model,
    ) -> io::Result<(SocketAddr, impl Future<Output = ()> + use<>)> {
        let detect = self.clone();
        listener::listen_tls(address, Shown::own(model).config(model)?, move |stream| {
            let detect = detect.clone();
            async move { detect.serve(stream).await }
        })
        .await
    }

    /// Connections there ever were.
    pub fn ever(&self) -> u64 {
        self.tells.ever.get()
    }

    /// Questions for what it is.
    pub fn detects(&self) -> u64 {
        self.tells.detects.get()
    }

    /// Requests to be bound to an account.
    pub fn binds(&self) -> u64 {
        self.tells.binds.get()
    }

    /// Waits until something can be seen of it. False when it cannot within this time.
    pub async fn until(&self, within: Duration, seen: impl Fn(&Self) -> bool) -> bool {
        witnessed(&self.tells.changed, within, || seen(self)).await
    }
}

/// A frame around this JSON.
pub fn framed(json: &[u8]) -> Vec<u8> {
    let len = u16::try_from(json.len() + 6).unwrap();
    [&[0xa5, 0xa5], &len.to_le_bytes()[..], json, &[0xa7, 0xa7]].concat()
}

impl Tells {
    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S) -> io::Result<()> {
        let question = timeout(QUESTION_TIMEOUT, question(stream)).await??;
        let Some(login) = question.get("login") else { return Ok(()) };
        let count = |of: &Cell<u64>| of.set(of.get() + 1);
        let answer = match login["command"].as_str() {
            Some("detect") => {
                count(&self.detects);
                (!self.refuses.get()).then(|| self.about.borrow().clone())
            }
            Some("login") => {
                count(&self.binds);
                None
            }
            // An unknown command is not answered. The client disconnects.
            _ => {
                let _ = timeout(QUESTION_TIMEOUT, stream.read(&mut [0; 1])).await;
                return Ok(());
            }
        };
        self.changed.notify_waiters();
        if self.silent.get() {
            let _ = timeout(QUESTION_TIMEOUT, stream.read(&mut [0; 1])).await;
            return Ok(());
        }
        let mut answer = answer.unwrap_or_else(|| {
            json!({
                "command": "login_report",
                "reason": r#"{"devmsg":"LAN-ONLY enabled","err_code":83902489}"#,
                "session_id": -1,
                "status": "FAILURE",
            })
        });
        answer["sequence_id"] = login["sequence_id"].clone();
        let answer = framed(json!({ "login": answer }).to_string().as_bytes());
        timeout(WRITE_TIMEOUT, stream.write_all(&answer)).await??;
        timeout(WRITE_TIMEOUT, stream.shutdown()).await?
    }
}

/// The JSON of the next frame.
async fn question<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Value> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let len = usize::from(u16::from_le_bytes([head[2], head[3]]));
    if head[..2] != [0xa5, 0xa5] || !(6..=MAX_FRAME).contains(&len) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut rest = vec![0; len - 4];
    stream.read_exact(&mut rest).await?;
    match rest.strip_suffix(&[0xa7, 0xa7]) {
        Some(json) => Ok(serde_json::from_slice(json)?),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}
