//! Calls with a path: those below `/sys/fs/bpf` are made here, in the directory that stands for it; what `/proc` and `/sys`
//! tell of emulated files and CPUs is told by us. All others go on to the running kernel.

#![expect(unsafe_code, reason = "stat(2) as it stands in the program's memory")]

use std::ffi::{CString, OsString};
use std::fmt::Write as _;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    Access, AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, accessat,
    renameat_with,
};

use super::bpffs::{MAGIC, ROOT};
use super::mapping::{errno_of, int};
use super::memory::TaskMem;
use super::placeholder::{access, link_name, own_link};
use super::port::{Answer, Port, Syscall};
use super::server::Server;
use super::table::Entry;
use super::{cgroups, task};
use crate::abi::{Attr, Errno, Fd, Result, UserMem};

/// A directory, and the address of a path.
type At = (u64, u64);

/// The caller's directory.
const HERE: u64 = libc::AT_FDCWD.cast_unsigned() as u64;

/// The number is the same on all architectures.
pub(super) const FCHMODAT2: libc::c_long = 452;

/// Calls about the extended attributes of a path.
pub(super) const XATTR: [libc::c_long; 8] = [
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
];

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

/// A file cannot be made in the file system of pins: for that reason, if there is a directory for it.
fn refused(real: &Path, errno: Errno) -> Result<()> {
    let dir = fs::metadata(real.parent().unwrap_or(real)).map_err(errno_of)?;
    Err(if dir.is_dir() { errno } else { Errno::ENOTDIR })
}

/// Whether a file there can be opened: pins cannot be read.
fn can_open(real: &Path, flags: OFlags) -> Result<()> {
    let exclusive = OFlags::CREATE | OFlags::EXCL;
    if flags.contains(OFlags::CREATE) && fs::symlink_metadata(real).is_err() {
        return refused(real, Errno::EACCES);
    }
    let Ok(found) = fs::metadata(real) else {
        return Ok(());
    };
    if found.is_dir() && flags.contains(OFlags::TMPFILE) {
        return Err(Errno::EOPNOTSUPP);
    }
    let is_pin = found.is_file() && !flags.contains(exclusive);
    if is_pin && flags.contains(OFlags::DIRECTORY) {
        return Err(Errno::ENOTDIR);
    }
    if is_pin && !flags.contains(OFlags::PATH) {
        return Err(Errno::EIO);
    }
    Ok(())
}

