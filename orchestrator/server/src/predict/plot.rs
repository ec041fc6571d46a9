//! Two curves as an SVG drawing: how probable a commit is against the deadline, and against the attempts.

use std::fmt::Write as _;

use sagamore_schemas::ids::Span;

use super::Prediction;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 240.0;
const MARGIN: f64 = 56.0;
/// Points of the curve against the deadline.
const POINTS: u32 = 200;

/// One curve: where along the axis (0 to 1), and how probable.
struct Curve<'a> {
    title: &'a str,
    points: Vec<(f64, f64)>,
    /// Where along the axis, and what is written there.
    ticks: Vec<(f64, String)>,
    has_dots: bool,
}

/// The drawing. `attempts` are pairs of a number of attempts and the probability of a commit.
pub fn draw(name: &str, deadline: Span, prediction: &Prediction, attempts: &[(u32, f64)]) -> String {
    let curves = [against_deadline(deadline, prediction), against_attempts(attempts)];
    let width = 2.0 * (WIDTH + MARGIN) + MARGIN;
    let height = HEIGHT + 2.0 * MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<title>{name}: probability of commit</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let mut left = MARGIN;
    for curve in &curves {
        curve.draw(left, &mut text);
        left += WIDTH + MARGIN;
    }
    text.push_str("</svg>\n");
    text
}

/// On a logarithmic axis, from a tenth of the median to twice the larger of the deadline and what all but the last
/// need.
fn against_deadline(deadline: Span, prediction: &Prediction) -> Curve<'static> {
    let most = prediction.committed_by(Span::MAX);
    let reach = |part: f64| prediction.deadline_for(most * part).map_or(1, Span::as_ms).max(1);
    let (first_ms, last_ms) = (reach(0.5) / 10, reach(0.9999).max(deadline.as_ms()).saturating_mul(2));
    let (from, to) =
        (super::measure::float(first_ms.max(1)).ln(), super::measure::float(last_ms.max(2)).ln());
    let along = |span: Span| ((super::measure::ms(span).ln() - from) / (to - from)).clamp(0.0, 1.0);
    let span_at = |part: f64| {
        let at_ms = (from + (to - from) * part).exp().round();
        Span::from_ms(format!("{at_ms:.0}").parse().unwrap_or(1))
    };
    let points = (0..=POINTS).map(|point| {
        let part = f64::from(point) / f64::from(POINTS);
        (part, prediction.committed_by(span_at(part)))
    });
    let powers = (0..12).map(|power| Span::from_ms(10_u64.pow(power)));
    let is_inside = |span: &Span| (from..=to).contains(&super::measure::ms(*span).ln());
    let mut ticks: Vec<(f64, String)> =
        powers.filter(is_inside).map(|span| (along(span), span.to_string())).collect();
    ticks.push((along(deadline), format!("▲ {deadline}")));
    Curve { title: "probability of commit, by deadline", points: points.collect(), ticks, has_dots: false }
}

fn against_attempts(attempts: &[(u32, f64)]) -> Curve<'static> {
    let most = attempts.iter().map(|(count, _)| *count).max().unwrap_or(1);
    let along = |count: u32| f64::from(count) / f64::from(most.max(1));
    Curve {
        title: "probability of commit, by attempts of each step",
        points: attempts.iter().map(|(count, p)| (along(*count), *p)).collect(),
        ticks: attempts.iter().map(|(count, _)| (along(*count), count.to_string())).collect(),
        has_dots: true,
    }
}

impl Curve<'_> {
    fn draw(&self, left: f64, text: &mut String) {
        let bottom = MARGIN + HEIGHT;
        let x = |part: f64| left + WIDTH * part;
        let y = |p: f64| bottom - HEIGHT * p.clamp(0.0, 1.0);
        let mut line = |written: std::fmt::Arguments<'_>| {
            let written = writeln!(text, "{written}");
            debug_assert!(written.is_ok(), "writing to a String cannot fail");
        };
        line(format_args!(
            "<text x=\"{left}\" y=\"{}\" font-size=\"13\">{}</text>",
            MARGIN - 20.0,
            self.title
        ));
        for tenth in [0.0, 0.25, 0.5, 0.75, 1.0] {
            let at = y(tenth);
            line(format_args!(
                "<path d=\"M{left} {at:.1}h{WIDTH}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tenth}</text>",
                left - 6.0,
                at + 4.0
            ));
        }
        for (part, label) in &self.ticks {
            let below = if label.starts_with('▲') { 32.0 } else { 16.0 };
            line(format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                x(*part),
                bottom + below
            ));
        }
        let points: Vec<String> =
            self.points.iter().map(|(part, p)| format!("{:.1},{:.1}", x(*part), y(*p))).collect();
        line(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"2\"/>",
            points.join(" ")
        ));
        for (part, p) in self.points.iter().filter(|_| self.has_dots) {
            line(format_args!(
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"#1f5fa8\"/>",
                x(*part),
                y(*p)
            ));
        }
    }
}
