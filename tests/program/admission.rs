//! Clients that are locked out. The lockout lasts a minute, and tests start in the order of their names: here it begins with the
//! first of them, and passes beside the others.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use skips::is_missing;

use crate::clients::mqtt::{Hello, hello_bytes};
use crate::clients::programs::{PATIENCE, Program};
use crate::clients::proxy::{self, CODE, HOME};
use crate::mqtt::{Lan, holds, mosquitto};
use printer::Model;

/// Issue 14, A16: an end during the TLS handshake would stop libmosquitto for good.
#[test]
fn mosquitto_reconnects_by_itself_after_a_lockout() {
    if is_missing("mosquitto_sub") {
        return;
    }
    proxy::run(async {
        let lan = Lan::new(Model::P1S).await;
        for n in 10..15 {
            let code = format!("7Kq2xW{n}");
            let hello = Hello { password: Some(code.as_bytes()), ..Hello::default() };
            let mut guesser = lan.proxy.tls_from(HOME).await.unwrap();
            guesser.write_all(&hello_bytes(&hello)).await.unwrap();
            let mut answer = [0; 4];
            timeout(PATIENCE, guesser.read_exact(&mut answer)).await.unwrap().unwrap();
        }
        lan.proxy.program.line("127.0.0.1: locked out for").await;
        let ca = lan.proxy.dir.file("ca.pem");
        let mut reader = mosquitto(&lan.proxy, "mosquitto_sub", &ca, CODE);
        reader.args(["-t", "device/+/report", "-C", "1"]);
        let reader = Program::start(&mut reader);
        lan.proxy.program.line("(127.0.0.1): client rejected: locked out after").await;
        // The lockout lasts a minute.
        assert!(reader.until(2 * PATIENCE, |said| holds(&said.out, b"\"msg\"")).await);
    });
}
