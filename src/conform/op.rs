//! Operations: requests of the trace format.

use std::fmt;

use serde_json::{Map, Value};

/// One operation on a kernel.
#[derive(Clone, PartialEq, Debug)]
pub struct Op(pub Map<String, Value>);

impl Op {
    /// The operation of that name.
    pub fn new(op: &str) -> Self {
        let mut fields = Map::with_capacity(6);
        fields.insert("op".to_owned(), op.into());
        Self(fields)
    }

    /// With a field.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    /// With a number, which is 0 if it is left out.
    #[must_use]
    pub fn number(self, field: &str, value: u64) -> Self {
        if value == 0 {
            self
        } else {
            self.with(field, value)
        }
    }

    /// With bytes.
    #[must_use]
    pub fn bytes(self, field: &str, bytes: &[u8]) -> Self {
        self.with(field, hex(bytes))
    }

    /// What it does, for tables.
    pub fn command(&self) -> String {
        let text = |field: &str| {
            self.0
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        match (text("op"), text("helper")) {
            (op, "") => op.to_owned(),
            (_, helper) => format!("helper {helper}"),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = serde_json::to_string(&self.0).map_err(|_| fmt::Error)?;
        f.write_str(&fields)
    }
}

/// Bytes as requests have them.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}
