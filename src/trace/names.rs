//! What a scenario's names stand for: fds, and what is behind them; keys and values as bpf(2) takes them.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::engine::{Engine, Outcome};
use super::request::{Broken, Request, Stop, bytes, hex, number_of_32};
use super::world::MapFacts;
use crate::abi::{Errno, Fd, MapType, Mapping};

/// The fd of a name that stands for nothing.
const NO_FD: Fd = u32::MAX;

/// Zeros behind the buffers of a call: where a request's bytes are too few, the kernel reads these.
const MARGIN: usize = 4096;

/// The names of one scenario.
#[derive(Default)]
pub(super) struct Names {
    fds: HashMap<String, Fd>,
    /// In the order they got their names: the first name of a map is the one that answers have.
    maps: Vec<(String, MapFacts)>,
    last_ids: HashMap<String, u32>,
    /// Cgroups and programs keep their ids after their fds are closed.
    cgroups: Vec<(String, u64)>,
    progs: Vec<(String, u32)>,
    pub(super) memory: HashMap<String, Box<dyn Mapping>>,
    /// Mappings whose name was given again: they stay.
    pub(super) forgotten_memory: Vec<Box<dyn Mapping>>,
}

impl Names {
    /// Takes a name back; gives the fd that it stood for.
    pub(super) fn forget(&mut self, name: &str) -> Option<Fd> {
        if let Some(at) = self.maps.iter().position(|(own, _)| own == name) {
            let (own, facts) = self.maps.remove(at);
            self.last_ids.insert(own, facts.id);
        }
        self.fds.remove(name)
    }

    /// The name of the program with that id.
    fn prog_named(&self, id: u32) -> Option<&str> {
        let found = self.progs.iter().find(|(_, own)| *own == id);
        found.map(|(name, _)| name.as_str())
    }

    /// The fd of a name, if it stands for one.
    pub(super) fn fd_of(&self, name: &str) -> Option<Fd> {
        self.fds.get(name).copied()
    }

    pub(super) fn all_fds(&self) -> Vec<Fd> {
        self.fds.values().copied().collect()
    }

    pub(super) fn map_of(&self, name: &str) -> Option<&MapFacts> {
        self.maps
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, facts)| facts)
    }

    fn map_of_id(&self, id: u32) -> Option<&(String, MapFacts)> {
        self.maps.iter().find(|(_, facts)| facts.id == id)
    }

    /// The name of the map with that id.
    pub(super) fn map_named(&self, id: u32) -> Option<&str> {
        self.map_of_id(id).map(|(name, _)| name.as_str())
    }

    /// The id of the map that a name stands for or stood for last.
    pub(super) fn map_id(&self, name: &str) -> Result<u32, Stop> {
        self.map_of(name)
            .map(|facts| facts.id)
            .or_else(|| self.last_ids.get(name).copied())
            .ok_or(Stop::Errno(Errno::ENOENT))
    }

    pub(super) fn set_cgroup(&mut self, name: &str, id: u64) {
        set(&mut self.cgroups, name, id);
    }

    pub(super) fn set_prog(&mut self, name: &str, id: u32) {
        set(&mut self.progs, name, id);
    }
}

/// Gives a name a new meaning, in its old place if it has one.
fn set<T>(list: &mut Vec<(String, T)>, name: &str, value: T) {
    match list.iter_mut().find(|(own, _)| own == name) {
        Some((_, old)) => *old = value,
        None => list.push((name.to_owned(), value)),
    }
}

/// A buffer of these bytes with zeros behind it.
pub(super) fn roomy(data: &[u8], least: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(data.len().max(least) + MARGIN);
    buffer.extend_from_slice(data);
    buffer.resize(data.len().max(least) + MARGIN, 0);
    buffer
}

