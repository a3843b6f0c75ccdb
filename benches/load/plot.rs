//! Cost as work grows, as an SVG: one line a series, its measure from least to most by powers of ten.

use std::fmt::Write as _;

use crate::scenario::flat::Series;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 50.0;
const COLOURS: [&str; 5] = ["#2563eb", "#d97706", "#059669", "#b91c1c", "#7c3aed"];

pub fn svg(series: &[Series]) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    #[allow(clippy::cast_precision_loss, reason = "a place on paper")]
    let decade = |n: u64| (n.max(1) as f64).log10();
    let widest = points().map(|(n, _)| decade(*n)).fold(1.0, f64::max).ceil();
    let highest = points().map(|(_, cost)| *cost).fold(1.0, f64::max).ceil();
    let x = |n: u64| LEFT + decade(n) / widest * (WIDTH - LEFT - 30.0);
    let y = |cost: f64| HEIGHT - 40.0 - cost / highest * (HEIGHT - 40.0 - TOP);

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"14\">Worker CPU a change (µs), as one measure grows</text>\n"
    );
    for line in 0..=4 {
        let cost = highest * f64::from(line) / 4.0;
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {0:.1}H{1:.1}\" stroke=\"#ddd\"/><text x=\"{2:.1}\" y=\"{3:.1}\" text-anchor=\"end\">{cost:.1}</text>",
            y(cost),
            WIDTH - 30.0,
            LEFT - 8.0,
            y(cost) + 4.0,
        );
    }
    let mut power = 1u64;
    while decade(power) <= widest {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{power}</text>",
            x(power),
            HEIGHT - 18.0
        );
        power *= 10;
    }
    for (number, (series, colour)) in series.iter().zip(COLOURS).enumerate() {
        let path: Vec<_> =
            series.points.iter().map(|(n, cost)| format!("{:.1},{:.1}", x(*n), y(*cost))).collect();
        #[allow(clippy::cast_precision_loss, reason = "a place on paper")]
        let legend = LEFT + 5.0 + 175.0 * number as f64;
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
             <text x=\"{legend:.1}\" y=\"38\" fill=\"{colour}\">{}</text>",
            path.join(" "),
            series.name,
        );
        for (n, cost) in &series.points {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(*n),
                y(*cost)
            );
        }
    }
    out + "</svg>\n"
}
