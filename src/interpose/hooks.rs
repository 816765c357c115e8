//! The C library's functions that are ours. Each looks whether the call is for an emulated file, and is the system call if not;
//! on that way nothing is allocated or locked.
//!
//! The linker takes them for the C library's because it sees them first. What is variadic there has all its arguments here:
//! on Linux they are passed in the same places.

#![expect(unsafe_code, reason = "functions of the C library")]

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::memory::ProcessMem;
use super::raw::{answer, as_int, raw, returned, returned_int};
use super::threads::Thread;
use super::{caller, files, mapping, perf, process, sockets, table, threads, wait};
use crate::abi::Cmd;

/// syscall(3): aya and libbpf call bpf(2) and perf_event_open(2) by it.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    let args = [a, b, c, d, e, f];
    match number {
        libc::SYS_bpf => {
            let cmd = Cmd(as_int(a).cast_unsigned());
            let size = as_int(c).cast_unsigned();
            // SAFETY: the caller's promise.
            if let Some(result) = unsafe { caller::bpf(cmd, b.cast_unsigned(), size) } {
                return answer(result);
            }
        }
        // SAFETY: the caller's promise.
        libc::SYS_close => return c_long::from(unsafe { close(as_int(a)) }),
        // SAFETY: the caller's promise.
        libc::SYS_dup3 => return c_long::from(unsafe { dup3(as_int(a), as_int(b), as_int(c)) }),
        libc::SYS_close_range => {
            let (first, last) = (as_int(a).cast_unsigned(), as_int(b).cast_unsigned());
            // SAFETY: the caller's promise.
            return c_long::from(unsafe { close_range(first, last, as_int(c)) });
        }
        // SAFETY: the caller's promise.
        libc::SYS_ioctl => return c_long::from(unsafe { ioctl(as_int(a), b.cast_unsigned(), c) }),
        libc::SYS_perf_event_open => {
            // SAFETY: the caller's promise.
            let mem = unsafe { ProcessMem::new() };
            if let Some(result) = perf::open(a.cast_unsigned(), as_int(b), as_int(c), &mem) {
                return answer(result);
            }
        }
        _ => {}
    }
    // SAFETY: the caller's promise.
    returned(unsafe { raw(number, args) })
}

/// close(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn close(fd: c_int) -> c_int {
    let entry = if table::has(fd) {
        table::forget(fd)
    } else {
        None
    };
    let socket = if sockets::may_be_known(fd) {
        sockets::before_close(fd)
    } else {
        None
    };
    // SAFETY: the caller's promise.
    let ret = unsafe { raw(libc::SYS_close, [fd.into(), 0, 0, 0, 0, 0]) };
    entry.into_iter().for_each(table::settle);
    socket.into_iter().for_each(sockets::after_close);
    returned_int(ret)
}

/// dup2(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    if old == new {
        // SAFETY: the caller's promise.
        let ret = unsafe {
            raw(
                libc::SYS_fcntl,
                [old.into(), libc::F_GETFD.into(), 0, 0, 0, 0],
            )
        };
        return if ret < 0 { returned_int(ret) } else { new };
    }
    // SAFETY: the caller's promise.
    unsafe { dup3(old, new, 0) }
}

/// dup3(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    let entry = if table::has(new) {
        table::forget(new)
    } else {
        None
    };
    // SAFETY: the caller's promise.
    let ret = unsafe {
        raw(
            libc::SYS_dup3,
            [old.into(), new.into(), flags.into(), 0, 0, 0],
        )
    };
    entry.into_iter().for_each(table::settle);
    returned_int(ret)
}

/// close_range(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let entries = table::forget_range(first, last);
    // SAFETY: the caller's promise.
    let ret = unsafe {
        raw(
            libc::SYS_close_range,
            [first.into(), last.into(), flags.into(), 0, 0, 0],
        )
    };
    entries.into_iter().for_each(table::settle);
    returned_int(ret)
}

/// mmap(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn mmap(
    addr: *mut c_void,
    len: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    let of_file = flags & libc::MAP_ANONYMOUS == 0;
    let arguments = mapping::Arguments {
        addr: addr.expose_provenance(),
        len,
        prot,
        flags,
        offset: offset.cast_unsigned(),
    };
    let mut ret = -c_long::from(libc::ENODEV);
    if !(of_file && table::has(fd)) {
        let args = [
            arguments.addr.cast_signed() as c_long,
            len.cast_signed() as c_long,
            prot.into(),
            flags.into(),
            fd.into(),
            offset,
        ];
        // SAFETY: the caller's promise.
        ret = unsafe { raw(libc::SYS_mmap, args) };
        if flags & libc::MAP_FIXED != 0 && mapping::may_have(arguments.addr, len) && ret >= 0 {
            mapping::forget(arguments.addr, len);
        }
    }
    // What cannot be mapped may be an emulated file that was not met before.
    if of_file
        && ret == -c_long::from(libc::ENODEV)
        && let Some(entry) = table::get(fd)
    {
        // SAFETY: the caller's promise.
        let mapped = caller::answered(|| unsafe { mapping::map(&entry, arguments) });
        ret = match mapped {
            Ok(addr) => addr.cast_signed() as c_long,
            Err(errno) => -c_long::from(errno.number()),
        };
    }
    let addr = usize::try_from(returned(ret)).unwrap_or(usize::MAX);
    ptr::with_exposed_provenance_mut(addr)
}

