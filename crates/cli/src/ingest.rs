//! Flags that say how files of listens and items are read, and reading them with a progress bar.

use std::path::{Path, PathBuf};

use refrain_builder::ingest::{
    self, Delimiter, Exclusions, IngestError, Items, Log, ReadOptions, ReadReport, Room, SortedLog,
};

use crate::failure::Failure;
use crate::output::{self, Output};

/// How files are read; everything is recognised by itself unless told.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Reading files")]
pub(crate) struct ReadArgs {
    /// Read this field of a listen from that column: a name, a position from 1, or none; repeat
    #[arg(long = "map", value_name = "FIELD=COLUMN")]
    map: Vec<String>,
    /// The same, delimiter and more from a TOML file
    #[arg(long, value_name = "FILE")]
    map_file: Option<PathBuf>,
    /// What separates columns: tab, comma, semicolon, bar or space [default: recognised]
    #[arg(long, value_name = "WORD")]
    delimiter: Option<Delimiter>,
    /// Whether the first line names the columns [default: recognised]
    #[arg(long, value_name = "BOOL")]
    header: Option<bool>,
    /// How many rows may be unreadable, over all files [default: 0]
    #[arg(long, value_name = "N")]
    max_bad_rows: Option<u64>,
}

/// What sorting listens may use.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SortArgs {
    /// Listens held in memory while they are sorted, in MiB; the others go to a file without a name beside
    /// --out, or where temporary files go. The result is the same with any number
    #[arg(long, value_name = "MIB", default_value_t = Room::BYTES as u64 >> 20,
          value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    memory: u64,
    /// Keep the listens sorted in this directory: next time, of files that were read before and have grown, or have more
    /// behind them, only what was added is read. The result is the same with or without
    #[arg(long, value_name = "DIR")]
    keep_listens: Option<PathBuf>,
}

impl SortArgs {
    /// Beside the output, if there is one: that is a disk with room, where the directory for temporary files may be
    /// memory.
    pub(crate) fn room(&self, out: Option<&Path>) -> Room {
        let dir = out.map_or_else(std::env::temp_dir, |out| {
            let mut beside = out.ancestors().skip(1).filter(|dir| dir.is_dir());
            beside
                .next()
                .map_or_else(|| PathBuf::from("."), PathBuf::from)
        });
        Room {
            // As many MiB as the address space has at most.
            bytes: usize::try_from(self.memory << 20).unwrap_or(usize::MAX),
            dir,
        }
    }
}

impl ReadArgs {
    /// The options for listens: the file of a mapping first, then the flags.
    pub(crate) fn options(&self) -> anyhow::Result<ReadOptions> {
        let mut options = match &self.map_file {
            Some(path) => ReadOptions::from_toml(path)?,
            None => ReadOptions::default(),
        };
        map_columns("--map", &self.map, &mut options)?;
        options.delimiter = self.delimiter.or(options.delimiter);
        options.header = self.header.or(options.header);
        options.max_bad_rows = self.max_bad_rows.unwrap_or(options.max_bad_rows);
        Ok(options)
    }

    /// The options for files that go with the listens: what was said of the columns, delimiter and header
    /// of listens does not hold for them.
    pub(crate) fn items_options(&self, map: &[String]) -> anyhow::Result<ReadOptions> {
        let mut options = ReadOptions::default();
        map_columns("--map-items", map, &mut options)?;
        options.max_bad_rows = self.max_bad_rows.unwrap_or(options.max_bad_rows);
        Ok(options)
    }
}

fn map_columns(flag: &str, map: &[String], options: &mut ReadOptions) -> anyhow::Result<()> {
    for argument in map {
        options.map_column(argument).map_err(|error| {
            anyhow::Error::new(error).context(Failure::usage(format!("{flag} {argument}")))
        })?;
    }
    Ok(())
}

/// Reads listens.
pub(crate) fn listens(
    paths: &[PathBuf],
    options: &ReadOptions,
    output: &Output,
) -> anyhow::Result<Log> {
    let log = {
        let progress = output.progress("read listens");
        ingest::read_listens(paths, options, &|done, total| progress.set(done, total))
            .map_err(|error| failure("cannot read the listens", error))?
    };
    tell(&log.report, output);
    Ok(log)
}

