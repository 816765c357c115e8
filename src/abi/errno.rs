//! Error numbers.
//!
//! Source: `include/uapi/asm-generic/errno-base.h`, `errno.h`; `include/linux/errno.h` for 524.

use std::fmt;

/// What every fallible operation here returns.
pub type Result<T, E = Errno> = std::result::Result<T, E>;

/// A Linux error number, stored positive: `2` for `ENOENT`.
///
/// A newtype over constants, not an enum: a replayed trace or the running kernel may hold a
/// number that this list lacks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(u16);

macro_rules! errnos {
    ($($name:ident = $number:literal, $words:literal;)*) => {
        impl Errno {
            $(#[doc = $words] pub const $name: Self = Self($number);)*

            /// The name, if this list has it: `Some("ENOENT")`.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// What the number says, in a few words.
            pub const fn words(self) -> &'static str {
                match self.0 {
                    $($number => $words,)*
                    _ => "an error without a name here",
                }
            }

            /// The number of that name, if this list has it.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM = 1, "not permitted";
    ENOENT = 2, "no such element, object or path";
    ESRCH = 3, "no such process";
    EINTR = 4, "interrupted";
    EIO = 5, "input or output failed";
    ENXIO = 6, "no such device or address";
    E2BIG = 7, "the map is full, or an index or size is past its limit";
    EBADF = 9, "not an open file descriptor of the right kind";
    EAGAIN = 11, "try again";
    ENOMEM = 12, "no memory";
    EACCES = 13, "access denied";
    EFAULT = 14, "a bad address";
    EBUSY = 16, "in use";
    EEXIST = 17, "exists already";
    EXDEV = 18, "another file system";
    ENODEV = 19, "no such device";
    ENOTDIR = 20, "not a directory";
    EISDIR = 21, "a directory";
    EINVAL = 22, "an argument is not valid";
    ENFILE = 23, "too many open files in the system";
    EMFILE = 24, "too many open files";
    ENOTTY = 25, "not for such an fd";
    ENOSPC = 28, "no room";
    ESPIPE = 29, "no position to seek";
    ERANGE = 34, "out of range";
    EDEADLK = 35, "a deadlock was avoided";
    ENAMETOOLONG = 36, "a name is too long";
    ENOSYS = 38, "no such system call";
    ENOTEMPTY = 39, "a directory is not empty";
    ELOOP = 40, "a loop, or too long a chain";
    ENOLINK = 67, "no link";
    EOVERFLOW = 75, "too large a value";
    EBADFD = 77, "a file descriptor in a bad state";
    ENOTSOCK = 88, "not a socket";
    EPROTO = 71, "protocol error";
    EOPNOTSUPP = 95, "operation not supported";
    ETIMEDOUT = 110, "timed out";
    ENOTSUPP = 524, "operation not supported (the kernel's own number)";
}

impl Errno {
    /// An error number as the kernel gives it, positive.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The positive number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// As a helper returns it: negative.
    pub fn negated(self) -> i64 {
        -i64::from(self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name}: {}", self.words()),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

impl std::error::Error for Errno {}
