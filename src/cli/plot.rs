//! Costs by size as a picture: both axes logarithmic, so that what is linear rises by one square for each square.

use std::fmt::Write;

use crate::bench::memory::Cost;

/// A line of the picture: its name, its colour, and the sum of a cost's figure.
type Line = (&'static str, &'static str, fn(&Cost) -> f64);

const LINES: [Line; 4] = [
    ("memory, MiB", "#7b3294", |cost| {
        all(cost, cost.bytes) / 1_048_576.0
    }),
    ("fill, ms", "#d7191c", |cost| all(cost, cost.fill_ns) / 1e6),
    ("look up each, ms", "#2b83ba", |cost| {
        all(cost, cost.lookup_ns) / 1e6
    }),
    ("walk, ms", "#1a9641", |cost| all(cost, cost.walk_ns) / 1e6),
];

fn all(cost: &Cost, each: f64) -> f64 {
    each * cost.spec.max_entries as f64
}

/// Exponents of ten at the ends of the axes.
const SIZES: (f64, f64) = (3.0, 7.0);
const COSTS: (f64, f64) = (-2.0, 4.0);
/// A square, and the room around.
const SQUARE: f64 = 80.0;
const ROOM: f64 = 70.0;

fn x(size: f64) -> f64 {
    ROOM + (size.log10() - SIZES.0) * SQUARE
}

fn y(cost: f64) -> f64 {
    ROOM / 2.0 + (COSTS.1 - cost.log10()) * SQUARE
}

/// The picture, as SVG.
pub(super) fn draw(costs: &[Cost]) -> String {
    let (right, bottom) = (x(10_f64.powf(SIZES.1)), y(10_f64.powf(COSTS.0)));
    let (width, height) = (right + 30.0, bottom + 50.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    draw_grid(&mut svg, right, bottom);
    for (number, (name, colour, figure)) in LINES.into_iter().enumerate() {
        let points: Vec<(f64, f64)> = costs
            .iter()
            .map(|cost| (x(cost.spec.max_entries as f64), y(figure(cost).max(0.01))))
            .collect();
        let line: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        add(
            &mut svg,
            format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                line.join(" ")
            ),
        );
        for (x, y) in &points {
            add(
                &mut svg,
                format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"),
            );
        }
        // The names lie in the corner where no line comes.
        let below = y(1e4) + 20.0 + 18.0 * number as f64;
        let text = format_args!(
            "<text x=\"{:.1}\" y=\"{below:.1}\" fill=\"{colour}\">{name}</text>",
            x(1e3) + 12.0
        );
        add(&mut svg, text);
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_grid(svg: &mut String, right: f64, bottom: f64) {
    let rule = |svg: &mut String, from: (f64, f64), to: (f64, f64)| {
        add(
            svg,
            format_args!(
                "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"#dddddd\"/>",
                from.0, from.1, to.0, to.1
            ),
        );
    };
    let text = |svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str| {
        add(
            svg,
            format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"),
        );
    };
    for (size, name) in [
        (1e3, "1k"),
        (1e4, "10k"),
        (1e5, "100k"),
        (1e6, "1M"),
        (1e7, "10M"),
    ] {
        rule(svg, (x(size), y(10_f64.powf(COSTS.1))), (x(size), bottom));
        text(svg, (x(size), bottom + 18.0), "middle", name);
    }
    for cost in [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0] {
        rule(svg, (x(1e3), y(cost)), (right, y(cost)));
        text(svg, (x(1e3) - 8.0, y(cost) + 4.0), "end", &cost.to_string());
    }
    let middle = f64::midpoint(x(1e3), right);
    text(
        svg,
        (middle, bottom + 38.0),
        "middle",
        "elements, HASH 4/8, full",
    );
}

fn add(svg: &mut String, line: std::fmt::Arguments<'_>) {
    svg.write_fmt(line).expect("a string takes all");
    svg.push('\n');
}
