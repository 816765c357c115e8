//! `BPF_PROG_LOAD`: from the attr to an fd.
//!
//! Programs do not run, and are not verified: see [`straight`] for what is refused of what they do. Their form, what they
//! refer to and the rights they take are judged as the kernel does.
//!
//! Kernel: `kernel/bpf/syscall.c:bpf_prog_load`, `kernel/bpf/verifier.c:bpf_check` (v6.18).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::call::Call;
use super::insn::{INSN_SIZE, Insn, LD_IMM64, pseudo};
use super::log::Log;
use super::records::{self, Records};
use super::straight::{self, Kind};
use super::{structure, user_string};
use crate::abi::{
    AttachType, Attr, Caps, Errno, Fd, MapType, ProgFlags, ProgLoadAttr, ProgType, Result, UserMem,
};
use crate::btf::Btf;
use crate::env::PAGE_SIZE;
use crate::map::object::{Code, Object, Prog};
use crate::map::prog_use::{self, Refused};
use crate::map::{Map, obj_name};

/// `BPF_COMPLEXITY_LIMIT_INSNS`: instructions of a program at most, with `CAP_BPF`.
const MAX_INSNS: u32 = 1_000_000;
/// `BPF_MAXINSNS`: without.
const MAX_INSNS_UNPRIVILEGED: u32 = 4096;
/// `MAX_USED_MAPS`
const MAX_MAPS: usize = 64;
/// `MAX_USED_BTFS`
const MAX_BTFS: usize = 64;
/// So many fds that a program holds are too many.
const TOO_MANY_FDS: u32 = u32::MAX / 4;
/// Bytes of a licence that are looked at.
const LICENSE_LEN: usize = 127;
/// Offsets of values are below this.
const MAX_VALUE_OFF: u32 = 1 << 29;
/// `BTF_MAX_TYPE`
const MAX_TYPE: u32 = 0x000f_ffff;
/// The interface `lo`.
const LOOPBACK: u32 = 1;
/// Licences that are compatible with the GPL.
///
/// Kernel: `include/linux/license.h`.
const GPL_COMPATIBLE: [&[u8]; 6] = [
    b"GPL",
    b"GPL v2",
    b"GPL and additional rights",
    b"Dual BSD/GPL",
    b"Dual MIT/GPL",
    b"Dual MPL/GPL",
];

/// A program on its way: what the caller says of it, and what was found so far.
struct Candidate<'a> {
    attr: &'a ProgLoadAttr,
    kind: Kind,
    /// The program that it is attached to.
    dst: Option<Arc<Prog>>,
    insns: Vec<Insn>,
    maps: Vec<Arc<Map>>,
    btfs: Vec<Arc<Btf>>,
    btf: Option<Arc<Btf>>,
    records: Records,
    /// The hash of the instructions, which begins with the tag; zeros while the caller's fds are looked at.
    digest: [u8; 32],
    /// Instructions that were looked at.
    count: usize,
}

