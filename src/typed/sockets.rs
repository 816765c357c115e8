//! `SockMap`, `SockHash<K>` and `XskMap`: sockets to redirect to; `ReuseportSockarray`: sockets to choose from.

use std::borrow::Borrow;

use bytemuck::Pod;

use super::Error;
use super::macros::{gets, keys, no_flags, places_of_fds, removes, typed_map};
use crate::abi::Fd;

typed_map! {
    /// A map of type `BPF_MAP_TYPE_SOCKMAP`: sockets by index. Fds go in, cookies come out.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::map::object::{OtherKind, Socket};
    /// use mapemu::typed::SockMap;
    ///
    /// let kernel = Kernel::new();
    /// let sockets = SockMap::builder().max_entries(2).create(&kernel)?;
    /// let socket = Socket { stream: true, connected: true, ..Socket::default() };
    /// sockets.set(1, kernel.open(OtherKind::Socket(socket)), 0)?;
    /// assert_ne!(sockets.get(&1, 0)?, 0);
    /// sockets.remove(&1)?;
    /// assert!(sockets.get(&1, 0).unwrap_err().is_not_found());
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    SockMap: SOCKMAP, no_flags!(), { u32 => u64 }
    places_of_fds!(u64);
    gets!(u32 => u64);
    keys!(u32);
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_SOCKHASH`: sockets by key. Fds go in, cookies come out.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::map::object::{OtherKind, Socket};
    /// use mapemu::typed::SockHash;
    ///
    /// let kernel = Kernel::new();
    /// let sockets: SockHash<[u8; 4]> = SockHash::builder().max_entries(2).create(&kernel)?;
    /// let socket = Socket { stream: true, connected: true, ..Socket::default() };
    /// sockets.insert([10, 0, 0, 1], kernel.open(OtherKind::Socket(socket)), 0)?;
    /// assert_ne!(sockets.get(&[10, 0, 0, 1], 0)?, 0);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    SockHash<K: Pod>: SOCKHASH, no_flags!(), { K => u64 }

    /// Puts the socket of an fd at a key. `flags`: `BPF_ANY`, `BPF_NOEXIST` or `BPF_EXIST`.
    ///
    /// # Errors
    ///
    /// `EPERM` if the map is frozen; `EBADF`, `ENOTSOCK`, `EOPNOTSUPP` for an fd that does not fit; `EINVAL` for other flags;
    /// `EEXIST`, `ENOENT` by the flags; `E2BIG` if the map is full.
    #[doc(alias = "bpf_map_update_elem")]
    pub fn insert(&self, key: impl Borrow<K>, fd: Fd, flags: u64) -> Result<(), Error> {
        self.map.insert(key.borrow(), &u64::from(fd), flags)
    }

    gets!(K => u64);
    removes!(K);
    keys!(K);
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_XSKMAP`: `AF_XDP` sockets by index. Nothing comes out.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::map::object::{OtherKind, Socket};
    /// use mapemu::typed::XskMap;
    ///
    /// let kernel = Kernel::new();
    /// let sockets = XskMap::builder().max_entries(2).create(&kernel)?;
    /// let socket = Socket { xdp: true, bound: true, ..Socket::default() };
    /// sockets.set(1, kernel.open(OtherKind::Socket(socket)), 0)?;
    /// sockets.remove(&1)?;
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    XskMap: XSKMAP, no_flags!(), { u32 => u32 }
    places_of_fds!(Fd);
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_REUSEPORT_SOCKARRAY`: sockets that share a port, by index. Fds go in, cookies come out.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::abi::ProgType;
    /// use mapemu::helper::Prog;
    /// use mapemu::map::object::{OtherKind, Socket};
    /// use mapemu::typed::ReuseportSockarray;
    ///
    /// let kernel = Kernel::new();
    /// let workers = ReuseportSockarray::builder().max_entries(2).create(&kernel)?;
    /// let socket = Socket { bound: true, reuseport: true, ..Socket::default() };
    /// workers.set(1, kernel.open(OtherKind::Socket(socket)), 0)?;
    /// assert_ne!(workers.get(&1, 0)?, 0);
    ///
    /// let map = kernel.map(workers.map().fd()).unwrap();
    /// let prog = Prog::new(ProgType::SK_REUSEPORT, 0);
    /// assert_eq!(prog.sk_select_reuseport(&map, &1_u32.to_ne_bytes(), 0), Ok(()));
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    ReuseportSockarray: REUSEPORT_SOCKARRAY, no_flags!(), { u32 => u64 }
    places_of_fds!(u64);
    gets!(u32 => u64);
    keys!(u32);
}
