//! File transfers of proxy mode: one data task per printer session, which copies data between the printer's data
//! connection and a client's.
//!
//! ```text
//!   Connect ─► TCP to the printer ─► Copy ─► TLS on both with PROT P ─► copy ─► close_notify and FIN on both
//! ```
//!
//! One buffer, one direction: more is read only after all has been written. Until all data have been copied, both
//! connections are reset (RST) when they are dropped, so that neither end takes a part of the data for the whole.
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | data between client and printer | [`FTP_BUFFER`] bytes, the TLS records, and the sockets' buffers ([`pacing`](crate::runtime::pacing)) | the sender waits |
//! | how fast a slow printer's client is read | [as fast as the printer takes it](super::pace) | the client waits |
//! | TCP to the printer | [`CONNECT_TIMEOUT`] | [`DataEvent::Unreachable`] |
//! | TLS with either | [`HANDSHAKE_TIMEOUT`] | [`DataEvent::Failed`] |
//! | no data copied | [`STALL_TIMEOUT`] | [`TransferError::Stalled`] |

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::net::{IpAddr, SocketAddr};
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::pace::{Pace, Paced};
use super::passive::PassivePorts;
use crate::counts::{self, Count};
use crate::ftp::printer_session::{
    DataCommand, DataCopy, DataEvent, PrinterSession, TransferError,
};
use crate::ftp::slot::Prot;
use crate::memory::budget::FTP_BUFFER;
use crate::printer::model::FileServer;
use crate::runtime::Clock;
use crate::runtime::net::{Connection, Net, Sockets};
use crate::runtime::pacing::limit_unsent;
use crate::runtime::stream;
use crate::tls::{ClientStream, ServerConfig, ServerStream, Trust, accept, connect};
use crate::trace::{self, Party, Protocol, Tap};

/// Time to connect to the printer's data port.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the TLS handshake on a data connection.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time without data after which a transfer fails.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Delay before an upload that ends without close_notify counts as complete. A client that was killed loses its control
/// connection at the same moment, which aborts the upload within this time.
const NO_CLOSE_NOTIFY_DELAY: Duration = Duration::from_secs(1);

/// Time to end a client's data connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for which an end is still read after all data have been copied, so that its own close_notify does not meet a closed
/// socket.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// TCP user timeout of a data connection to the printer: longer than [`STALL_TIMEOUT`], since a printer that writes to its
/// card closes its receive window for a while.
const USER_TIMEOUT: Duration = Duration::from_secs(120);

/// Connects to the printer's data ports, at the address of its control connection.
pub struct DataDialler<N: Net = Sockets> {
    /// The network.
    pub net: N,
    /// The address of the last control connection.
    pub at: Rc<Cell<Option<IpAddr>>>,
}

impl<N: Net> DataDialler<N> {
    /// A connection to one of them, without a deadline of its own. `None`: the port is closed, or there
    /// has been no control connection.
    async fn reach(&self, port: u16) -> Option<N::Connection> {
        let connection = self.net.connect(SocketAddr::new(self.at.get()?, port)).await.ok()?;
        // Options that cannot be set belong to a lost connection, which the transfer reports.
        let _lost = stream::tune_upstream(&connection);
        if let Some(socket) = connection.socket() {
            let _lost = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
        }
        let _lost = limit_unsent(&connection);
        Some(connection)
    }
}

/// Copies the data of one of the printer's sessions.
pub struct DataTask<N: Net> {
    /// The session.
    pub printer_session: Rc<PrinterSession>,
    /// Connects to the printer's data ports.
    pub printer: DataDialler<N>,
    /// The printer's FTP server.
    pub server: FileServer,
    /// The data ports of the clients.
    pub passive_ports: Rc<PassivePorts<N>>,
    /// What the printer's certificate has to be, with the TLS session of the control connection.
    pub trust: Trust,
    /// The proxy's certificates, for the clients.
    pub tls: Arc<ServerConfig>,
    /// The clock.
    pub clock: Clock,
}

