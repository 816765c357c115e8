//! A trace as text: one JSON object a line; the header, then requests with the answers that were recorded.

use std::fmt;

use serde_json::{Map, Value};

use super::request::Broken;

/// Bytes of a line at most: far more than any real trace has.
const MOST_LINE: usize = 1 << 22;

/// What recorded a trace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Name of the scenario.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// Release of the kernel, of a distribution's the point release.
    pub release: Option<String>,
    /// Number of possible CPUs.
    pub cpus: Option<u32>,
    /// The whole header, as it was read.
    pub json: Map<String, Value>,
}

/// One request, and its recorded answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Line {
    /// Number of its line in the file, from 1.
    pub number: usize,
    /// What is asked.
    pub request: Map<String, Value>,
    /// What the kernel answered; none in a scenario that was not recorded.
    pub recorded: Option<Value>,
}

/// A trace, or a scenario that was not recorded yet.
#[derive(Clone, PartialEq, Debug)]
pub struct Trace {
    /// What recorded it.
    pub header: Header,
    /// Its steps.
    pub lines: Vec<Line>,
}

/// A line that cannot be replayed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokenLine {
    /// Number of the line, from 1.
    pub number: usize,
    /// What is wrong with it.
    pub broken: Broken,
}

impl fmt::Display for BrokenLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.number, self.broken)
    }
}

impl std::error::Error for BrokenLine {}

impl Trace {
    /// Reads a trace. Empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    ///
    /// [`BrokenLine`] for the first line that is no JSON object of the format, or too long.
    pub fn parse(text: &[u8]) -> Result<Self, BrokenLine> {
        let mut header = None;
        let mut lines = Vec::new();
        for (line, number) in text.split(|&byte| byte == b'\n').zip(1..) {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let at_line = |broken| BrokenLine { number, broken };
            let object = parse_line(line).map_err(at_line)?;
            if header.is_none() && lines.is_empty() && object.contains_key("trace") {
                header = Some(parse_header(object).map_err(at_line)?);
            } else {
                lines.push(parse_step(object, number).map_err(at_line)?);
            }
        }
        let header = header.unwrap_or_else(|| Header {
            name: String::new(),
            about: String::new(),
            release: None,
            cpus: None,
            json: Map::new(),
        });
        Ok(Self { header, lines })
    }
}

fn parse_line(line: &[u8]) -> Result<Map<String, Value>, Broken> {
    if line.len() > MOST_LINE {
        return Err(Broken(format!("a line of more than {MOST_LINE} bytes")));
    }
    match serde_json::from_slice(line) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Broken("no JSON object".to_owned())),
        Err(error) => Err(Broken(format!("no JSON: {error}"))),
    }
}

fn parse_header(json: Map<String, Value>) -> Result<Header, Broken> {
    if json["trace"] != 1 {
        return Err(Broken(format!(
            "a trace of version {}; this is for version 1",
            json["trace"]
        )));
    }
    let text = |field: &str| json.get(field).and_then(Value::as_str).map(str::to_owned);
    let cpus = match json.get("cpus") {
        None | Some(Value::Null) => None,
        Some(cpus) => {
            let number = cpus.as_u64().and_then(|cpus| u32::try_from(cpus).ok());
            Some(number.ok_or_else(|| Broken(format!("cpus is {cpus}")))?)
        }
    };
    Ok(Header {
        name: text("name").unwrap_or_default(),
        about: text("about").unwrap_or_default(),
        release: text("release").or_else(|| text("kernel")),
        cpus,
        json,
    })
}

fn parse_step(mut object: Map<String, Value>, number: usize) -> Result<Line, Broken> {
    let request = match object.remove("do") {
        Some(Value::Object(request)) => request,
        Some(other) => return Err(Broken(format!("do is {other}, no object"))),
        None => return Err(Broken("neither a header nor a step: no \"do\"".to_owned())),
    };
    if !request.get("op").is_some_and(Value::is_string) {
        return Err(Broken("the request has no op".to_owned()));
    }
    let recorded = match object.remove("got") {
        None | Some(Value::Null) => None,
        Some(Value::Object(answer)) => Some(Value::Object(answer)),
        Some(other) => return Err(Broken(format!("got is {other}, no object"))),
    };
    Ok(Line {
        number,
        request,
        recorded,
    })
}
