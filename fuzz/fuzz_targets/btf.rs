//! Any bytes as BTF: loaded or refused, and asked about.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mapemu::btf::Btf;

/// A blob: any bytes, or types behind a header that fits.
#[derive(Arbitrary, Debug)]
enum Blob {
    Bytes(Vec<u8>),
    Types(Vec<Type>, Vec<u8>),
}

/// One type, with what follows it.
#[derive(Arbitrary, Debug)]
struct Type {
    name: u8,
    kind: u8,
    vlen: u8,
    flag: bool,
    size_or_type: u16,
    /// Most words that follow are small.
    behind: Vec<(u16, Option<u32>)>,
}

impl Blob {
    fn bytes(self) -> Vec<u8> {
        let (types, names) = match self {
            Self::Bytes(bytes) => return bytes,
            Self::Types(types, names) => (types, names),
        };
        let mut words = Vec::new();
        for own in types {
            let info = u32::from(own.vlen % 8) | u32::from(own.kind % 24) << 24;
            words.extend([
                u32::from(own.name % 32),
                info | u32::from(own.flag) << 31,
                u32::from(own.size_or_type),
            ]);
            words.extend(
                own.behind
                    .iter()
                    .map(|(small, any)| any.unwrap_or(u32::from(*small))),
            );
        }
        // Names of locks and timers are no accident.
        let mut strings = b"\0int\0bpf_spin_lock\0bpf_timer\0v\0".to_vec();
        strings.extend(names);
        strings.push(0);
        let types_len = words.len() as u32 * 4;
        let mut blob = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types_len, types_len, strings.len() as u32]
            .into_iter()
            .chain(words)
        {
            blob.extend(word.to_le_bytes());
        }
        blob.extend(strings);
        blob
    }
}

/// Types that are asked about at most.
const MOST_TYPES: u32 = 64;

fuzz_target!(|blob: Blob| {
    let data = blob.bytes();
    let Ok(btf) = Btf::parse(&data, 1, mapemu::env::LINUX_6_18_44) else {
        return;
    };
    for id in 0..MOST_TYPES {
        let _size = btf.type_size(id);
        let _fields = btf.fields(id);
        let _number = btf.is_int(id, 32);
        let _struct = btf.is_struct(id) || btf.is_datasec(id) || btf.is_cgroup_storage_key(id);
    }
    assert_eq!(btf.data(), data, "it stays as it was loaded");
});