impl<N: Net> DataTask<N> {
    /// The body of the task.
    pub async fn run(self) {
        let mut buffer = Vec::with_capacity(FTP_BUFFER);
        let _limit = counts::hold("ftp", Count::TransfersLimit);
        let mut command = self.printer_session.next_command().await;
        loop {
            command = match command {
                DataCommand::Connect { port } => self.serve(port, &mut buffer).await,
                // About a transfer that is over.
                DataCommand::Copy(_) | DataCommand::Close => {
                    self.printer_session.next_command().await
                }
            };
        }
    }

    /// One data connection to the printer, from its beginning to its end. Gives the next command.
    async fn serve(&self, port: u16, buffer: &mut Vec<u8>) -> DataCommand {
        let printer = tokio::select! {
            biased;
            () = self.printer_session.interrupted() => return self.printer_session.next_command().await,
            printer = self.connect(port) => printer,
        };
        let Some(printer) = printer else {
            self.printer_session.report(DataEvent::Unreachable);
            return self.printer_session.next_command().await;
        };
        self.printer_session.report(DataEvent::Connected);
        let command = self.printer_session.next_command().await;
        let DataCommand::Copy(job) = command else { return command };
        let Some(client) = self.passive_ports.take(job.slot) else {
            self.printer_session.report(DataEvent::Failed(TransferError::Client));
            return self.printer_session.next_command().await;
        };
        // The buffer is kept from the first transfer on.
        buffer.resize(FTP_BUFFER, 0);
        let _transfer = counts::hold("ftp", Count::Transfers);
        tokio::select! {
            biased;
            () = self.printer_session.interrupted() => {}
            () = self.carry(job, client, printer, buffer) => {}
        }
        self.printer_session.next_command().await
    }

    async fn connect(&self, port: u16) -> Option<N::Connection> {
        let wire = timeout(CONNECT_TIMEOUT, self.printer.reach(port)).await.ok()??;
        wire.set_reset_on_drop(true);
        Some(wire)
    }

    async fn carry(
        &self,
        job: DataCopy,
        client: N::Connection,
        printer: N::Connection,
        buffer: &mut [u8],
    ) {
        client.set_reset_on_drop(true);
        let private = job.prot == Prot::Private;
        let mut taps = self.taps(&client, &printer);
        let pace = Rc::default();
        let client = Paced::new(client, &pace);
        let handshake = async {
            let client = self.client(client, private).await.ok_or(TransferError::ClientTls)?;
            let printer = self.printer(printer, private).await.ok_or(TransferError::PrinterTls)?;
            Ok((client, printer))
        };
        let (mut client, mut printer) = match handshake.await {
            Ok(both) => both,
            Err(failure) => return self.printer_session.report(DataEvent::Failed(failure)),
        };
        if job.upload {
            pace.begin(self.server);
            let from = (&mut client, TransferError::Client);
            let to = (&mut printer, TransferError::Printer);
            let [client_tap, printer_tap] = &mut taps;
            let taps = (client_tap.as_mut(), printer_tap.as_mut());
            let moved =
                match copy(&self.printer_session, &self.clock, from, to, taps, buffer, &pace).await
                {
                    Ok(()) => self.end_upload(&mut client, &mut printer).await,
                    Err(failure) => Err(failure),
                };
            self.report(moved);
            if moved.is_ok() {
                drop(client);
                drain(&mut printer, buffer).await;
            }
        } else {
            let from = (&mut printer, TransferError::Printer);
            let to = (&mut client, TransferError::Client);
            let [client_tap, printer_tap] = &mut taps;
            let taps = (printer_tap.as_mut(), client_tap.as_mut());
            let moved =
                match copy(&self.printer_session, &self.clock, from, to, taps, buffer, &pace).await
                {
                    Ok(()) => end_download(&mut client, &printer).await,
                    Err(failure) => Err(failure),
                };
            self.report(moved);
            if moved.is_ok() {
                drop(printer);
                drain(&mut client, buffer).await;
            }
        }
    }

