//! The printer's full state, merged from its reports, for clients that connect late or fall behind.
//!
//! [`report`](super::report) distinguishes full states from deltas; only these two are kept here.
//!
//! # In memory
//!
//! The base is the [frame](crate::memory::pool) it arrived in. Deltas, about one a second, are merged
//! into each other in a small buffer, and into the base only when a client needs the whole state or the
//! buffer is full: a delta costs its own size, not the state's.
//!
//! ```text
//!   full ───────────────► base ──┐
//!                                ├─ fold ─► new base ─► snapshot
//!   delta ─► accumulated ────────┘
//! ```
//!
//! # Bounds
//!
//! | what | bound | when exceeded |
//! |---|---|---|
//! | accumulated deltas | what [`State::new`] is given | folded into a new base |
//! | the state | the pool's largest frame | no snapshot; a delta that needs a fold makes the state stale |
//! | members at once | 512 | the state is stale until the next full report |
//! | nesting | [`DEPTH`](json::DEPTH) | the report is refused |

pub(super) mod merge;

use alloc::boxed::Box;
use alloc::vec;
use core::fmt;
use core::mem;

use crate::memory::pool::{Frame, Pool};
use crate::mqtt::address::Patches;
use crate::mqtt::json;
use crate::mqtt::report::classify;
use merge::{Index, Purpose, Refusal};

/// The printer's state: the last full report and all changes since.
pub struct State {
    /// Invariant: a well-formed full state, or `None` while the state is stale.
    base: Option<Frame<Patches>>,
    /// One delta, made of all since the base; the first `len` bytes count.
    accumulated: Box<[u8]>,
    /// Invariant: 0 while there is no base.
    len: usize,
    /// Where the next accumulated delta is written.
    spare: Box<[u8]>,
    index: Index,
}

/// Why a delta was not merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The delta is not JSON, or nested too deep. The state is unchanged.
    Json(json::Error),
    /// The delta has no object `print`. The state is unchanged.
    NoPrint,
    /// The delta has more members at once than the index holds. The state is stale.
    TooWide,
    /// The pool has no frame for the state. The state is stale.
    NoRoom,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => error.fmt(f),
            Self::NoPrint => f.write_str("report without print"),
            Self::TooWide => f.write_str("report with too many members"),
            Self::NoRoom => f.write_str("no frame for the full state"),
        }
    }
}

impl core::error::Error for Error {}

impl State {
    /// No state yet, and room for `accumulated` bytes of deltas, twice. All it ever allocates.
    pub fn new(accumulated: usize) -> Self {
        Self {
            base: None,
            accumulated: vec![0; accumulated].into_boxed_slice(),
            len: 0,
            spare: vec![0; accumulated].into_boxed_slice(),
            index: Index::new(),
        }
    }

    /// Bytes it holds with room for `accumulated` bytes of deltas, without the base, which is the
    /// pool's.
    pub const fn bytes(accumulated: usize) -> usize {
        size_of::<Self>() + 2 * accumulated + Index::BYTES
    }

    /// Takes a report that [`classify`] called full: the state is this, to the byte.
    pub fn handle_full(&mut self, report: Frame<Patches>) {
        self.base = Some(report);
        self.len = 0;
    }

    /// Takes a report that [`classify`] called a delta. While the state is stale it is ignored.
    ///
    /// # Errors
    ///
    /// [`Error`] tells whether the state is unchanged or stale. A valid delta that cannot be stored makes the
    /// state stale, since the state would lack a change.
    pub fn handle_delta(&mut self, report: &[u8], pool: &Pool<Patches>) -> Result<(), Error> {
        if self.is_stale() {
            return Ok(());
        }
        let result = self.accumulate(report, pool).map_err(Error::from);
        if let Err(Error::TooWide | Error::NoRoom) = result {
            self.mark_stale();
        }
        result
    }

    /// The whole state in one frame: the last full report as it came if nothing changed since.
    ///
    /// `None` while the state is stale, and when the pool has no room for it now.
    pub fn snapshot(&mut self, pool: &Pool<Patches>) -> Option<Frame<Patches>> {
        match self.fold(pool) {
            Ok(()) => self.base.clone(),
            Err(Refusal::TooLong) => None,
            Err(Refusal::Json(_) | Refusal::NoPrint | Refusal::TooWide | Refusal::NotOneDelta) => {
                self.mark_stale();
                None
            }
        }
    }

    /// Whether nothing is known until the next full report.
    pub const fn is_stale(&self) -> bool {
        self.base.is_none()
    }

