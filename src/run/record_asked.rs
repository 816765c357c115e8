//! What a call asks for, as a trace has it.

use serde_json::{Map, Value, json};

use super::caller::Caller;
use super::memory::TaskMem;
use super::record::{State, hex, holds_sockets, is_batch, is_elem};
use crate::abi::{
    Attr, BatchAttr, Cmd, CreateAttr, ElemAttr, Fd, MapType, ObjAttr, ProgType, UserMem,
};
use crate::map::MapDef;
use crate::map::object::Object;
use crate::sys::Fds as _;

/// Bytes of keys or values of a batch that are written.
const MOST: usize = 1 << 20;

/// Kinds of programs that a trace knows.
fn kind(prog_type: ProgType) -> Option<&'static str> {
    Some(match prog_type {
        ProgType::SOCKET_FILTER => "socket_filter",
        ProgType::SCHED_CLS => "sched_cls",
        ProgType::XDP => "xdp",
        ProgType::CGROUP_SKB => "cgroup_skb",
        _ => return None,
    })
}

impl State {
    pub(super) fn asked(
        &mut self,
        caller: &Caller<'_>,
        (def, map): (&mut Option<MapDef>, &mut Option<u32>),
        cmd: Cmd,
        attr: Attr<'_>,
        mem: &TaskMem<'_>,
    ) -> Option<Map<String, Value>> {
        let mut o = Map::new();
        let mut put = |field: &str, value: Value| drop(o.insert(field.to_owned(), value));
        if is_elem(cmd) || is_batch(cmd) || cmd == Cmd::MAP_FREEZE {
            let at = if is_batch(cmd) { 36 } else { 0 };
            let fd = attr.u32(at);
            put("op", json!(format!("{cmd}").to_lowercase()));
            put("map", self.fd(caller, fd));
            let file = caller.get(fd).ok();
            if let Some(Object::Map(found)) = file.map(|file| file.object()) {
                *def = Some(found.def.clone());
                *map = Some(found.id);
            }
        }
        if is_elem(cmd) {
            let elem = ElemAttr::decode(attr);
            put("flags", json!(elem.flags.bits()));
            let def = def.as_ref();
            self.key_asked(caller, &mut put, def, elem.key, mem);
            if cmd == Cmd::MAP_UPDATE_ELEM
                || def.is_some_and(|def| def.map_type == MapType::BLOOM_FILTER)
            {
                self.value_asked(caller, &mut put, def, elem.value, mem)?;
            }
            return Some(o);
        }
        match cmd {
            Cmd::MAP_FREEZE => {}
            Cmd::MAP_CREATE => self.create_asked(caller, &mut put, attr),
            Cmd::MAP_LOOKUP_BATCH
            | Cmd::MAP_LOOKUP_AND_DELETE_BATCH
            | Cmd::MAP_UPDATE_BATCH
            | Cmd::MAP_DELETE_BATCH => {
                batch_asked(&mut put, def.as_ref(), cmd, attr, mem, self.nr_cpus)?
            }
            Cmd::OBJ_PIN => {
                put("op", json!("obj_pin"));
                put("map", self.fd(caller, ObjAttr::decode(attr).bpf_fd));
            }
            Cmd::OBJ_GET => {
                put("op", json!("obj_get"));
                put("flags", json!(ObjAttr::decode(attr).file_flags & 0x18));
            }
            Cmd::MAP_GET_FD_BY_ID | Cmd::MAP_GET_NEXT_ID => self.id_asked(&mut put, cmd, attr),
            Cmd::BTF_LOAD => {
                let mut data = vec![0; attr.u32(16) as usize];
                mem.read(attr.u64(0), &mut data).ok()?;
                put("op", json!("btf_load"));
                put("data", json!(hex(&data)));
            }
            Cmd::PROG_LOAD => {
                put("op", json!("prog_load"));
                put("kind", json!(kind(ProgType(attr.u32(0)))?));
            }
            _ => return None,
        }
        Some(o)
    }

    fn id_asked(&self, put: &mut impl FnMut(&str, Value), cmd: Cmd, attr: Attr<'_>) {
        let (id, name) = (attr.u32(0), self.map_name(attr.u32(0)));
        if cmd == Cmd::MAP_GET_NEXT_ID {
            put("op", json!("map_get_next_id"));
            put("after", name.map_or(json!(id), |name| json!(name)));
            return;
        }
        put("op", json!("map_get_fd_by_id"));
        put("flags", json!(attr.u32(8)));
        match name {
            Some(name) => put("map", json!(name)),
            None => put("id", json!(id)),
        }
    }

