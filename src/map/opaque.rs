//! Types that can be made, and whose elements are not emulated: each operation says so by name.

use std::any::Any;
use std::sync::Arc;

use super::{Caller, MapDef, MapOps};
use crate::abi::{Errno, MapType, Result, UpdateFlags};
use crate::env::Env;

/// See the module.
#[derive(Debug)]
pub(super) struct Opaque {
    map_type: MapType,
    env: Arc<Env>,
}

impl Opaque {
    /// # Errors
    ///
    /// None.
    #[expect(clippy::unnecessary_wraps, reason = "all types are made alike")]
    pub(super) fn new(def: &MapDef, env: &Arc<Env>) -> Result<Self> {
        Ok(Self {
            map_type: def.map_type,
            env: Arc::clone(env),
        })
    }

    fn unsupported(&self) -> Errno {
        let map_type = self.map_type;
        self.env.unsupported(format_args!("elements of {map_type}"))
    }
}

impl MapOps for Opaque {
    fn update_elem(&self, _: u32, _: &[u8], _: &[u8], _: UpdateFlags) -> Result<()> {
        Err(self.unsupported())
    }

    fn delete_elem(&self, _: u32, _: &[u8]) -> Result<()> {
        Err(self.unsupported())
    }

    fn user_lookup_elem(
        &self,
        _: &Caller<'_>,
        _: &[u8],
        _: &mut [u8],
        _: UpdateFlags,
    ) -> Result<()> {
        Err(self.unsupported())
    }

    fn user_lookup_and_delete_elem(
        &self,
        _: &Caller<'_>,
        _: &[u8],
        _: &mut [u8],
        _: UpdateFlags,
    ) -> Result<()> {
        Err(self.unsupported())
    }

    fn get_next_key(&self, _: Option<&[u8]>, _: &mut [u8]) -> Result<()> {
        Err(self.unsupported())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
