//! Cgroup storage: elements that come and go with programs in cgroups.

use serde_json::{Map, Value, json};

use super::associative::MAP;
use super::family::{Facts, Operations};
use super::op::hex;
use super::{Chance, Op};

/// Cgroups: name, and the one above.
const CGROUPS: [(&str, Option<&str>); 4] = [
    ("top", None),
    ("child", Some("top")),
    ("grandchild", Some("child")),
    ("other", None),
];

/// Kinds of programs, what makes them run, and where they are attached.
const KINDS: [(&str, &str, u32); 6] = [
    ("cgroup_skb", "egress", 1),
    ("cgroup_skb", "ingress", 0),
    ("cgroup_udp4_sendmsg", "udp4_sendmsg", 14),
    ("cgroup_setsockopt", "setsockopt", 22),
    ("cgroup_sock_create", "sock_create", 2),
    ("cgroup_bind4", "bind4", 8),
];

/// Events that need no process in the cgroup are cheap.
const CHEAP_KINDS: usize = 4;

/// Programs of one run.
const PROGS: [&str; 4] = ["p0", "p1", "p2", "p3"];

/// One map, programs that use it, and cgroups.
#[derive(Debug)]
pub(super) struct CgroupStorage {
    percpu: bool,
    nr_cpus: usize,
    value_size: usize,
    /// Of each program, its place in [`KINDS`].
    kinds: Vec<usize>,
    /// Nothing is behind the last key; else there are bytes that say nothing, and nobody asks for them.
    walks: bool,
}

impl CgroupStorage {
    pub(super) fn new(facts: &Facts, chance: &mut Chance) -> (Vec<Op>, Self) {
        let key_size = *chance.pick(&[8, 16, 16]);
        // Of a value for each CPU, the running kernel reads and writes a multiple of 8 bytes, though it has allocated a
        // multiple of 4 only: what lies behind is somebody else's memory.
        let value_size = match facts.map_type.is_percpu() {
            true => *chance.pick(&[8, 8, 5, 7, 13, 24, 64]),
            false => *chance.pick(&[1, 4, 8, 8, 12, 24, 64]),
        };
        let name = facts
            .map_type
            .name()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let mut setup = vec![
            Op::new("map_create")
                .with("as", MAP)
                .with("type", name)
                .with("key_size", key_size)
                .with("value_size", value_size),
        ];
        for (name, above) in CGROUPS {
            let op = Op::new("cgroup_create").with("as", name);
            setup.push(match above {
                Some(above) => op.with("under", above),
                None => op,
            });
        }
        let kinds: Vec<usize> = PROGS
            .iter()
            .map(|_| {
                let all = if chance.one_in(8) {
                    KINDS.len()
                } else {
                    CHEAP_KINDS
                };
                // Several programs at one place meet more often.
                if chance.one_in(2) {
                    0
                } else {
                    chance.below(all)
                }
            })
            .collect();
        for (prog, kind) in PROGS.iter().zip(&kinds) {
            setup.push(
                Op::new("prog_load")
                    .with("as", *prog)
                    .with("kind", KINDS[*kind].0)
                    .with("storages", json!([MAP])),
            );
        }
        let own = Self {
            percpu: facts.map_type.is_percpu(),
            nr_cpus: facts.nr_cpus as usize,
            value_size,
            kinds,
            walks: facts.release.cgroup_storage_walk_ends,
        };
        (setup, own)
    }

