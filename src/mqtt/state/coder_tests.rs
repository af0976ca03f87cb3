//! The merge against a printer that reports its state as the printers' own coder does.
//!
//! The rule: lists that changed are sent whole, members of objects one by one, and empty members are left
//! out. An empty tray is sent as its `id`, or `id` and `state`. `ams_exist_bits` is sent whenever units come or
//! go. Some printers send lists of units and trays in part.

use super::*;
use crate::memory::pool::Shape;
use crate::mqtt::report::FULL_MEMBERS;
use crate::mqtt::state::merge::tests::written;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use proptest::prelude::*;
use serde_json::{Map, Value as Oracle, json};

/// A spool: its material and what remains of it.
type Spool = (u8, u8);

#[derive(Clone, Debug, PartialEq)]
struct Unit {
    humidity: u8,
    trays: [Option<Spool>; 4],
}

#[derive(Clone, Debug, PartialEq)]
struct Machine {
    /// Members of `print`.
    scalars: BTreeMap<u8, u8>,
    /// Members of an object in `print`.
    object: BTreeMap<u8, u8>,
    /// Lists in `print`: health messages, lights, stages.
    lists: [Vec<u8>; 3],
    tray_now: u8,
    units: BTreeMap<u8, Unit>,
}

/// How a printer writes.
#[derive(Clone, Copy, Debug)]
struct Manners {
    /// An empty tray has its `state` beside its `id`.
    tray_state: bool,
    /// Units and trays that did not change are left out of their lists.
    in_part: bool,
}

const LISTS: [&str; 3] = ["hms", "lights_report", "stg"];

fn tray(id: usize, spool: Option<Spool>, manners: Manners) -> Oracle {
    match spool {
        Some((kind, left)) => {
            json!({"id": format!("{id}"), "state": 11, "tray_type": kind, "remain": left})
        }
        None if manners.tray_state => json!({"id": format!("{id}"), "state": 10}),
        None => json!({"id": format!("{id}")}),
    }
}

impl Machine {
    fn exist_bits(&self) -> u32 {
        self.units.keys().map(|id| if *id < 128 { 1 << id } else { 16 << (id - 128) }).sum()
    }

    /// A unit as it is reported; after `before`, what changed in it.
    fn unit(id: u8, unit: &Unit, before: Option<&Unit>, manners: Manners) -> Oracle {
        let before = before.filter(|_| manners.in_part);
        let mut members = Map::new();
        members.insert("id".into(), json!(format!("{id}")));
        if before.is_none_or(|before| before.humidity != unit.humidity) {
            members.insert("humidity".into(), json!(unit.humidity));
        }
        let changed = |at: &usize| before.is_none_or(|before| before.trays[*at] != unit.trays[*at]);
        let trays: Vec<Oracle> =
            (0..4).filter(changed).map(|at| tray(at, unit.trays[at], manners)).collect();
        if !trays.is_empty() {
            members.insert("tray".into(), Oracle::Array(trays));
        }
        Oracle::Object(members)
    }

    /// A report: everything, or what changed since `before`.
    fn report(&self, before: Option<&Self>, manners: Manners) -> Oracle {
        let mut print = json!({"command": "push_status", "msg": u8::from(before.is_some())});
        if before.is_none() {
            for key in 0..FULL_MEMBERS {
                print[format!("always_{key}")] = json!(0);
            }
        }
        for (key, value) in &self.scalars {
            if before.is_none_or(|before| before.scalars.get(key) != Some(value)) {
                print[format!("scalar_{key}")] = json!(value);
            }
        }
        for (key, value) in &self.object {
            if before.is_none_or(|before| before.object.get(key) != Some(value)) {
                print["device"][format!("member_{key}")] = json!(value);
            }
        }
        for (at, list) in self.lists.iter().enumerate() {
            if before.is_none_or(|before| before.lists[at] != *list) {
                print[LISTS[at]] = json!(list);
            }
        }
        if before.is_none_or(|before| before.tray_now != self.tray_now) {
            print["ams"]["tray_now"] = json!(self.tray_now);
        }
        if before.is_none_or(|before| before.exist_bits() != self.exist_bits()) {
            print["ams"]["ams_exist_bits"] = json!(format!("{:x}", self.exist_bits()));
        }
        let same = |before: &Self| before.units == self.units;
        let units: Vec<Oracle> = self
            .units
            .iter()
            .filter(|(id, unit)| {
                !manners.in_part || before.is_none_or(|before| before.units.get(id) != Some(unit))
            })
            .map(|(id, unit)| {
                Self::unit(*id, unit, before.and_then(|before| before.units.get(id)), manners)
            })
            .collect();
        if !units.is_empty() && !before.is_some_and(same) {
            print["ams"]["ams"] = Oracle::Array(units);
        }
        json!({"print": print})
    }
}

