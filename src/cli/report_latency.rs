//! How long both kernels took, as plots of a report.

use std::collections::BTreeMap;

use super::histogram::Histogram;
use super::outcome::Outcome;
use super::report::{put, time};
use super::report_matrix::label_of;
use crate::conform::FAMILIES;

/// Times of both kernels.
#[derive(Clone, Default)]
struct Times {
    kernel: Histogram,
    emulated: Histogram,
}

impl Times {
    /// Both medians, if there are enough times to speak of them.
    fn medians(&self) -> Option<(f64, f64)> {
        if self.kernel.total() < ENOUGH {
            return None;
        }
        Some((self.kernel.percentile(50)?, self.emulated.percentile(50)?))
    }
}

/// So many times make a distribution.
const ENOUGH: u64 = 50;

/// Commands of bpf(2) on elements, whose times are those of the call alone.
const CALLS: &[&str] = &[
    "map_lookup_elem",
    "map_update_elem",
    "map_delete_elem",
    "map_lookup_and_delete_elem",
    "map_get_next_key",
    "map_lookup_batch",
    "map_lookup_and_delete_batch",
    "map_update_batch",
    "map_delete_batch",
    "map_create",
    "obj_get_info_by_fd",
    "map_get_fd_by_id",
];

/// What programs do: the running kernel loads each the first time, and some of its times are those of loading.
const PROGRAMS: &[&str] = &[
    "helper map_lookup_elem",
    "helper map_update_elem",
    "helper map_delete_elem",
    "for_each",
    "program",
    "ringbuf",
];

/// The plots.
pub(super) fn section(page: &mut String, outcome: &Outcome) {
    let mut by_command: BTreeMap<&str, Times> = BTreeMap::new();
    let mut by_type: BTreeMap<usize, Times> = BTreeMap::new();
    for ((family, command), count) in &outcome.counts {
        let add = |times: &mut Times| {
            times.kernel.add(&count.kernel);
            times.emulated.add(&count.emulated);
        };
        add(by_command.entry(command).or_default());
        if CALLS[..5].contains(&command.as_str()) {
            add(by_type.entry(*family).or_default());
        }
    }
    if by_command.values().all(|times| times.medians().is_none()) {
        return;
    }
    page.push_str(
        "<section><h2>How long it took</h2>\
         <p>Of each step that both answered alike: the time in its calls of bpf(2), with the copying of their buffers. \
         A sum over all types, sizes and errors of a random run, not a benchmark. Scales are logarithmic.</p>\
         <div class=\"legend\"><span><i class=\"swatch kernel\"></i>running kernel</span>\
         <span><i class=\"swatch emulated\"></i>mapemu</span></div>",
    );
    page.push_str("<h3>Commands</h3>");
    plots(page, &by_command, CALLS);
    page.push_str("<h3>Programs: on the running kernel with their loading, unless the same one was loaded before</h3>");
    plots(page, &by_command, PROGRAMS);
    page.push_str("<h3>Types: median of the commands on single elements, and the ratio</h3>");
    medians(page, &by_type);
    page.push_str("</section>\n");
}

/// Width and height of one distribution, and the place below it for the scale.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 92.0;
const SCALE: f64 = 16.0;

/// A scale of logarithms, from one power of ten to another.
#[derive(Clone, Copy)]
struct Scale {
    from: i32,
    to: i32,
    left: f64,
    width: f64,
}

impl Scale {
    /// The scale that times from the least to the most are on.
    fn of(least: f64, most: f64, left: f64, width: f64) -> Self {
        let power = |ns: f64| ns.max(1.0).log10();
        #[expect(clippy::cast_possible_truncation, reason = "a power of ten of a time")]
        let (from, to) = (power(least).floor() as i32, power(most).ceil() as i32);
        Self {
            from,
            to: to.max(from + 1),
            left,
            width,
        }
    }

    fn x(self, ns: f64) -> f64 {
        let span = f64::from(self.to - self.from);
        let part = (ns.log10() - f64::from(self.from)) / span;
        self.left + self.width * part.clamp(0.0, 1.0)
    }

    fn marks(self) -> impl Iterator<Item = f64> {
        (self.from..=self.to).map(|power| 10_f64.powi(power))
    }
}

fn plots(page: &mut String, times: &BTreeMap<&str, Times>, commands: &[&str]) {
    let known: Vec<_> = commands
        .iter()
        .filter_map(|command| {
            let times = times.get(command)?;
            Some((command, times, times.medians()?))
        })
        .collect();
    let percentiles = |percent| {
        let times = known
            .iter()
            .flat_map(|(_, times, _)| [&times.kernel, &times.emulated]);
        times.filter_map(move |times| times.percentile(percent))
    };
    let least = percentiles(2).fold(f64::MAX, f64::min);
    let scale = Scale::of(least, percentiles(90).fold(1.0, f64::max), 0.0, WIDTH);
    page.push_str("<div class=\"plots\">");
    for (command, times, (kernel, emulated)) in known {
        put!(
            page,
            "<figure><figcaption>{}<span>{}</span></figcaption><svg viewBox=\"-8 0 {} {}\" role=\"img\">",
            label_of(command),
            ratio(kernel, emulated),
            WIDTH + 16.0,
            HEIGHT + SCALE
        );
        for mark in scale.marks() {
            let x = scale.x(mark);
            put!(
                page,
                "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"14\" y2=\"{HEIGHT}\"/>"
            );
            put!(
                page,
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                HEIGHT + 12.0,
                time(mark)
            );
        }
        // The taller hill stands behind.
        area(page, scale, &times.kernel, "k");
        area(page, scale, &times.emulated, "e");
        median(page, scale, kernel, emulated, "k");
        median(page, scale, emulated, kernel, "e");
        page.push_str("</svg></figure>");
    }
    page.push_str("</div>");
}

