//! The matrix of a report: what shows that a command of a type is answered as the kernel does.

use super::outcome::Outcome;
use super::report::{grouped, put};
use crate::conform::FAMILIES;

/// One column: a name, and the commands that are in it.
struct Column {
    name: &'static str,
    commands: &'static [&'static str],
}

const fn column(name: &'static str, commands: &'static [&'static str]) -> Column {
    Column { name, commands }
}

/// Columns under one heading.
type Group = (&'static str, &'static [Column]);

/// All columns; what is in none is in the last.
const GROUPS: &[Group] = &[
    (
        "map",
        &[
            column("create", &["map_create"]),
            column("info", &["obj_get_info_by_fd", "fdinfo"]),
            column("freeze", &["map_freeze"]),
            column(
                "fds, ids",
                &[
                    "map_get_fd_by_id",
                    "map_get_next_id",
                    "dup",
                    "close",
                    "file_op",
                ],
            ),
            column("pins", &["obj_pin", "obj_get", "mkdir", "unlink"]),
        ],
    ),
    (
        "elements, by bpf(2)",
        &[
            column("lookup", &["map_lookup_elem"]),
            column("update", &["map_update_elem"]),
            column("delete", &["map_delete_elem"]),
            column("lookup and delete", &["map_lookup_and_delete_elem"]),
            column("next key", &["map_get_next_key", "walk"]),
            column("odd attrs", &["bpf"]),
        ],
    ),
    (
        "batches",
        &[
            column("lookup", &["map_lookup_batch"]),
            column("lookup and delete", &["map_lookup_and_delete_batch"]),
            column("update", &["map_update_batch"]),
            column("delete", &["map_delete_batch"]),
        ],
    ),
    (
        "memory",
        &[
            column("mmap", &["mmap", "mprotect", "munmap"]),
            column("read, write", &["mem_read", "mem_write"]),
            column("poll", &["poll", "epoll"]),
        ],
    ),
    (
        "programs",
        &[
            column(
                "lookup",
                &["helper map_lookup_elem", "helper map_lookup_percpu_elem"],
            ),
            column("update", &["helper map_update_elem"]),
            column("delete", &["helper map_delete_elem"]),
            column(
                "push, pop, peek",
                &[
                    "helper map_push_elem",
                    "helper map_pop_elem",
                    "helper map_peek_elem",
                ],
            ),
            column("for_each", &["for_each"]),
            column("several steps", &["program"]),
            column("storage", &["storage_helper"]),
            column(
                "rings",
                &[
                    "ringbuf",
                    "ringbuf_consume",
                    "ringbuf_positions",
                    "ringbuf_produce",
                    "ringbuf_set_pos",
                    "user_ringbuf_drain",
                ],
            ),
            column(
                "attached",
                &[
                    "prog_attach",
                    "prog_detach",
                    "link_create",
                    "link_update",
                    "link_detach",
                    "trigger",
                    "prog_test_run",
                ],
            ),
            column("around", &[]),
        ],
    ),
];

/// The name of a command's column, for tables by command.
pub(super) fn label_of(command: &str) -> String {
    let plain = command.strip_prefix("helper ").unwrap_or(command);
    plain
        .strip_prefix("map_")
        .unwrap_or(plain)
        .replace('_', " ")
}

/// What shows one pair of a type and a column.
#[derive(Clone, Copy, Default)]
struct Evidence {
    random: u64,
    recorded: u64,
    differ: u64,
}

fn evidence(outcome: &Outcome, family: usize, column: &Column) -> Evidence {
    let named = |command: &str| {
        let all = || GROUPS.iter().flat_map(|(_, columns)| *columns);
        match column.commands.is_empty() {
            true => !all().any(|other| other.commands.contains(&command)),
            false => column.commands.contains(&command),
        }
    };
    let mut evidence = Evidence::default();
    for ((own, command), count) in &outcome.counts {
        if *own == family && named(command) {
            // What both verifiers refuse is an answer too.
            evidence.random += count.steps - count.to_come;
            evidence.differ += count.differ;
        }
    }
    for ((own, command), one) in &outcome.recorded {
        if *own == family && named(command) {
            evidence.recorded += one.steps;
            evidence.differ += one.differ;
        }
    }
    evidence
}

/// A number in four places: `7`, `120`, `4.2k`, `31k`, `1.6M`.
fn short(number: u64) -> String {
    let (whole, tenth, unit) = match number {
        0..1000 => return number.to_string(),
        1000..1_000_000 => (number / 1000, number % 1000 / 100, "k"),
        _ => (number / 1_000_000, number % 1_000_000 / 100_000, "M"),
    };
    match whole {
        0..10 => format!("{whole}.{tenth}{unit}"),
        _ => format!("{whole}{unit}"),
    }
}

/// How strongly a cell is coloured, in percent: by the number of digits.
fn weight(steps: u64, most: u64) -> u32 {
    let log = |number: u64| (number + 1).ilog2();
    100 * log(steps) / log(most).max(1)
}

/// The matrix with its legend.
pub(super) fn section(page: &mut String, outcome: &Outcome) {
    page.push_str(
        "<section><h2>What shows it</h2>\
         <p>Each type of map by what it is asked, errors too: a type that has no such command has the kernel's errno for it. \
         The numbers are random steps that were compared; where there were none, recorded ones.</p>\
         <div class=\"legend\"><span><i class=\"swatch scale\"></i>compared at random, few to many</span>\
         <span><i class=\"swatch dot\"></i>recorded too</span>\
         <span><i class=\"swatch only dot\"></i>recorded only</span>\
         <span><i class=\"swatch\"></i>not covered</span>\
         <span><i class=\"swatch differs\"></i>differs</span></div>\
         <div class=\"wide\"><table class=\"matrix\"><col class=\"type\">",
    );
    let columns = || GROUPS.iter().flat_map(|(_, columns)| *columns);
    for _ in columns() {
        page.push_str("<col>");
    }
    page.push_str("<thead><tr class=\"names\"><th>");
    for column in columns() {
        put!(page, "<th><span>{}</span>", column.name);
    }
    page.push_str("<tr class=\"group\"><th>");
    for (name, columns) in GROUPS {
        put!(page, "<th colspan=\"{}\">{name}", columns.len());
    }
    page.push_str("<tbody>");
    let most = (0..FAMILIES.len())
        .flat_map(|family| columns().map(move |column| evidence(outcome, family, column).random))
        .max()
        .unwrap_or(0);
    for (number, family) in FAMILIES.iter().enumerate() {
        put!(page, "<tr><th>{}", family.name);
        for column in columns() {
            cell(
                page,
                family.name,
                column.name,
                evidence(outcome, number, column),
                most,
            );
        }
    }
    page.push_str("</table></div></section>\n");
}

fn cell(page: &mut String, family: &str, column: &str, evidence: Evidence, most: u64) {
    let Evidence {
        random,
        recorded,
        differ,
    } = evidence;
    let weight = weight(random, most);
    let mut class = match (random, recorded) {
        (0, 0) => "none",
        (0, _) => "only",
        _ if weight > 55 => "random strong",
        _ => "random",
    }
    .to_owned();
    if differ > 0 {
        class.push_str(" differs");
    }
    if recorded > 0 {
        class.push_str(" recorded");
    }
    let number = match (differ, random, recorded) {
        (0, 0, 0) => String::new(),
        (0, 0, _) => short(recorded),
        (0, ..) => short(random),
        _ => short(differ),
    };
    put!(
        page,
        "<td class=\"{class}\" style=\"--w:{}.{:02}\" title=\"{family}, {column}: {} random, {} recorded, {} differ\">{number}",
        weight / 100,
        weight % 100,
        grouped(random),
        grouped(recorded),
        grouped(differ)
    );
}
