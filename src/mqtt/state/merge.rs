//! Merging one state report into another as text.
//!
//! The old text is walked once and copied unchanged, white space included; values of the new text replace
//! those of the old one, and new members are appended to their object in that object's own
//! style. So an indented state stays indented, and every key survives, known or not.
//!
//! | old | new | result |
//! |---|---|---|
//! | object | object | member by member, all the way down |
//! | list of units or trays ([`BY_ID`]) | the same | element by element, matched by `id`; those not named stay |
//! | a tray | `{id}` or `{id, state}`: the tray is empty | the new one |
//! | AMS units | an `ams` object with `ams_exist_bits` | units whose bit is not set are removed |
//! | `print.msg`, `print.command` | anything | the old one: a full state stays one |
//! | anything else | anything else | the new one |
//!
//! Outside `print` the old text stays. An empty list names nothing to match and replaces.

use alloc::boxed::Box;
use alloc::vec;
use core::ops::Range;

use crate::mqtt::json::{self, Cursor, Kind, Value};

/// Keys of lists whose elements are matched by their `id`: AMS units, their trays, the spools
/// outside ([`protocol`](crate::protocol#reports)).
const BY_ID: [&[u8]; 3] = [AMS, TRAY, b"vir_slot"];

/// Key of the list of a unit's trays.
const TRAY: &[u8] = b"tray";

/// Key of the AMS object, and of the list of units in it.
const AMS: &[u8] = b"ams";

/// Key of the bits that tell which units exist.
const EXIST_BITS: &[u8] = b"ams_exist_bits";

/// Members of the new report that may wait for their match at once: those of the object at hand
/// and of all around it. A full state has 99 in `print` and some 40 further down.
const WIDTH: usize = 512;

/// What the merged text is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Purpose {
    /// The old text is a full state, and the result is one.
    State,
    /// The old text is itself yet to be merged into a full state.
    Delta,
}

/// Why there is no merged text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Refusal {
    Json(json::Error),
    /// The new text has no object `print`.
    NoPrint,
    /// More than [`WIDTH`] members at once.
    TooWide,
    /// The result is longer than its room.
    TooLong,
    /// The new text replaces a value by one that would be *merged* with what is in the state. One delta
    /// cannot express both: the old one has to be merged into the state first.
    NotOneDelta,
}

impl From<json::Error> for Refusal {
    fn from(error: json::Error) -> Self {
        Self::Json(error)
    }
}

/// Merges `new` into `old`, into `room`: how many bytes that are.
pub(super) fn merge(
    old: &[u8],
    new: &[u8],
    purpose: Purpose,
    index: &mut Index,
    room: &mut [u8],
) -> Result<usize, Refusal> {
    index.len = 0;
    let print = print_of(new)?;
    let mut merge = Merge { old, copied: 0, new, index, room, len: 0, purpose };
    merge.document(print)?;
    Ok(merge.len)
}

/// The object `print` of a report that is well-formed to its end.
pub(super) fn print_of(report: &[u8]) -> Result<Value<'_>, Refusal> {
    let mut print = None;
    for member in json::members(report) {
        let member = member?;
        if member.key.text == b"print" {
            print = Some(member.value);
        }
    }
    print.filter(|print| print.kind() == Kind::Object).ok_or(Refusal::NoPrint)
}

struct Merge<'a, 'm> {
    old: &'a [u8],
    /// How much of `old` is in `room`, or replaced there.
    copied: usize,
    new: &'a [u8],
    index: &'m mut Index,
    room: &'m mut [u8],
    len: usize,
    purpose: Purpose,
}

/// How an object or array of the old text is written.
struct Style {
    /// Offsets of what stands before its first member or element.
    before: Range<usize>,
    /// Offsets of what stands between its first key and value; empty in an array.
    colon: Range<usize>,
}

