//! The emulated files that the program has open, by the inodes of their placeholders.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::epoll::Registration;
use super::placeholder::{Closings, Inode, access, file_for, inode_of, open_again};
use super::port::Port;
use crate::abi::{Errno, Fd, Result};
use crate::map::object::Object;
use crate::sys::{Granted, OpenFile};

/// An emulated file that is open. Of memory that can be mapped there may be several, which differ in what they may do.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) inode: Inode,
    files: Mutex<Vec<OpenFile>>,
    /// Opens of the placeholder that the program has.
    opens: AtomicUsize,
    watch: i32,
    /// What is mapped, as far as it matters: writable memory, a perf event's buffer.
    pub(super) granted: Mutex<Vec<Granted>>,
    /// Who waits for it.
    pub(super) registrations: Mutex<Vec<Registration>>,
}

impl Entry {
    /// The file; of several, the one that may do that.
    pub(super) fn file(&self, access: impl FnOnce() -> (bool, bool)) -> OpenFile {
        let files = self.files.lock();
        if let [one] = files.as_slice() {
            return one.clone();
        }
        let access = access();
        let with = |file: &&OpenFile| (file.can_read(), file.can_write()) == access;
        let found = files.iter().find(with).or(files.first());
        found.expect("an entry has a file").clone()
    }

    /// All of them.
    pub(super) fn files(&self) -> Vec<OpenFile> {
        self.files.lock().clone()
    }

    /// Any of them.
    pub(super) fn any_file(&self) -> OpenFile {
        self.files.lock()[0].clone()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    closings: Closings,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_inode: HashMap<Inode, Arc<Entry>>,
    by_watch: HashMap<i32, Inode>,
}

impl Table {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            closings: Closings::new()?,
            open: Mutex::default(),
        })
    }

    /// Readable when something was closed: see [`Table::settle`].
    pub(super) fn closings(&self) -> &Closings {
        &self.closings
    }

    pub(super) fn get(&self, inode: Inode) -> Option<Arc<Entry>> {
        self.open.lock().by_inode.get(&inode).map(Arc::clone)
    }

    /// The program has none open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.lock().by_inode.is_empty()
    }

    /// Gives the caller an fd of an emulated file.
    ///
    /// # Errors
    ///
    /// `EMFILE` of the caller; those of the system, which are told.
    pub(super) fn install(&self, port: &dyn Port, file: OpenFile) -> Result<Fd> {
        let made = self.place(port, &file).map_err(|error| {
            port.unreachable(&error);
            Errno::ENFILE
        });
        let (placeholder, theirs, inode, watch) = made?;
        let known = self.get(inode);
        let reopened = theirs.is_some();
        let theirs = theirs.as_ref().unwrap_or(&placeholder);
        let fd = port.add_fd(
            theirs.as_fd(),
            access(file.can_read(), file.can_write()),
            true,
        );
        let Ok(fd) = fd else {
            match known {
                None => self.closings.forget(watch),
                // It is closed at once, and that is told.
                Some(entry) if reopened => {
                    entry.opens.fetch_add(1, Ordering::Relaxed);
                }
                Some(_) => {}
            }
            return fd;
        };
        if let Some(entry) = known {
            entry.opens.fetch_add(1, Ordering::Relaxed);
            let mut files = entry.files.lock();
            let same = |known: &OpenFile| {
                (known.can_read(), known.can_write()) == (file.can_read(), file.can_write())
            };
            if !files.iter().any(same) {
                files.push(file);
            }
            return Ok(fd);
        }
        let object = file.object();
        if let Object::Other(object) = &object
            && let Some(event) = object.perf_event()
        {
            event.lay_in(placeholder);
        }
        let entry = Arc::new(Entry {
            inode,
            files: Mutex::new(vec![file]),
            opens: AtomicUsize::new(1),
            watch,
            granted: Mutex::default(),
            registrations: Mutex::default(),
        });
        let mut open = self.open.lock();
        open.by_watch.insert(watch, inode);
        open.by_inode.insert(inode, entry);
        Ok(fd)
    }

    /// A placeholder, what the caller is given of it unless it opens it by itself, its inode, and the number that its closing is told by.
    fn place(
        &self,
        port: &dyn Port,
        file: &OpenFile,
    ) -> io::Result<(OwnedFd, Option<OwnedFd>, Inode, i32)> {
        let placeholder = file_for(file)?;
        let inode = inode_of(&placeholder)?;
        let theirs = if port.opens_again() {
            None
        } else {
            Some(open_again(&placeholder, file.can_read(), file.can_write())?)
        };
        let watch = self.closings.watch(&placeholder)?;
        Ok((placeholder, theirs, inode, watch))
    }

    /// Takes out the emulated files whose last fd was closed. No lock is to be held when they are dropped: a map may go with
    /// one, and others with that.
    pub(super) fn settle(&self) -> Vec<Arc<Entry>> {
        let closed = self.closings.take();
        let mut gone = Vec::new();
        if closed.is_empty() {
            return gone;
        }
        let mut open = self.open.lock();
        for watch in closed {
            let Some(inode) = open.by_watch.get(&watch).copied() else {
                continue;
            };
            let entry = open.by_inode.get(&inode).expect("they go together");
            if entry.opens.fetch_sub(1, Ordering::Relaxed) > 1 {
                continue;
            }
            gone.extend(open.by_inode.remove(&inode));
            open.by_watch.remove(&watch);
            self.closings.forget(watch);
        }
        gone
    }

    /// All that are open.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        self.open.lock().by_inode.values().map(Arc::clone).collect()
    }

    /// An entry of which no fd is left but those that nobody told of: it was opened more than once.
    pub(super) fn remove(&self, entry: &Entry) {
        let mut open = self.open.lock();
        open.by_watch.remove(&entry.watch);
        let gone = open.by_inode.remove(&entry.inode);
        self.closings.forget(entry.watch);
        drop(open);
        drop(gone);
    }

    /// Some may be closed without that it was told: equal events that follow each other are told once.
    pub(super) fn several(&self) -> Vec<Arc<Entry>> {
        let mut all = self.all();
        all.retain(|entry| entry.opens.load(Ordering::Relaxed) > 1);
        all
    }
}