/// The state that a report adds up to, in one form: units sorted, an empty list of them left out.
fn in_one_form(mut report: Oracle) -> Oracle {
    report["print"]["msg"] = json!(0);
    if let Some(units) = report["print"]["ams"].get_mut("ams") {
        let list = units.as_array_mut().unwrap();
        list.sort_by_key(|unit| unit["id"].as_str().unwrap().parse::<u8>().unwrap());
        if list.is_empty() {
            report["print"]["ams"].as_object_mut().unwrap().remove("ams");
        }
    }
    report
}

fn any_unit() -> impl Strategy<Value = Unit> {
    let spool = prop::option::of((0u8..3, 0u8..3));
    (0u8..3, prop::array::uniform4(spool)).prop_map(|(humidity, trays)| Unit { humidity, trays })
}

fn any_machine() -> impl Strategy<Value = Machine> {
    let all = |keys: u8| prop::collection::vec(0u8..3, keys as usize);
    let numbered = |values: Vec<u8>| (0..).zip(values).collect();
    let ids = prop::sample::select(alloc::vec![0u8, 1, 2, 3, 128, 129]);
    (
        all(4),
        all(3),
        prop::array::uniform3(prop::collection::vec(0u8..3, 0..3)),
        0u8..3,
        prop::collection::btree_map(ids, any_unit(), 0..5),
    )
        .prop_map(move |(scalars, object, lists, tray_now, units)| Machine {
            scalars: numbered(scalars),
            object: numbered(object),
            lists,
            tray_now,
            units,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_merged_state_is_the_printers_at_every_step(
        first in any_machine(),
        changes in prop::collection::vec((any_machine(), any::<u8>(), any::<bool>()), 1..12),
        tray_state in any::<bool>(),
        in_part in any::<bool>(),
        room in prop::sample::select(alloc::vec![0usize, 200, 4096]),
    ) {
        let manners = Manners { tray_state, in_part };
        let pool = Pool::new(Shape { count: 2, size: 512 }, Shape { count: 3, size: 16 * 1024 });
        let mut state = State::new(room);
        state.handle_full(pool.store(&[&written(&first.report(None, manners), false)]).unwrap());
        let mut machine = first;
        for (other, parts, looked_at) in changes {
            // What changes at once: a part of it all.
            let before = machine.clone();
            if parts & 1 != 0 { machine.scalars = other.scalars; }
            if parts & 2 != 0 { machine.object = other.object; }
            if parts & 4 != 0 { machine.lists = other.lists; }
            if parts & 8 != 0 { machine.tray_now = other.tray_now; }
            if parts & 16 != 0 { machine.units = other.units; }
            let delta = machine.report(Some(&before), manners);
            state.handle_delta(&written(&delta, false), &pool).unwrap();
            if looked_at {
                let merged = serde_json::from_slice(&state.snapshot(&pool).unwrap()).unwrap();
                prop_assert_eq!(in_one_form(merged), in_one_form(machine.report(None, manners)));
            }
        }
        let merged = serde_json::from_slice(&state.snapshot(&pool).unwrap()).unwrap();
        prop_assert_eq!(in_one_form(merged), in_one_form(machine.report(None, manners)));
    }
}