    fn cgroup(chance: &mut Chance) -> &'static str {
        chance.pick(&CGROUPS).0
    }

    fn key(&self, chance: &mut Chance) -> Value {
        let kind = self.kinds[chance.below(self.kinds.len())];
        let place = if chance.one_in(15) { 3 } else { KINDS[kind].2 };
        let mut key = json!({ "cgroup": Self::cgroup(chance), "attach_type": place });
        if chance.one_in(10) {
            key["pad"] = 7.into();
        }
        key
    }

    /// All keys, or the first one.
    fn walk(&self) -> Op {
        let op = if self.walks {
            "walk"
        } else {
            "map_get_next_key"
        };
        Op::new(op).with("map", MAP)
    }

    fn elem(&self, chance: &mut Chance) -> Op {
        let commands = &[
            (8, "map_update_elem"),
            (8, "map_lookup_elem"),
            (2, "map_delete_elem"),
            (4, "map_get_next_key"),
            (1, "map_lookup_and_delete_elem"),
            (1, "map_lookup_batch"),
        ];
        let command = *chance.weighted(commands);
        let mut op = Op::new(command).with("map", MAP);
        if command == "map_lookup_batch" {
            return op.with("count", 2);
        }
        if command != "map_get_next_key" || !chance.one_in(3) && self.walks {
            op = op.with("key", self.key(chance));
        }
        if command == "map_update_elem" {
            let len = match self.percpu {
                true => self.value_size.next_multiple_of(8) * self.nr_cpus,
                false => self.value_size,
            };
            op = op.bytes("value", &chance.bytes(len));
        }
        let takes_flags = matches!(command, "map_update_elem" | "map_lookup_elem");
        if takes_flags && chance.one_in(3) {
            let flags = &[(5, 2), (3, 1), (1, 4), (1, 3), (1, 8), (1, u64::MAX)];
            op = op.number("flags", *chance.weighted(flags));
        }
        if chance.one_in(50) {
            let kind = *chance.pick(&["bad", "null"]);
            let field = *chance.pick(&["key_ptr", "value_ptr"]);
            op = op.with(field, kind);
        }
        op
    }

    fn attach(&self, chance: &mut Chance) -> Op {
        let number = chance.below(PROGS.len());
        let command = *chance.pick(&["prog_attach", "prog_detach"]);
        let op = Op::new(command)
            .with("prog", PROGS[number])
            .with("cgroup", Self::cgroup(chance))
            .number("attach_type", u64::from(KINDS[self.kinds[number]].2));
        if command == "prog_detach" {
            return op;
        }
        op.number("flags", *chance.weighted(&[(6, 2), (2, 0), (2, 1)]))
    }

    /// Bytes that programs shall write.
    fn write(&self, chance: &mut Chance, op: Op) -> Op {
        if chance.one_in(2) {
            return op;
        }
        let mut writes = Map::new();
        for _ in 0..chance.between(1, 2) {
            let value = hex(&chance.bytes(self.value_size.min(64)));
            writes.insert((*chance.pick(&PROGS)).to_owned(), json!({ MAP: value }));
        }
        op.with("write", writes)
    }

    fn trigger(&self, chance: &mut Chance) -> Op {
        let kind = self.kinds[chance.below(self.kinds.len())];
        let op = Op::new("trigger")
            .with("cgroup", Self::cgroup(chance))
            .with("how", KINDS[kind].1);
        self.write(chance, op)
    }

    fn test_run(&self, chance: &mut Chance) -> Op {
        // Of these kinds, programs can be tested.
        let can = |number: &usize| KINDS[self.kinds[*number]].0 == "cgroup_skb";
        match (0..PROGS.len()).find(can) {
            Some(number) => {
                let op = Op::new("prog_test_run").with("prog", PROGS[number]);
                self.write(chance, op)
            }
            None => self.trigger(chance),
        }
    }

    fn cgroup_op(chance: &mut Chance) -> Op {
        match chance.below(3) {
            // It has none below it.
            0 => Op::new("cgroup_remove")
                .with("cgroup", "grandchild")
                .with("keep_fd", true),
            1 => Op::new("cgroup_remove").with("cgroup", "top"),
            _ => Op::new("cgroup_create")
                .with("as", "grandchild")
                .with("under", "child"),
        }
    }
}

impl Operations for CgroupStorage {
    fn next(&mut self, chance: &mut Chance) -> Op {
        let kind = *chance.weighted(&[
            (500, "elem"),
            (30, "attach"),
            (300, "trigger"),
            (30, "test_run"),
            (50, "walk"),
            (20, "set_cpu"),
            (10, "info"),
            (2, "cgroup"),
        ]);
        match kind {
            "attach" => self.attach(chance),
            "trigger" => self.trigger(chance),
            "test_run" => self.test_run(chance),
            "walk" => self.walk(),
            "set_cpu" => Op::new("set_cpu").with("cpu", chance.below(self.nr_cpus)),
            "info" => Op::new("obj_get_info_by_fd").with("map", MAP),
            "cgroup" => Self::cgroup_op(chance),
            _ => self.elem(chance),
        }
    }

    fn check(&self) -> Vec<Op> {
        let mut check = vec![self.walk()];
        for (cgroup, _) in CGROUPS {
            for kind in &self.kinds {
                let key = json!({ "cgroup": cgroup, "attach_type": KINDS[*kind].2 });
                check.push(Op::new("map_lookup_elem").with("map", MAP).with("key", key));
            }
        }
        check
    }
}
