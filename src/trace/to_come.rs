//! What a replay cannot do yet, by name: the only list of it. It only shrinks.

/// Names of what is missing, as a replay gives them.
pub const TO_COME: &[&str] = &[];