    /// The recordings of both data connections, if traffic is recorded.
    fn taps(&self, client: &N::Connection, printer: &N::Connection) -> [Option<Tap>; 2] {
        let ends = (client.local_addr(), client.peer_addr(), printer.peer_addr());
        let (Ok(own), Ok(from), Ok(to)) = ends else { return [None, None] };
        let client = (own.port(), Party::Client(from.ip()));
        [client, (to.port(), Party::Printer)]
            .map(|(port, party)| trace::begin(Protocol::FtpData { port }, party, self.clock.now()))
    }

    fn report(&self, moved: Result<(), TransferError>) {
        self.printer_session.report(moved.map_or_else(DataEvent::Failed, |()| DataEvent::Copied));
    }

    async fn client(
        &self,
        wire: Paced<N::Connection>,
        private: bool,
    ) -> Option<Data<Paced<N::Connection>>> {
        if !private {
            return Some(Data::Clear(wire));
        }
        let stream = timeout(HANDSHAKE_TIMEOUT, accept(&self.tls, wire)).await.ok()?;
        stream.map(Data::Client).ok()
    }

    async fn printer(&self, wire: N::Connection, private: bool) -> Option<Data<N::Connection>> {
        if !private {
            return Some(Data::Clear(wire));
        }
        let stream = timeout(HANDSHAKE_TIMEOUT, connect(&self.trust, wire)).await.ok()?;
        match stream {
            Ok(stream) => Some(Data::Printer(stream)),
            Err(error) => {
                log::debug!("ftp: TLS on the printer's data connection: {error}");
                None
            }
        }
    }

    /// Ends both connections after the client's last byte. If the client was lost, this is interrupted.
    async fn end_upload(
        &self,
        client: &mut Data<Paced<N::Connection>>,
        printer: &mut Data<N::Connection>,
    ) -> Result<(), TransferError> {
        if !client.has_close_notify() {
            tokio::time::sleep(NO_CLOSE_NOTIFY_DELAY).await;
        }
        client.wire().wire().set_reset_on_drop(false);
        // Some clients wait for the close_notify before they read the control connection.
        let _told = timeout(CLOSE_TIMEOUT, client.shutdown()).await;
        printer.wire().set_reset_on_drop(false);
        // All bytes have been sent. Some printers fail to end their connection (see protocol::ftps), but their reply on the
        // control connection tells the outcome.
        let _told = timeout(STALL_TIMEOUT, printer.shutdown()).await;
        Ok(())
    }
}

/// Copies all data, and measures for `pace` how fast they are taken. The error beside each end is the result when that end
/// is lost.
async fn copy<F, T>(
    printer_session: &PrinterSession,
    clock: &Clock,
    (from, from_lost): (&mut F, TransferError),
    (to, to_lost): (&mut T, TransferError),
    (mut from_tap, mut to_tap): (Option<&mut Tap>, Option<&mut Tap>),
    buffer: &mut [u8],
    pace: &Pace,
) -> Result<(), TransferError>
where
    F: AsyncRead + Unpin,
    T: AsyncWrite + Unpin,
{
    let is_upload = from_lost == TransferError::Client;
    let upload = [Count::FromClient, Count::ToPrinter];
    let [received, sent] = if is_upload { upload } else { [Count::FromPrinter, Count::ToClient] };
    loop {
        let began = clock.now();
        let read = timeout(STALL_TIMEOUT, from.read(buffer)).await;
        let len = read.map_err(|_| TransferError::Stalled)?.map_err(|_| from_lost)?;
        counts::add("ftp", received, len as u64);
        let mut left = buffer.get(..len).unwrap_or_default();
        if let Some(tap) = &mut from_tap {
            tap.received(left, clock.now());
        }
        if len == 0 {
            break;
        }
        let received = clock.now();
        while !left.is_empty() {
            let wrote = timeout(STALL_TIMEOUT, to.write(left)).await;
            let wrote = wrote.map_err(|_| TransferError::Stalled)?.map_err(|_| to_lost)?;
            if wrote == 0 {
                return Err(to_lost);
            }
            counts::add("ftp", sent, wrote as u64);
            if let Some(tap) = &mut to_tap {
                tap.sent(left.get(..wrote).unwrap_or_default(), clock.now());
            }
            left = left.get(wrote..).unwrap_or_default();
        }
        let now = clock.now();
        pace.note_taken(len, now.since(began), now.since(received));
        printer_session.add_progress(now, len);
    }
    let flushed = timeout(STALL_TIMEOUT, to.flush()).await;
    flushed.map_err(|_| TransferError::Stalled)?.map_err(|_| to_lost)
}

