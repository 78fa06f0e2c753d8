//! A drawing of a load as SVG: how times are distributed, and throughput over time.

use super::client::Answer;
use super::report::Report;
use super::statistics::{percentile, throughput};
use std::fmt::Write;

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 640.0;
/// Parts of the time in which tokens are counted.
const PARTS: usize = 60;
/// A blue, an orange and a near black, which differ in lightness too, so that all can tell them apart.
pub(crate) const COLOURS: [&str; 3] = ["#1f5fa8", "#d9701a", "#2b2b2b"];

/// The drawing.
pub fn svg(report: &Report) -> String {
    let mut page = String::new();
    let _ = writeln!(
        page,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="system-ui, sans-serif" font-size="12">
<title>Latency and throughput of {}</title>
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>"##,
        escaped(&report.model)
    );
    label(&mut page, (60.0, 26.0), "start", &format!("{}: {}", report.model, report.load_words()));
    latencies(&mut page, report);
    over_time(&mut page, report);
    page += "</svg>\n";
    page
}

/// A picture with axes.
struct Chart {
    /// Left, top, width, height.
    frame: (f64, f64, f64, f64),
    /// The largest value of each axis.
    most: (f64, f64),
}

impl Chart {
    fn new(frame: (f64, f64, f64, f64), most: (f64, f64)) -> Self {
        Self { frame, most: (round_up(most.0), round_up(most.1)) }
    }

    fn point(&self, x: f64, y: f64) -> (f64, f64) {
        let (left, top, width, height) = self.frame;
        (left + x / self.most.0 * width, top + height - y / self.most.1 * height)
    }

    /// Frame, ticks and names of the axes.
    fn axes(&self, page: &mut String, x_name: &str, y_name: &str) {
        let (left, top, width, height) = self.frame;
        for tick in 0..=5 {
            let share = f64::from(tick) / 5.0;
            let (x, y) = (left + share * width, top + height - share * height);
            line(page, (left, y), (left + width, y), "#e3e3e3");
            line(page, (x, top + height), (x, top + height + 4.0), "#555555");
            label(page, (left - 6.0, y + 4.0), "end", &number(share * self.most.1));
            label(page, (x, top + height + 18.0), "middle", &number(share * self.most.0));
        }
        line(page, (left, top + height), (left + width, top + height), "#555555");
        line(page, (left, top), (left, top + height), "#555555");
        label(page, (left + width / 2.0, top + height + 36.0), "middle", x_name);
        label(page, (left, top - 10.0), "start", y_name);
    }

    fn curve(&self, page: &mut String, points: &[(f64, f64)], colour: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| self.point(*x, *y)).map(pair).collect();
        let _ = writeln!(
            page,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            points.join(" ")
        );
    }
}

/// The share of requests that took at most so long: one curve a kind of time.
fn latencies(page: &mut String, report: &Report) {
    let answers: Vec<&Answer> = report.answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    let sorted = |time: fn(&Answer) -> Option<f64>| {
        let mut values: Vec<f64> = answers.iter().filter_map(|answer| time(answer)).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let kinds = [
        ("time to first token", sorted(Answer::ttft)),
        ("whole answer", sorted(Answer::e2e)),
        ("each later token", sorted(Answer::tpot)),
    ];
    let most = kinds.iter().filter_map(|(_, values)| values.last()).fold(0.0f64, |most, at| most.max(*at));
    let chart = Chart::new((60.0, 70.0, 560.0, 200.0), (1e3 * most, 100.0));
    chart.axes(page, "milliseconds", "requests that took at most so long, %");
    for (at, ((name, values), colour)) in kinds.iter().zip(COLOURS).enumerate() {
        let percents = (0..=100).map(f64::from);
        let points: Vec<_> = percents.map(|percent| (1e3 * percentile(values, percent), percent)).collect();
        if !values.is_empty() {
            chart.curve(page, &points, colour);
        }
        let top = 90.0 + 62.0 * at as f64;
        line(page, (642.0, top - 4.0), (664.0, top - 4.0), colour);
        label(page, (670.0, top), "start", name);
        let at = |percent| number(1e3 * percentile(values, percent));
        let words = format!("median {} ms, p99 {} ms", at(50.0), at(99.0));
        label(page, (670.0, top + 17.0), "start", &words);
    }
}

/// Tokens a second over time.
fn over_time(page: &mut String, report: &Report) {
    let stamps = report.answers.iter().filter_map(|answer| answer.as_ref().ok()?.stamps.last());
    let seconds = stamps.fold(1e-3f64, |last, at| last.max(*at));
    let rates = throughput(&report.answers, PARTS, seconds);
    let most = rates.iter().fold(1e-3f64, |most, rate| most.max(*rate));
    let chart = Chart::new((60.0, 370.0, 560.0, 200.0), (seconds, most));
    chart.axes(page, "seconds", "output tokens per second");
    let width = seconds / PARTS as f64;
    let steps = rates.iter().enumerate();
    let points: Vec<_> =
        steps.flat_map(|(at, rate)| [(at as f64 * width, *rate), ((at + 1) as f64 * width, *rate)]).collect();
    chart.curve(page, &points, COLOURS[0]);
    let figures = &report.figures;
    let mean = figures.output_tokens_per_second;
    chart.curve(page, &[(0.0, mean), (seconds, mean)], COLOURS[1]);
    line(page, (642.0, 386.0), (664.0, 386.0), COLOURS[1]);
    label(page, (670.0, 390.0), "start", &format!("mean {} tokens/s", number(mean)));
    label(
        page,
        (670.0, 407.0),
        "start",
        &format!("{} answered, {} failed", figures.completed, figures.failed),
    );
    if let Some(goodput) = figures.goodput_per_second {
        label(page, (670.0, 424.0), "start", &format!("{} good requests/s", number(goodput)));
    }
}

pub(crate) fn line(page: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        page,
        r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" stroke-width="1.5"/>"#
    );
}

pub(crate) fn label(page: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(
        page,
        r##"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="#222222">{text}</text>"##
    );
}

fn pair((x, y): (f64, f64)) -> String {
    format!("{x:.1},{y:.1}")
}

/// The next round number, so that the ticks, fifths of it, can be read.
fn round_up(value: f64) -> f64 {
    if value.is_nan() || value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= value * (1.0 - 1e-12)).unwrap_or(10.0 * power)
}

/// Three digits that count.
pub(crate) fn number(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { (2 - value.abs().log10().floor() as i32).clamp(0, 6) as usize };
    let text = format!("{value:.digits$}");
    if digits == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_readable_numbers() {
        for (value, wanted) in [(0.0, 1.0), (0.7, 0.8), (1.0, 1.0), (1.2, 1.5), (26.0, 30.0), (999.0, 1000.0)]
        {
            assert!((round_up(value) - wanted).abs() < 1e-9, "{value}: {}", round_up(value));
        }
        let texts = [0.0, 0.12345, 1.0, 12.34, 120.0, 99999.0].map(number);
        assert_eq!(texts, ["0", "0.123", "1", "12.3", "120", "99999"]);
    }

    #[test]
    fn points_lie_within_the_frame() {
        let chart = Chart::new((10.0, 20.0, 100.0, 50.0), (10.0, 4.0));
        assert_eq!(chart.point(0.0, 0.0), (10.0, 70.0));
        assert_eq!(chart.point(10.0, 4.0), (110.0, 20.0));
    }
}
