//! The crate `kbpf-basic`: BPF maps for kernels that are written in Rust.
//!
//! It is called as its own system calls call it: they give one CPU's value where Linux gives all.

use std::cell::{Cell, UnsafeCell};
use std::ffi::c_void;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kbpf_basic::linux_bpf::BpfMapType;
use kbpf_basic::map::{BpfMapMeta, PerCpuVariants, PerCpuVariantsOps, UnifiedMap, bpf_map_create};
use kbpf_basic::preprocessor::EbpfInst;
use kbpf_basic::{BpfError, BpfResult, KernelAuxiliaryOps};
use mapemu::abi::MapType;
use parking_lot::RawMutex;

use crate::Rival;
use crate::call::{Answered, Call, Cmd, Spec};

thread_local! {
    static CPU: Cell<u32> = const { Cell::new(0) };
}

#[derive(Debug)]
struct Cpus;

struct PerCpu<T>(Vec<UnsafeCell<T>>);

impl<T> fmt::Debug for PerCpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} CPUs", self.0.len())
    }
}

// SAFETY: the scoreboard has one thread.
unsafe impl<T> Sync for PerCpu<T> {}
// SAFETY: as for `Sync`.
unsafe impl<T> Send for PerCpu<T> {}

impl<T: Clone + Sync + Send> PerCpuVariants<T> for PerCpu<T> {
    fn get(&self) -> &T {
        // SAFETY: one thread, and the crate holds no other reference meanwhile.
        unsafe { &*self.0[CPU.get() as usize].get() }
    }

    fn get_mut(&self) -> &mut T {
        // SAFETY: as in `get`.
        unsafe { &mut *self.0[CPU.get() as usize].get() }
    }

    unsafe fn force_get(&self, cpu: u32) -> &T {
        // SAFETY: as in `get`.
        unsafe { &*self.0[cpu as usize].get() }
    }

    unsafe fn force_get_mut(&self, cpu: u32) -> &mut T {
        // SAFETY: as in `get`.
        unsafe { &mut *self.0[cpu as usize].get() }
    }
}

impl PerCpuVariantsOps for Cpus {
    fn create<T: Clone + Sync + Send + 'static>(value: T) -> Option<Box<dyn PerCpuVariants<T>>> {
        let cpus = (0..Self::num_cpus()).map(|_| UnsafeCell::new(value.clone()));
        Some(Box::new(PerCpu(cpus.collect())))
    }

    fn num_cpus() -> u32 {
        2
    }
}

/// Nothing of it is called by maps that are no ring buffers.
struct Surroundings;

#[derive(Clone)]
struct Nothing;

impl EbpfInst for Nothing {
    fn opc(&self) -> u8 {
        0
    }
    fn imm(&self) -> i32 {
        0
    }
    fn src(&self) -> u8 {
        0
    }
    fn set_imm(&mut self, _imm: i32) {}
    fn to_array(&self) -> [u8; 8] {
        [0; 8]
    }
}

const NO: BpfError = BpfError::EPERM;

impl KernelAuxiliaryOps for Surroundings {
    type MapLock = RawMutex;