/// Ends both connections after the printer's last byte. Its reply on the control connection tells whether the data are
/// complete.
async fn end_download<C: Connection, P: Connection>(
    client: &mut Data<Paced<C>>,
    printer: &Data<P>,
) -> Result<(), TransferError> {
    printer.wire().set_reset_on_drop(false);
    client.wire().wire().set_reset_on_drop(false);
    match timeout(STALL_TIMEOUT, client.shutdown()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(TransferError::Client),
        Err(_elapsed) => Err(TransferError::Stalled),
    }
}

/// Reads an end until it closes, for [`DRAIN_TIMEOUT`] at most.
async fn drain<W: AsyncRead + AsyncWrite + Unpin>(data: &mut Data<W>, buffer: &mut [u8]) {
    let listening = async { while matches!(data.read(buffer).await, Ok(1..)) {} };
    let _over = timeout(DRAIN_TIMEOUT, listening).await;
}

/// A data connection.
#[allow(clippy::large_enum_variant, reason = "there are two at a time, and neither is ever copied")]
enum Data<W> {
    Clear(W),
    Client(ServerStream<W>),
    Printer(ClientStream<W>),
}

impl<W: AsyncRead + AsyncWrite + Unpin> Data<W> {
    fn wire(&self) -> &W {
        match self {
            Self::Clear(wire) => wire,
            Self::Client(stream) => stream.below(),
            Self::Printer(stream) => stream.below(),
        }
    }

    /// Whether the peer sent close_notify.
    fn has_close_notify(&mut self) -> bool {
        match self {
            Self::Client(stream) => stream.has_sent_close_notify(),
            Self::Clear(_) | Self::Printer(_) => false,
        }
    }
}

