//! Which events have arrived: what the pre-flight of an experiment asks of a replay.

use std::collections::BTreeSet;
use std::path::Path;

use arrow_array::cast::AsArray as _;
use parquet::arrow::ProjectionMask;

/// The names of all events in the finished files of a log's outcomes. O(rows).
///
/// # Errors
/// The log cannot be read, or a file of it is not one.
pub fn seen_events(log: &Path) -> std::io::Result<BTreeSet<String>> {
    let mut seen = BTreeSet::new();
    for day in fs_err::read_dir(log.join("outcomes"))? {
        let day = day?.path();
        if !day.is_dir() {
            continue;
        }
        for entry in fs_err::read_dir(&day)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "parquet")
            {
                read(&path, &mut seen)?;
            }
        }
    }
    Ok(seen)
}

fn read(path: &Path, seen: &mut BTreeSet<String>) -> std::io::Result<()> {
    let wrong = |error: String| std::io::Error::other(format!("{}: {error}", path.display()));
    let file = fs_err::File::open(path)?.into_file();
    let builder = refrain_tables::open(file).map_err(|error| wrong(error.to_string()))?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["event"]);
    let reader = refrain_tables::batches(builder.with_projection(mask))
        .map_err(|error| wrong(error.to_string()))?;
    for batch in reader {
        let batch = batch.map_err(|error| wrong(error.to_string()))?;
        let column = batch.column_by_name("event");
        let events = column.and_then(|column| column.as_string_opt::<i32>());
        let events = events.ok_or_else(|| wrong("has no text column `event`".to_owned()))?;
        seen.extend(events.iter().flatten().map(str::to_owned));
    }
    Ok(())
}
