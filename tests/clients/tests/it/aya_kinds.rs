//! The kinds of maps that come from an object, by aya's types.

use std::fs::File;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;

use aya::Ebpf;
use aya::maps::{
    Array, ArrayOfMaps, CgroupArray, CgrpStorage, CpuMap, DevMap, DevMapHash, HashMap, HashOfMaps,
    InodeStorage, Map, MapData, MapError, PerCpuHashMap, PerCpuValues, ProgramArray,
    ReusePortSockArray, SkStorage, SockHash, SockMap, StackTraceMap, XskMap,
};
use aya::programs::{KProbe, Xdp};
use aya::util::nr_cpus;

use crate::aya_maps::errno;
use crate::{OBJECT, kernel};

static KINDS: &[u8] = include_bytes!("../../objects/kinds.bpf.o");

/// The map of that name, of an object that is loaded.
pub(crate) fn take<T: TryFrom<Map, Error = MapError>>(name: &str) -> T {
    let mut object = Ebpf::load(KINDS).unwrap();
    object
        .take_map(name)
        .unwrap()
        .try_into()
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn lru_hash_evicts() {
    let _kernel = kernel();
    let mut map: HashMap<MapData, u32, u64> = take("lru_hash");
    for key in 0..100 {
        map.insert(key, u64::from(key), 0).unwrap();
    }
    assert_eq!(map.get(&99, 0).unwrap(), 99);
    assert!(map.keys().count() <= 4);
    assert_eq!(errno(map.get(&0, 0)), Some(libc::ENOENT));
}

#[test]
fn lru_percpu_hash_evicts() {
    let _kernel = kernel();
    let mut map: PerCpuHashMap<MapData, u32, u64> = take("lru_percpu_hash");
    let cpus = nr_cpus().unwrap() as u64;
    for key in 0..100 {
        map.insert(
            key,
            PerCpuValues::try_from((0..cpus).collect::<Vec<_>>()).unwrap(),
            0,
        )
        .unwrap();
    }
    assert_eq!(
        map.get(&99, 0).unwrap().iter().sum::<u64>(),
        cpus * (cpus - 1) / 2
    );
}

#[test]
fn array_of_programs() {
    let kernel = kernel();
    let mut object = aya::EbpfLoader::new()
        .default_map_pin_directory(kernel.pin_dir().unwrap())
        .load(OBJECT)
        .unwrap();
    let count: &mut Xdp = object.program_mut("count").unwrap().try_into().unwrap();
    count.load().unwrap();
    let mut map: ProgramArray<MapData> = take("prog_array");
    map.set(1, count.fd().unwrap(), 0).unwrap();
    assert_eq!(
        errno(map.set(4, count.fd().unwrap(), 0)),
        None,
        "judged by aya"
    );
    map.clear_index(&1).unwrap();
    assert_eq!(errno(map.clear_index(&1)), Some(libc::ENOENT));
}

#[test]
fn array_of_cgroups() {
    let kernel = kernel();
    let mut map: CgroupArray<MapData> = take("cgroup_array");
    let cgroup = File::open(kernel.cgroup_dir().unwrap()).unwrap();
    map.set(0, cgroup.as_raw_fd(), 0).unwrap();
    assert_eq!(
        errno(map.set(0, File::open("/").unwrap(), 0)),
        Some(libc::EBADF)
    );
    map.unset(0).unwrap();
    assert_eq!(errno(map.unset(0)), Some(libc::ENOENT));
}

#[test]
fn stack_traces_are_empty() {
    let _kernel = kernel();
    let map: StackTraceMap<MapData> = take("stack_trace");
    assert_eq!(map.stack_ids().count(), 0);
    assert_eq!(errno(map.get(&1, 0)), Some(libc::ENOENT));
}

#[test]
fn maps_of_devices() {
    let _kernel = kernel();
    let mut map: DevMap<MapData> = take("devmap");
    map.set(1, 1, None, 0).unwrap();
    assert_eq!(map.get(1, 0).unwrap().if_index, 1);
    assert_eq!(map.iter().filter_map(Result::ok).count(), 1);
    assert!(map.set(1, 9999, None, 0).is_err(), "no such device");
    let mut map: DevMapHash<MapData> = take("devmap_hash");
    map.insert(77, 1, None, 0).unwrap();
    assert_eq!(map.get(77, 0).unwrap().if_index, 1);
    map.remove(77).unwrap();
    assert_eq!(errno(map.get(77, 0)), Some(libc::ENOENT));
}

#[test]
fn map_of_cpus() {
    let _kernel = kernel();
    let mut map: CpuMap<MapData> = take("cpumap");
    map.set(0, 128, None, 0).unwrap();
    assert_eq!(map.get(0, 0).unwrap().queue_size, 128);
    assert!(map.set(0, 1 << 20, None, 0).is_err(), "too long a queue");
}

#[test]
fn map_of_xdp_sockets_takes_no_others() {
    let _kernel = kernel();
    let mut map: XskMap<MapData> = take("xskmap");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(errno(map.set(0, socket, 0)), Some(libc::EOPNOTSUPP));
    assert_eq!(
        errno(map.unset(0)),
        Some(libc::EINVAL).filter(|_| false),
        "unset of an empty place"
    );
}

/// Two ends of a connection.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn sockets_leave_maps_when_they_are_closed() {
    let _kernel = kernel();
    let mut map: SockMap<MapData> = take("sockmap");
    let (client, server) = connection();
    map.set(0, &client, 0).unwrap();
    map.set(1, &server, 0).unwrap();
    assert_eq!(
        errno(map.set(0, &client, 1)),
        Some(libc::EEXIST),
        "BPF_NOEXIST"
    );
    assert_eq!(
        errno(map.set(2, &File::open("/").unwrap(), 0)),
        Some(libc::ENOTSOCK)
    );
    let again = client.try_clone().unwrap();
    drop(client);
    map.clear_index(&1).unwrap();
    assert_eq!(errno(map.clear_index(&1)), Some(libc::EINVAL));
    drop(again);
    assert_eq!(
        errno(map.clear_index(&0)),
        Some(libc::EINVAL),
        "it went with its last fd"
    );
    let (_client, server) = connection();
    let mut map: SockHash<MapData, u32> = take("sockhash");
    map.insert(7, server.as_raw_fd(), 0).unwrap();
    map.remove(&7).unwrap();
    assert_eq!(errno(map.remove(&7)), Some(libc::ENOENT));
}

