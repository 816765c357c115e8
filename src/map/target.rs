//! Where programs send packets and messages.

/// What a helper found in a map of interfaces, CPUs or sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// That network interface.
    Interface(u32),
    /// All network interfaces of a map.
    Interfaces {
        /// The map.
        map_id: u32,
        /// But not the one that the packet came from.
        exclude_ingress: bool,
    },
    /// That CPU.
    Cpu(u32),
    /// A socket, by the number of its [`OtherObject`](super::object::OtherObject).
    Socket(u64),
}
