//! What the program asked and was answered, as a trace that can be replayed: one line for each call that has to do with maps.
//!
//! A file of a map has the map's name as long as it is open: `map1`, and another of the same map `map1_2`. What is left out is
//! said in a line that a replay passes over.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::caller::Caller;
use super::memory::TaskMem;
use super::placeholder::Inode;
use super::record_asked::parts;
use super::table::Entry;
use crate::Kernel;
use crate::abi::{Attr, BatchAttr, Cmd, Errno, Fd, MapRequest, MapType, Result, UserMem};
use crate::map::MapDef;
use crate::map::object::{Object, OtherKind, Socket};
use crate::sys::{Fds as _, FileKind, OpenFile};

/// Room for an attr of any release.
const ATTR_ROOM: usize = 256;
/// A number that is no open fd in any trace.
const NOT_OPEN: Fd = 1000;

/// See the module.
#[derive(Debug)]
pub(super) struct Recorder(Mutex<State>);

#[derive(Debug)]
pub(super) struct State {
    out: BufWriter<File>,
    pub(super) nr_cpus: u32,
    /// Names of files, by their ids.
    names: HashMap<u64, String>,
    /// What sockets were at their last mention, by the ids of their files.
    sockets: HashMap<u64, Socket>,
    /// How many names of an object were given.
    given: HashMap<FileKind, u32>,
    /// The names of each map, by its id: those of its open files, in order.
    maps: HashMap<u32, Vec<String>>,
    /// Of maps of which no file is open: the last name.
    gone: HashMap<u32, String>,
    progs: HashMap<u32, String>,
    /// Mappings that can be written, by the file of their map: their names.
    mappings: HashMap<Inode, Vec<String>>,
    /// Maps that were ever mapped so: what is in them is not only what calls put there.
    written: HashSet<u32>,
}

/// A call that is being recorded.
pub(super) struct Call {
    cmd: Cmd,
    attr: [u8; ATTR_ROOM],
    addr: u64,
    /// The request, as far as it is known before the answer; none for a call that is left out.
    request: Option<Map<String, Value>>,
    def: Option<MapDef>,
    map: Option<u32>,
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn errno(errno: Errno) -> Value {
    match errno.name() {
        Some(name) => json!(name),
        None => json!(format!("errno {}", errno.number())),
    }
}

impl Recorder {
    /// Begins a trace.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub(super) fn new(file: File, kernel: &Kernel) -> io::Result<Self> {
        let env = kernel.env();
        let mut state = State {
            out: BufWriter::new(file),
            nr_cpus: env.nr_cpus,
            names: HashMap::new(),
            sockets: HashMap::new(),
            given: HashMap::new(),
            maps: HashMap::new(),
            gone: HashMap::new(),
            progs: HashMap::new(),
            mappings: HashMap::new(),
            written: HashSet::new(),
        };
        let header = json!({
            "trace": 1,
            "name": "run",
            "about": "what a program asked of emulated maps",
            "kernel": env.release.name,
            "release": env.release.name,
            "arch": std::env::consts::ARCH,
            "cpus": env.nr_cpus,
        });
        writeln!(state.out, "{header}")?;
        state.out.flush()?;
        Ok(Self(Mutex::new(state)))
    }

    /// What is asked, before it is answered.
    pub(super) fn request(
        &self,
        caller: &Caller<'_>,
        cmd: Cmd,
        addr: u64,
        size: u32,
        mem: &TaskMem<'_>,
    ) -> Call {
        let mut attr = [0; ATTR_ROOM];
        let given = (size as usize).min(ATTR_ROOM);
        let mut call = Call {
            cmd,
            attr,
            addr,
            request: None,
            def: None,
            map: None,
        };
        if mem.read(addr, &mut attr[..given]).is_err() {
            return call;
        }
        call.attr = attr;
        let mut state = self.0.lock();
        call.request = state.asked(
            caller,
            (&mut call.def, &mut call.map),
            cmd,
            Attr(&attr),
            mem,
        );
        if call.request.is_none() && is_of_maps(cmd) {
            state.leave_out(cmd);
        }
        call
    }

