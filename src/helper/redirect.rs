//! Packets and messages that programs send elsewhere.
//!
//! Nothing is sent here: [`Prog::target`] tells where to.
//!
//! Kernel: `include/linux/filter.h:__bpf_xdp_redirect_map`, `net/core/sock_map.c`,
//! `net/core/filter.c:sk_select_reuseport` (v6.18).

use super::Prog;
use crate::abi::{
    Errno, Helper, MapType, REDIRECT_BROADCAST, REDIRECT_EXCLUDE_INGRESS, REDIRECT_INGRESS, Result,
    SkAction, UpdateFlags, XdpAction,
};
use crate::map::object::{Object, Socket};
use crate::map::sockmap::Sockmap;
use crate::map::{Map, Target};

/// The bits of the flags that are what is returned if nothing is found.
const ACTION_MASK: u64 = 3;

impl Prog {
    /// Where the helper that was called last sends the packet or message, if the program returns what the helper did.
    pub fn target(&self) -> Option<Target> {
        self.target.get()
    }

    /// Looks up where the packet goes: in a map of interfaces, CPUs or `AF_XDP` sockets. What the program is to return: of
    /// a key that leads nowhere, the action in the two lowest bits of `flags`.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_redirect_map")]
    pub fn redirect_map(&self, map: &Map, key: u32, flags: u64) -> XdpAction {
        self.enter(map, Helper::REDIRECT_MAP);
        let known = match map.def.map_type {
            MapType::DEVMAP | MapType::DEVMAP_HASH => REDIRECT_BROADCAST | REDIRECT_EXCLUDE_INGRESS,
            _ => 0,
        };
        if flags & !(known | ACTION_MASK) != 0 {
            return XdpAction::ABORTED;
        }
        let target = if flags & REDIRECT_BROADCAST != 0 {
            // Whatever the key, and even if the map is empty.
            Some(Target::Interfaces {
                map_id: map.id,
                exclude_ingress: flags & REDIRECT_EXCLUDE_INGRESS != 0,
            })
        } else {
            map.ops.target(&key.to_ne_bytes())
        };
        self.target.set(target);
        if target.is_some() {
            XdpAction::REDIRECT
        } else {
            XdpAction(u32::try_from(flags & ACTION_MASK).expect("two bits"))
        }
    }

    /// Sends what a socket received to the socket at an index, or with `BPF_F_INGRESS` (1) into its queue.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_sk_redirect_map")]
    pub fn sk_redirect_map(&self, map: &Map, key: u32, flags: u64) -> SkAction {
        self.enter(map, Helper::SK_REDIRECT_MAP);
        self.sk_redirect(map, &key.to_ne_bytes(), flags, |_| true)
    }

    /// As [`Prog::sk_redirect_map`], in a hash.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_sk_redirect_hash")]
    pub fn sk_redirect_hash(&self, map: &Map, key: &[u8], flags: u64) -> SkAction {
        self.enter(map, Helper::SK_REDIRECT_HASH);
        self.sk_redirect(map, key, flags, |_| true)
    }

    /// Sends a message to the socket at an index, which has to be of TCP; or with `BPF_F_INGRESS` (1) into its queue.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_msg_redirect_map")]
    pub fn msg_redirect_map(&self, map: &Map, key: u32, flags: u64) -> SkAction {
        self.enter(map, Helper::MSG_REDIRECT_MAP);
        self.msg_redirect(map, &key.to_ne_bytes(), flags)
    }

    /// As [`Prog::msg_redirect_map`], in a hash.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_msg_redirect_hash")]
    pub fn msg_redirect_hash(&self, map: &Map, key: &[u8], flags: u64) -> SkAction {
        self.enter(map, Helper::MSG_REDIRECT_HASH);
        self.msg_redirect(map, key, flags)
    }

    fn msg_redirect(&self, map: &Map, key: &[u8], flags: u64) -> SkAction {
        let to_queue = flags & REDIRECT_INGRESS != 0;
        self.sk_redirect(map, key, flags, |socket| socket.is_tcp() || to_queue)
    }

    fn sk_redirect(
        &self,
        map: &Map,
        key: &[u8],
        flags: u64,
        is_fit: impl FnOnce(Socket) -> bool,
    ) -> SkAction {
        super::key_of(map, key);
        if flags & !REDIRECT_INGRESS != 0 {
            return SkAction::DROP;
        }
        let found = map.ops.socket(key).filter(|object| {
            let socket = object.socket();
            socket.is_some_and(|socket| socket.takes_redirects() && is_fit(socket))
        });
        match found {
            Some(object) => {
                self.target.set(Some(Target::Socket(object.id)));
                SkAction::PASS
            }
            None => SkAction::DROP,
        }
    }

    /// Puts the socket that the program runs for in a map. The run has to be for a connection that is made, or a socket that
    /// begins to listen: of others the answer is `EOPNOTSUPP`.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if it is no socket for such maps; `EINVAL` for flags; `E2BIG` past the end; `EBUSY` if a reuseport array
    /// has it; `EEXIST`, `ENOENT` by the flags.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_sock_map_update")]
    pub fn sock_map_update(
        &self,
        map: &Map,
        key: u32,
        socket: &Object,
        flags: UpdateFlags,
    ) -> Result<()> {
        self.enter(map, Helper::SOCK_MAP_UPDATE);
        sock_update(map, &key.to_ne_bytes(), socket, flags)
    }

    /// As [`Prog::sock_map_update`], in a hash.
    ///
    /// # Errors
    ///
    /// As [`Prog::sock_map_update`]; `E2BIG` if it is full.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_sock_hash_update")]
    pub fn sock_hash_update(
        &self,
        map: &Map,
        key: &[u8],
        socket: &Object,
        flags: UpdateFlags,
    ) -> Result<()> {
        self.enter(map, Helper::SOCK_HASH_UPDATE);
        super::key_of(map, key);
        sock_update(map, key, socket, flags)
    }

    /// Chooses the socket that receives a packet. All sockets that share a port count as one group here. No flag is looked
    /// at.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none at that key; `EINVAL` if it shares no port.
    ///
    /// # Panics
    ///
    /// What the verifier refuses.
    #[doc(alias = "bpf_sk_select_reuseport")]
    pub fn sk_select_reuseport(&self, map: &Map, key: &[u8], _flags: u64) -> Result<()> {
        self.enter(map, Helper::SK_SELECT_REUSEPORT);
        super::key_of(map, key);
        let object = map.ops.socket(key).ok_or(Errno::ENOENT)?;
        if !object.socket().is_some_and(|socket| socket.reuseport) {
            return Err(Errno::EINVAL);
        }
        self.target.set(Some(Target::Socket(object.id)));
        Ok(())
    }
}

fn sock_update(map: &Map, key: &[u8], socket: &Object, flags: UpdateFlags) -> Result<()> {
    let Object::Other(socket) = socket else {
        return Err(Errno::EOPNOTSUPP);
    };
    let sockets: Option<&Sockmap> = map.ops.as_any().downcast_ref();
    let sockets = sockets.expect("only maps of sockets take this helper");
    sockets.update(key, socket, flags)
}
