//! What differs between releases of the kernel: one table of named facts, a column for each release that is proven.
//!
//! Who needs a fact asks [`Env::release`](super::Env::release) for it by name; nobody compares versions. The names in brackets
//! are recordings that show the fact, of the releases where it differs.
//!
//! Stable updates change behaviour inside a series, in both directions, so a column is a point release.

use crate::abi::Errno;

/// Makes [`Release`] and [`RELEASES`] of the table: a row for each fact, a value in it for each release.
macro_rules! table {
    (
        $(#[$head:meta])*
        releases: $($name:literal),+;
        $($(#[$about:meta])+ $fact:ident: $type:ty = $($value:expr),+;)+
    ) => {
        $(#[$head])*
        #[derive(Debug)]
        pub struct Release {
            /// Point release, such as `6.18.44`.
            pub name: &'static str,
            $($(#[$about])+ pub $fact: $type,)+
        }

        const NAMES: &[&str] = &[$($name),+];

        const fn column(at: usize) -> Release {
            Release {
                name: NAMES[at],
                $($fact: [$($value),+][at],)+
            }
        }
    };
}

const STRUCTS_5_10: &[&str] = &["bpf_spin_lock"];
const STRUCTS_6_1: &[&str] = &["bpf_spin_lock", "bpf_timer"];
const STRUCTS_6_12: &[&str] = &[
    "bpf_spin_lock",
    "bpf_timer",
    "bpf_wq",
    "bpf_list_head",
    "bpf_list_node",
    "bpf_rb_root",
    "bpf_rb_node",
    "bpf_refcount",
];
const STRUCTS_6_18: &[&str] = &[
    "bpf_spin_lock",
    "bpf_res_spin_lock",
    "bpf_timer",
    "bpf_wq",
    "bpf_task_work",
    "bpf_list_head",
    "bpf_list_node",
    "bpf_rb_root",
    "bpf_rb_node",
    "bpf_refcount",
];

/// The tags of pointers that are special fields; empty where there is none.
#[derive(Clone, Copy, Debug)]
pub struct KptrTags {
    /// Of pointers that hold no reference.
    pub untrusted: &'static str,
    /// Of pointers that hold one.
    pub referenced: &'static str,
    /// Of pointers to objects of each CPU.
    pub percpu: &'static str,
    /// Of pointers to user memory.
    pub user: &'static str,
}

const NO_KPTRS: KptrTags = KptrTags {
    untrusted: "",
    referenced: "",
    percpu: "",
    user: "",
};
const KPTRS_6_1: KptrTags = KptrTags {
    untrusted: "kptr",
    referenced: "kptr_ref",
    ..NO_KPTRS
};
const KPTRS_6_12: KptrTags = KptrTags {
    untrusted: "kptr_untrusted",
    referenced: "kptr",
    percpu: "percpu_kptr",
    user: "",
};
const KPTRS_6_18: KptrTags = KptrTags {
    user: "uptr",
    ..KPTRS_6_12
};

const EACCES: Errno = Errno::EACCES;
const EINVAL: Errno = Errno::EINVAL;
const ENOTSUPP: Errno = Errno::ENOTSUPP;
const EOPNOTSUPP: Errno = Errno::EOPNOTSUPP;
const INT_MAX: u32 = i32::MAX.cast_unsigned();

const NO: bool = false;
const YES: bool = true;

#[rustfmt::skip]
table! {
    /// One release, in facts.
    releases: "5.10.262", "6.1.192", "6.12.117", "6.18.15", "6.18.44", "6.19.14", "7.0.13", "7.3.4";

    // --- commands ---------------------------------------------------------------------------------------------------

    /// Bytes of `union bpf_attr` that the kernel knows [command-attr-exact].
    attr_size: usize =              120, 144, 152, 168, 168, 168, 168, 168;
    /// Where the last field of `BPF_MAP_CREATE` ends; bytes behind it are `EINVAL` before all else [create-order-01-hash].
    map_create_end: usize =          64,  72,  80,  92,  92,  92,  92,  92;
    /// The first number that is no command [command-unknown].
    commands: u32 =                  36,  36,  37,  38,  38,  38,  38,  38;
    /// While `kernel.unprivileged_bpf_disabled` is set, all commands need `CAP_BPF`, those that do not exist too [command-perm].
    commands_need_rights: bool =    YES,  NO,  NO,  NO,  NO,  NO,  NO,  NO;
    /// `BPF_MAP_FREEZE` asks for a writable file, and takes that away: a second one is `EPERM`. Else it is `EBUSY`, any file
    /// will do, and `CAP_BPF` is needed [command-freeze, cgroup-storage-access, command-perm].
    freeze_is_a_write: bool =        NO,  NO, YES, YES, YES, YES, YES, YES;
    /// A map with a lock in its values cannot be frozen; with other special fields it cannot be anyway
    /// [hash-spin-lock-prealloc].
    freeze_refuses_locks: bool =     NO,  NO, YES, YES, YES, YES, YES, YES;
    /// `BPF_OBJ_PIN` and `BPF_OBJ_GET` take a directory's fd [command-pin].
    pin_in_directory: bool =         NO,  NO, YES, YES, YES, YES, YES, YES;
    /// Where the last field of `BPF_MAP_LOOKUP_AND_DELETE_ELEM` ends: with its flags, or before [hash-flags].
    lookup_and_delete_end: usize =   24,  32,  32,  32,  32,  32,  32,  32;
    /// That command takes elements of hashes; else only what is in queues and stacks [hash-flags, lru-delete].
    elements_can_be_taken: bool =    NO, YES, YES, YES, YES, YES, YES, YES;
    /// Batch commands of per-CPU arrays, LPM tries and maps of maps [command-batch-array, command-batch-lpm,
    /// command-batch-map-in-map].
    batches_of_more_types: bool =    NO, YES, YES, YES, YES, YES, YES, YES;
    /// Bytes of `bpf_map_info` [command-info].
    map_info_size: usize =           80,  88,  88, 104, 104, 104, 104, 104;
    /// Bytes of `bpf_map_info` that tell nothing stay as the caller has them; else they become 0 [command-info].
    map_info_keeps_bytes: bool =     NO,  NO,  NO, YES, YES, YES, YES, YES;
    /// A byte that is not zero in the padding at the end of `bpf_map_info` is `E2BIG` [command-info].
    map_info_checks_padding: bool =  NO,  NO,  NO,  NO, YES,  NO,  NO, YES;
    /// The fdinfo of a map has a line `map_extra` [command-support].
    fdinfo_has_map_extra: bool =     NO, YES, YES, YES, YES, YES, YES, YES;
    /// `BPF_LINK_UPDATE` refuses a program with other cgroup storages [cgroup-storage-link].
    link_update_keeps_storages: bool = NO, YES, YES, NO,  NO,  NO,  NO, YES;
    /// The first number that is no map type [create-29-task_storage, create-33-arena, create-34-insn_array,
    /// create-35-rhash].
    map_types: u32 =                 29,  32,  34,  34,  34,  35,  35,  36;
    /// A lookup looks at its fd before it looks at its flags [command-fd, command-access].
    lookup_takes_fd_first: bool =    NO,  NO,  NO,  NO,  NO, YES, YES, YES;
    /// `BPF_F_CPU` and `BPF_F_ALL_CPUS` are flags, of per-CPU values; flags of an update that no type takes are
    /// refused before key and value are read [command-flags-percpu_hash, command-last-field, ringbuf-commands].
    cpu_flags: bool =                NO,  NO,  NO,  NO,  NO,  NO, YES, YES;
    /// The memory of a map cannot be mapped as code [array-mmap, ringbuf-mmap].
    mmap_refuses_code: bool =        NO,  NO,  NO, YES, YES, YES, YES, YES;

    // --- creation ---------------------------------------------------------------------------------------------------

    /// A file for reading only and for writing only is refused after everything else [create-order-01-hash].
    create_both_accesses_last: bool = NO, NO,  NO,  NO,  NO,  NO,  NO, YES;
    /// `BPF_F_TOKEN_FD` is a flag [create-order-01-hash].
    map_tokens: bool =               NO,  NO, YES, YES, YES, YES, YES, YES;
    /// A ring buffer can be made with `BPF_F_RB_OVERWRITE` [create-27-ringbuf].
    ringbuf_overwrite: bool =        NO,  NO,  NO,  NO,  NO, YES, YES, YES;
    /// A hash's key needs no type where its value has one [array-btf].
    btf_key_may_be_void: bool =      NO,  NO,  NO,  NO,  NO,  NO, YES,  NO;
    /// In a ring buffer that overwrites no more is unread than is kept, wherever user space puts its position
    /// [ringbuf-overwrite].
    ringbuf_unread_is_kept: bool =   NO,  NO,  NO,  NO,  NO,  NO,  NO, YES;
    /// That the type of a hash's key is missing is refused after the special fields of its value [create-btf-no-key].
    btf_void_key_last: bool =        NO,  NO, YES,  NO,  NO,  NO,  NO, YES;
    /// A per-CPU array of one section of variables needs no type of its key [array-btf].
    percpu_array_of_sections: bool = NO,  NO,  NO,  NO,  NO,  NO,  NO, YES;
    /// Without rights nothing can be made, and that is looked at before all else; 0 in `kernel.unprivileged_bpf_disabled` leaves
    /// it to each type, which looks at it first. Else it comes after the type's early checks [command-perm].
    create_rights_first: bool =     YES, YES,  NO,  NO,  NO,  NO,  NO,  NO;
    /// `CAP_SYS_ADMIN` stands for `CAP_NET_ADMIN` too [command-perm].
    sys_admin_is_net_admin: bool =   NO,  NO, YES, YES, YES, YES, YES, YES;
    /// Values that have a lock or a timer need `CAP_BPF` [lock-inner].
    fields_need_rights: bool =       NO,  NO, YES, YES, YES, YES, YES, YES;
    /// Values of a `BPF_F_WRONLY_PROG` map cannot have a lock or a timer [lock-values].
    wronly_prog_without_fields: bool = NO, NO, YES, YES, YES, YES, YES, YES;
    /// An inner map can have a lock in its values [lock-inner].
    inner_map_with_lock: bool =      NO,  NO, YES, YES, YES, YES, YES, YES;
    /// `struct_ops` maps have flags; else those are refused first [create-26-struct_ops].
    struct_ops_has_flags: bool =     NO,  NO, YES, YES, YES, YES, YES, YES;
    /// The key of a hash has 512 bytes at most, and its value leaves room for such a key; else both together have a limit
    /// [hash-create, create-limits].
    hash_key_of_512: bool =         YES,  NO,  NO,  NO,  NO,  NO,  NO,  NO;
    /// Bytes of the largest value of an array [create-limits].
    array_value_max: u32 =      4 << 20, INT_MAX, INT_MAX, INT_MAX, INT_MAX, INT_MAX, INT_MAX, INT_MAX;
    /// The value of a cgroup storage, of either kind, fits in a page [cgroup-storage-create].
    cgroup_storage_of_a_page: bool = YES, NO,  NO,  NO,  NO,  NO,  NO,  NO;
    /// An LPM trie is refused if all its elements would take 4 GiB, before its name and types are looked at
    /// [create-order-11-lpm_trie].
    lpm_counts_memory: bool =       YES,  NO,  NO,  NO,  NO,  NO,  NO,  NO;
    /// An inner map has its special fields where the template has them [lock-inner].
    inner_map_fields_equal: bool =   NO, YES, YES, YES, YES, YES, YES, YES;

    // --- BTF --------------------------------------------------------------------------------------------------------

    /// The first number that is no kind of type [array-btf].
    btf_kinds: u32 =                 16,  20,  20,  20,  20,  20,  20,  20;
    /// `BPF_BTF_LOAD` judges the structs with special fields [lock-layout].
    btf_load_judges_structs: bool =  NO,  NO, YES, YES, YES, YES, YES, YES;
    /// Structs that are special fields [lock-types, lock-layout].
    special_structs: &'static [&'static str] = STRUCTS_5_10, STRUCTS_6_1, STRUCTS_6_12, STRUCTS_6_18, STRUCTS_6_18, STRUCTS_6_18, STRUCTS_6_18, STRUCTS_6_18;
    /// Tags of pointers that are special fields [lock-kptr].
    kptr_tags: KptrTags = NO_KPTRS, KPTRS_6_1, KPTRS_6_12, KPTRS_6_18, KPTRS_6_18, KPTRS_6_18, KPTRS_6_18, KPTRS_6_18;
    /// Special fields are found in structs within the value, and in arrays [lock-layout].
    fields_in_parts: bool =          NO,  NO, YES, YES, YES, YES, YES, YES;
    /// Kptrs may point to objects that programs allocate, and may be in per-CPU hashes and in local storage [lock-kptr].
    kptr_everywhere: bool =          NO,  NO, YES, YES, YES, YES, YES, YES;
    /// A lock in the value of a type of map that cannot have it; another field there is `EOPNOTSUPP` [lock-types].
    lock_in_wrong_type: Errno = ENOTSUPP, ENOTSUPP, EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP, EOPNOTSUPP;
    /// There is one lock, one timer and so on in a value with all structs in it, and one reference count; else in each struct,
    /// and any number of counts [lock-layout].
    btf_one_field_of_a_kind: bool = YES, YES, YES,  NO,  NO,  NO,  NO, YES;
    /// A pointer with more than one tag is a kptr [lock-kptr].
    kptr_with_several_tags: bool =   NO,  NO,  NO,  NO,  NO,  NO,  NO, YES;

    // --- per-CPU values ---------------------------------------------------------------------------------------------

    /// User space writes and reads the bytes that fill a CPU's part up to 8 [percpu-hash-random, array-percpu].
    percpu_user_copies_padding: bool = YES, YES, YES, YES, YES, YES, NO, NO;
    /// A program's update of a new key copies these bytes too, from behind its value [percpu-hash-padding].
    percpu_new_copies_padding: bool = YES, NO, NO, YES,  NO, YES,  NO,  NO;
    /// It makes these bytes 0 on the other CPUs [percpu-hash-padding].
    percpu_new_clears_padding: bool = YES, YES, NO, NO,  NO,  NO, YES, YES;
    /// An update with `BPF_F_CPU` of a new key makes the parts of the other CPUs 0 [lru-random-percpu].
    percpu_new_of_one_cpu_clears_others: bool = NO, NO, NO, NO, NO, NO, NO, YES;

    // --- hash, LRU --------------------------------------------------------------------------------------------------

    /// An LRU map hands its slots to the CPUs in portions that depend on its size; else 128 at once [lru-one-cpu-fifo].
    lru_target_by_size: bool =       NO,  NO, YES, YES, YES, YES, YES, YES;
    /// Of the slots that a CPU of an LRU map gets at once, the first one found is used first; else the last
    /// [lru-random-percpu].
    lru_first_found_first: bool =    NO,  NO,  NO,  NO, YES,  NO,  NO, YES;

    // --- program side -----------------------------------------------------------------------------------------------

    /// The first number that is no helper [array-percpu, helper-for-each-array].
    helpers: u32 =                  156, 210, 212, 212, 212, 212, 212, 212;
    /// What the verifier answers to a lock that is not where the program says, or not held [helper-spin-lock, lock-programs].
    no_lock_there: Errno = EACCES, EACCES, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL;
    /// A program may keep a record of a ring buffer in its stack while it runs on [ringbuf-full].
    ringbuf_record_in_stack: bool =  NO,  NO, YES, YES, YES, YES, YES, YES;
    /// Programs that see packets may delete from a map of sockets too; else only those of the sockets' own operations and of
    /// groups that share a port [helper-maps].
    packets_delete_sockets: bool =  YES, YES, YES, YES, YES, YES, YES,  NO;
    /// A map begins with bytes that a program may load, where it found it in a map of maps; else with a pointer [helper-maps].
    map_begins_with_hash: bool =     NO,  NO,  NO, YES, YES, YES, YES, YES;
    /// After a helper of maps that failed, `r0` is the negative errno in 64 bits; else in 32, with zeros above
    /// [hash-flags, array-basic].
    helper_errno_of_64_bits: bool =  NO,  NO, YES, YES, YES, YES, YES, YES;

    // --- other types ------------------------------------------------------------------------------------------------

    /// The inner maps of a map of per-CPU arrays have as many elements as the template [other-details].
    inner_percpu_array_has_size: bool = NO, NO, NO, NO, NO,  NO,  NO, YES;
    /// A full LPM trie refuses every update, of keys that it has too [lpm-capacity].
    lpm_full_refuses_all: bool =    YES,  NO,  NO,  NO,  NO,  NO,  NO,  NO;
    /// Bytes of an LPM trie's node with the longest key, without its value [create-limits].
    lpm_node_size: u32 =            296, 296, 296, 280, 280, 280, 280, 280;
    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM` takes a stack trace [command-support].
    stack_trace_can_be_taken: bool = NO,  NO,  NO, YES, YES, YES, YES, YES;
    /// An update of a key in a hash of maps exchanges the map; else the key gets a new element, in front
    /// [hash-of-maps-order-prealloc].
    hash_of_maps_in_place: bool =    NO,  NO,  NO, YES, YES, YES, YES, YES;
    /// The last element of a cgroup storage has no next key; else it has one, of bytes that are no key
    /// [cgroup-storage-life].
    cgroup_storage_walk_ends: bool = YES, YES, YES, NO, YES,  NO, YES, YES;
    /// An update of a cpumap tells what is wrong with its program's fd; else it is `ENOMEM` [other-cpumap].
    cpumap_tells_of_prog: bool =     NO,  NO,  NO,  NO,  NO,  NO, YES, YES;
}

/// The releases that recordings prove, in order.
pub static RELEASES: [Release; NAMES.len()] = [
    column(0),
    column(1),
    column(2),
    column(3),
    column(4),
    column(5),
    column(6),
    column(7),
];

/// Linux 6.18.44, which everything is emulated of; of the others what differs from it.
pub static LINUX_6_18_44: &Release = &RELEASES[4];

/// Series that were probed, not recorded, and the proven release that answered all probes alike.
const PROBED: &[((u32, u32), &str)] = &[
    ((6, 16), "6.12.117"),
    ((6, 17), "6.12.117"),
    ((7, 1), "7.0.13"),
    ((7, 2), "7.3.4"),
];

/// There is no such release, or it is older than all that are proven.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("mapemu has no release {0:?}; it has {names}", names = NAMES.join(", "))]
pub struct UnknownRelease(pub String);

/// The release that is taken for one that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The release whose behaviour is given.
    pub release: &'static Release,
    /// It is the one that was asked for, not one that is near.
    pub is_proven: bool,
}

impl Release {
    /// The release of that name, such as `6.1.192`. For a series, such as `6.18`, the last one of it that is proven; for a
    /// release that is not proven, the nearest of its series, else one that was found to answer alike, else the last one
    /// before it. What stands behind a `-` or `+` is not the kernel's.
    ///
    /// # Errors
    ///
    /// If it is no release, or older than all.
    pub fn take(name: &str) -> Result<Taken, UnknownRelease> {
        let unknown = || UnknownRelease(name.to_owned());
        let plain = name.split(['-', '+']).next().unwrap_or_default();
        let asked = numbers(plain).ok_or_else(unknown)?;
        let (series, point) = ((asked.0, asked.1), asked.2);
        let own = RELEASES.iter().filter(|own| own.numbers().0 == series);
        if let Some(nearest) =
            own.min_by_key(|own| own.numbers().1.abs_diff(point.unwrap_or(u32::MAX)))
        {
            return Ok(Taken {
                release: nearest,
                is_proven: point.is_none_or(|point| point == nearest.numbers().1),
            });
        }
        let probed = PROBED.iter().find(|(probed, _)| *probed == series);
        let nearest = match probed {
            Some((_, name)) => RELEASES.iter().find(|own| own.name == *name),
            None => RELEASES.iter().rfind(|own| own.numbers().0 < series),
        };
        Ok(Taken {
            release: nearest.ok_or_else(unknown)?,
            is_proven: false,
        })
    }

    /// What `r0` holds after a helper of maps that failed: update, delete, push, pop, peek, or a walk.
    pub fn helper_failed(&self, errno: Errno) -> i64 {
        let errno = errno.negated();
        if self.helper_errno_of_64_bits {
            errno
        } else {
            errno & 0xffff_ffff
        }
    }

    /// Series and point release.
    fn numbers(&self) -> ((u32, u32), u32) {
        let (major, minor, point) = numbers(self.name).expect("a name in the table");
        ((major, minor), point.expect("a point release"))
    }
}

/// The numbers of `6.18` or `6.18.44`.
fn numbers(name: &str) -> Option<(u32, u32, Option<u32>)> {
    let mut parts = name.split('.').map(|part| part.parse().ok());
    let numbers = (parts.next()??, parts.next()??, parts.next());
    let point = match numbers.2 {
        Some(point) => Some(point?),
        None => None,
    };
    parts
        .next()
        .is_none()
        .then_some((numbers.0, numbers.1, point))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(name: &str) -> (&'static str, bool) {
        let taken = Release::take(name).expect(name);
        (taken.release.name, taken.is_proven)
    }

    #[test]
    fn what_is_proven_is_taken_and_else_the_nearest() {
        for release in &RELEASES {
            assert_eq!(taken(release.name), (release.name, true));
        }
        assert_eq!(taken("6.18"), ("6.18.44", true));
        assert_eq!(taken("6.1.0-56-cloud-amd64"), ("6.1.192", false));
        assert_eq!(taken("6.12.117+deb13-cloud-amd64"), ("6.12.117", true));
        assert_eq!(taken("6.18.20"), ("6.18.15", false));
        assert_eq!(taken("6.18.40"), ("6.18.44", false));
        assert_eq!(taken("6.16.12"), ("6.12.117", false));
        assert_eq!(taken("7.2.1"), ("7.3.4", false));
        assert_eq!(taken("5.15.3"), ("5.10.262", false));
        assert_eq!(taken("8.0"), ("7.3.4", false));
        for name in ["2.4.1", "5.4", "", "6", "6.x", "6.1.2.3", "six"] {
            assert_eq!(
                Release::take(name).err(),
                Some(UnknownRelease(name.to_owned()))
            );
        }
    }
}
