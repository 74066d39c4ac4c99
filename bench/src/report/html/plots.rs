//! Plots, as SVG.

use super::palette::Ink;
use crate::statistics::{Interval, Summary};
use anyhow::Result;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;

/// Two beside each other fill the page.
const WIDTH: u32 = 550;
const ROW: u32 = 26;
/// Below the rows, for the axis.
const AXIS: u32 = 28;
/// On all sides.
const MARGIN: u32 = 6;
/// Right of the rows, for the number that a row comes to.
const NUMBERS: u32 = 64;
/// A letter of a label, about.
const LETTER: u32 = 7;
/// For what is drawn in a row, whatever its label takes.
const DRAWN: u32 = 240;
const FONT: f64 = 15.0;

/// A row of a plot with a bar.
pub struct Bar {
    pub label: String,
    pub ink: Ink,
    pub value: f64,
    pub interval: Option<Interval>,
}

/// Bars from nothing up to a ratio, with the ratio of one marked.
pub fn bars(bars: &[Bar]) -> Result<String> {
    let most = bars.iter().map(|bar| bar.interval.map_or(bar.value, |interval| interval.high.max(bar.value)));
    let range = 0.0..most.fold(1.0, f64::max) * 1.04;
    let labels: Vec<_> = bars.iter().map(|bar| (bar.label.as_str(), format!("{:.2}", bar.value))).collect();
    rows(&labels, range, plain, |chart| {
        for (y, bar) in places(bars) {
            let fill = bar.ink.light().mix(0.8).filled();
            chart.draw_series([Rectangle::new([(0.0, y - 0.3), (bar.value, y + 0.3)], fill)])?;
            whisker(chart, y, bar.interval)?;
        }
        mark(chart, 1.0, bars.len())
    })
}

/// Changes in percent, with no change marked.
pub fn changes(changes: &[Bar]) -> Result<String> {
    let ends = |bar: &Bar| bar.interval.map_or([bar.value; 2], |interval| [interval.low, interval.high]);
    let ends = changes.iter().flat_map(ends);
    let most = ends.map(f64::abs).filter(|end| end.is_finite()).fold(1.0, f64::max) * 1.08;
    let labels: Vec<_> =
        changes.iter().map(|bar| (bar.label.as_str(), format!("{:+.1} %", bar.value))).collect();
    rows(
        &labels,
        -most..most,
        |value| format!("{value:+} %").replace("+0 %", "0"),
        |chart| {
            mark(chart, 0.0, changes.len())?;
            for (y, bar) in places(changes) {
                whisker(chart, y, bar.interval)?;
                chart.draw_series([Circle::new((bar.value, y), 4, bar.ink.light().filled())])?;
            }
            Ok(())
        },
    )
}

/// A row of a plot with all values of an arm.
pub struct Distribution {
    pub label: String,
    pub ink: Ink,
    pub values: Vec<f64>,
    pub summary: Option<Summary>,
}

/// Every value as a dot, over a box from p10 to p90 with the median in it.
pub fn distributions(arms: &[Distribution], number: fn(f64) -> String) -> Result<String> {
    let most = arms.iter().flat_map(|arm| &arm.values).fold(0.0_f64, |most, value| most.max(*value));
    let range = 0.0..if most > 0.0 { most * 1.04 } else { 1.0 };
    let label =
        |arm: &Distribution| arm.summary.map_or_else(|| "-".to_owned(), |summary| number(summary.median));
    let labels: Vec<_> = arms.iter().map(|arm| (arm.label.as_str(), label(arm))).collect();
    rows(&labels, range, plain, |chart| {
        for (y, arm) in places(arms) {
            let ink = arm.ink.light();
            if let Some(Summary { median, p10, p90, .. }) = arm.summary {
                chart.draw_series([Rectangle::new(
                    [(p10, y - 0.32), (p90, y + 0.32)],
                    ink.mix(0.22).filled(),
                )])?;
                let line = PathElement::new([(median, y - 0.38), (median, y + 0.38)], ink.stroke_width(2));
                chart.draw_series([line])?;
            }
            // In the order of the rounds from top to bottom, so that a drift shows.
            let step = 0.56 / arm.values.len().max(2) as f64;
            let dots = arm.values.iter().enumerate().map(|(at, value)| {
                Circle::new((*value, y + 0.28 - at as f64 * step), 2, ink.mix(0.65).filled())
            });
            chart.draw_series(dots)?;
        }
        Ok(())
    })
}