    /// What was answered.
    pub(super) fn answer(
        &self,
        caller: &Caller<'_>,
        mut call: Call,
        answer: Result<u32>,
        mem: &TaskMem<'_>,
    ) {
        let Some(mut request) = call.request.take() else {
            return;
        };
        let mut state = self.0.lock();
        if gives_fd(call.cmd) {
            let name = match caller.installed.lock().take() {
                Some(file) => state.name(&file),
                None => "refused".to_owned(),
            };
            request.insert("as".to_owned(), json!(name));
        }
        if call.cmd == Cmd::PROG_LOAD && answer.is_err() {
            // What a trace knows of programs is too little to be refused for.
            return;
        }
        if let Some(path) = &*caller.inside.lock() {
            request.insert("path".to_owned(), json!(path.rsplit('/').next()));
        } else if matches!(call.cmd, Cmd::OBJ_PIN | Cmd::OBJ_GET) {
            state.leave_out(call.cmd);
            return;
        }
        let attr = Attr(&call.attr);
        if is_elem(call.cmd) && answer == Err(Errno::EFAULT) && !request.contains_key("key_ptr") {
            // What was read was there: the answer found no place.
            let field = match call.cmd {
                Cmd::MAP_GET_NEXT_KEY => "next_key_ptr",
                _ => "value_ptr",
            };
            let what = if attr.u64(16) == 0 { "null" } else { "bad" };
            request.insert(field.to_owned(), json!(what));
        }
        let mut got = Map::new();
        let batch = is_batch(call.cmd);
        let ended_well = answer.is_ok() || batch && answer == Err(Errno::ENOENT);
        if let Err(failed) = answer {
            got.insert("err".to_owned(), errno(failed));
        }
        if batch {
            state.batch_answer(&call, attr, ended_well, answer.is_ok(), &mut got, mem);
        } else if answer.is_ok() {
            let read = state.answered(&call, attr, &mut got, mem);
            if read.is_none() {
                state.leave_out(call.cmd);
                return;
            }
        }
        state.write(&request, &got);
    }

    /// mmap(2) of a map, whose placeholder has that inode.
    pub(super) fn mapped(
        &self,
        inode: Inode,
        file: &OpenFile,
        request: MapRequest,
        answer: Result<()>,
    ) {
        let mut state = self.0.lock();
        let (FileKind::Map(id), Some(name)) = (file.kind(), state.names.get(&file.id())) else {
            return;
        };
        let name = name.clone();
        let prot = match (request.prot.read, request.prot.write, request.prot.exec) {
            (_, true, false) if request.prot.read => "rw",
            (false, true, false) => "w",
            (true, false, false) => "r",
            (true, false, true) => "rx",
            (false, false, false) => "none",
            _ => return,
        };
        let mut asked = json!({
            "op": "mmap", "map": name, "len": request.len, "offset": request.offset, "prot": prot,
            "private": !request.shared,
        });
        let got = match answer {
            Ok(()) if request.prot.write => {
                state.written.insert(id);
                let number = state.given.entry(FileKind::Other(0)).or_insert(0);
                *number += 1;
                let memory = format!("memory{number}");
                asked["as"] = json!(memory);
                state.mappings.entry(inode).or_default().push(memory);
                json!({})
            }
            Ok(()) => json!({}),
            Err(failed) => json!({ "err": errno(failed) }),
        };
        state.line(&asked, &got);
    }

    /// No mapping of a file is left that can be written.
    pub(super) fn unmapped(&self, inode: Inode) {
        let mut state = self.0.lock();
        for memory in state.mappings.remove(&inode).unwrap_or_default() {
            state.line(&json!({ "op": "munmap", "mem": memory }), &json!({}));
        }
    }

    /// The last fd of a file was closed.
    pub(super) fn closed(&self, entry: &Entry) {
        self.unmapped(entry.inode);
        let mut state = self.0.lock();
        for file in entry.files() {
            let Some(name) = state.names.remove(&file.id()) else {
                continue;
            };
            state.line(&json!({ "op": "close", "map": name }), &json!({}));
            if let FileKind::Map(id) = file.kind()
                && let Some(names) = state.maps.get_mut(&id)
            {
                names.retain(|own| *own != name);
                if names.is_empty() {
                    state.gone.insert(id, name);
                }
            }
        }
    }

    /// A socket was closed.
    pub(super) fn ended(&self, socket: &OpenFile) {
        let mut state = self.0.lock();
        state.sockets.remove(&socket.id());
        if let Some(name) = state.names.remove(&socket.id()) {
            state.line(&json!({ "op": "close", "map": name }), &json!({}));
        }
    }

    /// A pin was removed.
    pub(super) fn unlinked(&self, path: &str) {
        let name = path.rsplit('/').next();
        let mut state = self.0.lock();
        state.line(&json!({ "op": "unlink", "path": name }), &json!({}));
    }
}

pub(super) fn is_batch(cmd: Cmd) -> bool {
    (Cmd::MAP_LOOKUP_BATCH..=Cmd::MAP_DELETE_BATCH).contains(&cmd)
}

fn gives_fd(cmd: Cmd) -> bool {
    matches!(
        cmd,
        Cmd::MAP_CREATE | Cmd::OBJ_GET | Cmd::MAP_GET_FD_BY_ID | Cmd::BTF_LOAD | Cmd::PROG_LOAD
    )
}

