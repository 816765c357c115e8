//! Programs on both kernels: played on the emulated one, loaded and run on the running one.

use std::sync::Arc;
use std::time::Duration;

use mapemu::abi::{AttachType, Bpf, Fd, Helper, MapType, ProgType, Result, XdpAction};
use mapemu::calls;
use mapemu::helper::{End, Prog, Programs, verifier};
use mapemu::map::object::Object;
use mapemu::sys::{Kernel, ProgDef};

/// A call of `bpf_perf_event_output`.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    pub(crate) prog_type: ProgType,
    pub(crate) map: Fd,
    pub(crate) flags: u64,
    pub(crate) data: &'a [u8],
}

/// A kernel, and what programs and tests do there besides bpf(2).
pub(crate) trait Side {
    fn bpf(&self) -> &dyn Bpf;
    /// Of a program on that CPU. Its packet, if it has one, is of zeros.
    fn output(&self, cpu: u32, call: Output<'_>) -> Result<()>;
    /// Of an XDP program: `bpf_redirect_map`.
    fn redirect_map(&self, map: Fd, key: u32, flags: u64) -> XdpAction;
    /// Of a program without a packet, for a process that is in no cgroup of the array: `bpf_current_task_under_cgroup`.
    fn task_under_cgroup(&self, map: Fd, index: u32) -> Result<bool>;
    /// Loads a program that uses those maps; its fd.
    fn load(&self, prog_type: ProgType, attach_type: AttachType, maps: &[Fd]) -> Result<Fd>;
    /// Puts a program at index 0 that jumps to index `to`, and runs it: how often it ran, and how often it went on after
    /// the jump.
    fn jump(&self, prog_type: ProgType, map: Fd, to: u32) -> (u64, u64);
    /// The type of programs that a map belongs to, as its fdinfo shows it.
    fn owner(&self, map: Fd) -> Option<u32>;
    /// Whether programs of that type can call a helper that takes more than one argument.
    fn has_helper(&self, prog_type: ProgType, attach_type: AttachType, helper: Helper) -> bool;
    fn enable(&self, event: Fd, enabled: bool) -> Result<()>;
    fn pause(&self, event: Fd, paused: bool) -> Result<()>;
    fn event_id(&self, event: Fd) -> Result<u64>;
    fn poll(&self, fd: Fd) -> u32;
}

/// Holds a fact against every kernel there is.
#[track_caller]
pub(crate) fn on_both_sides(fact: fn(&dyn Side)) {
    fact(&Emulated(Kernel::new()));
    #[cfg(all(feature = "host", target_os = "linux"))]
    if crate::common::running_kernel().is_some() {
        fact(&running::Running::new());
    }
}

pub(crate) struct Emulated(pub(crate) Kernel);

/// The bytes of a packet of 64 that a program finds at its context: of a socket filter, without the Ethernet header.
fn packet(prog_type: ProgType) -> &'static [u8] {
    if prog_type == ProgType::SOCKET_FILTER {
        &[0; 50]
    } else {
        &[0; 64]
    }
}

/// The type of programs in the lines of an fdinfo.
fn owner_in(fdinfo: &str) -> Option<u32> {
    let line = |name: &str| fdinfo.lines().find_map(|line| line.strip_prefix(name));
    let owner = line("owner_prog_type:\t")?;
    assert_eq!(line("owner_jited:\t"), Some("1"), "they go together");
    Some(owner.parse().expect("a number"))
}

impl Emulated {
    fn prog(&self, fd: Fd) -> Arc<mapemu::map::object::Prog> {
        match self.0.object(fd) {
            Ok(Object::Prog(prog)) => prog,
            other => panic!("{other:?} is no program"),
        }
    }
}

impl Side for Emulated {
    fn bpf(&self) -> &dyn Bpf {
        &self.0
    }

    fn redirect_map(&self, map: Fd, key: u32, flags: u64) -> XdpAction {
        let map = self.0.map(map).expect("a map");
        Prog::new(ProgType::XDP, 0).redirect_map(&map, key, flags)
    }

    fn task_under_cgroup(&self, map: Fd, index: u32) -> Result<bool> {
        let own = self.0.cgroup_create(&format!("{index}"), None);
        let Ok(Object::Cgroup(own)) = self.0.object(own.expect("a new one")) else {
            panic!("a cgroup was made");
        };
        let map = self.0.map(map).expect("a map");
        Prog::new(ProgType::RAW_TRACEPOINT, 0).current_task_under_cgroup(&map, index, &own)
    }

    fn load(&self, prog_type: ProgType, attach_type: AttachType, maps: &[Fd]) -> Result<Fd> {
        self.0.prog_load(ProgDef {
            prog_type,
            expected_attach_type: attach_type,
            maps,
            ..ProgDef::default()
        })
    }

