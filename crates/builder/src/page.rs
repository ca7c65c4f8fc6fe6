//! One self-contained HTML page: text, tables and plots as inline SVG. Nothing is fetched from elsewhere,
//! no script runs, and what comes from outside is escaped.

use std::fmt::Write as _;

/// A page in the making.
#[derive(Debug, Clone)]
pub struct Page {
    body: String,
    title: String,
}

/// A line of a plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// Points by ascending x.
    pub points: Vec<(f64, f64)>,
}

/// A value with its interval, for [`Page::intervals`].
#[derive(Debug, Clone, PartialEq)]
pub struct Interval {
    /// What it is of.
    pub name: String,
    /// Its lower end.
    pub low: f64,
    /// The value.
    pub value: f64,
    /// Its upper end.
    pub high: f64,
}

const COLOURS: [&str; 5] = ["#2a6f97", "#d1495b", "#66a182", "#edae49", "#5d576b"];
const WIDTH: f64 = 640.0;

impl Page {
    /// An empty page.
    #[must_use]
    pub fn new(title: &str) -> Self {
        Self {
            body: format!("<h1>{}</h1>\n", escape(title)),
            title: title.to_owned(),
        }
    }

    /// A heading.
    pub fn heading(&mut self, text: &str) {
        let _ = writeln!(self.body, "<h2>{}</h2>", escape(text));
    }

    /// A paragraph.
    pub fn text(&mut self, text: &str) {
        let _ = writeln!(self.body, "<p>{}</p>", escape(text));
    }

    /// A table; the first column is text, the others are numbers.
    pub fn table<R: AsRef<[String]>>(
        &mut self,
        header: &[&str],
        rows: impl IntoIterator<Item = R>,
    ) {
        self.body += "<table><thead><tr>";
        for name in header {
            let _ = write!(self.body, "<th>{}</th>", escape(name));
        }
        self.body += "</tr></thead><tbody>\n";
        for row in rows {
            self.body += "<tr>";
            for cell in row.as_ref() {
                let _ = write!(self.body, "<td>{}</td>", escape(cell));
            }
            self.body += "</tr>\n";
        }
        self.body += "</tbody></table>\n";
    }

    /// Horizontal bars from zero.
    pub fn bars(&mut self, caption: &str, bars: &[(String, f64)]) {
        let most = bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
        let height = 24.0 * bars.len() as f64 + 4.0;
        self.open(caption, height);
        for (at, (name, value)) in bars.iter().enumerate() {
            let y = 24.0 * at as f64;
            let length = if most > 0.0 {
                value.max(0.0) / most * 340.0
            } else {
                0.0
            };
            let _ = writeln!(
                self.body,
                "<text x=\"200\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"208\" y=\"{:.1}\" width=\"{length:.1}\" height=\"16\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{value:.4}</text>",
                y + 17.0,
                escape(name),
                y + 4.0,
                COLOURS[at % COLOURS.len()],
                214.0 + length,
                y + 17.0,
            );
        }
        self.close();
    }

    /// Values with their intervals around a line at zero.
    pub fn intervals(&mut self, caption: &str, intervals: &[Interval]) {
        let most = intervals
            .iter()
            .flat_map(|interval| [interval.low.abs(), interval.high.abs()])
            .fold(0.0, f64::max)
            .max(f64::MIN_POSITIVE);
        let x = |value: f64| 440.0 + value / most * 180.0;
        let height = 22.0 * intervals.len() as f64 + 22.0;
        self.open(caption, height);
        let _ = writeln!(
            self.body,
            "<line x1=\"440\" y1=\"0\" x2=\"440\" y2=\"{:.1}\" stroke=\"#999\" stroke-dasharray=\"3 3\"/>",
            height - 20.0
        );
        for (at, interval) in intervals.iter().enumerate() {
            let y = 22.0 * at as f64 + 11.0;
            let colour = if interval.high < 0.0 {
                COLOURS[1]
            } else if interval.low > 0.0 {
                COLOURS[2]
            } else {
                COLOURS[0]
            };
            let _ = writeln!(
                self.body,
                "<text x=\"246\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                 <line x1=\"{:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\" stroke-width=\"2\"/>\
                 <circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>",
                y + 4.0,
                escape(&interval.name),
                x(interval.low),
                x(interval.high),
                x(interval.value),
            );
        }
        for value in [-most, 0.0, most] {
            let _ = writeln!(
                self.body,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" class=\"s\">{value:+.4}</text>",
                x(value),
                height - 4.0
            );
        }
        self.close();
    }

