//! Update with the three flags, read, delete, walk, a walk during which another party deletes, look up and delete twice.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example")]

use mapemu::Kernel;
use mapemu::abi::Errno;
use mapemu::typed::{Error, HashMap};

const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;
const BPF_EXIST: u64 = 2;
const BPF_F_ZERO_SEED: u32 = 1 << 6;

fn main() -> Result<(), Error> {
    let kernel = Kernel::new();
    let map: HashMap<u32, u64> = HashMap::builder()
        .name("ports")
        .max_entries(8)
        .map_flags(BPF_F_ZERO_SEED)
        .create(&kernel)?;

    // The three flags.
    map.insert(1, 10, BPF_NOEXIST)?;
    assert_eq!(
        map.insert(1, 11, BPF_NOEXIST).unwrap_err().errno,
        Errno::EEXIST
    );
    assert_eq!(
        map.insert(2, 20, BPF_EXIST).unwrap_err().errno,
        Errno::ENOENT
    );
    map.insert(2, 20, BPF_ANY)?;
    map.insert(1, 12, BPF_EXIST)?;

    // Read and delete.
    assert_eq!(map.get(&1, 0)?, 12);
    map.remove(&1)?;
    assert!(map.remove(&1).unwrap_err().is_not_found());

    // A walk, in the order in which the kernel walks.
    for key in 1..=7 {
        map.insert(key, u64::from(key) * 10, BPF_ANY)?;
    }
    let keys = map.keys().collect::<Result<Vec<_>, _>>()?;
    println!("the kernel's order: {keys:?}");

    // A walk during which another party deletes the key that the walk stands on: it starts again at the first key.
    let mut seen = Vec::new();
    let mut walk = map.keys();
    seen.extend(walk.next().transpose()?);
    seen.extend(walk.next().transpose()?);
    map.remove(&seen[1])?;
    for key in walk {
        seen.push(key?);
    }
    println!("with {} deleted on the way: {seen:?}", seen[1]);
    assert_eq!(seen[2], seen[0], "the walk began again");

    // Look up and delete: the second time it is gone.
    assert_eq!(map.take(&3, 0)?, 30);
    assert!(map.take(&3, 0).unwrap_err().is_not_found());
    Ok(())
}
