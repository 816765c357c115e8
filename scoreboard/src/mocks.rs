//! Mocks, as people write them for a test.

use std::collections::{HashMap, VecDeque};

use crate::Rival;
use crate::call::{Answered, Call, Cmd, Spec};

/// A `HashMap` behind two methods: what is there is there.
struct Plain {
    elems: HashMap<Vec<u8>, Vec<u8>>,
    values: VecDeque<Vec<u8>>,
    spec: Spec,
}

/// Without flags, without capacity.
pub fn plain(spec: &Spec) -> Result<Box<dyn Rival>, String> {
    Ok(Box::new(Plain {
        elems: HashMap::new(),
        values: VecDeque::new(),
        spec: spec.clone(),
    }))
}

fn missing() -> String {
    "ENOENT".to_owned()
}

impl Plain {
    /// A queue, a stack, a Bloom filter.
    fn keyless(&mut self, call: &Call) -> Answered {
        let stack = self.spec.map_type == "stack";
        match call.cmd {
            Cmd::Update => {
                self.values.push_back(call.value.clone());
                Ok(Vec::new())
            }
            Cmd::Lookup if self.spec.map_type == "bloom_filter" => {
                let there = self.values.contains(&call.value);
                there.then(Vec::new).ok_or_else(missing)
            }
            Cmd::Lookup => {
                let next = if stack {
                    self.values.back()
                } else {
                    self.values.front()
                };
                next.cloned().ok_or_else(missing)
            }
            Cmd::Take => {
                let next = if stack {
                    self.values.pop_back()
                } else {
                    self.values.pop_front()
                };
                next.ok_or_else(missing)
            }
            Cmd::Delete | Cmd::Next => Err("EINVAL".to_owned()),
        }
    }
}

impl Rival for Plain {
    fn answer(&mut self, call: &Call) -> Answered {
        if self.spec.is_keyless() {
            return self.keyless(call);
        }
        let key = call.key.clone().unwrap_or_default();
        match call.cmd {
            Cmd::Update => {
                self.elems.insert(key, call.value.clone());
                Ok(Vec::new())
            }
            Cmd::Lookup => self.elems.get(&key).cloned().ok_or_else(missing),
            Cmd::Delete => self
                .elems
                .remove(&key)
                .map(|_| Vec::new())
                .ok_or_else(missing),
            Cmd::Take => self.elems.remove(&key).ok_or_else(missing),
            Cmd::Next => {
                let mut keys = self.elems.keys();
                if keys.clone().any(|other| *other == key) {
                    keys.find(|other| **other == key);
                }
                keys.next().cloned().ok_or_else(missing)
            }
        }
    }
}

/// One by somebody who has read the manual page: flags, capacity, arrays that are there from the start.
struct Careful {
    plain: Plain,
}

/// As bpf(2) is described in its manual page.
pub fn careful(spec: &Spec) -> Result<Box<dyn Rival>, String> {
    let mut elems = HashMap::new();
    if spec.is_array() {
        for index in 0..spec.max_entries as u32 {
            elems.insert(
                index.to_ne_bytes().to_vec(),
                vec![0; spec.user_value_size()],
            );
        }
    }
    Ok(Box::new(Careful {
        plain: Plain {
            elems,
            values: VecDeque::new(),
            spec: spec.clone(),
        },
    }))
}

impl Rival for Careful {
    fn answer(&mut self, call: &Call) -> Answered {
        let spec = &self.plain.spec;
        let errno = |name: &str| Err(name.to_owned());
        if spec.is_keyless() {
            let full = self.plain.values.len() >= spec.max_entries;
            if call.cmd == Cmd::Update && full && spec.map_type != "bloom_filter" {
                return errno("E2BIG");
            }
            return self.plain.keyless(call);
        }
        let key = call.key.clone().unwrap_or_default();
        let there = self.plain.elems.contains_key(&key);
        match call.cmd {
            Cmd::Update if call.flags > 2 => errno("EINVAL"),
            Cmd::Update if call.flags == 1 && there => errno("EEXIST"),
            Cmd::Update if call.flags == 2 && !there => errno("ENOENT"),
            Cmd::Update if !there && self.plain.elems.len() >= spec.max_entries => errno("E2BIG"),
            Cmd::Delete | Cmd::Take if spec.is_array() => errno("EINVAL"),
            Cmd::Lookup | Cmd::Update | Cmd::Delete | Cmd::Take | Cmd::Next => {
                self.plain.answer(call)
            }
        }
    }
}
