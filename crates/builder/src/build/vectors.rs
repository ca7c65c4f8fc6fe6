//! Vectors from elsewhere: `.npy` and `.fvecs`, with ids one a line.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use refrain_bundle::items::MAX_ID_BYTES;

/// Most values of a vector.
pub const MAX_DIM: usize = 4096;

/// Vectors and their ids.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VectorSet {
    /// Values of a vector, 1 to [`MAX_DIM`].
    pub dim: usize,
    /// Row after row, finite.
    pub values: Vec<f32>,
    /// One a row, distinct.
    pub ids: Vec<String>,
}

/// Vectors or ids could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VectorsError {
    /// The system refused: the message has the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes break a rule of the format.
    #[error("{}: offset {offset}: {rule}", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// Where, in bytes.
        offset: u64,
        /// The rule.
        rule: &'static str,
    },
    /// An array of a kind that is not supported.
    #[error("{}: {what} {got:?} is not supported, only {supported}", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// What: "element type".
        what: &'static str,
        /// As the file has it.
        got: String,
        /// What is supported.
        supported: &'static str,
    },
    /// A value that is NaN or infinite.
    #[error("{}: row {row}, column {column}: {value} is not finite", file.display())]
    NotFinite {
        /// The file.
        file: PathBuf,
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
        /// The value.
        value: f32,
    },
    /// A line that is no id.
    #[error("{}: line {line}: {rule}", file.display())]
    Id {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// An id that occurs twice.
    #[error("{}: line {line}: id {id:?} was on line {first} already", file.display())]
    DuplicateId {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Where it was first.
        first: usize,
        /// The id.
        id: String,
    },
    /// Another number of ids than of vectors.
    #[error("{}: {ids} ids for {rows} vectors", file.display())]
    IdCount {
        /// The file with the ids.
        file: PathBuf,
        /// Its ids.
        ids: usize,
        /// The vectors.
        rows: usize,
    },
}

impl VectorSet {
    /// Reads vectors (`.npy` of `f4` or `f8`, or `.fvecs`, told apart by content) and their ids, one a
    /// line. Without a file of ids they are `0`, `1`, and so on.
    ///
    /// # Errors
    /// See [`VectorsError`].
    pub fn read(file: &Path, ids: Option<&Path>) -> Result<Self, VectorsError> {
        let bytes = fs_err::read(file)?;
        let parse = if bytes.starts_with(NPY_MAGIC) {
            parse_npy
        } else {
            parse_fvecs
        };
        let Array { dim, values } = parse(&bytes).map_err(|problem| problem.at(file))?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let (row, column, value) = (at / dim, at % dim, values[at]);
            return Err(VectorsError::NotFinite {
                file: file.to_owned(),
                row,
                column,
                value,
            });
        }
        let rows = values.len() / dim;
        let ids = match ids {
            None => (0..rows).map(|row| row.to_string()).collect(),
            Some(file) => read_ids(file, rows)?,
        };
        Ok(Self { dim, values, ids })
    }
}

const NPY_MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header of an array file that is read.
const MAX_NPY_HEADER: usize = 64 << 10;

/// Rows of `dim` values, `dim` at least 1.
#[derive(Debug)]
struct Array {
    dim: usize,
    values: Vec<f32>,
}

/// What is wrong, before the file's name is known.
#[derive(Debug)]
enum Problem {
    Format {
        offset: usize,
        rule: &'static str,
    },
    Unsupported {
        what: &'static str,
        got: String,
        supported: &'static str,
    },
}

impl Problem {
    fn at(self, file: &Path) -> VectorsError {
        let file = file.to_owned();
        match self {
            Problem::Format { offset, rule } => VectorsError::Format {
                file,
                offset: offset as u64,
                rule,
            },
            Problem::Unsupported {
                what,
                got,
                supported,
            } => VectorsError::Unsupported {
                file,
                what,
                got,
                supported,
            },
        }
    }
}