/// Reads listens sorted, in bounded memory, and keeps them for the next time where that is asked for.
pub(crate) fn sorted(
    paths: &[PathBuf],
    options: &ReadOptions,
    labelled: bool,
    (sort, room): (&SortArgs, Room),
    output: &Output,
) -> anyhow::Result<SortedLog> {
    let Some(dir) = &sort.keep_listens else {
        return sorted_once(paths, options, labelled, room, output);
    };
    let log = {
        let progress = output.progress("read listens");
        let told = |done, total| progress.set(done, total);
        ingest::read_kept(paths, options, labelled, room, dir, &told)
            .map_err(|error| failure("cannot read the listens", error))?
    };
    tell(log.report(), output);
    let before = output::count(log.report().rows_before);
    output.line(format_args!("{before} of the rows were read before"));
    Ok(log)
}

/// Reads listens sorted, in bounded memory, whatever is kept.
pub(crate) fn sorted_once(
    paths: &[PathBuf],
    options: &ReadOptions,
    labelled: bool,
    room: Room,
    output: &Output,
) -> anyhow::Result<SortedLog> {
    let log = {
        let progress = output.progress("read listens");
        let told = |done, total| progress.set(done, total);
        ingest::read_sorted(paths, options, labelled, room, &told)
            .map_err(|error| failure("cannot read the listens", error))?
    };
    tell(log.report(), output);
    Ok(log)
}

/// Reads what is known of items.
pub(crate) fn items(
    paths: &[PathBuf],
    options: &ReadOptions,
    output: &Output,
) -> anyhow::Result<Items> {
    if paths.is_empty() {
        return Ok(Items::default());
    }
    let (items, report) = {
        let progress = output.progress("read items");
        ingest::read_items(paths, options, &|done, total| progress.set(done, total))
            .map_err(|error| failure("cannot read the items", error))?
    };
    tell(&report, output);
    Ok(items)
}

/// Reads what listeners excluded.
pub(crate) fn exclusions(
    paths: &[PathBuf],
    options: &ReadOptions,
    output: &Output,
) -> anyhow::Result<Exclusions> {
    let (exclusions, report) = {
        let progress = output.progress("read exclusions");
        ingest::read_exclusions(paths, options, &|done, total| progress.set(done, total))
            .map_err(|error| failure("cannot read the exclusions", error))?
    };
    tell(&report, output);
    Ok(exclusions)
}

/// Tells what the files turned out to be, and which rows were bad.
fn tell(report: &ReadReport, output: &Output) {
    for file in &report.files {
        let columns: Vec<String> = file
            .columns
            .iter()
            .map(|(field, column)| format!("{field} from {}", output::clip(column, 40)))
            .collect();
        output.line(format_args!(
            "read {}: {} rows, {}, {}",
            file.path.display(),
            output::count(file.rows),
            file.format,
            columns.join(", ")
        ));
    }
    if report.zero_counts > 0 {
        output.line(format_args!(
            "{} rows with a count of 0 are no listens",
            output::count(report.zero_counts)
        ));
    }
    if report.bad_rows > 0 {
        output.note(format_args!(
            "{} bad rows left out:",
            output::count(report.bad_rows)
        ));
        for row in &report.first_bad {
            output.note(format_args!("  {}", output::clip(&row.to_string(), 200)));
        }
    }
}

fn failure(what: &str, error: IngestError) -> anyhow::Error {
    let next = match &error {
        IngestError::Open { .. } => "check the path",
        IngestError::Spill { .. } => "free disk space there, or allow more --memory",
        IngestError::Keep { .. } => "free disk space there, or leave --keep-listens out",
        IngestError::Truncated { .. } | IngestError::Corrupt { .. } => "fetch the file again",
        _ => {
            "--map FIELD=COLUMN names columns, --max-bad-rows N tolerates bad rows, --help says more"
        }
    };
    anyhow::Error::new(error).context(Failure::new(what).next(next))
}