#[test]
fn sockets_have_storage() {
    let _kernel = kernel();
    let mut map: SkStorage<MapData, u64> = take("sk_storage");
    let (client, server) = connection();
    map.insert(&client, 5, 0).unwrap();
    assert_eq!(map.get(&client, 0).unwrap(), 5);
    assert_eq!(errno(map.get(&server, 0)), Some(libc::ENOENT));
    map.remove(&client).unwrap();
    assert_eq!(errno(map.remove(&client)), Some(libc::ENOENT));
}

#[test]
fn files_and_cgroups_have_storage() {
    let kernel = kernel();
    let mut map: InodeStorage<MapData, u64> = take("inode_storage");
    let dir = std::env::temp_dir();
    map.insert(&File::open(&dir).unwrap(), 7, 0).unwrap();
    assert_eq!(
        map.get(&File::open(&dir).unwrap(), 0).unwrap(),
        7,
        "the same inode"
    );
    assert_eq!(
        errno(map.get(&File::open("/").unwrap(), 0)),
        Some(libc::ENOENT)
    );
    map.remove(&File::open(&dir).unwrap()).unwrap();
    let mut map: CgrpStorage<MapData, u64> = take("cgrp_storage");
    let cgroup = File::open(kernel.cgroup_dir().unwrap()).unwrap();
    map.insert(&cgroup, 9, 0).unwrap();
    assert_eq!(map.get(&cgroup, 0).unwrap(), 9);
    assert_eq!(
        errno(map.get(&File::open("/").unwrap(), 0)),
        Some(libc::EBADF)
    );
}

#[test]
fn probe_of_the_kernel_is_refused() {
    let kernel = kernel();
    if kernel.kernel().is_none() {
        return;
    }
    let mut object = Ebpf::load(KINDS).unwrap();
    let probe: &mut KProbe = object.program_mut("on_sleep").unwrap().try_into().unwrap();
    probe.load().unwrap();
    assert!(probe.attach("do_nanosleep", 0).is_err());
}

#[test]
fn array_of_sockets_that_share_a_port() {
    let _kernel = kernel();
    let mut map: ReusePortSockArray<MapData> = take("reuseport");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(
        errno(map.set(0, &socket, 0)),
        Some(libc::EINVAL),
        "bound without SO_REUSEPORT"
    );
    assert_eq!(errno(map.clear_index(&0)), Some(libc::ENOENT));
}

#[test]
fn maps_of_maps() {
    let _kernel = kernel();
    let mut inner = Array::<MapData, u64>::create(2, 0).unwrap();
    inner.set(1, 11, 0).unwrap();
    let mut outer: ArrayOfMaps<MapData, Array<MapData, u64>> = take("array_of_maps");
    outer.set(0, &inner, 0).unwrap();
    assert_eq!(outer.get(&0, 0).unwrap().get(&1, 0).unwrap(), 11);
    assert_eq!(errno(outer.get(&1, 0)), Some(libc::ENOENT));
    let mut outer: HashOfMaps<MapData, u32, Array<MapData, u64>> = take("hash_of_maps");
    outer.insert(5, &inner, 0).unwrap();
    assert_eq!(outer.get(&5, 0).unwrap().get(&1, 0).unwrap(), 11);
    outer.remove(&5).unwrap();
    assert_eq!(outer.keys().count(), 0);
    let other = Array::<MapData, u64>::create(3, 0).unwrap();
    assert_eq!(
        errno(outer.insert(5, &other, 0)),
        Some(libc::EINVAL),
        "another size"
    );
}