/// NumPy's format, versions 1 to 3: magic, version, header length, a Python dictionary, the values.
fn parse_npy(bytes: &[u8]) -> Result<Array, Problem> {
    let broken = |offset, rule| Problem::Format { offset, rule };
    let short = || broken(bytes.len(), "the file ends within its header");
    let (&[major, _], rest) = bytes
        .get(NPY_MAGIC.len()..)
        .and_then(<[u8]>::split_first_chunk)
        .ok_or_else(short)?;
    let (header_len, rest) = match major {
        1 => rest
            .split_first_chunk()
            .map(|(n, rest)| (usize::from(u16::from_le_bytes(*n)), rest)),
        2 | 3 => rest
            .split_first_chunk()
            .map(|(n, rest)| (u32::from_le_bytes(*n) as usize, rest)),
        _ => {
            let (what, got) = ("npy version", major.to_string());
            return Err(Problem::Unsupported {
                what,
                got,
                supported: "1 to 3",
            });
        }
    }
    .ok_or_else(short)?;
    if header_len > MAX_NPY_HEADER {
        return Err(broken(8, "the header has at most 65536 bytes"));
    }
    let (header, data) = rest.split_at_checked(header_len).ok_or_else(short)?;
    let start = bytes.len() - data.len();
    let header = std::str::from_utf8(header).map_err(|_| broken(8, "the header is text"))?;

    let field = |name: &str| {
        let (_, rest) = header.split_once(&format!("'{name}':"))?;
        Some(rest.trim_start())
    };
    let descr = field("descr").and_then(|rest| rest.strip_prefix('\'')?.split_once('\''));
    let (descr, _) = descr.ok_or(broken(10, "the header has a 'descr' of one type"))?;
    if !field("fortran_order").is_some_and(|rest| rest.starts_with("False")) {
        let got = "fortran (or unknown)".to_owned();
        return Err(Problem::Unsupported {
            what: "order",
            got,
            supported: "C order",
        });
    }
    let shape = field("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')'));
    let shape = shape.and_then(|(shape, _)| {
        let (rows, dim) = shape.split_once(',')?;
        Some((
            rows.trim().parse::<usize>().ok()?,
            dim.trim().trim_end_matches(',').parse().ok()?,
        ))
    });
    let (rows, dim) = shape.ok_or(broken(10, "the 'shape' is (rows, columns)"))?;
    let dim = checked_dim(dim, 10)?;
    let values: Vec<f32> = match descr {
        "<f4" => {
            checked_len(rows, dim, 4, data.len(), start)?;
            data.as_chunks()
                .0
                .iter()
                .map(|value| f32::from_le_bytes(*value))
                .collect()
        }
        "<f8" => {
            checked_len(rows, dim, 8, data.len(), start)?;
            data.as_chunks()
                .0
                .iter()
                .map(|value| narrow(f64::from_le_bytes(*value)))
                .collect()
        }
        other => {
            let (what, got) = ("element type", other.to_owned());
            return Err(Problem::Unsupported {
                what,
                got,
                supported: "'<f4' and '<f8'",
            });
        }
    };
    Ok(Array { dim, values })
}

/// Each row: its number of values (`i32`, the same in all rows), then the values (`f32`).
fn parse_fvecs(bytes: &[u8]) -> Result<Array, Problem> {
    let rule = "neither npy nor fvecs: a row begins with its number of values, 1 to 4096";
    let (dim, _) = bytes
        .split_first_chunk()
        .ok_or(Problem::Format { offset: 0, rule })?;
    let dim = usize::try_from(i32::from_le_bytes(*dim)).unwrap_or(0);
    let dim = checked_dim(dim, 0).map_err(|_| Problem::Format { offset: 0, rule })?;
    let row_len = 4 + dim * 4;
    let mut values = Vec::with_capacity(bytes.len() / row_len * dim);
    for (row, row_bytes) in bytes.chunks(row_len).enumerate() {
        let offset = row * row_len;
        let (words, _) = row_bytes.as_chunks::<4>();
        let Some((first, rest)) = words.split_first().filter(|_| row_bytes.len() == row_len) else {
            let rule = "the file ends within a row";
            return Err(Problem::Format {
                offset: bytes.len(),
                rule,
            });
        };
        if usize::try_from(i32::from_le_bytes(*first)) != Ok(dim) {
            let rule = "every row has as many values as the first";
            return Err(Problem::Format { offset, rule });
        }
        values.extend(rest.iter().map(|value| f32::from_le_bytes(*value)));
    }
    Ok(Array { dim, values })
}

fn checked_dim(dim: usize, offset: usize) -> Result<usize, Problem> {
    if (1..=MAX_DIM).contains(&dim) {
        return Ok(dim);
    }
    Err(Problem::Format {
        offset,
        rule: "vectors have 1 to 4096 values",
    })
}

fn checked_len(
    rows: usize,
    dim: usize,
    width: usize,
    got: usize,
    start: usize,
) -> Result<(), Problem> {
    let expected = rows
        .checked_mul(dim)
        .and_then(|values| values.checked_mul(width));
    if expected == Some(got) {
        return Ok(());
    }
    let offset = start + got;
    Err(Problem::Format {
        offset,
        rule: "the file is as long as its shape says",
    })
}

/// Out of the range of `f32` becomes infinite, which is refused with its place.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is what is asked for"
)]
fn narrow(value: f64) -> f32 {
    value as f32
}

