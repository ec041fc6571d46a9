//! Drawings of the rows, as SVG.

use std::error::Error;
use std::path::Path;

use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;

use crate::figures::{OURS, Row};
use crate::lab::Shape;
use crate::system::Durability;
use sagamore_bench::workload::Workload;

const SIZE: (u32, u32) = (760, 460);
const FONT: (&str, u32) = ("sans-serif", 14);
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 95, 168),
    RGBColor(200, 80, 40),
    RGBColor(60, 140, 70),
    RGBColor(130, 80, 160),
    RGBColor(120, 120, 120),
    RGBColor(190, 150, 30),
];

struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

struct Drawing {
    file: &'static str,
    title: &'static str,
    along: &'static str,
    up: &'static str,
    lines: Vec<Line>,
}

/// Writes those drawings for which there are at least two points in a line.
pub(crate) fn draw(folder: &Path, rows: &[Row]) -> Result<Vec<&'static str>, Box<dyn Error>> {
    let mut drawn = Vec::new();
    for drawing in [latency_against_rate(rows), rate_against_in_flight(rows), cost_against_records(rows)] {
        if drawing.lines.iter().map(|line| line.points.len()).sum::<usize>() < 2 {
            continue;
        }
        let svg = drawing.svg()?;
        std::fs::write(folder.join(drawing.file), svg)?;
        drawn.push(drawing.file);
    }
    Ok(drawn)
}

fn latency_against_rate(rows: &[Row]) -> Drawing {
    let line = |system: &'static str, figure: &'static str| {
        let points = rows.iter().filter(|row| row.system == system && is_order(row)).filter_map(|row| {
            let Shape::Open { rate_per_s } = row.point.shape else { return None };
            Some((f64::from(rate_per_s), row.median(figure)?))
        });
        let name = format!("{system} {}", figure.trim_end_matches("_ms"));
        Line { name, points: points.collect() }
    };
    Drawing {
        file: "latency-against-rate.svg",
        title: "Latency from the intended start, order saga",
        along: "offered, transactions/s",
        up: "ms",
        lines: vec![
            line(OURS, "p50_ms"),
            line(OURS, "p99_ms"),
            line(crate::figures::FLOOR, "p50_ms"),
            line(crate::figures::FLOOR, "p99_ms"),
        ],
    }
}

fn rate_against_in_flight(rows: &[Row]) -> Drawing {
    let mut lines: Vec<Line> = Vec::new();
    let classes = [Durability::C, Durability::P];
    for (system, class) in
        [OURS, crate::figures::FLOOR].into_iter().flat_map(|system| classes.map(|class| (system, class)))
    {
        for workload in [Workload::Order, Workload::TwoPhase, Workload::Mixed, Workload::Graph] {
            // The floor is the same whatever stands beside it.
            if system != OURS && workload != Workload::Order {
                continue;
            }
            let points = rows
                .iter()
                .filter(|row| {
                    row.system == system && row.point.workload == workload && row.point.durability == class
                })
                .filter_map(|row| {
                    let Shape::Closed { in_flight } = row.point.shape else { return None };
                    let in_flight = u32::try_from(in_flight).ok()?;
                    Some((f64::from(in_flight), row.median("rate_per_s")?))
                });
            let name = format!("{system} {} {}", workload.as_str(), class.as_str());
            lines.push(Line { name, points: points.collect() });
        }
    }
    Drawing {
        file: "rate-against-in-flight.svg",
        title: "Rate, closed loop",
        along: "in flight",
        up: "transactions/s",
        lines,
    }
}

fn cost_against_records(rows: &[Row]) -> Drawing {
    let parts = ["cpu_orchestrator_us", "cpu_participants_us", "cpu_driver_us", "cpu_broker_us"];
    let mut lines: Vec<Line> = Vec::new();
    for row in rows {
        let cost = parts.iter().filter_map(|part| row.median(part)).sum();
        let Some(records) = row.median("records") else { continue };
        let name = if row.system == OURS {
            format!("{OURS} {}", row.point.workload.as_str())
        } else {
            row.system.to_owned()
        };
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push((records, cost)),
            None => lines.push(Line { name, points: vec![(records, cost)] }),
        }
    }
    for line in &mut lines {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    Drawing {
        file: "cost-against-records.svg",
        title: "Processor time of everything against records",
        along: "records a transaction",
        up: "us a transaction",
        lines,
    }
}

fn is_order(row: &Row) -> bool {
    row.point.workload == Workload::Order && row.point.durability == Durability::C
}

/// Both axes are logarithmic: loads go over four orders of magnitude.
fn reach(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = values
        .filter(|value| *value > 0.0)
        .fold((f64::MAX, f64::MIN_POSITIVE), |(least, most), value| (least.min(value), most.max(value)));
    (least * 0.8, most * 1.25)
}

impl Drawing {
    fn svg(&self) -> Result<String, Box<dyn Error>> {
        let points = || self.lines.iter().flat_map(|line| line.points.iter());
        let (left, right) = reach(points().map(|point| point.0));
        let (bottom, top) = reach(points().map(|point| point.1));
        let mut text = String::new();
        {
            let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
            root.fill(&WHITE)?;
            let mut chart = ChartBuilder::on(&root)
                .caption(self.title, FONT)
                .margin(12)
                .x_label_area_size(44)
                .y_label_area_size(64)
                .build_cartesian_2d((left..right).log_scale(), (bottom..top).log_scale())?;
            chart
                .configure_mesh()
                .x_desc(self.along)
                .y_desc(self.up)
                .label_style(FONT)
                .x_label_formatter(&|value| short(*value))
                .y_label_formatter(&|value| short(*value))
                .draw()?;
            let lines = self.lines.iter().filter(|line| !line.points.is_empty());
            for (line, colour) in lines.zip(COLOURS.into_iter().cycle()) {
                chart
                    .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?
                    .label(&line.name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
                chart.draw_series(line.points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
            }
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperLeft)
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK.mix(0.3))
                .label_font(FONT)
                .draw()?;
            root.present()?;
        }
        Ok(text)
    }
}

fn short(value: f64) -> String {
    if value >= 1e3 { format!("{}k", value / 1e3) } else { format!("{value}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_has_its_lines_and_names() {
        let drawing = Drawing {
            file: "x.svg",
            title: "A title",
            along: "in flight",
            up: "rate",
            lines: vec![
                Line { name: "one".to_owned(), points: vec![(1.0, 200.0), (5_000.0, 7_000.0)] },
                Line { name: "nothing".to_owned(), points: Vec::new() },
            ],
        };
        let svg = drawing.svg().unwrap();
        for part in ["<svg", "A title", "in flight", ">\none", "<polyline", "<circle"] {
            assert!(svg.contains(part), "{part} is not in\n{svg}");
        }
        assert!(!svg.contains("nothing") && !svg.contains("NaN"), "{svg}");
    }
}
