//! Maps of keys and values: hashes, arrays, LRU hashes, tries, per CPU or not, arrays of instructions.

use serde_json::{Value, json};

use super::btf::{self, Field};
use super::family::{Facts, Operations};
use super::op::hex;
use super::{Chance, Op};
use crate::abi::{MapFlags, MapType};

/// The name of the map.
pub(super) const MAP: &str = "m";

/// Flags of updates and lookups, each so often: mostly those that work, and all kinds that do not.
const FLAGS: &[(usize, u64)] = &[
    (40, 0),
    (8, 1),
    (8, 2),
    (4, 4),
    (1, 3),
    (1, 5),
    (1, 6),
    (1, 7),
    (1, 8),
    (1, 1 << 32),
    (1, u64::MAX),
];

/// Bytes of a value of an array of instructions.
const INSN_VALUE: usize = 16;

/// A map, and the keys that its operations use.
#[derive(Debug)]
pub(super) struct Associative {
    map_type: MapType,
    keys: Vec<Vec<u8>>,
    value_size: usize,
    max_entries: usize,
    /// A field of the value that nobody reads or writes.
    field: Option<(Field, usize)>,
    preallocated: bool,
    nr_cpus: u32,
    /// Where the last batch ended.
    token: Option<String>,
    /// Where the last step of a walk ended.
    cursor: Option<String>,
    frozen: bool,
}

const fn is_array(map_type: MapType) -> bool {
    matches!(
        map_type,
        MapType::ARRAY | MapType::PERCPU_ARRAY | MapType::INSN_ARRAY
    )
}

const fn is_lru(map_type: MapType) -> bool {
    matches!(map_type, MapType::LRU_HASH | MapType::LRU_PERCPU_HASH)
}

/// Sizes that are most often odd.
fn size(chance: &mut Chance) -> usize {
    if chance.one_in(4) {
        return chance.between(1, 64);
    }
    *chance.weighted(&[
        (6, 4),
        (6, 8),
        (2, 1),
        (2, 3),
        (2, 7),
        (2, 12),
        (3, 16),
        (1, 24),
        (1, 65),
    ])
}

/// Keys of a hash: more than it has room for, some of them alike.
fn hash_keys(chance: &mut Chance, len: usize, max_entries: usize) -> Vec<Vec<u8>> {
    (0..max_entries * 2 + 2)
        .map(|number| match chance.below(3) {
            0 => chance.bytes(len),
            _ => {
                let mut key = vec![0; len];
                let place = chance.below(len);
                key[place] = number.to_le_bytes()[0];
                key[len - 1] ^= number.to_le_bytes()[1];
                key
            }
        })
        .collect()
}

/// Keys of a trie: a length in bits, and bytes that often begin alike.
fn trie_keys(chance: &mut Chance, len: usize, max_entries: usize) -> Vec<Vec<u8>> {
    let bits = 8 * (len - 4);
    (0..max_entries * 2 + 4)
        .map(|_| {
            let most = if chance.one_in(12) { bits + 2 } else { bits };
            let prefix = u32::try_from(chance.between(0, most)).expect("a short key");
            let mut key = prefix.to_le_bytes().to_vec();
            for _ in 4..len {
                key.push(*chance.weighted(&[(3, 0), (3, 0xff), (1, 0x80), (1, 0x0f), (1, 0x55)]));
            }
            key
        })
        .collect()
}

/// Flags of a map to be made.
fn map_flags(map_type: MapType, chance: &mut Chance) -> MapFlags {
    let mut flags = MapFlags::empty();
    if map_type == MapType::INSN_ARRAY {
        return flags;
    }
    if matches!(map_type, MapType::LPM_TRIE | MapType::RHASH) {
        flags |= MapFlags::NO_PREALLOC;
    } else if !is_array(map_type) {
        flags |= MapFlags::ZERO_SEED;
        if is_lru(map_type) && chance.one_in(3) {
            flags |= MapFlags::NO_COMMON_LRU;
        } else if !is_lru(map_type) && chance.one_in(2) {
            flags |= MapFlags::NO_PREALLOC;
        }
    } else if map_type == MapType::ARRAY && chance.one_in(4) {
        flags |= MapFlags::MMAPABLE;
    }
    if chance.one_in(10) {
        flags |= *chance.pick(&[
            MapFlags::RDONLY,
            MapFlags::WRONLY,
            MapFlags::RDONLY_PROG,
            MapFlags::WRONLY_PROG,
        ]);
    }
    flags
}