/// A line over size.
pub struct Line {
    pub label: String,
    pub ink: Ink,
    /// Sizes, and the values there.
    pub points: Vec<(f64, Summary)>,
}

/// Lines over size, which is on a logarithmic axis.
pub fn lines(lines: &[Line], of: &str) -> Result<String> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (least, most) = points().fold((f64::MAX, 1.0_f64), |(low, high), (x, _)| (low.min(*x), high.max(*x)));
    let highest = points().fold(0.0_f64, |highest, (_, summary)| highest.max(summary.p90));
    let legend = label_width(lines.iter().map(|line| line.label.as_str())) + 12;
    let whole = WIDTH.max(legend + DRAWN + 56);
    let height = (lines.len() as u32 * 18 + AXIS).max(300);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (whole, height)).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(MARGIN)
            .margin_right(legend)
            .x_label_area_size(AXIS + 14)
            .y_label_area_size(56)
            .build_cartesian_2d(
                (least * 0.8..most * 1.25).log_scale(),
                0.0..highest.max(f64::MIN_POSITIVE) * 1.06,
            )?;
        let sizes: Vec<f64> = sizes(points().map(|(x, _)| *x));
        chart
            .configure_mesh()
            .disable_x_mesh()
            .disable_x_axis()
            .light_line_style(TRANSPARENT)
            .bold_line_style(Ink::Line.light())
            .axis_style(Ink::Line.light())
            .label_style(text(Ink::Quiet))
            .y_label_formatter(&|value| plain(*value))
            .draw()?;
        // At the sizes that there are, as powers of ten in between were not measured.
        let style = text(Ink::Quiet).pos(Pos::new(HPos::Center, VPos::Top));
        for size in sizes {
            let (x, y) = chart.backend_coord(&(size, 0.0));
            root.draw(&Text::new(plain(size), (x, y + 8), style.clone()))?;
        }
        let (left, right) = (chart.backend_coord(&(least, 0.0)), chart.backend_coord(&(most, 0.0)));
        root.draw(&Text::new(of.to_owned(), ((left.0 + right.0) / 2, left.1 + 24), style))?;

        let mut ends = Vec::new();
        for line in lines {
            let ink = line.ink.light();
            let mut medians = line.points.iter().map(|(x, summary)| (*x, summary.median));
            chart.draw_series(LineSeries::new(medians.clone(), ink.stroke_width(2)))?;
            chart.draw_series(medians.clone().map(|point| Circle::new(point, 4, ink.filled())))?;
            let spread = line.points.iter();
            let spread =
                spread.map(|(x, summary)| PathElement::new([(*x, summary.p10), (*x, summary.p90)], ink));
            chart.draw_series(spread)?;
            if let Some(end) = medians.next_back() {
                ends.push((chart.backend_coord(&end), line));
            }
        }
        // Labels at the ends of the lines, apart from each other.
        ends.sort_by_key(|((_, y), _)| *y);
        let mut free = 0;
        for ((_, y), line) in ends {
            let y = y.max(free);
            free = y + 17;
            let style = text(line.ink).pos(Pos::new(HPos::Left, VPos::Center));
            root.draw(&Text::new(line.label.clone(), ((whole - legend) as i32 + 6, y), style))?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// Each size once, in order.
fn sizes(all: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sizes: Vec<f64> = all.collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    sizes
}

type Rows<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A plot with a row for each label, the first on top, and the text of its number on the right.
fn rows(
    labels: &[(&str, String)],
    range: Range<f64>,
    axis: impl Fn(f64) -> String,
    draw: impl FnOnce(&mut Rows<'_, '_>) -> Result<()>,
) -> Result<String> {
    let width = label_width(labels.iter().map(|(label, _)| *label));
    let whole = WIDTH.max(width + DRAWN + NUMBERS + MARGIN);
    let height = labels.len() as u32 * ROW + AXIS + 2 * MARGIN;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (whole, height)).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(MARGIN)
            .margin_right(NUMBERS)
            .x_label_area_size(AXIS)
            .y_label_area_size(width)
            .build_cartesian_2d(range.clone(), 0.0..labels.len() as f64)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_labels(5)
            .light_line_style(TRANSPARENT)
            .bold_line_style(Ink::Line.light())
            .axis_style(Ink::Line.light())
            .label_style(text(Ink::Quiet))
            .x_label_formatter(&|value| axis(rounded(*value)))
            .draw()?;
        draw(&mut chart)?;
        for (y, (label, number)) in places(labels) {
            let (left, y) = chart.backend_coord(&(range.start, y));
            write(&root, label, (left - 8, y), HPos::Right, Ink::Text)?;
            write(&root, number, ((whole - NUMBERS) as i32 + 8, y), HPos::Left, Ink::Text)?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// Rows with the height of their middle.
fn places<T>(rows: &[T]) -> impl Iterator<Item = (f64, &T)> {
    rows.iter().rev().enumerate().map(|(at, row)| (at as f64 + 0.5, row))
}

fn whisker(chart: &mut Rows<'_, '_>, y: f64, interval: Option<Interval>) -> Result<()> {
    let Some(Interval { low, high }) = interval else { return Ok(()) };
    let line = |from, to| PathElement::new([from, to], Ink::Text.light());
    let ends = [low, high].map(|x| line((x, y - 0.14), (x, y + 0.14)));
    chart.draw_series([line((low, y), (high, y))].into_iter().chain(ends))?;
    Ok(())
}

/// A line from the first row to the last.
fn mark(chart: &mut Rows<'_, '_>, x: f64, rows: usize) -> Result<()> {
    let line = [(x, 0.0), (x, rows as f64)];
    chart.draw_series(DashedLineSeries::new(line, 4, 3, Ink::Text.light().into()))?;
    Ok(())
}

fn write(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    words: &str,
    place: (i32, i32),
    side: HPos,
    ink: Ink,
) -> Result<()> {
    let style = text(ink).pos(Pos::new(side, VPos::Center));
    root.draw(&Text::new(words.to_owned(), place, style))?;
    Ok(())
}

fn text(ink: Ink) -> TextStyle<'static> {
    ("sans-serif", FONT).into_font().color(&ink.light())
}

fn label_width<'l>(labels: impl Iterator<Item = &'l str>) -> u32 {
    let longest = labels.map(|label| label.chars().count()).max().unwrap_or(0);
    longest as u32 * LETTER + 12
}

/// Without what a sum of steps leaves behind the point.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// A number of an axis, with separators of thousands.
fn plain(value: f64) -> String {
    let text = rounded(value).to_string();
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let grouped =
        whole.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect::<Vec<_>>().join(",");
    grouped + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_an_axis_are_plain() {
        assert_eq!(
            [0.0, 0.1 + 0.2, 1.0, 250.0, 1_000.0, 100_000.5].map(plain),
            ["0", "0.3", "1", "250", "1,000", "100,000.5"]
        );
    }

    #[test]
    fn rows_are_from_top_to_bottom() {
        let bar = |label: &str| Bar { label: label.to_owned(), ink: Ink::Ours, value: 2.0, interval: None };
        let svg = bars(&[bar("first"), bar("second")]).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let height = |label: &str| -> i32 {
            let node =
                document.descendants().find(|node| node.text().is_some_and(|text| text.trim() == label));
            node.unwrap().attribute("y").unwrap().parse().unwrap()
        };
        assert!(height("first") < height("second"));
    }

    #[test]
    fn plots_of_nothing_are_plots() {
        for svg in [bars(&[]), changes(&[]), distributions(&[], plain)] {
            assert!(roxmltree::Document::parse(&svg.unwrap()).is_ok());
        }
    }
}