impl Call<'_> {
    /// Kernel: `bpf_prog_load`. `given` is how many bytes of the attr the caller has.
    pub(super) fn prog_load(
        &self,
        addr: u64,
        given: usize,
        attr: Attr<'_>,
        mem: &mut dyn UserMem,
    ) -> Result<u32> {
        let attr = ProgLoadAttr::decode(attr);
        let prog_type = attr.prog_type;
        self.judge(&attr)?;
        let dst = self.target(&attr)?;
        fits_target(&attr, dst.as_ref())?;
        let attach_type = super::prog::expected_attach_type(prog_type, attr.expected_attach_type)?;
        let license = user_string(mem, attr.license, LICENSE_LEN)?;
        let insns = read_insns(mem, &attr)?;
        self.signature(&attr)?;
        self.device(&attr)?;
        if !is_known(prog_type) {
            return Err(Errno::EINVAL);
        }
        let name = obj_name(&attr.prog_name)?;
        let kind = Kind {
            prog_type,
            attach_type,
            gpl_compatible: GPL_COMPATIBLE.contains(&&*license),
            sleepable: attr.prog_flags.contains(ProgFlags::SLEEPABLE),
            nr_cpus: self.inner.env.nr_cpus,
            helpers: self.inner.env.release.helpers,
        };
        let mut candidate = Candidate {
            attr: &attr,
            kind,
            dst,
            digest: [0; 32],
            insns,
            maps: Vec::new(),
            btfs: Vec::new(),
            btf: None,
            records: Records::default(),
            count: 0,
        };
        self.verify(addr, given, &mut candidate, mem)?;
        let name = name.iter().take_while(|&&byte| byte != 0);
        let name = name.map(|&byte| char::from(byte)).collect();
        self.add_prog(candidate.into_prog(name, self.inner.env.now_ns()))
    }

    /// No signature is looked at.
    fn signature(&self, attr: &ProgLoadAttr) -> Result<()> {
        if attr.signature == 0 {
            return Ok(());
        }
        let what = format_args!("signatures of programs");
        Err(self.inner.env.unsupported(what))
    }

    /// The device that is to run the program.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a type or flags that no device takes, and if there is no such interface; `EOPNOTSUPP` for `lo`.
    ///
    /// Kernel: `kernel/bpf/offload.c:bpf_prog_dev_bound_init`.
    fn device(&self, attr: &ProgLoadAttr) -> Result<()> {
        let ifindex = attr.prog_ifindex;
        if ifindex == 0 {
            return Ok(());
        }
        let flags = match attr.prog_type {
            ProgType::XDP => ProgFlags::XDP_DEV_BOUND_ONLY,
            ProgType::SCHED_CLS => ProgFlags::empty(),
            _ => return Err(Errno::EINVAL),
        };
        let env = &self.inner.env;
        if !flags.contains(attr.prog_flags) || !env.has_interface(ifindex) {
            return Err(Errno::EINVAL);
        }
        if ifindex == LOOPBACK {
            return Err(Errno::EOPNOTSUPP);
        }
        Err(env.unsupported(format_args!("programs for a device")))
    }

    /// Flags, rights and size.
    fn judge(&self, attr: &ProgLoadAttr) -> Result<()> {
        let prog_type = attr.prog_type;
        if attr.prog_flags.bits() & !KNOWN_FLAGS.bits() != 0 {
            return Err(Errno::EINVAL);
        }
        if attr.prog_flags.contains(ProgFlags::TOKEN_FD) {
            // No file here is a token.
            self.file(attr.prog_token_fd)?;
            return Err(Errno::EINVAL);
        }
        let caps = self.inner.caps();
        let bpf = caps.capable(Caps::BPF);
        let disabled = self.inner.unprivileged_bpf_disabled.load(Ordering::Relaxed) != 0;
        if disabled && !bpf {
            return Err(Errno::EPERM);
        }
        let most = if bpf {
            MAX_INSNS
        } else {
            MAX_INSNS_UNPRIVILEGED
        };
        if attr.insn_cnt == 0 || attr.insn_cnt > most {
            return Err(Errno::E2BIG);
        }
        let for_all = matches!(prog_type, ProgType::SOCKET_FILTER | ProgType::CGROUP_SKB);
        if !for_all && !bpf
            || NET_ADMIN_TYPES.contains(&prog_type) && !caps.capable(Caps::NET_ADMIN)
            || PERFMON_TYPES.contains(&prog_type) && !caps.capable(Caps::PERFMON)
        {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// What `attach_prog_fd` stands for, if it is given.
    ///
    /// # Errors
    ///
    /// `EINVAL` for anything but a program; `ENOTSUPP` for BTF that is not the kernel's.
    fn target(&self, attr: &ProgLoadAttr) -> Result<Option<Arc<Prog>>> {
        if attr.attach_prog_fd == 0 {
            return Ok(None);
        }
        match self.object(attr.attach_prog_fd) {
            Ok(Object::Prog(prog)) => Ok(Some(prog)),
            Ok(Object::Btf(_)) => Err(Errno::ENOTSUPP),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Everything between the instructions and a program; then the log is written.
    ///
    /// Kernel: `bpf_check`.
    fn verify(
        &self,
        addr: u64,
        given: usize,
        candidate: &mut Candidate<'_>,
        mem: &mut dyn UserMem,
    ) -> Result<()> {
        let attr = candidate.attr;
        let mut log = Log::new(attr.log_level, attr.log_size, attr.log_buf)?;
        let found = self.check(addr, candidate, mem, &mut log);
        let count = candidate.count;
        log.line(format_args!(
            "processed {count} insns (limit {MAX_INSNS}) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0"
        ));
        let (true_size, written) = log.write(mem);
        let at = ProgLoadAttr::LOG_TRUE_SIZE_AT;
        if given >= at + size_of::<u32>() {
            mem.write(addr.wrapping_add(at as u64), &true_size.to_ne_bytes())?;
        }
        written.and(found)
    }

    fn check(
        &self,
        addr: u64,
        candidate: &mut Candidate<'_>,
        mem: &mut dyn UserMem,
        log: &mut Log,
    ) -> Result<()> {
        let attr = candidate.attr;
        self.hold_all(candidate, mem, log)?;
        candidate.digest = digest(&candidate.insns);
        candidate.btf = self.prog_btf(attr)?;
        if let Some(btf) = &candidate.btf {
            candidate.records = Records::of_functions((attr, addr), btf, mem, log)?;
        }
        if structure::has_calls(&candidate.insns) && !self.inner.caps().capable(Caps::BPF) {
            return Err(Errno::EPERM);
        }
        let starts = structure::functions(&candidate.insns, log)?;
        candidate.check_kernel_calls(log)?;
        structure::check_functions(&candidate.insns, &starts, log)?;
        if let Some(btf) = &candidate.btf {
            let program = (&*candidate.insns, &*starts);
            candidate
                .records
                .check((attr, addr), program, btf, mem, log)?;
            let len = candidate.insns.len();
            if records::are_relocations((attr, addr), len, mem, log)? {
                let what = format_args!("CO-RE relocations in the kernel");
                return Err(self.inner.env.unsupported(what));
            }
        }
        self.resolve(candidate, mem, log)?;
        structure::check_reach(&candidate.insns, log)?;
        candidate.check_attach(log)?;
        let (count, followed) = straight::follow(&candidate.insns, candidate.kind, log);
        candidate.count = count;
        followed
    }

    /// The BTF of the program, if there is information that needs it.
    ///
    /// Kernel: `check_btf_info_early`.
    fn prog_btf(&self, attr: &ProgLoadAttr) -> Result<Option<Arc<Btf>>> {
        if attr.func_info_cnt == 0 && attr.line_info_cnt == 0 {
            return Ok(None);
        }
        match self.object(attr.prog_btf_fd)? {
            Object::Btf(btf) => Ok(Some(btf)),
            Object::Map(_) | Object::Prog(_) | Object::Cgroup(_) | Object::Other(_) => {
                Err(Errno::EINVAL)
            }
        }
    }

    /// What the numbers of the instructions stand for; maps are held from here on.
    ///
    /// Kernel: `resolve_pseudo_ldimm64`.
    fn resolve(
        &self,
        candidate: &mut Candidate<'_>,
        mem: &dyn UserMem,
        log: &mut Log,
    ) -> Result<()> {
        let attr = candidate.attr;
        let mut at = 0;
        while at < candidate.insns.len() {
            structure::check_form(&candidate.insns, at, log)?;
            let insn = candidate.insns[at];
            if insn.code != LD_IMM64 {
                at += 1;
                continue;
            }
            let second = candidate.insns[at + 1].number();
            let by_index = matches!(insn.src, pseudo::MAP_IDX | pseudo::MAP_IDX_VALUE);
            let value = matches!(insn.src, pseudo::MAP_VALUE | pseudo::MAP_IDX_VALUE);
            let map = matches!(insn.src, pseudo::MAP_FD | pseudo::MAP_IDX) && second == 0;
            if value || map {
                let fd = if by_index {
                    fd_of_index(mem, attr, insn.imm, log)?
                } else {
                    insn.number()
                };
                let held = self.hold_map(fd, candidate, log)?;
                if value {
                    check_value_offset(&held, second, log)?;
                }
                // The id, as a dump of the program shows.
                let src = if value {
                    pseudo::MAP_VALUE
                } else {
                    pseudo::MAP_FD
                };
                candidate.insns[at].src = src;
                candidate.insns[at].imm = held.id.cast_signed();
            } else if !matches!(insn.src, 0 | pseudo::BTF_ID | pseudo::FUNC) {
                let what = format_args!("unrecognized bpf_ld_imm64 insn");
                return Err(log.refuse(Errno::EINVAL, what));
            }
            at += 2;
        }
        Ok(())
    }

    /// The array of fds that is held whole.
    ///
    /// Kernel: `process_fd_array`.
    fn hold_all(
        &self,
        candidate: &mut Candidate<'_>,
        mem: &dyn UserMem,
        log: &mut Log,
    ) -> Result<()> {
        let count = candidate.attr.fd_array_cnt;
        if count >= TOO_MANY_FDS {
            let what = format_args!("fd_array_cnt is too big ({count})");
            return Err(log.refuse(Errno::EINVAL, what));
        }
        for index in 0..count {
            let fd = fd_at(mem, candidate.attr, i64::from(index))?;
            match self.object(fd) {
                Ok(Object::Map(map)) => candidate.hold(map, log)?,
                Ok(Object::Btf(btf)) => candidate.hold_btf(btf, log)?,
                other => {
                    let errno = other.err().unwrap_or(Errno::EINVAL);
                    let fd = fd.cast_signed();
                    let what = format_args!("fd {fd} is not pointing to valid bpf_map or btf");
                    return Err(log.refuse(errno, what));
                }
            }
        }
        Ok(())
    }

    fn hold_map(&self, fd: Fd, candidate: &mut Candidate<'_>, log: &mut Log) -> Result<Arc<Map>> {
        let map = self.map(fd).map_err(|errno| {
            let fd = fd.cast_signed();
            log.refuse(
                errno,
                format_args!("fd {fd} is not pointing to valid bpf_map"),
            )
        })?;
        candidate.hold(Arc::clone(&map), log)?;
        Ok(map)
    }

    /// The map of an fd that a program holds from now on, though no instruction names it.
    ///
    /// Kernel: `kernel/bpf/syscall.c:bpf_prog_bind_map`.
    pub(super) fn prog_bind_map(&self, attr: Attr<'_>) -> Result<u32> {
        let (prog_fd, map_fd, flags) = (attr.u32(0), attr.u32(4), attr.u32(8));
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        let prog = self.prog(prog_fd)?;
        let map = self.map(map_fd)?;
        let mut bound = prog.bound.lock();
        let mut held = prog.maps.iter().chain(bound.iter());
        if !held.any(|held| Arc::ptr_eq(held, &map)) {
            bound.push(map);
        }
        Ok(0)
    }
}

impl Candidate<'_> {
    /// Holds a map, unless it is for another program only.
    fn hold(&mut self, map: Arc<Map>, log: &mut Log) -> Result<()> {
        let user = MapUse {
            prog_type: self.kind.prog_type,
            sleepable: self.kind.sleepable,
            digest: Some(self.digest),
        };
        add_map(map, user, &mut self.maps)
            .map_err(|refused| log.refuse(refused.errno, format_args!("{}", refused.rule)))
    }

    fn hold_btf(&mut self, btf: Arc<Btf>, log: &mut Log) -> Result<()> {
        if self.btfs.iter().any(|held| Arc::ptr_eq(held, &btf)) {
            return Ok(());
        }
        if self.btfs.len() >= MAX_BTFS {
            let what = format_args!(
                "The total number of btfs per program has reached the limit of {MAX_BTFS}"
            );
            return Err(log.refuse(Errno::E2BIG, what));
        }
        self.btfs.push(btf);
        Ok(())
    }

    /// Calls of functions of the kernel. Which it has is not known here: all ids but that of the first type, which is a number in
    /// every kernel, and those that are too large for any, are taken for one.
    ///
    /// Kernel: `add_kfunc_call`.
    fn check_kernel_calls(&self, log: &mut Log) -> Result<()> {
        for insn in self.insns.iter().filter(|insn| insn.is_kernel_call()) {
            let (id, off) = (insn.number(), insn.off);
            // Nothing at all is a call that the verifier has yet to find dead.
            if (id, off) == (0, 0) {
                continue;
            }
            let (errno, what) = if !self.kind.gpl_compatible {
                let what = "cannot call kernel function from non-GPL compatible program";
                (Errno::EINVAL, what.to_owned())
            } else if off < 0 {
                let what = "negative offset disallowed for kernel module function call";
                (Errno::EINVAL, what.to_owned())
            } else if off > 0 && self.attr.fd_array == 0 {
                let what = "kfunc offset > 0 without fd_array is invalid";
                (Errno::EPROTO, what.to_owned())
            } else if off == 0 && (id == 1 || id > MAX_TYPE) {
                let what = format!("kernel btf_id {id} is not a function");
                (Errno::EINVAL, what)
            } else {
                continue;
            };
            return Err(log.refuse(errno, format_args!("{what}")));
        }
        Ok(())
    }

    /// What the place asks of the program. Which functions the kernel has is not known: all but `void` and the first type, which
    /// is a number in every kernel, are taken for one.
    ///
    /// Kernel: `check_attach_btf_id`, `bpf_check_attach_target`.
    fn check_attach(&self, log: &mut Log) -> Result<()> {
        let Self {
            attr, kind, dst, ..
        } = self;
        let mut refuse = |what: &str| Err(log.refuse(Errno::EINVAL, format_args!("{what}")));
        match kind.prog_type {
            ProgType::SYSCALL if !kind.sleepable => {
                return refuse("Syscall programs can only be sleepable");
            }
            ProgType::SYSCALL => return Ok(()),
            _ if kind.sleepable && !may_sleep(*kind) => {
                return refuse(
                    "Only fentry/fexit/fmod_ret, lsm, iter, uprobe, and struct_ops programs can be sleepable",
                );
            }
            ProgType::STRUCT_OPS => return self.check_struct_ops(log),
            prog_type if !AT_FUNCTIONS.contains(&prog_type) => return Ok(()),
            _ => {}
        }
        if attr.attach_btf_id == 0 {
            return refuse("Tracing programs must provide btf_id");
        }
        if kind.prog_type == ProgType::EXT && dst.is_none() {
            return refuse("Cannot replace kernel functions");
        }
        if dst.as_ref().is_some_and(|dst| dst.code.btf.is_none()) {
            return refuse(
                "FENTRY/FEXIT program can only be attached to another program annotated with BTF",
            );
        }
        let kind_of_type = match kind.attach_type {
            AttachType::TRACE_RAW_TP if dst.is_some() => {
                return refuse("Only FENTRY/FEXIT progs are attachable to another BPF prog");
            }
            AttachType::TRACE_RAW_TP => "typedef",
            AttachType::TRACE_FENTRY
            | AttachType::TRACE_FEXIT
            | AttachType::MODIFY_RETURN
            | AttachType::LSM_MAC
            | AttachType::TRACE_ITER
            | AttachType::LSM_CGROUP => "function",
            _ if kind.prog_type == ProgType::EXT => "function",
            _ => return Err(Errno::EINVAL),
        };
        if attr.attach_btf_id == 1 && dst.is_none() {
            return refuse(&format!("attach_btf_id 1 is not a {kind_of_type}"));
        }
        Ok(())
    }

    /// Kernel: `check_struct_ops_btf_id`.
    fn check_struct_ops(&self, log: &mut Log) -> Result<()> {
        match self.attr.attach_btf_id {
            _ if !self.kind.gpl_compatible => {
                let what = format_args!("struct ops programs must have a GPL compatible license");
                Err(log.refuse(Errno::EINVAL, what))
            }
            0 => Err(Errno::ENOTSUPP),
            1 => {
                let what = format_args!("attach_btf_id 1 is not a supported struct");
                Err(log.refuse(Errno::ENOTSUPP, what))
            }
            _ => Ok(()),
        }
    }

    /// The program that it became; it has no id yet.
    fn into_prog(self, name: String, now_ns: u64) -> Prog {
        let (func_info, line_info) = self.records.into_bytes();
        Prog {
            id: 0,
            name,
            prog_type: self.kind.prog_type,
            expected_attach_type: self.kind.attach_type,
            xdp_has_frags: self.attr.prog_flags.contains(ProgFlags::XDP_HAS_FRAGS),
            code: Code {
                insns: self.insns.iter().flat_map(|insn| insn.encode()).collect(),
                func_info,
                line_info,
                tag: *self.digest.first_chunk().expect("it is longer"),
                verified_insns: u32::try_from(self.count).expect("a million at most"),
                gpl_compatible: self.kind.gpl_compatible,
                load_time_ns: now_ns,
                btf: self.btf,
                btfs: self.btfs,
                attach_btf_id: self.attr.attach_btf_id,
            },
            maps: self.maps,
            bound: Mutex::new(Vec::new()),
            run_cnt: AtomicU64::new(0),
        }
    }
}

/// All flags that there are; the token's is looked at after them.
const KNOWN_FLAGS: ProgFlags = ProgFlags::from_bits_retain(0x100ff);

/// Kernel: `is_net_admin_prog_type`.
const NET_ADMIN_TYPES: [ProgType; 18] = [
    ProgType::SCHED_CLS,
    ProgType::SCHED_ACT,
    ProgType::XDP,
    ProgType::LWT_IN,
    ProgType::LWT_OUT,
    ProgType::LWT_XMIT,
    ProgType::LWT_SEG6LOCAL,
    ProgType::SK_SKB,
    ProgType::SK_MSG,
    ProgType::FLOW_DISSECTOR,
    ProgType::CGROUP_DEVICE,
    ProgType::CGROUP_SOCK,
    ProgType::CGROUP_SOCK_ADDR,
    ProgType::CGROUP_SOCKOPT,
    ProgType::CGROUP_SYSCTL,
    ProgType::SOCK_OPS,
    ProgType::EXT,
    ProgType::NETFILTER,
];

/// Kernel: `is_perfmon_prog_type`.
const PERFMON_TYPES: [ProgType; 9] = [
    ProgType::KPROBE,
    ProgType::TRACEPOINT,
    ProgType::PERF_EVENT,
    ProgType::RAW_TRACEPOINT,
    ProgType::RAW_TRACEPOINT_WRITABLE,
    ProgType::TRACING,
    ProgType::LSM,
    ProgType::STRUCT_OPS,
    ProgType::EXT,
];

/// Types that are attached to functions of the kernel, or of other programs.
const AT_FUNCTIONS: [ProgType; 4] = [
    ProgType::TRACING,
    ProgType::LSM,
    ProgType::STRUCT_OPS,
    ProgType::EXT,
];

/// Kernel: `can_be_sleepable`.
fn may_sleep(kind: Kind) -> bool {
    match kind.prog_type {
        ProgType::TRACING => matches!(
            kind.attach_type,
            AttachType::TRACE_FENTRY
                | AttachType::TRACE_FEXIT
                | AttachType::MODIFY_RETURN
                | AttachType::TRACE_ITER
        ),
        prog_type => matches!(
            prog_type,
            ProgType::LSM | ProgType::KPROBE | ProgType::STRUCT_OPS
        ),
    }
}

/// The types that there are; remote controls (`LIRC_MODE2`) are seldom built in.
fn is_known(prog_type: ProgType) -> bool {
    !matches!(prog_type, ProgType::UNSPEC | ProgType::LIRC_MODE2)
        && prog_type.0 <= ProgType::NETFILTER.0
}

/// Kernel: `bpf_prog_load_check_attach`, the first half.
fn fits_target(attr: &ProgLoadAttr, dst: Option<&Arc<Prog>>) -> Result<()> {
    let id = attr.attach_btf_id;
    if id > MAX_TYPE || id != 0 && !AT_FUNCTIONS.contains(&attr.prog_type) {
        return Err(Errno::EINVAL);
    }
    if dst.is_some() && !matches!(attr.prog_type, ProgType::TRACING | ProgType::EXT) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// The instructions.
fn read_insns(mem: &dyn UserMem, attr: &ProgLoadAttr) -> Result<Vec<Insn>> {
    let mut bytes = vec![0; attr.insn_cnt as usize * INSN_SIZE];
    mem.read(attr.insns, &mut bytes)?;
    let (insns, _) = bytes.as_chunks::<INSN_SIZE>();
    Ok(insns.iter().copied().map(Insn::decode).collect())
}

/// An fd of the caller's array. Nothing keeps an instruction from one before its beginning.
fn fd_at(mem: &dyn UserMem, attr: &ProgLoadAttr, index: i64) -> Result<Fd> {
    let mut fd = [0; 4];
    let at = attr.fd_array.wrapping_add_signed(4 * index);
    mem.read(at, &mut fd)?;
    Ok(u32::from_ne_bytes(fd))
}

fn fd_of_index(mem: &dyn UserMem, attr: &ProgLoadAttr, index: i32, log: &mut Log) -> Result<Fd> {
    if attr.fd_array == 0 {
        let what = format_args!("fd_idx without fd_array is invalid");
        return Err(log.refuse(Errno::EPROTO, what));
    }
    fd_at(mem, attr, i64::from(index))
}

/// Who uses a map, as far as maps ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapUse {
    pub(super) prog_type: ProgType,
    pub(super) sleepable: bool,
    /// The hash of its instructions, if it has any.
    pub(super) digest: Option<[u8; 32]>,
}

/// Holds a map, unless the program may not use it.
///
/// # Errors
///
/// `E2BIG` for the 65th map, `EACCES` for one that is for another program only, `EBUSY` for a second arena or a second cgroup
/// storage of a kind; those of [`prog_use`].
///
/// Kernel: `__add_used_map`, `check_map_prog_compatibility`.
pub(super) fn add_map(
    map: Arc<Map>,
    user: MapUse,
    maps: &mut Vec<Arc<Map>>,
) -> std::result::Result<(), Refused> {
    if maps.iter().any(|held| Arc::ptr_eq(held, &map)) {
        return Ok(());
    }
    let refuse = |errno, rule| Err(Refused { errno, rule });
    if maps.len() >= MAX_MAPS {
        let rule = "The total number of maps per program has reached the limit of 64";
        return refuse(Errno::E2BIG, rule);
    }
    let is_other = |digest| user.digest.is_some_and(|own| own != digest);
    if map.exclusive.is_some_and(is_other) {
        let rule = "program's hash doesn't match map's excl_prog_hash";
        return refuse(Errno::EACCES, rule);
    }
    prog_use::map_allowed(&map, user.prog_type)?;
    if user.sleepable {
        prog_use::sleeper_allowed(map.def.map_type)?;
    }
    let kind = map.def.map_type;
    let has_one = maps.iter().any(|held| held.def.map_type == kind);
    if has_one && super::prog::is_cgroup_storage(&map) {
        let rule = "only one cgroup storage of each type is allowed";
        return refuse(Errno::EBUSY, rule);
    }
    if has_one && kind == MapType::ARENA {
        return refuse(Errno::EBUSY, "Only one arena per program");
    }
    maps.push(map);
    Ok(())
}

/// The address of a value's byte, as a number in an instruction.
///
/// Kernel: the `map_direct_value_addr` of each type.
fn check_value_offset(map: &Map, off: u32, log: &mut Log) -> Result<()> {
    if off >= MAX_VALUE_OFF {
        let what = format_args!("direct value offset of {off} is not allowed");
        return Err(log.refuse(Errno::EINVAL, what));
    }
    let size = map.def.value_size;
    let errno = match map.def.map_type {
        // Its end is an address too.
        MapType::ARENA if off as usize <= map.def.max_entries as usize * PAGE_SIZE => return Ok(()),
        MapType::ARENA => Errno::ERANGE,
        MapType::ARRAY if map.def.max_entries != 1 => Errno::ENOTSUPP,
        MapType::ARRAY if off < size => return Ok(()),
        MapType::ARRAY => Errno::EINVAL,
        _ => {
            let what = format_args!("no direct value access support for this map type");
            return Err(log.refuse(Errno::EINVAL, what));
        }
    };
    let what = format_args!("invalid access to map value pointer, value_size={size} off={off}");
    Err(log.refuse(errno, what))
}

/// The SHA-256 of the instructions, without the fds of maps.
///
/// Kernel: `kernel/bpf/core.c:bpf_prog_calc_tag`.
fn digest(insns: &[Insn]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut of_map = false;
    for insn in insns {
        let begins =
            insn.code == LD_IMM64 && matches!(insn.src, pseudo::MAP_FD | pseudo::MAP_VALUE);
        let mut insn = *insn;
        if begins || of_map {
            insn.imm = 0;
        }
        of_map = begins;
        hash.update(insn.encode());
    }
    hash.finalize().into()
}