/// A lock or a timer for one map in four of the types that may have it, and a value that has room for it.
fn field_of(
    map_type: MapType,
    value_size: &mut usize,
    chance: &mut Chance,
) -> Option<(Field, usize)> {
    let may_lock = matches!(map_type, MapType::HASH | MapType::RHASH | MapType::ARRAY);
    let may_have_timer = may_lock || map_type == MapType::LRU_HASH;
    if !may_have_timer || !chance.one_in(4) {
        return None;
    }
    if may_lock && chance.one_in(2) {
        *value_size = (*value_size).max(4).next_multiple_of(4);
        return Some((Field::Lock, 4 * chance.below(*value_size / 4)));
    }
    *value_size = (*value_size).max(16).next_multiple_of(8);
    let places = (*value_size - 16) / 8 + 1;
    Some((Field::Timer, 8 * chance.below(places)))
}

impl Associative {
    pub(super) fn new(facts: &Facts, chance: &mut Chance) -> (Vec<Op>, Self) {
        let map_type = facts.map_type;
        let array = is_array(map_type);
        let max_entries = match is_lru(map_type) && chance.one_in(3) {
            // Around the number of places that a CPU takes at once.
            true => *chance.pick(&[127, 128, 129, 200, 300]),
            // The order of more is random.
            false if map_type == MapType::RHASH => 1,
            false => *chance.weighted(&[(2, 1), (2, 2), (3, 5), (3, 8), (2, 17), (1, 64)]),
        };
        let key_size = match map_type {
            MapType::LPM_TRIE if chance.one_in(4) => 4 + chance.between(1, 60),
            MapType::LPM_TRIE => 4 + *chance.pick(&[1, 2, 4, 8, 16]),
            _ if array => 4,
            _ => size(chance),
        };
        let keys = match map_type {
            MapType::LPM_TRIE => trie_keys(chance, key_size, max_entries),
            _ if array => array_keys(max_entries),
            _ => hash_keys(chance, key_size, max_entries),
        };
        let mut value_size = match map_type {
            MapType::INSN_ARRAY => INSN_VALUE,
            _ => size(chance),
        };
        let flags = map_flags(map_type, chance);
        if map_type == MapType::PERCPU_HASH && flags.contains(MapFlags::NO_PREALLOC) {
            // What lies between a value's end and a multiple of 8 is what was in that memory before: anything.
            value_size = value_size.next_multiple_of(8);
        }
        let field = field_of(map_type, &mut value_size, chance);
        let mut setup = Vec::new();
        let mut create = Op::new("map_create")
            .with("as", MAP)
            .with(
                "type",
                map_type.name().unwrap_or_default().to_ascii_lowercase(),
            )
            .number("key_size", key_size as u64)
            .number("value_size", value_size as u64)
            .number("max_entries", max_entries as u64)
            .number("map_flags", flags.bits().into());
        if let Some((field, at)) = field {
            setup.push(btf::load("b", key_size, value_size, field, at));
            create = create
                .with("btf", "b")
                .with("btf_key_type_id", btf::KEY_TYPE)
                .with("btf_value_type_id", btf::VALUE_TYPE);
        }
        setup.push(create);
        let own = Self {
            map_type,
            keys,
            value_size,
            max_entries,
            field,
            preallocated: !flags.contains(MapFlags::NO_PREALLOC),
            nr_cpus: facts.nr_cpus,
            token: None,
            cursor: None,
            frozen: false,
        };
        (setup, own)
    }

