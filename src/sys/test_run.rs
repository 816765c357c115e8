//! `BPF_PROG_TEST_RUN`, with a machine that a front end brings.
//!
//! Kernel: `net/bpf/test_run.c` (v6.18).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Kernel;
use super::call::Call;
use crate::abi::{Attr, Errno, ProgType, Result, UserMem};
use crate::env::Env;
use crate::map::object::Prog;

/// Bytes of an Ethernet header: a packet has no fewer.
const ETH_HLEN: usize = 14;
/// Bytes of a packet at most: what a page has room for, beside what the kernel keeps with it.
const MAX_PACKET: u32 = 3712;
/// Bytes of a packet for XDP at most; it is put on as many pages as there may be.
const MAX_XDP_PACKET: u32 = 73152;
/// Bytes of the context of a program of type `SYSCALL` at most.
const MAX_CTX: u32 = u16::MAX as u32;
/// Bytes of the arguments of a raw tracepoint at most.
const MAX_ARGS: u32 = 12 * 8;
/// Bytes of `struct __sk_buff`, which has room for `struct xdp_md`.
const SK_BUFF: usize = 192;
/// Runs of one call at most.
const MAX_REPEAT: u32 = 1 << 20;

/// What a run is given, and leaves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TestRun {
    /// The packet, with its Ethernet header.
    pub data: Vec<u8>,
    /// Where it begins for the program.
    pub start: usize,
    /// The context, as far as it is bytes.
    pub ctx: Vec<u8>,
}

/// Runs the instructions of a program.
pub trait Machine: fmt::Debug + Send + Sync {
    /// Programs of that type can be run.
    fn knows(&self, prog_type: ProgType) -> bool;

    /// One run on that CPU; what the program returned.
    ///
    /// # Errors
    ///
    /// What it cannot do.
    fn run(
        &self,
        env: &Arc<Env>,
        prog: &Arc<Prog>,
        cpu: u32,
        input: &mut TestRun,
    ) -> Result<u32, String>;
}

/// Where the fields are.
mod at {
    pub(super) const RETVAL: u64 = 4;
    pub(super) const DATA_SIZE_OUT: u64 = 12;
    pub(super) const DURATION: u64 = 36;
}

impl Kernel {
    /// `BPF_PROG_TEST_RUN` runs programs on that machine from here on.
    pub fn run_programs_with(&self, machine: Arc<dyn Machine>) {
        // It stays with the first.
        let _ = self.inner.machine.set(machine);
    }
}

/// Bytes that a packet has at least, of a protocol that its Ethernet header names.
fn least_of(data: &[u8]) -> usize {
    match data[12..ETH_HLEN] {
        [0x08, 0x00] => ETH_HLEN + 20,
        [0x86, 0xdd] => ETH_HLEN + 40,
        _ => ETH_HLEN,
    }
}

