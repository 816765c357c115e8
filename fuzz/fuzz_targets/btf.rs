//! Any BTF blob, and maps whose types it says: no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mapemu::Kernel;
use mapemu::abi::MapType;
use mapemu::btf::Btf;
use mapemu::calls::{self, CreateOpts};

fuzz_target!(|bytes: (u8, u8, u8, Vec<u8>)| {
    let (key, value, map_type, blob) = bytes;
    if let Ok(btf) = Btf::parse(&blob, 1) {
        let (size, fields) = (btf.type_size(value.into()), btf.fields(value.into()));
        if let Some(size) = size {
            assert!(
                fields
                    .0
                    .iter()
                    .all(|field| field.bytes().end <= size as usize),
                "fields lie in the value"
            );
        }
    }
    let kernel = Kernel::builder().memory_limit(64 << 20).build();
    if let Ok(btf_fd) = calls::bpf_btf_load(&kernel, &blob) {
        let opts = CreateOpts {
            btf_fd,
            btf_key_type_id: key.into(),
            btf_value_type_id: value.into(),
            ..CreateOpts::default()
        };
        let map_type =
            [MapType::HASH, MapType::ARRAY, MapType::CGROUP_STORAGE][usize::from(map_type % 3)];
        for value_size in [4, 8, 16, 24, 64] {
            if let Ok(fd) = calls::bpf_map_create(&kernel, map_type, "", 4, value_size, 2, &opts) {
                let mut value = vec![0xff; value_size as usize];
                let _ = calls::bpf_map_update_elem(&kernel, fd, &[0; 4], &value, 0);
                let _ = calls::bpf_map_lookup_elem(&kernel, fd, &[0; 4], &mut value);
            }
        }
    }
});