impl Call<'_> {
    /// The answer; `None` if it is none of ours.
    fn answer(&mut self, call: &Syscall) -> Option<Result<u64>> {
        let [a, b, c, d, e, _] = call.args;
        #[cfg(target_arch = "x86_64")]
        if let Some(answer) = self.older(call.number, call.args) {
            return answer;
        }
        match call.number {
            libc::SYS_openat => self.open((a, b), c, d),
            libc::SYS_openat2 => {
                let mut how = [0; 16];
                self.mem.read(c, &mut how).ok()?;
                let how = Attr(&how);
                self.open((a, b), how.u64(0), how.u64(8))
            }
            libc::SYS_newfstatat => self.stat((a, b), c, int(d).cast_signed()),
            libc::SYS_statx => self.statx((a, b), int(c).cast_signed(), int(d), e),
            libc::SYS_faccessat => self.access((a, b), c, 0),
            libc::SYS_faccessat2 => self.access((a, b), c, d),
            libc::SYS_mkdirat => self.mkdir((a, b), c),
            libc::SYS_unlinkat => {
                self.unlink((a, b), int(c) & libc::AT_REMOVEDIR.cast_unsigned() != 0)
            }
            libc::SYS_renameat => self.rename((a, b), (c, d), 0),
            libc::SYS_renameat2 => self.rename((a, b), (c, d), int(e)),
            libc::SYS_readlinkat => self.readlink((a, b), c, d),
            libc::SYS_symlinkat => self.symlink(a, (b, c)),
            libc::SYS_linkat => self.link((a, b), (c, d), e),
            libc::SYS_mknodat => self.mknod((a, b), c),
            libc::SYS_fchmodat | FCHMODAT2 => self.chmod((a, b), c),
            libc::SYS_fchownat => self.chown((a, b), (c, d), e),
            libc::SYS_utimensat => self.utimens((a, b), c, d),
            libc::SYS_statfs => self.statfs(a, b),
            libc::SYS_fstatfs => self.fstatfs(int(a), b),
            libc::SYS_chdir => self.chdir(a),
            libc::SYS_getcwd => self.getcwd(a, b),
            libc::SYS_truncate => self.truncate(a),
            call if XATTR.contains(&call) => self.xattr(a, call),
            _ => None,
        }
    }

    /// The old calls are the new ones, in the caller's directory.
    #[cfg(target_arch = "x86_64")]
    #[expect(
        clippy::option_option,
        reason = "it may be an old call that is none of ours"
    )]
    fn older(&mut self, number: i64, [a, b, c, ..]: [u64; 6]) -> Option<Option<Result<u64>>> {
        let path = (HERE, a);
        Some(match number {
            libc::SYS_open => self.open(path, b, c),
            libc::SYS_creat => {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
                self.open(path, u64::from(flags.cast_unsigned()), b)
            }
            libc::SYS_stat => self.stat(path, b, 0),
            libc::SYS_lstat => self.stat(path, b, libc::AT_SYMLINK_NOFOLLOW),
            libc::SYS_access => self.access(path, b, 0),
            libc::SYS_mkdir => self.mkdir(path, b),
            libc::SYS_rmdir => self.unlink(path, true),
            libc::SYS_unlink => self.unlink(path, false),
            libc::SYS_rename => self.rename(path, (HERE, b), 0),
            libc::SYS_readlink => self.readlink(path, b, c),
            libc::SYS_symlink => self.symlink(a, (HERE, b)),
            libc::SYS_link => self.link(path, (HERE, b), 0),
            libc::SYS_mknod => self.mknod(path, b),
            libc::SYS_chmod => self.chmod(path, b),
            libc::SYS_chown => self.chown(path, (b, c), 0),
            libc::SYS_lchown => {
                let flags = u64::from(libc::AT_SYMLINK_NOFOLLOW.cast_unsigned());
                self.chown(path, (b, c), flags)
            }
            _ => return None,
        })
    }

    /// The path at an address.
    fn read_path(&self, addr: u64) -> Result<PathBuf> {
        Ok(OsString::from_vec(self.mem.path(addr)?).into())
    }

    /// The path from the root on, if it may be one of ours: it leads to a place that matters.
    fn path(&self, (dir, addr): At) -> Option<PathBuf> {
        let mut begin = [0; 6];
        let len = usize::try_from(4096 - addr % 4096).unwrap_or(1).min(6);
        self.mem.read(addr, &mut begin[..len]).ok()?;
        let path = |this: &Self| this.read_path(addr).ok();
        if begin[0] == b'/' {
            let ours = [b"/sys/f", b"/sys/d", b"/proc/", b"/dev/f"];
            let may_be = ours.iter().any(|ours| ours[..len] == begin[..len]);
            let path = may_be.then(|| path(self))??;
            return Some(match path.strip_prefix("/dev/fd") {
                Ok(fd) => Path::new("/proc/self/fd").join(fd),
                Err(_) => path,
            });
        }
        if begin[0] == 0 {
            return None;
        }
        let (task, dir) = (self.port.task(), int(dir));
        let base = match int(HERE) == dir {
            true => task::link(task, "cwd").ok()?,
            false => task::link(task, &format!("fd/{dir}")).ok()?,
        };
        let shown = self.server.bpffs.shown(&base);
        let above = Path::new(ROOT).starts_with(&base);
        let cgroup = self.server.cgroups.has(&base);
        let matters = shown.is_some()
            || above
            || cgroup
            || base.starts_with(ROOT)
            || base.starts_with("/proc");
        let path = matters.then(|| path(self))??;
        Some(shown.unwrap_or(base).join(path))
    }

    /// Where a path leads that is not what it seems.
    ///
    /// # Errors
    ///
    /// `EPERM` for a name with a dot in the file system of pins, which is not there.
    fn real(&self, at: At) -> Option<Result<PathBuf>> {
        let real = self.real_path(&self.path(at)?)?;
        match self.server.bpffs.not_found(&real, Errno::ENOENT) {
            Errno::EPERM => Some(Err(Errno::EPERM)),
            _ => Some(Ok(real)),
        }
    }

    fn real_path(&self, path: &Path) -> Option<PathBuf> {
        let in_bpffs = self.server.bpffs.real_path(path);
        in_bpffs.or_else(|| self.server.cgroups.real_path(path))
    }

    fn open(&self, at: At, flags: u64, mode: u64) -> Option<Result<u64>> {
        let flags = OFlags::from_bits_retain(int(flags));
        let cloexec = flags.contains(OFlags::CLOEXEC);
        let Some(real) = self.real(at) else {
            let path = self.path(at)?;
            if !flags.intersects(OFlags::PATH | OFlags::NOFOLLOW) && self.linked(&path).is_some() {
                // Such files have no name to be opened by.
                return Some(Err(Errno::ENXIO));
            }
            let text = self.text_at(&path)?;
            let fd = self.server.give_text(self.port, &text, cloexec);
            return Some(fd.map(u64::from));
        };
        let open = || {
            let real = real?;
            if self.server.bpffs.has(&real) {
                can_open(&real, flags)?;
            }
            let mut flags = flags;
            // No fd for a path alone is given to another.
            flags.set(
                OFlags::PATH,
                flags.contains(OFlags::PATH) && self.port.opens_again(),
            );
            let mode = Mode::from(int(mode) & !task::umask(self.port.task()));
            let opened = rustix::fs::openat(CWD, &real, flags | OFlags::CLOEXEC, mode);
            let opened = opened.map_err(errno_of)?;
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
        let process = self.process(below.parent()?.parent()?)?;
        let link = process.join("fd").join(below.file_name()?);
        let entry = self.server.table.get(task::linked(&link)?.inode)?;
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
            // Its numbers may be others than ours.
            other => format!("/proc/{task}/root/proc/{}", other.parse::<u32>().ok()?),
        };
        Some(Path::new(&start).join(parts.as_path()))
    }

    /// The link in `/proc`, as we see it, that a path means: of an fd, or a directory.
    fn link_at(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix("/proc").ok()?;
        let name = below.file_name()?;
        let of = below.parent()?;
        if of.ends_with("fd") {
            return Some(self.process(of.parent()?)?.join("fd").join(name));
        }
        let dirs = ["cwd", "root"];
        dirs.iter().any(|dir| *dir == name).then_some(())?;
        Some(self.process(of)?.join(name))
    }

    /// The emulated file that a path in `/proc` leads to.
    fn linked(&self, path: &Path) -> Option<Arc<Entry>> {
        self.server
            .table
            .get(task::linked(&self.link_at(path)?)?.inode)
    }

    fn readlink(&mut self, at: At, buffer: u64, size: u64) -> Option<Result<u64>> {
        let text = match self.real(at) {
            Some(Ok(real)) => fs::read_link(real).map_err(errno_of),
            Some(Err(errno)) => Err(errno),
            None => {
                let path = self.path(at)?;
                if let Some(entry) = self.linked(&path) {
                    Ok(PathBuf::from(link_name(entry.any_file().kind())))
                } else {
                    let link = fs::read_link(self.link_at(&path)?).ok()?;
                    Ok(self.server.bpffs.shown(&link).map(|_| link)?)
                }
            }
        };
        let answer = |this: &mut Self| {
            let text = text?;
            let text = this.server.bpffs.shown(&text).unwrap_or(text);
            let text = text.as_os_str().as_bytes();
            let size = usize::try_from(int(size)).unwrap_or(0).min(text.len());
            if size == 0 {
                return Err(Errno::EINVAL);
            }
            this.mem.write(buffer, &text[..size]).map(|()| size as u64)
        };
        Some(answer(self))
    }

    /// What is looked at in place of a file of ours. An emulated file looks like others without a name: [`Call::unnamed`], to which
    /// an empty path leads, too.
    fn looked_at(&self, at: At, flags: i32) -> Option<Result<PathBuf>> {
        if let Some(real) = self.real(at) {
            return Some(real);
        }
        let mut begin = [0];
        let by_fd = flags & libc::AT_EMPTY_PATH != 0
            && (at.1 == 0 || self.mem.read(at.1, &mut begin).is_ok() && begin == [0]);
        if by_fd {
            self.emulated(int(at.0))?;
            return Some(Ok(PathBuf::new()));
        }
        if flags & libc::AT_SYMLINK_NOFOLLOW != 0 {
            return None;
        }
        self.linked(&self.path(at)?)?;
        Some(Ok(own_link(self.unnamed()).into()))
    }

    /// A file of ours without a name.
    fn unnamed(&self) -> &OwnedFd {
        self.server.woken()
    }

    /// The emulated file behind an fd.
    fn emulated(&self, fd: Fd) -> Option<Arc<Entry>> {
        if self.server.table.is_empty() {
            return None;
        }
        let file = self.server.tasks.file(self.port.task(), fd).ok()?;
        self.server.table.get(file.inode)
    }

    fn stat(&mut self, at: At, out: u64, flags: i32) -> Option<Result<u64>> {
        let real = self.looked_at(at, flags)?;
        let found = c_path(real).and_then(|real| {
            // SAFETY: it is a plain struct of numbers.
            let mut stat: libc::stat = unsafe { std::mem::zeroed() };
            let dir = self.unnamed().as_raw_fd();
            // SAFETY: the path ends with a NUL, and the struct is ours.
            let ret = unsafe { libc::fstatat(dir, real.as_ptr(), &raw mut stat, flags) };
            self.filled(ret, out, bytes_of(&stat))
        });
        Some(found)
    }

    fn statx(&mut self, at: At, flags: i32, mask: u32, out: u64) -> Option<Result<u64>> {
        let real = self.looked_at(at, flags)?;
        let found = c_path(real).and_then(|real| {
            let (dir, real) = (self.unnamed().as_raw_fd(), real.as_ptr());
            // SAFETY: it is a plain struct of numbers.
            let mut stat: libc::statx = unsafe { std::mem::zeroed() };
            // SAFETY: the path ends with a NUL, and the struct is ours.
            let ret = unsafe { libc::statx(dir, real, flags, mask, &raw mut stat) };
            self.filled(ret, out, bytes_of(&stat))
        });
        Some(found)
    }

    fn filled(&mut self, ret: i32, out: u64, bytes: &[u8]) -> Result<u64> {
        if ret < 0 {
            return Err(errno_of(std::io::Error::last_os_error()));
        }
        self.mem.write(out, bytes).map(|()| 0)
    }

    /// A call with the path of something of ours; `None` if it is not.
    fn done(
        &self,
        at: At,
        call: impl FnOnce(&Path) -> rustix::io::Result<()>,
    ) -> Option<Result<u64>> {
        let made = |real: PathBuf| call(&real).map(|()| 0).map_err(errno_of);
        Some(self.real(at)?.and_then(made))
    }

    fn access(&self, at: At, mode: u64, flags: u64) -> Option<Result<u64>> {
        let mode = Access::from_bits_retain(int(mode));
        let flags = AtFlags::from_bits_retain(int(flags));
        self.done(at, |real| accessat(CWD, real, mode, flags))
    }

    fn mkdir(&self, at: At, mode: u64) -> Option<Result<u64>> {
        let mode = int(mode) & !task::umask(self.port.task());
        let Some(real) = self.real(at) else {
            return self.server.cgroups.make(&self.path(at)?, mode);
        };
        let make = |real: PathBuf| {
            rustix::fs::mkdir(&real, Mode::from(mode)).map_err(errno_of)?;
            // Whatever our own mask is.
            let _ = rustix::fs::chmod(&real, Mode::from(mode));
            Ok(0)
        };
        Some(real.and_then(make))
    }

    fn unlink(&self, at: At, dir: bool) -> Option<Result<u64>> {
        let removed = self.done(at, |real| {
            let found = rustix::fs::stat(real).map(|found| (found.st_dev, found.st_ino));
            if dir {
                rustix::fs::rmdir(real)?;
            } else {
                rustix::fs::unlink(real)?;
            }
            if let Ok(inode) = found {
                self.server
                    .cgroups
                    .removed(&self.server.kernel, real, inode);
            }
            Ok(())
        });
        self.server.follow_pins();
        removed
    }

    /// Two paths, if one is of something of ours.
    fn both(&self, from: At, to: At) -> Option<Result<(PathBuf, PathBuf)>> {
        match (self.real(from), self.real(to)) {
            (None, None) => None,
            (Some(Ok(from)), Some(Err(errno))) => {
                let found = fs::symlink_metadata(from).map_err(errno_of);
                Some(found.and(Err(errno)))
            }
            (Some(Err(errno)), _) | (_, Some(Err(errno))) => Some(Err(errno)),
            (Some(Ok(from)), Some(Ok(to))) => Some(Ok((from, to))),
            (None, Some(_)) | (Some(_), None) => Some(Err(Errno::EXDEV)),
        }
    }

    fn rename(&self, from: At, to: At, flags: u32) -> Option<Result<u64>> {
        let flags = RenameFlags::from_bits_retain(flags);
        let both = self.both(from, to)?;
        let renamed = both.and_then(|(from, to)| {
            let exchange = flags.contains(RenameFlags::EXCHANGE);
            if flags.contains(RenameFlags::WHITEOUT) && !exchange {
                fs::symlink_metadata(&from).map_err(errno_of)?;
                return Err(Errno::EINVAL);
            }
            renameat_with(CWD, &from, CWD, &to, flags).map_err(errno_of)
        });
        self.server.follow_pins();
        Some(renamed.map(|()| 0))
    }

    fn link(&self, from: At, to: At, flags: u64) -> Option<Result<u64>> {
        let flags = AtFlags::from_bits_retain(int(flags));
        let both = self.both(from, to)?;
        let linked = both.and_then(|(from, to)| {
            rustix::fs::linkat(CWD, &from, CWD, &to, flags).map_err(errno_of)
        });
        Some(linked.map(|()| 0))
    }

    fn symlink(&self, target: u64, at: At) -> Option<Result<u64>> {
        let real = self.real(at)?;
        let make = |real: PathBuf| {
            let target = self.read_path(target)?;
            // What it leads to is where it really is.
            let target = self.real_path(&target).unwrap_or(target);
            rustix::fs::symlink(&target, &real)
                .map(|()| 0)
                .map_err(errno_of)
        };
        Some(real.and_then(make))
    }

    /// Nothing is made but directories, links and pins.
    fn mknod(&self, at: At, mode: u64) -> Option<Result<u64>> {
        let answer = |real: PathBuf| match int(mode) & libc::S_IFMT {
            libc::S_IFDIR => Err(Errno::EPERM),
            _ if fs::symlink_metadata(&real).is_ok() => Err(Errno::EEXIST),
            0 | libc::S_IFREG => refused(&real, Errno::EACCES),
            _ => refused(&real, Errno::EPERM),
        };
        Some(self.real(at)?.and_then(answer).map(|()| 0))
    }

    /// Extended attributes: there are none. The list is empty; all else is not supported.
    fn xattr(&self, path: u64, number: i64) -> Option<Result<u64>> {
        let follows = [
            libc::SYS_listxattr,
            libc::SYS_getxattr,
            libc::SYS_setxattr,
            libc::SYS_removexattr,
        ];
        let lists = [libc::SYS_listxattr, libc::SYS_llistxattr];
        let real = self.real((HERE, path))?;
        let answer = |real: PathBuf| {
            let found = match follows.contains(&number) {
                true => fs::metadata(real),
                false => fs::symlink_metadata(real),
            };
            found.map_err(errno_of)?;
            match lists.contains(&number) {
                true => Ok(0),
                false => Err(Errno::EOPNOTSUPP),
            }
        };
        Some(real.and_then(answer))
    }

    fn truncate(&self, path: u64) -> Option<Result<u64>> {
        let answer = |real: PathBuf| match fs::metadata(real).map_err(errno_of)?.is_dir() {
            true => Err(Errno::EISDIR),
            false => Ok(0),
        };
        Some(self.real((HERE, path))?.and_then(answer))
    }

    fn chmod(&self, at: At, mode: u64) -> Option<Result<u64>> {
        self.done(at, |real| rustix::fs::chmod(real, Mode::from(int(mode))))
    }

    fn chown(&self, at: At, (user, group): (u64, u64), flags: u64) -> Option<Result<u64>> {
        let owner = int(user);
        let user = (owner != u32::MAX).then(|| rustix::fs::Uid::from_raw(owner));
        let owner = int(group);
        let group = (owner != u32::MAX).then(|| rustix::fs::Gid::from_raw(owner));
        let flags = AtFlags::from_bits_retain(int(flags));
        self.done(at, |real| {
            rustix::fs::chownat(CWD, real, user, group, flags)
        })
    }

    fn utimens(&self, at: At, times: u64, flags: u64) -> Option<Result<u64>> {
        if at.1 == 0 {
            return None;
        }
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        };
        let mut stamps = [now, now];
        if times != 0 {
            let mut bytes = [0; 32];
            self.mem.read(times, &mut bytes).ok()?;
            let word = |at: usize| Attr(&bytes).u64(at).cast_signed();
            stamps = [0, 16].map(|at| Timespec {
                tv_sec: word(at),
                tv_nsec: word(at + 8),
            });
        }
        let times = Timestamps {
            last_access: stamps[0],
            last_modification: stamps[1],
        };
        let flags = AtFlags::from_bits_retain(int(flags));
        self.done(at, |real| rustix::fs::utimensat(CWD, real, &times, flags))
    }

    /// The running kernel goes to the root, if it has one; nothing below it is there for it.
    fn chdir(&self, path: u64) -> Option<Result<u64>> {
        let real = match self.real((HERE, path))? {
            Ok(real) => real,
            Err(errno) => return Some(Err(errno)),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match rustix::fs::openat(CWD, &real, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(error) => return Some(Err(errno_of(error))),
        };
        let there = self.port.chdir(dir.as_fd());
        if there.is_some() || self.server.bpffs.real_path(Path::new(ROOT)) == Some(real) {
            return there;
        }
        self.server.notices.refuse(format_args!(
            "chdir to a directory below {ROOT} is not emulated, but with --backend ptrace: EOPNOTSUPP"
        ));
        Some(Err(Errno::EOPNOTSUPP))
    }

    fn getcwd(&mut self, buffer: u64, size: u64) -> Option<Result<u64>> {
        let cwd = task::link(self.port.task(), "cwd").ok()?;
        let shown = self.server.bpffs.shown(&cwd)?;
        let mut bytes = shown.into_os_string().into_vec();
        bytes.push(0);
        let len = bytes.len() as u64;
        if len > size {
            return Some(Err(Errno::ERANGE));
        }
        Some(self.mem.write(buffer, &bytes).map(|()| len))
    }

    fn statfs(&mut self, path: u64, out: u64) -> Option<Result<u64>> {
        let path = match self.real((HERE, path)) {
            Some(Ok(real)) => real,
            Some(Err(errno)) => return Some(Err(errno)),
            None => {
                if self
                    .path((HERE, path))
                    .and_then(|path| self.linked(&path))
                    .is_some()
                {
                    return Some(self.unnamed_statfs(out));
                }
                let path = self.read_path(path).ok()?;
                let path = task::absolute(self.port.task(), None, &path).ok()?;
                // No file system is asked: the program may be what serves it.
                let how = (OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::CACHED);
                let found = rustix::fs::openat2(CWD, &path, how.0, Mode::empty(), how.1).ok()?;
                fs::read_link(own_link(&found)).ok()?
            }
        };
        let magic = self.magic(&path)?;
        if let Err(error) = fs::metadata(&path) {
            return Some(Err(errno_of(error)));
        }
        Some(self.write_statfs(magic, out))
    }

    fn fstatfs(&mut self, fd: u32, out: u64) -> Option<Result<u64>> {
        if self.emulated(fd).is_some() {
            return Some(self.unnamed_statfs(out));
        }
        let magic = self.magic(&task::link(self.port.task(), &format!("fd/{fd}")).ok()?)?;
        Some(self.write_statfs(magic, out))
    }

    /// The file system of files without a name.
    fn unnamed_statfs(&mut self, out: u64) -> Result<u64> {
        // SAFETY: it is a plain struct of numbers.
        let mut statfs: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: the struct is ours.
        let ret = unsafe { libc::fstatfs(self.unnamed().as_raw_fd(), &raw mut statfs) };
        self.filled(ret, out, bytes_of(&statfs))
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

fn c_path(path: Result<PathBuf>) -> Result<CString> {
    CString::new(path?.into_os_string().into_vec()).map_err(|_| Errno::ENOENT)
}

/// A struct of the C library that was zero at first.
fn bytes_of<T>(of: &T) -> &[u8] {
    let start = std::ptr::from_ref(of).cast();
    // SAFETY: the structs here were zeroed, so all their bytes are there, and they are borrowed as long as the slice.
    unsafe { std::slice::from_raw_parts(start, size_of::<T>()) }
}
