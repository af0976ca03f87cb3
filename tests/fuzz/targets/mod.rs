//! What is fuzzed: one function for each parser and each session, which panics if a promise is broken.
//!
//! They are run by libFuzzer (`tests/fuzz/main.rs`) on bytes that nobody thought of, and by `cargo test` on
//! those that were once worth keeping (`tests/fuzz/corpus`).

mod bind;
mod chamber;
mod conversation;
mod ftp;
mod mqtt;
mod rtsp;
mod ssdp;
mod tls;
mod trace;

/// Takes any bytes.
type Target = fn(&[u8]);

/// Everything that is fuzzed, by name: the names of the folders of `corpus`.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("mqtt_wire", mqtt::wire),
    ("mqtt_topic", mqtt::topic),
    ("mqtt_json", mqtt::json),
    ("mqtt_state", mqtt::state),
    ("mqtt_client", mqtt::client),
    ("mqtt_upstream", mqtt::upstream),
    ("bind_wire", bind::wire),
    ("bind_client", bind::client),
    ("bind_upstream", bind::upstream),
    ("chamber_wire", chamber::wire),
    ("chamber_client", chamber::client),
    ("chamber_upstream", chamber::upstream),
    ("rtsp_wire", rtsp::wire),
    ("rtsp_sdp", rtsp::sdp),
    ("rtsp_rtp", rtsp::rtp),
    ("rtsp_digest", rtsp::digest),
    ("rtsp_client", rtsp::client),
    ("rtsp_upstream", rtsp::upstream),
    ("ftp_wire", ftp::wire),
    ("ftp_client", ftp::client),
    ("ftp_upstream", ftp::upstream),
    ("trace_redact", trace::redact),
    ("trace_login", trace::login),
    ("trace_password", trace::password),
    ("tls_chain", tls::chain),
    ("ssdp_wire", ssdp::wire),
    ("ssdp_hub", ssdp::hub),
];

/// The target of this name.
pub(crate) fn named(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(its, _)| *its == name).map(|(_, target)| *target)
}
