//! Plots as inline SVG: the same input, the same bytes; readable without colour.

use std::fmt::Write as _;

use super::esc;

const WIDTH: f64 = 960.0;
/// Width of a digit or an average letter at 13 px, on the generous side: labels must not be clipped.
const LETTER: f64 = 7.6;

/// A row of a forest plot.
pub(super) struct Row {
    pub(super) label: String,
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// Where the margin lies, if there is one.
    pub(super) margin: Option<f64>,
    /// What stands at the right.
    pub(super) note: String,
    /// Decided: a filled marker; else a hollow one.
    pub(super) filled: bool,
}

/// Intervals above each other on one scale, with zero and margin lines.
pub(super) fn forest(title: &str, rows: &[Row], percent: bool) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.value.is_finite()).collect();
    if rows.is_empty() {
        return String::new();
    }
    let label = widest(rows.iter().map(|row| row.label.as_str())).min(300.0);
    let note = widest(rows.iter().map(|row| row.note.as_str())).min(260.0);
    let (left, right) = (label + 16.0, WIDTH - note - 16.0);
    let row_height = 30.0;
    let (top, bottom) = (8.0, 8.0 + row_height * number(rows.len()));
    let ends = rows
        .iter()
        .flat_map(|row| [row.value, row.low, row.high, 0.0, row.margin.unwrap_or(0.0)]);
    let scale = Scale::new(ends, left, right);
    let mut svg = open(title, bottom + 40.0);
    for tick in scale.ticks() {
        let x = scale.at(tick);
        let class = if tick == 0.0 { "zero" } else { "grid" };
        line(&mut svg, class, x, top, x, bottom);
        text(
            &mut svg,
            "soft",
            "middle",
            x,
            bottom + 18.0,
            &tick_label(tick, scale.step, percent),
        );
    }
    for (at, row) in rows.iter().enumerate() {
        let y = top + row_height * (number(at) + 0.5);
        text(
            &mut svg,
            "",
            "start",
            0.0,
            y + 4.5,
            &clip(&row.label, label),
        );
        text(
            &mut svg,
            "soft",
            "end",
            WIDTH,
            y + 4.5,
            &clip(&row.note, note),
        );
        if let Some(margin) = row.margin {
            let x = scale.at(margin);
            line(&mut svg, "margin", x, y - 13.0, x, y + 13.0);
        }
        let (low, high) = (scale.at(row.low), scale.at(row.high));
        line(&mut svg, "bar", low, y, high, y);
        for end in [low, high] {
            line(&mut svg, "bar", end, y - 5.0, end, y + 5.0);
        }
        let class = if row.filled { "dot" } else { "dot hollow" };
        let x = scale.at(row.value);
        let _ = write!(
            svg,
            r#"<rect class="{class}" x="{:.1}" y="{:.1}" width="10" height="10"/>"#,
            x - 5.0,
            y - 5.0
        );
    }
    svg.push_str("</svg>");
    svg
}

/// A point of a curve, with its interval where there is one.
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) band: Option<(f64, f64)>,
    /// Its interval along x: a bar of dots.
    pub(super) across: Option<(f64, f64)>,
}

impl Point {
    /// Without intervals.
    pub(super) fn bare(x: f64, y: f64) -> Self {
        Self {
            x,
            y,
            band: None,
            across: None,
        }
    }
}

/// How a curve looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// A line, and a band where points have intervals.
    Line,
    /// A second line, told apart without colour.
    Second,
    /// A boundary.
    Bound,
    /// Dots with bars.
    Dots,
}

/// A curve with its name.
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) look: Look,
    pub(super) points: Vec<Point>,
}

/// Curves over a common x. `ticks` are places on x and their names; without them x is labelled by
/// number.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) x_name: &'a str,
    pub(super) y_name: &'a str,
    pub(super) curves: Vec<Curve>,
    pub(super) ticks: Vec<(f64, String)>,
    pub(super) zero: bool,
    pub(super) percent: bool,
    /// Drawn in half the width of the page.
    pub(super) half: bool,
}

