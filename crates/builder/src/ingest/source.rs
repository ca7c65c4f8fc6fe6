//! Opening a file: what it is, told by its content, and its decompressed bytes.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::IngestError;

/// How much is looked at to recognise delimiter, header and columns.
const SAMPLE_BYTES: usize = 1 << 20;

/// A file, opened and recognised.
pub(crate) enum Source {
    /// Text, decompressed as it is read.
    Text(Text),
    /// Parquet, which is not read as a stream.
    Parquet(std::fs::File),
}

/// Decompressed text.
pub(crate) struct Text {
    pub(crate) compression: Compression,
    /// The first bytes, which `reader` will give again; without a byte order mark.
    pub(crate) sample: Vec<u8>,
    /// Whether `sample` is all there is.
    pub(crate) sample_is_all: bool,
    pub(crate) reader: Box<dyn BufRead + Send>,
    /// Bytes taken from disk so far, this file's and those of files before it.
    count: Arc<AtomicU64>,
}

impl Text {
    /// A sample as a text of its own.
    pub(crate) fn of_sample(sample: Vec<u8>) -> Self {
        Self {
            compression: Compression::None,
            sample: Vec::new(),
            sample_is_all: true,
            reader: Box::new(io::Cursor::new(sample)),
            count: Arc::default(),
        }
    }

    /// Has `reader` give what lies behind the first `bytes` of plain text alone.
    pub(crate) fn read_on(&mut self, path: &Path, bytes: u64) -> Result<(), IngestError> {
        let open_error = |source| IngestError::Open { source };
        let mut file = fs_err::File::open(path).map_err(open_error)?;
        file.seek(SeekFrom::Start(bytes)).map_err(open_error)?;
        // The sample was counted, and is part of what is passed over.
        let sampled = file
            .metadata()
            .map_err(open_error)?
            .len()
            .min(SAMPLE_BYTES as u64);
        self.count.fetch_sub(sampled, Ordering::Relaxed);
        self.count.fetch_add(bytes, Ordering::Relaxed);
        let rest = Counted {
            inner: file.into_parts().0,
            count: Arc::clone(&self.count),
        };
        self.reader = Box::new(BufReader::with_capacity(1 << 17, rest));
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Opens `path`; `bytes_read` counts the bytes taken from disk.
pub(crate) fn open(path: &Path, bytes_read: &Arc<AtomicU64>) -> Result<Source, IngestError> {
    let open_error = |source| IngestError::Open { source };
    let unsupported = |what| {
        Err(IngestError::Unsupported {
            path: path.to_owned(),
            what,
        })
    };
    let mut file = fs_err::File::open(path).map_err(open_error)?;
    if file.metadata().map_err(open_error)?.is_dir() {
        return unsupported("a directory");
    }
    let mut magic = Vec::with_capacity(8);
    file.by_ref()
        .take(8)
        .read_to_end(&mut magic)
        .map_err(open_error)?;
    file.rewind().map_err(open_error)?;

    let file = file.into_parts().0;
    if magic.starts_with(b"PAR1") {
        return Ok(Source::Parquet(file));
    }
    let counted = Counted {
        inner: file,
        count: Arc::clone(bytes_read),
    };
    let (compression, raw): (Compression, Box<dyn Read + Send>) = match magic.as_slice() {
        [] => {
            return Err(IngestError::Empty {
                path: path.to_owned(),
            });
        }
        [b'P', b'A', b'R', b'E', ..] => return unsupported("encrypted Parquet"),
        [0x1f, 0x8b, ..] => (
            Compression::Gzip,
            Box::new(flate2::bufread::MultiGzDecoder::new(
                BufReader::with_capacity(1 << 16, counted),
            )),
        ),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = zstd::Decoder::new(counted).map_err(open_error)?;
            (Compression::Zstd, Box::new(decoder))
        }
        [b'P', b'K', 3, 4, ..] => return unsupported("a zip archive"),
        [b'B', b'Z', b'h', ..] => return unsupported("bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => return unsupported("xz"),
        [b'O', b'R', b'C', ..] => return unsupported("ORC"),
        [b'O', b'b', b'j', 1, ..] => return unsupported("Avro"),
        _ => (Compression::None, Box::new(counted)),
    };
    sample(path, compression, raw, bytes_read).map(Source::Text)
}

fn sample(
    path: &Path,
    compression: Compression,
    mut raw: Box<dyn Read + Send>,
    count: &Arc<AtomicU64>,
) -> Result<Text, IngestError> {
    let mut sample = Vec::new();
    let outcome = raw
        .by_ref()
        .take(SAMPLE_BYTES as u64)
        .read_to_end(&mut sample);
    let unsupported = |what| {
        Err(IngestError::Unsupported {
            path: path.to_owned(),
            what,
        })
    };
    if sample.starts_with(&[0xff, 0xfe]) || sample.starts_with(&[0xfe, 0xff]) {
        return unsupported("UTF-16 text");
    }
    if sample.starts_with(b"PAR1") {
        return unsupported("compressed Parquet (it is compressed inside already)");
    }
    if sample.starts_with(&[0xef, 0xbb, 0xbf]) {
        sample.drain(..3);
    }
    if sample.is_empty() && outcome.is_ok() {
        return Err(IngestError::Empty {
            path: path.to_owned(),
        });
    }
    let sample_is_all = outcome.as_ref().is_ok_and(|&read| read < SAMPLE_BYTES);
    // A failure inside the sample is given again at its place, so that it is reported there.
    let rest: Box<dyn Read + Send> = match outcome {
        Ok(_) => raw,
        Err(error) => Box::new(Failing(Some(error))),
    };
    let reader = Box::new(BufReader::with_capacity(
        1 << 17,
        io::Cursor::new(sample.clone()).chain(rest),
    ));
    Ok(Text {
        compression,
        sample,
        sample_is_all,
        reader,
        count: Arc::clone(count),
    })
}

/// Counts the bytes that pass.
struct Counted {
    inner: std::fs::File,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Gives one error, then the end.
struct Failing(Option<io::Error>);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}
