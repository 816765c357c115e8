//! Calls with a path: those below `/sys/fs/bpf` are made here, in the directory that stands for it; what `/proc` and `/sys`
//! tell of emulated files and CPUs is told by us. All others go on to the running kernel.

#![expect(unsafe_code, reason = "stat(2) as it stands in the program's memory")]

use std::ffi::CString;
use std::fmt::Write as _;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode, OFlags, RenameFlags, accessat, renameat_with};

use super::bpffs::MAGIC;
use super::mapping::{errno_of, int};
use super::memory::TaskMem;
use super::placeholder::{access, link_name};
use super::port::{Answer, Port, Syscall};
use super::server::Server;
use super::{cgroups, task};
use crate::abi::{Errno, Result, UserMem};

/// One call.
struct Call<'a> {
    server: &'a Server,
    port: &'a dyn Port,
    mem: TaskMem<'a>,
}

/// A call with a path.
pub(super) fn call(server: &Server, port: &dyn Port, call: &Syscall) -> Answer {
    let mut this = Call {
        server,
        port,
        mem: TaskMem::new(port),
    };
    match this.answer(call) {
        Some(answer) => Answer::Returns(answer),
        None => Answer::Continue,
    }
}

impl Call<'_> {
    /// The answer; `None` if it is none of ours.
    fn answer(&mut self, call: &Syscall) -> Option<Result<u64>> {
        let [a, b, c, d, e, _] = call.args;
        // The old calls are the new ones, in the caller's directory.
        #[cfg(target_arch = "x86_64")]
        match call.number {
            libc::SYS_open => return self.open(a, b, c),
            libc::SYS_creat => {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
                return self.open(a, u64::from(flags.cast_unsigned()), b);
            }
            libc::SYS_stat => return self.stat(a, b, 0),
            libc::SYS_lstat => return self.stat(a, b, libc::AT_SYMLINK_NOFOLLOW),
            libc::SYS_access => return self.access(a, b),
            libc::SYS_mkdir => return self.mkdir(a, b),
            libc::SYS_rmdir => return self.unlink(a, true),
            libc::SYS_unlink => return self.unlink(a, false),
            libc::SYS_rename => return self.rename(a, b, 0),
            libc::SYS_readlink => return self.readlink(a, b, c),
            _ => {}
        }
        match call.number {
            libc::SYS_openat => self.open(b, c, d),
            libc::SYS_openat2 => {
                let mut how = [0; 16];
                self.mem.read(c, &mut how).ok()?;
                let how = crate::abi::Attr(&how);
                self.open(b, how.u64(0), how.u64(8))
            }
            libc::SYS_newfstatat => self.stat(b, c, int(d).cast_signed()),
            libc::SYS_statx => self.statx(b, int(c).cast_signed(), int(d), e),
            libc::SYS_faccessat | libc::SYS_faccessat2 => self.access(b, c),
            libc::SYS_mkdirat => self.mkdir(b, c),
            libc::SYS_unlinkat => self.unlink(b, int(c) & libc::AT_REMOVEDIR.cast_unsigned() != 0),
            libc::SYS_renameat => self.rename(b, d, 0),
            libc::SYS_renameat2 => self.rename(b, d, int(e)),
            libc::SYS_readlinkat => self.readlink(b, c, d),
            libc::SYS_statfs => self.statfs(a, b),
            libc::SYS_fstatfs => self.fstatfs(int(a), b),
            _ => None,
        }
    }

    /// The path, if it may be one of ours: it begins at the root, in a place that matters.
    fn path(&self, addr: u64) -> Option<Vec<u8>> {
        let mut begin = [0; 6];
        let len = usize::try_from(4096 - addr % 4096).unwrap_or(1).min(6);
        self.mem.read(addr, &mut begin[..len]).ok()?;
        let ours = [b"/sys/f", b"/sys/d", b"/proc/"];
        let may_be = ours.iter().any(|ours| ours[..len] == begin[..len]);
        if may_be {
            self.mem.path(addr).ok()
        } else {
            None
        }
    }

    /// Where a path leads that is not what it seems.
    fn real(&self, addr: u64) -> Option<PathBuf> {
        self.real_path(&self.path(addr)?)
    }

    fn real_path(&self, path: &[u8]) -> Option<PathBuf> {
        let in_bpffs = self.server.bpffs.real_path(path);
        in_bpffs.or_else(|| {
            let path = std::str::from_utf8(path).ok()?;
            self.server.cgroups.real_path(Path::new(path))
        })
    }

    fn open(&self, path: u64, flags: u64, mode: u64) -> Option<Result<u64>> {
        let path = self.path(path)?;
        let flags = OFlags::from_bits_retain(int(flags));
        let cloexec = flags.contains(OFlags::CLOEXEC);
        let Some(real) = self.real_path(&path) else {
            let text = self.text_at(Path::new(std::str::from_utf8(&path).ok()?))?;
            let fd = self.server.give_text(self.port, &text, cloexec);
            return Some(fd.map(u64::from));
        };
        let open = || {
            let at = rustix::fs::CWD;
            let opened =
                rustix::fs::openat(at, &real, flags | OFlags::CLOEXEC, Mode::from(int(mode)));
            let opened = opened.map_err(errno_of)?;
            let in_bpffs = self.server.bpffs.has(&real);
            if in_bpffs && !flags.contains(OFlags::PATH) && !real.is_dir() {
                // Pins cannot be read.
                return Err(Errno::EIO);
            }
            self.port.add_fd(opened.as_fd(), flags, cloexec)
        };
        Some(open().map(u64::from))
    }

    /// What is read at a path, if that is ours to say.
    fn text_at(&self, path: &Path) -> Option<String> {
        if let Ok(list) = path.strip_prefix("/sys/devices/system/cpu") {
            return match list.to_str()? {
                "possible" | "present" | "online" => self.server.cpus.clone(),
                _ => None,
            };
        }
        let below = path.strip_prefix("/proc").ok()?;
        if !below.parent()?.ends_with("fdinfo") {
            return None;
        }
        let fd = below.file_name()?.to_str()?;
        let process = below.parent()?.parent()?;
        let process = self.process(process)?;
        let link = process.join("fd").join(fd);
        let file = rustix::fs::stat(&link).ok()?;
        let entry = self.server.table.get((file.st_dev, file.st_ino))?;
        let access_of = || {
            let link = fs::symlink_metadata(&link).map(|link| {
                use std::os::unix::fs::MetadataExt;
                link.mode()
            });
            let mode = link.unwrap_or(0o700);
            (mode & 0o400 != 0, mode & 0o200 != 0)
        };
        let file = entry.file(access_of);
        let told = file.fdinfo().ok()?;
        let flags = access(file.can_read(), file.can_write()) | OFlags::CLOEXEC;
        let mut text = String::new();
        // Writing to a string does not fail. The last two numbers are of the file system of files without a name.
        let _ = write!(
            text,
            "pos:\t0\nflags:\t{:08o}\nmnt_id:\t17\nino:\t1038\n{told}",
            flags.bits() & !OFlags::LARGEFILE.bits()
        );
        Some(text)
    }

    /// A process's directory in `/proc`, as we see it: `self` is the caller.
    fn process(&self, below: &Path) -> Option<PathBuf> {
        let mut parts = below.components();
        let first = parts.next()?.as_os_str().to_str()?;
        let task = self.port.task();
        let start = match first {
            "self" | "thread-self" => format!("/proc/{task}"),
            other => format!("/proc/{}", other.parse::<u32>().ok()?),
        };
        Some(Path::new(&start).join(parts.as_path()))
    }

    fn readlink(&mut self, path: u64, buffer: u64, size: u64) -> Option<Result<u64>> {
        let path = self.path(path)?;
        let path = Path::new(std::str::from_utf8(&path).ok()?);
        let below = path.strip_prefix("/proc").ok()?;
        if !below.parent()?.ends_with("fd") {
            return None;
        }
        let link = self
            .process(below.parent()?.parent()?)?
            .join("fd")
            .join(below.file_name()?);
        let file = rustix::fs::stat(&link).ok()?;
        let entry = self.server.table.get((file.st_dev, file.st_ino))?;
        let name = link_name(entry.any_file().kind()).as_bytes();
        let size = usize::try_from(size).unwrap_or(0).min(name.len());
        if size == 0 {
            return Some(Err(Errno::EINVAL));
        }
        Some(self.mem.write(buffer, &name[..size]).map(|()| size as u64))
    }

    fn stat(&mut self, path: u64, out: u64, flags: i32) -> Option<Result<u64>> {
        let real = c_path(&self.real(path)?)?;
        // SAFETY: it is a plain struct of numbers.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: the path ends with a NUL, and the struct is ours.
        let ret = unsafe { libc::fstatat(libc::AT_FDCWD, real.as_ptr(), &raw mut stat, flags) };
        Some(self.filled(ret, out, bytes_of(&stat)))
    }

    fn statx(&mut self, path: u64, flags: i32, mask: u32, out: u64) -> Option<Result<u64>> {
        let real = c_path(&self.real(path)?)?;
        // SAFETY: it is a plain struct of numbers.
        let mut stat: libc::statx = unsafe { std::mem::zeroed() };
        // SAFETY: the path ends with a NUL, and the struct is ours.
        let ret = unsafe { libc::statx(libc::AT_FDCWD, real.as_ptr(), flags, mask, &raw mut stat) };
        Some(self.filled(ret, out, bytes_of(&stat)))
    }

    fn filled(&mut self, ret: i32, out: u64, bytes: &[u8]) -> Result<u64> {
        if ret < 0 {
            return Err(errno_of(std::io::Error::last_os_error()));
        }
        self.mem.write(out, bytes).map(|()| 0)
    }

    fn access(&self, path: u64, mode: u64) -> Option<Result<u64>> {
        let real = self.real(path)?;
        let mode = Access::from_bits_retain(int(mode));
        let found = accessat(rustix::fs::CWD, &real, mode, AtFlags::empty());
        Some(found.map(|()| 0).map_err(errno_of))
    }

    fn mkdir(&self, path: u64, mode: u64) -> Option<Result<u64>> {
        let Some(real) = self.real(path) else {
            let path = self.path(path)?;
            let path = Path::new(std::str::from_utf8(&path).ok()?);
            return self.server.cgroups.make(path, int(mode));
        };
        let name = real.file_name().unwrap_or_default().as_bytes();
        let in_bpffs = self.server.bpffs.has(&real);
        if in_bpffs && name.contains(&b'.') && fs::symlink_metadata(&real).is_err() {
            return Some(Err(Errno::EPERM));
        }
        let made = rustix::fs::mkdir(&real, Mode::from(int(mode)));
        Some(made.map(|()| 0).map_err(errno_of))
    }

    fn unlink(&self, path: u64, dir: bool) -> Option<Result<u64>> {
        let real = self.real(path)?;
        let found = rustix::fs::stat(&real).map(|found| (found.st_dev, found.st_ino));
        let gone = if dir {
            rustix::fs::rmdir(&real)
        } else {
            rustix::fs::unlink(&real)
        };
        if let (Ok(()), Ok(inode)) = (gone, found) {
            let kernel = &self.server.kernel;
            self.server.cgroups.removed(kernel, &real, inode);
        }
        self.server.follow_pins();
        Some(gone.map(|()| 0).map_err(errno_of))
    }

    fn rename(&self, from: u64, to: u64, flags: u32) -> Option<Result<u64>> {
        let both = (self.real(from), self.real(to));
        let (from, to) = match both {
            (Some(from), Some(to)) => (from, to),
            (None, None) => return None,
            _ => return Some(Err(errno_of(rustix::io::Errno::XDEV))),
        };
        let cwd = rustix::fs::CWD;
        let flags = RenameFlags::from_bits_retain(flags);
        let renamed = renameat_with(cwd, &from, cwd, &to, flags);
        self.server.follow_pins();
        Some(renamed.map(|()| 0).map_err(errno_of))
    }

    fn statfs(&mut self, path: u64, out: u64) -> Option<Result<u64>> {
        let path = match self.path(path) {
            Some(path) => path,
            None => self.mem.path(path).ok()?,
        };
        let real = self.real_path(&path);
        let path = match real {
            Some(real) => real,
            None => {
                let path = Path::new(std::str::from_utf8(&path).ok()?);
                let path = task::absolute(self.port.task(), None, path).ok()?;
                fs::canonicalize(path).ok()?
            }
        };
        let magic = self.magic(&path)?;
        if let Err(error) = fs::metadata(&path) {
            return Some(Err(errno_of(error)));
        }
        Some(self.write_statfs(magic, out))
    }

    fn fstatfs(&mut self, fd: u32, out: u64) -> Option<Result<u64>> {
        let path = task::link(self.port.task(), &format!("fd/{fd}")).ok()?;
        let magic = self.magic(&path)?;
        Some(self.write_statfs(magic, out))
    }

    /// The file system that a path of ours is said to be on.
    fn magic(&self, path: &Path) -> Option<i64> {
        if self.server.bpffs.has(path) {
            Some(MAGIC)
        } else if self.server.cgroups.has(path) {
            Some(cgroups::MAGIC)
        } else {
            None
        }
    }

    fn write_statfs(&mut self, magic: i64, out: u64) -> Result<u64> {
        // SAFETY: it is a plain struct of numbers.
        let mut statfs: libc::statfs = unsafe { std::mem::zeroed() };
        statfs.f_type = magic;
        statfs.f_bsize = 4096;
        statfs.f_frsize = 4096;
        statfs.f_namelen = 255;
        self.mem.write(out, bytes_of(&statfs)).map(|()| 0)
    }
}

fn c_path(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

/// A struct of the C library that was zero at first.
fn bytes_of<T>(of: &T) -> &[u8] {
    let start = std::ptr::from_ref(of).cast();
    // SAFETY: the structs here were zeroed, so all their bytes are there, and they are borrowed as long as the slice.
    unsafe { std::slice::from_raw_parts(start, size_of::<T>()) }
}
