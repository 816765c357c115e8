//! Why an object's maps cannot be read or made.

use crate::abi::Errno;

/// What is wrong with an object, or with making its maps.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The bytes are not a BPF object.
    #[error("not a BPF object: {reason}")]
    NotAnObject {
        /// What is wrong.
        reason: String,
    },
    /// A section is broken, or is of a kind that is not emulated.
    #[error("section `{section}`: {reason}")]
    Section {
        /// The section's name.
        section: String,
        /// What is wrong.
        reason: String,
    },
    /// The declaration of one map, or the BTF of one variable, is broken.
    #[error("`{symbol}` in section `{section}`: {reason}")]
    Symbol {
        /// The section's name.
        section: String,
        /// The symbol's name.
        symbol: String,
        /// What is wrong.
        reason: String,
    },
    /// The kernel refused a call for one map.
    #[error("`{symbol}` in section `{section}`: {call}: {errno}")]
    Call {
        /// The section's name.
        section: String,
        /// The map's name.
        symbol: String,
        /// The call, by its name in [`calls`](crate::calls).
        call: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl ObjectError {
    pub(super) fn not_an_object(reason: impl ToString) -> Self {
        Self::NotAnObject {
            reason: reason.to_string(),
        }
    }

    pub(super) fn section(section: &str, reason: impl ToString) -> Self {
        Self::Section {
            section: section.to_owned(),
            reason: reason.to_string(),
        }
    }

    pub(super) fn symbol(section: &str, symbol: &str, reason: impl ToString) -> Self {
        Self::Symbol {
            section: section.to_owned(),
            symbol: symbol.to_owned(),
            reason: reason.to_string(),
        }
    }
}
