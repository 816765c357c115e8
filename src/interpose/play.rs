//! Programs can be played: a closure that is registered under a program's name does in Rust what it does, with the same maps, by
//! the helpers.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Installed;
use super::memory::ProcessMem;
use crate::abi::{Attr, Errno, Fd, OBJ_NAME_LEN, Result, UserMem};
use crate::helper::Prog;
use crate::map::Map;
use crate::map::object::{self, Object};
use crate::sys::Fds;

/// One run of a program that is played.
#[derive(Debug)]
pub struct Run<'a> {
    /// The helpers.
    pub prog: Prog,
    /// What it runs on: a packet, or the arguments of an event.
    pub data: &'a mut [u8],
    loaded: Arc<object::Prog>,
}

impl Run<'_> {
    /// A map that the program uses, by its name (which the kernel cuts to 15 bytes). A section of variables, as `.bss`, is one
    /// too: its loader may put the object's name before it.
    ///
    /// # Panics
    ///
    /// If it uses none of that name.
    #[track_caller]
    pub fn map(&self, name: &str) -> Arc<Map> {
        let maps = self.loaded.all_maps();
        let section = name.starts_with('.');
        let is_it = |map: &&Arc<Map>| {
            let (found, name) = (name_of(map), cut(name).as_bytes());
            found == name || section && found.ends_with(name)
        };
        let found = maps.iter().find(is_it);
        let Some(map) = found else {
            let names: Vec<_> = maps
                .iter()
                .map(|map| String::from_utf8_lossy(name_of(map)))
                .collect();
            panic!(
                "program {} uses no map {name}; it uses {names:?}",
                self.loaded.name
            );
        };
        Arc::clone(map)
    }
}

/// A map's name without what fills it up.
fn name_of(map: &Map) -> &[u8] {
    let name = &map.def.name;
    let len = name.iter().position(|&byte| byte == 0);
    &name[..len.unwrap_or(name.len())]
}

/// As much of a name as the kernel keeps.
fn cut(name: &str) -> &str {
    name.get(..OBJ_NAME_LEN - 1).unwrap_or(name)
}

type Play = Arc<dyn Fn(&mut Run<'_>) -> u32 + Send + Sync>;

/// What is played, by the program's name.
#[derive(Default)]
pub(super) struct Plays(Mutex<HashMap<String, Play>>);

impl fmt::Debug for Plays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.lock().keys()).finish()
    }
}

impl Plays {
    pub(super) fn add(&self, name: &str, play: Play) {
        self.0.lock().insert(cut(name).to_owned(), play);
    }

    fn get(&self, name: &str) -> Option<Play> {
        self.0.lock().get(cut(name)).map(Arc::clone)
    }
}

impl Installed {
    /// Plays the program of that name that was loaded last, on that CPU; what it returns.
    ///
    /// # Panics
    ///
    /// If none is loaded, or nothing is registered under its name.
    #[track_caller]
    pub(super) fn fire(&self, name: &str, cpu: u32, data: &mut [u8]) -> u32 {
        let loaded = self.kernel.progs();
        let loaded = loaded.into_iter().rev().find(|prog| prog.name == cut(name));
        let loaded = loaded.unwrap_or_else(|| panic!("no program {name} is loaded"));
        let play = self.plays.get(name);
        let play = play.unwrap_or_else(|| panic!("nothing is played for program {name}"));
        run(&play, loaded, cpu, data)
    }
}

fn run(play: &Play, loaded: Arc<object::Prog>, cpu: u32, data: &mut [u8]) -> u32 {
    play(&mut Run {
        prog: Prog::new(loaded.prog_type, cpu),
        data,
        loaded,
    })
}

/// Offsets in the attr of `BPF_PROG_TEST_RUN`.
mod at {
    pub(super) const RETVAL: u64 = 4;
    pub(super) const DATA_SIZE_IN: usize = 8;
    pub(super) const DATA_SIZE_OUT: usize = 12;
    pub(super) const DATA_IN: usize = 16;
    pub(super) const DATA_OUT: usize = 24;
    pub(super) const REPEAT: usize = 32;
    pub(super) const END: usize = 76;
}

/// `BPF_PROG_TEST_RUN` of a program that is played; `None` if it is not.
///
/// Kernel: `net/bpf/test_run.c:bpf_prog_test_run_skb`, for what comes back.
pub(super) fn test_run(
    installed: &Installed,
    fds: &dyn Fds,
    (addr, size): (u64, u32),
    mem: &mut ProcessMem,
) -> Option<Result<u32>> {
    let mut bytes = [0; at::END + 4];
    let given = bytes.len().min(size as usize);
    mem.read(addr, &mut bytes[..given]).ok()?;
    let attr = Attr(&bytes);
    let file = fds
        .get(Fd::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .ok()?;
    let Object::Prog(loaded) = file.object() else {
        return None;
    };
    let play = installed.plays.get(&loaded.name)?;
    Some(played(&play, &loaded, attr, addr, mem))
}

fn played(
    play: &Play,
    loaded: &Arc<object::Prog>,
    attr: Attr<'_>,
    addr: u64,
    mem: &mut ProcessMem,
) -> Result<u32> {
    /// Bytes of a packet at most: a page, but for what lies around it.
    const DATA_MAX: u32 = 1 << 20;
    let len = attr.u32(at::DATA_SIZE_IN);
    if len > DATA_MAX {
        return Err(Errno::EINVAL);
    }
    let mut data = vec![0; len as usize];
    mem.read(attr.u64(at::DATA_IN), &mut data)?;
    let mut returned = 0;
    for _ in 0..attr.u32(at::REPEAT).max(1) {
        returned = run(play, Arc::clone(loaded), 0, &mut data);
    }
    let (out, room) = (attr.u64(at::DATA_OUT), attr.u32(at::DATA_SIZE_OUT));
    // Without room for it, all of it is written: as long as nobody says how much there is.
    let fits = room == 0 || room >= len;
    if out != 0 {
        let copied = if fits { data.len() } else { room as usize };
        mem.write(out, &data[..copied])?;
    }
    mem.write(addr + at::DATA_SIZE_OUT as u64, &len.to_ne_bytes())?;
    mem.write(addr + at::RETVAL, &returned.to_ne_bytes())?;
    if fits { Ok(0) } else { Err(Errno::ENOSPC) }
}
