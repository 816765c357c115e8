//! What came of a run as one HTML file, which needs nothing else: the matrix of types and commands, differences, times.

use super::outcome::{Count, Found, Outcome};
use super::{report_latency, report_matrix};
use crate::conform::FAMILIES;

/// How all of it looks, on light and on dark screens.
const STYLE: &str = include_str!("report.css");

/// The whole file.
pub(super) fn html(outcome: &Outcome) -> String {
    let mut page = String::with_capacity(1 << 18);
    page.push_str("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.push_str("<title>mapemu conform</title>\n<style>\n");
    page.push_str(STYLE);
    page.push_str("</style>\n<main>\n");
    head(&mut page, outcome);
    tiles(&mut page, outcome);
    differences(&mut page, &outcome.found);
    report_matrix::section(&mut page, outcome);
    report_latency::section(&mut page, outcome);
    counts(&mut page, outcome);
    environment(&mut page, outcome);
    page.push_str(
        "<footer>made by <code>mapemu conform --report</code></footer>\n</main>\n</html>\n",
    );
    page
}

/// Adds text to the page.
macro_rules! put {
    ($page:expr, $($what:tt)*) => {
        // Writing to a String cannot fail.
        let _written = std::fmt::Write::write_fmt($page, format_args!($($what)*));
    };
}
pub(super) use put;

/// Text as HTML has it.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A number with commas.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + 6);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time, in three digits at most.
pub(super) fn time(ns: f64) -> String {
    let (number, unit) = match ns {
        _ if ns < 1e3 => (ns, "ns"),
        _ if ns < 1e6 => (ns / 1e3, "µs"),
        _ if ns < 1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    let digits = usize::from(number < 9.95 && unit != "ns");
    format!("{number:.digits$} {unit}")
}

fn head(page: &mut String, outcome: &Outcome) {
    let (recorded, wrong) = outcome.recorded_steps();
    let differ = outcome.differ() + wrong;
    let (class, verdict) = match differ {
        0 => ("good", "every answer is the kernel's".to_owned()),
        1 => ("bad", "1 answer differs".to_owned()),
        _ => ("bad", format!("{} answers differ", grouped(differ))),
    };
    let mut compared = Vec::new();
    if let Some(kernel) = &outcome.about.kernel {
        let steps = grouped(outcome.steps());
        compared.push(format!(
            "{steps} random steps beside Linux {}",
            escaped(kernel)
        ));
    }
    if let Some(release) = &outcome.about.recordings {
        compared.push(format!(
            "{} recorded steps of Linux {release}",
            grouped(recorded)
        ));
    }
    put!(
        page,
        "<header><div><h1>mapemu beside the kernel</h1><p>{}</p></div>\
         <div class=\"verdict {class}\">{verdict}</div></header>\n",
        compared.join(" · ")
    );
}

fn tiles(page: &mut String, outcome: &Outcome) {
    let (recorded, _) = outcome.recorded_steps();
    let mut types: Vec<usize> = outcome.counts.keys().map(|(family, _)| *family).collect();
    types.extend(outcome.recorded.keys().map(|(family, _)| *family));
    types.retain(|&family| FAMILIES[family].name != "create");
    types.sort_unstable();
    types.dedup();
    let refused: u64 = outcome.counts.values().map(|count| count.refused).sum();
    let to_come: u64 = outcome.counts.values().map(|count| count.to_come).sum();
    let tiles = [
        (grouped(outcome.steps()), "random steps".to_owned()),
        (grouped(outcome.differ()), "of them differ".to_owned()),
        (types.len().to_string(), "types of maps".to_owned()),
        (
            grouped(outcome.counts.len() as u64),
            "pairs of type and command".to_owned(),
        ),
        (grouped(refused), "refused by both verifiers".to_owned()),
        (grouped(to_come), "not emulated".to_owned()),
        (grouped(recorded), "recorded steps".to_owned()),
    ];
    page.push_str("<div class=\"tiles\">");
    for (number, what) in tiles {
        put!(
            page,
            "<div class=\"tile\"><b>{number}</b><span>{what}</span></div>"
        );
    }
    page.push_str("</div>\n");
}

fn differences(page: &mut String, found: &[Found]) {
    if found.is_empty() {
        return;
    }
    page.push_str(
        "<section><h2>What differs</h2><p>Each as the shortest scenario that shows it.</p>",
    );
    for found in found {
        put!(
            page,
            "<h3>{}, seed {:#x}</h3><pre>{}</pre><p>Written: <code>{}</code></p>",
            escaped(&found.family),
            found.seed,
            escaped(&found.text),
            escaped(&found.file)
        );
    }
    page.push_str("</section>\n");
}

/// All counts, a table for each type.
fn counts(page: &mut String, outcome: &Outcome) {
    if outcome.counts.is_empty() {
        return;
    }
    page.push_str(
        "<section><h2>Steps and differences</h2><p>By type and command; times are medians.</p>",
    );
    for (number, family) in FAMILIES.iter().enumerate() {
        let of_family = || {
            outcome
                .counts
                .iter()
                .filter(move |((own, _), _)| *own == number)
        };
        let steps: u64 = of_family().map(|(_, count)| count.steps).sum();
        if steps == 0 {
            continue;
        }
        let differ: u64 = of_family().map(|(_, count)| count.differ).sum();
        put!(
            page,
            "<details><summary><b>{}</b><span>{} steps</span><span{}>{} differ</span></summary>\
             <table class=\"counts\"><tr><th>command<th>steps<th>differ<th>refused<th>not emulated<th>kernel<th>mapemu</tr>",
            family.name,
            grouped(steps),
            if differ > 0 { " class=\"r\"" } else { "" },
            grouped(differ)
        );
        for ((_, command), count) in of_family() {
            line(page, command, count);
        }
        page.push_str("</table></details>");
    }
    page.push_str("</section>\n");
}

fn line(page: &mut String, command: &str, count: &Count) {
    let median =
        |times: &super::histogram::Histogram| times.percentile(50).map_or_else(String::new, time);
    put!(
        page,
        "<tr><td><code>{}</code><td>{}<td{}>{}<td>{}<td>{}<td>{}<td>{}</tr>",
        escaped(command),
        grouped(count.steps),
        if count.differ > 0 { " class=\"r\"" } else { "" },
        grouped(count.differ),
        grouped(count.refused),
        grouped(count.to_come),
        median(&count.kernel),
        median(&count.emulated)
    );
}

fn environment(page: &mut String, outcome: &Outcome) {
    let about = &outcome.about;
    let shards: Vec<String> = about.shards.iter().map(u64::to_string).collect();
    let rate = outcome
        .steps()
        .checked_div(whole_seconds(about.seconds))
        .unwrap_or(0);
    let rows = [
        ("mapemu", about.version.clone()),
        (
            "running kernel",
            about
                .kernel
                .clone()
                .unwrap_or_else(|| "not asked".to_owned()),
        ),
        (
            "recordings",
            about.recordings.clone().map_or_else(
                || "not replayed".to_owned(),
                |release| format!("Linux {release}"),
            ),
        ),
        ("CPUs", format!("{}, {}", about.cpus, about.cpu)),
        ("seed", about.seed.to_string()),
        (
            "asked for",
            format!(
                "{} steps in {} runs",
                grouped(about.asked),
                grouped(about.cases)
            ),
        ),
        ("shards", format!("{} of {}", shards.join(", "), about.of)),
        ("began", about.date.clone()),
        (
            "took",
            format!("{:.0} s, {} steps a second", about.seconds, grouped(rate)),
        ),
    ];
    page.push_str("<section><h2>Environment</h2><dl class=\"about\">");
    for (name, value) in rows {
        put!(page, "<dt>{name}</dt><dd>{}</dd>", escaped(&value));
    }
    page.push_str("</dl></section>\n");
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time that passed"
)]
fn whole_seconds(seconds: f64) -> u64 {
    seconds.ceil().max(1.0) as u64
}
