//! What the process sees besides bpf(2): numbers of fds, threads, files that the kernel has.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;

use aya::maps::{Array, HashMap, Map, MapData};
use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};
use mapemu::Kernel;
use mapemu::interpose::{install, is_off};

use crate::kernel;

/// A map of one element, `0: 0`.
pub(crate) fn map() -> MapHandle {
    let opts = bpf_map_create_opts {
        sz: size_of::<bpf_map_create_opts>() as libbpf_rs::libbpf_sys::size_t,
        ..Default::default()
    };
    MapHandle::create(MapType::Array, Some("one"), 4, 4, 1, &opts).unwrap()
}

pub(crate) fn set(map: &MapHandle, value: u32) {
    map.update(&[0; 4], &value.to_ne_bytes(), MapFlags::ANY)
        .unwrap();
}

pub(crate) fn get(map: &MapHandle) -> u32 {
    let value = map.lookup(&[0; 4], MapFlags::ANY).unwrap().unwrap();
    u32::from_ne_bytes(value.try_into().unwrap())
}

/// A map by another fd of it.
fn by(fd: OwnedFd) -> Array<MapData, u32> {
    let data = MapData::from_fd(fd).unwrap();
    Array::try_from(Map::from_map_data(data).unwrap()).unwrap()
}

#[test]
fn hooks_are_active() {
    mapemu::interpose::assert_active();
}

#[test]
fn memlock_may_be_raised() {
    let kernel = kernel();
    let unlimited = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: it is a limit.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
    // A sandbox may forbid it to root.
    assert!(set == 0 || kernel.kernel().is_none());
}

#[test]
fn map_is_known_by_all_its_numbers() {
    let _kernel = kernel();
    let map = map();
    set(&map, 1);
    let dup = map.as_fd().try_clone_to_owned().unwrap();
    assert_eq!(by(dup).get(&0, 0).unwrap(), 1);
    // SAFETY: numbers of fds; the second is nobody's yet.
    let high = unsafe { libc::fcntl(map.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, 500) };
    assert!(high >= 500);
    // SAFETY: it was just made.
    let high: OwnedFd = unsafe { std::os::fd::FromRawFd::from_raw_fd(high) };
    // Another file's number becomes the map's, and then that of another map.
    let file = OwnedFd::from(fs::File::open("/dev/null").unwrap());
    // SAFETY: both are open.
    assert!(unsafe { libc::dup2(high.as_raw_fd(), file.as_raw_fd()) } >= 0);
    let mut again = by(file.try_clone().unwrap());
    again.set(0, 2, 0).unwrap();
    assert_eq!(get(&map), 2);
    let other = self::map();
    // SAFETY: both are open.
    assert!(
        unsafe { libc::dup3(other.as_fd().as_raw_fd(), file.as_raw_fd(), libc::O_CLOEXEC) } >= 0
    );
    by(file).set(0, 3, 0).unwrap();
    assert_eq!((get(&map), get(&other)), (2, 3));
}

#[test]
fn number_that_is_used_again_is_no_map() {
    let _kernel = kernel();
    for _ in 0..50 {
        let made = map();
        set(&made, 1);
        drop(made);
        let file = fs::File::open("/dev/null").unwrap();
        assert!(MapData::from_fd(file.into()).is_err());
    }
}

#[test]
fn links_and_fdinfo_are_those_of_maps() {
    let _kernel = kernel();
    let map = map();
    let fd = map.as_fd().as_raw_fd();
    let link = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    assert_eq!(link.to_str(), Some("anon_inode:bpf-map"));
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let lines: Vec<&str> = told
        .lines()
        .filter(|line| {
            !line.starts_with("map_id")
                && !line.starts_with("ino")
                && !line.starts_with("mnt_id")
                && !line.starts_with("memlock")
        })
        .collect();
    let expected = "pos:\t0\nflags:\t02000002\nmap_type:\t2\nkey_size:\t4\nvalue_size:\t4\nmax_entries:\t1\nmap_flags:\t0x0\nmap_extra:\t0x0\nfrozen:\t0";
    assert_eq!(lines.join("\n"), expected);
}

#[test]
fn threads_before_and_after_have_the_kernel() {
    let (go, wait) = mpsc::channel();
    let before = thread::spawn(move || {
        wait.recv().unwrap();
        HashMap::<MapData, u32, u32>::create(1, 0)
            .map(|_| ())
            .is_ok()
    });
    let _kernel = kernel();
    go.send(()).unwrap();
    assert!(before.join().unwrap());
    let after = thread::spawn(|| thread::spawn(|| get(&map())).join().unwrap());
    assert_eq!(after.join().unwrap(), 0);
}

