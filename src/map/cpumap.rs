//! `BPF_MAP_TYPE_CPUMAP`: CPUs, to redirect packets to.
//!
//! An element is the length of the CPU's queue, and with values of 8 bytes a program that runs there.
//!
//! Kernel: `kernel/bpf/cpumap.c` (v6.18).

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::object::Prog;
use super::owner::Owner;
use super::{Caller, MapDef, MapOps, Target, checks};
use crate::abi::{AttachType, Errno, ProgType, Result, UpdateFlags};
use crate::env::Env;

/// The longest queue.
const MAX_QSIZE: u32 = 16384;

/// See the module.
#[derive(Debug)]
pub struct Cpumap {
    queues: Mutex<HashMap<u32, Queue>>,
    max_entries: u32,
    nr_cpus: u32,
    /// An update's errno is that of its program's fd.
    tells_of_prog: bool,
    owner: Owner,
}

#[derive(Debug)]
struct Queue {
    qsize: u32,
    prog: Option<Arc<Prog>>,
}

impl Cpumap {
    /// An empty map.
    ///
    /// # Errors
    ///
    /// None so far.
    ///
    /// Kernel: `cpu_map_alloc`.
    #[expect(clippy::unnecessary_wraps, reason = "all types are made alike")]
    pub(super) fn new(def: &MapDef, env: &Arc<Env>) -> Result<Self> {
        Ok(Self {
            queues: Mutex::default(),
            max_entries: def.max_entries,
            nr_cpus: env.nr_cpus,
            tells_of_prog: env.release.cpumap_tells_of_prog,
            owner: Owner::default(),
        })
    }
}

impl MapOps for Cpumap {
    fn target(&self, key: &[u8]) -> Option<Target> {
        let cpu = checks::index_of(key);
        let is_there = self.queues.lock().contains_key(&cpu);
        is_there.then_some(Target::Cpu(cpu))
    }

    /// Emptying an empty place is fine.
    fn delete_elem(&self, _cpu: u32, key: &[u8]) -> Result<()> {
        let index = checks::index_of(key);
        if index >= self.max_entries {
            return Err(Errno::EINVAL);
        }
        self.queues.lock().remove(&index);
        Ok(())
    }

    fn user_lookup_elem(
        &self,
        _: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        _: UpdateFlags,
    ) -> Result<()> {
        let queues = self.queues.lock();
        let queue = queues.get(&checks::index_of(key)).ok_or(Errno::ENOENT)?;
        value[..4].copy_from_slice(&queue.qsize.to_ne_bytes());
        if let Some(prog_id) = value.get_mut(4..8) {
            let id = queue.prog.as_ref().map_or(0, |prog| prog.id);
            prog_id.copy_from_slice(&id.to_ne_bytes());
        }
        Ok(())
    }

    /// Kernel: `cpu_map_update_elem`.
    fn user_update_elem(
        &self,
        caller: &Caller<'_>,
        key: &[u8],
        value: &[u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        let cpu = checks::index_of(key);
        let qsize = checks::u32_at(value, 0);
        checks::update_flags(flags)?;
        if cpu >= self.max_entries {
            return Err(Errno::E2BIG);
        }
        if flags == UpdateFlags::NOEXIST {
            // As in any array, all elements are there.
            return Err(Errno::EEXIST);
        }
        if qsize > MAX_QSIZE {
            return Err(Errno::EOVERFLOW);
        }
        if cpu >= self.nr_cpus {
            return Err(Errno::ENODEV);
        }
        if qsize == 0 {
            // The program is not looked at.
            self.queues.lock().remove(&cpu);
            return Ok(());
        }
        let prog = checks::xdp_prog(caller, value, AttachType::XDP_CPUMAP, &self.owner);
        let prog = prog.map_err(|errno| {
            if self.tells_of_prog {
                errno
            } else {
                // To every program that is none for this.
                Errno::ENOMEM
            }
        })?;
        self.queues.lock().insert(cpu, Queue { qsize, prog });
        Ok(())
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        checks::next_index(key, self.max_entries, next_key)
    }

    fn used_by(&self, prog: &Prog) -> Result<()> {
        self.owner.bind(prog)
    }

    fn owner_prog_type(&self) -> Option<ProgType> {
        self.owner.prog_type()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
