//! The roofline as SVG: operations a second over operations a byte, both in powers of ten, with each kernel on it.

use super::database::Rows;
use super::report::{Kernel, Report};
use crate::load::plot::{COLOURS, escaped, label, line, number};
use std::fmt::Write;

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 560.0;
/// Left, top, width and height of the frame.
const FRAME: (f64, f64, f64, f64) = (70.0, 60.0, 560.0, 420.0);

/// The powers of ten between which both axes lie.
struct Axes {
    x: (f64, f64),
    y: (f64, f64),
}

impl Axes {
    fn of(report: &Report) -> Self {
        let shown = report.kernels.iter().filter_map(place);
        let (mut x, mut y) = ((-1.0f64, 3.0f64), (0.0f64, 0.0f64));
        let peak = report.speeds.operations.iter().fold(1.0f64, |most, peak| most.max(*peak));
        y.1 = (peak / 1e9).log10().ceil();
        for (intensity, rate) in shown {
            x = (x.0.min(intensity.log10().floor()), x.1.max(intensity.log10().ceil()));
            y = (y.0.min(rate.log10().floor()), y.1.max(rate.log10().ceil()));
        }
        Self { x, y }
    }

    fn point(&self, intensity: f64, rate: f64) -> (f64, f64) {
        let (left, top, width, height) = FRAME;
        let along =
            |(from, to): (f64, f64), value: f64| ((value.log10() - from) / (to - from)).clamp(0.0, 1.0);
        (left + along(self.x, intensity) * width, top + height - along(self.y, rate) * height)
    }
}

/// Operations a byte, and billions of them a second.
fn place(kernel: &Kernel) -> Option<(f64, f64)> {
    let floor = &kernel.floor;
    let known = floor.operations > 0 && floor.bytes > 0 && kernel.microseconds > 0.0;
    let intensity = floor.operations as f64 / floor.bytes.max(1) as f64;
    known.then(|| (intensity, floor.operations as f64 / kernel.microseconds / 1e3))
}

/// The drawing. Kernels without products have no place on it.
pub fn svg(report: &Report) -> String {
    let mut page = String::new();
    let _ = writeln!(
        page,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="system-ui, sans-serif" font-size="12">
<title>Roofline of {}</title>
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>"##,
        escaped(&report.model)
    );
    label(&mut page, (FRAME.0, 26.0), "start", &format!("{} on {}", report.model, report.device));
    let axes = Axes::of(report);
    ticks(&mut page, &axes);
    roof(&mut page, &axes, report);
    points(&mut page, &axes, report);
    page += "</svg>\n";
    page
}

fn ticks(page: &mut String, axes: &Axes) {
    let (left, top, width, height) = FRAME;
    for power in axes.x.0 as i32..=axes.x.1 as i32 {
        let value = 10f64.powi(power);
        let (x, _) = axes.point(value, 1.0);
        line(page, (x, top), (x, top + height), "#e3e3e3");
        label(page, (x, top + height + 18.0), "middle", &number(value));
    }
    for power in axes.y.0 as i32..=axes.y.1 as i32 {
        let value = 10f64.powi(power);
        let (_, y) = axes.point(1.0, value);
        line(page, (left, y), (left + width, y), "#e3e3e3");
        label(page, (left - 6.0, y + 4.0), "end", &number(value));
    }
    label(page, (left + width / 2.0, top + height + 38.0), "middle", "operations a byte");
    label(page, (left, top - 10.0), "start", "10⁹ operations a second");
}

/// The bandwidth as a slope, and the peaks of the kernels that are shown as levels.
fn roof(page: &mut String, axes: &Axes, report: &Report) {
    let bandwidth = report.speeds.bandwidth / 1e9;
    let mut peaks: Vec<f64> = report
        .kernels
        .iter()
        .filter(|kernel| place(kernel).is_some())
        .map(|kernel| kernel.floor.peak / 1e9)
        .collect();
    peaks.sort_by(f64::total_cmp);
    peaks.dedup();
    let highest = peaks.last().copied().unwrap_or(1.0);
    let (from, to) = (10f64.powf(axes.x.0), 10f64.powf(axes.x.1));
    // The slope begins at the left side or at the bottom, whichever comes first.
    let begin = from.max(10f64.powf(axes.y.0) / bandwidth);
    let ridge = (highest / bandwidth).clamp(begin, to);
    line(page, axes.point(begin, begin * bandwidth), axes.point(ridge, ridge * bandwidth), COLOURS[2]);
    for peak in peaks {
        let ridge = (peak / bandwidth).clamp(from, to);
        line(page, axes.point(ridge, peak), axes.point(to, peak), COLOURS[2]);
        let (x, y) = axes.point(to, peak);
        label(page, (x - 4.0, y - 5.0), "end", &format!("{}·10⁹ a second", number(peak)));
    }
    let (x, y) = axes.point(begin, begin * bandwidth);
    label(page, (x + 12.0, y - 12.0), "start", &format!("{} GB/s", number(bandwidth)));
}

fn points(page: &mut String, axes: &Axes, report: &Report) {
    let shown = report.kernels.iter().filter_map(|kernel| Some((kernel, place(kernel)?)));
    for (at, (kernel, (intensity, rate))) in shown.enumerate() {
        let (x, y) = axes.point(intensity, rate);
        let colour = if kernel.rows == Rows::Few { COLOURS[0] } else { COLOURS[1] };
        let share = 100.0 * kernel.floor.microseconds / kernel.microseconds;
        let words = format!(
            "{}, {} rows: {} µs, {share:.0} % of the floor",
            kernel.name,
            kernel.rows,
            number(kernel.microseconds)
        );
        let _ = writeln!(
            page,
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="4.5" fill="{colour}"><title>{}</title></circle>"#,
            escaped(&words)
        );
        let name = (at + 1).to_string();
        label(page, (x + 7.0, y + 4.0), "start", &name);
        let row = 76.0 + 17.0 * at as f64;
        if row < HEIGHT - 12.0 {
            label(
                page,
                (642.0, row),
                "start",
                &format!("{name} {}, {}, {share:.0} %", kernel.name, kernel.rows),
            );
        }
    }
    let (_, top, _, height) = FRAME;
    label(
        page,
        (FRAME.0, top + height + 58.0),
        "start",
        "blue: few rows; orange: many rows; per cent of the floor",
    );
}
