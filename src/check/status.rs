//! What a running service says about the printer: its `GET /status`, read for the stages that would connect to it.
//!
//! A field that is absent or null counts as unknown. The text is what the service sent; it is only cut, never trusted to
//! be complete.

use alloc::format;
use alloc::string::{String, ToString};

use super::{Finding, Stage};
use crate::cause::Cause;
use crate::mqtt::json::{self, Value};
use crate::mqtt::upstream::QUIET_TIMEOUT;

/// The answer to `GET /status`.
#[derive(Clone, Copy)]
pub struct Status<'a>(&'a [u8]);

impl<'a> Status<'a> {
    /// The status in this text.
    pub const fn new(text: &'a str) -> Self {
        Self(text.as_bytes())
    }

    /// The printer that it is about, by its serial number.
    pub fn serial(self) -> Option<String> {
        self.printers(b"serial")
    }

    /// What it says about a stage. Where the service cannot connect for reports, the stage that its reason belongs to has
    /// failed, and what was known before counts no longer.
    pub fn finding(self, stage: Stage) -> Finding {
        if let Some((at, fault)) = self.fault() {
            let of_reports = [Stage::Certificate, Stage::Login, Stage::Report].contains(&stage);
            if stage == at {
                return fault;
            } else if of_reports && stage.number() > at.number() {
                return Finding::skipped(format!("see {} {}", at.number(), at.name()));
            }
        }
        match stage {
            Stage::Printer => self.printer(),
            Stage::Certificate => self.certificate(),
            Stage::Login => self.service("mqtt", "logged in", Cause::BROKER),
            Stage::Report => self.report(),
            Stage::Camera => self.camera(),
            Stage::Files => self.service("ftp", "in use by a client", Cause::FILES),
            Stage::Settings
            | Stage::Ports
            | Stage::Clients
            | Stage::Discovery
            | Stage::Resources => Finding::skipped("not part of the service's status"),
        }
    }

    /// Why the service has no connection for reports, and the stage that this belongs to.
    fn fault(self) -> Option<(Stage, Finding)> {
        const OF_PRINTER: [Cause; 5] = [
            Cause::NO_SUCH_NAME,
            Cause::ITSELF,
            Cause::PRINTER_OFF,
            Cause::PORT_CLOSED,
            Cause::UNREACHABLE,
        ];
        const OF_CERTIFICATE: [Cause; 5] = [
            Cause::NO_HANDSHAKE,
            Cause::NOT_TLS,
            Cause::WRONG_SERIAL,
            Cause::UNKNOWN_AUTHORITY,
            Cause::CERTIFICATE,
        ];
        let upstream = self.of_service("mqtt", b"upstream").map(text);
        upstream.filter(|upstream| upstream == "failing")?;
        let reason = self.reason("mqtt").unwrap_or("its connection fails".into());
        let cause = cause_of(&reason, Cause::BROKER);
        let stage = if OF_PRINTER.contains(&cause) {
            Stage::Printer
        } else if OF_CERTIFICATE.contains(&cause) {
            Stage::Certificate
        } else {
            Stage::Login
        };
        Some((stage, Finding::message(cause, reason)))
    }

    fn printer(self) -> Finding {
        let at = self.printers(b"address").map_or_else(String::new, |at| format!(" at {at}"));
        match self.printer_is(b"reachable") {
            Some(true) => Finding::good(format!("the service reaches the printer{at}")),
            Some(false) => Finding::failed(&Cause::PRINTER_OFF.with("")),
            None => Finding::unknown("the service has not dialled the printer yet"),
        }
    }

    fn certificate(self) -> Finding {
        match self.printers(b"certificate").as_deref() {
            Some("accepted") => Finding::good("the service accepts the printer's certificate"),
            Some("rejected") => match self.reason("mqtt") {
                Some(reason) => Finding::message(cause_of(&reason, Cause::CERTIFICATE), reason),
                None => Finding::failed(&Cause::CERTIFICATE.with("")),
            },
            _ => Finding::skipped("the service has not seen it yet"),
        }
    }