impl Chart<'_> {
    pub(super) fn draw(&self) -> String {
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        if points().count() < 2 {
            return String::new();
        }
        let width = if self.half { 470.0 } else { WIDTH };
        let named: Vec<&Curve> = self
            .curves
            .iter()
            .filter(|curve| !curve.name.is_empty())
            .collect();
        let legend_rows = if self.half {
            named.len()
        } else {
            usize::from(!named.is_empty())
        };
        let (top, height) = (
            30.0 + 20.0 * number(legend_rows),
            if self.half { 210.0 } else { 260.0 },
        );
        let bottom = top + height;
        let ys = points().flat_map(|p| {
            let (low, high) = p.band.unwrap_or((p.y, p.y));
            [p.y, low, high]
        });
        let y = Scale::new(ys.chain(self.zero.then_some(0.0)), bottom, top);
        let labels: Vec<String> = y
            .ticks()
            .into_iter()
            .map(|tick| tick_label(tick, y.step, self.percent))
            .collect();
        let left = widest(labels.iter().map(String::as_str)) + 14.0;
        let (min, max) = ends(points().flat_map(|p| {
            let (low, high) = p.across.unwrap_or((p.x, p.x));
            [low, p.x, high]
        }));
        let x = Scale {
            low: min,
            high: if max > min { max } else { min + 1.0 },
            from: left + 8.0,
            to: width - 24.0,
            step: 1.0,
        };
        let mut svg = open_wide(self.title, width, bottom + 46.0);
        text(&mut svg, "soft", "start", 0.0, 14.0, self.y_name);
        self.legend(&mut svg, &named, width);
        for (tick, name) in y.ticks().into_iter().zip(&labels) {
            let at = y.at(tick);
            line(
                &mut svg,
                if tick == 0.0 && self.zero {
                    "zero"
                } else {
                    "grid"
                },
                left,
                at,
                width - 16.0,
                at,
            );
            text(&mut svg, "soft", "end", left - 6.0, at + 4.0, name);
        }
        let mut last_end = f64::NEG_INFINITY;
        for (place, name) in &self.x_ticks(&x) {
            let at = x.at(*place);
            let half = LETTER * number(name.chars().count()) / 2.0;
            let centre = at.clamp(half, width - half);
            // A label that would touch the one before is left out.
            if centre - half < last_end + 10.0 {
                continue;
            }
            last_end = centre + half;
            line(&mut svg, "axis", at, bottom, at, bottom + 4.0);
            text(&mut svg, "soft", "middle", centre, bottom + 19.0, name);
        }
        text(
            &mut svg,
            "soft",
            "end",
            width - 16.0,
            bottom + 38.0,
            self.x_name,
        );
        line(&mut svg, "axis", left, bottom, width - 16.0, bottom);
        for curve in &self.curves {
            draw(&mut svg, curve, &x, &y);
        }
        svg.push_str("</svg>");
        svg
    }

    fn x_ticks(&self, x: &Scale) -> Vec<(f64, String)> {
        if !self.ticks.is_empty() {
            let keep = self.ticks.len().div_ceil(8);
            return self.ticks.iter().step_by(keep).cloned().collect();
        }
        let scale = Scale::new([x.low, x.high].into_iter(), x.from, x.to);
        scale
            .ticks()
            .into_iter()
            .filter(|tick| (x.low..=x.high).contains(tick))
            .map(|tick| (tick, tick_label(tick, scale.step, false)))
            .collect()
    }

    fn legend(&self, svg: &mut String, named: &[&Curve], width: f64) {
        let mut at = 0.0;
        for (row, curve) in named.iter().enumerate() {
            let y = if self.half {
                34.0 + 20.0 * number(row)
            } else {
                34.0
            };
            let x = if self.half { 0.0 } else { at };
            match curve.look {
                Look::Dots => {
                    let _ = write!(
                        svg,
                        r#"<rect class="dot" x="{:.1}" y="{:.1}" width="8" height="8"/>"#,
                        x + 8.0,
                        y - 8.0
                    );
                }
                look => line(svg, class(look), x, y - 4.0, x + 26.0, y - 4.0),
            }
            let room = width - x - 34.0;
            text(svg, "soft", "start", x + 34.0, y, &clip(&curve.name, room));
            at += 34.0 + LETTER * number(curve.name.chars().count()) + 24.0;
        }
    }
}

fn class(look: Look) -> &'static str {
    match look {
        Look::Line => "line",
        Look::Second => "line second",
        Look::Bound => "bound",
        Look::Dots => "bar",
    }
}