/// How something that is no BPF object comes to be in a trace.
fn declared(file: &OpenFile, name: &str) -> Value {
    let Object::Other(object) = file.object() else {
        return json!({ "op": "file", "as": name });
    };
    match &object.kind {
        OtherKind::PerfEvent(event) => {
            json!({ "op": "perf_event", "as": name, "kind": "bpf_output", "cpu": event.cpu })
        }
        OtherKind::Pidfd if object.has_ended() => {
            json!({ "op": "pidfd", "as": name, "of": "child" })
        }
        OtherKind::Pidfd => json!({ "op": "pidfd", "as": name }),
        OtherKind::Socket(met) => {
            let mut declared = socket(object.socket().unwrap_or(*met));
            declared["as"] = json!(name);
            declared
        }
        OtherKind::File | OtherKind::Cgroup1 | OtherKind::Netns | OtherKind::Link => {
            json!({ "op": "file", "as": name })
        }
    }
}

fn socket(socket: Socket) -> Value {
    let family = match socket {
        Socket { unix: true, .. } => "unix",
        Socket { xdp: true, .. } => "xdp",
        Socket { other: true, .. } => "netlink",
        Socket { .. } => "inet",
    };
    json!({
        "op": "socket", "family": family, "type": if socket.stream { "stream" } else { "dgram" },
        "bind": socket.bound, "listen": socket.listening, "connected": socket.connected,
        "reuseport": socket.reuseport,
    })
}

/// A trace says so where such a call is left out.
fn is_of_maps(cmd: Cmd) -> bool {
    is_batch(cmd) || gives_fd(cmd) || is_elem(cmd) || cmd == Cmd::OBJ_PIN
}

pub(super) fn is_elem(cmd: Cmd) -> bool {
    (Cmd::MAP_LOOKUP_ELEM..=Cmd::MAP_GET_NEXT_KEY).contains(&cmd)
        || cmd == Cmd::MAP_LOOKUP_AND_DELETE_ELEM
}

impl State {
    fn line(&mut self, asked: &Value, got: &Value) {
        let line = json!({ "do": asked, "got": got });
        // A full disk is no reason to end the program.
        let _ = writeln!(self.out, "{line}");
        let _ = self.out.flush();
    }

    fn write(&mut self, request: &Map<String, Value>, got: &Map<String, Value>) {
        self.line(&Value::Object(request.clone()), &Value::Object(got.clone()));
    }

    fn leave_out(&mut self, cmd: Cmd) {
        let _ = writeln!(self.out, "# left out: {cmd}");
    }

    /// A file's name, which it gets with the first question.
    pub(super) fn name(&mut self, file: &OpenFile) -> String {
        let kind = file.kind();
        let (word, id) = match kind {
            FileKind::Map(id) => ("map", u64::from(id)),
            FileKind::Prog(id) => ("prog", u64::from(id)),
            FileKind::Link(id) => ("link", u64::from(id)),
            FileKind::Btf(id) => ("btf", u64::from(id)),
            FileKind::Cgroup(id) => ("cgroup", id),
            FileKind::Other(id) => ("file", id),
        };
        if let Some(name) = self.names.get(&file.id()).cloned() {
            self.tell_socket(file, &name);
            return name;
        }
        let number = self.given.entry(kind).or_insert(0);
        *number += 1;
        let name = match *number {
            1 => format!("{word}{id}"),
            number => format!("{word}{id}_{number}"),
        };
        self.names.insert(file.id(), name.clone());
        match kind {
            FileKind::Map(id) => self.maps.entry(id).or_default().push(name.clone()),
            FileKind::Prog(id) => drop(self.progs.entry(id).or_insert_with(|| name.clone())),
            FileKind::Other(_) => {
                let declared = declared(file, &name);
                self.line(&declared, &json!({}));
                self.tell_socket(file, &name);
                if declared.get("of").is_some() {
                    self.line(&json!({ "op": "child_exit", "pidfd": name }), &json!({}));
                }
            }
            FileKind::Link(_) | FileKind::Btf(_) | FileKind::Cgroup(_) => {}
        }
        name
    }

    /// Tells what a socket is by now, if that has changed.
    fn tell_socket(&mut self, file: &OpenFile, name: &str) {
        if let Object::Other(object) = file.object()
            && let Some(now) = object.socket()
            && self
                .sockets
                .insert(file.id(), now)
                .is_some_and(|then| then != now)
        {
            let mut told = socket(now);
            told["now"] = json!(name);
            self.line(&told, &json!({}));
        }
    }

    /// An fd as a trace has it: a name, or a number that is not open.
    pub(super) fn fd(&mut self, caller: &Caller<'_>, fd: Fd) -> Value {
        match caller.get(fd) {
            Ok(file) => json!(self.name(&file)),
            Err(_) if fd.cast_signed() < 0 => json!(-1),
            Err(_) => json!(NOT_OPEN),
        }
    }