    /// Forgets the state: reports may have been missed. Gives the base back to the pool.
    pub fn mark_stale(&mut self) {
        self.base = None;
        self.len = 0;
    }

    fn accumulate(&mut self, report: &[u8], pool: &Pool<Patches>) -> Result<(), Refusal> {
        if self.len == 0 {
            merge::print_of(report)?;
            return self.begin(report, pool);
        }
        let so_far = self.accumulated.get(..self.len).unwrap_or_default();
        match merge::merge(so_far, report, Purpose::Delta, &mut self.index, &mut self.spare) {
            Ok(len) => {
                mem::swap(&mut self.accumulated, &mut self.spare);
                self.len = len;
                Ok(())
            }
            Err(Refusal::TooLong | Refusal::NotOneDelta) => {
                self.fold(pool)?;
                self.begin(report, pool)
            }
            Err(refusal @ (Refusal::Json(_) | Refusal::NoPrint | Refusal::TooWide)) => Err(refusal),
        }
    }

    /// Keeps the first delta since the base.
    fn begin(&mut self, report: &[u8], pool: &Pool<Patches>) -> Result<(), Refusal> {
        if let Some(room) = self.accumulated.get_mut(..report.len()) {
            room.copy_from_slice(report);
            self.len = report.len();
            return Ok(());
        }
        let Some(base) = &self.base else { return Ok(()) };
        self.base = Some(folded(base, report, &mut self.index, pool)?);
        Ok(())
    }

    /// Makes the base say what was accumulated.
    fn fold(&mut self, pool: &Pool<Patches>) -> Result<(), Refusal> {
        let Some(base) = &self.base else { return Ok(()) };
        let accumulated = self.accumulated.get(..self.len).unwrap_or_default();
        if !accumulated.is_empty() {
            self.base = Some(folded(base, accumulated, &mut self.index, pool)?);
            self.len = 0;
        }
        Ok(())
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Json(error) => Self::Json(error),
            Refusal::NoPrint => Self::NoPrint,
            Refusal::TooWide => Self::TooWide,
            // `accumulate` answers NotOneDelta by a fold, which never returns it.
            Refusal::TooLong | Refusal::NotOneDelta => Self::NoRoom,
        }
    }
}

/// `base` with `delta` merged into it, in a frame of its own.
fn folded(
    base: &[u8],
    delta: &[u8],
    index: &mut Index,
    pool: &Pool<Patches>,
) -> Result<Frame<Patches>, Refusal> {
    // Without a refusal of the merge's own it is the pool that has no frame.
    let mut refusal = Refusal::TooLong;
    let frame = pool.fill(pool.largest(), |room| {
        let len = merge::merge(base, delta, Purpose::State, index, room)
            .map_err(|refused| refusal = refused)
            .ok()?;
        Some((len, classify(room.get(..len)?).patches))
    });
    frame.ok_or(refusal)
}

#[cfg(test)]
mod coder_tests;

#[cfg(test)]
mod tests {
    use super::merge::tests::{any_report, merged_plainly, written};
    use super::*;
    use crate::memory::pool::Shape;
    use crate::mqtt::report::Kind;
    use crate::mqtt::report::tests::{delta, full, full_reports, kind, value};
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;
    use proptest::prelude::*;
    use serde_json::{Map, Value as Oracle, json};

    const ACCUMULATED: usize = 4096;

    fn pool() -> Pool<Patches> {
        Pool::new(Shape { count: 2, size: 512 }, Shape { count: 3, size: 48 * 1024 })
    }

    fn holding(report: &[u8], pool: &Pool<Patches>) -> State {
        let mut state = State::new(ACCUMULATED);
        state.handle_full(pool.store(&[report]).unwrap());
        state
    }

    /// The state `base` is, once it has seen `deltas`.
    fn after(base: &Oracle, deltas: &[Oracle]) -> Oracle {
        let pool = pool();
        let mut state = holding(&written(base, true), &pool);
        for delta in deltas {
            assert_eq!(kind(delta), Kind::Delta);
            state.handle_delta(&written(delta, false), &pool).unwrap();
        }
        value(&state.snapshot(&pool).unwrap())
    }

    #[test]
    fn a_full_report_of_an_h2d_has_no_msg_and_stays_without() {
        let mut base = full();
        base["print"].as_object_mut().unwrap().remove("msg");
        base["print"]["fun"] = json!("0");
        assert_eq!(kind(&base), Kind::Full);
        let state = after(&base, &[delta(&json!({"key_0": 7}))]);
        base["print"]["key_0"] = json!(7);
        assert_eq!(state, base);
    }

