//! One scenario as it goes on: names, and what each request means to a [`World`].

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::names::Names;
use super::request::{Broken, Request, Stop, errno_name};
use super::world::World;
use crate::abi::{Cmd, Memory};

/// What came of one request.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// The world's answer.
    Got(Value),
    /// Only the verifier was asked, and it allows the program.
    Allowed,
    /// The world has no such thing yet; it is named.
    ToCome(String),
}

/// A scenario that runs in a world.
pub struct Engine<'w> {
    pub(super) world: &'w mut dyn World,
    pub(super) names: Names,
    /// What the calls of this operation left in their buffers.
    pub(super) buffers: Cell<u64>,
    /// Time in bpf(2) of this operation.
    in_calls: Cell<Duration>,
    took: Duration,
}

/// What an operation comes to: its answer's fields.
pub(super) type Outcome = Result<Value, Stop>;

impl<'w> Engine<'w> {
    /// A scenario at its start.
    pub fn new(world: &'w mut dyn World) -> Self {
        Self {
            world,
            names: Names::default(),
            buffers: Cell::new(0),
            in_calls: Cell::new(Duration::ZERO),
            took: Duration::ZERO,
        }
    }

    /// Does one request; `only_verify`: asks no more than whether the verifier refuses its program.
    ///
    /// # Errors
    ///
    /// [`Broken`] if it is no request.
    pub fn answer(
        &mut self,
        request: &Map<String, Value>,
        only_verify: bool,
    ) -> Result<Answer, Broken> {
        let request = Request(request);
        self.buffers.set(0);
        let op = request.need_text("op")?;
        if let Some(name) = request.text("as")?
            && op != "mmap"
        {
            self.drop_name(name);
        }
        self.world.only_verify(only_verify);
        self.in_calls.set(Duration::ZERO);
        let start = Instant::now();
        let outcome = self.operation(op, request);
        self.took = match self.in_calls.get() {
            Duration::ZERO => start.elapsed(),
            in_calls => in_calls,
        };
        match outcome {
            Ok(answer) => Ok(Answer::Got(answer)),
            Err(Stop::Errno(errno)) => Ok(Answer::Got(json!({ "err": errno_name(errno) }))),
            Err(Stop::Verifier(errno)) => Ok(Answer::Got(json!({ "verifier": errno_name(errno) }))),
            Err(Stop::Allowed) => Ok(Answer::Allowed),
            Err(Stop::ToCome(what)) => Ok(Answer::ToCome(what)),
            Err(Stop::Broken(broken)) => Err(broken),
        }
    }

    /// A number for what the element and batch commands of the last operation left in their buffers, whatever they answered:
    /// the same in two worlds that wrote the same.
    pub fn buffers(&self) -> u64 {
        self.buffers.get()
    }

    /// How long the last operation took: its calls of bpf(2), or all of it if it made none.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// One call of bpf(2), timed.
    pub(super) fn bpf(
        &self,
        cmd: Cmd,
        attr: u64,
        size: u32,
        memory: &mut Memory<'_>,
    ) -> crate::abi::Result<u32> {
        let start = Instant::now();
        let answer = self.world.bpf().bpf(cmd, attr, size, memory);
        self.in_calls.set(self.in_calls.get() + start.elapsed());
        answer
    }

    /// The table of operations.
    fn operation(&mut self, op: &str, o: Request<'_>) -> Outcome {
        match op {
            "map_create" => self.map_create(o),
            "map_freeze" => self.map_freeze(o),
            "obj_get_info_by_fd" => self.obj_get_info_by_fd(o),
            "fdinfo" => self.fdinfo(o),
            "map_update_elem" => self.map_update_elem(o),
            "map_lookup_elem" | "map_lookup_and_delete_elem" => self.map_lookup_elem(op, o),
            "map_delete_elem" => self.map_delete_elem(o),
            "map_get_next_key" => self.map_get_next_key(o),
            "walk" => self.walk(o),
            "map_lookup_batch"
            | "map_lookup_and_delete_batch"
            | "map_update_batch"
            | "map_delete_batch" => self.batch(op, o),
            "map_get_fd_by_id" => self.map_get_fd_by_id(o),
            "map_get_next_id" => self.map_get_next_id(o),
            "obj_pin" => self.obj_pin(o),
            "obj_get" => self.obj_get(o),
            "btf_load" => self.btf_load(o),
            "bpf" => self.raw(o),
            "helper" => self.helper(o),
            "program" => self.program(o),
            "for_each" => self.for_each(o),
            "storage_helper" => self.storage_helper(o),
            "ringbuf" => self.ringbuf(o),
            "ringbuf_consume" => self.ringbuf_consume(o),
            "ringbuf_positions" => self.ringbuf_positions(o),
            "ringbuf_set_pos" => self.ringbuf_set_pos(o),
            "ringbuf_read" => self.ringbuf_read(o),
            "ringbuf_write" => self.ringbuf_write(o),
            "ringbuf_produce" => self.ringbuf_produce(o),
            "user_ringbuf_drain" => self.user_ringbuf_drain(o),
            "cgroup_create" => self.cgroup_create(o),
            "cgroup_remove" => self.cgroup_remove(o),
            "prog_load" => self.prog_load(o),
            "prog_attach" | "prog_detach" => self.prog_attach(op, o),
            "link_create" => self.link_create(o),
            "link_update" => self.link_update(o),
            "link_detach" => self.link_detach(o),
            "trigger" => self.trigger(o),
            "prog_test_run" => self.prog_test_run(o),
            _ => self.operation_around(op, o),
        }
    }

    /// The table of operations on what is around the maps.
    fn operation_around(&mut self, op: &str, o: Request<'_>) -> Outcome {
        match op {
            "close" => self.close(o),
            "dup" => self.dup(o),
            "mkdir" => self.mkdir(o),
            "unlink" => self.unlink(o),
            "file" => self.file(o),
            "socket" => self.socket(o),
            "pidfd" => self.pidfd(o),
            "child_exit" => self.child_exit(o),
            "perf_event" => self.perf_event(o),
            "file_op" => self.file_op(o),
            "poll" => self.poll(o),
            "epoll" => self.epoll(o),
            "mmap" => self.mmap(o),
            "mem_read" => self.mem_read(o),
            "mem_write" => self.mem_write(o),
            "mprotect" => self.mprotect(o),
            "munmap" => self.munmap(o),
            "set_cpu" => self.set_cpu(o),
            "caps" => self.caps(o),
            "sysctl" => self.sysctl(o),
            "settle" => {
                self.world.settle();
                Ok(json!({}))
            }
            _ => Err(Broken(format!("there is no operation \"{op}\"")).into()),
        }
    }

    /// Closes what a name stands for, if anything.
    pub(super) fn drop_name(&mut self, name: &str) {
        if let Some(fd) = self.names.forget(name) {
            // It was open: nothing can go wrong that an answer could show.
            let _closed = self.world.bpf().close(fd);
        }
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        self.names.memory.clear();
        for fd in self.names.all_fds() {
            let _closed = self.world.bpf().close(fd);
        }
        self.world.finish();
    }
}

impl fmt::Debug for Engine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}
