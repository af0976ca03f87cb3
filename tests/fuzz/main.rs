//! libFuzzer over one of the targets, which the environment names: `TARGET=mqtt_client`.
#![no_main]

mod targets;

use std::sync::OnceLock;

use pandaproxy::clock::Instant;
use pandaproxy::journal;
use pandaproxy::memory::heap;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("TARGET").unwrap_or_default();
        let target = targets::named(&name).unwrap_or_else(|| {
            let names: Vec<_> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
            panic!("TARGET is one of {}, and not {name:?}", names.join(", "))
        });
        TARGET.get_or_init(|| target);
        // Allocated by the first write, and kept.
        journal::set_now(Instant::START, std::time::UNIX_EPOCH);
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            let held = heap::held();
            target(data);
            let after = heap::held();
            if after != held {
                // A library may keep what it allocates on first use; a leak grows with each input.
                target(data);
                assert_eq!(heap::held(), after, "bytes of memory were kept");
            }
        }
    }
);
