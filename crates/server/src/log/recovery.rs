//! What a crash left of a log, brought in order at the next start: spools become files, and the
//! account says how many rows were lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use refrain_experiments::schema::{DROPPED_KEY, FAILED_KEY};
use serde::Serialize;

use super::Table;
use super::attempts::Attempts;
use super::spool::publish;
use super::writer::ByArm;

/// How a writer ended.
#[derive(Debug, Serialize)]
pub(super) struct Account {
    pub(super) log: &'static str,
    pub(super) writer: String,
    /// Rows that it was asked to write.
    pub(super) attempted: u64,
    /// Rows that are in its files.
    pub(super) written: u64,
    /// The rest: dropped, or not flushed when it died.
    pub(super) lost: u64,
    pub(super) crashed: bool,
}

impl Account {
    pub(super) fn append(&self, log: &Path) -> std::io::Result<()> {
        let mut line = serde_json::to_string(self).map_err(std::io::Error::other)?;
        line.push('\n');
        let mut file = fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log.join("loss.jsonl"))?;
        file.write_all(line.as_bytes())?;
        file.sync_all()
    }
}

/// Where a file of a writer goes.
pub(super) fn target(folder: &Path, writer: &str, file: u64, day: i32) -> PathBuf {
    let date = Date::constant(1970, 1, 1)
        .checked_add(jiff::Span::new().try_days(day).unwrap_or_default())
        .unwrap_or(Date::constant(1970, 1, 1));
    folder
        .join(date.to_string())
        .join(format!("{writer}-{file}.parquet"))
}

/// Brings a folder in order; says how many rows writers that died have lost.
pub(super) fn recover<T: Table>(log: &Path, folder: &Path) -> std::io::Result<u64> {
    let mut spools: BTreeMap<String, Vec<(u64, i32, PathBuf)>> = BTreeMap::new();
    let mut dead = BTreeSet::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with(".tmp-") {
            fs_err::remove_file(&path)?;
        } else if let Some(writer) = name.strip_prefix(".attempts-") {
            dead.insert(writer.to_owned());
        } else if let Some((writer, file, day)) = parse_spool(&name) {
            spools.entry(writer).or_default().push((file, day, path));
        }
    }
    // What it had counted died with it.
    let counted = [(DROPPED_KEY, ByArm::new()), (FAILED_KEY, ByArm::new())];
    for (writer, spools) in &spools {
        for (file, day, path) in spools {
            let target = target(folder, writer, *file, *day);
            if !target.exists() {
                publish::<T>(path, &target, writer, &counted)?;
            }
            fs_err::remove_file(path)?;
        }
    }
    let mut lost = 0;
    for writer in dead {
        let counter = folder.join(format!(".attempts-{writer}"));
        let attempted = Attempts::read(&counter)?;
        let written = rows_of(folder, &writer)?;
        let account = Account {
            log: T::FOLDER,
            writer,
            attempted,
            written,
            lost: attempted.saturating_sub(written),
            crashed: true,
        };
        account.append(log)?;
        lost += account.lost;
        tracing::warn!(
            log = T::FOLDER,
            writer = account.writer,
            attempted,
            written,
            lost = account.lost,
            "a writer of the log died"
        );
        fs_err::remove_file(&counter)?;
    }
    // Those of writers that are accounted for.
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(".removed-") {
            fs_err::remove_file(&path)?;
        }
    }
    Ok(lost)
}

/// `.spool-WRITER-FILE-DAY`.
fn parse_spool(name: &str) -> Option<(String, u64, i32)> {
    let rest = name.strip_prefix(".spool-")?;
    let (rest, day) = rest.rsplit_once('-')?;
    let (writer, file) = rest.rsplit_once('-')?;
    Some((writer.to_owned(), file.parse().ok()?, day.parse().ok()?))
}

/// Removes a finished file (`FOLDER/DAY/WRITER-FILE.parquet`), of which there is a copy elsewhere. Its
/// rows still count as written, should its writer die.
pub(super) fn forget(path: &Path) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (writer, _) = name.rsplit_once('-').unwrap_or((&name, ""));
    let day = path.parent().unwrap_or(Path::new("."));
    let folder = day.parent().unwrap_or(Path::new("."));
    if folder.join(format!(".attempts-{writer}")).exists() {
        let line = format!("{name} {}\n", rows_in(path)?);
        let mut file = fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join(format!(".removed-{writer}")))?;
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
    }
    fs_err::remove_file(path)?;
    // A day that is empty goes; one that is not stays.
    let _ = fs_err::remove_dir(day);
    Ok(())
}

/// Files of a writer that were removed, with their rows.
fn removed(folder: &Path, writer: &str) -> std::io::Result<BTreeMap<String, u64>> {
    let text = match fs_err::read_to_string(folder.join(format!(".removed-{writer}"))) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    // A last line that was cut short belongs to a file that is still there.
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let rows = lines.filter_map(|(name, rows)| Some((name.to_owned(), rows.parse().ok()?)));
    Ok(rows.collect())
}

fn rows_in(path: &Path) -> std::io::Result<u64> {
    let file = fs_err::File::open(path)?.into_file();
    let reader = refrain_tables::open(file).map_err(std::io::Error::other)?;
    let count = reader.metadata().file_metadata().num_rows();
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Rows in the finished files of a writer, by their footers, and in those that were removed.
fn rows_of(folder: &Path, writer: &str) -> std::io::Result<u64> {
    let mut removed = removed(folder, writer)?;
    let mut rows = 0;
    for day in fs_err::read_dir(folder)? {
        let day = day?.path();
        if !day.is_dir() {
            continue;
        }
        for entry in fs_err::read_dir(&day)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&format!("{writer}-")) && name.ends_with(".parquet") {
                rows += rows_in(&path)?;
                // It was about to be.
                removed.remove(&*name);
            }
        }
    }
    Ok(rows + removed.values().sum::<u64>())
}
