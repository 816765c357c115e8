//! Cgroups, programs attached to them, and events that make those run.

use serde_json::{Map, Value, json};

use super::around::one_of;
use super::commands::AttrBytes;
use super::engine::{Engine, Outcome};
use super::request::{Broken, Request, Stop, bytes, hex, text};
use super::world::{Event, ProgRequest, Ran, Write};
use crate::abi::{AttachType, Cmd, Errno, Memory, ProgType};

/// Bytes of a value that a program touches at most, unless it is told which.
pub(super) const MOST_TOUCHED: usize = 64;

/// Kinds of programs: type, expected attach type, what they return.
const KINDS: [(&str, (ProgType, AttachType, i32)); 10] = [
    ("socket_filter", (ProgType::SOCKET_FILTER, AttachType(0), 0)),
    ("sched_cls", (ProgType::SCHED_CLS, AttachType(0), 0)),
    ("xdp", (ProgType::XDP, AttachType(0), 2)),
    ("xdp_devmap", (ProgType::XDP, AttachType::XDP_DEVMAP, 2)),
    ("xdp_cpumap", (ProgType::XDP, AttachType::XDP_CPUMAP, 2)),
    ("cgroup_skb", (ProgType::CGROUP_SKB, AttachType(0), 1)),
    (
        "cgroup_sock_create",
        (
            ProgType::CGROUP_SOCK,
            AttachType::CGROUP_INET_SOCK_CREATE,
            1,
        ),
    ),
    (
        "cgroup_bind4",
        (ProgType::CGROUP_SOCK_ADDR, AttachType::CGROUP_INET4_BIND, 1),
    ),
    (
        "cgroup_udp4_sendmsg",
        (
            ProgType::CGROUP_SOCK_ADDR,
            AttachType::CGROUP_UDP4_SENDMSG,
            1,
        ),
    ),
    (
        "cgroup_setsockopt",
        (ProgType::CGROUP_SOCKOPT, AttachType::CGROUP_SETSOCKOPT, 1),
    ),
];

/// Bytes of the attr of `BPF_LINK_*`.
const LINK_ATTR: usize = 64;

