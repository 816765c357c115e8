//! The batch commands.
//!
//! Kernel: `kernel/bpf/syscall.c:bpf_map_do_batch`, `generic_map_lookup_batch` and its kin;
//! `kernel/bpf/hashtab.c:__htab_map_lookup_and_delete_batch` (v6.18).

use super::call::Call;
use super::handle::{Target, Through, with_bytes};
use crate::abi::{Attr, BatchAttr, Cmd, Errno, MapType, Result, UpdateFlags, UserMem};
use crate::map::{Batches, BucketRequest, Map, Token};

/// Bytes of the token of a batch that goes by bucket.
const BUCKET_TOKEN: usize = 4;

/// One batch command on its way.
struct Batch<'a> {
    target: &'a Target<'a>,
    attr: &'a BatchAttr,
    /// Elements done.
    done: u32,
}

impl Call<'_> {
    /// `addr` is the attr's address: the number of elements done is written there.
    pub(super) fn batch(
        &self,
        cmd: Cmd,
        addr: u64,
        attr: Attr<'_>,
        mem: &mut dyn UserMem,
    ) -> Result<u32> {
        let attr = &BatchAttr::decode(attr);
        let file = self.lent(attr.map_fd)?;
        let through = Through::file(*self, file.file());
        let target = &Target::new(&through, file.file())?;
        let writes = cmd != Cmd::MAP_LOOKUP_BATCH;
        let reads = matches!(
            cmd,
            Cmd::MAP_LOOKUP_BATCH | Cmd::MAP_LOOKUP_AND_DELETE_BATCH
        );
        let _writing = writes.then(|| target.may_write_batch()).transpose()?;
        if reads {
            target.may_read()?;
        }
        let has = batches(target.map);
        let supported = match cmd {
            Cmd::MAP_LOOKUP_BATCH => has.lookup,
            Cmd::MAP_LOOKUP_AND_DELETE_BATCH => has.lookup_and_delete,
            Cmd::MAP_UPDATE_BATCH => has.update,
            _ => has.delete,
        };
        if !supported {
            return Err(Errno::ENOTSUPP);
        }
        target.known_flags(attr.elem_flags, self.batch_flags(cmd))?;
        if reads && has.token != Token::LastKey && attr.flags != 0 {
            return Err(Errno::EINVAL);
        }
        if attr.count == 0 {
            return Ok(0);
        }
        let count_addr = addr.wrapping_add(BatchAttr::COUNT_AT as u64);
        mem.write(count_addr, &0_u32.to_ne_bytes())?;
        let mut batch = Batch {
            target,
            attr,
            done: 0,
        };
        let deletes = cmd == Cmd::MAP_LOOKUP_AND_DELETE_BATCH;
        let answer = match cmd {
            Cmd::MAP_UPDATE_BATCH => batch.update(mem),
            Cmd::MAP_DELETE_BATCH => batch.delete(mem),
            _ => match has.token {
                Token::LastKey => batch.lookup(mem),
                Token::NextKey => batch.lookup_from(deletes, mem),
                Token::Bucket => batch.lookup_buckets(deletes, mem),
            },
        };
        mem.write(count_addr, &batch.done.to_ne_bytes())?;
        answer.map(|()| 0)
    }
}

impl Call<'_> {
    /// The `elem_flags` that a batch command takes.
    fn batch_flags(&self, cmd: Cmd) -> UpdateFlags {
        let cpus = match cmd {
            _ if !self.inner.env.release.cpu_flags => UpdateFlags::empty(),
            Cmd::MAP_UPDATE_BATCH => UpdateFlags::CPU | UpdateFlags::ALL_CPUS,
            Cmd::MAP_LOOKUP_BATCH => UpdateFlags::CPU,
            _ => UpdateFlags::empty(),
        };
        cpus | UpdateFlags::LOCK
    }
}

/// The batch commands of a map.
fn batches(map: &Map) -> Batches {
    let is_late = matches!(
        map.def.map_type,
        MapType::PERCPU_ARRAY | MapType::LPM_TRIE | MapType::ARRAY_OF_MAPS | MapType::HASH_OF_MAPS
    );
    if is_late && !map.env.release.batches_of_more_types {
        return Batches::default();
    }
    map.ops.batches()
}

