//! Maps from object files: what libbpf makes of them on Linux 6.18 is what is made here.
//!
//! The objects in `tests/objects` come from the C files beside them:
//!
//! ```sh
//! clang --target=bpf -O2 -g -c NAME.bpf.c -o NAME.o && llvm-strip -g NAME.o
//! rustc +nightly --target bpfel-unknown-none -O --emit=asm -o rust_maps.s rust_maps.rs
//! clang --target=bpf -c rust_maps.s -o rust_maps.o
//! ```
//!
//! The lines that are expected were printed by a program with libbpf 1.7 (0.8 for the old style) on Linux 6.18.

#![cfg(feature = "object")]

use std::fmt::Write as _;

use mapemu::abi::{Bpf, Errno, Fd, MapFlags, MapType};
use mapemu::calls;
use mapemu::object::{Loaded, LoadedMap, Object, ObjectError};
use mapemu::sys::Kernel;

const BTF_MAPS: &[u8] = include_bytes!("objects/btf_maps.o");
const LEGACY_MAPS: &[u8] = include_bytes!("objects/legacy_maps.o");
const RUST_MAPS: &[u8] = include_bytes!("objects/rust_maps.o");
const MIXED_MAPS: &[u8] = include_bytes!("objects/mixed_maps.o");

#[track_caller]
fn parse(bytes: &[u8], name: &str) -> Object {
    Object::parse(bytes, name).expect("an object")
}

/// One line for each map, as the program with libbpf prints it.
fn describe(loaded: &Loaded<'_>) -> String {
    let mut text = String::new();
    for map in loaded {
        describe_map(loaded.bpf(), map, &mut text).expect("a string takes all");
    }
    text
}

fn describe_map(bpf: &dyn Bpf, map: &LoadedMap, out: &mut String) -> std::fmt::Result {
    let fd = map.fd.expect("not taken");
    let info = calls::bpf_map_get_info_by_fd(bpf, fd).expect("info");
    write!(
        out,
        "{} kernel={} type={} key={} value={} max={} flags={:#x} extra={} btf={} k={} v={}",
        map.decl.name,
        name_of(&info.name),
        info.map_type.0,
        info.key_size,
        info.value_size,
        info.max_entries,
        info.map_flags.bits(),
        info.map_extra,
        u8::from(info.btf_id != 0),
        info.btf_key_type_id,
        info.btf_value_type_id,
    )?;
    if map.decl.kind.is_variables() {
        let mut value = vec![0; info.value_size as usize];
        calls::bpf_map_lookup_elem(bpf, fd, &[0; 4], &mut value).expect("the only element");
        out.push_str(" =");
        for byte in &value {
            write!(out, "{byte:02x}")?;
        }
        let is_frozen = calls::bpf_map_update_elem(bpf, fd, &[0; 4], &value, 0).is_err();
        write!(out, " frozen={}", u8::from(is_frozen))?;
    }
    if info.map_type.is_map_in_map() {
        for slot in 0..info.max_entries {
            let mut id = [0; 4];
            if calls::bpf_map_lookup_elem(bpf, fd, &slot.to_ne_bytes(), &mut id).is_ok() {
                let id = u32::from_ne_bytes(id);
                let inner = calls::bpf_map_get_fd_by_id(bpf, id).expect("an id");
                let info = calls::bpf_map_get_info_by_fd(bpf, inner).expect("info");
                write!(out, " [{slot}]={}", name_of(&info.name))?;
            }
        }
    }
    writeln!(out)
}

fn name_of(name: &[u8]) -> String {
    let end = name.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&name[..end.unwrap_or(name.len())]).into_owned()
}

#[test]
fn maps_of_btf_and_of_variables_are_as_libbpf_makes_them() {
    let kernel = Kernel::new();
    let object = parse(BTF_MAPS, "btf_maps");
    let loaded = object.create(&kernel, None).expect("all are made");
    assert_eq!(loaded.btf_error(), None);
    assert_eq!(describe(&loaded), include_str!("objects/btf_maps.txt"));
}

#[test]
fn maps_in_the_old_style_come_first_with_the_types_that_were_annotated() {
    let kernel = Kernel::new();
    let object = parse(LEGACY_MAPS, "legacy_maps");
    let loaded = object.create(&kernel, None).expect("all are made");
    assert_eq!(describe(&loaded), include_str!("objects/legacy_maps.txt"));
}