impl<'a> Merge<'a, '_> {
    fn document(&mut self, print: Value<'a>) -> Result<(), Refusal> {
        let mut cursor = Cursor::new(self.old);
        cursor.enter_object()?;
        while let Some(key) = cursor.key()? {
            if key.text == b"print" && cursor.kind()? == Kind::Object {
                self.object(&mut cursor, print, &[b"msg", b"command"], None)?;
            } else {
                cursor.pass()?;
            }
        }
        cursor.end()?;
        self.copy_until(self.old.len())
    }

    /// Merges `new` into the object the cursor stands at, except the members in `kept`. `units` tells which AMS
    /// units exist, where the object has a list of them.
    fn object(
        &mut self,
        cursor: &mut Cursor<'a>,
        new: Value<'a>,
        kept: &[&[u8]],
        units: Option<Units>,
    ) -> Result<(), Refusal> {
        let level = self.index.len;
        for member in new.members() {
            let member = member?;
            if !kept.contains(&member.key.text) {
                let key = member.key.at + 1;
                self.index.note(level, self.new, key..key + member.key.text.len(), member.value)?;
            }
        }
        cursor.enter_object()?;
        let open = cursor.at();
        let mut last = open;
        let mut style = None;
        while let Some(key) = cursor.key()? {
            style.get_or_insert(Style { before: open..key.at, colon: key.end()..cursor.at() });
            match self.index.find(level, self.new, key.text) {
                Some(value) => self.value(cursor, key.text, value, units)?,
                None if units.is_some() && key.text == AMS => self.filter(cursor, units)?,
                None => _ = cursor.pass()?,
            }
            last = cursor.at();
        }
        match style {
            Some(style) => self.append(level, &style, last, false)?,
            None if self.index.len > level => self.replace(open - 1..cursor.at(), new.text)?,
            None => {}
        }
        self.index.len = level;
        Ok(())
    }

    /// Removes the units that do not exist from the list the cursor stands at, if it is a list by id.
    fn filter(&mut self, cursor: &mut Cursor<'a>, units: Option<Units>) -> Result<(), Refusal> {
        if is_list_by_id(cursor.clone().pass()?)? {
            return self.list(cursor, AMS, None, units);
        }
        cursor.pass()?;
        Ok(())
    }

    /// Merges `new`, a list by id, into the list by id of `key` the cursor stands at. Without `new` only the
    /// units that do not exist are removed.
    fn list(
        &mut self,
        cursor: &mut Cursor<'a>,
        key: &[u8],
        new: Option<Value<'a>>,
        units: Option<Units>,
    ) -> Result<(), Refusal> {
        let level = self.index.len;
        let exists = |id: Value<'_>| units.is_none_or(|units| units.has(id));
        for element in new.iter().flat_map(|new| new.elements()) {
            let element = element?;
            if let Some(id) = id_of(element)?.filter(|id| exists(*id)) {
                self.index.note(level, self.new, id.at..id.at + id.text.len(), element)?;
            }
        }
        cursor.enter_array()?;
        let open = cursor.at();
        let mut last = open;
        let mut style = None;
        let mut is_empty = true;
        while cursor.element()? {
            let style = style.get_or_insert(Style { before: open..cursor.at(), colon: 0..0 });
            let old = cursor.clone().pass()?;
            let id = id_of(old)?;
            if id.is_some_and(|id| !exists(id)) {
                cursor.pass()?;
                self.replace(last..cursor.at(), b"")?;
                last = cursor.at();
                continue;
            }
            if core::mem::take(&mut is_empty) && last > open {
                // All elements before it were removed: it has no comma before it any more.
                let before = self.old.get(style.before.clone()).unwrap_or_default();
                self.replace(last..old.at, before)?;
            }
            let known = id.and_then(|id| self.index.find(level, self.new, id.text));
            match known {
                Some(element) if key == TRAY && is_emptied(element)? => {
                    cursor.pass()?;
                    self.replace(old.at..cursor.at(), element.text)?;
                }
                // The state has to show the tray as empty before its new contents are merged.
                Some(_) if key == TRAY && self.purpose == Purpose::Delta && is_emptied(old)? => {
                    return Err(Refusal::NotOneDelta);
                }
                Some(element) => self.object(cursor, element, &[], None)?,
                None => _ = cursor.pass()?,
            }
            last = cursor.at();
        }
        if let Some(style) = style {
            self.append(level, &style, last, is_empty)?;
        }
        self.index.len = level;
        Ok(())
    }

    /// Merges `new` into the value of `key` the cursor stands at.
    fn value(
        &mut self,
        cursor: &mut Cursor<'a>,
        key: &[u8],
        new: Value<'a>,
        units: Option<Units>,
    ) -> Result<(), Refusal> {
        let object = new.kind() == Kind::Object;
        if object && cursor.kind()? == Kind::Object {
            let units = if key == AMS { self.units(cursor, new)? } else { None };
            return self.object(cursor, new, &[], units);
        }
        let list = BY_ID.contains(&key) && is_list_by_id(new)?;
        if list && is_list_by_id(cursor.clone().pass()?)? {
            return self.list(cursor, key, Some(new), units);
        }
        if (object || list) && self.purpose == Purpose::Delta {
            return Err(Refusal::NotOneDelta);
        }
        let old = cursor.pass()?;
        self.replace(old.at..cursor.at(), new.text)
    }

    /// The units that exist by `ams_exist_bits` in the AMS object `new`, if it is there.
    fn units(&self, cursor: &Cursor<'a>, new: Value<'a>) -> Result<Option<Units>, Refusal> {
        let units = Units::of(new)?;
        if self.purpose == Purpose::Delta {
            // A unit that is removed and comes back has lost its members, which one delta cannot express.
            let before = Units::of(cursor.clone().pass()?)?;
            return if units.or(before).is_some() { Err(Refusal::NotOneDelta) } else { Ok(None) };
        }
        Ok(units)
    }

    /// Writes what was noted since `level` and not found, behind offset `last` of the old text. `is_empty`: no
    /// member or element is left before that.
    fn append(
        &mut self,
        level: usize,
        style: &Style,
        last: usize,
        mut is_empty: bool,
    ) -> Result<(), Refusal> {
        for at in level..self.index.len {
            let Some(entry) = self.index.entries.get(at).filter(|entry| !entry.found).copied()
            else {
                continue;
            };
            self.copy_until(last)?;
            if !core::mem::take(&mut is_empty) {
                self.put(b",")?;
            }
            self.put(self.old.get(style.before.clone()).unwrap_or_default())?;
            if !style.colon.is_empty() {
                self.put(b"\"")?;
                self.put(entry.key(self.new))?;
                self.put(b"\"")?;
                self.put(self.old.get(style.colon.clone()).unwrap_or_default())?;
            }
            self.put(entry.value(self.new).text)?;
        }
        Ok(())
    }

    /// Writes the old text up to `old`, and `new` for that.
    fn replace(&mut self, old: Range<usize>, new: &[u8]) -> Result<(), Refusal> {
        self.copy_until(old.start)?;
        self.put(new)?;
        self.copied = old.end;
        Ok(())
    }

    fn copy_until(&mut self, end: usize) -> Result<(), Refusal> {
        let old = self.old;
        self.put(old.get(self.copied..end).unwrap_or_default())?;
        self.copied = end;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let end = self.len + bytes.len();
        self.room.get_mut(self.len..end).ok_or(Refusal::TooLong)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }
}