impl Batch<'_> {
    /// Bytes of a value in this command.
    fn value_size(&self) -> usize {
        self.target.value_size(self.attr.elem_flags)
    }

    /// The address of the caller's key number `index`.
    fn key_addr(&self, index: u32) -> u64 {
        let offset = self.target.key_size() as u64 * u64::from(index);
        self.attr.keys.wrapping_add(offset)
    }

    /// The address of the caller's value number `index`.
    fn value_addr(&self, index: u32) -> u64 {
        let offset = self.value_size() as u64 * u64::from(index);
        self.attr.values.wrapping_add(offset)
    }

    /// Kernel: `generic_map_update_batch`.
    fn update(&mut self, mem: &dyn UserMem) -> Result<()> {
        with_bytes(self.target.key_size(), |key| {
            with_bytes(self.value_size(), |value| {
                while self.done < self.attr.count {
                    mem.read(self.key_addr(self.done), key)?;
                    mem.read(self.value_addr(self.done), value)?;
                    self.target.update(key, value, self.attr.elem_flags)?;
                    self.done += 1;
                }
                Ok(())
            })
        })
    }

    /// Kernel: `generic_map_delete_batch`.
    fn delete(&mut self, mem: &dyn UserMem) -> Result<()> {
        with_bytes(self.target.key_size(), |key| {
            while self.done < self.attr.count {
                mem.read(self.key_addr(self.done), key)?;
                self.target.delete(key)?;
                self.done += 1;
            }
            Ok(())
        })
    }

    /// By key: the token is the last key that was read.
    ///
    /// Kernel: `generic_map_lookup_batch`.
    fn lookup(&mut self, mem: &mut dyn UserMem) -> Result<()> {
        let size = self.target.key_size();
        let (mut key, mut next) = (vec![0; size], vec![0; size]);
        let mut value = vec![0; self.value_size()];
        let from_start = self.attr.in_batch == 0;
        if !from_start {
            mem.read(self.attr.in_batch, &mut key)?;
        }
        let mut answer = self
            .target
            .next_key((!from_start).then_some(&*key), &mut next);
        let mut done = 0;
        while answer.is_ok() && done < self.attr.count {
            match self.target.lookup(&next, &mut value, self.attr.elem_flags) {
                Ok(()) => {
                    mem.write(self.key_addr(done), &next)?;
                    mem.write(self.value_addr(done), &value)?;
                    done += 1;
                }
                // An empty place, or one that was emptied meanwhile.
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
            std::mem::swap(&mut key, &mut next);
            if done < self.attr.count {
                answer = self.target.next_key(Some(&key), &mut next);
            }
        }
        self.done = done;
        if done > 0 {
            mem.write(self.attr.out_batch, &key)?;
        }
        answer
    }

    /// By key: the token is the key to begin with.
    ///
    /// Kernel: `kernel/bpf/hashtab.c:rhtab_map_lookup_batch`, `rhtab_map_lookup_and_delete_batch` (v7.3).
    fn lookup_from(&mut self, delete: bool, mem: &mut dyn UserMem) -> Result<()> {
        let size = self.target.key_size();
        let (mut key, mut next) = (vec![0; size], vec![0; size]);
        let mut value = vec![0; self.value_size()];
        let flags = self.attr.elem_flags;
        let mut answer = if self.attr.in_batch == 0 {
            self.target.next_key(None, &mut key)
        } else {
            mem.read(self.attr.in_batch, &mut key)?;
            // Where a key was that is gone, nobody knows.
            let there = self.target.lookup(&key, &mut value, flags);
            there.map_err(|_| Errno::EAGAIN)
        };
        while answer.is_ok() && self.done < self.attr.count {
            self.target.lookup(&key, &mut value, flags)?;
            mem.write(self.key_addr(self.done), &key)?;
            mem.write(self.value_addr(self.done), &value)?;
            self.done += 1;
            answer = self.target.next_key(Some(&key), &mut next);
            if delete {
                self.target.delete(&key)?;
            }
            std::mem::swap(&mut key, &mut next);
        }
        if answer.is_ok() {
            mem.write(self.attr.out_batch, &key)?;
        }
        answer
    }

    /// By bucket: the token is the number of the next bucket.
    ///
    /// Kernel: `kernel/bpf/hashtab.c:__htab_map_lookup_and_delete_batch`.
    fn lookup_buckets(&mut self, delete: bool, mem: &mut dyn UserMem) -> Result<()> {
        let n_buckets = self.target.map.ops.n_buckets();
        let mut token = [0; BUCKET_TOKEN];
        if self.attr.in_batch != 0 {
            mem.read(self.attr.in_batch, &mut token)?;
        }
        let bucket = u32::from_ne_bytes(token);
        if bucket >= n_buckets {
            return Err(Errno::ENOENT);
        }
        let room = self.attr.count as usize;
        let mut request =
            BucketRequest::new(bucket, room, self.target.key_size(), self.value_size());
        request.one = delete;
        request.delete = delete;
        request.elem_flags = self.attr.elem_flags;
        let mut done = 0;
        while request.bucket < n_buckets {
            let before = (request.bucket, request.room);
            self.target.buckets(&mut request);
            if request.read == 0 && request.bucket < n_buckets {
                // What does not fit is for the next call.
                break;
            }
            let (keys, values) = (self.key_addr(done), self.value_addr(done));
            let fits = mem.may_write(keys, request.keys().len())
                && mem.may_write(values, request.values().len());
            if fits || request.one {
                mem.write(keys, request.keys())?;
                mem.write(values, request.values())?;
                done += u32::try_from(request.read).expect("no more than there is room for");
            } else {
                // Again, bucket by bucket, to see how far it goes.
                (request.bucket, request.room) = before;
                request.one = true;
            }
            request.read = 0;
        }
        mem.write(self.attr.out_batch, &request.bucket.to_ne_bytes())?;
        self.done = done;
        if request.bucket == n_buckets {
            Err(Errno::ENOENT)
        } else if done == 0 {
            Err(Errno::ENOSPC)
        } else {
            Ok(())
        }
    }
}