/// mmap64(3): the same, as offsets have 64 bits.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn mmap64(
    addr: *mut c_void,
    len: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { mmap(addr, len, prot, flags, fd, offset) }
}

/// munmap(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn munmap(addr: *mut c_void, len: usize) -> c_int {
    let at = addr.expose_provenance();
    let args = [
        at.cast_signed() as c_long,
        len.cast_signed() as c_long,
        0,
        0,
        0,
        0,
    ];
    // SAFETY: the caller's promise.
    let ret = unsafe { raw(libc::SYS_munmap, args) };
    if ret == 0 && mapping::may_have(at, len) {
        mapping::forget(at, len);
    }
    returned_int(ret)
}

/// ioctl(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: c_long) -> c_int {
    let args = [fd.into(), request.cast_signed(), argument, 0, 0, 0];
    // SAFETY: the caller's promise.
    let ret = unsafe { raw(libc::SYS_ioctl, args) };
    // It is no call that a placeholder knows.
    if ret == -c_long::from(libc::ENOTTY)
        && process::is_interposed()
        && let Some(entry) = table::get(fd)
    {
        // SAFETY: the caller's promise.
        let mut mem = unsafe { ProcessMem::new() };
        let result = caller::answered(|| perf::ioctl(&entry, request, argument, &mut mem));
        return as_int(answer(result));
    }
    returned_int(ret)
}

/// Bytes of the kernel's set of signals.
const SIGSET_SIZE: c_long = 8;

/// epoll_wait(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    max: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { epoll_pwait(epoll, events, max, timeout, ptr::null()) }
}

/// epoll_pwait(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_pwait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    max: c_int,
    timeout: c_int,
    signals: *const libc::sigset_t,
) -> c_int {
    wait::before_epoll();
    let args = [
        epoll.into(),
        address(events),
        max.into(),
        timeout.into(),
        address(signals),
        SIGSET_SIZE,
    ];
    // SAFETY: the caller's promise.
    returned_int(unsafe { raw(libc::SYS_epoll_pwait, args) })
}

/// poll(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn poll(fds: *mut libc::pollfd, n: libc::nfds_t, timeout: c_int) -> c_int {
    let time = libc::timespec {
        tv_sec: (timeout / 1000).into(),
        tv_nsec: (timeout % 1000 * 1_000_000).into(),
    };
    let time: *const libc::timespec = if timeout < 0 {
        ptr::null()
    } else {
        &raw const time
    };
    // SAFETY: the caller's promise, and a time of ours.
    unsafe { ppoll(fds, n, time, ptr::null()) }
}

/// ppoll(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ppoll(
    fds: *mut libc::pollfd,
    n: libc::nfds_t,
    time: *const libc::timespec,
    signals: *const libc::sigset_t,
) -> c_int {
    if table::waited_for() && !fds.is_null() {
        let n = usize::try_from(n).unwrap_or(0);
        for at in 0..n {
            // SAFETY: the caller says that there are `n`.
            let polled = unsafe { fds.add(at) };
            // SAFETY: as above.
            wait::before_poll(unsafe { (*polled).fd });
        }
    }
    // The kernel writes to it what is left, and the C library does not show that.
    // SAFETY: the caller's promise.
    let left = unsafe { time.as_ref() }.copied();
    let left: *const libc::timespec = left.as_ref().map_or(ptr::null(), ptr::from_ref);
    let args = [
        address(fds),
        n.cast_signed(),
        address(left),
        address(signals),
        SIGSET_SIZE,
        0,
    ];
    // SAFETY: the caller's promise.
    returned_int(unsafe { raw(libc::SYS_ppoll, args) })
}

/// A pointer as it is passed.
fn address<T>(pointer: *const T) -> c_long {
    pointer.expose_provenance().cast_signed() as c_long
}

/// open(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { openat(libc::AT_FDCWD, path, flags, mode) }
}

/// open64(3): the same, as offsets have 64 bits.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { openat(libc::AT_FDCWD, path, flags, mode) }
}

/// openat64(3): the same.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn openat64(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mode: libc::mode_t,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { openat(dir, path, flags, mode) }
}