impl Engine<'_> {
    // --- cgroups ----------------------------------------------------------------------------------------------------

    pub(super) fn cgroup_create(&mut self, o: Request<'_>) -> Outcome {
        let name = o.need_text("as")?;
        let (fd, id) = self.world.cgroup_create(name, o.text("under")?)?;
        self.names.set_cgroup(name, id);
        self.adopt(name, fd, None)
    }

    pub(super) fn cgroup_remove(&mut self, o: Request<'_>) -> Outcome {
        let name = o.need_text("cgroup")?;
        let keep = o.flag("keep_fd")?;
        self.world.cgroup_remove(name)?;
        if !keep {
            self.drop_name(name);
        }
        Ok(json!({}))
    }

    // --- programs ---------------------------------------------------------------------------------------------------

    pub(super) fn prog_load(&mut self, o: Request<'_>) -> Outcome {
        let name = o.need_text("as")?;
        let (prog_type, expected_attach_type, returns) = one_of(o, "kind", "", &KINDS)?;
        let span = o
            .get("span")
            .map(|span| Request::range("span", span))
            .transpose()?;
        let mut storages = Vec::new();
        for map in o.names("storages")? {
            let fd = self.names.fd_of(map).ok_or(Errno::EBADF)?;
            let facts = self.names.map_of(map).ok_or(Errno::EBADF)?;
            let (start, len) = span.unwrap_or((0, facts.value_size.min(MOST_TOUCHED)));
            storages.push((map, fd, start..start + len));
        }
        let fd_of = |map| self.names.fd_of(map).ok_or(Errno::EBADF);
        let maps: Result<_, _> = o.names("maps")?.into_iter().map(fd_of).collect();
        let returns = match o.has("return") {
            true => o.u32("return")?.cast_signed(),
            false => returns,
        };
        let request = ProgRequest {
            name,
            prog_type,
            expected_attach_type,
            returns,
            storages,
            helper_flags: o.u64("helper_flags")?,
            maps: maps?,
        };
        let fd = self.world.prog_load(&request)?;
        let id = self.world.prog_id(fd)?;
        self.names.set_prog(name, id);
        self.adopt(name, fd, None)
    }

    pub(super) fn prog_attach(&mut self, op: &str, o: Request<'_>) -> Outcome {
        let cmd = match op {
            "prog_attach" => Cmd::PROG_ATTACH,
            _ => Cmd::PROG_DETACH,
        };
        let mut attr = AttrBytes::default()
            .u32(self.need_fd(o, "cgroup")?)
            .u32(self.need_fd(o, "prog")?)
            .u32(o.u32("attach_type")?)
            .u32(o.u32("flags")?)
            .u32(self.fd(o, "replace")?.unwrap_or(0))
            .up_to(32);
        self.call(cmd, &mut attr, Memory::new())?;
        Ok(json!({}))
    }

    pub(super) fn link_create(&mut self, o: Request<'_>) -> Outcome {
        let mut attr = AttrBytes::default()
            .u32(self.need_fd(o, "prog")?)
            .u32(self.need_fd(o, "cgroup")?)
            .u32(o.u32("attach_type")?)
            .u32(o.u32("flags")?)
            .up_to(LINK_ATTR);
        let fd = self.call(Cmd::LINK_CREATE, &mut attr, Memory::new())?;
        self.adopt(o.need_text("as")?, fd, None)
    }

    pub(super) fn link_update(&mut self, o: Request<'_>) -> Outcome {
        let mut attr = AttrBytes::default()
            .u32(self.need_fd(o, "link")?)
            .u32(self.need_fd(o, "prog")?)
            .u32(o.u32("flags")?)
            .up_to(LINK_ATTR);
        self.call(Cmd::LINK_UPDATE, &mut attr, Memory::new())?;
        Ok(json!({}))
    }

    pub(super) fn link_detach(&mut self, o: Request<'_>) -> Outcome {
        let mut attr = AttrBytes::default()
            .u32(self.need_fd(o, "link")?)
            .up_to(LINK_ATTR);
        self.call(Cmd::LINK_DETACH, &mut attr, Memory::new())?;
        Ok(json!({}))
    }

    // --- events -----------------------------------------------------------------------------------------------------

    pub(super) fn trigger(&mut self, o: Request<'_>) -> Outcome {
        let events = [
            ("egress", Event::Egress),
            ("ingress", Event::Ingress),
            ("sock_create", Event::SockCreate),
            ("bind4", Event::Bind4),
            ("udp4_sendmsg", Event::Udp4Sendmsg),
            ("setsockopt", Event::Setsockopt),
        ];
        let event = one_of(o, "how", "egress", &events)?;
        let writes = writes(o)?;
        let ran = self.world.trigger(o.need_text("cgroup")?, event, &writes)?;
        Ok(ran_answer(ran))
    }

    pub(super) fn prog_test_run(&mut self, o: Request<'_>) -> Outcome {
        let writes = writes(o)?;
        let ran = self.world.prog_test_run(o.need_text("prog")?, &writes)?;
        Ok(ran_answer(ran))
    }
}

/// `{program: {map: bytes}}`
fn writes<'a>(o: Request<'a>) -> Result<Vec<Write<'a>>, Stop> {
    let mut writes = Vec::new();
    let Some(progs) = o.get("write") else {
        return Ok(writes);
    };
    for (prog, maps) in Request::of(progs)?.0 {
        for (map, value) in Request::of(maps)?.0 {
            writes.push(Write {
                prog,
                map,
                bytes: bytes(text("write", value)?)?,
            });
        }
    }
    Ok(writes)
}

fn ran_answer(ran: Vec<Ran>) -> Value {
    let ran: Vec<Value> = ran
        .into_iter()
        .map(|ran| {
            let saw: Map<_, _> = ran
                .saw
                .into_iter()
                .map(|(map, noted)| (map, hex(&noted)))
                .collect();
            json!({ "prog": ran.prog, "times": ran.times, "saw": saw })
        })
        .collect();
    json!({ "ran": ran })
}

/// The number that a callback answers.
pub(super) fn stop_return(o: Request<'_>) -> Result<i32, Broken> {
    Ok(o.u32_or("stop_return", 1)?.cast_signed())
}