#[test]
fn both_styles_and_names_of_the_kernel_go_together() {
    let kernel = Kernel::new();
    let object = parse(MIXED_MAPS, "mixed");
    let names: Vec<_> = object.maps().iter().map(|decl| &*decl.name).collect();
    assert_eq!(names, ["shared", "recent"]);
    assert!(
        object.maps()[0].pin_by_name,
        "the seventh field of its struct"
    );
    let loaded = object.create(&kernel, None).expect("all are made");
    assert_eq!(
        loaded.btf_error(),
        None,
        "what is the kernel's was made ordinary"
    );
    let recent = loaded.map("recent").expect("a map");
    let info = calls::bpf_map_get_info_by_fd(&kernel, recent).expect("info");
    assert_eq!(info.map_type, MapType::LRU_HASH);
}

#[test]
fn maps_from_rust_are_those_of_their_statics() {
    let kernel = Kernel::builder().cpus(3).build();
    let object = parse(RUST_MAPS, "rust_maps");
    assert_eq!(object.btf(), None);
    assert!(
        object.maps()[0].pin_by_name,
        "as aya reads the seventh field"
    );
    let loaded = object.create(&kernel, None).expect("all are made");
    assert_eq!(
        describe(&loaded),
        "BLOCKLIST kernel=BLOCKLIST type=11 key=8 value=4 max=1024 flags=0x1 extra=0 btf=0 k=0 v=0\n\
         EVENTS kernel=EVENTS type=4 key=4 value=4 max=3 flags=0x0 extra=0 btf=0 k=0 v=0\n\
         .rodata.LIMIT kernel=.rodata.LIMIT type=2 key=4 value=4 max=1 flags=0x80 extra=0 btf=0 k=0 v=0 \
         =64000000 frozen=1\n"
    );
}

/// The running kernel makes the same of the same calls, types that it refuses included.
#[cfg(all(feature = "host", target_os = "linux"))]
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
#[test]
fn the_running_kernel_makes_the_same_maps() {
    let host = match mapemu::host::Host::new() {
        Ok(host) => host,
        Err(why) => {
            let required =
                std::env::var_os("MAPEMU_REQUIRE_HOST").is_some_and(|value| value == "1");
            assert!(!required, "{why}");
            eprintln!("skipped on the running kernel: {why}");
            return;
        }
    };
    let kernel = Kernel::builder().cpus(host.nr_cpus()).build();
    for bytes in [BTF_MAPS, LEGACY_MAPS, MIXED_MAPS, RUST_MAPS] {
        let mut object = parse(bytes, "some_object");
        for decl in object.maps_mut() {
            decl.pin_by_name = false;
        }
        let here = object.create(&kernel, None).expect("all are made");
        let there = object.create(&host, None).expect("all are made");
        assert_eq!(here.btf_error(), there.btf_error());
        assert_eq!(describe(&here), describe(&there));
    }
}

#[test]
fn a_pinned_map_is_used_again_if_it_is_alike() {
    let kernel = Kernel::new();
    kernel.mkdir("/sys/fs/bpf/app").expect("a directory");
    let object = parse(BTF_MAPS, "btf_maps");
    let id = |loaded: &Loaded<'_>| {
        let fd = loaded.map("pinned").expect("a map");
        calls::bpf_map_get_info_by_fd(&kernel, fd).expect("info").id
    };
    let first = object
        .create(&kernel, Some("/sys/fs/bpf/app"))
        .expect("all are made");
    let first_id = id(&first);
    drop(first);
    let again = object
        .create(&kernel, Some("/sys/fs/bpf/app"))
        .expect("all are made");
    assert_eq!(id(&again), first_id);
    assert!(
        again
            .iter()
            .any(|map| map.was_pinned && map.decl.name == "pinned")
    );

    let mut other = object.clone();
    other.map_mut("pinned").expect("declared").def.max_entries = 3;
    let error = other
        .create(&kernel, Some("/sys/fs/bpf/app"))
        .expect_err("not alike");
    assert_eq!(
        error.to_string(),
        "`pinned` in section `.maps`: the map that is pinned at /sys/fs/bpf/app/pinned is not like it"
    );
    let error = object
        .create(&kernel, Some("/sys/fs/bpf/none"))
        .expect_err("no directory");
    assert_eq!(
        error,
        ObjectError::Call {
            section: ".maps".into(),
            symbol: "pinned".into(),
            call: "bpf_obj_pin",
            errno: Errno::ENOENT,
        }
    );
}

#[test]
fn fds_are_closed_but_for_those_taken() {
    let kernel = Kernel::new();
    let object = parse(BTF_MAPS, "btf_maps");
    let mut loaded = object.create(&kernel, None).expect("all are made");
    let fds: Vec<Fd> = loaded.iter().filter_map(|map| map.fd).collect();
    let taken = loaded.take("events").expect("a map");
    assert_eq!(loaded.map("events"), None);
    assert_eq!(loaded.maps().len(), fds.len());
    let btf = loaded.btf().expect("BTF");
    drop(loaded);
    for fd in fds.into_iter().chain([btf]) {
        let is_open = kernel.close(fd).is_ok();
        assert_eq!(is_open, fd == taken, "fd {fd}");
    }
}