impl Call<'_> {
    /// A run of a program that can be run for a test, with arguments that go together.
    pub(super) fn test_run(
        &self,
        prog: &Arc<Prog>,
        addr: u64,
        attr: Attr<'_>,
        mem: &mut dyn UserMem,
    ) -> Result<u32> {
        let prog_type = prog.prog_type;
        let machine = self.inner.machine.get();
        let Some(machine) = machine.filter(|machine| machine.knows(prog_type)) else {
            let what = format_args!("BPF_PROG_TEST_RUN of programs of type {prog_type}");
            return Err(self.inner.env.unsupported(what));
        };
        let run = |input: &mut TestRun| {
            let result = machine.run(&self.inner.env, prog, self.cpu, input);
            if self.inner.counts_runs() {
                prog.run_cnt.fetch_add(1, Ordering::Relaxed);
            }
            result.map_err(|why| {
                let what = format_args!("BPF_PROG_TEST_RUN of `{}` ({why})", prog.name);
                self.inner.env.unsupported(what)
            })
        };
        match prog_type {
            ProgType::RAW_TRACEPOINT => self.run_with_args(addr, attr, mem, run),
            ProgType::SYSCALL => self.run_with_ctx(addr, attr, mem, run),
            _ => self.run_with_packet(prog_type, addr, attr, mem, run),
        }
    }

    /// Kernel: `bpf_prog_test_run_skb`, `bpf_prog_test_run_xdp`, `bpf_test_finish`.
    fn run_with_packet(
        &self,
        prog_type: ProgType,
        addr: u64,
        attr: Attr<'_>,
        mem: &mut dyn UserMem,
        run: impl Fn(&mut TestRun) -> Result<u32>,
    ) -> Result<u32> {
        let (size_in, size_out) = (attr.u32(8), attr.u32(12));
        let (data_in, data_out, repeat) = (attr.u64(16), attr.u64(24), attr.u32(32));
        let (flags, cpu, batch) = (attr.u32(64), attr.u32(68), attr.u32(72));
        let xdp = prog_type == ProgType::XDP;
        if cpu != 0 || flags == 0 && batch != 0 || flags != 0 && !xdp {
            return Err(Errno::EINVAL);
        }
        if (size_in as usize) < ETH_HLEN || !xdp && size_in > MAX_PACKET {
            return Err(Errno::EINVAL);
        }
        if size_in > MAX_XDP_PACKET {
            return Err(Errno::ENOMEM);
        }
        if flags != 0 || attr.u32(40) != 0 || repeat > MAX_REPEAT {
            let what = format_args!("BPF_PROG_TEST_RUN with a context, flags, or so many times");
            return Err(self.inner.env.unsupported(what));
        }
        let mut data = vec![0; size_in as usize];
        mem.read(data_in, &mut data)?;
        if !xdp && data.len() < least_of(&data) {
            return Err(Errno::EINVAL);
        }
        let from_ethernet = xdp || matches!(prog_type, ProgType::SCHED_CLS | ProgType::SCHED_ACT);
        let mut input = TestRun {
            data,
            start: if from_ethernet { 0 } else { ETH_HLEN },
            ctx: vec![0; SK_BUFF],
        };
        let mut result = 0;
        for _ in 0..repeat.max(1) {
            input.ctx.fill(0);
            result = run(&mut input)?;
        }
        // The header that the program did not see is not kept.
        input.data[..input.start].fill(0);
        let len = u32::try_from(input.data.len()).expect("it has not grown");
        let fits = size_out == 0 || size_out >= len;
        let shown = if fits { len } else { size_out } as usize;
        if data_out != 0 {
            mem.write(data_out, &input.data[..shown])?;
        }
        mem.write(addr.wrapping_add(at::DATA_SIZE_OUT), &len.to_ne_bytes())?;
        mem.write(addr.wrapping_add(at::RETVAL), &result.to_ne_bytes())?;
        // It took some time.
        mem.write(addr.wrapping_add(at::DURATION), &1_u32.to_ne_bytes())?;
        if data_out != 0 && !fits {
            return Err(Errno::ENOSPC);
        }
        Ok(0)
    }

    /// Kernel: `bpf_prog_test_run_raw_tp`.
    fn run_with_args(
        &self,
        addr: u64,
        attr: Attr<'_>,
        mem: &mut dyn UserMem,
        run: impl Fn(&mut TestRun) -> Result<u32>,
    ) -> Result<u32> {
        const ON_CPU: u32 = 1;
        let (size, flags, cpu) = (attr.u32(40), attr.u32(64), attr.u32(68));
        let given = attr.u64(16) | attr.u64(24) | attr.u64(56);
        let numbers = attr.u32(36) | attr.u32(32) | attr.u32(72);
        if given != 0 || numbers != 0 || size > MAX_ARGS || flags & !ON_CPU != 0 {
            return Err(Errno::EINVAL);
        }
        if flags & ON_CPU == 0 && cpu != 0 {
            return Err(Errno::EINVAL);
        }
        if cpu >= self.inner.env.nr_cpus {
            return Err(Errno::ENXIO);
        }
        let mut ctx = vec![0; size as usize];
        mem.read(attr.u64(48), &mut ctx)?;
        let mut input = TestRun {
            ctx,
            ..TestRun::default()
        };
        let result = run(&mut input)?;
        mem.write(addr.wrapping_add(at::RETVAL), &result.to_ne_bytes())?;
        Ok(0)
    }

    /// Kernel: `bpf_prog_test_run_syscall`.
    fn run_with_ctx(
        &self,
        addr: u64,
        attr: Attr<'_>,
        mem: &mut dyn UserMem,
        run: impl Fn(&mut TestRun) -> Result<u32>,
    ) -> Result<u32> {
        let (size, ctx_in) = (attr.u32(40), attr.u64(48));
        let given = attr.u64(16) | attr.u64(24) | attr.u64(56);
        let numbers = attr.u32(36) | attr.u32(32) | attr.u32(64);
        if given != 0 || numbers != 0 || size > MAX_CTX {
            return Err(Errno::EINVAL);
        }
        let mut ctx = vec![0; size as usize];
        mem.read(ctx_in, &mut ctx)?;
        let mut input = TestRun {
            ctx,
            ..TestRun::default()
        };
        let result = run(&mut input)?;
        mem.write(addr.wrapping_add(at::RETVAL), &result.to_ne_bytes())?;
        mem.write(ctx_in, &input.ctx)?;
        Ok(0)
    }
}
