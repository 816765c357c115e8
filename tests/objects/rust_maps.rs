//! Maps declared in Rust, in the layout that aya's `#[map]` gives them. See tests/objects.rs for how it is compiled.

#![allow(internal_features, reason = "there is no `core` for BPF without building it")]
#![feature(no_core, lang_items, auto_traits)]
#![no_core]
#![crate_type = "lib"]

#[lang = "pointee_sized"]
pub trait PointeeSized {}
#[lang = "meta_sized"]
pub trait MetaSized: PointeeSized {}
#[lang = "sized"]
pub trait Sized: MetaSized {}
#[lang = "copy"]
pub trait Copy {}
#[lang = "sync"]
pub trait Sync {}
#[lang = "freeze"]
pub unsafe auto trait Freeze {}
#[lang = "drop_glue"]
fn drop_glue<T: PointeeSized>(_: &mut T) {}

impl Sync for Map {}
impl Sync for u32 {}
impl Copy for u32 {}

/// `aya_ebpf_bindings::bpf_map_def`
#[repr(C)]
pub struct Map {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    id: u32,
    pinning: u32,
}

#[unsafe(link_section = "maps")]
#[unsafe(export_name = "BLOCKLIST")]
pub static BLOCKLIST: Map = Map {
    map_type: 11, // LPM_TRIE
    key_size: 8,
    value_size: 4,
    max_entries: 1024,
    map_flags: 1, // BPF_F_NO_PREALLOC
    id: 0,
    pinning: 1, // by name
};

#[unsafe(link_section = "maps")]
#[unsafe(export_name = "EVENTS")]
pub static EVENTS: Map = Map {
    map_type: 4, // PERF_EVENT_ARRAY
    key_size: 4,
    value_size: 4,
    max_entries: 0,
    map_flags: 0,
    id: 0,
    pinning: 0,
};

/// Set by the loader: aya's globals are such constants.
#[unsafe(no_mangle)]
pub static LIMIT: u32 = 100;
