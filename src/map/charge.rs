//! The memory that one map takes from its kernel's limit.

use std::sync::Arc;

use crate::abi::Result;
use crate::env::Env;

/// Memory that is given back when this is dropped.
#[derive(Debug)]
pub struct Charge {
    env: Arc<Env>,
    bytes: u64,
}

impl Charge {
    /// Takes `bytes` from the limit.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if that is more than is left.
    pub fn new(env: &Arc<Env>, bytes: u64) -> Result<Self> {
        env.charge(bytes)?;
        Ok(Self {
            env: Arc::clone(env),
            bytes,
        })
    }

    /// Bytes taken.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.env.uncharge(self.bytes);
    }
}
