//! Recognising a text file by its first lines: delimiter, quotes, header, layout.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::IngestError;
use super::fields::{self, FieldSpec};
use super::options::{ColumnRef, Delimiter, Field, ReadOptions};
use super::value;

/// How a text file is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Dialect {
    pub(crate) delimiter: Delimiter,
    pub(crate) quotes: bool,
    /// Columns of most lines.
    pub(crate) width: usize,
    pub(crate) layout: Layout,
}

/// What a line is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Layout {
    /// A row of columns; without a header, which of them are what by their position and values.
    Columns {
        header: bool,
        usual: Vec<(Field, usize)>,
    },
    /// A user and the items they listened to.
    Adjacency,
}

impl Dialect {
    /// Whether repeated delimiters count as one.
    pub(crate) fn squeezes(&self) -> bool {
        self.delimiter == Delimiter::Space
    }
}

/// Lines looked at; the rest of the sample only tells whether fields are quoted.
const LINES: usize = 1000;

/// Recognises the dialect of a sample.
pub(crate) fn sniff(
    path: &Path,
    sample: &[u8],
    sample_is_all: bool,
    table: &[FieldSpec],
    options: &ReadOptions,
) -> Result<Dialect, IngestError> {
    let lines = lines(sample, sample_is_all);
    if lines.is_empty() && sample_is_all {
        return Err(IngestError::Empty {
            path: path.to_owned(),
        });
    }
    let head = &lines[..lines.len().min(LINES)];
    let single = table.len() == 1;
    let delimiter = match options.delimiter {
        Some(delimiter) => delimiter,
        None => delimiter(head)
            .or(single.then_some(Delimiter::Tab))
            .ok_or_else(|| {
                // One overlong line leaves nothing to look at; that is what is wrong then.
                if lines.is_empty() || head.iter().any(|line| line.len() > options.max_line_bytes) {
                    let limit = options.max_line_bytes;
                    IngestError::LineTooLong {
                        path: path.to_owned(),
                        line: 1,
                        limit,
                    }
                } else {
                    IngestError::Delimiter {
                        path: path.to_owned(),
                    }
                }
            })?,
    };
    let quotes = options.quotes.unwrap_or_else(|| quoted(&lines, delimiter));
    let split: Vec<Vec<&[u8]>> = head
        .iter()
        .map(|line| split(line, delimiter, quotes))
        .collect();
    let (width, share) = modal_width(&split, 1);

    let header = options
        .header
        .unwrap_or_else(|| is_header(&split, table, options));
    let ragged = share < 1.0 || width > 4;
    let lone_users_and_items = delimiter == Delimiter::Space && ragged && !header;
    let two_ids = matches!(table, [first, second, ..]
        if first.field == Field::User && second.field == Field::Item);
    if two_ids && options.adjacency.unwrap_or(lone_users_and_items) {
        return Ok(Dialect {
            delimiter,
            quotes,
            width,
            layout: Layout::Adjacency,
        });
    }
    let usual = if header {
        Vec::new()
    } else {
        usual_positions(&split, table, width)
    };
    Ok(Dialect {
        delimiter,
        quotes,
        width,
        layout: Layout::Columns { header, usual },
    })
}

