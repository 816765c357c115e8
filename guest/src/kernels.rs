//! Kernels from a distribution: fetched by apt with an archive list and a state of its own, checked with the archive's keys,
//! unpacked, and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Releases of the recordings, and the packages that their kernels are in.
const PACKAGES: &[(&str, &str)] = &[
    ("5.10.262", "linux-image-5.10.0-46-cloud-amd64"),
    ("6.1.192", "linux-image-6.1.0-56-cloud-amd64"),
    ("6.12.117", "linux-image-6.12.117+deb13-cloud-amd64"),
    ("6.18.15", "linux-image-6.18.15+deb13-cloud-amd64"),
    ("6.19.14", "linux-binary-6.19.14+deb13-cloud-amd64"),
    ("7.0.13", "linux-binary-7.0.13+deb13-cloud-amd64"),
    ("7.3.4", "linux-binary-7.3.4+deb13-cloud-amd64"),
];

/// Where they are: mirror, suite.
const ARCHIVES: &[(&str, &str)] = &[
    ("http://deb.debian.org/debian-security", "bullseye-security"),
    ("http://deb.debian.org/debian", "bookworm"),
    ("http://deb.debian.org/debian-security", "bookworm-security"),
    ("http://deb.debian.org/debian", "trixie"),
    ("http://deb.debian.org/debian-security", "trixie-security"),
    ("http://deb.debian.org/debian", "trixie-backports"),
];

/// The archive's keys, as the package `debian-archive-keyring` installs them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Releases whose packages are known.
pub fn known() -> impl Iterator<Item = &'static str> {
    PACKAGES.iter().map(|(release, _)| *release)
}

/// The image of a release's kernel, or of that in a package: from the folder, or from the archive.
pub fn fetch(work: &Path, release: &str) -> Result<PathBuf, String> {
    let known = PACKAGES.iter().find(|(own, _)| *own == release);
    let package = known.map_or(release, |(_, package)| *package);
    if !package.starts_with("linux-") {
        let names: Vec<_> = known
            .into_iter()
            .map(|(own, _)| *own)
            .chain(self::known())
            .collect();
        return Err(format!(
            "no package is known of {release}; of {}",
            names.join(", ")
        ));
    }
    let work = std::path::absolute(work).map_err(|error| error.to_string())?;
    let unpacked = work.join(package);
    if let Some(image) = image_in(&unpacked) {
        return Ok(image);
    }
    let apt = Apt::new(&work)?;
    let downloads = work.join("packages");
    fs::create_dir_all(&downloads).map_err(|error| error.to_string())?;
    apt.run(&downloads, &["download", package]).or_else(|_| {
        apt.run(&downloads, &["update"])
            .and_then(|()| apt.run(&downloads, &["download", package]))
    })?;
    let file = found(&downloads, |name| name.starts_with(&format!("{package}_")))
        .ok_or_else(|| format!("apt left no {package}"))?;
    let mut unpack = Command::new("dpkg-deb");
    succeed(unpack.arg("--extract").arg(&file).arg(&unpacked))?;
    image_in(&unpacked).ok_or_else(|| format!("{package} has no vmlinuz"))
}

/// The image in an unpacked package: in `boot`, or beside the modules.
fn image_in(unpacked: &Path) -> Option<PathBuf> {
    let is_image = |name: &str| name.starts_with("vmlinuz");
    found(&unpacked.join("boot"), is_image).or_else(|| {
        ["usr/lib/modules", "lib/modules"]
            .iter()
            .find_map(|modules| {
                let versions = fs::read_dir(unpacked.join(modules)).ok()?;
                versions
                    .flatten()
                    .find_map(|version| found(&version.path(), is_image))
            })
    })
}

/// A file in a folder, by its name.
fn found(folder: &Path, is_it: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths.find(|path| {
        path.file_name()
            .is_some_and(|name| is_it(&name.to_string_lossy()))
    })
}

/// apt, with a list of archives and a state of its own.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(work: &Path) -> Result<Self, String> {
        let apt = work.join("apt");
        for folder in ["lists/partial", "cache/archives/partial", "state"] {
            fs::create_dir_all(apt.join(folder)).map_err(|error| error.to_string())?;
        }
        let sources: String = ARCHIVES
            .iter()
            .map(|(mirror, suite)| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"))
            .collect();
        let list = apt.join("sources.list");
        let status = apt.join("status");
        fs::write(&list, sources)
            .and_then(|()| fs::write(&status, ""))
            .map_err(|error| error.to_string())?;
        let options = [
            ("Dir::Etc::sourcelist", list.display().to_string()),
            ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
            ("Dir::State", apt.join("state").display().to_string()),
            ("Dir::State::Lists", apt.join("lists").display().to_string()),
            ("Dir::State::status", status.display().to_string()),
            ("Dir::Cache", apt.join("cache").display().to_string()),
            ("APT::Sandbox::User", "root".to_owned()),
        ];
        Ok(Self {
            options: options
                .map(|(name, value)| format!("{name}={value}"))
                .into(),
        })
    }

    fn run(&self, folder: &Path, arguments: &[&str]) -> Result<(), String> {
        let mut apt = Command::new("apt-get");
        apt.current_dir(folder).arg("--quiet=2");
        for option in &self.options {
            apt.arg("--option").arg(option);
        }
        succeed(apt.args(arguments))
    }
}

/// Runs a program to its end.
fn succeed(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .map_err(|error| format!("{program}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{program}: {status}"))
    }
}
