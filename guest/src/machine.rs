//! The virtual machine: QEMU emulates the processor, so it runs anywhere, and as anybody.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::archive::Archive;
use crate::init::{ARGUMENTS, LEFT};
use crate::port::{EXIT, Said, heard};
use crate::{Scenario, say};

/// A machine that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(240);
/// How often a machine is started that did not come to its end.
const STARTS: usize = 5;

/// Records scenarios on a kernel; the traces, by name. A scenario in which the kernel panics is left out, and named.
pub fn record(
    work: &Path,
    kernel: &Path,
    cpus: u32,
    scenarios: &[Scenario],
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let mut traces = BTreeMap::new();
    let mut left: Vec<&Scenario> = scenarios.iter().collect();
    for _start in 0..STARTS {
        if left.is_empty() {
            break;
        }
        let said = run(work, kernel, cpus, &left, &[])?;
        for (name, status, output) in said.ended {
            left.retain(|(own, _)| *own != name);
            // Some steps are left out of a trace: then `record` ends with 2, and its output stands.
            if matches!(status.as_str(), "0" | "2") && !output.is_empty() {
                traces.insert(name, output);
            } else {
                say(&format!("{name}: not recorded: ended with {status}"));
            }
        }
        if said.whole {
            break;
        }
        if let Some(name) = said.under_way {
            say(&format!("{name}: not recorded: the machine ended in it"));
            left.retain(|(own, _)| *own != name);
        }
    }
    for (name, _) in left {
        say(&format!(
            "{name}: not recorded: the machine did not get there"
        ));
    }
    Ok(traces)
}

/// What came of a program.
pub struct Called {
    /// How it ended: its status, or `signal`.
    pub status: String,
    /// What it printed.
    pub output: Vec<u8>,
    /// Files that it left in [`LEFT`]: name, content.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Runs `mapemu` with these arguments in the machine.
pub fn call(work: &Path, kernel: &Path, cpus: u32, arguments: &[String]) -> Result<Called, String> {
    let mut said = run(work, kernel, cpus, &[], arguments)?;
    let ended = said.ended.pop();
    let (_, status, output) = ended.ok_or("the machine ended before its program")?;
    Ok(Called {
        status,
        output,
        files: said.files,
    })
}

/// Starts the machine once, and hears it to its end.
fn run(
    work: &Path,
    kernel: &Path,
    cpus: u32,
    scenarios: &[&Scenario],
    arguments: &[String],
) -> Result<Said, String> {
    let initrd = work.join("initrd");
    let console = work.join("console");
    let said = work.join("said");
    write_initrd(&initrd, scenarios, arguments)
        .map_err(|error| format!("{}: {error}", initrd.display()))?;
    let _none = fs::remove_file(&said);
    let mut qemu = Command::new("qemu-system-x86_64");
    // With a thread for each of many CPUs, kernels that patch their code while they start can hang.
    let accel = if cpus > 2 { "tcg,thread=single" } else { "tcg" };
    qemu.args(["-machine", "pc", "-cpu", "max", "-m", "1024"])
        .args(["-accel", accel])
        .args(["-nodefaults", "-no-reboot", "-display", "none"])
        .args(["-smp", &cpus.to_string()])
        .args(["-append", "console=ttyS0 panic=-1 loglevel=4 lsm=bpf"])
        .arg("-device")
        .arg(format!("isa-debug-exit,iobase={EXIT:#x},iosize=1"))
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(&initrd)
        .arg("-debugcon")
        .arg(file_option(&said))
        .arg("-serial")
        .arg(file_option(&console))
        .stdin(Stdio::null());
    let mut machine = qemu
        .spawn()
        .map_err(|error| format!("qemu-system-x86_64: {error}"))?;
    let mut heard_last = (0, Instant::now());
    loop {
        let ended = machine.try_wait().map_err(|error| error.to_string())?;
        if ended.is_some() {
            break;
        }
        let length = fs::metadata(&said).map_or(0, |metadata| metadata.len());
        if length != heard_last.0 {
            heard_last = (length, Instant::now());
        }
        if heard_last.1.elapsed() > SILENCE {
            machine
                .kill()
                .and_then(|()| machine.wait())
                .map_err(|error| error.to_string())?;
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
    let bytes = fs::read(&said).unwrap_or_default();
    let said = heard(&bytes);
    if !said.whole {
        let ended = said.ended.len();
        say(&format!(
            "the machine ended after {ended} scenarios; its console is {}",
            console.display()
        ));
    }
    Ok(said)
}

fn file_option(path: &Path) -> String {
    format!("file:{}", path.display())
}

/// This very program as the first process, and the scenarios.
fn write_initrd(path: &Path, scenarios: &[&Scenario], arguments: &[String]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut archive = Archive::new(BufWriter::new(File::create(path)?));
    for folder in ["bin", "proc", "sys", "dev", "tmp", "scenarios", LEFT] {
        archive.folder(folder.trim_start_matches('/'))?;
    }
    archive.file("init", &fs::read(std::env::current_exe()?)?)?;
    // A process that scenarios have as a child.
    archive.link("bin/sleep", "/init")?;
    if !arguments.is_empty() {
        archive.file(
            ARGUMENTS.trim_start_matches('/'),
            arguments.join("\n").as_bytes(),
        )?;
    }
    for (name, text) in scenarios {
        archive.file(&format!("scenarios/{name}.jsonl"), text)?;
    }
    archive.end()
}
