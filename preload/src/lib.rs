//! Emulated maps for a program that is linked dynamically: `LD_PRELOAD=libmapemu_preload.so PROGRAM`.
//!
//! The kernel is made when the library is loaded, and answers all threads. What it is is said by the environment:
//! `MAPEMU_CPUS` (a number), `MAPEMU_SEED` (a number), `MAPEMU_RELEASE` (as `6.18`); with `MAPEMU=off` the running kernel
//! answers. Each process has a kernel of its own: a child that runs a program begins with an empty one.

use std::env;
use std::process::exit;
use std::str::FromStr;

use mapemu::Kernel;
use mapemu::interpose::{assert_active, install_for_process};

/// Called by the loader, before the program begins.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

extern "C" fn begin() {
    install_for_process(kernel());
    assert_active();
}

fn kernel() -> Kernel {
    let mut builder = Kernel::builder();
    if let Some(cpus) = number("MAPEMU_CPUS") {
        builder = builder.cpus(cpus);
    }
    if let Some(seed) = number("MAPEMU_SEED") {
        builder = builder.seed(seed);
    }
    if let Ok(release) = env::var("MAPEMU_RELEASE") {
        builder = builder
            .release(&release)
            .unwrap_or_else(|error| fail(&error.to_string()));
    }
    builder.build()
}

/// A number that the environment says.
fn number<T: FromStr>(name: &str) -> Option<T> {
    let value = env::var(name).ok()?;
    match value.parse() {
        Ok(number) => Some(number),
        Err(_) => fail(&format!("{name} is no number: {value:?}")),
    }
}

/// Nothing was run yet that could go wrong by it.
fn fail(what: &str) -> ! {
    eprintln!("mapemu: {what}");
    exit(125)
}