/// openat(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn openat(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mode: libc::mode_t,
) -> c_int {
    // SAFETY: the caller's promise.
    if unsafe { files::may_be_ours(path) }
        // SAFETY: as above.
        && let Some(path) = unsafe { files::path(path) }
        && let Some(result) = files::open(path)
    {
        return as_int(answer(result.map(c_int::cast_unsigned)));
    }
    let args = [
        dir.into(),
        address(path),
        (flags | libc::O_LARGEFILE).into(),
        mode.into(),
        0,
        0,
    ];
    // SAFETY: the caller's promise.
    returned_int(unsafe { raw(libc::SYS_openat, args) })
}

/// readlink(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn readlink(path: *const c_char, out: *mut c_char, len: usize) -> isize {
    // SAFETY: the caller's promise.
    unsafe { readlinkat(libc::AT_FDCWD, path, out, len) }
}

/// readlinkat(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn readlinkat(
    dir: c_int,
    path: *const c_char,
    out: *mut c_char,
    len: usize,
) -> isize {
    let args = [
        dir.into(),
        address(path),
        address(out),
        len.cast_signed() as c_long,
        0,
        0,
    ];
    // SAFETY: the caller's promise.
    let ret = unsafe { raw(libc::SYS_readlinkat, args) };
    if let Ok(read) = usize::try_from(ret)
        && process::has_begun()
    {
        // SAFETY: the kernel wrote so many bytes there.
        let link = unsafe { std::slice::from_raw_parts(out.cast::<u8>(), read) };
        if let Some(name) = files::link_name(link) {
            let read = name.len().min(len);
            // SAFETY: the caller has room for `len` bytes.
            unsafe { ptr::copy_nonoverlapping(name.as_ptr(), out.cast::<u8>(), read) };
            return read.cast_signed();
        }
    }
    returned(ret) as isize
}

/// statfs(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn statfs(path: *const c_char, out: *mut libc::statfs) -> c_int {
    let args = [address(path), address(out), 0, 0, 0, 0];
    // SAFETY: the caller's promise.
    let ret = unsafe { raw(libc::SYS_statfs, args) };
    if ret == 0
        && process::has_begun()
        // SAFETY: the caller's promise.
        && let Some(path) = unsafe { files::path(path) }
        && files::is_bpffs(path)
    {
        // SAFETY: the kernel wrote to it.
        unsafe { (*out).f_type = libc::BPF_FS_MAGIC };
    }
    returned_int(ret)
}

/// statfs64(3): the same, as counts have 64 bits.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn statfs64(path: *const c_char, out: *mut libc::statfs) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { statfs(path, out) }
}

/// mkdir(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(path: *const c_char, mode: libc::mode_t) -> c_int {
    // SAFETY: the caller's promise.
    if unsafe { files::may_be_ours(path) }
        // SAFETY: as above.
        && let Some(path) = unsafe { files::path(path) }
        && let Some(result) = files::mkdir(path)
    {
        return as_int(answer(result.map(|()| 0)));
    }
    let args = [libc::AT_FDCWD.into(), address(path), mode.into(), 0, 0, 0];
    // SAFETY: the caller's promise.
    returned_int(unsafe { raw(libc::SYS_mkdirat, args) })
}

/// unlink(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    if unsafe { files::may_be_ours(path) }
        // SAFETY: as above.
        && let Some(path) = unsafe { files::path(path) }
        && let Some(result) = files::unlink(path)
    {
        return as_int(answer(result.map(|()| 0)));
    }
    let args = [libc::AT_FDCWD.into(), address(path), 0, 0, 0, 0];
    // SAFETY: the caller's promise.
    returned_int(unsafe { raw(libc::SYS_unlinkat, args) })
}

/// setrlimit(2)
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn setrlimit(resource: c_int, new: *const libc::rlimit) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { prlimit(0, resource, new, ptr::null_mut()) }
}

/// setrlimit64(3): the same, as limits have 64 bits.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn setrlimit64(resource: c_int, new: *const libc::rlimit) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { prlimit(0, resource, new, ptr::null_mut()) }
}

/// prlimit64(3): the same, as limits have 64 bits.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn prlimit64(
    pid: libc::pid_t,
    resource: c_int,
    new: *const libc::rlimit,
    old: *mut libc::rlimit,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { prlimit(pid, resource, new, old) }
}

/// prlimit(2): who may not raise `RLIMIT_MEMLOCK` has no need to.
///
/// # Safety
///
/// That of the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn prlimit(
    pid: libc::pid_t,
    resource: c_int,
    new: *const libc::rlimit,
    old: *mut libc::rlimit,
) -> c_int {
    let set = |new: *const libc::rlimit| {
        let args = [
            pid.into(),
            resource.into(),
            address(new),
            address(old),
            0,
            0,
        ];
        // SAFETY: the caller's promise, of either limit.
        unsafe { raw(libc::SYS_prlimit64, args) }
    };
    let mut ret = set(new);
    if ret == -c_long::from(libc::EPERM)
        && resource.cast_unsigned() == libc::RLIMIT_MEMLOCK
        && process::is_interposed()
        && threads::current().is_some()
    {
        ret = set(ptr::null());
    }
    returned_int(ret)
}

