//! What proxies in front of these printers have tripped over, and the test that keeps this one from it.
//!
//! Each row was somebody's bug; the numbers are those of the field they were found in, as far as they
//! are known. A test that is renamed or removed without its row fails here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What keeps a pitfall from this proxy.
enum Kept {
    /// These tests, by the names of their functions.
    By(&'static [&'static str]),
    /// Nothing has to: this proxy cannot meet it, for this reason.
    Never(&'static str),
}
use Kept::{By, Never};

const PITFALLS: [(&str, Kept); 53] = [
    (
        "the printer's address leaks as an integer in net.info (bambuddy#757, #1429)",
        By(&[
            "every_address_but_zero_becomes_ours_and_nothing_else_changes",
            "each_client_reads_its_own_address_of_the_proxy",
        ]),
    ),
    (
        "it is only rewritten for printers given by address",
        Never("what is put in its place is our own address, whatever the printer was given by"),
    ),
    ("it leaks as the host of rtsp_url", By(&["only_the_host_of_the_camera_changes"])),
    (
        "a rewritten report has another length than its head says",
        By(&["a_rewritten_report_says_the_same_but_for_the_addresses"]),
    ),
    (
        "a forwarded detect shows the printer's real name, or that it is occupied",
        Never("bind and detect, ports 3000 and 3002, are not served"),
    ),
    ("only one of ports 3000 and 3002 is served (bambuddy#445, #559)", Never("neither is")),
    ("port 3002 speaks static RSA only (bambuddy#620)", Never("it is not dialled")),
    (
        "port 6000 is not forwarded for X1, H2 and P2",
        By(&["a_file_tunnel_is_relayed_on_port_6000"]),
    ),
    (
        "X1C's plug-in stops at an FTPS certificate that is not the printer's",
        By(&["relayed_clients_use_the_printers_own_tls"]),
    ),
    (
        "an upload without a byte races the data connection's TLS",
        By(&["curl_moves_files_through_a_printer_with_one_session"]),
    ),
    (
        "a print on A1 or P1S asks for the code, because ports from 2024 on are not forwarded",
        By(&["the_ftp_mode_follows_from_the_model_unless_it_is_set"]),
    ),
    (
        "a redirected port 990 sends data to another printer",
        By(&["a_low_port_without_the_right_to_it_names_the_right"]),
    ),
    (
        "a thousand data ports cost gigabytes (bambuddy#1646)",
        By(&["more_ports_than_there_may_be_are_refused"]),
    ),
    (
        "a slicer that remembers another serial number is not answered",
        By(&["a_client_with_another_serial_is_answered_where_it_listens"]),
    ),
    (
        "OrcaSlicer's JSON ends in a NUL (bambuddy#927)",
        By(&["indentation_blanks_a_trailing_nul_and_a_user_change_nothing"]),
    ),
    ("idle slicers are cut off (bambuddy#1548)", By(&["a_client_that_never_pings_is_never_cut"])),
    (
        "a sleeping laptop is never let go (bambuddy#1872)",
        By(&["a_client_that_reads_nothing_is_closed_others_are_on_time"]),
    ),
    ("a delta replaces the state", By(&["a_late_client_gets_the_merge_of_all_reports_first"])),
    (
        "a list of known keys loses the others (bambuddy#1622)",
        By(&["recorded_states_taken_apart_into_deltas_come_together_again"]),
    ),
    (
        "a state that was serialised anew is refused by a slicer",
        By(&["recorded_reports_arrive_unchanged_but_for_their_address"]),
    ),
    (
        "waiting for PUBACK stalls after sixteen requests (bambuddy#1164)",
        By(&["a_printer_without_puback_stalls_no_client"]),
    ),
    (
        "a request is repeated after reconnecting (bambuddy#1136)",
        By(&[
            "a_request_while_the_printer_is_away_closes_its_sender",
            "a_request_the_printer_may_have_missed_closes_its_sender_only",
        ]),
    ),
    (
        "reconnecting while a job is parsed ends it (bambuddy#1150)",
        By(&["two_minutes_of_silence_are_waited_out"]),
    ),
    (
        "subscribing to requests ends the connection to P1 and A1 (bambuddy#778)",
        By(&["connect_then_one_subscription_then_two_questions"]),
    ),
    (
        "a slow CONNACK is taken for a failure (bambuddy#1445)",
        By(&["a_connack_that_takes_five_seconds_is_waited_for"]),
    ),
    (
        "a wrong code and a printer that is off are not told apart (bambuddy#2698)",
        By(&[
            "each_printer_fault_has_a_log_line_with_a_hint",
            "connack_is_held_while_the_printer_is_away_and_is_never_5",
        ]),
    ),
    (
        "a payload that is not UTF-8 is not understood (bambuddy#549)",
        By(&["reports_that_are_not_utf_8_are_forwarded_and_merged"]),
    ),
    (
        "a serial number in lower case is no topic (bambuddy#1465)",
        By(&["a_serial_number_is_converted_to_upper_case_with_a_notice"]),
    ),
    (
        "the camera is looked for at the wrong port (bambuddy#1868)",
        By(&["the_file_tunnel_is_not_taken_for_a_camera_and_rtsps_is_found_beside_it"]),
    ),
    (
        "a second connection to the camera before the first is closed (bambuddy#2521)",
        By(&[
            "the_old_connection_is_closed_before_the_next_is_made_so_that_an_orphan_never_starves_us",
        ]),
    ),
    (
        "a late viewer sees nothing and comes back in a loop (bambuddy#2521)",
        By(&["a_late_viewer_sees_the_last_picture_at_once_if_it_is_younger_than_ten_seconds"]),
    ),
    (
        "a viewer that has left counts until the next picture",
        By(&["the_camera_is_let_go_after_the_last_viewer_and_taken_again_for_the_next"]),
    ),
    (
        "each viewer takes one of the camera's two places (bambuddy#2757)",
        By(&["ten_viewers_see_every_picture_to_the_byte_over_one_connection"]),
    ),
    (
        "a worker that is stuck holds up all others (bambuddy#2580)",
        By(&["a_viewer_that_takes_nothing_is_closed_and_one_that_takes_a_byte_a_second_as_well"]),
    ),
    (
        "P2S wants to renegotiate, and its time stamps are stuck (bambuddy#661, #1395)",
        By(&["a_clock_that_is_stuck_is_replaced_by_ours"]),
    ),
    (
        "X1C's camera hangs after many connections (bambuddy#925)",
        By(&["a_refusal_waits_a_minute_at_once"]),
    ),
    (
        "TLS 1.3 cuts FTPS data short (bambuddy#1401)",
        By(&["curl_uploads_to_a_printer_that_requires_tls_resumption"]),
    ),
    (
        "426 is taken for a success, or for a failure (bambuddy#1417)",
        By(&["size_decides_whether_a_426_after_an_upload_is_true"]),
    ),
    (
        "two uploads at once spoil each other (bambuddy#2529)",
        By(&["two_sessions_never_take_two_uploads_at_once"]),
    ),
    (
        "an end without close_notify loses what came before it (bambuddy#1896)",
        By(&["a_peer_that_leaves_without_a_word_has_left_and_no_more"]),
    ),
    (
        "two data connections for one PASV (bambuddy#58)",
        By(&["one_data_port_takes_one_data_connection"]),
    ),
    ("a model's old name makes a slicer refuse its presets", Never("no model is named to anybody")),
    (
        "the proxy takes another code than the printer",
        By(&["a_wrong_code_at_the_printer_is_retried_rarely_and_logged"]),
    ),
    (
        "the authority is new and the certificate old, or two make one at once",
        By(&[
            "a_new_address_or_serial_or_ca_reissues_and_keeps_the_rest",
            "two_that_start_at_once_have_one_ca",
        ]),
    ),
    (
        "it says that it is ready before it is",
        By(&["systemd_hears_that_it_is_ready_and_alive_and_stopping"]),
    ),
    ("0.0.0.0 stands in reports", By(&["an_unspecified_address_is_never_advertised"])),
    (
        "an identifier past 2³¹ hangs the printer (bambuddy#1042)",
        By(&["requests_reach_the_printer_byte_for_byte_and_in_order"]),
    ),
    (
        "one client's pushing.stop blinds all",
        By(&["pushing_stop_is_acknowledged_and_goes_no_further"]),
    ),
    ("acknowledgements get into the state", By(&["acks_are_not_merged"])),
    (
        "an acknowledgement without its command sends a slicer round in circles",
        By(&["get_version_is_answered_under_the_callers_sequence_id"]),
    ),
    (
        "the state of a dead printer is handed out",
        By(&["silence_makes_the_state_stale_then_is_queried_then_given_up"]),
    ),
    (
        "a bundle of authorities without a last newline is spoilt by appending to it",
        By(&["the_ca_is_printed_before_the_first_start_and_is_the_one_that_vouches_afterwards"]),
    ),
    (
        "a refusal while the printer is away makes Home Assistant give up",
        By(&["connack_is_held_while_the_printer_is_away_and_is_never_5"]),
    ),
];

#[test]
fn each_pitfall_is_kept_away_by_a_test_that_exists_or_cannot_be_met() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests"] {
        collect(&root.join(folder), &mut tests);
    }
    assert!(tests.len() > 500, "found {} tests", tests.len());
    for (number, (pitfall, kept)) in (1..).zip(&PITFALLS) {
        match kept {
            By(names) => {
                assert!(!names.is_empty(), "{number}: {pitfall}: no test");
                for name in *names {
                    assert!(tests.contains(*name), "{number}: {pitfall}: there is no test {name}");
                }
            }
            Never(why) => assert!(!why.is_empty(), "{number}: {pitfall}: no reason"),
        }
    }
}

/// The names of the functions that follow `#[test]` below a folder.
fn collect(folder: &Path, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                if line == "#[test]" {
                    is_test = true;
                } else if let (true, Some(rest)) = (is_test, line.strip_prefix("fn ")) {
                    tests.insert(rest.split('(').next().unwrap().to_owned());
                    is_test = false;
                }
            }
        }
    }
}