fn read_ids(file: &Path, rows: usize) -> Result<Vec<String>, VectorsError> {
    let bytes = fs_err::read(file)?;
    let mut ids = Vec::with_capacity(rows);
    let mut lines: HashMap<&[u8], usize> = HashMap::with_capacity(rows);
    let body = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    for (at, line_bytes) in body.split(|&byte| byte == b'\n').enumerate() {
        let line = at + 1;
        let id_bytes = line_bytes.strip_suffix(b"\r").unwrap_or(line_bytes);
        let bad = |rule| VectorsError::Id {
            file: file.to_owned(),
            line,
            rule,
        };
        let id = std::str::from_utf8(id_bytes).map_err(|_| bad("an id is UTF-8"))?;
        if !(1..=MAX_ID_BYTES).contains(&id.len()) {
            return Err(bad("an id has 1 to 128 bytes"));
        }
        if let Some(first) = lines.insert(id_bytes, line) {
            let (file, id) = (file.to_owned(), id.to_owned());
            return Err(VectorsError::DuplicateId {
                file,
                line,
                first,
                id,
            });
        }
        ids.push(id.to_owned());
    }
    if ids.len() != rows {
        return Err(VectorsError::IdCount {
            file: file.to_owned(),
            ids: ids.len(),
            rows,
        });
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn npy(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = [NPY_MAGIC, &[version, 0]].concat();
        let len = u16::try_from(header.len()).unwrap();
        bytes.extend(len.to_le_bytes());
        if version > 1 {
            bytes.extend([0, 0]);
        }
        [&bytes, header.as_bytes(), data].concat()
    }

    fn header(descr: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n")
    }

    fn read(bytes: &[u8], ids: Option<&[u8]>) -> Result<VectorSet, VectorsError> {
        let dir = tempfile::tempdir().unwrap();
        let (vectors, names) = (dir.path().join("v"), dir.path().join("ids"));
        fs_err::write(&vectors, bytes).unwrap();
        fs_err::write(&names, ids.unwrap_or_default()).unwrap();
        VectorSet::read(&vectors, ids.map(|_| &*names))
    }

    fn complains(bytes: &[u8], ids: Option<&[u8]>, expect: &str) {
        let error = read(bytes, ids).unwrap_err().to_string();
        assert!(error.contains(expect), "{error:?} does not say {expect:?}");
    }

    #[test]
    fn npy_of_both_widths_and_all_versions() {
        let f4: Vec<u8> = [1f32, 2.0, 3.0, 4.0, 5.0, 6.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let f8: Vec<u8> = [1f64, 2.0, 3.0, 4.0, 5.0, 6.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        for version in 1..=3 {
            for (descr, data) in [("<f4", &f4), ("<f8", &f8)] {
                let set = read(&npy(version, &header(descr, "(3, 2)"), data), None).unwrap();
                assert_eq!(
                    (set.dim, &*set.values),
                    (2, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0][..])
                );
                assert_eq!(set.ids, ["0", "1", "2"]);
            }
        }
        let good = npy(1, &header("<f4", "(3, 2)"), &f4);
        complains(&good[..good.len() - 1], None, "as long as its shape");
        complains(&good[..20], None, "within its header");
        complains(
            &npy(1, &header("<i8", "(3, 2)"), &f4),
            None,
            "'<f4' and '<f8'",
        );
        complains(
            &npy(1, &header("<f4", "(6,)"), &f4),
            None,
            "(rows, columns)",
        );
        complains(
            &npy(1, &header("<f4", "(18446744073709551615, 2)"), &f4),
            None,
            "its shape says",
        );
        complains(&npy(1, &header("<f4", "(6, 0)"), &[]), None, "1 to 4096");
        complains(
            &npy(1, &header("<f4", "(3, 2)").replace("False", "True"), &f4),
            None,
            "order",
        );
        complains(
            &npy(9, &header("<f4", "(3, 2)"), &f4),
            None,
            "npy version \"9\"",
        );
        let nan: Vec<u8> = [1.0, 2.0, 3.0, f32::NAN]
            .iter()
            .flat_map(|v: &f32| v.to_le_bytes())
            .collect();
        complains(
            &npy(1, &header("<f4", "(2, 2)"), &nan),
            None,
            "row 1, column 1: NaN is not finite",
        );
        let huge = 1e300f64.to_le_bytes();
        complains(
            &npy(1, &header("<f8", "(1, 1)"), &huge),
            None,
            "row 0, column 0: inf",
        );
    }

    #[test]
    fn fvecs_and_ids() {
        let row = |dim: i32, values: [f32; 2]| {
            let values = values.iter().flat_map(|v| v.to_le_bytes());
            dim.to_le_bytes()
                .into_iter()
                .chain(values)
                .collect::<Vec<u8>>()
        };
        let good = [row(2, [1.0, 2.0]), row(2, [3.0, 4.0])].concat();
        let set = read(&good, Some("a\r\nü\n".as_bytes())).unwrap();
        assert_eq!((set.dim, &*set.values), (2, &[1.0, 2.0, 3.0, 4.0][..]));
        assert_eq!(set.ids, ["a", "ü"]);
        complains(
            &good[..good.len() - 2],
            None,
            "offset 22: the file ends within a row",
        );
        complains(
            &[row(2, [1.0, 2.0]), row(3, [3.0, 4.0])].concat(),
            None,
            "offset 12: every row",
        );
        complains(b"", None, "neither npy nor fvecs");
        complains(&row(-1, [0.0; 2]), None, "neither npy nor fvecs");
        complains(&good, Some(b"a"), "1 ids for 2 vectors");
        complains(
            &good,
            Some(b"a\na"),
            "line 2: id \"a\" was on line 1 already",
        );
        complains(&good, Some(b"a\n\n"), "line 2: an id has 1 to 128 bytes");
        complains(&good, Some(b"a\n\xff"), "line 2: an id is UTF-8");
        let gone = VectorSet::read(Path::new("no/such/file"), None)
            .unwrap_err()
            .to_string();
        assert!(gone.contains("no/such/file"), "{gone}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_vectors_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            version in 0..5u8,
            text in "\\{'descr': '<f[48]', 'fortran_order': False, 'shape': \\([0-9]{0,20}, ?[0-9]{0,20}\\)",
        ) {
            let _ = parse_fvecs(&bytes);
            let _ = parse_npy(&npy(version, &text, &bytes));
            let _ = parse_npy(&[NPY_MAGIC, &bytes].concat());
        }
    }
}
