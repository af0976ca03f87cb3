//! Everything at once, in an order that a seed decides. `PANDAPROXY_SEED=n cargo test …` runs that
//! one again.

use core::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tokio::io::DuplexStream;

use crate::clients::mqtt::{Client, Hello, PUBACK, PUBLISH, publish_bytes};
use crate::lan::oracle::Known;
use crate::lan::weather::Chance;
use crate::lan::{self, Proxy, Settings, WIRE, ms, pass, secs};
use printer::{Event, Model, Printer, Quirk};

const ACTIONS: usize = 200;
const CLIENTS: usize = 8;

/// One client of this play.
struct Player {
    client: Client<DuplexStream>,
    id: String,
    known: Known,
    /// Packet id and payload of what it has sent and whether that was acknowledged, until it was.
    sent: Vec<(u16, Vec<u8>, bool)>,
    open: bool,
    /// The client reads nothing for this many actions.
    asleep: usize,
}

impl Player {
    /// Reads all there is.
    async fn listen(&mut self, last: Option<&[u8]>) {
        if self.asleep > 0 || !self.open {
            return;
        }
        let mut matched = last.is_none();
        loop {
            let packet = match tokio::time::timeout(ms(20), self.client.next()).await {
                Ok(Some(packet)) => packet,
                Ok(None) => {
                    self.open = false;
                    return;
                }
                Err(_elapsed) => break,
            };
            if packet.kind() == PUBACK {
                let id = u16::from_be_bytes([packet.body[0], packet.body[1]]);
                let sent = self.sent.iter_mut().find(|sent| sent.0 == id).expect("it was sent");
                assert!(!sent.2, "{}: {id} is acknowledged once", self.id);
                sent.2 = true;
            } else if packet.kind() == PUBLISH {
                let report = packet.published().1;
                if last == Some(&*report) {
                    // The client's merged state must equal the full state that it gets now.
                    let mut known = self.known.state().expect("it knows a state").clone();
                    let told = lan::json(&report);
                    known["print"]["sequence_id"] = told["print"]["sequence_id"].clone();
                    assert_eq!(known, told, "{}", self.id);
                    matched = true;
                }
                self.known.learn(&report);
            }
        }
        assert!(matched, "{}: the last full state has come", self.id);
    }

    /// Each of its requests was acknowledged and received once, or its connection was closed.
    fn check(&mut self, received: &HashMap<Vec<u8>, usize>, action: usize) {
        if !self.open || self.asleep > 0 {
            return;
        }
        for (id, payload, acknowledged) in self.sent.drain(..) {
            assert!(acknowledged, "action {action}: {id} of {} is acknowledged", self.id);
            let times = received.get(&payload).copied().unwrap_or(0);
            assert_eq!(times, 1, "action {action}: {id} of {} was received", self.id);
        }
    }
}

#[test]
fn whatever_happens_nothing_is_lost_without_a_word() {
    let given = std::env::var("PANDAPROXY_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = match given {
        Some(seed) => vec![seed],
        None => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            vec![1, 2, now.as_millis() as u64 % 1_000_000_007]
        }
    };
    for seed in seeds {
        let played = std::panic::catch_unwind(|| lan::run(play(seed)));
        assert!(played.is_ok(), "PANDAPROXY_SEED={seed} shows it again");
    }
}

