//! `BPF_MAP_TYPE_STACK_TRACE`: stacks that programs took, each at the place that its hash names.
//!
//! Nothing runs here, so whoever plays the program brings the stack: [`StackTrace::get_stackid`].
//!
//! Kernel: `kernel/bpf/stackmap.c` (v6.18).

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Caller, MapDef, MapOps, checks};
use crate::abi::{Errno, MapFlags, Result, UpdateFlags};
use crate::env::Env;
use crate::store::jhash;

/// Bytes of a `struct bpf_stack_build_id`: status, build id, offset or address.
const BUILD_ID_SIZE: usize = 32;
/// `BPF_STACK_BUILD_ID_IP`: the frame has an address, no build id.
const BUILD_ID_IP: i32 = 2;

/// Frames that are left out: `BPF_F_SKIP_FIELD_MASK`.
const SKIP_MASK: u64 = 0xff;
/// `BPF_F_USER_STACK`
const USER_STACK: u64 = 1 << 8;
/// `BPF_F_FAST_STACK_CMP`: stacks of one hash count as the same.
const FAST_STACK_CMP: u64 = 1 << 9;
/// `BPF_F_REUSE_STACKID`: a stack takes the place of another one.
const REUSE_STACKID: u64 = 1 << 10;

/// See the module.
#[derive(Debug)]
pub struct StackTrace {
    stacks: Mutex<BTreeMap<u32, Stack>>,
    max_entries: u32,
    value_size: usize,
    build_ids: bool,
    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM` takes one.
    can_take: bool,
}

#[derive(Debug)]
struct Stack {
    hash: u32,
    /// As a lookup gives it, without the zeros at the end.
    bytes: Vec<u8>,
}

impl StackTrace {
    /// An empty map.
    ///
    /// # Errors
    ///
    /// None so far.
    ///
    /// Kernel: `stack_map_alloc`.
    #[expect(clippy::unnecessary_wraps, reason = "all types are made alike")]
    pub(super) fn new(def: &MapDef, env: &Arc<Env>) -> Result<Self> {
        Ok(Self {
            stacks: Mutex::default(),
            max_entries: def.max_entries,
            value_size: def.value_size as usize,
            build_ids: def.map_flags.contains(MapFlags::STACK_BUILD_ID),
            can_take: env.release.stack_trace_can_be_taken,
        })
    }

    /// Ids are below this.
    fn n_buckets(&self) -> u32 {
        self.max_entries.next_power_of_two()
    }

    /// `bpf_get_stackid`, of a program whose stack has these frames, the innermost first: the id of the stack.
    ///
    /// # Errors
    ///
    /// `EINVAL` for unknown flags; `EFAULT` if all frames are left out; `EEXIST` if another stack has its place;
    /// `ENOMEM` if the map is full.
    ///
    /// Kernel: `bpf_get_stackid`, `__bpf_get_stackid`.
    pub fn get_stackid(&self, frames: &[u64], flags: u64) -> Result<u32> {
        if flags & !(SKIP_MASK | USER_STACK | FAST_STACK_CMP | REUSE_STACKID) != 0 {
            return Err(Errno::EINVAL);
        }
        let skip = usize::try_from(flags & SKIP_MASK).expect("a byte");
        let frames = frames.get(skip..).filter(|frames| !frames.is_empty());
        let frames = frames.ok_or(Errno::EFAULT)?;
        let frame_size = if self.build_ids { BUILD_ID_SIZE } else { 8 };
        let frames = &frames[..frames.len().min(self.value_size / frame_size)];

        let addresses: Vec<u8> = frames.iter().flat_map(|ip| ip.to_ne_bytes()).collect();
        let hash = jhash(&addresses, 0);
        let id = hash & (self.n_buckets() - 1);
        let mut stacks = self.stacks.lock();
        let same_hash = stacks.get(&id).filter(|stack| stack.hash == hash);
        if same_hash.is_some() && flags & FAST_STACK_CMP != 0 {
            return Ok(id);
        }
        let bytes = if self.build_ids {
            frames.iter().flat_map(|&ip| without_build_id(ip)).collect()
        } else {
            addresses
        };
        if same_hash.is_some_and(|stack| stack.bytes == bytes) {
            return Ok(id);
        }
        if stacks.contains_key(&id) && flags & REUSE_STACKID == 0 {
            return Err(Errno::EEXIST);
        }
        // A place is taken before the old one is given back.
        if stacks.len() >= self.max_entries as usize {
            return Err(Errno::ENOMEM);
        }
        stacks.insert(id, Stack { hash, bytes });
        Ok(id)
    }
}

/// A frame whose build id is not known.
fn without_build_id(ip: u64) -> [u8; BUILD_ID_SIZE] {
    let mut frame = [0; BUILD_ID_SIZE];
    frame[..4].copy_from_slice(&BUILD_ID_IP.to_ne_bytes());
    frame[24..].copy_from_slice(&ip.to_ne_bytes());
    frame
}

/// Writes a stack and the zeros after it.
fn show(stack: &Stack, value: &mut [u8]) {
    let (frames, rest) = value.split_at_mut(stack.bytes.len());
    frames.copy_from_slice(&stack.bytes);
    rest.fill(0);
}

impl MapOps for StackTrace {
    fn update_elem(&self, _: u32, _: &[u8], _: &[u8], _: UpdateFlags) -> Result<()> {
        Err(Errno::EINVAL)
    }

    fn delete_elem(&self, _cpu: u32, key: &[u8]) -> Result<()> {
        let id = checks::index_of(key);
        if id >= self.n_buckets() {
            return Err(Errno::E2BIG);
        }
        let removed = self.stacks.lock().remove(&id);
        removed.map(|_| ()).ok_or(Errno::ENOENT)
    }

    fn user_lookup_elem(
        &self,
        _: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        _: UpdateFlags,
    ) -> Result<()> {
        let stacks = self.stacks.lock();
        let stack = stacks.get(&checks::index_of(key)).ok_or(Errno::ENOENT)?;
        show(stack, value);
        Ok(())
    }

    fn user_lookup_and_delete_elem(
        &self,
        _: &Caller<'_>,
        key: &[u8],
        value: &mut [u8],
        _: UpdateFlags,
    ) -> Result<()> {
        if !self.can_take {
            return Err(Errno::ENOTSUPP);
        }
        let stack = self.stacks.lock().remove(&checks::index_of(key));
        show(&stack.ok_or(Errno::ENOENT)?, value);
        Ok(())
    }

    /// Ids of stacks that are there, upwards; after one that is not, from the start.
    fn get_next_key(&self, key: Option<&[u8]>, next_key: &mut [u8]) -> Result<()> {
        let stacks = self.stacks.lock();
        let from = match key.map(checks::index_of) {
            Some(id) if stacks.contains_key(&id) => id + 1,
            Some(_) | None => 0,
        };
        let (id, _) = stacks.range(from..).next().ok_or(Errno::ENOENT)?;
        next_key.copy_from_slice(&id.to_ne_bytes());
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{FAST_STACK_CMP, REUSE_STACKID, StackTrace};
    use crate::abi::Errno;

    fn stacks(max_entries: u32) -> StackTrace {
        StackTrace {
            stacks: parking_lot::Mutex::default(),
            max_entries,
            value_size: 16,
            build_ids: false,
            can_take: true,
        }
    }

    #[test]
    fn a_stack_has_one_id() {
        let map = stacks(64);
        let id = map.get_stackid(&[1, 2, 3], 0).expect("there is room");
        assert_eq!(map.get_stackid(&[1, 2, 3], 0), Ok(id));
        assert_eq!(
            map.get_stackid(&[1, 2, 9], FAST_STACK_CMP),
            Ok(id),
            "the third frame has no room"
        );
        assert_eq!(
            map.get_stackid(&[7, 1, 2], 1),
            Ok(id),
            "the first one is left out"
        );
        assert_eq!(map.get_stackid(&[7], 1), Err(Errno::EFAULT));
        assert_eq!(map.get_stackid(&[7], 1 << 11), Err(Errno::EINVAL));
    }

    #[test]
    fn another_stack_at_the_same_place() {
        let map = stacks(1);
        assert_eq!(map.get_stackid(&[1], 0), Ok(0));
        assert_eq!(map.get_stackid(&[2], 0), Err(Errno::EEXIST));
        assert_eq!(map.get_stackid(&[2], REUSE_STACKID), Err(Errno::ENOMEM));
    }
}
