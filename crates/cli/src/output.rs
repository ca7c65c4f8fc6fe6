//! Everything that the program prints goes through here: one JSON document or text for people on
//! standard output, and progress, notes and errors on standard error.
//!
//! A reader that goes away (`refrain versions | head -1`) is not an error: what is left to print is
//! dropped, and the work that was asked for is still done. Any other failure to write standard
//! output is reported by [`Output::finish`].

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentLineStyle, LineStyle, Table, TableStyle};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Where a command's words go.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    documented: AtomicBool,
    stdout: Mutex<Stream>,
}

/// Standard output, and why nothing more can be written to it.
#[derive(Debug)]
enum Stream {
    Open,
    /// The reader went away.
    Closed,
    Failed(io::Error),
}

impl Output {
    /// Text for people, or one JSON document for programs.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            documented: AtomicBool::new(false),
            stdout: Mutex::new(Stream::Open),
        }
    }

    /// Prints a line for people: to standard output, or to standard error when that belongs to a
    /// JSON document.
    pub(crate) fn line(&self, text: impl Display) {
        if self.json {
            self.note(text)
        } else {
            self.write(format_args!("{text}\n"))
        }
    }

    /// Prints a table for people, where [`Output::line`] would print.
    pub(crate) fn table(&self, table: &Table) {
        self.line(table.trim_fmt());
    }

    /// Prints a line beside the result: always to standard error.
    pub(crate) fn note(&self, text: impl Display) {
        // Where standard error is gone, nobody is left to tell.
        drop(writeln!(io::stderr().lock(), "{text}"));
    }

    /// Prints the result: the document for programs, or whatever `people` prints.
    pub(crate) fn result(&self, document: &impl Serialize, people: impl FnOnce(&Self)) {
        if self.json {
            self.document(document)
        } else {
            people(self)
        }
    }

    /// Prints the JSON document of the command; nothing in text for people. A command has one: a
    /// second is dropped, which is what an error after the result must do.
    pub(crate) fn document(&self, document: &impl Serialize) {
        self.document_as(serde_json::to_string_pretty(document));
    }

    /// Prints the JSON document in one line and hands it out at once, for a command that stays up.
    pub(crate) fn document_line(&self, document: &impl Serialize) {
        self.document_as(serde_json::to_string(document));
        if let Err(error) = io::stdout().lock().flush() {
            self.fail(error);
        }
    }

    fn document_as(&self, text: serde_json::Result<String>) {
        if !self.json || self.documented.swap(true, Ordering::Relaxed) {
            return;
        }
        match text {
            Ok(text) => self.write(format_args!("{text}\n")),
            Err(error) => self.fail(io::Error::other(error)),
        }
    }

    /// Whether standard output belongs to a JSON document.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Shows progress on standard error while the value lives: a bar on a terminal, nothing
    /// elsewhere.
    pub(crate) fn progress(&self, what: &str) -> Progress {
        Progress::new(what)
    }

    /// Hands out what is buffered, and says whether all that was printed arrived.
    pub(crate) fn finish(&self) -> io::Result<()> {
        if matches!(*self.stream(), Stream::Open)
            && let Err(error) = io::stdout().lock().flush()
        {
            self.fail(error);
        }
        match std::mem::replace(&mut *self.stream(), Stream::Closed) {
            Stream::Failed(error) => Err(error),
            Stream::Open | Stream::Closed => Ok(()),
        }
    }

    fn write(&self, text: std::fmt::Arguments<'_>) {
        if matches!(*self.stream(), Stream::Open)
            && let Err(error) = io::stdout().lock().write_fmt(text)
        {
            self.fail(error);
        }
    }

    fn fail(&self, error: io::Error) {
        *self.stream() = match error.kind() {
            io::ErrorKind::BrokenPipe => Stream::Closed,
            _ => Stream::Failed(error),
        };
    }

    fn stream(&self) -> std::sync::MutexGuard<'_, Stream> {
        self.stdout
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A progress bar; gone when dropped.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    fn new(what: &str) -> Self {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target)
            .with_message(what.to_owned())
            .with_style(style("{spinner} {msg} {human_pos} [{elapsed_precise}]"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// `done` of `total`; a total of 0 is unknown.
    pub(crate) fn set(&self, done: u64, total: u64) {
        if total > 0 && self.0.length() != Some(total) {
            self.0.set_length(total);
            self.0.set_style(style(
                "{spinner} {msg} [{bar:32}] {human_pos}/{human_len} [{elapsed_precise}, {eta} left]",
            ));
        }
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// No borders, a rule under the header: reads well in a terminal, a log and a pipe.
const STYLE: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none())
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .content_lines(ContentLineStyle::none());

/// How a column of [`table`] is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// Words, to the left.
    Text(&'static str),
    /// Numbers, to the right.
    Number(&'static str),
}

/// A table with these columns and no rows yet.
pub(crate) fn table(columns: &[Column]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_header(columns.iter().map(|column| match column {
        Column::Text(name) | Column::Number(name) => *name,
    }));
    for (at, column) in columns.iter().enumerate() {
        if let (Column::Number(_), Some(cells)) = (column, table.column_mut(at)) {
            cells.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A number with its thousands set apart: `17,632`.
pub(crate) fn count(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A length of time for people: `312 µs`, `4.20 s`, `3 min 05 s`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.001 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 0.1 {
        format!("{:.1} ms", seconds * 1e3)
    } else if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 60.0 {
        format!("{seconds:.2} s")
    } else if seconds < 3600.0 {
        format!("{} min {:02} s", time.as_secs() / 60, time.as_secs() % 60)
    } else {
        format!(
            "{} h {:02} min",
            time.as_secs() / 3600,
            time.as_secs() / 60 % 60
        )
    }
}

/// A size for people: `812 B`, `3.4 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut size = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    format!("{size:.1} {unit}")
}

/// An instant for people, and how long ago it was: `2026-11-22 19:45:00 UTC (3 min ago)`.
pub(crate) fn instant(at: jiff::Timestamp) -> String {
    let utc = at.strftime("%Y-%m-%d %H:%M:%S UTC");
    let seconds = jiff::Timestamp::now()
        .as_second()
        .saturating_sub(at.as_second());
    match seconds {
        ..0 => utc.to_string(),
        0..60 => format!("{utc} ({seconds} s ago)"),
        60..3_600 => format!("{utc} ({} min ago)", seconds / 60),
        3_600..86_400 => format!("{utc} ({} h ago)", seconds / 3_600),
        _ => format!("{utc} ({} days ago)", seconds / 86_400),
    }
}

/// At most `width` characters of a text from outside, with an ellipsis where some are left out and
/// without control characters, which could rewrite the terminal.
pub(crate) fn clip(text: &str, width: usize) -> String {
    let mut clean = text
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let mut clipped: String = clean.by_ref().take(width).collect();
    if clean.next().is_some() {
        clipped.pop();
        clipped.push('…');
    }
    clipped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0_u32, "0"),
            (7, "7"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345, "12,345"),
            (4_294_967_295, "4,294,967,295"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn durations_and_sizes_pick_their_unit() {
        let time = |seconds| duration(Duration::from_secs_f64(seconds));
        assert_eq!(time(0.000_312), "312 µs");
        assert_eq!(time(0.012_34), "12.3 ms");
        assert_eq!(time(0.5), "500 ms");
        assert_eq!(time(4.2), "4.20 s");
        assert_eq!(time(185.0), "3 min 05 s");
        assert_eq!(time(7_260.0), "2 h 01 min");
        assert_eq!(bytes(812), "812 B");
        assert_eq!(bytes(3_565_158), "3.4 MiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn text_from_outside_is_clipped_by_character_and_cleaned() {
        assert_eq!(clip("Sigur Rós", 40), "Sigur Rós");
        assert_eq!(clip("ééééé", 3), "éé…");
        assert_eq!(clip("a\x1b[2Jb", 40), "a\u{fffd}[2Jb");
    }
}
