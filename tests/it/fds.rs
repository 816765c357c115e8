//! A caller with fds of its own: [`mapemu::sys::Fds`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mapemu::abi::{
    Bpf, Cmd, Errno, Fd, MapHandle, MapRequest, Mapping, Memory, PollEvents, Result,
};
use mapemu::map::object::OtherKind;
use mapemu::sys::{Fds, Kernel, OpenFile};

/// An emulated kernel that is called with fds which are none of its own numbers. Every fact is held against it too.
#[derive(Clone, Debug)]
pub(crate) struct FrontEnd {
    pub(crate) kernel: Kernel,
    files: Arc<Mutex<BTreeMap<Fd, OpenFile>>>,
}

impl FrontEnd {
    /// The first number that it gives out.
    const FIRST: Fd = 5000;

    pub(crate) fn new() -> Self {
        let kernel = Kernel::new();
        let standard = (0..3).map(|fd| (fd, kernel.declare(OtherKind::File)));
        let files = Arc::new(Mutex::new(standard.collect()));
        Self { kernel, files }
    }
}

impl Fds for FrontEnd {
    fn get(&self, fd: Fd) -> Result<OpenFile> {
        let files = self.files.lock().expect("no panic");
        files.get(&fd).cloned().ok_or(Errno::EBADF)
    }

    fn install(&self, file: OpenFile) -> Result<Fd> {
        let mut files = self.files.lock().expect("no panic");
        let fd = (Self::FIRST..).find(|fd| !files.contains_key(fd));
        let fd = fd.ok_or(Errno::EMFILE)?;
        files.insert(fd, file);
        Ok(fd)
    }
}

impl Bpf for FrontEnd {
    fn bpf(&self, cmd: Cmd, attr: u64, size: u32, mem: &mut Memory<'_>) -> Result<u32> {
        self.kernel.bpf_in(self, cmd, attr, size, mem)
    }

    fn mmap(&self, fd: Fd, request: MapRequest) -> Result<Box<dyn Mapping>> {
        self.kernel.mmap_in(self, fd, request)
    }

    fn close(&self, fd: Fd) -> Result<()> {
        let file = self.files.lock().expect("no panic").remove(&fd);
        file.map(drop).ok_or(Errno::EBADF)
    }

    fn poll(&self, fd: Fd, timeout: Option<Duration>) -> Result<PollEvents> {
        self.get(fd)?.wait(timeout)
    }

    fn map_handle(&self, _fd: Fd) -> Option<Box<dyn MapHandle>> {
        None
    }

    fn nr_cpus(&self) -> u32 {
        self.kernel.nr_cpus()
    }

    fn on_cpu(&self, cpu: u32) -> Box<dyn Bpf> {
        let mut on = self.clone();
        on.kernel = self.kernel.on_cpu(cpu);
        Box::new(on)
    }
}

/// What a front end does with files: it maps them for real, waits for them, and hands them over.
#[cfg(target_os = "linux")]
mod files {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use mapemu::abi::{Bpf, Errno, MapRequest, MapType, PAGE_SIZE};
    use mapemu::calls;
    use mapemu::helper::Prog;
    use mapemu::map::object::OtherKind;
    use mapemu::sys::{Fds, FileKind, OpenFile};

    use super::FrontEnd;
    use crate::common::{BPF_ANY, lookup, map, small};

    const BPF_F_MMAPABLE: u32 = 1 << 10;

    /// Reads a file at an offset, as a mapping of it would show.
    fn read(file: std::os::fd::OwnedFd, offset: u64) -> [u8; 8] {
        use std::os::unix::fs::FileExt;
        let mut bytes = [0; 8];
        let file = std::fs::File::from(file);
        file.read_exact_at(&mut bytes, offset).expect("8 bytes");
        bytes
    }

    fn granted(front: &FrontEnd, fd: u32, request: MapRequest) -> mapemu::sys::Granted {
        let file = front.get(fd).expect("open");
        front
            .kernel
            .grant_mmap(&file, request)
            .expect("it can be mapped")
    }

    #[test]
    fn the_memory_of_an_array_is_a_file_sealed_at_its_size() {
        let front = FrontEnd::new();
        let fd = map(&front, MapType::ARRAY, 4, 8, 4, BPF_F_MMAPABLE);
        let mapping = granted(&front, fd, MapRequest::shared(0, PAGE_SIZE, true));
        assert_eq!(mapping.pieces(), [(PAGE_SIZE, 0)]);
        let file = std::fs::File::from(mapping.memory().expect("a file"));
        std::os::unix::fs::FileExt::write_all_at(&file, &7_u64.to_ne_bytes(), 8).expect("written");
        assert_eq!(lookup(&front, fd, 1), Ok(7));
        assert!(file.set_len(0).is_err());
        assert!(file.set_len(2 * PAGE_SIZE as u64).is_err());

        assert_eq!(calls::bpf_map_freeze(&front, fd), Err(Errno::EBUSY));
        drop(mapping);
        let reader = granted(&front, fd, MapRequest::shared(0, PAGE_SIZE, false));
        assert_eq!(calls::bpf_map_freeze(&front, fd), Ok(()));
        let file = std::fs::File::from(reader.memory().expect("a file"));
        let written = std::os::unix::fs::FileExt::write_all_at(&file, &[1], 0);
        assert!(
            written.is_err(),
            "what is to be read only cannot be written"
        );
        let open = front.get(fd).expect("open");
        let write = MapRequest::shared(0, PAGE_SIZE, true);
        assert_eq!(
            front.kernel.grant_mmap(&open, write).err(),
            Some(Errno::EPERM)
        );
    }