#[test]
fn declarations_can_be_changed_before_the_maps_are_made() {
    let kernel = Kernel::new();
    let mut object = parse(BTF_MAPS, "btf_maps");
    object.map_mut(".rodata").expect("a section").contents[0] = 9;
    object.map_mut("zz_flows").expect("declared").def.map_flags = MapFlags::empty();
    let loaded = object.create(&kernel, None).expect("all are made");
    let mut value = [0; 10];
    let rodata = loaded.map(".rodata").expect("a section");
    assert_eq!(loaded.map("btf_maps.rodata"), Some(rodata));
    calls::bpf_map_lookup_elem(&kernel, rodata, &[0; 4], &mut value).expect("the only element");
    assert_eq!(&value, b"\x09\0\0\0hello\0");
    let frozen = calls::bpf_map_update_elem(&kernel, rodata, &[0; 4], &value, 0);
    assert_eq!(frozen, Err(Errno::EPERM));
    let flows = loaded.map("zz_flows").expect("declared");
    let info = calls::bpf_map_get_info_by_fd(&kernel, flows).expect("info");
    assert_eq!(info.map_flags, MapFlags::empty());
}

#[test]
fn what_is_no_object_is_refused() {
    for bytes in [
        &b""[..],
        b"\x7fELF",
        b"not an object, but long enough to hold a header of ELF's",
    ] {
        let error = Object::parse(bytes, "x").expect_err("refused");
        assert!(matches!(error, ObjectError::NotAnObject { .. }), "{error}");
    }
    // This test's own program is for another machine.
    let own = std::env::current_exe().expect("a path");
    let own = std::fs::read(own).expect("readable");
    let error = Object::parse(&own, "x").expect_err("refused");
    assert_eq!(
        error.to_string(),
        "not a BPF object: not a relocatable file for the machine BPF"
    );
}

/// Renames a section or member, to one as long.
fn rename(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let mut found = 0;
    for at in 0..bytes.len() - from.len() {
        if &bytes[at..at + from.len()] == from.as_bytes() {
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
            found += 1;
        }
    }
    assert!(found > 0, "{from} is not there");
    bytes
}

#[test]
fn errors_name_section_and_symbol() {
    for (bytes, from, to, words) in [
        (
            MIXED_MAPS,
            ".ksyms\0",
            ".kconf\0",
            "section `.kconf`: BTF names it, but it is not there or empty",
        ),
        (
            BTF_MAPS,
            "\0max_entries\0",
            "\0max_entriez\0",
            "`inner_one` in section `.maps`: member `max_entriez`: no such member of a map's definition",
        ),
        (
            BTF_MAPS,
            "\0.data.custom\0",
            "\0.struct_ops\0\0",
            "section `.struct_ops`: maps of kernel operations are not emulated",
        ),
        (
            BTF_MAPS,
            "\0type\0",
            "\0tipe\0",
            "`inner_one` in section `.maps`: member `tipe`: no such member of a map's definition",
        ),
    ] {
        let error = Object::parse(&rename(bytes, from, to), "x").expect_err(words);
        assert_eq!(error.to_string(), words);
    }
}

#[test]
fn a_map_that_the_kernel_refuses_is_named_and_nothing_stays_open() {
    let kernel = Kernel::new();
    let mut object = parse(BTF_MAPS, "btf_maps");
    object.map_mut("jobs").expect("declared").def.key_size = 4;
    let error = object
        .create(&kernel, None)
        .expect_err("a queue has no keys");
    assert_eq!(
        error.to_string(),
        "`jobs` in section `.maps`: bpf_map_create: EINVAL: an argument is not valid"
    );
    assert_eq!(
        calls::bpf_map_get_next_id(&kernel, 0).err(),
        None,
        "the pinned one stays"
    );
    kernel.unlink("/sys/fs/bpf/pinned").expect("it was pinned");
    assert_eq!(calls::bpf_map_get_next_id(&kernel, 0), Err(Errno::ENOENT));
}

/// Whatever the bytes are, the answer is a result, and so is that of making the maps.
#[test]
fn no_bytes_make_it_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(state >> 33).expect("31 bits") % below
    };
    for object in [BTF_MAPS, LEGACY_MAPS, MIXED_MAPS, RUST_MAPS] {
        for len in (0..object.len()).step_by(7) {
            drop(Object::parse(&object[..len], "cut"));
        }
        for _ in 0..2_000 {
            let mut bytes = object.to_vec();
            for _ in 0..=random(4) {
                let at = random(bytes.len());
                bytes[at] = u8::try_from(random(256)).expect("a byte");
            }
            drop(Object::parse(&bytes, "changed"));
        }
    }
}
