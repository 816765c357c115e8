//! `mapemu bench --memory`: what maps take, and how it grows.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::Exit;
use super::plot;
use crate::bench::memory::{Cost, SIZES, Share, cost, shares};

/// The largest map of a quick run.
const QUICK: usize = 1_000_000;

/// Runs the command.
pub(super) fn run(quick: bool, picture: Option<&Path>) -> Result<Exit, String> {
    let told = |error: io::Error| format!("memory cannot be measured: {error}");
    let shares = shares().map_err(told)?;
    let fit = print_shares(&shares, &mut io::stdout().lock()).map_err(told)?;
    let sizes = SIZES.into_iter().filter(|size| !quick || *size <= QUICK);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
    let bar = ProgressBar::new(sizes.clone().count() as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut costs = Vec::new();
    for size in sizes {
        bar.set_message(format!("{size} elements"));
        costs.push(cost(size).map_err(told)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    print_costs(&costs, &mut io::stdout().lock()).map_err(told)?;
    if let Some(path) = picture {
        fs::write(path, plot::draw(&costs))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(if fit { Exit::Holds } else { Exit::Fails })
}

/// Whether all keep to their goals.
fn print_shares(shares: &[Share], out: &mut dyn Write) -> io::Result<bool> {
    writeln!(
        out,
        "{:<30}{:>12}{:>12}{:>9}{:>7}",
        "bytes of one of max_entries", "emulated", "kernel", "ratio", "goal"
    )?;
    let mut fit = true;
    for share in shares {
        let spec = share.spec;
        let name = spec.map_type.name().unwrap_or_default();
        let map = format!(
            "{name} {}/{}, {}",
            spec.key_size, spec.value_size, spec.max_entries
        );
        write!(out, "{map:<30}{:>12.1}", share.own)?;
        match share.kernel {
            Some(kernel) => {
                let ratio = share.own / kernel;
                fit &= ratio <= share.goal;
                writeln!(out, "{kernel:>12.1}{ratio:>9.2}{:>7.2}", share.goal)?;
            }
            None => writeln!(out, "{:>12}", "not asked")?,
        }
    }
    writeln!(out)?;
    Ok(fit)
}

fn print_costs(costs: &[Cost], out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{:<22}{:>10}{:>10}{:>12}{:>10}{:>10}{:>12}",
        "HASH 4/8, each element",
        "bytes",
        "fill ns",
        "lookup ns",
        "walk ns",
        "drop ns",
        "left, KiB"
    )?;
    for cost in costs {
        writeln!(
            out,
            "{:<22}{:>10.1}{:>10.1}{:>12.1}{:>10.1}{:>10.2}{:>12}",
            cost.spec.max_entries,
            cost.bytes,
            cost.fill_ns,
            cost.lookup_ns,
            cost.walk_ns,
            cost.drop_ns,
            cost.left / 1024
        )?;
    }
    Ok(())
}