#[test]
fn kernels_know_nothing_of_each_other() {
    if is_off() {
        return;
    }
    let first = install(Kernel::new());
    let map = map();
    let id = map.info().unwrap().info.id;
    let there = thread::spawn(move || {
        let _second = install(Kernel::new());
        assert!(MapHandle::from_map_id(id).is_err(), "it has no map");
        // An fd is that of its kernel, wherever it is used.
        set(&map, 7);
        get(&map)
    });
    assert_eq!(there.join().unwrap(), 7);
    let nested = install(Kernel::new());
    assert!(MapHandle::from_map_id(id).is_err());
    drop(nested);
    let kept = self::map();
    drop(first);
    set(&kept, 9);
    assert_eq!(get(&kept), 9, "an fd outlives the guard");
}

#[test]
fn child_does_not_share_the_maps() {
    if is_off() {
        return;
    }
    let _kernel = kernel();
    let map = map();
    // SAFETY: the child does nothing but two calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut value = [0_u8; 4];
        let key = [0_u8; 4];
        let mut attr = [0_u64; 4];
        attr[0] = map.as_fd().as_raw_fd() as u64;
        attr[1] = key.as_ptr().expose_provenance() as u64;
        attr[2] = value.as_mut_ptr().expose_provenance() as u64;
        // SAFETY: the attr is one of BPF_MAP_LOOKUP_ELEM.
        let ret = unsafe { libc::syscall(libc::SYS_bpf, 1, attr.as_ptr(), 32) };
        // SAFETY: it ends this child.
        unsafe { libc::_exit(i32::from(ret == 0)) };
    }
    let mut status = 0;
    // SAFETY: it is a child of this process.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 0, "refused");
    set(&map, 1);
}

#[test]
fn bad_addresses_are_efault() {
    let _kernel = kernel();
    let map = map();
    for (key, errno) in [
        (0_u64, libc::EFAULT),
        (16, libc::EFAULT),
        (u64::MAX, libc::EFAULT),
    ] {
        let mut value = [0_u8; 4];
        let attr = [
            map.as_fd().as_raw_fd() as u64,
            key,
            value.as_mut_ptr().expose_provenance() as u64,
            0,
        ];
        // SAFETY: the attr is one of BPF_MAP_LOOKUP_ELEM; its addresses are those of no memory, or of `value`.
        let ret = unsafe { libc::syscall(libc::SYS_bpf, 1, attr.as_ptr(), 32) };
        assert_eq!(
            (ret, std::io::Error::last_os_error().raw_os_error()),
            (-1, Some(errno)),
            "{key:#x}"
        );
    }
}

#[test]
fn pages_of_an_arena_are_memory() {
    const ARENA: u32 = 33;
    const MMAPABLE: u32 = 1 << 10;
    let _kernel = kernel();
    let mut attr = [0_u32; 16];
    attr[..5].copy_from_slice(&[ARENA, 0, 0, 4, MMAPABLE]);
    // SAFETY: the attr is one of BPF_MAP_CREATE.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, 0, attr.as_ptr(), 64) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: it was just made.
    let fd: OwnedFd = unsafe { std::os::fd::FromRawFd::from_raw_fd(fd as i32) };
    let len = 4 * 4096;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, at no address that anybody has.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            prot,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            0,
        )
    };
    assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    // SAFETY: it has so many bytes.
    let pages = unsafe { std::slice::from_raw_parts_mut(at.cast::<u8>(), len) };
    assert!(pages.iter().all(|&byte| byte == 0));
    pages[len - 1] = 7;
    // SAFETY: nobody uses it any more.
    assert_eq!(unsafe { libc::munmap(at, len) }, 0);
}

/// An array of 1024 values of 8 bytes that can be mapped.
fn mmapable(name: &str) -> MapHandle {
    const MMAPABLE: u32 = 1 << 10;
    let opts = bpf_map_create_opts {
        sz: size_of::<bpf_map_create_opts>() as libbpf_rs::libbpf_sys::size_t,
        map_flags: MMAPABLE,
        ..Default::default()
    };
    MapHandle::create(MapType::Array, Some(name), 4, 8, 1024, &opts).unwrap()
}

