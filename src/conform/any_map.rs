//! Operations that any map can be asked for, whatever its type: most types refuse most of them, each with its own errno.

use serde_json::{Value, json};

use super::{Chance, Op};

/// A second fd of the map, often one that only reads or only writes.
const OTHER: &str = "other";

/// A mapping of the map.
pub(super) const MEMORY: &str = "memory";

/// Paths in the run's bpffs.
const PATHS: [&str; 4] = ["a", "b", "c", "d"];

/// `BPF_F_RDONLY`, `BPF_F_WRONLY`, both, and a flag that no file has.
const FILE_FLAGS: &[(usize, u64)] = &[(3, 0), (4, 8), (4, 16), (1, 24), (1, 1)];

/// Flags of elements: each that there is, and some that there are not.
const ELEM_FLAGS: &[(usize, u64)] = &[(8, 0), (2, 1), (2, 2), (2, 4), (1, 5), (1, 8), (1, 1 << 40)];

/// The element commands.
const ELEM_COMMANDS: [&str; 5] = [
    "map_lookup_elem",
    "map_update_elem",
    "map_delete_elem",
    "map_get_next_key",
    "map_lookup_and_delete_elem",
];

/// What of a map may be asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// The name of the map.
    pub(super) map: &'static str,
    /// Its keys are fds: number 0 is something else on each side.
    pub(super) keys_are_fds: bool,
    /// It was closed. Nobody asks for its id: the running kernel lets go of some maps (of a prog_array) a little later.
    pub(super) gone: bool,
    /// Programs use it too, at least those that are refused.
    pub(super) programs: bool,
}

impl Asked {
    /// The next operation.
    pub(super) fn op(self, chance: &mut Chance) -> Op {
        let kind = *chance.weighted(&[
            (12, "elem"),
            (12, "batch"),
            (10, "raw"),
            (8, "info"),
            (4, "file"),
            (8, "fd"),
            (14, "memory"),
            (2, "pin"),
            (3, "cpu"),
            (if self.programs { 10 } else { 0 }, "program"),
            (1, "freeze"),
        ]);
        match kind {
            "elem" => self.elem(chance),
            "batch" => self.batch(chance),
            "raw" => self.raw(chance),
            "info" => self.info(chance),
            "file" => self.file(chance),
            "fd" => self.fd(chance),
            "memory" => self.memory(chance),
            "pin" => self.pin(chance),
            "cpu" => Op::new("set_cpu").with("cpu", chance.below(3)),
            "program" => self.program(chance),
            // Not too often: after it there is little to see.
            _ if chance.one_in(8) => Op::new("map_freeze").with("map", self.map),
            _ => self.info(chance),
        }
    }

    /// An operation on the map, as one through its second fd.
    pub(super) fn through_other(self, op: Op) -> Op {
        // An epoll set is of the first fd that it was asked with.
        let stays = op.0.contains_key("as") || op.command() == "epoll";
        match op.0.get("map") {
            Some(Value::String(map)) if map == self.map && !stays => op.with("map", OTHER),
            _ => op,
        }
    }

    /// An element command as one without bpf(2), which is to answer the same; other operations as they are.
    pub(super) fn by_handle(op: Op) -> Op {
        match ELEM_COMMANDS.contains(&op.command().as_str()) {
            true => op.with("handle", true),
            false => op,
        }
    }

    fn on(self, op: &str) -> Op {
        Op::new(op).with("map", self.map)
    }