    fn jump(&self, prog_type: ProgType, map: Fd, to: u32) -> (u64, u64) {
        let fd = self.load(prog_type, AttachType(0), &[map]);
        let fd = fd.expect("it is of its kind");
        let (key, value) = (0_u32.to_ne_bytes(), fd.to_ne_bytes());
        calls::bpf_map_update_elem(&self.0, map, &key, &value, 0).expect("it is of its kind");
        let (prog, map) = (self.prog(fd), self.0.map(map).expect("a map"));
        let mut programs = Programs::new();
        programs.bind(&prog, move |run, (runs, went_on)| {
            *runs += 1;
            match run.tail_call(&map, to) {
                Some(next) => End::TailCall(next),
                None => {
                    *went_on += 1;
                    End::Exit(0)
                }
            }
        });
        let mut seen = (0, 0);
        programs.run(&prog, &Prog::new(prog_type, 0), &mut seen);
        seen
    }

    fn owner(&self, map: Fd) -> Option<u32> {
        owner_in(&self.0.fdinfo(map).expect("a map"))
    }

    fn has_helper(&self, prog_type: ProgType, _: AttachType, helper: Helper) -> bool {
        let map_type = match helper {
            Helper::TAIL_CALL => MapType::PROG_ARRAY,
            Helper::GET_STACKID => MapType::STACK_TRACE,
            Helper::REDIRECT_MAP => MapType::CPUMAP,
            Helper::SKB_UNDER_CGROUP | Helper::CURRENT_TASK_UNDER_CGROUP => MapType::CGROUP_ARRAY,
            Helper::SK_REDIRECT_MAP | Helper::SOCK_MAP_UPDATE | Helper::MSG_REDIRECT_MAP => {
                MapType::SOCKMAP
            }
            Helper::SK_REDIRECT_HASH | Helper::SOCK_HASH_UPDATE | Helper::MSG_REDIRECT_HASH => {
                MapType::SOCKHASH
            }
            Helper::SK_SELECT_REUSEPORT => MapType::REUSEPORT_SOCKARRAY,
            _ => MapType::PERF_EVENT_ARRAY,
        };
        let value_size = if map_type == MapType::STACK_TRACE {
            8
        } else {
            4
        };
        let map = crate::common::map(&self.0, map_type, 4, value_size, 1, 0);
        let map = self.0.map(map).expect("a map");
        verifier::helper_allowed(&map, helper, prog_type).is_ok()
    }

    fn output(&self, cpu: u32, call: Output<'_>) -> Result<()> {
        let map = self.0.map(call.map).expect("a map");
        let prog = Prog::new(call.prog_type, cpu);
        prog.perf_event_output_packet(&map, call.flags, call.data, packet(call.prog_type))
    }

    fn enable(&self, event: Fd, enabled: bool) -> Result<()> {
        self.0.perf_event_enable(event, enabled)
    }

    fn pause(&self, event: Fd, paused: bool) -> Result<()> {
        self.0.perf_event_pause(event, paused)
    }

    fn event_id(&self, event: Fd) -> Result<u64> {
        self.0.perf_event_id(event)
    }

    fn poll(&self, fd: Fd) -> u32 {
        let events = Bpf::poll(&self.0, fd, Some(Duration::ZERO));
        events.expect("it is open").bits()
    }
}

#[cfg(all(feature = "host", target_os = "linux"))]
pub(crate) mod running {
    use std::os::fd::OwnedFd;

    use std::time::Duration;

    use mapemu::abi::{AttachType, Bpf, Errno, Fd, Helper, ProgType, Result, XdpAction};
    use mapemu::calls;
    use mapemu::host::program::{self, Scratch};
    use mapemu::host::{Asm, Host, Reg, Width, os};

    use super::{Output, Side};

    /// Where the data of a record is in the memory that programs share with the test.
    const DATA: usize = 64;

    pub(crate) struct Running {
        host: Host,
        scratch: Scratch,
    }

    impl Running {
        pub(crate) fn new() -> Self {
            let host = Host::new().expect("it was there just now");
            let scratch = Scratch::new(&host, 72_000).expect("memory");
            Self { host, scratch }
        }

        pub(crate) fn host(&self) -> &Host {
            &self.host
        }

        fn verified(&self, prog_type: ProgType, asm: &Asm) -> OwnedFd {
            program::load(&self.host, prog_type, AttachType(0), asm).expect("a program")
        }

        /// Adds the end of a program: `R0` is noted.
        fn noted(&self, asm: &mut Asm) {
            asm.map_value(Reg::R1, self.scratch.fd(), 0)
                .store(Width::Double, Reg::R1, 0, Reg::R0)
                .mov(Reg::R0, 0)
                .exit();
        }

        /// Runs a program once; what it noted.
        fn run(&self, cpu: u32, prog_type: ProgType, asm: &Asm) -> i64 {
            let prog = self.verified(prog_type, asm);
            let has_packet = prog_type != ProgType::RAW_TRACEPOINT;
            let host = self.host.with_cpu(cpu);
            program::test_run(&host, os::number(&prog), has_packet).expect("it runs");
            self.scratch.number(0)
        }
    }