/// Whether `value` is a list of objects that each have an `id`, and not empty.
fn is_list_by_id(value: Value<'_>) -> Result<bool, Refusal> {
    if value.kind() != Kind::Array {
        return Ok(false);
    }
    let mut any = false;
    for element in value.elements() {
        if id_of(element?)?.is_none() {
            return Ok(false);
        }
        any = true;
    }
    Ok(any)
}

/// Whether an object has an `id`, and nothing else but perhaps a `state`: how printers report an empty tray (P1
/// and A1 `{id}`; H2, X2 and P2 `{id, state}`).
fn is_emptied(value: Value<'_>) -> Result<bool, Refusal> {
    let mut has_id = false;
    for member in value.members() {
        match member?.key.text {
            b"id" => has_id = true,
            b"state" => {}
            _ => return Ok(false),
        }
    }
    Ok(has_id)
}

/// The AMS units that exist, by `ams_exist_bits`: a hexadecimal number, bits 0 to 3 for units 0 to 3, bits 4 to
/// 11 for the AMS HT, whose ids are 128 to 135 (X1C with 01.08: `17` with units 0, 1, 2 and 128).
#[derive(Clone, Copy)]
struct Units(u32);

impl Units {
    /// The units by the bits of an AMS object. `None` if it has none.
    fn of(ams: Value<'_>) -> Result<Option<Self>, Refusal> {
        let mut units = None;
        for member in ams.members() {
            let member = member?;
            if member.key.text == EXIST_BITS {
                let text = member.value.string().and_then(|text| core::str::from_utf8(text).ok());
                units = text.and_then(|text| u32::from_str_radix(text, 16).ok()).map(Self);
            }
        }
        Ok(units)
    }

    /// Whether the unit with this `id` exists. One whose bit is not known is taken to exist.
    fn has(self, id: Value<'_>) -> bool {
        let text = id.string().unwrap_or(id.text);
        let id = core::str::from_utf8(text).ok().and_then(|text| text.parse::<u32>().ok());
        match id {
            Some(id @ 0..=3) => self.0 >> id & 1 == 1,
            Some(id @ 128..=135) => self.0 >> (id - 124) & 1 == 1,
            Some(_) | None => true,
        }
    }
}