    #[test]
    fn an_x1_sends_everything_always_and_the_newest_is_the_state() {
        let pool = pool();
        let mut state = State::new(ACCUMULATED);
        for round in 0..20 {
            let mut report = full();
            report["print"]["key_0"] = json!(round);
            let text = written(&report, true);
            assert_eq!(classify(&text).kind, Kind::Full);
            state.handle_full(pool.store(&[&text]).unwrap());
            assert_eq!(&*state.snapshot(&pool).unwrap(), &text);
        }
        assert_eq!(pool.in_use().0 + pool.in_use().1, 1);
    }

    #[test]
    fn a_full_report_makes_all_deltas_before_it_forgotten() {
        let pool = pool();
        let text = written(&full(), false);
        let mut state = holding(&text, &pool);
        state.handle_delta(&written(&delta(&json!({"key_0": 9})), false), &pool).unwrap();
        state.handle_full(pool.store(&[&text]).unwrap());
        assert_eq!(&*state.snapshot(&pool).unwrap(), &text);
    }

    #[test]
    fn an_a1_keeps_its_trays_when_a_delta_has_only_their_scalars() {
        let mut base = full();
        base["print"]["ams"] =
            json!({"ams": [{"id": "0", "tray": [{"id": "0"}]}], "tray_now": "255", "version": 2});
        let state = after(
            &base,
            &[delta(&json!({"ams": {"tray_now": "1", "tray_pre": "1", "version": 3}}))],
        );
        base["print"]["ams"] = json!({"ams": [{"id": "0", "tray": [{"id": "0"}]}], "tray_now": "1", "version": 3, "tray_pre": "1"});
        assert_eq!(state, base);
    }

    #[test]
    fn a_p1s_keeps_its_units_when_a_delta_has_an_ams_without_them() {
        let mut base = full();
        base["print"]["ams"] =
            json!({"ams": [{"id": "0", "humidity": "5"}], "ams_exist_bits": "1"});
        assert_eq!(after(&base, &[delta(&json!({"ams": {}}))]), base);
    }

    #[test]
    fn a_unit_that_is_not_named_stays_and_a_tray_changes_alone() {
        let mut base = full();
        base["print"]["ams"] = json!({"ams": [
            {"id": "0", "tray": [{"id": "0", "k": 1}, {"id": "1", "k": 1, "n": 1}]}, {"id": "1", "tray": []}]});
        let state = after(
            &base,
            &[delta(&json!({"ams": {"ams": [{"id": "0", "tray": [{"id": "1", "k": 2}]}]}}))],
        );
        base["print"]["ams"]["ams"][0]["tray"][1]["k"] = json!(2);
        assert_eq!(state, base);
    }

    #[test]
    fn a_snapshot_is_a_full_state_under_the_newest_number() {
        let state = after(&full(), &[delta(&json!({"sequence_id": "99", "never_seen": [1]}))]);
        assert_eq!(kind(&state), Kind::Full);
        assert_eq!(state["print"]["msg"], 0);
        assert_eq!(state["print"]["sequence_id"], "99");
        assert_eq!(state["print"]["never_seen"], json!([1]));
    }

    #[test]
    fn a_trailing_nul_is_no_part_of_a_report() {
        let pool = pool();
        let with_nul = |json: &Oracle| [&written(json, true)[..], b"\n\0"].concat();
        let base = with_nul(&full());
        assert_eq!(classify(&base).kind, Kind::Full);
        let mut state = holding(&base, &pool);
        for number in 1..3 {
            let change = with_nul(&delta(&json!({"key_0": number, "new": number})));
            assert_eq!(classify(&change).kind, Kind::Delta);
            state.handle_delta(&change, &pool).unwrap();
        }
        let snapshot = state.snapshot(&pool).unwrap();
        let text = snapshot.strip_suffix(b"\n\0").unwrap();
        let mut expected = full();
        expected["print"]["key_0"] = json!(2);
        expected["print"]["new"] = json!(2);
        assert_eq!(value(text), expected);
    }

