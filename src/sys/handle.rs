//! One map through one open file on one CPU: the checks between the fd and the type, and the type's answer.
//!
//! The element commands, the batches and [`MapHandle`] all go through [`Target`], which judges them. Only what a type has for the
//! calls of a handle that leave nothing to be judged (`map/direct.rs`) does without.
//!
//! Kernel: `kernel/bpf/syscall.c` (v6.18).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Kernel;
use super::call::Call;
use super::files::File;
use crate::abi::{ElemAttr, Errno, Fd, MapHandle, MapType, Result, UpdateFlags};
use crate::map::object::Object;
use crate::map::writers::Writing;
use crate::map::{Access, BucketRequest, Caller, Files, Map};

/// The caller's fds, on behalf of a call through one open file.
#[derive(Debug)]
pub(super) struct Through<'a> {
    call: Call<'a>,
    file: u64,
}

impl<'a> Through<'a> {
    /// Through that file.
    #[inline]
    pub(super) fn file(call: Call<'a>, file: &File) -> Self {
        Self {
            call,
            file: file.id,
        }
    }

    /// Through no file: a map is made.
    pub(super) fn no_file(call: Call<'a>) -> Self {
        Self { call, file: 0 }
    }
}

impl Files for Through<'_> {
    fn object(&self, fd: Fd) -> Result<Object> {
        self.call.object(fd)
    }

    fn object_raw(&self, fd: Fd) -> Result<Object> {
        Ok(self.call.any(fd)?.held.object())
    }

    fn map_file(&self) -> u64 {
        self.file
    }
}

/// A map, as one call reaches it.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) map: &'a Map,
    file: &'a File,
    cpu: u32,
    files: &'a dyn Files,
}

impl<'a> Target<'a> {
    /// The map of an open file.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is a file of something else.
    #[inline]
    pub(super) fn new(through: &'a Through<'_>, file: &'a File) -> Result<Self> {
        Ok(Self {
            map: file.map()?,
            file,
            cpu: through.call.cpu,
            files: through,
        })
    }