/// The lines of the sample that are whole and not blank.
fn lines(sample: &[u8], sample_is_all: bool) -> Vec<&[u8]> {
    let whole = match sample.iter().rposition(|&byte| byte == b'\n') {
        Some(end) if !sample_is_all => &sample[..end],
        Some(_) => sample,
        None if sample_is_all => sample,
        None => &[],
    };
    let lines = whole.split(|&byte| byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter(|line| !line.trim_ascii().is_empty()).collect()
}

/// The delimiter that gives most lines the same number of columns; the first in order of
/// preference among those that do so for four lines of five. Space comes last and may be ragged.
fn delimiter(lines: &[&[u8]]) -> Option<Delimiter> {
    const SURE: f64 = 0.8;
    let share = |delimiter| {
        let split: Vec<_> = lines
            .iter()
            .map(|line| split(line, delimiter, true))
            .collect();
        modal_width(&split, 2).1
    };
    let shares: Vec<(Delimiter, f64)> = Delimiter::ALL
        .into_iter()
        .map(|delimiter| (delimiter, share(delimiter)))
        .collect();
    let sure = |delimiter| {
        shares
            .iter()
            .any(|(d, share)| *d == delimiter && *share >= SURE)
    };
    // A comma may be a decimal point between semicolons; the other way round nobody writes.
    if sure(Delimiter::Semicolon) && sure(Delimiter::Comma) && !sure(Delimiter::Tab) {
        let width = |delimiter| {
            let split: Vec<_> = lines
                .iter()
                .map(|line| split(line, delimiter, true))
                .collect();
            modal_width(&split, 2).0
        };
        if width(Delimiter::Semicolon) > width(Delimiter::Comma) {
            return Some(Delimiter::Semicolon);
        }
    }
    if let Some((delimiter, _)) = shares.iter().find(|(_, share)| *share >= SURE) {
        return Some(*delimiter);
    }
    let with_space = lines
        .iter()
        .filter(|line| line.trim_ascii().contains(&b' '))
        .count();
    let all_words = lines.iter().all(|line| {
        line.iter()
            .all(|byte| !matches!(byte, b'\t' | b',' | b';' | b'|'))
    });
    if all_words && with_space * 2 > lines.len() {
        return Some(Delimiter::Space);
    }
    let best = shares.into_iter().filter(|(_, share)| *share > 0.5);
    best.max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(delimiter, _)| delimiter)
}

/// The most frequent number of columns, of at least `least`, and the share of lines that have it.
fn modal_width(split: &[Vec<&[u8]>], least: usize) -> (usize, f64) {
    let mut widths: BTreeMap<usize, usize> = BTreeMap::new();
    for fields in split.iter().filter(|fields| fields.len() >= least) {
        *widths.entry(fields.len()).or_default() += 1;
    }
    let modal = widths
        .into_iter()
        .max_by_key(|&(width, lines)| (lines, width));
    #[expect(clippy::cast_precision_loss, reason = "at most a thousand lines")]
    modal.map_or((0, 0.0), |(width, lines)| {
        (width, lines as f64 / split.len() as f64)
    })
}

/// Whether a `"` at the beginning of a field quotes it. Tab and space separated text rarely
/// quotes, and names such as `"Weird Al" Yankovic` begin with one: there most lines must quote.
fn quoted(lines: &[&[u8]], delimiter: Delimiter) -> bool {
    let (mut proper, mut bare) = (0, 0);
    for line in lines {
        match quotes_of(line, delimiter.byte()) {
            Quotes::None => {}
            Quotes::Proper => proper += 1,
            Quotes::Bare => bare += 1,
        }
    }
    match delimiter {
        Delimiter::Tab | Delimiter::Space => bare == 0 && proper * 2 > lines.len(),
        Delimiter::Comma | Delimiter::Semicolon | Delimiter::Bar => bare == 0 || bare < proper,
    }
}

enum Quotes {
    None,
    /// Every field that begins with a quote ends with one, or goes on in the next line.
    Proper,
    /// A quote closes and text goes on.
    Bare,
}

fn quotes_of(line: &[u8], delimiter: u8) -> Quotes {
    let mut found = Quotes::None;
    let mut at = 0;
    while at < line.len() {
        if line[at] == b'"' {
            found = Quotes::Proper;
            at += 1;
            loop {
                match (line.get(at), line.get(at + 1)) {
                    (None, _) => return found,
                    (Some(b'"'), Some(b'"')) => at += 2,
                    (Some(b'"'), after) => {
                        if after.is_some_and(|&after| after != delimiter) {
                            return Quotes::Bare;
                        }
                        break;
                    }
                    (Some(_), _) => at += 1,
                }
            }
        }
        match line[at..].iter().position(|&byte| byte == delimiter) {
            Some(to_next) => at += to_next + 1,
            None => return found,
        }
    }
    found
}