    #[test]
    fn bytes_that_are_not_utf_8_survive_a_merge() {
        let pool = pool();
        let mut base = full();
        base["print"]["subtask_name"] = json!("@old@");
        base["print"]["file"] = json!("@new@");
        let with_bytes = |text: Vec<u8>, mark: &str, bytes: &[u8]| {
            let at = text.windows(5).position(|window| window == mark.as_bytes()).unwrap();
            [&text[..at], bytes, &text[at + 5..]].concat()
        };
        let base_text = with_bytes(written(&base, true), "@old@", b"\xff\xfe\\\"\xc3");
        let change = delta(&json!({"file": "@new@"}));
        let change = with_bytes(written(&change, false), "@new@", b"\x80\xe9");
        assert_eq!(classify(&base_text).kind, Kind::Full);
        assert_eq!(classify(&change).kind, Kind::Delta);
        let mut state = holding(&base_text, &pool);
        state.handle_delta(&change, &pool).unwrap();
        assert_eq!(*state.snapshot(&pool).unwrap(), with_bytes(base_text, "@new@", b"\x80\xe9"));
    }

    #[test]
    fn a_stale_state_is_not_shown_until_the_next_full_report() {
        let pool = pool();
        let mut state = State::new(ACCUMULATED);
        let change = written(&delta(&json!({"key_0": 9})), false);
        for _ in 0..2 {
            assert!(state.is_stale());
            assert_eq!(state.handle_delta(&change, &pool), Ok(()));
            assert!(state.snapshot(&pool).is_none());
            let text = written(&full(), false);
            state.handle_full(pool.store(&[&text]).unwrap());
            assert!(!state.is_stale());
            assert_eq!(&*state.snapshot(&pool).unwrap(), &text);
            state.handle_delta(&change, &pool).unwrap();
            state.mark_stale();
            assert_eq!(pool.in_use(), (0, 0));
        }
    }

    #[test]
    fn a_delta_that_is_refused_changes_nothing() {
        let pool = pool();
        let mut state = holding(&written(&full(), true), &pool);
        let deep = format!("{{\"print\":{{\"a\":{}1{}}}}}", "[".repeat(31), "]".repeat(31));
        let broken: [(&[u8], bool); 6] = [
            (b"{\"print\":{\"key_0\":5,\"key_1\":}}", true),
            (b"{\"print\":{\"key_0\":5}", true),
            (b"{\"print\":{\"key_0\":5}}x", true),
            (b"{\"print\":5}", false),
            (b"{}", false),
            (deep.as_bytes(), true),
        ];
        // First with nothing accumulated, then with something.
        for expected in [0, 4] {
            for (report, json) in broken {
                let refused = state.handle_delta(report, &pool);
                assert_eq!(matches!(refused, Err(Error::Json(_))), json, "{refused:?}");
                assert_eq!(matches!(refused, Err(Error::NoPrint)), !json, "{refused:?}");
            }
            let snapshot = value(&state.snapshot(&pool).unwrap());
            assert_eq!(snapshot["print"]["key_0"], expected);
            assert_eq!(snapshot["print"]["key_1"], 1);
            state.handle_delta(&written(&delta(&json!({"key_0": 4})), false), &pool).unwrap();
        }
    }

    #[test]
    fn a_full_buffer_is_folded_and_nothing_is_lost() {
        let (pool, base) = (pool(), full());
        let mut expected = base.clone();
        let mut state = holding(&written(&base, true), &pool);
        for round in 0..60 {
            let text = "x".repeat(if round % 10 == 9 { ACCUMULATED + 1 } else { 300 });
            let change = delta(&json!({format!("new_{}", round % 20): text, "key_0": round}));
            merged_plainly(&mut expected, &change);
            state.handle_delta(&written(&change, round % 2 == 0), &pool).unwrap();
        }
        assert_eq!(value(&state.snapshot(&pool).unwrap()), expected);
    }

    #[test]
    fn a_pool_without_room_costs_the_snapshot_but_not_the_state() {
        let (pool, base) = (pool(), full());
        let mut state = holding(&written(&base, true), &pool);
        state.handle_delta(&written(&delta(&json!({"key_0": 9})), false), &pool).unwrap();
        let held: Vec<Frame<Patches>> = core::iter::from_fn(|| pool.store(&[&[0; 600]])).collect();
        assert!(state.snapshot(&pool).is_none());
        assert!(!state.is_stale());
        drop(held);
        assert_eq!(value(&state.snapshot(&pool).unwrap())["print"]["key_0"], 9);
    }

