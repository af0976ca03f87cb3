//! A real vsFTPd in the printer's place, as X1, H2 and P2 have one.
//!
//! The server is run as by inetd, one process group for each session, on a socket that was accepted here: so the system
//! chooses the port, and each session can be killed by its id. It has implicit TLS 1.2, requires data connections to resume
//! the control connection's session, and has a local user `bblp`: files that an anonymous user uploads cannot be read
//! again (`550`).
//!
//! Nothing of the machine is changed. The user is made up by `libnss_wrapper`; PAM's configuration is the Debian package's.
//! vsFTPd has to run as root to log in local users.

use core::ops::RangeInclusive;
use std::env;
use std::fs::{self, File};
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Its path in Debian, which is not in the `PATH` of users.
const PROGRAM: &str = "/usr/sbin/vsftpd";

/// The library that makes up its user.
const WRAPPER: &str = "libnss_wrapper.so";

/// The user id that it serves files with: `nobody`.
const NOBODY: u32 = 65534;

/// Sessions at once; further connections are closed.
pub(crate) const MAX_SESSIONS: usize = 8;

/// A server's configuration, and its sessions.
pub(crate) struct Vsftpd {
    folder: PathBuf,
    sessions: Vec<Session>,
}

/// One session's processes. Dropping it ends them.
struct Session(Child);

impl Vsftpd {
    /// What this machine lacks to run it.
    pub(crate) fn lacks() -> Option<&'static str> {
        // This process's own folder belongs to its user.
        let user =
            fs::metadata("/proc/self").ok().map(|own| std::os::unix::fs::MetadataExt::uid(&own));
        if !Path::new(PROGRAM).is_file() {
            Some("vsftpd")
        } else if !has_library(WRAPPER) {
            Some("libnss-wrapper")
        } else if user != Some(0) {
            Some("root, whom vsftpd needs to log in local users")
        } else {
            None
        }
    }

    /// A server that keeps its files in `folder`, has the certificate of an X1C, and accepts user `bblp` with `code`. Its data
    /// ports are of `ports`, if they are given.
    pub(crate) fn new(
        folder: &Path,
        code: &str,
        ports: Option<RangeInclusive<u16>>,
    ) -> io::Result<Self> {
        let files = folder.join("files");
        fs::create_dir_all(&files)?;
        chown(&files, Some(NOBODY), Some(NOBODY))?;
        let hash = hash(code)?;
        let user = format!("bblp:{hash}:{NOBODY}:{NOBODY}::{}:/bin/sh\n", files.display());
        fs::write(folder.join("passwd"), fs::read_to_string("/etc/passwd")? + &user)?;
        fs::set_permissions(folder.join("passwd"), fs::Permissions::from_mode(0o600))?;
        let pki = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/printer/pki");
        let mut given = format!(
            "listen=NO\n\
             background=NO\n\
             anonymous_enable=NO\n\
             local_enable=YES\n\
             pam_service_name=vsftpd\n\
             session_support=NO\n\
             write_enable=YES\n\
             local_umask=022\n\
             local_root={files}\n\
             chroot_local_user=YES\n\
             allow_writeable_chroot=YES\n\
             isolate=NO\n\
             isolate_network=NO\n\
             seccomp_sandbox=NO\n\
             ssl_enable=YES\n\
             implicit_ssl=YES\n\
             ssl_tlsv1=YES\n\
             ssl_ciphers=HIGH\n\
             require_ssl_reuse=YES\n\
             force_local_data_ssl=YES\n\
             force_local_logins_ssl=YES\n\
             rsa_cert_file={pki}/x1c.pem\n\
             rsa_private_key_file={pki}/x1c.key\n\
             log_ftp_protocol=YES\n\
             xferlog_enable=YES\n\
             vsftpd_log_file={log}\n",
            files = files.display(),
            log = folder.join("vsftpd.log").display(),
        );
        if let Some(ports) = ports {
            given += &format!("pasv_min_port={}\npasv_max_port={}\n", ports.start(), ports.end());
        }
        fs::write(folder.join("vsftpd.conf"), given)?;
        // Printers have TLS 1.2, and this version has no switch for it.
        fs::write(
            folder.join("openssl.cnf"),
            "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n[tls]\n\
             MaxProtocol = TLSv1.2\n",
        )?;
        Ok(Self { folder: folder.to_owned(), sessions: Vec::new() })
    }

    /// Serves one connection.
    pub(crate) fn serve(&mut self, connection: TcpStream) -> io::Result<()> {
        self.sessions.retain_mut(|Session(child)| matches!(child.try_wait(), Ok(None)));
        if self.sessions.len() == MAX_SESSIONS {
            return Ok(());
        }
        connection.set_nonblocking(false)?;
        let socket = OwnedFd::from(connection);
        let child = Command::new(PROGRAM)
            .arg(self.folder.join("vsftpd.conf"))
            .env_clear()
            .env("LD_PRELOAD", WRAPPER)
            .env("NSS_WRAPPER_PASSWD", self.folder.join("passwd"))
            .env("NSS_WRAPPER_GROUP", "/etc/group")
            .env("OPENSSL_CONF", self.folder.join("openssl.cnf"))
            .stdin(Stdio::from(socket.try_clone()?))
            .stdout(Stdio::from(socket))
            .stderr(File::create(self.folder.join("vsftpd.err"))?)
            .process_group(0)
            .spawn()?;
        self.sessions.push(Session(child));
        Ok(())
    }

    /// Kills all sessions.
    pub(crate) fn kill_all(&mut self) {
        self.sessions.clear();
    }

    /// The folder that its user sees as `/`.
    pub(crate) fn files(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// The path of a file on it, which need not exist. Its user's paths begin with `/`.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.files().join(path.trim_start_matches('/'))
    }

    /// Its log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("vsftpd.log")).unwrap_or_default()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // All of its processes are in the group of the first.
        let group = format!("-{}", self.0.id());
        let _may_have_ended =
            Command::new("kill").args(["-s", "KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ended = self.0.wait();
    }
}

/// Whether the loader finds a library of this name.
fn has_library(name: &str) -> bool {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut folders = folders.map(|entry| entry.path()).chain([PathBuf::from("/usr/lib")]);
    folders.any(|folder| folder.join(name).is_file())
}

/// A code as `/etc/passwd` has it.
fn hash(code: &str) -> io::Result<String> {
    let mut openssl = Command::new("openssl")
        .args(["passwd", "-5", "-stdin"])
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = openssl.stdin.take() {
        io::Write::write_all(&mut stdin, code.as_bytes())?;
    }
    let said = openssl.wait_with_output()?;
    Ok(String::from_utf8_lossy(&said.stdout).trim_end().to_owned())
}
