//! Programs on both kernels: played on the emulated one, loaded and run on the running one.

use mapemu::abi::{Bpf, Fd, ProgType, Result};
use mapemu::helper::Prog;
use mapemu::sys::Kernel;

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
    fn enable(&self, event: Fd, enabled: bool) -> Result<()>;
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

impl Side for Emulated {
    fn bpf(&self) -> &dyn Bpf {
        &self.0
    }

    fn output(&self, cpu: u32, call: Output<'_>) -> Result<()> {
        let map = self.0.map(call.map).expect("a map");
        let prog = Prog::new(call.prog_type, cpu);
        prog.perf_event_output_packet(&map, call.flags, call.data, packet(call.prog_type))
    }

    fn enable(&self, event: Fd, enabled: bool) -> Result<()> {
        self.0.perf_event_enable(event, enabled)
    }

    fn event_id(&self, event: Fd) -> Result<u64> {
        self.0.perf_event_id(event)
    }

    fn poll(&self, fd: Fd) -> u32 {
        self.0.poll(fd).expect("it is open")
    }
}

#[cfg(all(feature = "host", target_os = "linux"))]
pub(crate) mod running {
    use std::os::fd::OwnedFd;

    use mapemu::abi::{AttachType, Bpf, Errno, Fd, Helper, ProgType, Result};
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
            let scratch = Scratch::new(&host, 4096).expect("memory");
            Self { host, scratch }
        }

        fn load(&self, prog_type: ProgType, asm: &Asm) -> OwnedFd {
            program::load(&self.host, prog_type, AttachType(0), asm).expect("a program")
        }
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
                .call(Helper::PERF_EVENT_OUTPUT.0)
                .map_value(Reg::R1, self.scratch.fd(), 0)
                .store(Width::Double, Reg::R1, 0, Reg::R0)
                .mov(Reg::R0, 0)
                .exit();
            self.scratch.write(DATA, call.data);
            let prog = self.load(call.prog_type, &asm);
            let has_packet = call.prog_type != ProgType::RAW_TRACEPOINT;
            program::test_run(&self.host.with_cpu(cpu), os::number(&prog), has_packet)
                .expect("it runs");
            match self.scratch.number(0) {
                0 => Ok(()),
                errno => Err(Errno::new(u16::try_from(-errno).expect("an errno"))),
            }
        }

        fn enable(&self, event: Fd, enabled: bool) -> Result<()> {
            os::perf_event_enable(event, enabled)
        }

        fn event_id(&self, event: Fd) -> Result<u64> {
            os::perf_event_id(event)
        }

        fn poll(&self, fd: Fd) -> u32 {
            os::poll(fd)
        }
    }
}