async fn play(seed: u64) {
    let mut chance = Chance(seed);
    let model = Model::ALL[chance.below(4) as usize];
    let received: Rc<RefCell<HashMap<Vec<u8>, usize>>> = Rc::default();
    let noting = Rc::clone(&received);
    let printer = Printer::new(model).deltas_every(secs(5)).narrate(move |event| {
        if let Event::Requested(request) = event {
            *noting.borrow_mut().entry(request.payload.clone()).or_default() += 1;
        }
    });
    let proxy = Proxy::with(
        &printer,
        Settings {
            rewrites: false,
            printer_wire: [512, 4096, WIRE][chance.below(3) as usize],
            ..Settings::default()
        },
    );
    proxy.live().await;
    let mut players: Vec<Player> = Vec::new();
    let mut numbered = 0_u16;
    let topic = printer.request_topic();
    for action in 0..ACTIONS {
        let at = chance.below(CLIENTS as u64) as usize;
        match chance.below(16) {
            0..=2 if players.len() < CLIENTS => {
                let id = format!("player-{action}");
                let wire = [2048, 8192, WIRE][chance.below(3) as usize];
                let mut client = Client::over(proxy.stream_of(wire));
                if client.connect(&Hello { id: &id, ..Hello::default() }).await == 0 {
                    assert_eq!(client.subscribe(&[("device/+/report", 1)]).await, [1]);
                    let known = Known::default();
                    players.push(Player { client, id, known, sent: vec![], open: true, asleep: 0 });
                }
            }
            3 if at < players.len() => {
                let mut player = players.remove(at);
                if chance.below(2) == 0 {
                    let _gone = player.client.send(&[0xe0, 0]).await;
                }
            }
            4..=7 if at < players.len() && players[at].asleep == 0 => {
                for _ in 0..=chance.below(12) {
                    numbered += 1;
                    let size = [1, 300, 3000][chance.below(3) as usize];
                    let mut payload =
                        format!(r#"{{"print":{{"sequence_id":"{numbered}","command":"x"}}}}"#)
                            .into_bytes();
                    payload.resize(payload.len() + size, b' ');
                    let player = &mut players[at];
                    let bytes = publish_bytes(&topic, &payload, 2, numbered);
                    player.sent.push((numbered, payload, false));
                    if player.client.send(&bytes).await.is_err() {
                        break;
                    }
                }
            }
            8 if at < players.len() && players[at].asleep == 0 => {
                let ask = br#"{"pushing":{"command":"pushall"}}"#;
                let _sent = players[at].client.send(&publish_bytes(&topic, ask, 0, 0)).await;
            }
            9 if at < players.len() => players[at].asleep = 3,
            10 => printer.reboot(ms(chance.below(8000))),
            11 => {
                printer.turn(Quirk::HalfOpen, true);
                pass(ms(chance.below(9000))).await;
                printer.turn(Quirk::HalfOpen, false);
                // What it had to send meanwhile is lost; it sends all of it now.
                printer.full();
            }
            12 => {
                printer.full();
            }
            13 => printer.cut(),
            14 => printer.turn(Quirk::NoPuback, chance.below(2) == 0),
            _ => {
                printer.delta();
                pass(ms(chance.below(3000))).await;
            }
        }
        assert!(printer.open() <= 1 && printer.most_open() <= 1, "action {action}");
        settle(&proxy, &printer, &mut players).await;
        for player in &mut players {
            player.check(&received.borrow(), action);
        }
        players.retain(|player| player.open);
    }
    for (payload, times) in received.borrow().iter() {
        let own = payload.starts_with(br#"{"print""#);
        assert!(!own || *times == 1, "{} was received {times} times", payload.escape_ascii());
    }
}

/// Waits until the printer is back, and all clients have its reports.
async fn settle(proxy: &Proxy, printer: &Printer, players: &mut [Player]) {
    pass(ms(200)).await;
    proxy.live().await;
    pass(ms(200)).await;
    for player in players.iter_mut() {
        player.asleep = player.asleep.saturating_sub(1);
        player.listen(None).await;
    }
    // A reboot or a cut that is only now noticed.
    proxy.live().await;
    // A client whose ring was full of answers has missed states, and gets the full one with the next report.
    printer.delta();
    pass(ms(200)).await;
    for player in players.iter_mut() {
        player.listen(None).await;
    }
    if printer.full() == 0 {
        return;
    }
    let last = printer.last_full().expect("it was just sent");
    for player in players.iter_mut() {
        player.listen(Some(&last)).await;
    }
}