    #[test]
    fn the_data_of_a_ring_is_mapped_twice() {
        let front = FrontEnd::new();
        let fd = map(&front, MapType::RINGBUF, 0, 0, 8192, 0);
        let offset = PAGE_SIZE as u64;
        let all = MapRequest::shared(offset, PAGE_SIZE + 2 * 8192, false);
        let mapping = granted(&front, fd, all);
        let twice = [(PAGE_SIZE + 8192, offset), (8192, 2 * offset)];
        assert_eq!(mapping.pieces(), twice);
        let ring = front.get(fd).expect("open").object();
        let mapemu::map::object::Object::Map(ring) = ring else {
            panic!("a map");
        };
        let prog = Prog::sched_cls(0);
        assert_eq!(prog.ringbuf_output(&ring, &5_u64.to_ne_bytes(), 0), Ok(()));
        let (header, at) = (8, 2 * offset);
        let bytes = read(mapping.memory().expect("a file"), at + header);
        assert_eq!(bytes, 5_u64.to_ne_bytes());
    }

    #[test]
    fn doubled_data_is_mapped_in_one_piece() {
        let mut front = FrontEnd::new();
        front.kernel = mapemu::sys::Kernel::builder().doubled_rings(true).build();
        let fd = map(&front, MapType::RINGBUF, 0, 0, 4096, 0);
        let offset = PAGE_SIZE as u64;
        let all = MapRequest::shared(offset, PAGE_SIZE + 2 * 4096, false);
        let mapping = granted(&front, fd, all);
        assert_eq!(mapping.pieces(), [(PAGE_SIZE + 2 * 4096, offset)]);
        let mapemu::map::object::Object::Map(ring) = front.get(fd).expect("open").object() else {
            panic!("a map");
        };
        let prog = Prog::sched_cls(0);
        assert_eq!(prog.ringbuf_output(&ring, &5_u64.to_ne_bytes(), 0), Ok(()));
        for copy in [2 * offset, 3 * offset] {
            let bytes = read(mapping.memory().expect("a file"), copy + 8);
            assert_eq!(bytes, 5_u64.to_ne_bytes());
        }
    }

    #[test]
    fn who_waits_for_a_ring_is_told() {
        let front = FrontEnd::new();
        let fd = map(&front, MapType::RINGBUF, 0, 0, 4096, 0);
        let file = front.get(fd).expect("open");
        let woken = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&woken);
        let hook: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(file.on_wake(&hook), Ok(()));
        let mapemu::map::object::Object::Map(ring) = file.object() else {
            panic!("a map");
        };
        let prog = Prog::sched_cls(0);
        let output = || prog.ringbuf_output(&ring, &[1], 0);
        assert_eq!(file.poll(), Ok(0));
        assert_eq!(output(), Ok(()));
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!(output(), Ok(()));
        assert_eq!(woken.load(Ordering::Relaxed), 1, "the reader is behind");
        assert_ne!(file.poll(), Ok(0));
        drop(hook);
        assert_eq!(prog.ringbuf_output(&ring, &[1], 2), Ok(()));
        assert_eq!(woken.load(Ordering::Relaxed), 1, "nobody waits any more");
    }

    #[test]
    fn files_of_one_map_are_told_from_those_of_another() {
        let front = FrontEnd::new();
        let fd = small(&front, MapType::HASH);
        let file = front.get(fd).expect("open");
        let FileKind::Map(id) = file.kind() else {
            panic!("a map");
        };
        let again = calls::bpf_map_get_fd_by_id(&front, id).expect("alive");
        let again = front.get(again).expect("open");
        assert_eq!(again.kind(), file.kind());
        assert_ne!(again.id(), file.id());
        assert_eq!(again.map_type(), Some(MapType::HASH));
        assert_eq!(
            again.fdinfo().map(|info| info.contains("map_type:\t1\n")),
            Ok(true)
        );
        let other = front.get(small(&front, MapType::HASH)).expect("open");
        assert_ne!(other.kind(), file.kind());
    }

    #[test]
    fn what_a_front_end_declares_is_found_in_keys_and_values() {
        let front = FrontEnd::new();
        let process: OpenFile = front.kernel.declare(OtherKind::Pidfd);
        let fd = front.install(process.clone()).expect("a number");
        let outer = map(&front, MapType::HASH, 4, 8, 4, 0);
        let answer = calls::bpf_map_update_elem(&front, fd, &[0; 4], &[0; 8], BPF_ANY);
        assert_eq!(answer, Err(Errno::EINVAL), "open, and no map");
        assert_eq!(front.close(fd), Ok(()));
        let answer = calls::bpf_map_update_elem(&front, fd, &[0; 4], &[0; 8], BPF_ANY);
        assert_eq!(answer, Err(Errno::EBADF));
        assert!(
            front.kernel.map(outer).is_err(),
            "no number of the kernel's own"
        );
    }
}
