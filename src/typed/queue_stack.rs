//! `Queue<V>` and `Stack<V>`.

use std::borrow::Borrow;

use bytemuck::Pod;

use super::Error;
use super::macros::{no_flags, typed_map};

/// Values without keys.
macro_rules! pushes_and_pops {
    ($value:ty) => {
        /// Adds a value. `flags`: `BPF_ANY`, or `BPF_EXIST` to drop the oldest value when it is full.
        ///
        /// # Errors
        ///
        /// `EPERM` if it is frozen; `EINVAL` for other flags; `E2BIG` if it is full.
        #[doc(alias = "bpf_map_push_elem")]
        pub fn push(&self, value: impl Borrow<$value>, flags: u64) -> Result<(), Error> {
            self.map.insert(&(), value.borrow(), flags)
        }

        /// The next value, which is removed. `flags`: 0.
        ///
        /// # Errors
        ///
        /// `EINVAL` for other flags; `EPERM` if it is frozen; `ENOENT` if it is empty.
        #[doc(alias = "bpf_map_pop_elem")]
        pub fn pop(&self, flags: u64) -> Result<$value, Error> {
            self.map.take(&(), flags)
        }

        /// The next value, which stays.
        ///
        /// # Errors
        ///
        /// `ENOENT` if it is empty.
        #[doc(alias = "bpf_map_peek_elem")]
        pub fn peek(&self) -> Result<$value, Error> {
            self.map.get(&(), 0)
        }
    };
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_QUEUE`: first in, first out.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::typed::Queue;
    ///
    /// let kernel = Kernel::new();
    /// let queue: Queue<u32> = Queue::builder().max_entries(2).create(&kernel)?;
    /// queue.push(1, 0)?;
    /// queue.push(2, 0)?;
    /// assert_eq!(queue.pop(0)?, 1);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    Queue<V: Pod>: QUEUE, no_flags!(), { () => V }
    pushes_and_pops!(V);
}

typed_map! {
    /// A map of type `BPF_MAP_TYPE_STACK`: last in, first out.
    ///
    /// ```
    /// use mapemu::Kernel;
    /// use mapemu::typed::Stack;
    ///
    /// let kernel = Kernel::new();
    /// let stack: Stack<u32> = Stack::builder().max_entries(2).create(&kernel)?;
    /// stack.push(1, 0)?;
    /// stack.push(2, 0)?;
    /// assert_eq!(stack.peek()?, 2);
    /// # Ok::<(), mapemu::typed::Error>(())
    /// ```
    Stack<V: Pod>: STACK, no_flags!(), { () => V }
    pushes_and_pops!(V);
}
