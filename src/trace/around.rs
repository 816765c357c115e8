//! What stands around the maps: files, sockets, processes, rights, memory mappings, the CPU.

use serde_json::{Value, json};

use super::engine::{Engine, Outcome};
use super::request::{Broken, MOST_BYTES, Request, Stop, hex, text};
use super::world::{FileKind, FileOp, PerfEventKind, SocketRequest};
use crate::abi::{Caps, Errno, MapRequest, Mapping, Prot};

/// The meaning of a word that has to be one of these.
pub(super) fn one_of<T: Copy>(
    o: Request<'_>,
    field: &str,
    default: &str,
    words: &[(&str, T)],
) -> Result<T, Broken> {
    let word = o.text(field)?.unwrap_or(default);
    words
        .iter()
        .find(|(own, _)| *own == word)
        .map(|(_, meaning)| *meaning)
        .ok_or_else(|| Broken(format!("{field} is \"{word}\"")))
}

impl Engine<'_> {
    // --- file descriptors -------------------------------------------------------------------------------------------

    pub(super) fn close(&mut self, o: Request<'_>) -> Outcome {
        self.drop_name(o.need_text("map")?);
        if o.flag("wait")? {
            self.world.settle();
        }
        Ok(json!({}))
    }

    pub(super) fn dup(&mut self, o: Request<'_>) -> Outcome {
        let fd = self.open_fd(o, "map")?;
        let fd = self.world.dup(fd)?;
        self.adopt(o.need_text("as")?, fd, None)
    }

    pub(super) fn mkdir(&mut self, o: Request<'_>) -> Outcome {
        let path = self.path(o)?;
        self.world.mkdir(&path)?;
        Ok(json!({}))
    }

    pub(super) fn unlink(&mut self, o: Request<'_>) -> Outcome {
        let path = self.path(o)?;
        self.world.unlink(&path)?;
        Ok(json!({}))
    }

    pub(super) fn file(&mut self, o: Request<'_>) -> Outcome {
        let kinds = [
            ("file", FileKind::File),
            ("memfd", FileKind::Memfd),
            ("dir", FileKind::Dir),
            ("pipe", FileKind::Pipe),
            ("path", FileKind::Path),
            ("cgroup1", FileKind::Cgroup1),
        ];
        let fd = if o.has("again") {
            let fd = self.open_fd(o, "again")?;
            self.world.open_again(fd)?
        } else {
            self.world.open_file(one_of(o, "kind", "file", &kinds)?)?
        };
        self.adopt(o.need_text("as")?, fd, None)
    }

    pub(super) fn socket(&mut self, o: Request<'_>) -> Outcome {
        let (unix, inet6, netlink, xdp) = one_of(
            o,
            "family",
            "inet",
            &[
                ("inet", (false, false, false, false)),
                ("inet6", (false, true, false, false)),
                ("unix", (true, false, false, false)),
                ("netlink", (false, false, true, false)),
                ("xdp", (false, false, false, true)),
            ],
        )?;
        let connect = match o.text("connect")? {
            None => None,
            Some(_) => Some(self.open_fd(o, "connect")?),
        };
        let request = SocketRequest {
            unix,
            inet6,
            netlink,
            xdp,
            stream: one_of(o, "type", "dgram", &[("dgram", false), ("stream", true)])?,
            cgroup: o.text("cgroup")?,
            bind: o.flag("bind")? || o.flag("listen")? || connect.is_some(),
            listen: o.flag("listen")?,
            connect,
            reuseport: o.flag("reuseport")?,
            connected: o.flag("connected")? || connect.is_some(),
        };
        if let Some(fd) = self.fd(o, "now")? {
            self.world.change_socket(fd, &request)?;
            return Ok(json!({}));
        }
        let fd = self.world.open_socket(&request)?;
        self.adopt(o.need_text("as")?, fd, None)
    }

    pub(super) fn pidfd(&mut self, o: Request<'_>) -> Outcome {
        let child = one_of(o, "of", "self", &[("self", false), ("child", true)])?;
        let fd = self.world.open_pidfd(child)?;
        self.adopt(o.need_text("as")?, fd, None)
    }

    pub(super) fn child_exit(&mut self, o: Request<'_>) -> Outcome {
        let fd = self.open_fd(o, "pidfd")?;
        self.world.end_child(fd)?;
        Ok(json!({}))
    }

    pub(super) fn perf_event(&mut self, o: Request<'_>) -> Outcome {
        let kinds = [
            ("bpf_output", PerfEventKind::BpfOutput),
            ("dummy", PerfEventKind::Dummy),
            ("cpu_clock", PerfEventKind::CpuClock),
        ];
        let kind = one_of(o, "kind", "bpf_output", &kinds)?;
        let fd = self.world.open_perf_event(kind, o.u32("cpu")?)?;
        self.adopt(o.need_text("as")?, fd, None)
    }

    pub(super) fn file_op(&mut self, o: Request<'_>) -> Outcome {
        let fd = self.open_fd(o, "map")?;
        let ops = [
            ("read", Some(FileOp::Read)),
            ("write", Some(FileOp::Write)),
            ("lseek", Some(FileOp::Lseek)),
            ("getfl", None),
        ];
        if let Some(op) = one_of(o, "what", "", &ops)? {
            self.world.file_op(fd, op)?;
            return Ok(json!({}));
        }
        let (accmode, cloexec) = self.world.file_mode(fd)?;
        Ok(json!({ "accmode": accmode, "cloexec": u32::from(cloexec) }))
    }

    pub(super) fn poll(&mut self, o: Request<'_>) -> Outcome {
        let fd = self.open_fd(o, "map")?;
        Ok(json!({ "events": self.world.poll(fd)? }))
    }

    pub(super) fn epoll(&mut self, o: Request<'_>) -> Outcome {
        let (fd, facts) = self.map(o)?;
        Ok(json!({ "events": self.world.epoll(fd, facts.id)? }))
    }

    // --- rights and the CPU -----------------------------------------------------------------------------------------

    pub(super) fn set_cpu(&mut self, o: Request<'_>) -> Outcome {
        self.world.set_cpu(o.u32("cpu")?)?;
        Ok(json!({}))
    }

    pub(super) fn caps(&mut self, o: Request<'_>) -> Outcome {
        let caps = match o.get("effective") {
            Some(Value::String(all)) if all == "all" => None,
            Some(Value::Array(names)) => {
                let mut caps = Caps::empty();
                for name in names {
                    let name = text("effective", name)?;
                    caps |= Caps::from_name(&name.to_ascii_uppercase())
                        .ok_or_else(|| Broken(format!("no capability \"{name}\"")))?;
                }
                Some(caps)
            }
            _ => return Err(Broken("effective is no list of names".to_owned()).into()),
        };
        self.world.set_caps(caps)?;
        Ok(json!({}))
    }

    pub(super) fn sysctl(&mut self, o: Request<'_>) -> Outcome {
        let (name, value) = (o.need_text("name")?, o.u32("value")?);
        self.world.set_sysctl(name, value)?;
        Ok(json!({}))
    }

    // --- memory mappings --------------------------------------------------------------------------------------------

    pub(super) fn mmap(&mut self, o: Request<'_>) -> Outcome {
        let request = MapRequest {
            addr: o.u64("addr")?,
            len: o.size("len")?.unwrap_or(0),
            offset: o.u64("offset")?,
            prot: prot(o)?,
            shared: !o.flag("private")?,
        };
        let name = o.need_text("map")?;
        let fd = self.names.fd_of(name).unwrap_or(u32::MAX);
        let mapping = self.world.bpf().mmap(fd, request)?;
        let answer = match request.addr {
            0 => json!({}),
            // Where it was to be, if it is there.
            _ => json!({ "addr": mapping.addr() }),
        };
        if let Some(name) = o.text("as")? {
            let old = self.names.memory.insert(name.to_owned(), mapping);
            self.names.forgotten_memory.extend(old);
        }
        Ok(answer)
    }

    fn mapping(&mut self, o: Request<'_>) -> Result<&mut Box<dyn Mapping>, Stop> {
        let name = o.need_text("mem")?;
        let mapping = self.names.memory.get_mut(name);
        Ok(mapping.ok_or(Errno::EFAULT)?)
    }

    pub(super) fn mem_read(&mut self, o: Request<'_>) -> Outcome {
        let off = o.size("off")?.unwrap_or(0);
        let mut out = vec![0; o.size("len")?.unwrap_or(0).min(MOST_BYTES)];
        self.mapping(o)?.read(off, &mut out)?;
        Ok(json!({ "value": hex(&out) }))
    }

    pub(super) fn mem_write(&mut self, o: Request<'_>) -> Outcome {
        let off = o.size("off")?.unwrap_or(0);
        let bytes = o.bytes_or_none("value")?;
        self.mapping(o)?.write(off, &bytes)?;
        Ok(json!({}))
    }

    pub(super) fn mprotect(&mut self, o: Request<'_>) -> Outcome {
        let prot = prot(o)?;
        self.mapping(o)?.protect(prot)?;
        Ok(json!({}))
    }

    pub(super) fn munmap(&mut self, o: Request<'_>) -> Outcome {
        let name = o.need_text("mem")?;
        self.names.memory.remove(name).ok_or(Errno::EINVAL)?;
        Ok(json!({}))
    }
}

fn prot(o: Request<'_>) -> Result<Prot, Broken> {
    let prot = |read, write, exec| Prot { read, write, exec };
    one_of(
        o,
        "prot",
        "rw",
        &[
            ("rw", prot(true, true, false)),
            ("r", prot(true, false, false)),
            ("w", prot(false, true, false)),
            ("rx", prot(true, false, true)),
            ("none", prot(false, false, false)),
        ],
    )
}