    fn batch_answer(
        &mut self,
        call: &Call,
        attr: Attr<'_>,
        ended_well: bool,
        succeeded: bool,
        got: &mut Map<String, Value>,
        mem: &TaskMem<'_>,
    ) {
        let batch = BatchAttr::decode(attr);
        let mut count = [0; 4];
        let read = mem.read(call.addr.wrapping_add(32), &mut count);
        let done = read.map_or(batch.count, |()| u32::from_ne_bytes(count));
        got.insert("done".to_owned(), json!(done));
        let (Some(def), true) = (&call.def, ended_well) else {
            return;
        };
        let lookup = matches!(
            call.cmd,
            Cmd::MAP_LOOKUP_BATCH | Cmd::MAP_LOOKUP_AND_DELETE_BATCH
        );
        if !lookup {
            return;
        }
        let sizes = [
            ("keys", batch.keys, def.key_size as usize),
            ("values", batch.values, def.user_value_size(self.nr_cpus)),
        ];
        for (field, addr, size) in sizes {
            got.insert(
                field.to_owned(),
                json!(parts(mem, addr, size, done).concat()),
            );
        }
        if def.map_type.is_fd_map() {
            got.remove("values");
            let ids = parts(mem, batch.values, 4, done);
            let names = ids.iter().map(|id| self.map_with_id(id));
            let names: Vec<_> = names.collect();
            got.insert("value_maps".to_owned(), json!(names));
        }
        if succeeded && done != 0 {
            let hashed = format!("{}", def.map_type).contains("HASH");
            let size = if hashed { 4 } else { def.key_size as usize };
            let mut token = vec![0; size];
            if mem.read(batch.out_batch, &mut token).is_ok() {
                got.insert("out_batch".to_owned(), json!(hex(&token)));
            }
        }
    }

    /// The call is for a map that was written without calls.
    fn is_written(&self, call: &Call) -> bool {
        call.map.is_some_and(|id| self.written.contains(&id))
    }

    /// The name of an open file of a map.
    fn open_name(&self, id: u32) -> Option<&String> {
        self.maps.get(&id)?.first()
    }

    /// What a map is called, or was called last.
    pub(super) fn map_name(&self, id: u32) -> Option<&String> {
        self.open_name(id).or_else(|| self.gone.get(&id))
    }

    fn map_with_id(&self, id: &str) -> Value {
        let swapped = u32::from_str_radix(id, 16).unwrap_or(0);
        json!(self.open_name(swapped.swap_bytes()))
    }

    fn answered(
        &mut self,
        call: &Call,
        attr: Attr<'_>,
        got: &mut Map<String, Value>,
        mem: &TaskMem<'_>,
    ) -> Option<()> {
        match call.cmd {
            Cmd::MAP_GET_NEXT_ID => {
                let mut id = [0; 4];
                mem.read(call.addr.wrapping_add(4), &mut id).ok()?;
                let name = self.open_name(u32::from_ne_bytes(id))?;
                got.insert("map".to_owned(), json!(name));
            }
            Cmd::MAP_LOOKUP_ELEM | Cmd::MAP_LOOKUP_AND_DELETE_ELEM => {
                let def = call.def.as_ref()?;
                let size = def.user_value_size(self.nr_cpus);
                let mut value = vec![0; size];
                mem.read(attr.u64(16), &mut value).ok()?;
                let id = value.first_chunk().map_or(0, |id| u32::from_ne_bytes(*id));
                match def.map_type {
                    MapType::ARRAY_OF_MAPS | MapType::HASH_OF_MAPS => {
                        got.insert("value_map".to_owned(), json!(self.open_name(id)));
                    }
                    MapType::PROG_ARRAY => {
                        got.insert("value_prog".to_owned(), json!(self.progs.get(&id)));
                    }
                    map_type if holds_sockets(map_type) || self.is_written(call) => {
                        got.insert("value".to_owned(), json!("*"));
                    }
                    _ => drop(got.insert("value".to_owned(), json!(hex(&value)))),
                }
            }
            Cmd::MAP_GET_NEXT_KEY => {
                let mut key = vec![0; call.def.as_ref()?.key_size as usize];
                mem.read(attr.u64(16), &mut key).ok()?;
                got.insert("next_key".to_owned(), json!(hex(&key)));
            }
            _ => {}
        }
        Some(())
    }
}

pub(super) fn holds_sockets(map_type: MapType) -> bool {
    [
        MapType::SOCKMAP,
        MapType::SOCKHASH,
        MapType::XSKMAP,
        MapType::REUSEPORT_SOCKARRAY,
    ]
    .contains(&map_type)
}