fn draw(svg: &mut String, curve: &Curve, x: &Scale, y: &Scale) {
    if curve.look == Look::Dots {
        for point in &curve.points {
            let (px, py) = (x.at(point.x), y.at(point.y));
            if let Some((low, high)) = point.band {
                line(svg, "bar", px, y.at(low), px, y.at(high));
            }
            if let Some((low, high)) = point.across {
                line(svg, "bar", x.at(low), py, x.at(high), py);
            }
            let _ = write!(
                svg,
                r#"<rect class="dot" x="{:.1}" y="{:.1}" width="8" height="8"/>"#,
                px - 4.0,
                py - 4.0
            );
        }
        return;
    }
    let banded: Vec<(f64, f64, f64)> = curve
        .points
        .iter()
        .filter_map(|p| p.band.map(|(low, high)| (x.at(p.x), y.at(low), y.at(high))))
        .collect();
    if banded.len() > 1 {
        let mut path = String::new();
        for (at, (x, _, high)) in banded.iter().enumerate() {
            let _ = write!(path, "{}{x:.1} {high:.1}", if at == 0 { "M" } else { "L" });
        }
        for (x, low, _) in banded.iter().rev() {
            let _ = write!(path, "L{x:.1} {low:.1}");
        }
        let _ = write!(svg, r#"<path class="band" d="{path}Z"/>"#);
    }
    let mut path = String::new();
    for (at, point) in curve.points.iter().enumerate() {
        let _ = write!(
            path,
            "{}{:.1} {:.1}",
            if at == 0 { "M" } else { "L" },
            x.at(point.x),
            y.at(point.y)
        );
    }
    let _ = write!(svg, r#"<path class="{}" d="{path}"/>"#, class(curve.look));
}

/// A linear scale with round ticks.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    step: f64,
}

impl Scale {
    fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = ends(values);
        if low >= high || !low.is_finite() || !high.is_finite() {
            (low, high) = (low - 1.0, high + 1.0);
        }
        let raw = (high - low) / 5.0;
        let power = 10_f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|s| s * power)
            .find(|s| *s >= raw)
            .unwrap_or(10.0 * power);
        Self {
            low: (low / step).floor() * step,
            high: (high / step).ceil() * step,
            from,
            to,
            step,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        self.from + share.clamp(-0.02, 1.02) * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        let mut at = 0.0;
        while at < 40.0 {
            let tick = ((self.low / self.step).round() + at) * self.step;
            if tick > self.high + self.step * 0.01 {
                break;
            }
            ticks.push(if tick.abs() < self.step * 1e-9 {
                0.0
            } else {
                tick
            });
            at += 1.0;
        }
        ticks
    }
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
            (low.min(v), high.max(v))
        })
}

fn tick_label(value: f64, step: f64, percent: bool) -> String {
    let (value, step) = if percent {
        (value * 100.0, step * 100.0)
    } else {
        (value, step)
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of decimals"
    )]
    let digits = (-(step * 0.999).log10().floor()).clamp(0.0, 9.0) as usize;
    // Steps of 2.5 need one more.
    let digits = if (step / 10_f64.powf(step.log10().floor()) - 2.5).abs() < 1e-9 {
        digits + 1
    } else {
        digits
    };
    let digits = if step >= 10.0 { 0 } else { digits };
    let text = format!("{value:.digits$}").replace('-', "−");
    if percent { format!("{text} %") } else { text }
}

fn open(title: &str, height: f64) -> String {
    open_wide(title, WIDTH, height)
}

fn open_wide(title: &str, width: f64, height: f64) -> String {
    format!(
        r#"<svg viewBox="0 0 {width:.0} {height:.0}" role="img" aria-label="{0}"><title>{0}</title>"#,
        esc(title)
    )
}

fn line(svg: &mut String, class: &str, x1: f64, y1: f64, x2: f64, y2: f64) {
    let _ = write!(
        svg,
        r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
    );
}

fn text(svg: &mut String, class: &str, anchor: &str, x: f64, y: f64, what: &str) {
    let _ = write!(
        svg,
        r#"<text class="{class}" text-anchor="{anchor}" x="{x:.1}" y="{y:.1}">{}</text>"#,
        esc(what)
    );
}

fn widest<'a>(texts: impl Iterator<Item = &'a str>) -> f64 {
    texts
        .map(|text| LETTER * number(text.chars().count()))
        .fold(0.0, f64::max)
}

/// As much of a label as fits.
fn clip(text: &str, width: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of letters"
    )]
    let room = (width / LETTER + 0.5).max(3.0) as usize;
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let mut clipped: String = text.chars().take(room - 1).collect();
    clipped.push('…');
    clipped
}

#[expect(clippy::cast_precision_loss, reason = "counts of things on a page")]
fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        let scale = Scale::new([-0.013, 0.047].into_iter(), 0.0, 100.0);
        let ticks = scale.ticks();
        assert!(ticks.contains(&0.0) && ticks.len() >= 4, "{ticks:?}");
        assert!(
            ticks[0] <= -0.013 && ticks[ticks.len() - 1] >= 0.047,
            "{ticks:?}"
        );
        assert_eq!(tick_label(0.025, 0.025, true), "2.5 %");
        assert_eq!(tick_label(-20.0, 10.0, false), "−20");
        assert_eq!(tick_label(0.05, 0.05, false), "0.05");
    }

    #[test]
    fn hostile_names_stay_text() {
        let row = Row {
            label: "<script>alert(1)</script>&\"".to_owned(),
            value: 0.1,
            low: 0.0,
            high: f64::INFINITY,
            margin: None,
            note: "'".to_owned(),
            filled: true,
        };
        let svg = forest("t", &[row], true);
        assert!(!svg.contains("<script"), "{svg}");
    }
}