/// `8.2 times`, as how much faster the emulated one is.
fn ratio(kernel: f64, emulated: f64) -> String {
    let times = kernel / emulated;
    let digits = usize::from(times < 9.95);
    format!("{times:.digits$} × faster")
}

/// A distribution: its tallest place is as high as the plot.
#[expect(clippy::cast_precision_loss, reason = "heights on a screen")]
fn area(page: &mut String, scale: Scale, times: &Histogram, class: &str) {
    let (from, to) = (10_f64.powi(scale.from), 10_f64.powi(scale.to));
    let counts: BTreeMap<usize, u64> = times.places().collect();
    let (Some(&first), Some(&last)) = (counts.keys().next(), counts.keys().last()) else {
        return;
    };
    let count = |place: usize| counts.get(&place).copied().unwrap_or(0);
    // The clock is coarser than the places of short times: each is shown with its neighbours.
    let smooth =
        |place: usize| 2 * count(place) + count(place + 1) + place.checked_sub(1).map_or(0, count);
    let places = first.saturating_sub(1)..=last + 1;
    let tallest = places.clone().map(smooth).max().unwrap_or(1);
    let y = |count: u64| HEIGHT - (HEIGHT - 18.0) * count as f64 / tallest as f64;
    put!(page, "<path class=\"{class}\" d=\"");
    let mut letter = 'M';
    for place in places {
        let ns = Histogram::middle(place);
        if (from..=to).contains(&ns) {
            let x = scale.x(ns);
            if letter == 'M' {
                put!(page, "M{x:.1} {HEIGHT}");
                letter = 'L';
            }
            put!(page, "{letter}{x:.1} {:.1}", y(smooth(place)));
        }
    }
    page.push_str("\"/>");
}

/// The line of a median, its number on the side where there is room.
fn median(page: &mut String, scale: Scale, ns: f64, other: f64, class: &str) {
    let x = scale.x(ns);
    put!(
        page,
        "<line class=\"{class}m\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"12\" y2=\"{HEIGHT}\"/>"
    );
    let anchor = if ns < other { "end" } else { "start" };
    let anchor = match x {
        _ if x < 40.0 => "start",
        _ if x > WIDTH - 40.0 => "end",
        _ => anchor,
    };
    put!(
        page,
        "<text class=\"{class}t\" x=\"{x:.1}\" y=\"9\" text-anchor=\"{anchor}\">{}</text>",
        time(ns)
    );
}

/// Both medians of each type on one line.
fn medians(page: &mut String, by_type: &BTreeMap<usize, Times>) {
    const LEFT: f64 = 180.0;
    const ALL: f64 = 1100.0;
    const ROW: f64 = 21.0;
    let rows: Vec<_> = by_type
        .iter()
        .filter_map(|(family, times)| Some((FAMILIES[*family].name, times.medians()?)))
        .collect();
    let width = ALL - LEFT - 120.0;
    let both = || {
        rows.iter()
            .flat_map(|(_, (kernel, emulated))| [*kernel, *emulated])
    };
    let (least, most) = (both().fold(f64::MAX, f64::min), both().fold(1.0, f64::max));
    let scale = Scale::of(least, most, LEFT, width);
    let mut height = ROW;
    for _ in &rows {
        height += ROW;
    }
    put!(page, "<svg viewBox=\"0 0 {ALL} {height}\" role=\"img\">");
    for mark in scale.marks() {
        let x = scale.x(mark);
        put!(
            page,
            "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"18\" y2=\"{height}\"/>\
             <text x=\"{x:.1}\" y=\"12\" text-anchor=\"middle\">{}</text>",
            time(mark)
        );
    }
    let mut y = ROW + 10.0;
    for (name, (kernel, emulated)) in rows {
        let (k, e) = (scale.x(kernel), scale.x(emulated));
        put!(
            page,
            "<text class=\"row\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>\
             <line class=\"bar\" x1=\"{k:.1}\" x2=\"{e:.1}\" y1=\"{y}\" y2=\"{y}\"/>\
             <circle class=\"ed\" cx=\"{e:.1}\" cy=\"{y}\" r=\"5\"/><circle class=\"kd\" cx=\"{k:.1}\" cy=\"{y}\" r=\"5\"/>\
             <text class=\"ratio\" x=\"{ALL}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 14.0,
            y + 4.0,
            y + 4.0,
            ratio(kernel, emulated)
        );
        y += ROW;
    }
    page.push_str("</svg>");
}
