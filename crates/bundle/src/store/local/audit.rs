//! The audit log: one JSON object a line, appended and synced.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::store::AuditLine;

const AUDIT: &str = "audit.jsonl";

/// Appends a line durably. The caller holds the store's lock.
pub(super) fn append(store: &Path, line: &AuditLine<'_>) -> io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let path = store.join(AUDIT);
    let mut file = fs_err::File::options()
        .create(true)
        .read(true)
        .append(true)
        .open(path)?;
    // A crash may have cut the last line short: leave the fragment on a line of its own.
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            text.insert(0, '\n');
        }
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_does_not_swallow_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(AUDIT);
        fs_err::write(&path, b"{\"time\":\"20").unwrap();
        let line = AuditLine::new(jiff::Timestamp::UNIX_EPOCH, "publish", "me\n", "v");
        append(dir.path(), &line).unwrap();
        append(dir.path(), &line).unwrap();
        let text = fs_err::read_to_string(&path).unwrap();
        let whole =
            r#"{"time":"1970-01-01T00:00:00Z","action":"publish","actor":"me\n","version":"v"}"#;
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            ["{\"time\":\"20", whole, whole]
        );
    }
}
