//! `mapemu bench`: what each operation costs, beside the running kernel and dashmap.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::args::Exit;
use super::memory;
use crate::bench::burst::ROUNDS;
use crate::bench::cells::{CELLS, Cell, Measure};
use crate::bench::row::{BPF, DASHMAP, HANDLE, KERNEL, Row};

/// Arguments of `mapemu bench`.
///
/// All columns are measured in one run, in turns of short bursts. Times are medians over bursts of one operation in one
/// thread, in ns; ratios are medians of the ratios within a round, and are what can be compared with another run.
#[derive(Debug, Args)]
pub(super) struct Bench {
    /// Types of maps, such as hash,array. Default: all that are measured.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    types: Vec<String>,
    /// Few sizes and few rounds: in a minute, good to a third.
    #[arg(long)]
    quick: bool,
    /// Writes JSON lines too: type, op, key_size, value_size, entries, threads, emulated_ns, kernel_ns, dashmap_ns (null where
    /// there is none; by bpf(2) on a line of its own).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Weighs maps instead: memory of an element beside what the kernel charges, and what maps of up to ten million elements
    /// cost.
    #[arg(long, conflicts_with_all = ["types", "json"])]
    memory: bool,
    /// With --memory: draws the costs by size, as SVG.
    #[arg(long, value_name = "FILE", requires = "memory")]
    plot: Option<PathBuf>,
}

/// Rounds of a quick run.
const FEW_ROUNDS: usize = 3;

/// Runs the command.
pub(super) fn run(bench: &Bench) -> Exit {
    let done = if bench.memory {
        memory::run(bench.quick, bench.plot.as_deref())
    } else {
        cells(bench).and_then(|cells| measure(bench, &cells))
    };
    match done {
        Ok(exit) => exit,
        Err(why) => {
            let _told = writeln!(io::stderr(), "mapemu: {why}");
            Exit::CannotRun
        }
    }
}

fn cells(bench: &Bench) -> Result<Vec<&'static Cell>, String> {
    let mut known: Vec<String> = CELLS.iter().map(Cell::name).collect();
    known.dedup();
    if let Some(name) = bench.types.iter().find(|name| !known.contains(name)) {
        let known = known.join(", ");
        return Err(format!("no type \"{name}\" is measured; there are {known}"));
    }
    let wanted = |cell: &&Cell| {
        (bench.types.is_empty() || bench.types.contains(&cell.name()))
            && (cell.quick || !bench.quick || !has_quick(&bench.types))
    };
    Ok(CELLS.iter().filter(wanted).collect())
}

/// Of the wanted types there are some that a quick run has; else it has them all.
fn has_quick(types: &[String]) -> bool {
    types.is_empty()
        || CELLS
            .iter()
            .any(|cell| cell.quick && types.contains(&cell.name()))
}

