//! A simulated printer to run by hand, for the demo, or for a proxy under test.
//!
//! ```text
//! cargo run --example printer -- --model p1s --port 8883
//! mosquitto_sub -p 8883 --cafile tests/printer/pki/ca.pem --insecure -u bblp -P 12345678 \
//!     -t device/01P00A3C1200417/report
//! ```
//!
//! With `--camera-port 6000` it has a chamber camera as well; with `--rtsp-port 322 --tunnel-port 6000`
//! what an X1, H2 or P2 has instead:
//!
//! ```text
//! cargo run --example printer -- --model x1c --rtsp-port 3220
//! ffplay rtsps://bblp:12345678@127.0.0.1:3220/streaming/live/1
//! ```
//!
//! It prints where it listens, then one line for each connection, greeting, filter, request and end.

use core::future::pending;
use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use core::ops::RangeInclusive;
use core::pin::Pin;
use core::time::Duration;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use socket2::{Domain, Socket, Type};
use tokio::runtime::{Builder, LocalOptions};
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};

use printer::ftp::{Family, FileServer};
use printer::ssdp::{Announcements, Announcer};
use printer::{Camera, Detect, Event, Model, Printer, Rtsp, Tunnel, camera, rtsp};

/// A simulated Bambu Lab printer: its MQTT service with TLS, and its made-up reports.
#[derive(Parser)]
#[command(name = "printer")]
struct Arguments {
    /// Which printer: p1s, a1mini, x1c or h2d
    #[arg(long, value_parser = model)]
    model: Model,
    /// Port to listen on; 0 takes any that is free
    #[arg(long, default_value_t = 8883)]
    port: u16,
    /// Access code that clients have to know
    #[arg(long, default_value = "12345678")]
    access_code: String,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Bytes that full states are padded to
    #[arg(long, value_name = "N")]
    state_bytes: Option<usize>,
    /// Milliseconds between reports sent unasked; 0 sends none
    #[arg(long, value_name = "MS")]
    deltas_every: Option<u64>,
    /// Indent the JSON by four spaces, whatever the model does
    #[arg(long)]
    indented: bool,
    /// Port of the chamber camera; 0 takes any that is free, without the option there is none
    #[arg(long, value_name = "PORT")]
    camera_port: Option<u16>,
    /// Pictures a second, up to 1000; 0 sends them as fast as viewers take them
    #[arg(long, value_name = "N", default_value = "0.5", value_parser = period)]
    fps: Duration,
    /// Viewers that the camera serves at once; more of them hang
    #[arg(long, value_name = "N", default_value_t = 1)]
    camera_viewers: usize,
    /// Port of the RTSPS camera; 0 takes any that is free, without the option there is none
    #[arg(long, value_name = "PORT")]
    rtsp_port: Option<u16>,
    /// What the RTSPS camera shows: h264 or h265
    #[arg(long, value_name = "CODEC", default_value = "h264", value_parser = rtsp_codec)]
    rtsp_codec: rtsp::Codec,
    /// Sessions that the RTSPS camera has at once; SETUP of more is refused
    #[arg(long, value_name = "N", default_value_t = 4)]
    rtsp_sessions: usize,
    /// Port of the file tunnel that such printers have on 6000; without, there is none
    #[arg(long, value_name = "PORT")]
    tunnel_port: Option<u16>,
    /// Port on which it tells which printer it is, without TLS (3000 at printers); without, there is none
    #[arg(long, value_name = "PORT")]
    detect_port: Option<u16>,
    /// The same over TLS (3002 at printers)
    #[arg(long, value_name = "PORT")]
    detect_tls_port: Option<u16>,
    /// Announce itself in the LAN, as being at the address of --bind
    #[arg(long)]
    announce: bool,
    /// Port of its FTPS server; 0 takes any that is free. Without, there is none
    #[arg(long)]
    ftp_port: Option<u16>,
    /// Whose ways the FTPS server has: esp32 or vsftpd. Default: the model's
    #[arg(long, value_parser = ftp_family)]
    ftp_family: Option<Family>,
    /// Bytes a second that its disk takes and gives
    #[arg(long, value_name = "BYTES")]
    ftp_rate: Option<u64>,
    /// Ports of its data connections, for example 2024-2043
    #[arg(long, value_name = "FROM-TO", value_parser = ftp_ports)]
    ftp_data_ports: Option<RangeInclusive<u16>>,
}

/// Between two pictures, from how many there are in a second.
fn period(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(0.0) => Ok(Duration::ZERO),
        Ok(fps) if (0.001..=1000.0).contains(&fps) => Ok(Duration::from_secs_f64(1.0 / fps)),
        Ok(_) | Err(_) => Err("takes 0, or 0.001 to 1000".to_owned()),
    }
}