    fn get_unified_map_from_ptr<F, R>(_: *const u8, _: F) -> BpfResult<R>
    where
        F: FnOnce(&UnifiedMap<RawMutex>) -> BpfResult<R>,
    {
        Err(NO)
    }
    fn get_unified_map_from_fd<F, R>(_: u32, _: F) -> BpfResult<R>
    where
        F: FnOnce(&UnifiedMap<RawMutex>) -> BpfResult<R>,
    {
        Err(NO)
    }
    fn get_unified_map_ptr_from_fd(_: u32) -> BpfResult<*const u8> {
        Err(NO)
    }
    fn translate_instruction(_: Vec<u8>) -> BpfResult<Vec<impl EbpfInst>> {
        Err::<Vec<Nothing>, _>(NO)
    }
    fn copy_from_user(_: *const u8, _: usize, _: &mut [u8]) -> BpfResult<()> {
        Err(NO)
    }
    fn copy_to_user(_: *mut u8, _: usize, _: &[u8]) -> BpfResult<()> {
        Err(NO)
    }
    fn current_cpu_id() -> u32 {
        CPU.get()
    }
    fn perf_event_output(_: *mut c_void, _: u32, _: u32, _: &[u8]) -> BpfResult<()> {
        Err(NO)
    }
    fn string_from_user_cstr(_: *const u8) -> BpfResult<String> {
        Err(NO)
    }
    fn ebpf_write_str(_: &str) -> BpfResult<()> {
        Err(NO)
    }
    fn ebpf_time_ns() -> BpfResult<u64> {
        Err(NO)
    }
    fn alloc_page() -> BpfResult<usize> {
        Err(NO)
    }
    fn free_page(_: usize) {}
    fn vmap(_: &[usize]) -> BpfResult<usize> {
        Err(NO)
    }
    fn vunmap(_: usize, _: usize) {}
}

struct Kbpf {
    map: UnifiedMap<RawMutex>,
    spec: Spec,
}

/// A map of `kbpf-basic`.
pub fn make(spec: &Spec) -> Result<Box<dyn Rival>, String> {
    CPU.set(0);
    let mut types = MapType::ALL.iter();
    let named = types.find(|known| known.name() == Some(&*spec.map_type.to_uppercase()));
    let map_type = named.expect("a type");
    let meta = BpfMapMeta {
        map_type: BpfMapType::try_from(map_type.0).map_err(|_| "EINVAL".to_owned())?,
        key_size: spec.key_size as u32,
        value_size: spec.value_size as u32,
        max_entries: spec.max_entries as u32,
        ..BpfMapMeta::default()
    };
    let map = bpf_map_create::<Surroundings, Cpus>(meta, None).map_err(name)?;
    Ok(Box::new(Kbpf {
        map,
        spec: spec.clone(),
    }))
}

fn name(errno: BpfError) -> String {
    format!("{errno:?}")
}

impl Kbpf {
    fn asked(&self, call: &Call) -> BpfResult<Vec<u8>> {
        let mut map = self.map.map_mut();
        let key = call.key.clone().unwrap_or_default();
        let mut value = vec![0; self.spec.value_size];
        match call.cmd {
            Cmd::Lookup if self.spec.is_keyless() => {
                map.peek_elem(&mut value)?;
                Ok(value)
            }
            Cmd::Lookup => {
                let found = map.lookup_elem(&key)?.map(<[u8]>::to_vec);
                found.ok_or(BpfError::ENOENT)
            }
            Cmd::Update if self.spec.is_keyless() => {
                map.push_elem(&call.value, call.flags)?;
                Ok(Vec::new())
            }
            Cmd::Update => {
                map.update_elem(&key, &call.value[..self.spec.value_size], call.flags)?;
                Ok(Vec::new())
            }
            Cmd::Delete => map.delete_elem(&key).map(|()| Vec::new()),
            Cmd::Take if self.spec.is_keyless() => {
                map.pop_elem(&mut value)?;
                Ok(value)
            }
            Cmd::Take => {
                map.lookup_and_delete_elem(&key, &mut value)?;
                Ok(value)
            }
            Cmd::Next => {
                let mut next = vec![0; self.spec.key_size];
                map.get_next_key(call.key.as_deref(), &mut next)?;
                Ok(next)
            }
        }
    }
}

impl Rival for Kbpf {
    fn set_cpu(&mut self, cpu: u32) {
        CPU.set(cpu);
    }

    fn answer(&mut self, call: &Call) -> Answered {
        let answered = catch_unwind(AssertUnwindSafe(|| self.asked(call)));
        answered.unwrap_or_else(|_| panic_is(call)).map_err(name)
    }
}

/// It gave up.
fn panic_is(_call: &Call) -> BpfResult<Vec<u8>> {
    Err(BpfError::EFAULT)
}