    #[inline(always)]
    fn caller(&self) -> Caller<'a> {
        Caller {
            cpu: self.cpu,
            files: self.files,
        }
    }

    pub(super) fn key_size(&self) -> usize {
        self.map.def.key_size as usize
    }

    /// Bytes of a value as bpf(2) copies it in a call with these flags, which are judged.
    pub(super) fn value_size(&self, flags: UpdateFlags) -> usize {
        if flags.intersects(OF_CPUS) && self.map.env.release.cpu_flags {
            return self.map.def.value_size as usize;
        }
        self.map.user_value_size
    }

    /// # Errors
    ///
    /// `EPERM` if the file cannot read.
    #[inline]
    pub(super) fn may_read(&self) -> Result<()> {
        if self.file.read {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    fn count(&self) -> Writing<'a> {
        self.map.writers.begin(self.cpu)
    }

    /// One element will be written. Where that is counted, it is a write in flight until dropped.
    ///
    /// # Errors
    ///
    /// `EPERM` if the file cannot write, or the map is frozen.
    #[inline]
    pub(super) fn may_write(&self) -> Result<Option<Writing<'a>>> {
        let writing = self.map.counts_writes.then(|| self.count());
        if !self.file.write || self.map.frozen.load(Ordering::Acquire) {
            return Err(Errno::EPERM);
        }
        Ok(writing)
    }

    /// As [`Target::may_write`], for many elements: a write in flight until dropped.
    pub(super) fn may_write_batch(&self) -> Result<Writing<'a>> {
        let writing = self.count();
        self.may_write()?;
        Ok(writing)
    }

    /// # Errors
    ///
    /// `EINVAL` for [`UpdateFlags::LOCK`] without a lock in the value.
    #[inline]
    pub(super) fn may_lock(&self, flags: UpdateFlags) -> Result<()> {
        if flags.contains(UpdateFlags::LOCK) && self.map.fields.spin_lock().is_none() {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// # Errors
    ///
    /// `EINVAL` for flags that no lookup takes, [`UpdateFlags::LOCK`] without a lock; those of [`Target::cpu_flags`].
    #[inline]
    pub(super) fn lookup_flags(&self, flags: UpdateFlags) -> Result<()> {
        if flags.is_empty() {
            return Ok(());
        }
        let known = if self.map.env.release.cpu_flags {
            UpdateFlags::LOCK | UpdateFlags::CPU
        } else {
            UpdateFlags::LOCK
        };
        self.known_flags(flags, known)
    }

    /// # Errors
    ///
    /// `EINVAL` for [`UpdateFlags::LOCK`] without a lock in the value; those of [`Target::cpu_flags`].
    #[inline]
    pub(super) fn update_flags(&self, flags: UpdateFlags) -> Result<()> {
        self.may_lock(flags)?;
        if flags.bits() >= UpdateFlags::CPU.bits() {
            self.cpu_flags(flags)?;
        }
        Ok(())
    }

    /// # Errors
    ///
    /// `EINVAL` for other flags than these, and as [`Target::update_flags`].
    pub(super) fn known_flags(&self, flags: UpdateFlags, known: UpdateFlags) -> Result<()> {
        if self.map.env.release.cpu_flags {
            if !known.contains(flags.low()) {
                return Err(Errno::EINVAL);
            }
        } else if !known.contains(flags) {
            return Err(Errno::EINVAL);
        }
        self.update_flags(flags)
    }

    /// Judges the flags for CPUs, where there are such.
    ///
    /// # Errors
    ///
    /// `EINVAL` for the number of a CPU without [`UpdateFlags::CPU`], for both flags, and for values that are not per CPU;
    /// `ERANGE` if there is no such CPU.
    #[cold]
    fn cpu_flags(&self, flags: UpdateFlags) -> Result<()> {
        if !self.map.env.release.cpu_flags {
            return Ok(());
        }
        let one = flags.contains(UpdateFlags::CPU);
        if !one && flags.cpu() != 0 || flags.contains(OF_CPUS) {
            return Err(Errno::EINVAL);
        }
        if flags.intersects(OF_CPUS) && !self.map.def.map_type.is_percpu() {
            return Err(Errno::EINVAL);
        }
        if one && flags.cpu() >= self.map.env.nr_cpus {
            return Err(Errno::ERANGE);
        }
        Ok(())
    }

    /// The value is passed in, and asked for: a Bloom filter.
    pub(super) fn lookup_takes_value(&self) -> bool {
        self.map.def.map_type == MapType::BLOOM_FILTER
    }

    /// What `BPF_MAP_LOOKUP_AND_DELETE_ELEM` checks before it reads the key.
    ///
    /// # Errors
    ///
    /// `EPERM`; `EINVAL` for flags that the type does not take.
    pub(super) fn may_take(&self, flags: UpdateFlags) -> Result<Option<Writing<'a>>> {
        let writing = self.may_write()?;
        self.may_read()?;
        if !flags.is_empty() && self.map.def.map_type.is_queue() {
            return Err(Errno::EINVAL);
        }
        self.may_lock(flags)?;
        Ok(writing)
    }

    /// The type's lookup.
    ///
    /// Kernel: `bpf_map_copy_value`.
    #[inline]
    pub(super) fn lookup(&self, key: &[u8], value: &mut [u8], flags: UpdateFlags) -> Result<()> {
        if self.map.def.map_type.is_keyless() {
            return self.map.ops.peek_elem(value);
        }
        self.map
            .ops
            .user_lookup_elem(&self.caller(), key, value, flags)
    }

    /// The type's update.
    ///
    /// Kernel: `bpf_map_update_value`.
    #[inline]
    pub(super) fn update(&self, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()> {
        if self.map.def.map_type.is_keyless() {
            return self.map.ops.push_elem(value, flags);
        }
        self.map
            .ops
            .user_update_elem(&self.caller(), key, value, flags)
    }

    /// The type's delete.
    #[inline]
    pub(super) fn delete(&self, key: &[u8]) -> Result<()> {
        self.map.ops.user_delete_elem(&self.caller(), key)
    }

    /// The type's lookup and delete.
    #[inline]
    pub(super) fn take(&self, key: &[u8], value: &mut [u8], flags: UpdateFlags) -> Result<()> {
        if self.map.def.map_type.is_queue() {
            return self.map.ops.pop_elem(value);
        }
        if !self.map.env.release.elements_can_be_taken {
            return Err(Errno::ENOTSUPP);
        }
        self.map
            .ops
            .user_lookup_and_delete_elem(&self.caller(), key, value, flags)
    }

    /// The type's next key.
    #[inline]
    pub(super) fn next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        self.map.ops.get_next_key(key, next_key)
    }

    /// Some buckets of a lookup batch.
    pub(super) fn buckets(&self, request: &mut BucketRequest) {
        self.map.ops.user_lookup_buckets(&self.caller(), request);
    }
}

/// The flags for CPUs.
const OF_CPUS: UpdateFlags = UpdateFlags::CPU.union(UpdateFlags::ALL_CPUS);

impl Call<'_> {
    /// The flags of a lookup, where they are judged before the fd.
    ///
    /// # Errors
    ///
    /// `EINVAL` for flags that no lookup takes.
    #[inline]
    pub(super) fn early_lookup_flags(&self, flags: UpdateFlags) -> Result<()> {
        if flags.is_empty() || self.inner.env.release.lookup_takes_fd_first {
            return Ok(());
        }
        lookup_flags(flags)
    }
}

