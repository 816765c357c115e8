//! What a call costs under `mapemu run`, as a ratio to a bare notification of seccomp: received and answered, and nothing else.
//!
//! `cargo bench --features run --bench run_cost`. Both are measured in turn; medians of one run.

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
    use std::time::Instant;

    use libc::{c_long, sock_filter, sock_fprog};
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

    use mapemu::Kernel;
    use mapemu::run::{Backend, Run};

    const ROUNDS: usize = 9;
    const CALLS: u32 = 4000;

    pub(super) fn main() {
        let arguments: Vec<String> = std::env::args().collect();
        match arguments.get(1).map(String::as_str) {
            Some("child") => return child(),
            Some("bare") => return bare_child(),
            _ => {}
        }
        let mut rows = vec![
            ("bare notification", Vec::new()),
            ("lookup, notify", Vec::new()),
        ];
        if cfg!(target_arch = "x86_64") {
            rows.push(("lookup, ptrace", Vec::new()));
        }
        for _ in 0..ROUNDS {
            for (name, times) in &mut rows {
                times.push(match *name {
                    "bare notification" => bare(),
                    "lookup, notify" => emulated(Backend::Notify),
                    _ => emulated(Backend::Ptrace),
                });
            }
        }
        let medians: Vec<f64> = rows.iter_mut().map(|(_, times)| median(times)).collect();
        for ((name, _), time) in rows.iter().zip(&medians) {
            println!("{name:<20}{time:>8.2} us {:>6.2} x", time / medians[0]);
        }
        let ratio = medians[1] / medians[0];
        println!("a lookup costs {ratio:.2} bare notifications (to be under 2)");
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
        measure(|| assert_eq!(bpf(1, &[0; 16]), 7));
    }

    fn bare() -> f64 {
        let mut child = this("bare").spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let number: i32 = lines.next().unwrap().unwrap().parse().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let listener = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).unwrap();
        let serving = std::thread::spawn(move || serve(&listener));
        let time = lines.next().unwrap().unwrap().parse().unwrap();
        child.wait().unwrap();
        serving.join().unwrap();
        time
    }

    /// Receives and answers, until nobody is left who could call.
    fn serve(listener: &OwnedFd) {
        let fd = listener.as_raw_fd();
        // SAFETY: only numbers.
        unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, 1) };
        loop {
            // SAFETY: plain numbers, which have to be zero at first.
            let mut notice: (libc::seccomp_notif, [u64; 32]) = unsafe { zeroed() };
            // SAFETY: the kernel writes a struct, with room behind it.
            let got = unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice.0) };
            if got != 0 {
                return;
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
}
