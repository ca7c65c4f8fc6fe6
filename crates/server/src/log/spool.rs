//! Rows on their way to Parquet: frames of length, CRC-32C and one Arrow IPC stream.

use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use refrain_experiments::schema::{SCHEMA_KEY, WRITER_KEY};

use super::Table;
use super::writer::ByArm;

/// Largest frame, in bytes.
const MAX_FRAME: usize = 256 << 20;

/// A spool that is being written.
#[derive(Debug)]
pub(super) struct Spool {
    pub(super) path: PathBuf,
    file: fs_err::File,
    pub(super) bytes: u64,
    pub(super) rows: u64,
}

impl Spool {
    pub(super) fn create(path: PathBuf) -> std::io::Result<Self> {
        Ok(Self {
            file: fs_err::File::create(&path)?,
            path,
            bytes: 0,
            rows: 0,
        })
    }

    /// Appends rows and brings them to disk. After an error the spool is as it was.
    pub(super) fn append(&mut self, batch: &RecordBatch) -> std::io::Result<()> {
        let frame = frame(batch)?;
        let written = self
            .file
            .write_all(&frame)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.file.set_len(self.bytes)?;
            self.file.seek(std::io::SeekFrom::Start(self.bytes))?;
            return Err(error);
        }
        self.bytes += frame.len() as u64;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }
}

fn frame(batch: &RecordBatch) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 8];
    let mut writer =
        StreamWriter::try_new(&mut frame, &batch.schema()).map_err(std::io::Error::other)?;
    writer.write(batch).map_err(std::io::Error::other)?;
    writer.finish().map_err(std::io::Error::other)?;
    drop(writer);
    let (head, payload) = frame.split_at_mut(8);
    let length = u32::try_from(payload.len()).map_err(std::io::Error::other)?;
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    Ok(frame)
}

/// The whole frames of a spool, one after the other; what is behind them was never flushed.
pub(super) struct Frames {
    file: fs_err::File,
    left: u64,
}

impl Frames {
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let file = fs_err::File::open(path)?;
        let left = file.metadata()?.len();
        Ok(Self { file, left })
    }

    fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut head = [0_u8; 8];
        if self.left < 8 {
            return Ok(None);
        }
        self.file.read_exact(&mut head)?;
        self.left -= 8;
        let [a, b, c, d, e, f, g, h] = head;
        let length = u64::from(u32::from_le_bytes([a, b, c, d]));
        let sum = u32::from_le_bytes([e, f, g, h]);
        if length > self.left || length > MAX_FRAME as u64 {
            return Ok(None);
        }
        self.left -= length;
        let mut payload = vec![0; usize::try_from(length).unwrap_or(MAX_FRAME)];
        self.file.read_exact(&mut payload)?;
        Ok((crc32c::crc32c(&payload) == sum).then_some(payload))
    }
}

/// Makes a Parquet file of a spool, with what its writer counted beside the rows in the footer; it appears
/// whole or not at all. Says how many rows it has.
pub(super) fn publish<T: Table>(
    spool: &Path,
    target: &Path,
    writer: &str,
    counted: &[(&'static str, ByArm)],
) -> std::io::Result<u64> {
    let folder = target.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder)?;
    let temporary = spool.with_file_name(format!(
        ".tmp-{}",
        target.file_name().unwrap_or_default().to_string_lossy()
    ));
    let key = |key: &str, value: &str| KeyValue::new(key.to_owned(), value.to_owned());
    let mut notes = vec![key(SCHEMA_KEY, T::SCHEMA), key(WRITER_KEY, writer)];
    for (name, counts) in counted {
        notes.push(key(name, &serde_json::to_string(counts)?));
    }
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(
            ZstdLevel::try_new(1).map_err(std::io::Error::other)?,
        ))
        .set_key_value_metadata(Some(notes))
        .build();
    let written = (|| {
        let file = fs_err::File::create(&temporary)?;
        let mut parquet = ArrowWriter::try_new(file, T::schema(), Some(properties))
            .map_err(std::io::Error::other)?;
        let mut frames = Frames::open(spool)?;
        let mut rows = 0;
        while let Some(payload) = frames.next()? {
            for batch in
                StreamReader::try_new(payload.as_slice(), None).map_err(std::io::Error::other)?
            {
                let batch = batch.map_err(std::io::Error::other)?;
                parquet.write(&batch).map_err(std::io::Error::other)?;
                rows += batch.num_rows() as u64;
            }
        }
        let file = parquet.into_inner().map_err(std::io::Error::other)?;
        file.sync_all()?;
        if rows > 0 {
            fs_err::rename(&temporary, target)?;
            fs_err::File::open(folder)?.sync_all()?;
        } else {
            fs_err::remove_file(&temporary)?;
        }
        Ok(rows)
    })();
    if written.is_err() {
        // Frees what it took of a full disk; the spool still has the rows.
        let _ = fs_err::remove_file(&temporary);
    }
    written
}