impl Engine<'_> {
    /// The fd that a field's name or number stands for; `None` if it is absent.
    pub(super) fn fd(&self, o: Request<'_>, field: &str) -> Result<Option<Fd>, Broken> {
        o.get(field)
            .map(|value| self.fd_of_value(field, value))
            .transpose()
    }

    pub(super) fn fd_of_value(&self, field: &str, value: &Value) -> Result<Fd, Broken> {
        match value.as_str() {
            Some(name) => Ok(self.names.fd_of(name).unwrap_or(NO_FD)),
            None => number_of_32(field, value),
        }
    }

    /// The fd of a field that has to be there.
    pub(super) fn need_fd(&self, o: Request<'_>, field: &str) -> Result<Fd, Broken> {
        self.fd_of_value(field, o.need(field)?)
    }

    /// The fd of a name that has to stand for something.
    pub(super) fn open_fd(&self, o: Request<'_>, field: &str) -> Result<Fd, Stop> {
        Ok(self.names.fd_of(o.need_text(field)?).ok_or(Errno::EBADF)?)
    }

    /// The map of a field that has to name one.
    pub(super) fn map(&self, o: Request<'_>) -> Result<(Fd, MapFacts), Stop> {
        let name = o.need_text("map")?;
        let fd = self.names.fd_of(name).ok_or(Errno::EBADF)?;
        let facts = self.names.map_of(name).ok_or(Errno::EBADF)?;
        Ok((fd, facts.clone()))
    }

    /// The map of a field, or sizes for a request that goes to something that is no map.
    pub(super) fn sizes(&self, o: Request<'_>) -> MapFacts {
        let name = o.get("map").and_then(Value::as_str);
        name.and_then(|name| self.names.map_of(name))
            .cloned()
            .unwrap_or(MapFacts {
                id: 0,
                map_type: MapType::UNSPEC,
                key_size: 8,
                value_size: 256,
                max_entries: 0,
                inner: None,
            })
    }

    /// Bytes of one value on the bpf(2) side.
    pub(super) fn value_len(&self, facts: &MapFacts) -> usize {
        if facts.map_type.is_percpu() {
            facts.value_size.next_multiple_of(8) * self.world.bpf().nr_cpus() as usize
        } else if facts.map_type.is_fd_map() {
            4
        } else {
            facts.value_size
        }
    }

    /// Gives a new fd its name.
    pub(super) fn adopt(&mut self, name: &str, fd: Fd, inner: Option<MapFacts>) -> Outcome {
        self.names.fds.insert(name.to_owned(), fd);
        if let Some(mut facts) = self.world.map_facts(fd) {
            facts.inner = match self.names.map_of_id(facts.id) {
                Some((_, known)) => known.inner.clone(),
                None => inner.map(Box::new),
            };
            self.names.maps.push((name.to_owned(), facts));
        }
        Ok(json!({}))
    }

    /// The key of a request as bytes; `None` for a null pointer.
    pub(super) fn key(&self, o: Request<'_>) -> Result<Option<Vec<u8>>, Stop> {
        let Some(key) = o.get("key") else {
            return Ok(None);
        };
        if let Value::String(text) = key {
            return Ok(Some(bytes(text)?));
        }
        let key = Request::of(key)?;
        if let Some(fd) = self.fd(key, "fd")? {
            return Ok(Some(fd.to_le_bytes().to_vec()));
        }
        let cgroup = key.need_text("cgroup")?;
        let id = self
            .names
            .cgroups
            .iter()
            .find(|(name, _)| name == cgroup)
            .map(|(_, id)| *id)
            .ok_or(Errno::ENOENT)?;
        let mut raw = id.to_le_bytes().to_vec();
        raw.extend(key.u32("attach_type")?.to_le_bytes());
        raw.extend(key.u32("pad")?.to_le_bytes());
        raw.truncate(self.map(o)?.1.key_size);
        Ok(Some(raw))
    }

    /// The value of a request as bytes; `None` for a null pointer.
    pub(super) fn value(&self, o: Request<'_>) -> Result<Option<Vec<u8>>, Stop> {
        let fd = match self.fd(o, "value_map")? {
            None => self.fd(o, "value_fd")?,
            fd => fd,
        };
        match fd {
            Some(fd) => {
                let mut raw = fd.to_le_bytes().to_vec();
                raw.resize(self.value_len(&self.sizes(o)).max(8), 0);
                Ok(Some(raw))
            }
            None => {
                let mut value = o.bytes("value")?;
                if let Some(prog) = self.fd(o, "value_prog")? {
                    value.get_or_insert_default().extend(prog.to_le_bytes());
                }
                Ok(value)
            }
        }
    }

    /// A key as answers have it.
    pub(super) fn out_key(&self, facts: &MapFacts, raw: &[u8]) -> Value {
        if matches!(
            facts.map_type,
            MapType::CGROUP_STORAGE | MapType::PERCPU_CGROUP_STORAGE
        ) && let Some((id, rest)) = raw.split_first_chunk()
        {
            let id = u64::from_le_bytes(*id);
            if let Some((name, _)) = self.names.cgroups.iter().find(|(_, own)| *own == id) {
                return match rest.first_chunk() {
                    Some(&place) => json!({
                        "cgroup": name,
                        "attach_type": u32::from_le_bytes(place),
                    }),
                    None => json!({ "cgroup": name }),
                };
            }
        }
        hex(raw)
    }

    /// A value as answers have it.
    pub(super) fn out_value(&self, facts: &MapFacts, raw: &[u8]) -> Value {
        let id = raw.first_chunk().map_or(0, |id| u32::from_le_bytes(*id));
        if facts.map_type.is_map_in_map()
            && let Some(name) = self.names.map_named(id)
        {
            return json!({ "value_map": name });
        }
        if facts.map_type.has_target_programs()
            && let Some((target, prog)) = raw.split_first_chunk::<4>()
            && let Some(id) = prog.first_chunk()
            && let Some(prog) = self.names.prog_named(u32::from_le_bytes(*id))
        {
            return json!({ "value": hex(target), "value_prog": prog });
        }
        if facts.map_type == MapType::PROG_ARRAY {
            return json!({ "value_prog": self.names.prog_named(id) });
        }
        json!({ "value": hex(&raw[..self.value_len(facts).min(raw.len())]) })
    }

    /// Values of a map of maps that are given as names or numbers.
    pub(super) fn fds_of_names(&self, o: Request<'_>, field: &str) -> Result<Vec<u8>, Broken> {
        let mut raw = Vec::new();
        for value in o.list(field)? {
            raw.extend(self.fd_of_value(field, value)?.to_le_bytes());
        }
        Ok(raw)
    }
}