    #[test]
    fn a_delta_that_can_be_kept_nowhere_makes_the_state_stale() {
        let (pool, base) = (pool(), full());
        let mut state = holding(&written(&base, true), &pool);
        let held: Vec<Frame<Patches>> = core::iter::from_fn(|| pool.store(&[&[0; 600]])).collect();
        let change = delta(&json!({"new": "x".repeat(ACCUMULATED)}));
        assert_eq!(state.handle_delta(&written(&change, false), &pool), Err(Error::NoRoom));
        assert!(state.is_stale());
        drop(held);
        assert!(state.snapshot(&pool).is_none());
    }

    /// What [`split_up`] does with each thing it meets: a stream of small numbers.
    struct Choices(u64);

    impl Choices {
        fn of(&mut self, many: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % many
        }
    }

    /// Takes `whole` apart into what a base lacks and deltas that bring it back: each thing is left
    /// in the base, spoilt there, or missing, and one of the deltas says it.
    fn split_up(
        whole: &Map<String, Oracle>,
        choices: &mut Choices,
        deltas: &mut [Map<String, Oracle>],
    ) -> Map<String, Oracle> {
        let mut base = Map::new();
        for (key, value) in whole {
            if key == "command" || key == "msg" {
                base.insert(key.clone(), value.clone());
                continue;
            }
            let says = choices.of(deltas.len() as u64) as usize;
            match (value, choices.of(4)) {
                (Oracle::Object(members), 0 | 1) => {
                    let mut inner = alloc::vec![Map::new(); deltas.len()];
                    let rest = split_up(members, choices, &mut inner);
                    base.insert(key.clone(), Oracle::Object(rest));
                    for (delta, inner) in deltas.iter_mut().zip(inner) {
                        if !inner.is_empty() {
                            delta.insert(key.clone(), Oracle::Object(inner));
                        }
                    }
                }
                (_, 0) => _ = base.insert(key.clone(), value.clone()),
                (Oracle::Object(_), _) | (_, 1) => {
                    _ = deltas[says].insert(key.clone(), value.clone());
                }
                (_, _) => {
                    base.insert(key.clone(), json!("spoilt"));
                    deltas[says].insert(key.clone(), value.clone());
                }
            }
        }
        base
    }

    /// Guards: bambuddy#1622: a list of known keys loses the others.
    #[test]
    fn recorded_states_taken_apart_into_deltas_come_together_again() {
        for (name, text) in full_reports() {
            let whole = value(&text);
            for seed in 0..24 {
                let mut choices = Choices(seed);
                let indented = [choices.of(2) == 0, choices.of(2) == 0];
                let mut deltas = alloc::vec![Map::new(); 1 + choices.of(6) as usize];
                let base = split_up(whole["print"].as_object().unwrap(), &mut choices, &mut deltas);
                let base = written(&json!({"print": base}), indented[0]);

                let pool = pool();
                let (mut at_the_end, mut each_time) =
                    (holding(&base, &pool), holding(&base, &pool));
                for members in deltas {
                    let delta = written(&delta(&Oracle::Object(members)), indented[1]);
                    at_the_end.handle_delta(&delta, &pool).unwrap();
                    each_time.handle_delta(&delta, &pool).unwrap();
                    each_time.snapshot(&pool).unwrap();
                }
                for mut state in [at_the_end, each_time] {
                    let snapshot = value(&state.snapshot(&pool).unwrap());
                    assert_eq!(snapshot, whole, "{name}, seed {seed}");
                }
            }
        }
    }

    #[test]
    fn a_recorded_state_merged_into_itself_is_the_same_to_the_byte() {
        for (name, text) in full_reports() {
            let pool = pool();
            let mut state = holding(&text, &pool);
            state.handle_delta(&text, &pool).unwrap();
            assert_eq!(&*state.snapshot(&pool).unwrap(), &text, "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn the_snapshot_is_the_merge_of_all_reports_at_any_time(
            base in any_report(),
            deltas in prop::collection::vec((any_report(), any::<[bool; 2]>()), 0..8),
            indented in any::<bool>(),
            accumulated in 0usize..400,
        ) {
            let pool = pool();
            let mut state = State::new(accumulated);
            state.handle_full(pool.store(&[&written(&base, indented)]).unwrap());
            let mut expected = base;
            for (delta, [indented, asked]) in &deltas {
                state.handle_delta(&written(delta, *indented), &pool).unwrap();
                merged_plainly(&mut expected, delta);
                if *asked {
                    prop_assert_eq!(&value(&state.snapshot(&pool).unwrap()), &expected);
                }
            }
            prop_assert_eq!(&value(&state.snapshot(&pool).unwrap()), &expected);
        }
    }
}