    fn answer(noted: i64) -> Result<u32> {
        u32::try_from(noted).map_err(|_| Errno::new(u16::try_from(-noted).expect("an errno")))
    }

    impl Side for Running {
        fn bpf(&self) -> &dyn Bpf {
            &self.host
        }

        fn output(&self, cpu: u32, call: Output<'_>) -> Result<()> {
            let mut asm = Asm::new();
            asm.mov64(Reg::R3, call.flags)
                .map(Reg::R2, call.map)
                .map_value(Reg::R4, self.scratch.fd(), DATA)
                .mov(Reg::R5, i32::try_from(call.data.len()).expect("short"))
                .call(Helper::PERF_EVENT_OUTPUT.0);
            self.noted(&mut asm);
            self.scratch.write(DATA, call.data);
            answer(self.run(cpu, call.prog_type, &asm)).map(|_| ())
        }

        fn redirect_map(&self, map: Fd, key: u32, flags: u64) -> XdpAction {
            let mut asm = Asm::new();
            asm.map(Reg::R1, map)
                .mov64(Reg::R2, u64::from(key))
                .mov64(Reg::R3, flags)
                .call(Helper::REDIRECT_MAP.0);
            self.noted(&mut asm);
            let noted = self.run(0, ProgType::XDP, &asm);
            XdpAction(answer(noted).expect("an action"))
        }

        fn task_under_cgroup(&self, map: Fd, index: u32) -> Result<bool> {
            let mut asm = Asm::new();
            asm.map(Reg::R1, map)
                .mov64(Reg::R2, u64::from(index))
                .call(Helper::CURRENT_TASK_UNDER_CGROUP.0);
            self.noted(&mut asm);
            answer(self.run(0, ProgType::RAW_TRACEPOINT, &asm)).map(|is_under| is_under == 1)
        }

        fn load(&self, prog_type: ProgType, attach_type: AttachType, maps: &[Fd]) -> Result<Fd> {
            let mut asm = Asm::new();
            for &map in maps {
                asm.map(Reg::R1, map);
            }
            asm.mov(Reg::R0, 1).exit();
            let prog = program::load(&self.host, prog_type, attach_type, &asm)?;
            Ok(self.host.adopt(prog))
        }

        fn jump(&self, prog_type: ProgType, map: Fd, to: u32) -> (u64, u64) {
            let mut asm = Asm::new();
            let count = |asm: &mut Asm, at| {
                asm.map_value(Reg::R7, self.scratch.fd(), at)
                    .load(Width::Double, Reg::R8, Reg::R7, 0)
                    .add(Reg::R8, 1)
                    .store(Width::Double, Reg::R7, 0, Reg::R8);
            };
            asm.mov_reg(Reg::R6, Reg::R1);
            count(&mut asm, 8);
            asm.mov_reg(Reg::R1, Reg::R6)
                .map(Reg::R2, map)
                .mov64(Reg::R3, u64::from(to))
                .call(Helper::TAIL_CALL.0);
            count(&mut asm, 16);
            asm.mov(Reg::R0, 0).exit();
            self.scratch.write(8, &[0; 16]);
            let prog = self.verified(prog_type, &asm);
            let fd = os::number(&prog);
            let (key, value) = (0_u32.to_ne_bytes(), fd.to_ne_bytes());
            calls::bpf_map_update_elem(&self.host, map, &key, &value, 0).expect("of its kind");
            program::test_run(&self.host, fd, true).expect("it runs");
            let seen = |at| self.scratch.number(at).cast_unsigned();
            (seen(8), seen(16))
        }

        fn owner(&self, map: Fd) -> Option<u32> {
            let path = format!("/proc/self/fdinfo/{map}");
            super::owner_in(&std::fs::read_to_string(path).expect("it is open"))
        }

        fn has_helper(&self, prog_type: ProgType, attach_type: AttachType, helper: Helper) -> bool {
            let mut asm = Asm::new();
            asm.call(helper.0).exit();
            match program::load(&self.host, prog_type, attach_type, &asm) {
                // Its second argument was never set.
                Err(Errno::EACCES) => true,
                Err(Errno::EINVAL) => false,
                other => panic!("{prog_type}, {helper}: {other:?}"),
            }
        }

        fn enable(&self, event: Fd, enabled: bool) -> Result<()> {
            os::perf_event_enable(event, enabled)
        }

        fn pause(&self, event: Fd, paused: bool) -> Result<()> {
            os::perf_event_pause(event, paused)
        }

        fn event_id(&self, event: Fd) -> Result<u64> {
            os::perf_event_id(event)
        }

        fn poll(&self, fd: Fd) -> u32 {
            let events = os::poll(fd, Some(Duration::ZERO));
            events.expect("it is open").bits()
        }
    }
}
