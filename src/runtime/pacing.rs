//! Socket buffers of uploads: how far a client may be ahead of the printer.
//!
//! A client that has sent its last byte waits for the printer's 226, often no longer than ten seconds. A printer stores
//! 75 to 300 kB/s, so the kernel may hold little between client and printer: with the sizes that Linux chooses by itself,
//! more than a megabyte, uploads fail that succeed without the proxy. [`limit_unread`] and [`limit_unsent`] keep the client
//! less than 64 KiB ahead of what the printer has acknowledged, and allow 2 MB/s with a round trip of 10 ms.
//!
//! Over loopback, before a printer that reads nothing, a client sends 47 kB, with the smallest buffers of its own and of
//! the printer's. What a client's system keeps in its send buffer comes on top: see
//! [`pace`](crate::runtime::files::pace).

use std::io;

use crate::printer::model::FileServer;
use crate::runtime::net::{Connection, Listener};

/// Receive buffer of an upload in bytes; the kernel doubles it and offers the peer half of that.
pub const RECEIVE_BUFFER: usize = 24 * 1024;

/// The same before a printer with an ESP32 (A1, P1), which itself offers some 6 KiB. With 24 KiB the client's system has a
/// larger send buffer: at 75 kB/s the 226 follows the last byte after 8.6 s in place of 4.3 s, at 150 kB/s after 3.5 in place of 2.9 s.
pub const ESP32_RECEIVE_BUFFER: usize = 6 * 1024;

/// The receive buffer of uploads to a printer with this server.
pub const fn receive_buffer(server: FileServer) -> usize {
    match server {
        FileServer::Esp32 => ESP32_RECEIVE_BUFFER,
        FileServer::Vsftpd => RECEIVE_BUFFER,
    }
}

/// Largest segment of an upload in bytes: Ethernet's. Over loopback a segment would be larger than the receive window, and
/// each one would wait for a timer.
const SEGMENT: u32 = 1460;

/// Send buffer towards the printer in bytes; the kernel doubles it and counts its own overhead.
const SEND_BUFFER: usize = 16 * 1024;

/// Limits what the kernel receives on connections to `listener` before the proxy has read it, to `bytes`. Has to be called
/// before the first connection comes: connections inherit the sizes in their handshake.
///
/// # Errors
///
/// The options cannot be set.
pub fn limit_unread(listener: &impl Listener, bytes: usize) -> io::Result<()> {
    let Some(socket) = listener.socket() else { return Ok(()) };
    socket.set_recv_buffer_size(bytes)?;
    socket.set_tcp_mss(SEGMENT)
}

/// The same for a connection that was accepted already: the window that its handshake offered, 64 KiB at most, stays.
///
/// # Errors
///
/// The option cannot be set: the connection is lost.
pub fn limit_unread_of(connection: &impl Connection) -> io::Result<()> {
    let Some(socket) = connection.socket() else { return Ok(()) };
    socket.set_recv_buffer_size(RECEIVE_BUFFER)
}

/// Data that the kernel takes before it has sent them to the printer, in bytes. What is sent and not acknowledged is not
/// counted, so this costs no speed.
pub(super) const UNSENT: u32 = 8 * 1024;

/// Limits what the kernel keeps of data that the printer has not acknowledged.
///
/// # Errors
///
/// The option cannot be set: the connection is lost.
pub fn limit_unsent(connection: &impl Connection) -> io::Result<()> {
    let Some(socket) = connection.socket() else { return Ok(()) };
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_notsent_lowat(UNSENT)
}

#[cfg(test)]
pub(crate) mod tests {
    use core::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tokio::time::timeout;

    /// Most bytes that a client may be ahead of a printer that takes nothing, with the smallest buffers of its own.
    pub(crate) const MAX_AHEAD: usize = 64 * 1024;

    /// A printer's listener with the smallest buffers.
    pub(crate) fn printer() -> TcpListener {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.listen(1).unwrap()
    }

    /// How many bytes `client` sends until nothing more is taken.
    pub(crate) async fn ahead(client: &mut TcpStream) -> usize {
        socket2::SockRef::from(&*client).set_send_buffer_size(4096).unwrap();
        let mut sent = 0;
        let piece = [7; 1024];
        while let Ok(written) = timeout(Duration::from_millis(500), client.write(&piece)).await {
            sent += written.unwrap();
            assert!(sent < 10_000_000, "nothing limits it");
        }
        std::println!("{sent} bytes ahead");
        sent
    }
}