    fn key<'a>(&'a self, chance: &mut Chance) -> &'a [u8] {
        chance.pick::<Vec<u8>>(&self.keys)
    }

    /// Bytes of a value on the bpf(2) side.
    fn user_size(&self) -> usize {
        if self.map_type.is_percpu() {
            self.value_size.next_multiple_of(8) * self.nr_cpus as usize
        } else {
            self.value_size
        }
    }

    /// Flags. One CPU's value of a new key leaves the others as they are: in memory that is not the map's own, anything.
    fn flags(&self, chance: &mut Chance) -> u64 {
        match *chance.weighted(FLAGS) {
            8 if self.map_type == MapType::PERCPU_HASH && !self.preallocated => 0,
            flags => flags,
        }
    }

    /// A value; in that of an instruction the kernel fills in what is behind the number.
    fn value(&self, chance: &mut Chance, len: usize) -> Vec<u8> {
        let mut value = chance.bytes(len);
        if self.map_type == MapType::INSN_ARRAY
            && !chance.one_in(6)
            && let Some(found) = value.get_mut(4..12)
        {
            found.fill(0);
        }
        value
    }

    // --- system calls -----------------------------------------------------------------------------------------------

    fn elem(&self, chance: &mut Chance) -> Op {
        let commands = &[
            (10, "map_update_elem"),
            (8, "map_lookup_elem"),
            (5, "map_delete_elem"),
            (3, "map_get_next_key"),
            (2, "map_lookup_and_delete_elem"),
        ];
        let command = *chance.weighted(commands);
        let mut op = Op::new(command).with("map", MAP);
        if command == "map_get_next_key" {
            // A walk goes on from where it was, whatever has gone meanwhile.
            match (&self.cursor, chance.below(6)) {
                (_, 0) => return op,
                (Some(cursor), 1..=3) => return op.with("key", cursor.as_str()),
                _ => {}
            }
        }
        op = op.bytes("key", self.key(chance));
        match command {
            "map_update_elem" => {
                op = op.bytes("value", &self.value(chance, self.user_size()));
                op = op.number("flags", self.flags(chance));
            }
            // Few flags are taken here.
            "map_lookup_elem" | "map_lookup_and_delete_elem" if chance.one_in(5) => {
                op = op.number("flags", self.flags(chance));
            }
            "map_delete_elem" if chance.one_in(20) => op = op.with("flags", 1),
            _ => {}
        }
        self.bad_pointer(chance, op, &["key", "value", "next_key"])
    }

    /// Now and then, a pointer that points to nothing.
    fn bad_pointer(&self, chance: &mut Chance, op: Op, fields: &[&str]) -> Op {
        if !chance.one_in(40) {
            return op;
        }
        let field = format!("{}_ptr", chance.pick(fields));
        let kind = *chance.pick(&["bad", "null"]);
        op.with(&field, kind)
    }

    fn batch(&self, chance: &mut Chance) -> Op {
        let commands = &[
            (4, "map_lookup_batch"),
            (2, "map_lookup_and_delete_batch"),
            (3, "map_update_batch"),
            (2, "map_delete_batch"),
        ];
        let command = *chance.weighted(commands);
        // The shortest find no room for a bucket, the longest have more than there is.
        let count = match chance.below(4) {
            0 => chance.below(4),
            1 => self.max_entries + chance.below(3),
            _ => chance.between(0, self.max_entries + 2),
        };
        let mut op = Op::new(command)
            .with("map", MAP)
            .number("count", count as u64);
        let reading = command.contains("lookup");
        if reading {
            match (&self.token, chance.below(4)) {
                (Some(token), 0..=1) => op = op.with("in_batch", token.as_str()),
                (_, 2) => {
                    let token = u32::try_from(chance.below(self.max_entries * 2 + 2));
                    op = op.bytes("in_batch", &token.unwrap_or(0).to_le_bytes());
                }
                _ => {}
            }
        } else {
            let mut keys = Vec::new();
            for _ in 0..count {
                keys.extend(self.key(chance));
            }
            op = op.bytes("keys", &keys);
            if command == "map_update_batch" {
                op = op.bytes("values", &self.value(chance, count * self.user_size()));
            }
        }
        if chance.one_in(8) {
            op = op.number("elem_flags", self.flags(chance));
        }
        if chance.one_in(40) {
            op = op.with("flags", 1);
        }
        if count > 1 && chance.one_in(20) {
            let (field, one) = if chance.one_in(2) {
                ("keys_edge", self.keys[0].len())
            } else {
                ("values_edge", self.user_size())
            };
            op = op.with(field, chance.below(count) * one);
        }
        self.bad_pointer(chance, op, &["keys", "values", "in_batch", "out_batch"])
    }

    // --- program side -----------------------------------------------------------------------------------------------

    fn helper(&self, chance: &mut Chance) -> Op {
        let commands = &[
            (5, "map_lookup_elem"),
            (5, "map_update_elem"),
            (3, "map_delete_elem"),
            (
                if self.map_type.is_percpu() { 2 } else { 0 },
                "map_lookup_percpu_elem",
            ),
        ];
        let command = *chance.weighted(commands);
        let mut op = Op::new("helper")
            .with("helper", command)
            .with("map", MAP)
            .with("prog_type", 3)
            .bytes("key", self.key(chance));
        match command {
            "map_update_elem" => {
                op = op.bytes("value", &self.value(chance, self.value_size));
                let flags = &[
                    (20, 0),
                    (5, 1),
                    (5, 2),
                    (2, 4),
                    (1, 3),
                    (1, 5),
                    (1, 6),
                    (1, 8),
                ];
                op = op.number("flags", *chance.weighted(flags));
            }
            "map_lookup_elem" | "map_lookup_percpu_elem" => {
                if command == "map_lookup_percpu_elem" {
                    op = op.number("cpu", chance.below(self.nr_cpus as usize + 1) as u64);
                }
                match self.field {
                    Some((field, at)) => op = op.with("skip", json!([[at, field.len()]])),
                    None if chance.one_in(3) => {
                        op = op.bytes("store", &chance.bytes(self.value_size));
                    }
                    None => {}
                }
            }
            _ => {}
        }
        op
    }

    fn for_each(&self, chance: &mut Chance) -> Op {
        let mut op = Op::new("for_each").with("map", MAP);
        if chance.one_in(3) {
            op = op.number("stop_after", chance.between(1, self.max_entries + 1) as u64);
        }
        match chance.below(6) {
            0 => op = op.with("delete", "self"),
            1 => {
                let at = chance.below(self.max_entries + 1);
                op = op.with("delete", json!({ "at": at, "key": hex(self.key(chance)) }));
            }
            _ => {}
        }
        op
    }

    /// An atomic step through a pointer; few of them are not where the verifier wants them.
    fn atomic(&self, pointer: &str, chance: &mut Chance) -> Value {
        let wide = chance.one_in(2);
        let len = if wide { 8 } else { 4 };
        let at = match chance.one_in(12) {
            true => chance.below(self.value_size + 1),
            false => len * chance.below((self.value_size / len).max(1)),
        };
        let ops = ["add", "or", "and", "xor", "exchange", "compare_exchange"];
        let number = |chance: &mut Chance| match chance.one_in(2) {
            true => *chance.pick(&[0, 1, u64::MAX, u64::MAX >> 32]),
            false => chance.number(),
        };
        let (value, expected) = (number(chance), number(chance));
        json!({
            "atomic": pointer,
            "op": *chance.pick(&ops),
            "wide": wide,
            "at": at,
            "value": value,
            "expected": expected,
        })
    }

    /// Several steps in one program. What is deleted is not looked at again, unless its place stays the map's.
    fn program(&self, chance: &mut Chance) -> Op {
        let read_len = self.value_size.min(64);
        let mut steps: Vec<Value> = Vec::new();
        let pointers = chance.between(1, 2);
        for pointer in 0..pointers {
            let name = format!("p{pointer}");
            steps.push(json!({ "lookup": hex(self.key(chance)), "as": name }));
        }
        let touched = |steps: &mut Vec<Value>, chance: &mut Chance| {
            let name = format!("p{}", chance.below(pointers));
            match self.field {
                Some((Field::Lock, at)) if chance.one_in(2) => {
                    steps.push(json!({ "lock": name, "at": at }));
                    steps.push(json!({ "unlock": name, "at": at }));
                }
                Some((Field::Timer, at)) => {
                    // Mostly in an order in which they succeed.
                    let mut what = chance.below(4);
                    for _ in 0..chance.between(2, 6) {
                        steps.push(use_timer(what, &name, at, chance));
                        what = match chance.one_in(4) {
                            true => chance.below(4),
                            false => (what + 1) % 4,
                        };
                    }
                }
                Some(_) => {}
                None if chance.one_in(3) => steps.push(self.atomic(&name, chance)),
                None => {
                    // All that may be noted, or what one instruction reads or writes.
                    let len = *chance.pick(&[read_len, read_len, 1, 2, 4, 8]);
                    let len = len.min(read_len);
                    let at = chance.below(read_len - len + 1);
                    if chance.one_in(2) {
                        let value = hex(&chance.bytes(len));
                        steps.push(json!({ "write": name, "at": at, "value": value }));
                    } else {
                        steps.push(json!({ "read": name, "at": at, "len": len }));
                    }
                }
            }
        };
        touched(&mut steps, chance);
        let value = hex(&self.value(chance, self.value_size));
        match chance.below(3) {
            0 => steps.push(json!({ "update": hex(self.key(chance)), "value": value })),
            1 => steps.push(json!({ "delete": hex(self.key(chance)) })),
            _ => {}
        }
        if self.preallocated {
            touched(&mut steps, chance);
        }
        Op::new("program").with("map", MAP).with("steps", steps)
    }
}

