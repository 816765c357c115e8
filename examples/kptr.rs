//! A program that keeps an object of its own in a map: who has it, and when it goes.

use mapemu::Kernel;
use mapemu::abi::MapType;
use mapemu::btf::Writer;
use mapemu::calls::{self, CreateOpts};
use mapemu::helper::Prog;

fn main() -> mapemu::abi::Result<()> {
    // struct value { struct session __kptr *session; };
    let mut btf = Writer::new();
    let u32_id = btf.int("u32", 4);
    let u64_id = btf.int("u64", 8);
    let session = btf.structure("session", 8, &[("packets", u64_id, 0)]);
    let kptr = btf.tagged_pointer("kptr", session);
    let value = btf.structure("value", 8, &[("session", kptr, 0)]);

    let kernel = Kernel::new();
    let opts = CreateOpts {
        btf_fd: calls::bpf_btf_load(&kernel, &btf.finish())?,
        btf_key_type_id: u32_id,
        btf_value_type_id: value,
        ..CreateOpts::default()
    };
    let fd = calls::bpf_map_create(&kernel, MapType::ARRAY, "sessions", 4, 8, 1, &opts)?;
    let map = kernel.map(fd)?;

    // The program: it puts a session into the element, and drops the one that was there.
    let prog = Prog::sched_cls(0);
    let value = prog
        .map_lookup_elem(&map, &[0; 4])
        .expect("in an array it is there");
    let new = prog.obj_new(&map, session).expect("memory");
    new.value().store_u64(0, 1);
    if let Some(old) = prog.kptr_xchg(&value, 0, Some(new)) {
        prog.obj_drop(old);
    }
    assert_eq!(kernel.env().allocated_objects(), 1);

    // User space overwrites the element, and the session is released.
    calls::bpf_map_update_elem(&kernel, fd, &[0; 4], &[0; 8], 0)?;
    assert_eq!(kernel.env().allocated_objects(), 0);
    Ok(())
}
