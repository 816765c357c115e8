//! The running kernel beside the emulated one.

use super::pair::{TwoWorlds, Worlds};
use crate::env::{LINUX_6_18_44, Release};
use crate::host::{Host, Unavailable};
use crate::trace::{Emulated, Header, Options, Running};

/// The running kernel, which is right by definition, and the emulated one.
#[derive(Clone, Debug)]
pub struct Both {
    host: Host,
    header: Header,
    options: Options,
}

impl Both {
    /// The running kernel beside the emulated one.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if the running one cannot be used.
    pub fn new(options: Options) -> Result<Self, Unavailable> {
        let host = Host::new()?;
        let cpus = crate::abi::Bpf::nr_cpus(&host);
        let options = Options {
            cpus: Some(cpus),
            release: options.release.or_else(running_release),
            ..options
        };
        let header = Header {
            name: String::new(),
            about: String::new(),
            release: None,
            cpus: Some(cpus),
            json: serde_json::Map::new(),
        };
        Ok(Self {
            host,
            header,
            options,
        })
    }

    /// Number of possible CPUs.
    pub fn nr_cpus(&self) -> u32 {
        crate::abi::Bpf::nr_cpus(&self.host)
    }
}

/// The release of the running kernel, if one is near.
fn running_release() -> Option<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let taken = Release::take(release.trim()).ok()?;
    Some(taken.release.name.to_owned())
}

impl Worlds for Both {
    fn release(&self) -> &'static Release {
        let name = self.options.release.as_deref();
        let taken = name.and_then(|name| Release::take(name).ok());
        taken.map_or(LINUX_6_18_44, |taken| taken.release)
    }

    fn worlds(&self) -> Result<TwoWorlds, String> {
        let emulated =
            Emulated::new(&self.header, &self.options).map_err(|unfit| unfit.to_string())?;
        Ok((
            Box::new(Running::with(self.host.clone())),
            Box::new(emulated),
        ))
    }
}
