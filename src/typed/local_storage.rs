//! `TaskStorage<V>`, `CgrpStorage<V>`, `SkStorage<V>`, `InodeStorage<V>`: values that belong to something else.
//!
//! The key is an fd of the owner; the map has to be made with BTF, and with `BPF_F_NO_PREALLOC`, which is there already.

use bytemuck::Pod;

use super::macros::{gets, inserts, removes, typed_map};
use crate::abi::{Fd, MapFlags};

/// What all local storages have.
macro_rules! values_by_owner {
    ($value:ty) => {
        gets!(Fd => $value);
        inserts!(Fd => $value);
        removes!(Fd);
    };
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_TASK_STORAGE`: a value for each task; the key is a pidfd.
    ///
    /// ```
    /// use mapemu::btf::Writer;
    /// use mapemu::map::object::OtherKind;
    /// use mapemu::typed::TaskStorage;
    /// use mapemu::{Kernel, calls};
    ///
    /// let kernel = Kernel::new();
    /// let mut btf = Writer::new();
    /// let (key, value) = (btf.int("int", 4), btf.int("u64", 8));
    /// let btf = calls::bpf_btf_load(&kernel, &btf.finish()).unwrap();
    /// let storage: TaskStorage<u64> = TaskStorage::builder().btf(btf, key, value).create(&kernel)?;
    /// let pidfd = kernel.open(OtherKind::Pidfd);
    /// storage.insert(pidfd, 7, 0)?;
    /// assert_eq!(storage.get(&kernel.open_again(pidfd).unwrap(), 0)?, 7, "the same task");
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    TaskStorage<V: Pod>: TASK_STORAGE, MapFlags::NO_PREALLOC, { Fd => V }
    values_by_owner!(V);
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_CGRP_STORAGE`: a value for each cgroup; the key is an fd of its directory.
    ///
    /// ```
    /// use mapemu::btf::Writer;
    /// use mapemu::typed::CgrpStorage;
    /// use mapemu::{Kernel, calls};
    ///
    /// let kernel = Kernel::new();
    /// let mut btf = Writer::new();
    /// let (key, value) = (btf.int("int", 4), btf.int("u64", 8));
    /// let btf = calls::bpf_btf_load(&kernel, &btf.finish()).unwrap();
    /// let storage: CgrpStorage<u64> = CgrpStorage::builder().btf(btf, key, value).create(&kernel)?;
    /// let cgroup = kernel.cgroup_create("web", None).unwrap();
    /// storage.insert(cgroup, 7, 0)?;
    /// assert_eq!(storage.get(&cgroup, 0)?, 7);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    CgrpStorage<V: Pod>: CGRP_STORAGE, MapFlags::NO_PREALLOC, { Fd => V }
    values_by_owner!(V);
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_SK_STORAGE`: a value for each socket.
    ///
    /// ```
    /// use mapemu::btf::Writer;
    /// use mapemu::map::object::{OtherKind, Socket};
    /// use mapemu::typed::SkStorage;
    /// use mapemu::{Kernel, calls};
    ///
    /// let kernel = Kernel::new();
    /// let mut btf = Writer::new();
    /// let (key, value) = (btf.int("int", 4), btf.int("u64", 8));
    /// let btf = calls::bpf_btf_load(&kernel, &btf.finish()).unwrap();
    /// let storage: SkStorage<u64> = SkStorage::builder().btf(btf, key, value).create(&kernel)?;
    /// let socket = kernel.open(OtherKind::Socket(Socket::default()));
    /// storage.insert(socket, 7, 0)?;
    /// assert_eq!(storage.get(&socket, 0)?, 7);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    SkStorage<V: Pod>: SK_STORAGE, MapFlags::NO_PREALLOC, { Fd => V }
    values_by_owner!(V);
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_INODE_STORAGE`: a value for each inode.
    ///
    /// ```
    /// use mapemu::btf::Writer;
    /// use mapemu::map::object::OtherKind;
    /// use mapemu::typed::InodeStorage;
    /// use mapemu::{Kernel, calls};
    ///
    /// let kernel = Kernel::new();
    /// let mut btf = Writer::new();
    /// let (key, value) = (btf.int("int", 4), btf.int("u64", 8));
    /// let btf = calls::bpf_btf_load(&kernel, &btf.finish()).unwrap();
    /// let storage: InodeStorage<u64> = InodeStorage::builder().btf(btf, key, value).create(&kernel)?;
    /// let file = kernel.open(OtherKind::File);
    /// storage.insert(file, 7, 0)?;
    /// storage.remove(&file)?;
    /// assert!(storage.get(&file, 0).unwrap_err().is_not_found());
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    InodeStorage<V: Pod>: INODE_STORAGE, MapFlags::NO_PREALLOC, { Fd => V }
    values_by_owner!(V);
}