/// A step with the timer at that offset of a value: it is to run when nobody is there any more.
fn use_timer(what: usize, pointer: &str, at: usize, chance: &mut Chance) -> Value {
    let at = if chance.one_in(40) { at + 8 } else { at };
    match what {
        0 => {
            let flags = *chance.weighted(&[(4, 1), (1, 0), (1, 7), (1, 2)]);
            json!({ "timer_init": pointer, "at": at, "flags": flags })
        }
        1 => json!({ "timer_set_callback": pointer, "at": at }),
        2 => {
            let flags = *chance.weighted(&[(3, 0), (1, 1), (1, 2), (1, 4)]);
            json!({ "timer_start": pointer, "at": at, "ns": 1_u64 << 60, "flags": flags })
        }
        _ => json!({ "timer_cancel": pointer, "at": at }),
    }
}

fn array_keys(max_entries: usize) -> Vec<Vec<u8>> {
    let last = u32::try_from(max_entries).expect("a small map");
    let indexes = (0..last + 2).chain([u32::MAX]);
    indexes.map(|index| index.to_le_bytes().to_vec()).collect()
}

impl Operations for Associative {
    fn next(&mut self, chance: &mut Chance) -> Op {
        let kind = *chance.weighted(&[
            (500, "elem"),
            (100, "batch"),
            (200, "helper"),
            (12, "for_each"),
            (if self.field.is_some() { 60 } else { 24 }, "program"),
            (if is_lru(self.map_type) { 90 } else { 30 }, "set_cpu"),
            (20, "walk"),
            (10, "info"),
            (1, "freeze"),
        ]);
        match kind {
            "batch" => self.batch(chance),
            "helper" => self.helper(chance),
            "for_each" => self.for_each(chance),
            "program" => self.program(chance),
            "set_cpu" => Op::new("set_cpu").with("cpu", chance.below(self.nr_cpus as usize)),
            "walk" => Op::new("walk").with("map", MAP),
            "info" => Op::new("obj_get_info_by_fd").with("map", MAP),
            // Not too often: after it there is little to see.
            "freeze" if !self.frozen && chance.one_in(3) => {
                self.frozen = true;
                Op::new("map_freeze").with("map", MAP)
            }
            _ => self.elem(chance),
        }
    }

    fn check(&self) -> Vec<Op> {
        let walk = Op::new("walk").with("map", MAP);
        let count = self.max_entries + 4;
        let values = Op::new("map_lookup_batch")
            .with("map", MAP)
            .with("count", count);
        vec![walk, values]
    }

    fn answered(&mut self, _op: &Op, answer: &Value) {
        if let Some(token) = answer.get("out_batch").and_then(Value::as_str) {
            self.token = Some(token.to_owned());
        }
        if let Some(key) = answer.get("next_key").and_then(Value::as_str) {
            self.cursor = Some(key.to_owned());
        }
    }
}