/// The raw fields of a line; quotes only protect delimiters and are stripped when they are paired.
fn split(line: &[u8], delimiter: Delimiter, quotes: bool) -> Vec<&[u8]> {
    let byte = delimiter.byte();
    let mut fields = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (at, &here) in line.iter().enumerate() {
        if here == b'"' && quotes && (inside || at == start) {
            inside = !inside;
        } else if here == byte && !inside {
            fields.push(&line[start..at]);
            start = at + 1;
        }
    }
    fields.push(&line[start..]);
    if delimiter == Delimiter::Space {
        fields.retain(|field| !field.is_empty());
    }
    if quotes {
        for field in &mut fields {
            if let Some(inner) = field
                .strip_prefix(b"\"")
                .and_then(|f| f.strip_suffix(b"\""))
            {
                *field = inner;
            }
        }
    }
    fields
}

/// A header holds a known or asked for name and no number, or is all words above a column of
/// numbers.
fn is_header(split: &[Vec<&[u8]>], table: &[FieldSpec], options: &ReadOptions) -> bool {
    let Some(first) = split.first() else {
        return false;
    };
    if first.iter().any(|field| value::looks_like_number(field)) {
        return false;
    }
    let names: Vec<String> = first
        .iter()
        .map(|name| fields::normalised(&String::from_utf8_lossy(name)))
        .collect();
    let usual = table
        .iter()
        .flat_map(|spec| spec.names)
        .any(|usual| names.iter().any(|n| n == usual));
    let asked = options
        .columns
        .values()
        .any(|column| matches!(column, ColumnRef::Name(_)));
    let above_numbers = (0..first.len()).any(|column| {
        let mut below = split[1..]
            .iter()
            .filter_map(|fields| fields.get(column))
            .peekable();
        below.peek().is_some() && below.all(|field| value::looks_like_number(field))
    });
    usual || asked || above_numbers
}

/// Columns of a file without a header: the required ones in order, then the first column of each
/// kind that its values allow.
fn usual_positions(split: &[Vec<&[u8]>], table: &[FieldSpec], width: usize) -> Vec<(Field, usize)> {
    // Nobody and nothing is called by an instant: such a column is passed over.
    let is_name = |&column: &usize| {
        let values = split.iter().filter_map(|fields| fields.get(column));
        let (mut all, mut instants) = (0, 0);
        for value in values {
            all += 1;
            let instant = value::looks_like_time(value) && !value::looks_like_number(value);
            instants += usize::from(instant);
        }
        instants * 10 < all * 9
    };
    let required = table.iter().filter(|spec| spec.required);
    let mut usual: Vec<(Field, usize)> = required
        .zip((0..width).filter(is_name))
        .map(|(spec, column)| (spec.field, column))
        .collect();
    let has = |field| table.iter().any(|spec| spec.field == field);
    let taken: Vec<usize> = usual.iter().map(|&(_, column)| column).collect();
    for column in (0..width).filter(|column| !taken.contains(column)) {
        let mut values = split
            .iter()
            .filter(|fields| fields.len() == width)
            .filter_map(|fields| fields.get(column))
            .filter(|value| !value.trim_ascii().is_empty())
            .peekable();
        if values.peek().is_none() {
            continue;
        }
        // A bad row must not hide what the column is, so most values decide.
        let (mut all, mut times, mut numbers) = (0, 0, 0);
        for value in values {
            all += 1;
            times += usize::from(value::looks_like_time(value));
            numbers += usize::from(value::looks_like_number(value));
        }
        let most = |count: usize| count * 10 >= all * 9;
        let free = |field| has(field) && !usual.iter().any(|(taken, _)| *taken == field);
        if most(times) && free(Field::Time) {
            usual.push((Field::Time, column));
        } else if most(numbers) && free(Field::Count) {
            usual.push((Field::Count, column));
        } else if most(numbers) && free(Field::Strength) {
            usual.push((Field::Strength, column));
        }
    }
    usual
}