/// # Errors
///
/// `EINVAL` for flags that no lookup takes.
#[inline]
pub(super) fn lookup_flags(flags: UpdateFlags) -> Result<()> {
    if flags.difference(UpdateFlags::LOCK).is_empty() {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

/// Stack space for keys and values; larger ones are allocated.
const SMALL: usize = 64;
const STACK: usize = 512;

/// Calls `f` with `len` zero bytes.
#[inline]
pub(super) fn with_bytes<R>(len: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
    if len <= SMALL {
        f(&mut [0; SMALL][..len])
    } else if len <= STACK {
        f(&mut [0; STACK][..len])
    } else {
        f(&mut vec![0; len])
    }
}

/// A map behind an fd that was looked up once.
#[derive(Debug)]
pub(super) struct Handle {
    kernel: Kernel,
    file: Arc<File>,
}

impl Handle {
    /// The fastest that the type of the map has.
    ///
    /// # Errors
    ///
    /// `EBADF` if the fd is not open, `EINVAL` if it is something else.
    pub(super) fn fastest(kernel: &Kernel, fd: Fd) -> Result<Box<dyn MapHandle>> {
        let file = kernel.own().file(fd)?;
        let map = Arc::clone(file.map()?);
        let access = Access {
            cpu: kernel.cpu,
            read: file.read,
            write: file.write,
        };
        let kernel = kernel.clone();
        Ok(map.ops.handle(access, Box::new(Self { kernel, file })))
    }

    fn through(&self) -> Through<'_> {
        Through::file(self.kernel.own(), &self.file)
    }
}

/// The key, cut to its size.
///
/// # Errors
///
/// `EFAULT` if it is too short; `EINVAL` if there are none, and a key is given.
#[inline]
fn cut_key(bytes: &[u8], size: usize) -> Result<&[u8]> {
    if size == 0 && !bytes.is_empty() {
        return Err(Errno::EINVAL);
    }
    bytes.get(..size).ok_or(Errno::EFAULT)
}

/// Calls `f` with room for an answer of `size` bytes; `EFAULT` afterwards if the caller's room is too short.
#[inline(always)]
fn answer(out: &mut [u8], size: usize, f: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
    match out.get_mut(..size) {
        Some(out) => f(out),
        None => answer_nowhere(size, f),
    }
}

/// Room for an answer that nobody sees; out of the way of the common call.
#[cold]
#[inline(never)]
fn answer_nowhere(size: usize, f: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
    with_bytes(size, f)?;
    Err(Errno::EFAULT)
}

impl MapHandle for Handle {
    fn lookup_elem(&self, key: &[u8], value: &mut [u8], flags: UpdateFlags) -> Result<()> {
        self.kernel.own().early_lookup_flags(flags)?;
        let through = self.through();
        let target = Target::new(&through, &self.file)?;
        target.may_read()?;
        target.lookup_flags(flags)?;
        let key = cut_key(key, target.key_size())?;
        let size = target.value_size(flags);
        if target.lookup_takes_value() && value.len() < size {
            return Err(Errno::EFAULT);
        }
        answer(value, size, |value| target.lookup(key, value, flags))
    }

    fn update_elem(&self, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()> {
        let through = self.through();
        let target = Target::new(&through, &self.file)?;
        let _writing = target.may_write()?;
        target.update_flags(flags)?;
        let key = cut_key(key, target.key_size())?;
        let value = value.get(..target.value_size(flags)).ok_or(Errno::EFAULT)?;
        target.update(key, value, flags)
    }

    fn delete_elem(&self, key: &[u8]) -> Result<()> {
        let through = self.through();
        let target = Target::new(&through, &self.file)?;
        let _writing = target.may_write()?;
        target.delete(cut_key(key, target.key_size())?)
    }

    fn lookup_and_delete_elem(
        &self,
        key: &[u8],
        value: &mut [u8],
        flags: UpdateFlags,
    ) -> Result<()> {
        let through = self.through();
        let target = Target::new(&through, &self.file)?;
        let end = target.map.env.release.lookup_and_delete_end;
        if !flags.is_empty() && end < ElemAttr::END {
            return Err(Errno::EINVAL);
        }
        lookup_flags(flags)?;
        let _writing = target.may_take(flags)?;
        let key = cut_key(key, target.key_size())?;
        answer(value, target.value_size(flags), |value| {
            target.take(key, value, flags)
        })
    }

    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        let through = self.through();
        let target = Target::new(&through, &self.file)?;
        target.may_read()?;
        let key = key.map(|key| cut_key(key, target.key_size())).transpose()?;
        answer(next_key, target.key_size(), |next| {
            target.next_key(key, next)
        })
    }
}