#[test]
fn mapping_keeps_the_map_and_makes_freezing_busy() {
    let _kernel = kernel();
    let map = mmapable("mapped");
    let fd = map.as_fd().as_raw_fd();
    let mapped = |prot: i32, len: usize, offset: i64| {
        // SAFETY: a new mapping, at no address that anybody has.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                prot,
                libc::MAP_SHARED,
                fd,
                offset,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().raw_os_error());
        }
        Ok(at)
    };
    let write = libc::PROT_READ | libc::PROT_WRITE;
    assert_eq!(
        mapped(write, 8192, 4096).err(),
        Some(Some(libc::EINVAL)),
        "past the end"
    );
    let at = mapped(write, 8192, 0).unwrap();
    // SAFETY: it has so many bytes, and others only use it by calls.
    unsafe { at.cast::<u64>().add(5).write_volatile(55) };
    let value = map
        .lookup(&5_u32.to_ne_bytes(), MapFlags::ANY)
        .unwrap()
        .unwrap();
    assert_eq!(value, 55_u64.to_ne_bytes());
    map.update(&6_u32.to_ne_bytes(), &66_u64.to_ne_bytes(), MapFlags::ANY)
        .unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { at.cast::<u64>().add(6).read_volatile() }, 66);
    let frozen = map.freeze().map_err(|error| error.to_string());
    assert!(frozen.unwrap_err().contains("busy"), "it can be written");
    // One half of it goes, then the other.
    // SAFETY: nobody uses it any more, here and below.
    assert_eq!(unsafe { libc::munmap(at, 4096) }, 0);
    assert!(map.freeze().is_err(), "half of it can be written yet");
    // SAFETY: as above.
    assert_eq!(unsafe { libc::munmap(at.byte_add(4096), 4096) }, 0);
    map.freeze().unwrap();
    assert_eq!(
        mapped(write, 8192, 0).err(),
        Some(Some(libc::EPERM)),
        "it is frozen"
    );
    let at = mapped(libc::PROT_READ, 8192, 0).unwrap();
    // SAFETY: it is a mapping; the second call is refused.
    assert_eq!(unsafe { libc::mprotect(at, 8192, write) }, -1);
    let id = map.info().unwrap().info.id;
    drop(map);
    assert!(MapHandle::from_map_id(id).is_ok(), "the mapping holds it");
    // SAFETY: as above.
    assert_eq!(unsafe { libc::munmap(at, 8192) }, 0);
}

#[test]
fn processes_have_storage() {
    const NO_PREALLOC: u32 = 1;
    let kernel = kernel();
    // Types of key and value: a process is told by an int, and has an int.
    let btf = btf_of_int();
    let opts = bpf_map_create_opts {
        sz: size_of::<bpf_map_create_opts>() as libbpf_rs::libbpf_sys::size_t,
        map_flags: NO_PREALLOC,
        btf_fd: btf.as_raw_fd() as u32,
        btf_key_type_id: 1,
        btf_value_type_id: 1,
        ..Default::default()
    };
    let map = MapHandle::create(MapType::TaskStorage, Some("tasks"), 4, 4, 0, &opts).unwrap();
    let pidfd = || {
        // SAFETY: it takes numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
        // SAFETY: it was just made.
        unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd as i32) }
    };
    let (this, again) = (pidfd(), pidfd());
    let key = |fd: &OwnedFd| fd.as_raw_fd().to_ne_bytes();
    map.update(&key(&this), &[5; 4], MapFlags::ANY).unwrap();
    assert_eq!(
        map.lookup(&key(&again), MapFlags::ANY).unwrap(),
        Some(vec![5; 4])
    );
    map.delete(&key(&again)).unwrap();
    assert_eq!(map.lookup(&key(&this), MapFlags::ANY).unwrap(), None);
    drop(kernel);
}

/// BTF with one type: `int`.
fn btf_of_int() -> OwnedFd {
    let strings = b"\0int\0";
    let types = [1_u32, 1 << 24, 4, 1 << 24 | 32];
    let header = [0x1_eb9f_u32, 24, 0, 16, 16, strings.len() as u32];
    let mut bytes: Vec<u8> = header
        .iter()
        .chain(&types)
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    bytes.extend(strings);
    let mut attr = [0_u64; 5];
    attr[0] = bytes.as_ptr().expose_provenance() as u64;
    attr[2] = bytes.len() as u64;
    // SAFETY: the attr is one of BPF_BTF_LOAD.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, 18, attr.as_ptr(), 40) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: it was just made.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(fd as i32) }
}

#[test]
fn threads_make_and_close_maps_at_once() {
    let _kernel = kernel();
    let shared = map();
    thread::scope(|scope| {
        for me in 0..4_u32 {
            let shared = &shared;
            scope.spawn(move || {
                for round in 0..200 {
                    let own = map();
                    set(&own, me);
                    let dup = MapHandle::try_from(&own).unwrap();
                    drop(own);
                    set(shared, round);
                    assert_eq!(get(&dup), me);
                }
            });
        }
    });
    assert_eq!(get(&shared), 199);
}

#[test]
fn perf_events_that_are_none_of_ours_are_the_systems() {
    let _kernel = kernel();
    let opened = |perf_type: u32, config: u64| {
        let mut attr = [0_u64; 16];
        attr[0] = u64::from(perf_type) | 128 << 32;
        attr[1] = config;
        // Not in the kernel, not in a hypervisor.
        attr[5] = 1 << 5 | 1 << 6;
        // SAFETY: the attr is one of perf_event_open(2).
        let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), 0, -1, -1, 0) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap());
        }
        // SAFETY: it was just made.
        Ok(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd as i32) })
    };
    let (no_such_type, task_clock) = (opened(4242, 0), opened(1, 1));
    let refused = |answer: &Result<OwnedFd, i32>| matches!(answer, Err(libc::EACCES));
    assert!(no_such_type.as_ref().err() == Some(&libc::ENOENT) || refused(&no_such_type));
    assert!(task_clock.is_ok() || refused(&task_clock));
}