impl<W: AsyncRead + AsyncWrite + Unpin> AsyncRead for Data<W> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Client(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Printer(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl<W: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Data<W> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Client(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Printer(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Self::Client(stream) => Pin::new(stream).poll_flush(cx),
            Self::Printer(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Client(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Printer(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AccessCode;
    use crate::ftp::Service;
    use crate::peer::Peer;
    use crate::printer::model::FileServer;
    use crate::runtime::pacing::receive_buffer;
    use crate::runtime::pacing::tests::{MAX_AHEAD, ahead, printer};
    use crate::runtime::test_runtime::{in_virtual_time, over_sockets};
    use tokio::io::{DuplexStream, duplex};
    use tokio::net::TcpStream;
    use tokio::task::{JoinHandle, spawn_local};
    use tokio::time::{Instant, sleep};

    const SECOND: Duration = Duration::from_secs(1);

    /// What came of it, and how many bytes were moved.
    type Copied = (Result<(), TransferError>, u64);

    /// A transfer over wires that hold ten bytes: the sender, the receiver, and what came of it.
    fn wired() -> (DuplexStream, DuplexStream, JoinHandle<Copied>) {
        let (sender, mut from) = duplex(10);
        let (receiver, mut to) = duplex(10);
        let copying = spawn_local(async move {
            let service = Service::new(AccessCode::new(b"12345678").unwrap(), 1);
            let printer_session = &service.printer_sessions()[0];
            let (from, to) =
                ((&mut from, TransferError::Client), (&mut to, TransferError::Printer));
            let copied = copy(
                printer_session,
                &Clock::start(),
                from,
                to,
                (None, None),
                &mut [0; 64],
                &Pace::default(),
            )
            .await;
            (copied, printer_session.bytes())
        });
        (sender, receiver, copying)
    }

    #[test]
    fn a_transfer_stalled_for_a_minute_fails() {
        in_virtual_time(async {
            // Of the sender's or the receiver's making.
            for sends in [3, 30] {
                let (mut sender, _receiver, copying) = wired();
                let since = Instant::now();
                let sending = spawn_local(async move {
                    let _gone = sender.write_all(&[7; 30][..sends]).await;
                    sender
                });
                let (copied, _) = copying.await.unwrap();
                assert_eq!(copied, Err(TransferError::Stalled));
                assert_eq!(since.elapsed().as_secs(), STALL_TIMEOUT.as_secs());
                drop(sending);
            }
        });
    }

    #[test]
    fn a_transfer_may_take_a_day_if_a_byte_moves_each_minute() {
        in_virtual_time(async {
            let (mut sender, mut receiver, copying) = wired();
            let since = Instant::now();
            let mut bytes = 0;
            while since.elapsed() < Duration::from_secs(24 * 60 * 60) {
                sleep(STALL_TIMEOUT - SECOND).await;
                sender.write_all(b"x").await.unwrap();
                receiver.read_exact(&mut [0]).await.unwrap();
                bytes += 1;
            }
            drop(sender);
            assert_eq!(copying.await.unwrap(), (Ok(()), bytes));
        });
    }

    #[test]
    fn the_end_that_was_lost_is_named() {
        in_virtual_time(async {
            let (mut sender, receiver, copying) = wired();
            drop(receiver);
            sender.write_all(b"x").await.unwrap();
            assert_eq!(copying.await.unwrap(), (Err(TransferError::Printer), 0));
        });
    }

    /// An upload as it was seen from both ends.
    struct Upload {
        /// Bytes that the client sent in each [`TICK`].
        sent: Vec<usize>,
        /// How long the printer had nothing to take.
        starved: Duration,
    }

    const TICK: Duration = Duration::from_millis(10);

    impl Upload {
        /// The most that the client sent in a tick after the first three seconds.
        fn largest_burst(&self) -> usize {
            self.sent.iter().skip(300).copied().max().unwrap_or_default()
        }
    }

    /// An upload from a client that sends whatever is taken, to a printer that `takes` so many bytes at once, each time with a
    /// pause. The wires hold what the kernel's buffers do.
    fn upload(server: FileServer, takes: &[(usize, Duration)]) -> Upload {
        in_virtual_time(async {
            let (mut client, wire) = duplex(6 * 1024);
            let (mut to, mut printer) = duplex(22 * 1024);
            let _copying = spawn_local(async move {
                let service = Service::new(AccessCode::new(b"12345678").unwrap(), 1);
                let session = &service.printer_sessions()[0];
                let pace = Rc::default();
                let mut from = Paced::new(wire, &pace);
                pace.begin(server);
                let ends = ((&mut from, TransferError::Client), (&mut to, TransferError::Printer));
                let mut buffer = alloc::vec![0; FTP_BUFFER];
                let clock = Clock::start();
                copy(session, &clock, ends.0, ends.1, (None, None), &mut buffer, &pace).await
            });
            let sending = spawn_local(async move {
                let began = Instant::now();
                let mut sent = Vec::new();
                while let Ok(bytes @ 1..) = client.write(&[7; 1460]).await {
                    let tick = (began.elapsed().as_millis() / TICK.as_millis()) as usize;
                    sent.resize(sent.len().max(tick + 1), 0);
                    sent[tick] += bytes;
                }
                sent
            });
            let mut starved = Duration::ZERO;
            for (bytes, pause) in takes {
                let asked = Instant::now();
                printer.read_exact(&mut alloc::vec![0; *bytes]).await.unwrap();
                starved += asked.elapsed();
                sleep(*pause).await;
            }
            drop(printer);
            Upload { sent: sending.await.unwrap(), starved }
        })
    }

    #[test]
    fn a_slow_printers_client_is_read_in_even_steps() {
        // A window of thirteen segments at 75, 150 and 300 kB/s, for 20 s.
        for rate in [75, 150, 300] {
            let pause = Duration::from_millis(18_824 / rate);
            let takes = alloc::vec![(18_824, pause); rate as usize * 20_000 / 18_824];
            let upload = upload(FileServer::Esp32, &takes);
            let even = rate as usize * 10;
            let burst = upload.largest_burst();
            assert!(burst <= 3 * even + 2 * 1460, "{burst} bytes at once at {rate} kB/s");
            assert!(upload.starved <= SECOND / 2, "{:?} at {rate} kB/s", upload.starved);
        }
    }

    #[test]
    fn a_fast_printers_client_is_read_without_rests() {
        let fast = [(16 * 1024, Duration::ZERO); 640];
        assert_eq!(upload(FileServer::Vsftpd, &fast).starved, Duration::ZERO);
        // An ESP32 has to show that it is fast.
        let first = upload(FileServer::Esp32, &fast).starved;
        assert!(first <= SECOND / 2, "{first:?}");
        // Two MB/s.
        let paced = [(64 * 1024, Duration::from_millis(32)); 300];
        let starved = upload(FileServer::Vsftpd, &paced).starved;
        assert!(starved <= SECOND / 2, "{starved:?}");
    }

    #[test]
    fn a_printer_that_paused_is_soon_served_at_its_speed() {
        let mut takes = alloc::vec![(15_000, Duration::from_millis(100)); 100];
        takes.push((15_000, Duration::from_secs(50)));
        takes.extend([(15_000, Duration::from_millis(50)); 200]);
        let starved = upload(FileServer::Esp32, &takes).starved;
        assert!(starved <= 2 * SECOND, "{starved:?}");
    }

    #[test]
    fn an_upload_is_only_a_little_ahead_of_the_printer() {
        let large = upload_ahead(receive_buffer(FileServer::Vsftpd));
        assert!(large <= MAX_AHEAD, "{large} bytes");
        // An ESP32 offers a small window itself.
        let small = upload_ahead(receive_buffer(FileServer::Esp32));
        assert!(small + 8 * 1024 < large, "{small} and {large} bytes");
    }

    /// Bytes that a client sends before a printer that reads nothing, with this receive buffer.
    fn upload_ahead(buffer: usize) -> usize {
        over_sockets(async {
            let home = IpAddr::from([127, 0, 0, 1]);
            let printer = printer();
            let service = Service::new(AccessCode::new(b"12345678").unwrap(), 1);
            let slot = service.pending(Peer::unknown()).unwrap();
            let passive_ports = PassivePorts::new(Sockets, home, 0..=0, buffer);
            let clock = Clock::start();
            let index = slot.slot().index();
            let port = passive_ports.open(index, &clock).unwrap();
            slot.slot().open_passive_port(clock.now());
            let connecting = TcpStream::connect((home, port));
            let mut client = tokio::select! {
                never = passive_ports.tend(&slot, home, &clock) => match never {},
                client = async {
                    let client = connecting.await.unwrap();
                    sleep(Duration::from_millis(100)).await;
                    client
                } => client,
            };
            let mut from = passive_ports.take(index).unwrap();
            let at = Rc::new(Cell::new(Some(home)));
            let data = DataDialler { net: Sockets, at };
            let mut to = data.reach(printer.local_addr().unwrap().port()).await.unwrap();
            let _printers_end = printer.accept().await.unwrap();
            let session = Rc::clone(&service.printer_sessions()[0]);
            let _copying = spawn_local(async move {
                let ends = ((&mut from, TransferError::Client), (&mut to, TransferError::Printer));
                copy(
                    &session,
                    &clock,
                    ends.0,
                    ends.1,
                    (None, None),
                    &mut [0; FTP_BUFFER],
                    &Pace::default(),
                )
                .await
            });
            ahead(&mut client).await
        })
    }
}
