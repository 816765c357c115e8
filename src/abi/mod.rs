//! Numbers and layouts of `include/uapi/linux/bpf.h`, what a call to bpf(2) is made of, and the memory that user space
//! shares with a ring buffer; no behaviour of the kernel.

mod action;
mod attr;
mod call;
mod cmd;
mod errno;
mod flags;
mod helper;
mod info;
mod map_type;
mod perf;
mod prog_type;
mod ring;
mod ringbuf;

pub use action::{
    REDIRECT_BROADCAST, REDIRECT_EXCLUDE_INGRESS, REDIRECT_INGRESS, SkAction, XdpAction,
};
pub use attr::{
    Attr, BatchAttr, CreateAttr, ElemAttr, LinkAttr, ObjAttr, ProgAttachAttr, ProgLoadAttr,
};
pub(crate) use call::TASK_SIZE;
pub use call::{Bpf, BufferBytes, Fd, MapHandle, MapRequest, Mapping, Memory, Prot, UserMem};
pub use cmd::Cmd;
pub use errno::{Errno, Result};
pub use flags::{AttachFlags, AttachType, Caps, MapFlags, ProgFlags, UpdateFlags};
pub use helper::Helper;
pub use info::{INFO_SIZE, MapInfo, OBJ_NAME_LEN};
pub use map_type::MapType;
pub use perf::{
    PERF_CTXLEN_MASK, PERF_CTXLEN_SHIFT, PERF_CURRENT_CPU, PERF_HEADER_SIZE, PERF_INDEX_MASK,
    PERF_RECORD_LOST, PERF_RECORD_MISC_KERNEL, PERF_RECORD_SAMPLE, PerfAttr, PerfEvent, Wakeup,
    perf_attr, perf_ioc, perf_page,
};
pub use prog_type::ProgType;
pub use ring::{MappedRing, Record, RingMemory, header_of, next_record, write_sample};
pub use ringbuf::{
    PollEvents, RINGBUF_BUSY_BIT, RINGBUF_DISCARD_BIT, RINGBUF_HDR_SZ, RingbufFlags, ringbuf_query,
    ringbuf_record_size,
};

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;

/// A newtype over `u32` with named constants, its kernel name as `Display`.
macro_rules! numbers {
    ($(#[$doc:meta])* $type:ident: $($name:ident = $number:literal;)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(pub u32);

        #[expect(missing_docs, reason = "the names are the kernel's")]
        impl $type {
            $(pub const $name: Self = Self($number);)*
        }

        impl $type {
            /// Every number that has a name here, in order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name without its prefix, if it has one: `Some("HASH")`.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// The number of that name, in either case.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|n| n.name().is_some_and(|own| own.eq_ignore_ascii_case(name)))
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}", self.0),
                }
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
    };
}
pub(crate) use numbers;