    /// Bytes of a key; longer keys go on with zeros.
    fn key(self, chance: &mut Chance) -> &'static str {
        if self.keys_are_fds || chance.one_in(3) {
            "ffffffffffffffff"
        } else {
            "0000000000000000"
        }
    }

    fn elem(self, chance: &mut Chance) -> Op {
        let command = *chance.pick(&ELEM_COMMANDS);
        let mut op = self.on(command);
        if !chance.one_in(4) {
            op = op.with("key", self.key(chance));
        }
        if command == "map_update_elem" && !chance.one_in(6) {
            // No fd, no device, no number of a CPU.
            op = op.with("value", "ff".repeat(16));
        }
        if command != "map_get_next_key" {
            op = op.number("flags", *chance.weighted(ELEM_FLAGS));
        }
        op
    }

    fn batch(self, chance: &mut Chance) -> Op {
        let command = *chance.pick(&[
            "map_lookup_batch",
            "map_lookup_and_delete_batch",
            "map_update_batch",
            "map_delete_batch",
        ]);
        let count = chance.below(3);
        let mut op = self.on(command).with("count", count);
        if !command.contains("lookup") {
            op = op.with("keys", self.key(chance).repeat(count));
            op = op.with("values", "ff".repeat(16 * count));
        }
        op = op.number("elem_flags", *chance.weighted(ELEM_FLAGS));
        op.number("flags", u64::from(chance.one_in(10)))
    }

    /// An element command whose attr is short, long, or not zero where it has to be; a value that does not fit.
    fn raw(self, chance: &mut Chance) -> Op {
        let command = *chance.pick(&[
            "map_lookup_elem",
            "map_update_elem",
            "map_delete_elem",
            "map_get_next_key",
            "map_lookup_and_delete_elem",
            "map_freeze",
            "obj_get_info_by_fd",
        ]);
        let key = self.key(chance);
        let value = match chance.below(4) {
            0 => json!({ "bad": true }),
            1 => json!({ "edge_in": "ff".repeat(chance.below(16)) }),
            _ => json!({ "in": "ff".repeat(16) }),
        };
        let odd = u64::from(chance.one_in(4));
        let attr = json!([
            [32, { "fd": self.map }],
            [32, odd],
            [64, { "in": key }],
            [64, value],
            [64, *chance.weighted(ELEM_FLAGS)],
            [64, u64::from(chance.one_in(4))],
        ]);
        let op = Op::new("bpf").with("cmd", command).with("attr", attr);
        if chance.one_in(2) {
            return op;
        }
        let size = *chance.pick(&[0, 3, 4, 8, 16, 20, 24, 31, 32, 40, 200, 4096, 4097]);
        op.with("size", size)
    }

    /// A helper that goes with the type, or does not.
    fn program(self, chance: &mut Chance) -> Op {
        if chance.one_in(10) {
            return self.on("for_each");
        }
        let helper = *chance.pick(&[
            "map_lookup_elem",
            "map_update_elem",
            "map_delete_elem",
            "map_push_elem",
            "map_pop_elem",
            "map_peek_elem",
            "map_lookup_percpu_elem",
            "redirect_map",
            "tail_call",
            "skb_under_cgroup",
            "perf_event_output",
        ]);
        // Socket filters, traffic control, XDP, sockets of cgroups; some maps go with one type only, the first program's.
        let prog_type = *chance.pick(&[1, 3, 6, 8]);
        let op = self.on("helper").with("helper", helper);
        let op = op
            .with("prog_type", prog_type)
            .with("key", self.key(chance));
        op.with("value", "ff".repeat(8))
    }

    fn info(self, chance: &mut Chance) -> Op {
        if chance.one_in(3) {
            return self.on("fdinfo");
        }
        let op = self.on("obj_get_info_by_fd");
        match chance.below(6) {
            0 => {
                let len = *chance.pick(&[0, 4, 16, 60, 80, 88, 100, 104, 112, 4096, 4097]);
                op.with("info_len", len)
            }
            1 => op
                .with("info_len", 120)
                .with("tail", *chance.pick(&[110, 119, 125])),
            2 => op.with("info_ptr", *chance.pick(&["bad", "null"])),
            _ => op,
        }
    }

    fn file(self, chance: &mut Chance) -> Op {
        if chance.one_in(3) {
            return self.on("poll");
        }
        let what = *chance.pick(&["read", "write", "lseek", "getfl"]);
        self.on("file_op").with("what", what)
    }

    fn fd(self, chance: &mut Chance) -> Op {
        match chance.below(if self.gone { 2 } else { 8 }) {
            0 => Op::new("close").with("map", OTHER),
            1 => self.on("dup").with("as", OTHER),
            _ => self
                .on("map_get_fd_by_id")
                .with("as", OTHER)
                .number("flags", *chance.weighted(FILE_FLAGS)),
        }
    }

    /// mmap, and what is done with the mapping.
    pub(super) fn memory(self, chance: &mut Chance) -> Op {
        let mem = |op: &str| Op::new(op).with("mem", MEMORY);
        let prot = *chance.weighted(&[(4, "rw"), (3, "r"), (1, "w"), (1, "rx"), (1, "none")]);
        let off = *chance.pick(&[0, 1, 8, 100, 4090, 4096, 8191]);
        match chance.below(10) {
            0..3 => {
                let len = *chance.weighted(&[(6, 4096), (3, 8192), (1, 1), (1, 0), (1, 1 << 20)]);
                let offset = *chance.weighted(&[(8, 0), (2, 4096), (1, 8192), (1, 8)]);
                let op = self.on("mmap").with("as", MEMORY).with("len", len);
                let op = op.with("offset", offset).with("prot", prot);
                if chance.one_in(10) {
                    op.with("private", true)
                } else {
                    op
                }
            }
            3..6 => mem("mem_read")
                .with("off", off)
                .with("len", chance.below(40)),
            6..8 => {
                let len = chance.between(1, 20);
                mem("mem_write")
                    .with("off", off)
                    .bytes("value", &chance.bytes(len))
            }
            8 => mem("mprotect").with("prot", prot),
            _ => mem("munmap"),
        }
    }

    fn pin(self, chance: &mut Chance) -> Op {
        let at = |op: Op, chance: &mut Chance| op.with("path", *chance.pick(&PATHS));
        // Nothing is unlinked: the running kernel lets go of the map some time later.
        match chance.below(3) {
            0 => at(self.on("obj_pin"), chance).number("flags", u64::from(chance.one_in(6))),
            _ => at(Op::new("obj_get"), chance)
                .with("as", OTHER)
                .number("flags", *chance.weighted(FILE_FLAGS)),
        }
    }
}