    fn create_asked(
        &mut self,
        caller: &Caller<'_>,
        put: &mut impl FnMut(&str, Value),
        attr: Attr<'_>,
    ) {
        let create = CreateAttr::decode(attr);
        put("op", json!("map_create"));
        let map_type = create.map_type;
        put("type", json!(map_type.0));
        for (field, at) in [
            ("key_size", 4),
            ("value_size", 8),
            ("max_entries", 12),
            ("map_flags", 16),
            ("numa_node", 24),
            ("map_ifindex", 44),
            ("btf_key_type_id", 52),
            ("btf_value_type_id", 56),
            ("btf_vmlinux_value_type_id", 60),
            ("value_type_btf_obj_fd", 72),
        ] {
            if attr.u32(at) != 0 {
                put(field, json!(attr.u32(at)));
            }
        }
        if attr.u64(64) != 0 {
            put("map_extra", json!(attr.u64(64)));
        }
        put("map_name_hex", json!(hex(&attr.0[28..44])));
        for (field, at) in [("inner_map", 20), ("btf", 48), ("map_token_fd", 76)] {
            if attr.u32(at) != 0 {
                put(field, self.fd(caller, attr.u32(at)));
            }
        }
    }

    /// The owner of a storage is an fd.
    fn key_asked(
        &mut self,
        caller: &Caller<'_>,
        put: &mut impl FnMut(&str, Value),
        def: Option<&MapDef>,
        addr: u64,
        mem: &TaskMem<'_>,
    ) {
        let of_owners = def.is_some_and(|def| {
            [
                MapType::SK_STORAGE,
                MapType::INODE_STORAGE,
                MapType::TASK_STORAGE,
                MapType::CGRP_STORAGE,
            ]
            .contains(&def.map_type)
        });
        let mut fd = [0; 4];
        if of_owners
            && mem.read(addr, &mut fd).is_ok()
            && let Ok(file) = caller.get(Fd::from_ne_bytes(fd))
        {
            return put("key", json!({ "fd": self.name(&file) }));
        }
        let key_size = def.map_or(0, |def| def.key_size as usize);
        pointed(put, "key", addr, key_size, mem);
    }

    fn value_asked(
        &mut self,
        caller: &Caller<'_>,
        put: &mut impl FnMut(&str, Value),
        def: Option<&MapDef>,
        addr: u64,
        mem: &TaskMem<'_>,
    ) -> Option<()> {
        let size = def.map_or(0, |def| def.user_value_size(self.nr_cpus));
        let of_fds = def.is_some_and(|def| def.map_type.is_fd_map() || holds_sockets(def.map_type));
        if !of_fds {
            if def.is_some_and(|def| def.map_type == MapType::BLOOM_FILTER) {
                put("value_in", json!(true));
            }
            pointed(put, "value", addr, size, mem);
            return Some(());
        }
        let mut fd = [0; 4];
        mem.read(addr, &mut fd).ok()?;
        match caller.get(Fd::from_ne_bytes(fd)) {
            Ok(file) => put("value_fd", json!(self.name(&file))),
            Err(_) => pointed(put, "value", addr, size, mem),
        }
        Some(())
    }
}

/// Bytes that a pointer leads to.
fn pointed(
    put: &mut impl FnMut(&str, Value),
    field: &str,
    addr: u64,
    size: usize,
    mem: &TaskMem<'_>,
) {
    if addr == 0 {
        return;
    }
    let mut bytes = vec![0; size];
    match mem.read(addr, &mut bytes) {
        Ok(()) => put(field, json!(hex(&bytes))),
        Err(_) => put(&format!("{field}_ptr"), json!("bad")),
    }
}

/// So many parts of an array, as far as they can be read.
pub(super) fn parts(mem: &TaskMem<'_>, addr: u64, size: usize, count: u32) -> Vec<String> {
    let mut parts = Vec::new();
    for at in 0..u64::from(count) {
        if parts.len() * size > MOST {
            break;
        }
        let mut part = vec![0; size];
        if mem
            .read(addr.wrapping_add(at * size as u64), &mut part)
            .is_err()
        {
            break;
        }
        parts.push(hex(&part));
    }
    parts
}

fn batch_asked(
    put: &mut impl FnMut(&str, Value),
    def: Option<&MapDef>,
    cmd: Cmd,
    attr: Attr<'_>,
    mem: &TaskMem<'_>,
    nr_cpus: u32,
) -> Option<()> {
    let batch = BatchAttr::decode(attr);
    put("count", json!(batch.count));
    put("elem_flags", json!(batch.elem_flags.bits()));
    put("flags", json!(batch.flags));
    let def = def?;
    if cmd == Cmd::MAP_UPDATE_BATCH || cmd == Cmd::MAP_DELETE_BATCH {
        let keys = parts(mem, batch.keys, def.key_size as usize, batch.count);
        if keys.len() < batch.count as usize {
            return None;
        }
        put("keys", json!(keys.concat()));
    } else if batch.in_batch != 0 {
        let hashed = format!("{}", def.map_type).contains("HASH");
        let size = if hashed { 4 } else { def.key_size as usize };
        pointed(put, "in_batch", batch.in_batch, size, mem);
    }
    if cmd == Cmd::MAP_UPDATE_BATCH {
        if def.map_type.is_fd_map() {
            return None;
        }
        let values = parts(mem, batch.values, def.user_value_size(nr_cpus), batch.count);
        if values.len() < batch.count as usize {
            return None;
        }
        put("values", json!(values.concat()));
    }
    Some(())
}
