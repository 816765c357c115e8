//! Which system calls of the program come to us: a seccomp filter.
//!
//! All others cost nothing. What is sent to us only to be looked at (opens, mappings) goes on to the running kernel.

use libc::{sock_filter, sock_fprog};

use crate::abi::perf_ioc;

/// `AUDIT_ARCH_*` of this machine's own calls.
#[cfg(target_arch = "x86_64")]
pub(super) const ARCH: u32 = 0xc000_003e;
/// `AUDIT_ARCH_*` of this machine's own calls.
#[cfg(target_arch = "aarch64")]
pub(super) const ARCH: u32 = 0xc000_00b7;

/// bpf(2) of the 32-bit programs that this machine can run, too.
#[cfg(target_arch = "x86_64")]
const FOREIGN_BPF: u32 = 357;
/// bpf(2) of the 32-bit programs that this machine can run, too.
#[cfg(target_arch = "aarch64")]
const FOREIGN_BPF: u32 = 386;

/// Set in the numbers of x32's calls.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

const NR: u32 = 0;
const ARCH_AT: u32 = 4;
/// The low half of an argument.
const fn arg(number: u32) -> u32 {
    16 + 8 * number
}

/// How calls come to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// Notifications of seccomp: the caller waits until it is answered.
    Notify,
    /// ptrace(2): the caller stops, by a signal where a filter around ours may refuse the call, else before it is made.
    Ptrace,
}

impl Backend {
    const fn action(self, refusable: bool) -> u32 {
        match self {
            Self::Notify => libc::SECCOMP_RET_USER_NOTIF,
            Self::Ptrace if refusable => libc::SECCOMP_RET_TRAP,
            Self::Ptrace => libc::SECCOMP_RET_TRACE,
        }
    }
}

/// Calls that are looked at whatever their arguments are.
const ALWAYS: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_newfstatat,
    libc::SYS_readlinkat,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_renameat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_statx,
    libc::SYS_openat2,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_mknodat,
    libc::SYS_fchmodat,
    super::paths::FCHMODAT2,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_chdir,
    libc::SYS_getcwd,
    libc::SYS_truncate,
];

/// As [`ALWAYS`]: the older calls that other architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_readlink,
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_symlink,
    libc::SYS_link,
    libc::SYS_mknod,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// Calls that are about several fds, and the argument that says how many: none is to sleep.
const SEVERAL: &[(libc::c_long, u32)] = &[(libc::SYS_ppoll, 1), (libc::SYS_pselect6, 0)];

/// As [`SEVERAL`]: the older calls that other architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLDER_SEVERAL: &[(libc::c_long, u32)] = &[(libc::SYS_poll, 1), (libc::SYS_select, 0)];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_SEVERAL: &[(libc::c_long, u32)] = &[];

/// The filter, as it is handed to the kernel.
#[derive(Debug)]
pub(super) struct Filter(Vec<sock_filter>);

impl Filter {
    pub(super) fn new(backend: Backend) -> Self {
        let mut filter = Self(Vec::with_capacity(128));
        let ours = backend.action(false);
        filter.load(ARCH_AT);
        filter.unless(ARCH, |foreign| {
            foreign.load(NR);
            foreign.when(FOREIGN_BPF, |bpf| bpf.ret(ours));
            foreign.ret(libc::SECCOMP_RET_ALLOW);
        });
        filter.load(NR);
        filter.when(number(libc::SYS_bpf), |bpf| bpf.ret(backend.action(true)));
        #[cfg(target_arch = "x86_64")]
        filter.when(number(libc::SYS_bpf) | X32, |bpf| bpf.ret(ours));
        filter.when(number(libc::SYS_perf_event_open), |open| {
            open.ret(backend.action(true));
        });
        filter.when(number(libc::SYS_mmap), |mmap| {
            mmap.load(arg(4));
            mmap.when(u32::MAX, |none| none.ret(libc::SECCOMP_RET_ALLOW));
            mmap.load(arg(3));
            mmap.when_set(libc::MAP_ANONYMOUS.cast_unsigned(), |anonymous| {
                anonymous.ret(libc::SECCOMP_RET_ALLOW);
            });
            mmap.ret(ours);
        });
        filter.when(number(libc::SYS_ioctl), |ioctl| {
            ioctl.load(arg(1));
            for request in perf_ioc::ALL {
                ioctl.when(request, |perf| perf.ret(ours));
            }
            ioctl.ret(libc::SECCOMP_RET_ALLOW);
        });
        filter.when(number(libc::SYS_setsockopt), |option| {
            option.load(arg(1));
            option.unless(libc::SOL_SOCKET.cast_unsigned(), |other| {
                other.ret(libc::SECCOMP_RET_ALLOW);
            });
            option.load(arg(2));
            for attach in super::sockets::ATTACH {
                option.when(attach, |attach| attach.ret(ours));
            }
            option.ret(libc::SECCOMP_RET_ALLOW);
        });
        for (call, resource) in [
            (libc::SYS_prlimit64, 1),
            (libc::SYS_setrlimit, 0),
            (libc::SYS_getrlimit, 0),
        ] {
            filter.when(number(call), |limit| {
                limit.load(arg(resource));
                limit.when(libc::RLIMIT_MEMLOCK, |memlock| memlock.ret(ours));
                limit.ret(libc::SECCOMP_RET_ALLOW);
            });
        }
        for &(call, count) in SEVERAL.iter().chain(OLDER_SEVERAL) {
            filter.when(number(call), |several| {
                several.load(arg(count));
                several.when(0, |none| none.ret(libc::SECCOMP_RET_ALLOW));
                several.ret(ours);
            });
        }
        for &call in ALWAYS.iter().chain(OLDER).chain(&super::paths::XATTR) {
            filter.when(number(call), |call| call.ret(ours));
        }
        filter.ret(libc::SECCOMP_RET_ALLOW);
        filter
    }

    /// It lives as long as `self`.
    pub(super) fn program(&self) -> sock_fprog {
        sock_fprog {
            len: u16::try_from(self.0.len()).expect("it is short"),
            filter: self.0.as_ptr().cast_mut(),
        }
    }

    fn load(&mut self, offset: u32) {
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    }

    fn ret(&mut self, action: u32) {
        self.push(libc::BPF_RET | libc::BPF_K, 0, 0, action);
    }

    /// `body` is for that value; it does not fall through.
    fn when(&mut self, value: u32, body: impl FnOnce(&mut Self)) {
        self.branch(libc::BPF_JEQ, value, false, body);
    }

    /// `body` is for all other values.
    fn unless(&mut self, value: u32, body: impl FnOnce(&mut Self)) {
        self.branch(libc::BPF_JEQ, value, true, body);
    }

    /// `body` is for values in which one of those bits is set.
    fn when_set(&mut self, bits: u32, body: impl FnOnce(&mut Self)) {
        self.branch(libc::BPF_JSET, bits, false, body);
    }

    fn branch(&mut self, jump: u32, value: u32, negated: bool, body: impl FnOnce(&mut Self)) {
        let at = self.0.len();
        self.push(libc::BPF_JMP | jump | libc::BPF_K, 0, 0, value);
        body(self);
        let over = u8::try_from(self.0.len() - at - 1).expect("bodies are short");
        if negated {
            self.0[at].jt = over;
        } else {
            self.0[at].jf = over;
        }
    }

    fn push(&mut self, code: u32, jt: u8, jf: u8, k: u32) {
        let code = u16::try_from(code).expect("codes are short");
        self.0.push(sock_filter { code, jt, jf, k });
    }
}

/// Of a system call, as filters see it.
pub(super) fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).expect("numbers of system calls are small")
}
