//! The fields of one request, read strictly: what is of the wrong kind is an error that says so.

use std::fmt;

use serde_json::{Map, Value};

use crate::abi::Errno;

/// A line that is no request: what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken(pub String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// Why an operation has no ordinary answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stop {
    /// It failed with that errno, which is the answer.
    Errno(Errno),
    /// The verifier refuses the program that it takes.
    Verifier(Errno),
    /// Only the verifier was asked, and it allows the program: nothing was run.
    Allowed,
    /// This world has no such thing yet.
    ToCome(String),
    /// The request makes no sense.
    Broken(Broken),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// Bytes that a request may ask for at most, in one buffer: more than any kernel would touch.
pub(super) const MOST_BYTES: usize = 1 << 26;

/// A request's fields, or those of a step in it. `null` is as if absent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Request<'a> {
    /// The fields of an object in a request.
    pub(super) fn of(value: &'a Value) -> Result<Self, Broken> {
        value
            .as_object()
            .map(Self)
            .ok_or_else(|| Broken(format!("{value} is no object")))
    }

    pub(super) fn get(self, field: &str) -> Option<&'a Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn has(self, field: &str) -> bool {
        self.get(field).is_some()
    }

    fn wrong(field: &str, value: &Value, wanted: &str) -> Broken {
        Broken(format!("{field} is {value}, no {wanted}"))
    }

    /// A number of 32 bits, 0 if absent; a negative one is its two's complement.
    pub(super) fn u32(self, field: &str) -> Result<u32, Broken> {
        self.get(field)
            .map_or(Ok(0), |value| number_of_32(field, value))
    }

    /// As [`Request::u32`], with a default of its own.
    pub(super) fn u32_or(self, field: &str, default: u32) -> Result<u32, Broken> {
        if self.has(field) {
            self.u32(field)
        } else {
            Ok(default)
        }
    }

    /// A number of 64 bits, 0 if absent; a negative one is its two's complement.
    pub(super) fn u64(self, field: &str) -> Result<u64, Broken> {
        self.get(field)
            .map_or(Ok(0), |value| number_of_64(field, value))
    }

    /// A length or position in a buffer.
    pub(super) fn size(self, field: &str) -> Result<Option<usize>, Broken> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
            .filter(|&number| number <= MOST_BYTES)
            .map(Some)
            .ok_or_else(|| Self::wrong(field, value, "length"))
    }

    pub(super) fn flag(self, field: &str) -> Result<bool, Broken> {
        match self.get(field) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(Self::wrong(field, value, "true or false")),
        }
    }

    pub(super) fn text(self, field: &str) -> Result<Option<&'a str>, Broken> {
        self.get(field).map(|value| text(field, value)).transpose()
    }

    pub(super) fn need_text(self, field: &str) -> Result<&'a str, Broken> {
        self.text(field)?
            .ok_or_else(|| Broken(format!("{field} is missing")))
    }

    pub(super) fn need(self, field: &str) -> Result<&'a Value, Broken> {
        self.get(field)
            .ok_or_else(|| Broken(format!("{field} is missing")))
    }

    pub(super) fn bytes(self, field: &str) -> Result<Option<Vec<u8>>, Broken> {
        self.text(field)?.map(bytes).transpose()
    }

    pub(super) fn bytes_or_none(self, field: &str) -> Result<Vec<u8>, Broken> {
        Ok(self.bytes(field)?.unwrap_or_default())
    }

    /// The things in a list; none if it is absent.
    pub(super) fn list(self, field: &str) -> Result<&'a [Value], Broken> {
        match self.get(field) {
            None => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(value) => Err(Self::wrong(field, value, "list")),
        }
    }

    /// The names in a list; none if it is absent.
    pub(super) fn names(self, field: &str) -> Result<Vec<&'a str>, Broken> {
        self.list(field)?
            .iter()
            .map(|value| text(field, value))
            .collect()
    }

    /// `[start, length]`
    pub(super) fn range(field: &str, value: &Value) -> Result<(usize, usize), Broken> {
        let part = |at: usize| {
            let number = value.get(at).and_then(Value::as_u64);
            number
                .and_then(|number| usize::try_from(number).ok())
                .filter(|&number| number <= MOST_BYTES)
        };
        match (part(0), part(1), value.get(2)) {
            (Some(start), Some(len), None) => Ok((start, len)),
            _ => Err(Self::wrong(field, value, "start and length")),
        }
    }
}

pub(super) fn text<'a>(field: &str, value: &'a Value) -> Result<&'a str, Broken> {
    value
        .as_str()
        .ok_or_else(|| Request::wrong(field, value, "text"))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range was looked at; two's complement is meant"
)]
pub(super) fn number_of_32(field: &str, value: &Value) -> Result<u32, Broken> {
    value
        .as_i64()
        .filter(|number| (i64::from(i32::MIN)..=i64::from(u32::MAX)).contains(number))
        .map(|number| number as u32)
        .ok_or_else(|| Request::wrong(field, value, "number of 32 bits"))
}

pub(super) fn number_of_64(field: &str, value: &Value) -> Result<u64, Broken> {
    value
        .as_u64()
        .or_else(|| value.as_i64().map(i64::cast_unsigned))
        .ok_or_else(|| Request::wrong(field, value, "number of 64 bits"))
}

/// Bytes that are written as hex.
pub(super) fn bytes(hex: &str) -> Result<Vec<u8>, Broken> {
    let broken = || Broken(format!("\"{hex}\" is no hex"));
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let digits = hex.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return Err(broken());
    }
    digits
        .chunks_exact(2)
        .map(|pair| {
            let value = (digit(pair[0])? << 4) | digit(pair[1])?;
            u8::try_from(value).ok()
        })
        .collect::<Option<_>>()
        .ok_or_else(broken)
}

/// Bytes as hex.
pub(super) fn hex(bytes: &[u8]) -> Value {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(DIGITS[usize::from(digit)]));
        }
    }
    Value::String(text)
}

/// The name of an errno as answers have it.
pub(super) fn errno_name(errno: Errno) -> String {
    errno
        .name()
        .map_or_else(|| errno.number().to_string(), str::to_owned)
}
