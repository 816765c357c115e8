//! What a run of `mapemu conform` was made with and on.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::recordings::recorded;

/// What the emulator is compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Against {
    /// The running kernel, by random runs; the recordings too, unless they are left out.
    Host,
    /// The recordings that mapemu carries, alone.
    Recordings,
}

/// One part of a run that is spread: `I/N`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shard {
    /// Which, from 1.
    pub(super) which: u64,
    /// Of how many.
    pub(super) of: u64,
}

impl Shard {
    /// All of a run.
    pub(super) const WHOLE: Self = Self { which: 1, of: 1 };

    /// A case belongs to one shard, by its seed.
    pub(super) const fn has(self, seed: u64) -> bool {
        seed % self.of == self.which - 1
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no shard: they are 1/N to N/N");
        let (which, of) = text.split_once('/').ok_or_else(wrong)?;
        let which = which.parse().map_err(|_| wrong())?;
        let of = of.parse().map_err(|_| wrong())?;
        if which == 0 || which > of {
            return Err(wrong());
        }
        Ok(Self { which, of })
    }
}

/// What a run was made with and on.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct About {
    /// Version of mapemu.
    pub(super) version: String,
    /// Release of the running kernel, if it was asked.
    pub(super) kernel: Option<String>,
    /// Release of the recordings, if they were replayed.
    pub(super) recordings: Option<String>,
    /// Number of possible CPUs.
    pub(super) cpus: u32,
    /// What the CPUs call themselves.
    pub(super) cpu: String,
    /// Where the random numbers began.
    pub(super) seed: u64,
    /// Operations asked for, over all shards.
    pub(super) asked: u64,
    /// Runs asked for, over all shards.
    pub(super) cases: u64,
    /// Types that were compared.
    pub(super) types: Vec<String>,
    /// The shards that are in it, and how many there are.
    pub(super) shards: Vec<u64>,
    /// See above.
    pub(super) of: u64,
    /// When it began, UTC.
    pub(super) date: String,
    /// How long it took, all shards together.
    pub(super) seconds: f64,
}

/// Release of the running kernel.
pub(super) fn running_release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// Series of the recordings that the program carries.
pub(super) fn recorded_release() -> String {
    let mut releases: Vec<&str> = recorded().iter().map(|recorded| recorded.release).collect();
    releases.dedup();
    releases.join(", ")
}

/// What the CPUs call themselves.
pub(super) fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name"));
    let name = model.and_then(|line| line.split_once(':'));
    name.map_or_else(
        || std::env::consts::ARCH.to_owned(),
        |(_, name)| name.trim().to_owned(),
    )
}

/// This moment, as `2026-01-31 12:34 UTC`.
pub(super) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    date_of(since.unwrap_or(Duration::ZERO).as_secs())
}

/// Seconds since 1970 as a date of the Gregorian calendar.
fn date_of(seconds: u64) -> String {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for len in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < len {
            break;
        }
        days -= len;
        month += 1;
    }
    let (hour, minute) = (rest / 3600, rest / 60 % 60);
    format!(
        "{year}-{month:02}-{:02} {hour:02}:{minute:02} UTC",
        days + 1
    )
}

impl About {
    /// As JSON.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "version": self.version,
            "kernel": self.kernel,
            "recordings": self.recordings,
            "cpus": self.cpus,
            "cpu": self.cpu,
            "seed": self.seed,
            "asked": self.asked,
            "cases": self.cases,
            "types": self.types,
            "shards": self.shards,
            "of": self.of,
            "date": self.date,
            "seconds": self.seconds,
        })
    }

    /// From JSON, if it is that of one.
    pub(super) fn of_json(json: &Value) -> Option<Self> {
        let text = |field: &str| json.get(field).and_then(Value::as_str).map(str::to_owned);
        let number = |field: &str| json.get(field).and_then(Value::as_u64);
        let list = |field: &str| json.get(field).and_then(Value::as_array);
        let types = list("types")?.iter();
        let shards = list("shards")?.iter();
        Some(Self {
            version: text("version")?,
            kernel: text("kernel"),
            recordings: text("recordings"),
            cpus: u32::try_from(number("cpus")?).ok()?,
            cpu: text("cpu")?,
            seed: number("seed")?,
            asked: number("asked")?,
            cases: number("cases")?,
            types: types
                .map(|name| name.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
            shards: shards.map(Value::as_u64).collect::<Option<_>>()?,
            of: number("of")?,
            date: text("date")?,
            seconds: json.get("seconds")?.as_f64()?,
        })
    }

    /// Adds other shards of the same run.
    ///
    /// # Errors
    ///
    /// Why they are none, in words.
    pub(super) fn add(&mut self, other: &Self) -> Result<(), String> {
        let run = |own: &Self| {
            let own = own.clone();
            (
                own.version,
                own.seed,
                own.asked,
                own.cases,
                own.types,
                own.of,
            )
        };
        let (own, others) = (run(self), run(other));
        if own != others {
            return Err(format!("these are of different runs: {own:?}, {others:?}"));
        }
        if (&self.kernel, self.cpus) != (&other.kernel, other.cpus) {
            return Err(format!(
                "these ran on different kernels: {} with {} CPUs, {} with {}",
                self.kernel.as_deref().unwrap_or("none"),
                self.cpus,
                other.kernel.as_deref().unwrap_or("none"),
                other.cpus
            ));
        }
        if let Some(twice) = self
            .shards
            .iter()
            .find(|shard| other.shards.contains(shard))
        {
            return Err(format!("shard {twice}/{} is there twice", self.of));
        }
        self.shards.extend(&other.shards);
        self.shards.sort_unstable();
        self.seconds += other.seconds;
        self.recordings = self.recordings.take().or_else(|| other.recordings.clone());
        if other.date < self.date {
            self.date.clone_from(&other.date);
        }
        Ok(())
    }

    /// The shards that are not in it.
    pub(super) fn missing_shards(&self) -> Vec<u64> {
        (1..=self.of)
            .filter(|shard| !self.shards.contains(shard))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date_of(0), "1970-01-01 00:00 UTC");
        assert_eq!(date_of(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(date_of(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date_of(1_735_689_599), "2024-12-31 23:59 UTC");
        assert_eq!(date_of(4_107_542_400), "2100-03-01 00:00 UTC");
    }

    #[test]
    fn a_seed_is_in_one_shard() {
        for seed in [0, 1, 7, u64::MAX] {
            let shards = (1..=5).filter(|&which| Shard { which, of: 5 }.has(seed));
            assert_eq!(shards.count(), 1);
            assert!(Shard::WHOLE.has(seed));
        }
        for wrong in ["", "1", "0/2", "3/2", "a/b", "1/0", "-1/2"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