fn rtsp_codec(text: &str) -> Result<rtsp::Codec, String> {
    match text {
        "h264" => Ok(rtsp::Codec::H264),
        "h265" => Ok(rtsp::Codec::H265),
        _ => Err("takes h264 or h265".to_owned()),
    }
}

fn ftp_family(text: &str) -> Result<Family, String> {
    match text {
        "esp32" => Ok(Family::Esp32),
        "vsftpd" => Ok(Family::Vsftpd),
        _ => Err("takes esp32 or vsftpd".to_owned()),
    }
}

fn ftp_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) if 0 < from && from <= to => Ok(from..=to),
        _ => Err("takes two ports, the lower one first: 2024-2043".to_owned()),
    }
}

fn model(text: &str) -> Result<Model, String> {
    match text {
        "p1s" => Ok(Model::P1S),
        "a1mini" => Ok(Model::A1Mini),
        "x1c" => Ok(Model::X1C),
        "h2d" => Ok(Model::H2D),
        _ => Err("takes p1s, a1mini, x1c or h2d".to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let served = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .and_then(|runtime| runtime.block_on(serve(&arguments)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&mut io::stderr(), format_args!("printer: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What has to be polled for a service, for ever if there is none.
type Served = Pin<Box<dyn Future<Output = ()>>>;

async fn serve(arguments: &Arguments) -> io::Result<()> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let printer = prepared(arguments);
    let (address, serving) =
        printer.listen_tls(SocketAddr::new(arguments.bind, arguments.port)).await?;
    let out = &mut io::stdout();
    say(out, format_args!("listening on {address}"));
    let watching: Served = match arguments.camera_port {
        None => Box::pin(pending()),
        Some(port) => {
            let at = SocketAddr::new(arguments.bind, port);
            let (address, watching) = camera(arguments).listen_tls(at, arguments.model).await?;
            say(out, format_args!("camera listening on {address}"));
            Box::pin(watching)
        }
    };
    let playing: Served = match arguments.rtsp_port {
        None => Box::pin(pending()),
        Some(port) => {
            let at = SocketAddr::new(arguments.bind, port);
            let (address, playing) = rtsps(arguments).listen_tls(at, arguments.model).await?;
            say(out, format_args!("rtsp listening on {address}"));
            Box::pin(playing)
        }
    };
    let tunnelling: Served = match arguments.tunnel_port {
        None => Box::pin(pending()),
        Some(port) => {
            let at = SocketAddr::new(arguments.bind, port);
            let tunnel = Tunnel::new().code(&arguments.access_code);
            let (address, tunnelling) = tunnel.listen_tls(at, arguments.model).await?;
            say(out, format_args!("tunnel listening on {address}"));
            Box::pin(tunnelling)
        }
    };
    let detect = Detect::new(arguments.model);
    let telling: Served = match arguments.detect_port {
        None => Box::pin(pending()),
        Some(port) => {
            let (address, telling) = detect.listen(SocketAddr::new(arguments.bind, port)).await?;
            say(out, format_args!("detect listening on {address}"));
            Box::pin(telling)
        }
    };
    let telling_over_tls: Served = match arguments.detect_tls_port {
        None => Box::pin(pending()),
        Some(port) => {
            let at = SocketAddr::new(arguments.bind, port);
            let (address, telling) = detect.listen_tls(at, arguments.model).await?;
            say(out, format_args!("detect-tls listening on {address}"));
            Box::pin(telling)
        }
    };
    say(out, format_args!("serial {}", printer.serial()));
    say(out, format_args!("access code {}", arguments.access_code));
    say(out, format_args!("ca {}/tests/printer/pki/ca.pem", env!("CARGO_MANIFEST_DIR")));
    let files = file_server(arguments);
    let serving_files: Served = match arguments.ftp_port {
        None => Box::pin(pending()),
        Some(port) => {
            let at = SocketAddr::new(arguments.bind, port);
            let (address, serving) = files.listen_tls(at, arguments.model).await?;
            say(out, format_args!("ftp on {address}"));
            Box::pin(serving)
        }
    };
    let announcing: Served = match arguments.bind {
        IpAddr::V4(address) if arguments.announce => {
            Box::pin(announcing(arguments.model, address)?)
        }
        IpAddr::V4(_) | IpAddr::V6(_) => Box::pin(pending()),
    };
    select! {
        () = serving => {}
        () = announcing => {}
        () = watching => {}
        () = playing => {}
        () = tunnelling => {}
        () = telling => {}
        () = telling_over_tls => {}
        () = serving_files => {}
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    Ok(())
}

/// Its announcements, from a port that the slicers and proxies of this machine share.
fn announcing(model: Model, address: Ipv4Addr) -> io::Result<impl Future<Output = ()>> {
    let of = match model {
        Model::P1S => Announcer::P1S,
        Model::A1Mini => Announcer::A1,
        Model::X1C | Model::H2D => Announcer::H2D,
    };
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddrV4::new(address, of.source_port()).into())?;
    let announcements = Announcements::new(of, model.serial(), address);
    // A network that is down loses an announcement; the next may leave.
    Ok(announcements.run(move |text, to| drop(socket.send_to(text, &to.into()))))
}

fn prepared(arguments: &Arguments) -> Printer {
    let mut printer = Printer::new(arguments.model).code(&arguments.access_code).narrate(narrate);
    if let IpAddr::V4(address) = arguments.bind
        && address != Ipv4Addr::UNSPECIFIED
    {
        printer = printer.address(address);
    }
    if let Some(bytes) = arguments.state_bytes {
        printer = printer.state_bytes(bytes);
    }
    if let Some(period) = arguments.deltas_every {
        printer = printer.deltas_every(Duration::from_millis(period));
    }
    if arguments.indented {
        printer = printer.indented(true);
    }
    printer
}

fn camera(arguments: &Arguments) -> Camera {
    Camera::new()
        .code(&arguments.access_code)
        .viewers(arguments.camera_viewers)
        .every(arguments.fps)
        .narrate(narrate_camera)
}

fn narrate_camera(event: camera::Event) {
    use camera::Event;
    let out = &mut io::stdout();
    match event {
        Event::Connected(connection) => say(out, format_args!("camera {connection}: connected")),
        Event::Refused => say(out, format_args!("camera: a connection refused")),
        Event::Watching(connection) => say(out, format_args!("camera {connection}: watching")),
        Event::Ended(connection, ending) => {
            say(out, format_args!("camera {connection}: {ending}"));
        }
    }
}

fn rtsps(arguments: &Arguments) -> Rtsp {
    let media = match arguments.rtsp_codec {
        rtsp::Codec::H264 => rtsp::Media::h264(),
        rtsp::Codec::H265 => rtsp::Media::h265(),
    };
    Rtsp::new()
        .code(&arguments.access_code)
        .showing(media)
        .sessions(arguments.rtsp_sessions)
        .narrate(narrate_rtsp)
}

fn narrate_rtsp(event: &rtsp::Event<'_>) {
    use rtsp::Event;
    let out = &mut io::stdout();
    match event {
        Event::Connected(connection) => say(out, format_args!("rtsp {connection}: connected")),
        Event::Refused => say(out, format_args!("rtsp: a connection refused")),
        Event::Requested(request) => say(
            out,
            format_args!(
                "rtsp {}: {} {:?}, answered {}",
                request.connection, request.method, request.uri, request.status
            ),
        ),
        Event::Ended(connection, ending) => say(out, format_args!("rtsp {connection}: {ending}")),
    }
}

fn file_server(arguments: &Arguments) -> FileServer {
    let family = arguments.ftp_family.unwrap_or(match arguments.model {
        Model::P1S | Model::A1Mini => Family::Esp32,
        Model::X1C | Model::H2D => Family::Vsftpd,
    });
    let mut files = FileServer::new(family).code(&arguments.access_code);
    if let Some(rate) = arguments.ftp_rate {
        files = files.rate(rate);
    }
    if let Some(ports) = arguments.ftp_data_ports.clone() {
        files = files.data_ports(ports);
    }
    files
}

fn narrate(event: &Event<'_>) {
    let out = &mut io::stdout();
    match event {
        Event::Connected(connection) => say(out, format_args!("{connection}: connected")),
        Event::Refused => say(out, format_args!("a connection refused")),
        Event::Greeted(hello) => say(
            out,
            format_args!(
                "{}: client {:?}, keep alive {} s, answered {}",
                hello.connection, hello.client_id, hello.keep_alive, hello.answer
            ),
        ),
        Event::Subscribed(connection, filter) => {
            say(out, format_args!("{connection}: subscribes to {filter:?}"));
        }
        Event::Requested(request) => {
            let shown = request.payload.get(..MAX_SHOWN).unwrap_or(&request.payload);
            say(
                out,
                format_args!(
                    "{}: request of {} bytes, qos {}: {}",
                    request.connection,
                    request.payload.len(),
                    request.qos,
                    shown.escape_ascii()
                ),
            );
        }
        Event::Ended(connection, ending) => say(out, format_args!("{connection}: {ending}")),
    }
}

/// How much of a request is shown, in bytes.
const MAX_SHOWN: usize = 160;

/// Prints one line. A closed pipe does not end the printer.
fn say(out: &mut dyn Write, line: core::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