    fn report(self) -> Finding {
        let unknown = || String::from("unknown");
        let age = self.printer_member(b"last_report_age_s").map(text);
        let Some(age) = age.and_then(|age| age.parse::<u64>().ok()) else {
            return Finding::unknown("the service has no report yet");
        };
        if age > MAX_REPORT_AGE {
            return Finding::failed(&Cause::NO_REPORT.with(age));
        }
        let firmware = self.printers(b"firmware").unwrap_or_else(unknown);
        let found = format!("firmware {firmware}, last report {age} s ago");
        let is_off = |key| self.printer_is(key) == Some(false);
        if is_off(b"live_view") {
            Finding::warning(&Cause::LIVE_VIEW.with("")).behind(format!("{found}; "))
        } else if is_off(b"developer_mode") {
            Finding::warning(&Cause::DEVELOPER_MODE.with("")).behind(format!("{found}; "))
        } else {
            Finding::good(found)
        }
    }

    fn camera(self) -> Finding {
        match self.printers(b"camera").as_deref() {
            Some("chamber") => self.service("chamber", "watched", Cause::CAMERA),
            Some("rtsp") => self.service("rtsp", "watched", Cause::CAMERA),
            Some("none") => Finding::failed(&Cause::NO_CAMERA.with("")),
            _ => Finding::skipped("the service does not know the camera yet"),
        }
    }

    /// How one of the service's connections to the printer is.
    fn service(self, name: &str, in_use: &str, cause: Cause) -> Finding {
        let upstream = self.of_service(name, b"upstream").map(text);
        match upstream.as_deref() {
            Some("connected") => Finding::good(format!("the service is connected: {in_use}")),
            Some("idle") => Finding::skipped("the service connects when a client needs it"),
            Some("connecting") => Finding::unknown("the service is connecting"),
            Some("failing") => {
                let reason = self.reason(name).unwrap_or("its connection fails".into());
                Finding::message(cause_of(&reason, cause), reason)
            }
            Some("null") if name == "ftp" => {
                Finding::skipped("relayed: clients log in to the printer themselves")
            }
            _ => Finding::skipped("the service says nothing about it"),
        }
    }

    fn reason(self, service: &str) -> Option<String> {
        let value = self.of_service(service, b"reason")?;
        value.string().map(|_| text(value))
    }

    fn of_service(self, name: &str, key: &[u8]) -> Option<Value<'a>> {
        let services = member(self.0, b"services")?;
        let named = |service: &Value<'_>| {
            member(service.text, b"name").and_then(Value::string) == Some(name.as_bytes())
        };
        let service = json::elements(services.text).flatten().find(named)?;
        member(service.text, key)
    }

    fn printer_member(self, key: &[u8]) -> Option<Value<'a>> {
        member(member(self.0, b"printer")?.text, key)
    }

    fn printers(self, key: &[u8]) -> Option<String> {
        let value = self.printer_member(key)?;
        value.string().map(|_| text(value))
    }

    fn printer_is(self, key: &[u8]) -> Option<bool> {
        match self.printer_member(key)?.text {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }
}

/// The cause that these words name, else `other`.
fn cause_of(words: &str, other: Cause) -> Cause {
    Cause::of(words).unwrap_or(other)
}

fn member<'a>(object: &'a [u8], key: &[u8]) -> Option<Value<'a>> {
    json::members(object).flatten().find(|member| member.key.text == key).map(|it| it.value)
}

/// Seconds after which the last report is too old: an idle printer sends one every two seconds, and the service asks one that
/// does not. The status page has the same number.
const MAX_REPORT_AGE: u64 = QUIET_TIMEOUT.as_secs();

/// Bytes of a value that are shown.
const MAX_SHOWN: usize = 240;

/// A value in words: without quotes, cut, and without control characters.
fn text(value: Value<'_>) -> String {
    let bytes = value.string().unwrap_or(value.text);
    let shown = bytes.get(..MAX_SHOWN).unwrap_or(bytes);
    let shown = String::from_utf8_lossy(shown);
    shown.chars().filter(|c| !c.is_control()).collect::<String>().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_page_calls_the_same_printer_silent() {
        let page = include_str!("../http/page.html");
        assert!(
            page.contains(&format!("last_report_age_s > {MAX_REPORT_AGE})")),
            "{MAX_REPORT_AGE}"
        );
    }
}
