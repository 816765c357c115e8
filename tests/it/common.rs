//! What all facts need.

use mapemu::abi::{Bpf, Cmd, Fd, MapType, Memory, Result};
use mapemu::calls::{self, CreateOpts, bpf_map_create};
use mapemu::sys::Kernel;

/// Holds a fact against every kernel there is: the emulated one, called with its own fds and with others, and, where that may be used, the running one.
#[track_caller]
pub(crate) fn on_both(fact: fn(&dyn Bpf)) {
    fact(&Kernel::new());
    fact(&crate::fds::FrontEnd::new());
    if let Some(host) = running_kernel() {
        fact(&*host);
    }
}

/// Holds answers, with the names of the questions, against those of the running kernel.
#[track_caller]
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(answers: impl Fn(&dyn Bpf) -> Vec<(String, T)>) {
    let Some(host) = running_kernel() else {
        return;
    };
    let expected = answers(&*host);
    for bpf in [&Kernel::new() as &dyn Bpf, &crate::fds::FrontEnd::new()] {
        let wrong: Vec<_> = answers(bpf)
            .into_iter()
            .zip(&expected)
            .filter(|(own, expected)| own != *expected)
            .map(|(own, expected)| format!("{}: {:?}, not {:?}", own.0, own.1, expected.1))
            .collect();
        assert!(
            wrong.is_empty(),
            "{} differ:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }
}

/// The running kernel. Where it cannot be used this says so, or fails if it has to be there (`MAPEMU_REQUIRE_HOST=1`).
#[track_caller]
pub(crate) fn running_kernel() -> Option<Box<dyn Bpf>> {
    match host() {
        Ok(host) => Some(host),
        Err(why) => {
            let required =
                std::env::var_os("MAPEMU_REQUIRE_HOST").is_some_and(|value| value == "1");
            assert!(!required, "{why}");
            let thread = std::thread::current();
            eprintln!(
                "skipped on the running kernel: {}: {why}",
                thread.name().unwrap_or_default()
            );
            None
        }
    }
}

#[cfg(all(feature = "host", target_os = "linux"))]
fn host() -> Result<Box<dyn Bpf>, String> {
    match mapemu::host::Host::new() {
        Ok(host) => Ok(Box::new(host)),
        Err(unavailable) => Err(unavailable.to_string()),
    }
}

#[cfg(not(all(feature = "host", target_os = "linux")))]
fn host() -> Result<Box<dyn Bpf>, String> {
    Err("built without the feature `host`".to_owned())
}

/// A map without a name.
#[track_caller]
pub(crate) fn map(
    bpf: &dyn Bpf,
    map_type: MapType,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
) -> Fd {
    let opts = CreateOpts {
        map_flags,
        ..CreateOpts::default()
    };
    bpf_map_create(bpf, map_type, "", key_size, value_size, max_entries, &opts).expect("a map")
}

/// Flags of maps.
pub(crate) const BPF_F_RDONLY: u32 = 1 << 3;
pub(crate) const BPF_F_WRONLY: u32 = 1 << 4;
/// Flags of one call.
pub(crate) const BPF_ANY: u64 = 0;
pub(crate) const BPF_NOEXIST: u64 = 1;
pub(crate) const BPF_EXIST: u64 = 2;
pub(crate) const BPF_F_LOCK: u64 = 4;
/// A number that is not open.
pub(crate) const NOT_OPEN: Fd = 100;

/// A map of that type with those flags; keys of 4 bytes, values of 8, at most 4 elements.
#[track_caller]
pub(crate) fn small_with_flags(bpf: &dyn Bpf, map_type: MapType, map_flags: u32) -> Fd {
    map(bpf, map_type, 4, 8, 4, map_flags)
}

/// As [`small_with_flags`], without flags.
#[track_caller]
pub(crate) fn small(bpf: &dyn Bpf, map_type: MapType) -> Fd {
    small_with_flags(bpf, map_type, 0)
}

/// A queue of 4 values of 8 bytes.
#[track_caller]
pub(crate) fn queue(bpf: &dyn Bpf) -> Fd {
    map(bpf, MapType::QUEUE, 0, 8, 4, 0)
}

/// Makes or changes an element.
pub(crate) fn update(bpf: &dyn Bpf, fd: Fd, key: u32, value: u64, flags: u64) -> Result<()> {
    calls::bpf_map_update_elem(bpf, fd, &key.to_ne_bytes(), &value.to_ne_bytes(), flags)
}

/// The value of a key.
pub(crate) fn lookup(bpf: &dyn Bpf, fd: Fd, key: u32) -> Result<u64> {
    let mut value = [0; 8];
    calls::bpf_map_lookup_elem(bpf, fd, &key.to_ne_bytes(), &mut value)?;
    Ok(u64::from_ne_bytes(value))
}

/// Removes an element.
pub(crate) fn delete(bpf: &dyn Bpf, fd: Fd, key: u32) -> Result<()> {
    calls::bpf_map_delete_elem(bpf, fd, &key.to_ne_bytes())
}

/// All keys of 4 bytes, in the order of the map.
#[track_caller]
pub(crate) fn keys(bpf: &dyn Bpf, fd: Fd) -> Vec<u32> {
    let (mut keys, mut next) = (Vec::new(), [0; 4]);
    let mut answer = calls::bpf_map_get_next_key(bpf, fd, None, &mut next);
    while answer.is_ok() {
        let key = next;
        keys.push(u32::from_ne_bytes(key));
        answer = calls::bpf_map_get_next_key(bpf, fd, Some(&key), &mut next);
    }
    assert_eq!(answer, Err(mapemu::abi::Errno::ENOENT));
    keys
}

/// The address of something in an attr.
pub(crate) enum Pointer {
    /// Nothing is there.
    Bad,
    Null,
    /// So many bytes to read and write.
    To(usize),
}

/// An element command with any pointers.
pub(crate) fn elem(
    bpf: &dyn Bpf,
    cmd: Cmd,
    fd: Fd,
    key: &Pointer,
    value: &Pointer,
    flags: u64,
) -> Result<u32> {
    let (mut key_bytes, mut value_bytes) = ([0; 64], [0; 64]);
    let mut mem = Memory::new();
    let key = match key {
        Pointer::To(len) => mem.output(&mut key_bytes[..*len]),
        Pointer::Bad => 1,
        Pointer::Null => 0,
    };
    let value = match value {
        Pointer::To(len) => mem.output(&mut value_bytes[..*len]),
        Pointer::Bad => 1,
        Pointer::Null => 0,
    };
    let mut attr = [0; 32];
    attr[..4].copy_from_slice(&fd.to_ne_bytes());
    attr[8..16].copy_from_slice(&key.to_ne_bytes());
    attr[16..24].copy_from_slice(&value.to_ne_bytes());
    attr[24..].copy_from_slice(&flags.to_ne_bytes());
    let end = if cmd == Cmd::MAP_DELETE_ELEM { 16 } else { 32 };
    let addr = mem.output(&mut attr[..end]);
    bpf.bpf(cmd, addr, u32::try_from(end).expect("small"), &mut mem)
}

/// A call with an attr of those bytes.
pub(crate) fn raw(bpf: &dyn Bpf, cmd: Cmd, attr: &mut [u8], size: u32) -> Result<u32> {
    let mut mem = Memory::new();
    let addr = mem.output(attr);
    bpf.bpf(cmd, addr, size, &mut mem)
}
