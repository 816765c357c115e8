//! What a call costs under `mapemu run`, as a ratio to a bare notification of seccomp: received and answered, and nothing else.
//!
//! `cargo bench --features run --bench run_cost`. All are measured in turn; medians of one run. A bare notification is measured as
//! it comes, and with `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`, by which both sides take turns on one CPU and which `mapemu run` uses.
//! With that flag there is also the least that any lookup needs besides: to read the attr, to see which file the fd is, and to write
//! the value, each by the cheapest call that is exact (memory written through `/proc` would not be: it may be read-only).

#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench"
)]

#[cfg(all(feature = "run", target_os = "linux"))]
fn main() {
    linux::main();
}

#[cfg(not(all(feature = "run", target_os = "linux")))]
fn main() {
    println!("skipped: it needs Linux, and the feature `run`");
}

#[cfg(all(feature = "run", target_os = "linux"))]
#[expect(unsafe_code, reason = "system calls, as a program makes them")]
mod linux {
    use std::io::{BufRead as _, BufReader};
    use std::mem::zeroed;
    use std::os::fd::{AsRawFd as _, OwnedFd};
    use std::process::{Command, Stdio};
    use std::sync::atomic::AtomicU64;
    use std::time::Instant;

    use libc::{c_long, sock_filter, sock_fprog};
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

    use mapemu::Kernel;
    use mapemu::run::{Backend, Run};

    const ROUNDS: usize = 9;
    const CALLS: u32 = 4000;

    /// Microseconds of one call.
    type Measure = fn() -> f64;

    pub(super) fn main() {
        let arguments: Vec<String> = std::env::args().collect();
        match arguments.get(1).map(String::as_str) {
            Some("child") => return child(),
            Some("bare") => return bare_child(),
            _ => {}
        }
        let rows: [(&str, Measure); 5] = [
            ("bare notification", || bare(Bare::Plain)),
            ("bare, one CPU", || bare(Bare::OneCpu)),
            ("least of a lookup", || bare(Bare::Least)),
            ("lookup, notify", || emulated(Backend::Notify)),
            ("lookup, ptrace", || emulated(Backend::Ptrace)),
        ];
        let rows = &rows[..if cfg!(target_arch = "x86_64") { 5 } else { 4 }];
        let mut times = vec![Vec::new(); rows.len()];
        for _ in 0..ROUNDS {
            for ((_, measure), times) in rows.iter().zip(&mut times) {
                times.push(measure());
            }
        }
        let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
        println!("{:<20}{:>11} {:>8} {:>8}", "", "", "÷ bare", "÷ one CPU");
        for ((name, _), time) in rows.iter().zip(&medians) {
            let [plain, one_cpu] = [time / medians[0], time / medians[1]];
            println!("{name:<20}{time:>8.2} us {plain:>8.2} {one_cpu:>8.2}");
        }
    }

    fn median(times: &mut [f64]) -> f64 {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }

    /// Microseconds of one call, as a child measured it.
    fn told(child: &mut std::process::Child) -> f64 {
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }

    fn this(what: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(what).stdout(Stdio::piped());
        command
    }

    fn emulated(backend: Backend) -> f64 {
        let run = Run::new(Kernel::builder().doubled_rings(true).build()).backend(backend);
        let mut running = run.spawn(this("child")).unwrap();
        let time = told(running.child());
        running.finish().unwrap();
        time
    }

    fn bpf(cmd: c_long, attr: &[u64; 16]) -> c_long {
        // SAFETY: the attr, and what it points to, live as long as the call.
        unsafe { libc::syscall(libc::SYS_bpf, cmd, attr.as_ptr(), size_of_val(attr)) }
    }

    /// Looks up one key, many times.
    fn child() {
        let mut attr = [0_u64; 16];
        // A hash of 4 and 8 bytes, 16 elements.
        attr[0] = 4 << 32 | 1;
        attr[1] = 16 << 32 | 8;
        let map = bpf(0, &attr);
        let (key, value) = (7_u32, [0_u64; 1]);
        let at = |place: &u64| std::ptr::from_ref(place).expose_provenance() as u64;
        let key_at = std::ptr::from_ref(&key).expose_provenance() as u64;
        let attr_of = |fd: c_long| {
            let mut attr = [0; 16];
            attr[..3].copy_from_slice(&[fd.cast_unsigned(), key_at, at(&value[0])]);
            attr
        };
        let attr = attr_of(map);
        assert_eq!(bpf(2, &attr), 0);
        measure(|| assert_eq!(bpf(1, &attr), 0));
    }