/// The `id` of an object, as written.
fn id_of(value: Value<'_>) -> Result<Option<Value<'_>>, Refusal> {
    let mut id = None;
    if value.kind() == Kind::Object {
        for member in value.members() {
            let member = member?;
            if member.key.text == b"id" {
                id = Some(member.value);
            }
        }
    }
    Ok(id)
}

/// The new report's members for the objects that are open: a stack, one level for each.
pub(super) struct Index {
    entries: Box<[Entry]>,
    /// Entries in use: those behind are leftovers.
    len: usize,
}

/// A member or element of the new text: offsets and lengths in it.
#[derive(Clone, Copy, Default)]
struct Entry {
    /// A member's key, or an element's id.
    key_at: u32,
    key_len: u32,
    value_at: u32,
    value_len: u32,
    /// Whether the old text has it.
    found: bool,
}

impl Index {
    /// Bytes an index takes.
    pub(super) const BYTES: usize = WIDTH * size_of::<Entry>();

    pub(super) fn new() -> Self {
        Self { entries: vec![Entry::default(); WIDTH].into_boxed_slice(), len: 0 }
    }

    /// Notes a member or an element. Of a repeated one the last counts.
    fn note(
        &mut self,
        level: usize,
        new: &[u8],
        key: Range<usize>,
        value: Value<'_>,
    ) -> Result<(), Refusal> {
        let text = new.get(key.clone()).unwrap_or_default();
        let place = self.place(level, new, text);
        let entry = self.entries.get_mut(place).ok_or(Refusal::TooWide)?;
        let narrow = |wide: usize| u32::try_from(wide).map_err(|_| Refusal::TooLong);
        *entry = Entry {
            key_at: narrow(key.start)?,
            key_len: narrow(text.len())?,
            value_at: narrow(value.at)?,
            value_len: narrow(value.text.len())?,
            found: false,
        };
        self.len = self.len.max(place + 1);
        Ok(())
    }

    /// What was noted under `key` since `level`. It counts as found from now on.
    fn find<'a>(&mut self, level: usize, new: &'a [u8], key: &[u8]) -> Option<Value<'a>> {
        let place = self.place(level, new, key);
        let entry = self.entries.get_mut(..self.len)?.get_mut(place)?;
        entry.found = true;
        Some(entry.value(new))
    }

    /// Where `key` was noted since `level`; where it would be noted if it was not.
    fn place(&self, level: usize, new: &[u8], key: &[u8]) -> usize {
        let noted = self.entries.get(level..self.len).unwrap_or_default();
        let same = |entry: &Entry| entry.key_len as usize == key.len() && entry.key(new) == key;
        noted.iter().position(same).map_or(self.len, |at| level + at)
    }
}

impl Entry {
    fn key<'a>(&self, new: &'a [u8]) -> &'a [u8] {
        let at = self.key_at as usize;
        new.get(at..at + self.key_len as usize).unwrap_or_default()
    }

    fn value<'a>(&self, new: &'a [u8]) -> Value<'a> {
        let at = self.value_at as usize;
        Value { at, text: new.get(at..at + self.value_len as usize).unwrap_or_default() }
    }
}

