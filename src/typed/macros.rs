//! What typed maps have in common: the type itself, and the groups of methods that several of them have.
//!
//! A group is written once; a type lists those that it has.

/// A typed map: its struct, `builder`, `map`, and its groups of methods.
///
/// `NAME<PARAMS>: MAP_TYPE, FLAGS { KEY => VALUE }`; the flags are those without which there is no such map.
macro_rules! typed_map {
    (
        $(#[$doc:meta])*
        $name:ident $(<$($param:ident: $bound:ident $(= $default:ty)?),*>)?:
        $map_type:ident, $map_flags:expr, { $key:ty => $value:ty }
        $($methods:tt)*
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name $(<$($param $(= $default)?),*>)? {
            map: $crate::typed::OwnedMap,
            _types: std::marker::PhantomData<fn() -> ($($($param,)*)?)>,
        }

        impl $(<$($param: $bound),*>)? $name $(<$($param),*>)? {
            /// A map to be made.
            pub fn builder() -> $crate::typed::Builder<Self> {
                $crate::typed::Builder::new()
            }

            /// The map behind it, for calls by bytes.
            pub fn map(&self) -> &$crate::typed::OwnedMap {
                &self.map
            }

            $($methods)*
        }

        impl $(<$($param: $bound),*>)? $crate::typed::TypedMap for $name $(<$($param),*>)? {
            type Key = $key;
            type Value = $value;
            const MAP_TYPE: $crate::abi::MapType = $crate::abi::MapType::$map_type;
            const MAP_FLAGS: $crate::abi::MapFlags = $map_flags;

            fn over(map: $crate::typed::OwnedMap) -> Result<Self, $crate::typed::Error> {
                Ok(Self { map, _types: std::marker::PhantomData })
            }
        }
    };
}

/// No flags.
macro_rules! no_flags {
    () => {
        $crate::abi::MapFlags::empty()
    };
}

macro_rules! gets {
    ($key:ty => $value:ty) => {
        /// The value of a key. `flags`: 0 or `BPF_F_LOCK`.
        ///
        /// # Errors
        ///
        /// `EINVAL` for other flags; `ENOENT` if there is no such element.
        #[doc(alias = "bpf_map_lookup_elem")]
        pub fn get(&self, key: &$key, flags: u64) -> Result<$value, $crate::typed::Error> {
            self.map.get(key, flags)
        }
    };
}

macro_rules! inserts {
    ($key:ty => $value:ty) => {
        /// Makes or changes an element. `flags`: `BPF_ANY`, `BPF_NOEXIST` or `BPF_EXIST`, with `BPF_F_LOCK`.
        ///
        /// # Errors
        ///
        /// `EPERM` if it is frozen; `EINVAL` for other flags; `EEXIST`, `ENOENT` by the flags; `E2BIG` if it is full.
        #[doc(alias = "bpf_map_update_elem")]
        pub fn insert(
            &self,
            key: impl std::borrow::Borrow<$key>,
            value: impl std::borrow::Borrow<$value>,
            flags: u64,
        ) -> Result<(), $crate::typed::Error> {
            self.map.insert(key.borrow(), value.borrow(), flags)
        }
    };
}

macro_rules! removes {
    ($key:ty) => {
        /// Removes an element.
        ///
        /// # Errors
        ///
        /// `EPERM` if it is frozen; `ENOENT` if there is no such element.
        #[doc(alias = "bpf_map_delete_elem")]
        pub fn remove(&self, key: &$key) -> Result<(), $crate::typed::Error> {
            self.map.remove(key)
        }
    };
}

macro_rules! takes {
    ($key:ty => $value:ty) => {
        /// The value of a key, which is removed. `flags`: 0 or `BPF_F_LOCK`.
        ///
        /// # Errors
        ///
        /// `EINVAL` for other flags; `EPERM` if it is frozen; `ENOENT` if there is no such element.
        #[doc(alias = "bpf_map_lookup_and_delete_elem")]
        pub fn take(&self, key: &$key, flags: u64) -> Result<$value, $crate::typed::Error> {
            self.map.take(key, flags)
        }
    };
}

macro_rules! keys {
    ($key:ty) => {
        /// All keys, in the kernel's order.
        #[doc(alias = "bpf_map_get_next_key")]
        pub fn keys(&self) -> impl Iterator<Item = Result<$key, $crate::typed::Error>> {
            self.map.keys()
        }
    };
}

macro_rules! iters {
    ($key:ty => $value:ty) => {
        keys!($key);

        /// All elements, in the kernel's order; one that goes between its key and its value is passed over.
        pub fn iter(&self) -> impl Iterator<Item = Result<($key, $value), $crate::typed::Error>> {
            self.map.iter()
        }
    };
}

macro_rules! batches {
    ($key:ty => $value:ty) => {
        /// All elements, in the kernel's order, `chunk` of them by one call; more where the kernel asks for more room.
        #[doc(alias = "bpf_map_lookup_batch")]
        pub fn iter_batched(
            &self,
            chunk: u32,
        ) -> impl Iterator<Item = Result<($key, $value), $crate::typed::Error>> {
            self.map.iter_batched(chunk)
        }

        /// Makes or changes elements, one after the other, by one call.
        ///
        /// # Errors
        ///
        /// Of the first element that cannot be put, with the number of those before it: what `insert` answers.
        #[doc(alias = "bpf_map_update_batch")]
        pub fn insert_batch(
            &self,
            elems: &[($key, $value)],
        ) -> Result<(), $crate::typed::BatchError> {
            self.map.insert_batch(elems)
        }
    };
}

/// An array of values: all of them are there.
macro_rules! array_methods {
    ($value:ty) => {
        /// Number of elements.
        ///
        /// # Errors
        ///
        /// What `BPF_OBJ_GET_INFO_BY_FD` answers.
        #[expect(clippy::len_without_is_empty, reason = "an array is never empty")]
        pub fn len(&self) -> Result<u32, $crate::typed::Error> {
            self.map.info().map(|info| info.max_entries)
        }

        /// The value at an index. `flags`: 0 or `BPF_F_LOCK`.
        ///
        /// # Errors
        ///
        /// `EINVAL` for other flags; `ENOENT` past the end.
        #[doc(alias = "bpf_map_lookup_elem")]
        pub fn get(&self, index: &u32, flags: u64) -> Result<$value, $crate::typed::Error> {
            self.map.get(index, flags)
        }

        /// Changes the value at an index. `flags`: `BPF_ANY` or `BPF_EXIST`, with `BPF_F_LOCK`.
        ///
        /// # Errors
        ///
        /// `EPERM` if it is frozen; `EINVAL` for other flags; `E2BIG` past the end; `EEXIST` for `BPF_NOEXIST`.
        #[doc(alias = "bpf_map_update_elem")]
        pub fn set(
            &self,
            index: u32,
            value: impl std::borrow::Borrow<$value>,
            flags: u64,
        ) -> Result<(), $crate::typed::Error> {
            self.map.insert(&index, value.borrow(), flags)
        }

        /// All values, by index.
        pub fn iter(&self) -> impl Iterator<Item = Result<$value, $crate::typed::Error>> {
            self.map.iter::<u32, $value>().map(|elem| elem.map(|(_, value)| value))
        }

        batches!(u32 => $value);
    };
}

/// Places that fds are put in; `$value` is what of an fd the kernel copies in.
macro_rules! places_of_fds {
    ($value:ty) => {
        /// Puts what an fd stands for at an index. `flags`: `BPF_ANY`, or as the type takes them.
        ///
        /// # Errors
        ///
        /// `EPERM` if the map is frozen; `EINVAL` for other flags; `E2BIG` past the end; else what the type answers to an
        /// fd that does not fit.
        #[doc(alias = "bpf_map_update_elem")]
        pub fn set(
            &self,
            index: u32,
            fd: $crate::abi::Fd,
            flags: u64,
        ) -> Result<(), $crate::typed::Error> {
            self.map.insert(&index, &<$value>::from(fd), flags)
        }

        /// Empties the place at an index.
        ///
        /// # Errors
        ///
        /// `EPERM` if the map is frozen; `E2BIG` or `EINVAL` past the end; by the type, `ENOENT` or `EINVAL` if it is
        /// empty.
        #[doc(alias = "bpf_map_delete_elem")]
        #[doc(alias = "clear_index")]
        pub fn remove(&self, index: &u32) -> Result<(), $crate::typed::Error> {
            self.map.remove(index)
        }
    };
}

pub(super) use {
    array_methods, batches, gets, inserts, iters, keys, no_flags, places_of_fds, removes, takes,
    typed_map,
};