#[test]
fn mapping_that_is_moved_is_the_maps_yet() {
    let _kernel = kernel();
    let map = mmapable("moved");
    let (fd, none) = (map.as_fd().as_raw_fd(), std::ptr::null_mut());
    let write = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, at no address that anybody has.
    let at = unsafe { libc::mmap(none, 8192, write, libc::MAP_SHARED, fd, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    // SAFETY: nobody has an address in it, here and below.
    let grown = unsafe { libc::mremap(at, 4096, 8192, libc::MREMAP_MAYMOVE) };
    let errno = std::io::Error::last_os_error().raw_os_error();
    assert_eq!((grown, errno), (libc::MAP_FAILED, Some(libc::EFAULT)));
    // SAFETY: as above.
    assert_eq!(unsafe { libc::mremap(at, 8192, 4096, 0) }, at);
    // SAFETY: a new mapping, to be replaced.
    let to = unsafe {
        let nothing = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(none, 4096, libc::PROT_NONE, nothing, -1, 0)
    };
    let moving = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: as above.
    assert_eq!(unsafe { libc::mremap(at, 4096, 4096, moving, to) }, to);
    assert!(map.freeze().is_err(), "it can be written yet");
    // SAFETY: as above.
    assert_eq!(unsafe { libc::munmap(to, 4096) }, 0);
    map.freeze().unwrap();
}

#[test]
fn directories_of_pins_are_made_and_removed() {
    let kernel = kernel();
    let dir = std::path::PathBuf::from(format!("/sys/fs/bpf/dir_{}", std::process::id()));
    let pin = dir.join("pin");
    let errno = |result: std::io::Result<()>| result.unwrap_err().raw_os_error();
    fs::create_dir(&dir).unwrap();
    assert_eq!(errno(fs::create_dir(&dir)), Some(libc::EEXIST));
    let mut map = map();
    map.pin(&pin).unwrap();
    assert_eq!(errno(fs::remove_dir(&dir)), Some(libc::ENOTEMPTY));
    assert_eq!(errno(fs::remove_dir(&pin)), Some(libc::ENOTDIR));
    assert_eq!(errno(fs::remove_file(&dir)), Some(libc::EISDIR));
    let (moved, other) = (dir.join("moved"), dir.join("other"));
    fs::rename(&pin, &moved).unwrap();
    assert_eq!(errno(fs::rename(&pin, &moved)), Some(libc::ENOENT));
    assert_eq!(
        errno(fs::rename(&moved, dir.join("a.b"))),
        Some(libc::EPERM)
    );
    assert_eq!(
        errno(fs::rename(&dir, dir.join("within"))),
        Some(libc::EINVAL)
    );
    fs::create_dir(&other).unwrap();
    assert_eq!(errno(fs::rename(&moved, &other)), Some(libc::EISDIR));
    assert_eq!(errno(fs::rename(&other, &moved)), Some(libc::ENOTDIR));
    fs::remove_dir(&other).unwrap();
    assert!(MapHandle::from_pinned_path(&moved).is_ok());
    fs::remove_file(&moved).unwrap();
    fs::remove_dir(&dir).unwrap();
    assert_eq!(errno(fs::remove_dir(&dir)), Some(libc::ENOENT));
    drop(kernel);
}

#[test]
fn pin_is_where_its_file_is() {
    let kernel = kernel();
    let dir = kernel.pin_dir().unwrap();
    let names = ["pin", "moved", "below/again"].map(|name| dir.join(name));
    let [pin, moved, again] = &names;
    let mut map = map();
    map.pin(pin).unwrap();
    fs::rename(pin, moved).unwrap();
    assert!(MapHandle::from_pinned_path(pin).is_err());
    assert!(MapHandle::from_pinned_path(moved).is_ok());
    let mut other = self::map();
    other.pin(pin).unwrap();
    fs::create_dir(dir.join("below")).unwrap();
    fs::rename(moved, again).unwrap();
    set(&map, 7);
    let found = |path| get(&MapHandle::from_pinned_path(path).unwrap());
    assert_eq!((found(again), found(pin)), (7, 0));
    fs::rename(again, pin).unwrap();
    assert_eq!(found(pin), 7, "it replaces the other");
    fs::remove_file(pin).unwrap();
    assert!(MapHandle::from_pinned_path(pin).is_err());
}