    fn measure(call: impl Fn()) {
        for _ in 0..CALLS / 10 {
            call();
        }
        let start = Instant::now();
        for _ in 0..CALLS {
            call();
        }
        println!(
            "{:.3}",
            start.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS)
        );
    }

    /// Installs a filter, tells the number of its listener, and makes calls.
    fn bare_child() {
        let insn = |code: u32, jt, jf, k| sock_filter {
            code: u16::try_from(code).unwrap(),
            jt,
            jf,
            k,
        };
        let bpf_number = u32::try_from(libc::SYS_bpf).unwrap();
        let mut filter = [
            insn(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            insn(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                0,
                1,
                bpf_number,
            ),
            insn(
                libc::BPF_RET | libc::BPF_K,
                0,
                0,
                libc::SECCOMP_RET_USER_NOTIF,
            ),
            insn(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = sock_fprog {
            len: 4,
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: only numbers.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        // SAFETY: the program lives as long as the call.
        let listener = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
                    | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
                &raw const program,
            )
        };
        println!("{listener}");
        // What is told lies there.
        let attr = [AtomicU64::new(0), AtomicU64::new(0)];
        let at = attr.as_ptr();
        // SAFETY: the attr lives as long as the call.
        let call = || unsafe { libc::syscall(libc::SYS_bpf, 1, at, size_of_val(&attr)) };
        measure(|| assert_eq!(call(), 7));
    }

    /// What is done about a call besides.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Bare {
        Plain,
        OneCpu,
        Least,
    }

    fn bare(kind: Bare) -> f64 {
        let mut child = this("bare").spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let number: i32 = lines.next().unwrap().unwrap().parse().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let listener = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).unwrap();
        let serving = std::thread::spawn(move || serve(&listener, kind));
        let time = lines.next().unwrap().unwrap().parse().unwrap();
        child.wait().unwrap();
        serving.join().unwrap();
        time
    }

    /// Receives and answers, until nobody is left who could call.
    fn serve(listener: &OwnedFd, kind: Bare) {
        let fd = listener.as_raw_fd();
        if kind != Bare::Plain {
            // SAFETY: only numbers.
            unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, 1) };
        }
        loop {
            // SAFETY: plain numbers, which have to be zero at first.
            let mut notice: (libc::seccomp_notif, [u64; 32]) = unsafe { zeroed() };
            // SAFETY: the kernel writes a struct, with room behind it.
            let got = unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice.0) };
            if got != 0 {
                return;
            }
            if kind == Bare::Least {
                least(&notice.0);
            }
            let answer = libc::seccomp_notif_resp {
                id: notice.0.id,
                val: 7,
                error: 0,
                flags: 0,
            };
            // SAFETY: the kernel reads a struct.
            unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
        }
    }

    /// Reads an attr, looks which file an fd is, and writes a value.
    fn least(notice: &libc::seccomp_notif) {
        const KCMP_FILE: c_long = 0;
        let task = notice.pid.cast_signed();
        let mut room = [0_u64; 2];
        let here = libc::iovec {
            iov_base: room.as_mut_ptr().cast(),
            iov_len: size_of_val(&room),
        };
        let attr = usize::try_from(notice.data.args[1]).unwrap();
        let there = libc::iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(attr),
            ..here
        };
        let (here, there) = (&raw const here, &raw const there);
        // SAFETY: of this process `room` is written; the kernel checks the other.
        let read = unsafe { libc::process_vm_readv(task, here, 1, there, 1, 0) };
        let own = std::process::id();
        // SAFETY: only numbers.
        let same = unsafe { libc::syscall(libc::SYS_kcmp, task, own, KCMP_FILE, 2, 2) };
        // SAFETY: of this process `room` is read; the kernel checks the other.
        let written = unsafe { libc::process_vm_writev(task, here, 1, there, 1, 0) };
        assert!(read == 16 && same >= 0 && written == 16);
    }
}