fn measure(bench: &Bench, cells: &[&Cell]) -> Result<Exit, String> {
    let mut json = match &bench.json {
        Some(path) => {
            let file =
                File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Some(file)
        }
        None => None,
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let nr_cpus = nr_cpus();
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}");
    let bar = ProgressBar::new(cells.len() as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    for cell in cells {
        let rows = RefCell::new(Vec::new());
        let title = title(cell);
        let measure = Measure {
            rounds: if bench.quick { FEW_ROUNDS } else { ROUNDS },
            two_threads: cpus >= 2,
            begins: &|op| bar.set_message(format!("{title}, {op}")),
            tell: &|row| rows.borrow_mut().push(row),
        };
        cell.measure(&measure, nr_cpus);
        bar.inc(1);
        let rows = rows.into_inner();
        bar.suspend(|| print(&title, &rows, &mut io::stdout().lock()))
            .map_err(|error| error.to_string())?;
        if let Some(file) = &mut json {
            for line in rows.iter().flat_map(lines) {
                writeln!(file, "{line}").map_err(|error| error.to_string())?;
            }
        }
    }
    bar.finish_and_clear();
    Ok(Exit::Holds)
}

/// As many as the running kernel has: a per-CPU value is as long on both sides then.
#[cfg(target_os = "linux")]
fn nr_cpus() -> u32 {
    crate::host::possible_cpus().unwrap_or(2)
}

#[cfg(not(target_os = "linux"))]
fn nr_cpus() -> u32 {
    2
}

fn title(cell: &Cell) -> String {
    let spec = cell.spec;
    let name = cell.name();
    match (spec.key_size, spec.value_size) {
        (0, 0) => format!("{name} of {} bytes", spec.max_entries),
        (0, value) => format!("{name} {value}, {} entries", spec.max_entries),
        (key, value) => format!("{name} {key}/{value}, {} entries", spec.max_entries),
    }
}

/// The table of a cell.
fn print(title: &str, rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{title:<34}{:>9}{:>9}{:>9}{:>9}   {:>8}{:>9}{:>9}",
        "handle", "bpf(2)", "kernel", "dashmap", "kernel÷", "kernel÷", "handle÷"
    )?;
    writeln!(
        out,
        "{:<34}{:>9}{:>9}{:>9}{:>9}   {:>8}{:>9}{:>9}",
        "", "ns", "ns", "ns", "ns", "handle", "bpf(2)", "dashmap"
    )?;
    for row in rows {
        let threads = if row.threads == 1 { "" } else { ", 2 threads" };
        let op = format!("{}{threads}", row.op);
        write!(out, "  {op:<32}")?;
        for column in [HANDLE, BPF, KERNEL, DASHMAP] {
            write!(out, "{}", shown(row.ns(column), 9, 1))?;
        }
        writeln!(
            out,
            "   {}{}{}",
            shown(row.ratio(KERNEL, HANDLE), 8, 1),
            shown(row.ratio(KERNEL, BPF), 9, 1),
            shown(row.ratio(HANDLE, DASHMAP), 9, 2)
        )?;
        if row.threads > 1 {
            write!(out, "  {:<32}", "  ÷ 1 thread, operations")?;
            for column in [HANDLE, BPF, KERNEL, DASHMAP] {
                write!(out, "{}", shown(row.scaling(column), 9, 2))?;
            }
            writeln!(out)?;
        }
    }
    writeln!(out)
}

/// A figure; blanks where there is none.
fn shown(figure: Option<f64>, width: usize, digits: usize) -> String {
    figure.map_or_else(
        || " ".repeat(width),
        |figure| format!("{figure:>width$.digits$}"),
    )
}

/// A row as JSON: by the handle, and by bpf(2).
fn lines(row: &Row) -> Vec<Value> {
    let (handle, bpf) = (row.ns(HANDLE), row.ns(BPF));
    let line = |op: String, emulated: f64, dashmap: Option<f64>| {
        let spec = &row.spec;
        json!({
            "type": spec.map_type.name(),
            "op": op,
            "key_size": spec.key_size,
            "value_size": spec.value_size,
            "entries": spec.max_entries,
            "threads": row.threads,
            "emulated_ns": rounded(emulated),
            "kernel_ns": row.ns(KERNEL).map(rounded),
            "dashmap_ns": dashmap.map(rounded),
        })
    };
    let mut lines = Vec::new();
    if let Some(handle) = handle {
        lines.push(line(row.op.clone(), handle, row.ns(DASHMAP)));
    }
    if let Some(bpf) = bpf {
        // What only bpf(2) does has a line only.
        let (op, dashmap) = match handle {
            Some(_) => (format!("{} by bpf(2)", row.op), None),
            None => (row.op.clone(), row.ns(DASHMAP)),
        };
        lines.push(line(op, bpf, dashmap));
    }
    lines
}

fn rounded(ns: f64) -> f64 {
    (ns * 100.0).round() / 100.0
}
