//! How the guest talks: bytes to the port of QEMU's debug console, which needs no driver.
//!
//! What is said is a line `begin NAME`, then, when the scenario has ended, `got NAME STATUS BYTES` and the bytes: what was
//! written to standard output, packed with zstd. `file NAME BYTES` and the bytes is a file that it left, `alive` says that it
//! goes on. At the end there is a line `end`.

use std::arch::asm;
use std::io::{self, Read};

use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

/// The debug console.
const CONSOLE: u16 = 0xe9;
/// A byte to here ends the machine.
pub const EXIT: u16 = 0xf4;

/// The ports: this thread may use them.
pub struct Port(());

impl Port {
    /// Asks the kernel for them.
    pub fn open() -> io::Result<Self> {
        // SAFETY: the call takes a number, and touches no memory.
        match unsafe { libc::iopl(3) } {
            0 => Ok(Self(())),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// A scenario begins.
    pub fn begin(&self, name: &str) {
        self.say(CONSOLE, format!("begin {name}\n").as_bytes());
    }

    /// It goes on.
    pub fn alive(&self) {
        self.say(CONSOLE, b"alive\n");
    }

    /// It has ended.
    pub fn got(&self, name: &str, status: &str, output: &[u8]) {
        self.packed(&format!("got {name} {status}"), output);
    }

    /// It left a file.
    pub fn file(&self, name: &str, bytes: &[u8]) {
        self.packed(&format!("file {name}"), bytes);
    }

    fn packed(&self, what: &str, bytes: &[u8]) {
        let packed = compress_to_vec(bytes, CompressionLevel::Fastest);
        self.say(CONSOLE, format!("{what} {}\n", packed.len()).as_bytes());
        self.say(CONSOLE, &packed);
    }

    /// All have ended; so does the machine.
    pub fn end(&self) {
        self.say(CONSOLE, b"end\n");
        self.say(EXIT, &[0]);
    }

    /// Writes bytes to one port, one after another.
    fn say(&self, port: u16, bytes: &[u8]) {
        // SAFETY: `open` made the instruction one that this thread may use. It reads `rcx` bytes from `rsi` on, which are
        // those of `bytes`, and the direction flag is clear on entry to `asm!`. The ports belong to QEMU's devices.
        unsafe {
            asm!(
                "rep outsb",
                in("dx") port,
                inout("rsi") bytes.as_ptr() => _,
                inout("rcx") bytes.len() => _,
                options(readonly, nostack, preserves_flags),
            );
        }
    }
}

/// What a guest said.
#[derive(Debug, Default)]
pub struct Said {
    /// Scenarios that ended: name, status, output.
    pub ended: Vec<(String, String, Vec<u8>)>,
    /// Files that were left: name, content.
    pub files: Vec<(String, Vec<u8>)>,
    /// The one that began last, if it did not end.
    pub under_way: Option<String>,
    /// It came to its end.
    pub whole: bool,
}

/// Reads what a guest said, as far as it came.
pub fn heard(bytes: &[u8]) -> Said {
    let mut said = Said::default();
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 1..];
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["begin", name] => said.under_way = Some(name.to_owned()),
            ["got", name, status, size] => {
                let Some(output) = unpacked(&mut rest, size) else {
                    return said;
                };
                said.ended
                    .push((name.to_owned(), status.to_owned(), output));
                said.under_way = None;
            }
            ["file", name, size] => {
                let Some(content) = unpacked(&mut rest, size) else {
                    return said;
                };
                said.files.push((name.to_owned(), content));
            }
            ["end"] => said.whole = true,
            // That it goes on; what the firmware says.
            _ => {}
        }
    }
    said
}

/// Takes so many bytes, and unpacks them; nothing if they are not all there.
fn unpacked(rest: &mut &[u8], size: &str) -> Option<Vec<u8>> {
    let (packed, behind) = rest.split_at_checked(size.parse().ok()?)?;
    *rest = behind;
    let mut bytes = Vec::new();
    let mut decoder = StreamingDecoder::new(packed).ok()?;
    decoder.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