    /// Lines over common axes. `diagonal` also draws where y equals x, over axes from 0 to 1.
    pub fn lines(
        &mut self,
        caption: &str,
        x_name: &str,
        y_name: &str,
        lines: &[Line],
        diagonal: bool,
    ) {
        let points = || lines.iter().flat_map(|line| &line.points).copied();
        let finite = |range: (f64, f64), value: f64| (range.0.min(value), range.1.max(value));
        let empty = (f64::INFINITY, f64::NEG_INFINITY);
        let (mut xs, mut ys) = if diagonal {
            ((0.0, 1.0), (0.0, 1.0))
        } else {
            (
                points().map(|point| point.0).fold(empty, finite),
                points().map(|point| point.1).fold(empty, finite),
            )
        };
        for range in [&mut xs, &mut ys] {
            if !(range.1 - range.0 > 0.0 && range.1.is_finite()) {
                *range = (range.0.min(0.0), range.0.max(0.0) + 1.0);
            }
            if !range.0.is_finite() {
                *range = (0.0, 1.0);
            }
        }
        let x = |value: f64| 64.0 + (value - xs.0) / (xs.1 - xs.0) * 420.0;
        let y = |value: f64| 236.0 - (value - ys.0) / (ys.1 - ys.0) * 220.0;
        self.open(caption, 280.0);
        self.body += "<rect x=\"64\" y=\"16\" width=\"420\" height=\"220\" fill=\"none\" stroke=\"#ccc\"/>\n";
        for part in 0..=4 {
            let share = f64::from(part) / 4.0;
            let (at_x, at_y) = (xs.0 + share * (xs.1 - xs.0), ys.0 + share * (ys.1 - ys.0));
            let _ = writeln!(
                self.body,
                "<text x=\"{:.1}\" y=\"252\" text-anchor=\"middle\" class=\"s\">{}</text>\
                 <text x=\"58\" y=\"{:.1}\" text-anchor=\"end\" class=\"s\">{}</text>",
                x(at_x),
                number(at_x),
                y(at_y) + 4.0,
                number(at_y),
            );
        }
        let _ = writeln!(
            self.body,
            "<text x=\"274\" y=\"272\" text-anchor=\"middle\">{}</text><text x=\"8\" y=\"10\">{}</text>",
            escape(x_name),
            escape(y_name)
        );
        if diagonal {
            let _ = writeln!(
                self.body,
                "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#999\" stroke-dasharray=\"3 3\"/>",
                x(0.0),
                y(0.0),
                x(1.0),
                y(1.0)
            );
        }
        for (at, line) in lines.iter().enumerate() {
            let colour = COLOURS[at % COLOURS.len()];
            let path: Vec<String> = line
                .points
                .iter()
                .filter(|point| point.0.is_finite() && point.1.is_finite())
                .map(|&(px, py)| format!("{:.1},{:.1}", x(px), y(py)))
                .collect();
            let _ = writeln!(
                self.body,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path.join(" ")
            );
            for point in &path {
                if let Some((px, py)) = point.split_once(',') {
                    let _ = write!(
                        self.body,
                        "<circle cx=\"{px}\" cy=\"{py}\" r=\"3\" fill=\"{colour}\"/>"
                    );
                }
            }
            let _ = writeln!(
                self.body,
                "<text x=\"496\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
                28.0 + 18.0 * at as f64,
                escape(&line.name)
            );
        }
        self.close();
    }

    /// The whole page.
    #[must_use]
    pub fn finish(self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{}</title>\n<style>\n{STYLE}</style>\
             </head><body>\n{}</body></html>\n",
            escape(&self.title),
            self.body
        )
    }

    fn open(&mut self, caption: &str, height: f64) {
        let _ = writeln!(
            self.body,
            "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" \
             height=\"{height:.0}\" role=\"img\">",
            escape(caption)
        );
    }

    fn close(&mut self) {
        self.body += "</svg></figure>\n";
    }
}

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:56rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child{text-align:left}
figure{margin:1.2rem 0}figcaption{font-weight:600}svg{max-width:100%;height:auto}
svg text{font:12px system-ui,sans-serif}svg text.s{font-size:10px;fill:#555}
";

/// Three digits, however large.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        1000.0.. => format!("{value:.0}"),
        10.0..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c if c.is_control() && c != '\n' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_text_and_every_element_is_closed() {
        let evil = "<script>\"'&\u{1}";
        let mut page = Page::new(evil);
        page.heading(evil);
        page.text(evil);
        page.table(&[evil], [[evil.to_owned()]]);
        page.bars(evil, &[(evil.to_owned(), f64::NAN), ("b".into(), 2.0)]);
        let interval = Interval {
            name: evil.to_owned(),
            low: -0.1,
            value: 0.0,
            high: 0.3,
        };
        page.intervals(evil, &[interval]);
        let line = Line {
            name: evil.to_owned(),
            points: vec![(1.0, 2.0), (f64::NAN, 1.0), (3.0, 2.0)],
        };
        page.lines(evil, evil, evil, &[line], false);
        page.lines("empty", "x", "y", &[], true);
        let html = page.finish();
        assert!(!html.contains("<script") && !html.contains('\u{1}'));
        assert!(!html.contains("NaN,"), "{html}");
        for tag in [
            "figure", "svg", "table", "tr", "td", "h2", "p", "text", "body",
        ] {
            let opened = html.matches(&format!("<{tag}>")).count()
                + html.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        assert!(!html.contains("http"), "nothing is fetched");
    }
}