#[cfg(test)]
pub(in crate::mqtt) mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;
    use proptest::prelude::*;
    use serde_json::{Map, Value as Oracle, json};

    /// The same merge on values, in its plainest form.
    pub(in crate::mqtt) fn merged_plainly(state: &mut Oracle, delta: &Oracle) {
        let (Some(Oracle::Object(old)), Some(Oracle::Object(new))) =
            (state.get_mut("print"), delta.get("print"))
        else {
            return;
        };
        let mut new = new.clone();
        new.remove("msg");
        new.remove("command");
        merge_members(old, &new);
    }

    fn merge_members(old: &mut Map<String, Oracle>, new: &Map<String, Oracle>) {
        for (key, new) in new {
            let was_by_id = old
                .get(key)
                .and_then(|old| old.get("ams"))
                .and_then(Oracle::as_array)
                .is_some_and(|units| by_id(units))
                && new.get("ams").and_then(Oracle::as_array).is_none_or(|units| by_id(units));
            match (old.get_mut(key), new) {
                (Some(Oracle::Object(old)), Oracle::Object(new)) => {
                    merge_members(old, new);
                    let bits = new.get("ams_exist_bits").and_then(Oracle::as_str);
                    let bits = bits.and_then(|bits| u32::from_str_radix(bits, 16).ok());
                    let units = old.get_mut("ams").and_then(Oracle::as_array_mut);
                    let (true, Some(bits), Some(units)) = (key == "ams", bits, units) else {
                        continue;
                    };
                    // A list that replaces something else is taken as it is.
                    if by_id(units) && (!new.contains_key("ams") || was_by_id) {
                        units.retain(|unit| exists(bits, &unit["id"]));
                    }
                }
                (Some(Oracle::Array(old)), Oracle::Array(new))
                    if ["ams", "tray", "vir_slot"].contains(&key.as_str())
                        && by_id(old)
                        && by_id(new) =>
                {
                    for new in new {
                        match old.iter_mut().find(|old| old["id"] == new["id"]) {
                            Some(old)
                                if key == "tray"
                                    && new
                                        .as_object()
                                        .unwrap()
                                        .keys()
                                        .all(|key| ["id", "state"].contains(&key.as_str())) =>
                            {
                                old.clone_from(new);
                            }
                            Some(old) => merge_members(
                                old.as_object_mut().unwrap(),
                                new.as_object().unwrap(),
                            ),
                            None => old.push(new.clone()),
                        }
                    }
                }
                (_, new) => _ = old.insert(key.clone(), new.clone()),
            }
        }
    }

    /// Whether the bits name a unit.
    fn exists(bits: u32, id: &Oracle) -> bool {
        let id = id.as_str().map_or_else(|| id.as_u64(), |id| id.parse().ok());
        match id {
            Some(id @ 0..4) => bits >> id & 1 == 1,
            Some(id @ 128..136) => bits >> (4 + id - 128) & 1 == 1,
            _ => true,
        }
    }

    fn by_id(list: &[Oracle]) -> bool {
        !list.is_empty() && list.iter().all(|element| element.get("id").is_some())
    }

    /// A report, with few keys, so that they meet; all that is special is among them.
    pub(in crate::mqtt) fn any_report() -> impl Strategy<Value = Oracle> {
        let key = prop::sample::select(alloc::vec![
            "a",
            "b",
            "c",
            "ams",
            "tray",
            "vir_slot",
            "msg",
            "command",
            "sequence_id",
            "print",
            "id",
            "state",
            "ams_exist_bits"
        ]);
        let leaf = prop_oneof![
            Just(json!(null)),
            (0..4).prop_map(|number| json!(number)),
            (0..8).prop_map(|bits| json!(alloc::format!("{bits:x}"))),
            "[a\"{}\\[\\],:\\\\é]{0,3}".prop_map(|text| json!(text)),
        ];
        let value = leaf.prop_recursive(5, 40, 5, move |inner| {
            let members = prop::collection::vec((key.clone(), inner.clone()), 0..5);
            let object = members.prop_map(|members| {
                Oracle::Object(
                    members.into_iter().map(|(key, value)| (key.into(), value)).collect(),
                )
            });
            // Each id once: a list with one id twice is tested apart.
            let ids = prop::sample::subsequence(alloc::vec!["0", "1", "2"], 0..=3);
            let list = (ids, prop::collection::vec(inner, 3)).prop_map(|(ids, values)| {
                let elements = ids.iter().zip(values).enumerate();
                let element = |(at, (id, value)): (usize, (&&str, Oracle))| {
                    let key = if at == 1 { "a" } else { "tray" };
                    if value.is_null() { json!({"id": id}) } else { json!({"id": id, key: value}) }
                };
                Oracle::Array(elements.map(element).collect())
            });
            prop_oneof![
                3 => object,
                2 => list,
                1 => prop::collection::vec((0..4).prop_map(|number| json!(number)), 0..3)
                    .prop_map(Oracle::Array),
            ]
        });
        prop::collection::vec(
            (
                prop::sample::select(alloc::vec![
                    "a",
                    "b",
                    "ams",
                    "tray",
                    "vir_slot",
                    "msg",
                    "command",
                    "sequence_id"
                ]),
                value,
            ),
            // An empty `print` has no members to keep, so it takes all members of the other.
            1..8,
        )
        .prop_map(|members| {
            let print: Map<String, Oracle> =
                members.into_iter().map(|(key, value)| (key.into(), value)).collect();
            json!({"print": print})
        })
    }

    /// As some printers write, and as others do.
    pub(in crate::mqtt) fn written(json: &Oracle, indented: bool) -> Vec<u8> {
        if !indented {
            return serde_json::to_vec(json).unwrap();
        }
        let mut text = Vec::new();
        let four = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut to = serde_json::Serializer::with_formatter(&mut text, four);
        serde::Serialize::serialize(json, &mut to).unwrap();
        text
    }

    fn merged(old: &str, new: &str, purpose: Purpose) -> Result<String, Refusal> {
        let mut room = alloc::vec![0; 64 * 1024];
        let len = merge(old.as_bytes(), new.as_bytes(), purpose, &mut Index::new(), &mut room)?;
        Ok(String::from_utf8(room[..len].to_vec()).unwrap())
    }

    fn in_print(old: &str, new: &str) -> String {
        let print = |inside: &str| alloc::format!("{{\"print\":{inside}}}");
        let all = merged(&print(old), &print(new), Purpose::State).unwrap();
        all.strip_prefix("{\"print\":").unwrap().strip_suffix('}').unwrap().into()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn text_merges_as_values_do(
            old in any_report(), new in any_report(), styles in any::<[bool; 2]>(),
        ) {
            let (old_text, new_text) = (written(&old, styles[0]), written(&new, styles[1]));
            let mut room = alloc::vec![0; 64 * 1024];
            let len =
                merge(&old_text, &new_text, Purpose::State, &mut Index::new(), &mut room).unwrap();
            let mut expected = old;
            merged_plainly(&mut expected, &new);
            let text = &room[..len];
            prop_assert_eq!(&serde_json::from_slice::<Oracle>(text).unwrap(), &expected);

            // One byte less of room is refused, and so is every smaller room.
            for room_len in [0, len / 2, len - 1] {
                let room = &mut room[..room_len];
                let refused =
                    merge(&old_text, &new_text, Purpose::State, &mut Index::new(), room);
                prop_assert_eq!(refused, Err(Refusal::TooLong));
            }
        }

        #[test]
        fn merging_a_text_into_itself_changes_no_byte(old in any_report(), indented in any::<bool>()) {
            let text = String::from_utf8(written(&old, indented)).unwrap();
            let once = merged(&text, &text, Purpose::State).unwrap();
            let mut expected = old.clone();
            merged_plainly(&mut expected, &old);
            // Units that its own exist bits deny are removed.
            if expected == old {
                prop_assert_eq!(&once, &text);
            }
            prop_assert_eq!(merged(&once, &once, Purpose::State), Ok(once));
        }

        #[test]
        fn two_merged_deltas_equal_both_one_after_the_other(
            state in any_report(), first in any_report(), second in any_report(),
        ) {
            let texts = [&first, &second].map(|json| serde_json::to_string(json).unwrap());
            let one = match merged(&texts[0], &texts[1], Purpose::Delta) {
                Ok(one) => one,
                Err(refusal) => {
                    prop_assert_eq!(refusal, Refusal::NotOneDelta);
                    return Ok(());
                }
            };
            let mut at_once = state.clone();
            merged_plainly(&mut at_once, &serde_json::from_str(&one).unwrap());
            let mut one_by_one = state;
            merged_plainly(&mut one_by_one, &first);
            merged_plainly(&mut one_by_one, &second);
            prop_assert_eq!(at_once, one_by_one);
        }

        #[test]
        fn any_bytes_merge_without_a_panic(
            old in prop::collection::vec(any::<u8>(), 0..60),
            new in prop::collection::vec(any::<u8>(), 0..60),
            inside in "[{}\\[\\]\",:a0]{0,20}",
        ) {
            let mut room = [0; 256];
            let near = alloc::format!("{{\"print\":{{{inside}}}}}");
            for (old, new) in [(&old[..], &new[..]), (near.as_bytes(), &new), (&old, near.as_bytes())] {
                _ = merge(old, new, Purpose::State, &mut Index::new(), &mut room);
            }
        }
    }

    #[test]
    fn what_is_not_named_keeps_its_order_and_every_byte() {
        assert_eq!(
            in_print(
                r#"{ "z" :1.50,"a": {"y":"\u0041" , "x":[ 1 ]},"b":2}"#,
                r#"{"b":3,"a":{"x":[]}}"#
            ),
            r#"{ "z" :1.50,"a": {"y":"\u0041" , "x":[]},"b":3}"#
        );
    }

    #[test]
    fn new_members_are_appended_in_the_style_of_their_object() {
        let old =
            "{\n    \"print\": {\n        \"a\": {\n            \"b\": 1\n        }\n    }\n}";
        let new = r#"{"print":{"a":{"c":2,"d":[1,2]},"e":null}}"#;
        let both = "{\n    \"print\": {\n        \"a\": {\n            \"b\": 1,\n            \"c\": 2,\n            \"d\": [1,2]\n        },\n        \"e\": null\n    }\n}";
        assert_eq!(merged(old, new, Purpose::State), Ok(both.into()));
        assert_eq!(in_print(r#"{"a":{ }}"#, r#"{"a":{"b": 1}}"#), r#"{"a":{"b": 1}}"#);
        assert_eq!(in_print(r#"{"a":{ }}"#, r#"{"a":{}}"#), r#"{"a":{ }}"#);
    }

    #[test]
    fn units_and_trays_merge_by_id_and_other_lists_are_replaced() {
        assert_eq!(
            in_print(
                r#"{"ams":{"ams":[{"id":"0","tray":[{"id":"0","k":1},{"id":"1","k":1}]},{"id":"1"}]}}"#,
                r#"{"ams":{"ams":[{"id":"0","tray":[{"id":"1","k":2}]},{"id":"128","t":1}]}}"#
            ),
            r#"{"ams":{"ams":[{"id":"0","tray":[{"id":"0","k":1},{"id":"1","k":2}]},{"id":"1"},{"id":"128","t":1}]}}"#
        );
        assert_eq!(
            in_print(r#"{"hms":[{"id":1},{"id":2}]}"#, r#"{"hms":[{"id":2}]}"#),
            r#"{"hms":[{"id":2}]}"#
        );
        // As written: the number is not the string.
        assert_eq!(
            in_print(r#"{"tray":[{"id":0}]}"#, r#"{"tray":[{"id":"0"}]}"#),
            r#"{"tray":[{"id":0},{"id":"0"}]}"#
        );
        for other in ["[]", "[1]", "[{\"id\":1},{}]", "null", "{}"] {
            let new = alloc::format!("{{\"tray\":{other}}}");
            assert_eq!(in_print(r#"{"tray":[{"id":0}]}"#, &new), new);
        }
    }

    #[test]
    fn a_tray_that_is_emptied_keeps_nothing_of_what_was_in_it() {
        assert_eq!(
            in_print(
                r#"{"ams":{"ams":[{"id":"0","tray":[{"id":"0","k":1},{"id":"1","k":1}]}]}}"#,
                r#"{"ams":{"ams":[{"id":"0","tray":[{"id":"1"}]}]}}"#
            ),
            r#"{"ams":{"ams":[{"id":"0","tray":[{"id":"0","k":1},{"id":"1"}]}]}}"#
        );
        let emptied = r#"{"print":{"tray":[{"id":"1"}]}}"#;
        let filled = r#"{"print":{"tray":[{"id":"1","k":2}]}}"#;
        assert_eq!(merged(filled, emptied, Purpose::Delta), Ok(emptied.into()));
        assert_eq!(merged(emptied, filled, Purpose::Delta), Err(Refusal::NotOneDelta));
        // A unit without other members is unchanged.
        assert_eq!(
            in_print(r#"{"ams":[{"id":"0","k":1}]}"#, r#"{"ams":[{"id":"0"}]}"#),
            r#"{"ams":[{"id":"0","k":1}]}"#
        );
    }

    #[test]
    fn a_tray_of_id_and_state_is_empty_and_keeps_nothing() {
        assert_eq!(
            in_print(
                r#"{"ams":{"ams":[{"id":"0","tray":[{"id":"0","state":11,"k":1}]}]}}"#,
                r#"{"ams":{"ams":[{"id":"0","tray":[{"id":"0","state":10}]}]}}"#
            ),
            r#"{"ams":{"ams":[{"id":"0","tray":[{"id":"0","state":10}]}]}}"#
        );
    }

    #[test]
    fn units_without_their_exist_bit_are_removed() {
        let three = r#"{"ams":{"ams":[{"id":"0"}, {"id":"1"}, {"id":"128"}],"n":1}}"#;
        for (new, left) in [
            (r#"{"ams":{"ams_exist_bits":"13"}}"#, r#"[{"id":"0"}, {"id":"1"}, {"id":"128"}]"#),
            (r#"{"ams":{"ams_exist_bits":"3"}}"#, r#"[{"id":"0"}, {"id":"1"}]"#),
            (r#"{"ams":{"ams_exist_bits":"12"}}"#, r#"[{"id":"1"}, {"id":"128"}]"#),
            (r#"{"ams":{"ams_exist_bits":"10"}}"#, r#"[{"id":"128"}]"#),
            (r#"{"ams":{"ams_exist_bits":"0"}}"#, "[]"),
            (
                r#"{"ams":{"ams_exist_bits":"4","ams":[{"id":"2","k":1},{"id":"3"}]}}"#,
                r#"[{"id":"2","k":1}]"#,
            ),
            (
                r#"{"ams":{"ams_exist_bits":"5","ams":[{"id":"2","k":1}]}}"#,
                r#"[{"id":"0"},{"id":"2","k":1}]"#,
            ),
            // Two new elements in a list that is empty by then.
            (
                r#"{"ams":{"ams_exist_bits":"c","ams":[{"id":"2"},{"id":"3"}]}}"#,
                r#"[{"id":"2"},{"id":"3"}]"#,
            ),
        ] {
            let merged: Oracle = serde_json::from_str(&in_print(three, new)).unwrap();
            let left: Oracle = serde_json::from_str(left).unwrap();
            assert_eq!(merged["ams"]["ams"], left, "{new}");
            assert_eq!(merged["ams"]["n"], 1, "{new}");
        }
    }

    #[test]
    fn exist_bits_remove_only_units_that_they_describe() {
        for list in [
            r#"[{"id":"4"},{"id":"127"},{"id":"136"},{"id":"x"}]"#,
            r#"[{"id":"0"},{"n":1}]"#,
            "[]",
            "{}",
            "null",
        ] {
            let with =
                |bits| alloc::format!(r#"{{"ams":{{"ams":{list},"ams_exist_bits":"{bits}"}}}}"#);
            let none = r#"{"ams":{"ams_exist_bits":"0"}}"#;
            assert_eq!(in_print(&with("1"), none), with("0"));
        }
    }

    #[test]
    fn exist_bits_are_not_merged_into_another_delta() {
        let bits = r#"{"print":{"ams":{"ams_exist_bits":"1"}}}"#;
        let units = r#"{"print":{"ams":{"ams":[{"id":"0","k":1}]}}}"#;
        for (first, second) in [(bits, units), (units, bits), (bits, bits)] {
            assert_eq!(merged(first, second, Purpose::Delta), Err(Refusal::NotOneDelta));
        }
    }

    #[test]
    fn deltas_of_a_tray_that_stays_filled_are_merged_into_one() {
        let delta =
            |member: &str| alloc::format!(r#"{{"print":{{"tray":[{{"id":"1",{member}}}]}}}}"#);
        let both = delta(r#""a":1,"b":2"#);
        assert_eq!(merged(&delta(r#""a":1"#), &delta(r#""b":2"#), Purpose::Delta), Ok(both));
    }

    #[test]
    fn lists_of_other_things_are_replaced_whole() {
        for key in ["hms", "stg", "lights_report", "info"] {
            let print = |list: &str| alloc::format!(r#"{{"{key}":{list}}}"#);
            let new = print(r#"[{"id":1,"b":2}]"#);
            assert_eq!(in_print(&print(r#"[{"id":1,"a":1},{"id":2}]"#), &new), new);
            assert_eq!(in_print(&print(r#"[{"id":1}]"#), &print("[]")), print("[]"));
        }
    }

    #[test]
    fn of_a_repeated_member_the_last_counts() {
        assert_eq!(in_print(r#"{"a":0}"#, r#"{"a":1,"b":1,"a":2,"b":2}"#), r#"{"a":2,"b":2}"#);
        assert_eq!(in_print(r#"{"a":0}"#, r#"{"a":1,"b":1,"a":2}"#), r#"{"a":2,"b":1}"#);
        assert_eq!(
            in_print(r#"{"tray":[{"id":0,"k":0}]}"#, r#"{"tray":[{"id":0,"k":1},{"id":0,"k":2}]}"#),
            r#"{"tray":[{"id":0,"k":2}]}"#
        );
    }

    #[test]
    fn only_print_is_merged() {
        let merged = merged(
            r#"{"t":1,"print":{"a":1}}"#,
            r#"{"t":2,"print":{"a":2},"u":3}"#,
            Purpose::State,
        );
        assert_eq!(merged, Ok(r#"{"t":1,"print":{"a":2}}"#.into()));
    }

    #[test]
    fn a_delta_that_undoes_a_kind_is_not_merged_into_another_delta() {
        let pairs = [
            (r#"{"print":{"a":1}}"#, r#"{"print":{"a":{"x":1}}}"#),
            (r#"{"print":{"tray":[]}}"#, r#"{"print":{"tray":[{"id":1}]}}"#),
            (r#"{"print":{"tray":{}}}"#, r#"{"print":{"tray":[{"id":1}]}}"#),
        ];
        for (first, second) in pairs {
            assert_eq!(merged(first, second, Purpose::Delta), Err(Refusal::NotOneDelta));
            assert_eq!(merged(first, second, Purpose::State), Ok(second.into()));
        }
    }

    #[test]
    fn up_to_512_members_at_once_are_merged() {
        let wide = |count: usize| {
            let members: Vec<String> = (0..count).map(|at| alloc::format!("\"{at}\":1")).collect();
            alloc::format!("{{\"print\":{{{}}}}}", members.join(","))
        };
        let mut room = alloc::vec![0; 64 * 1024];
        let mut run = |count| {
            merge(
                b"{\"print\":{\"0\":1}}",
                wide(count).as_bytes(),
                Purpose::State,
                &mut Index::new(),
                &mut room,
            )
        };
        assert_eq!(run(WIDTH), Ok(wide(WIDTH).len()));
        assert_eq!(run(WIDTH + 1), Err(Refusal::TooWide));
    }
}
