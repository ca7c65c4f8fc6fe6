//! What the finished files of a log have seen: which events arrived, which asks the pre-flight of an
//! experiment, and which units are in one, which closes its intake.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt32Type;
use arrow_array::{RecordBatch, StringArray};
use parquet::arrow::ProjectionMask;

/// The names of all events in the finished files of a log's outcomes. O(rows).
///
/// # Errors
/// The log cannot be read, or a file of it is not one.
pub fn seen_events(log: &Path) -> std::io::Result<BTreeSet<String>> {
    let mut seen = BTreeSet::new();
    for path in files(&log.join("outcomes"))? {
        read(&path, &["event"], &mut |batch| {
            let events = text(batch, "event")?;
            seen.extend(events.iter().flatten().map(str::to_owned));
            Ok(())
        })?;
    }
    Ok(seen)
}

/// The units that were dealt to an arm of an experiment in an epoch, in the finished files of a log's
/// exposures: those of reason SPLIT, EXTERNAL, or DEGRADED where a fallback answered. O(rows), and the
/// units in memory.
///
/// # Errors
/// As [`seen_events`].
pub fn seen_units(log: &Path, experiment: &str, epoch: u32) -> std::io::Result<BTreeSet<String>> {
    let mut seen = BTreeSet::new();
    let columns = ["unit_id", "experiment", "exp_epoch", "reason"];
    for path in files(&log.join("exposures"))? {
        read(&path, &columns, &mut |batch| {
            let [units, experiments, reasons] = [
                text(batch, "unit_id")?,
                text(batch, "experiment")?,
                text(batch, "reason")?,
            ];
            let epochs = batch
                .column_by_name("exp_epoch")
                .and_then(|column| column.as_primitive_opt::<UInt32Type>())
                .ok_or("has no column `exp_epoch` of 32-bit numbers")?;
            let rows = units.iter().zip(experiments).zip(reasons).zip(epochs);
            for (((unit, of), reason), of_epoch) in rows {
                let dealt = matches!(reason, Some("SPLIT" | "EXTERNAL" | "DEGRADED"));
                if dealt && of == Some(experiment) && of_epoch == Some(epoch) {
                    let unit = unit.unwrap_or_default();
                    if !unit.is_empty() && !seen.contains(unit) {
                        seen.insert(unit.to_owned());
                    }
                }
            }
            Ok(())
        })?;
    }
    Ok(seen)
}

/// The Parquet files of a table: those of each day, and those beside the days.
fn files(table: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut take = |path: PathBuf| {
        if path.extension().is_some_and(|it| it == "parquet") {
            files.push(path);
        }
    };
    for entry in fs_err::read_dir(table)? {
        let path = entry?.path();
        if path.is_dir() {
            for entry in fs_err::read_dir(&path)? {
                take(entry?.path());
            }
        } else {
            take(path);
        }
    }
    Ok(files)
}

/// Gives the batches of a file to `take`, which says what is wrong with one.
fn read(
    path: &Path,
    columns: &[&str],
    take: &mut dyn FnMut(&RecordBatch) -> Result<(), String>,
) -> std::io::Result<()> {
    let wrong = |error: String| std::io::Error::other(format!("{}: {error}", path.display()));
    let file = fs_err::File::open(path)?.into_file();
    let builder = refrain_tables::open(file).map_err(|error| wrong(error.to_string()))?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    let reader = refrain_tables::batches(builder.with_projection(mask))
        .map_err(|error| wrong(error.to_string()))?;
    for batch in reader {
        let batch = batch.map_err(|error| wrong(error.to_string()))?;
        take(&batch).map_err(wrong)?;
    }
    Ok(())
}

fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray, String> {
    let column = batch.column_by_name(name);
    let text = column.and_then(|column| column.as_string_opt::<i32>());
    text.ok_or_else(|| format!("has no text column `{name}`"))
}
