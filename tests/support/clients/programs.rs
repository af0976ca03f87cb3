//! Real programs as children: their output as it comes, their end, signals. None outlives its handle.

use core::pin::pin;
use core::time::Duration;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How long anything may take that a program does by itself, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Bytes kept of each output of a program; when exceeded, the test fails. Ten minutes of siege log over 8 MiB.
const MAX_OUTPUT: usize = 32 << 20;

/// A program that runs, or has run.
pub(crate) struct Program {
    child: Child,
    heard: Arc<Heard>,
}

/// The program's output so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
    /// How many of its two outputs are closed.
    closed: usize,
    /// Whether the handle of the program is gone.
    is_dropped: bool,
}

#[derive(Default)]
struct Heard {
    said: Mutex<Said>,
    changed: Notify,
}

impl Heard {
    fn listen(self: &Arc<Self>, mut from: impl Read + Send + 'static, is_log: bool) {
        let heard = Arc::clone(self);
        thread::spawn(move || {
            let mut piece = [0; 4096];
            loop {
                let len = from.read(&mut piece).unwrap_or(0);
                let mut said = heard.said.lock().unwrap();
                if said.is_dropped {
                    return;
                }
                if is_log {
                    said.err.push_str(&String::from_utf8_lossy(&piece[..len]));
                } else {
                    said.out.extend(&piece[..len]);
                }
                let over = len == 0 || said.out.len().max(said.err.len()) > MAX_OUTPUT;
                said.closed += usize::from(over);
                drop(said);
                heard.changed.notify_waiters();
                if over {
                    return;
                }
            }
        });
    }
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let heard = Arc::new(Heard::default());
        heard.listen(child.stdout.take().unwrap(), false);
        heard.listen(child.stderr.take().unwrap(), true);
        Self { child, heard }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn said(&self) -> Said {
        self.heard.said.lock().unwrap().clone()
    }

    pub(crate) fn log(&self) -> String {
        self.said().err
    }

    /// Lines of its log that hold `words`, whole ones only.
    pub(crate) fn lines_with(&self, words: &str) -> usize {
        self.log().split_inclusive('\n').filter(|line| is_line_with(line, words)).count()
    }

    /// The first line of its log that holds `words`, once there is one.
    pub(crate) async fn line(&self, words: &str) -> String {
        self.lines(words, 1).await
    }

    /// The `nth` line of its log that holds `words`, once there is one.
    pub(crate) async fn lines(&self, words: &str, nth: usize) -> String {
        let find = |said: &Said| {
            let mut lines = said.err.split_inclusive('\n').filter(|line| is_line_with(line, words));
            lines.nth(nth - 1).map(str::to_owned)
        };
        self.until(PATIENCE, |said| find(said).is_some()).await;
        find(&self.said()).unwrap_or_else(|| panic!("no {words:?} ({nth}) in:\n{}", self.log()))
    }

    /// Waits until `seen` returns true for the output. False after the timeout.
    pub(crate) async fn until(&self, within: Duration, seen: impl Fn(&Said) -> bool) -> bool {
        let end = Instant::now() + within;
        loop {
            let mut changed = pin!(self.heard.changed.notified());
            changed.as_mut().enable(); // before looking, or a change between would be missed
            if seen(&self.heard.said.lock().unwrap()) {
                return true;
            }
            if timeout_at(end, changed).await.is_err() {
                return seen(&self.heard.said.lock().unwrap());
            }
        }
    }

    /// Waits for the program's end. Returns its exit status and its output.
    pub(crate) async fn ended(&mut self) -> (Option<i32>, Said) {
        drop(self.child.stdin.take());
        let over = self.until(PATIENCE, |said| said.closed == 2).await;
        assert!(over, "it does not end:\n{}", self.log());
        // Its outputs are closed: it ends now or has ended.
        let status = self.child.wait().unwrap();
        (status.code(), self.said())
    }

    /// Sends it a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &self.id().to_string()])
            .status();
        assert!(sent.unwrap().success(), "SIG{name}");
    }

    /// Its standard input.
    pub(crate) fn stdin(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().unwrap()
    }

    /// Gives it a line on its standard input.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.stdin(), "{line}").unwrap();
        self.stdin().flush().unwrap();
    }

    /// A figure of `/proc/PID/status`, in bytes.
    pub(crate) fn memory(&self, figure: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(figure)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }
}

/// Writes an executable file. A program of its own does it: while another test starts a child, that child has what is
/// open here until its `exec`, and the kernel runs no file that is open for writing ("Text file busy").
pub(crate) fn executable(path: &Path, content: &[u8]) {
    let mut shell = Command::new("sh");
    shell.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    shell.stdin.take().unwrap().write_all(content).unwrap();
    assert!(shell.wait().unwrap().success(), "{}", path.display());
}

fn is_line_with(line: &str, words: &str) -> bool {
    line.ends_with('\n') && line.contains(words)
}

impl Drop for Program {
    fn drop(&mut self) {
        // The program may have ended already.
        let _ended = self.child.kill();
        let _code = self.child.wait();
        // The threads that read its outputs end a little later: what they hold would be counted in the next test.
        if let Ok(mut said) = self.heard.said.lock() {
            *said = Said { is_dropped: true, ..Said::default() };
        }
    }
}