/// What a new thread begins with.
struct Start {
    routine: Routine,
    argument: *mut c_void,
    thread: Arc<Thread>,
}

type Routine = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;
type PthreadCreate = unsafe extern "C" fn(
    *mut libc::pthread_t,
    *const libc::pthread_attr_t,
    Routine,
    *mut c_void,
) -> c_int;

/// pthread_create(3): a thread has the kernel of the one that starts it.
///
/// # Safety
///
/// That of the function.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attr: *const libc::pthread_attr_t,
    routine: Routine,
    argument: *mut c_void,
) -> c_int {
    let start = Box::into_raw(Box::new(Start {
        routine,
        argument,
        thread: Thread::started_here(),
    }));
    // SAFETY: the caller's promise; `begin` takes the box.
    let ret = unsafe { libc_pthread_create()(thread, attr, begin, start.cast()) };
    if ret != 0 {
        // SAFETY: no thread has it.
        drop(unsafe { Box::from_raw(start) });
    }
    ret
}

unsafe extern "C-unwind" fn begin(start: *mut c_void) -> *mut c_void {
    // SAFETY: `pthread_create` made the box for this thread alone.
    let start = *unsafe { Box::from_raw(start.cast::<Start>()) };
    Thread::begin(start.thread);
    // SAFETY: whoever called `pthread_create` promised it.
    let ret = unsafe { (start.routine)(start.argument) };
    Thread::end();
    ret
}

/// The C library's own function.
#[cfg(target_feature = "crt-static")]
fn libc_pthread_create() -> PthreadCreate {
    unsafe extern "C" {
        fn __pthread_create(
            thread: *mut libc::pthread_t,
            attr: *const libc::pthread_attr_t,
            routine: Routine,
            argument: *mut c_void,
        ) -> c_int;
    }
    __pthread_create
}

/// The C library's own function.
#[cfg(not(target_feature = "crt-static"))]
fn libc_pthread_create() -> PthreadCreate {
    static FOUND: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
    let mut found = FOUND.load(Ordering::Relaxed);
    if found.is_null() {
        // SAFETY: a name that ends with NUL.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"pthread_create".as_ptr()) };
        assert!(!found.is_null(), "the C library has threads");
        FOUND.store(found, Ordering::Relaxed);
    }
    // SAFETY: the function of that name has that type.
    unsafe { std::mem::transmute::<*mut c_void, PthreadCreate>(found) }
}

/// Has the linker keep what is in here.
pub(super) fn keep() {
    std::hint::black_box(ALL);
}

/// Looks whether the C library's names lead here.
#[track_caller]
pub(super) fn assert_active() {
    for (name, ours) in ALL {
        // SAFETY: a name that ends with NUL.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        assert!(
            found.is_null() || ptr::eq(found, *ours),
            "mapemu: {name:?} of this program leads elsewhere: something else takes its place, as a sanitizer does"
        );
    }
}

/// The functions by name.
const ALL: &[(&CStr, *const c_void)] = &[
    (c"syscall", syscall as *const c_void),
    (c"close", close as *const c_void),
    (c"dup2", dup2 as *const c_void),
    (c"dup3", dup3 as *const c_void),
    (c"close_range", close_range as *const c_void),
    (c"mmap", mmap as *const c_void),
    (c"mmap64", mmap64 as *const c_void),
    (c"munmap", munmap as *const c_void),
    (c"ioctl", ioctl as *const c_void),
    (c"epoll_wait", epoll_wait as *const c_void),
    (c"epoll_pwait", epoll_pwait as *const c_void),
    (c"poll", poll as *const c_void),
    (c"ppoll", ppoll as *const c_void),
    (c"open", open as *const c_void),
    (c"open64", open64 as *const c_void),
    (c"openat", openat as *const c_void),
    (c"openat64", openat64 as *const c_void),
    (c"readlink", readlink as *const c_void),
    (c"readlinkat", readlinkat as *const c_void),
    (c"statfs", statfs as *const c_void),
    (c"statfs64", statfs64 as *const c_void),
    (c"mkdir", mkdir as *const c_void),
    (c"unlink", unlink as *const c_void),
    (c"setrlimit", setrlimit as *const c_void),
    (c"setrlimit64", setrlimit64 as *const c_void),
    (c"prlimit", prlimit as *const c_void),
    (c"prlimit64", prlimit64 as *const c_void),
    (c"pthread_create", pthread_create as *const c_void),
];
