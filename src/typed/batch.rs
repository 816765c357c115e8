//! Many elements by one call.

use std::vec;

use bytemuck::{Pod, bytes_of, pod_read_unaligned};

use super::values::ElemValue;
use super::{Error, OwnedMap};
use crate::abi::Errno;
use crate::calls;

/// A batch that ended early.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{error}, after {done} elements")]
pub struct BatchError {
    /// Number of elements done.
    pub done: u32,
    /// The answer that ended it.
    pub error: Error,
}

impl From<BatchError> for Error {
    fn from(batch: BatchError) -> Self {
        batch.error
    }
}

const UPDATE: &str = "map_update_batch";
const LOOKUP: &str = "map_lookup_batch";

impl OwnedMap {
    pub(super) fn insert_batch<K: Pod, V: ElemValue>(
        &self,
        elems: &[(K, V)],
    ) -> Result<(), BatchError> {
        let count = u32::try_from(elems.len()).expect("fewer than 2^32 elements");
        let mut keys = Vec::with_capacity(elems.len() * size_of::<K>());
        let mut values = Vec::with_capacity(elems.len() * V::size(self.bpf()));
        for (key, value) in elems {
            keys.extend_from_slice(bytes_of(key));
            let copied = value.with_bytes(self.bpf(), |value| {
                values.extend_from_slice(value);
                Ok(())
            });
            copied
                .map_err(Error::of(UPDATE))
                .map_err(|error| BatchError { done: 0, error })?;
        }
        let done = calls::bpf_map_update_batch(self.bpf(), self.fd(), &keys, &values, count, 0);
        done.result
            .map_err(Error::of(UPDATE))
            .map_err(|error| BatchError {
                done: done.count,
                error,
            })
    }

    pub(super) fn iter_batched<K: Pod, V: ElemValue>(&self, chunk: u32) -> Batches<'_, K, V> {
        Batches {
            map: self,
            chunk: chunk.max(1),
            token: None,
            read: Vec::new().into_iter(),
            ended: false,
        }
    }
}

/// The elements of a map, read by lookup batches.
#[derive(Debug)]
pub(super) struct Batches<'m, K, V> {
    map: &'m OwnedMap,
    chunk: u32,
    /// Where the next batch goes on.
    token: Option<Vec<u8>>,
    /// What the last one read.
    read: vec::IntoIter<(K, V)>,
    ended: bool,
}

impl<K: Pod, V: ElemValue> Batches<'_, K, V> {
    fn read_more(&mut self) -> Result<(), Error> {
        let (bpf, room) = (self.map.bpf(), self.chunk as usize);
        let value_size = V::size(bpf);
        let mut next = vec![0; size_of::<K>().max(size_of::<u32>())];
        let (mut keys, mut values) = (vec![0; room * size_of::<K>()], vec![0; room * value_size]);
        let done = calls::bpf_map_lookup_batch(
            bpf,
            self.map.fd(),
            self.token.as_deref(),
            &mut next,
            &mut keys,
            &mut values,
            self.chunk,
        );
        let elems = (0..room.min(done.count as usize)).map(|index| {
            let (key, value) = (index * size_of::<K>(), index * value_size);
            (
                pod_read_unaligned(&keys[key..key + size_of::<K>()]),
                V::of_bytes(&values[value..value + value_size]),
            )
        });
        match done.result {
            Ok(()) => {
                self.token = Some(next);
                // A batch that gets nowhere is no beginning of another.
                self.ended = done.count == 0;
            }
            Err(Errno::ENOENT) => self.ended = true,
            // A bucket has more elements than that.
            Err(Errno::ENOSPC) if self.chunk < u32::MAX / 2 => {
                self.chunk *= 2;
                return Ok(());
            }
            Err(errno) => return Err(Error { op: LOOKUP, errno }),
        }
        self.read = elems.collect::<Vec<_>>().into_iter();
        Ok(())
    }
}

impl<K: Pod, V: ElemValue> Iterator for Batches<'_, K, V> {
    type Item = Result<(K, V), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(elem) = self.read.next() {
                return Some(Ok(elem));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.read_more() {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }
}
