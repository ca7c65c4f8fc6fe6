//! Files that appear whole or not at all, and stay after a power cut.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fs_err::File;

/// Writes a file under a temporary name beside `path`, syncs it, renames it to `path` and syncs the
/// directory. When `write` or any step fails, the temporary file is removed and `path` is untouched.
pub(crate) fn replace<T, E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<T, E>,
) -> Result<T, E> {
    let value = replace_unsynced(path, |file| {
        let value = write(file)?;
        file.sync_all()?;
        Ok::<_, E>(value)
    })?;
    sync_dir(parent(path))?;
    Ok(value)
}

/// As [`replace`], but nothing waits for the disk: whole or not at all to who looks, anything after a power cut.
pub(crate) fn replace_unsynced<T, E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<T, E>,
) -> Result<T, E> {
    let temporary = Temporary::beside(path);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&temporary.0)?;
    let value = write(&mut file)?;
    drop(file);
    fs_err::rename(&temporary.0, path)?;
    temporary.keep();
    Ok(value)
}

/// Removes a file, where it is there, and what writers of it that were killed left beside it.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    gone(fs_err::remove_file(path))?;
    remove_left(path, Duration::ZERO)
}

/// Removes what writers of a file left beside it that have written nothing for so long.
pub(crate) fn remove_left(path: &Path, silent: Duration) -> io::Result<()> {
    let left = format!("{}-", temporary_stem(&stem(path)));
    let dir = match fs_err::read_dir(parent(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        dir => dir?,
    };
    for entry in dir {
        let entry = entry?;
        // The clock may have gone back; then it is as good as new.
        let is_silent = || {
            let written = entry.metadata().and_then(|metadata| metadata.modified());
            let since = written.map(|written| written.elapsed().unwrap_or_default());
            since.is_ok_and(|since| since >= silent)
        };
        if entry.file_name().to_string_lossy().starts_with(&left) && is_silent() {
            gone(fs_err::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// [`replace`] with bytes at hand.
pub(crate) fn replace_with(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, |file| file.write_all(bytes))
}

/// Makes the entries of a directory durable: names created, renamed and removed in it.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a directory and its parents where they are not there, durably.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    create_dir(parent(dir))?;
    match fs_err::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        made => made?,
    }
    sync_dir(parent(dir))
}

/// The directory that holds `path`; `.` for a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// A name that no other process or thread uses: dot, the stem, the process, the time, a counter. In a
/// container every run is process 1: without the time, what a killed run left would be in the way.
pub(crate) fn unique_name(stem: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.as_nanos());
    format!(
        "{}-{}-{nanos:x}-{next}",
        temporary_stem(stem),
        std::process::id()
    )
}

fn temporary_stem(stem: &str) -> String {
    format!(".{stem}.tmp")
}

fn stem(path: &Path) -> Cow<'_, str> {
    path.file_name()
        .map_or_else(|| "file".into(), |name| name.to_string_lossy())
}

/// Removes the file on drop unless it was kept.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path) -> Self {
        Self(parent(path).join(unique_name(&stem(path))))
    }

    fn keep(mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            // Best effort: the error that brought us here is the one to report.
            let _ = fs_err::remove_file(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        replace_with(&path, b"old").unwrap();
        let failed = replace(&path, |file| {
            file.write_all(b"half")?;
            Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs_err::read(&path).unwrap(), b"old");
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_removed_file_takes_what_killed_writers_left_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let names = || {
            let entries = fs_err::read_dir(dir.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let path = dir.path().join("a");
        remove(&path).unwrap();
        replace_with(&path, b"whole").unwrap();
        replace_with(&dir.path().join("ab"), b"another").unwrap();
        // A process that is killed drops nothing.
        for of in ["a", "a", "ab"] {
            let left = Temporary::beside(&dir.path().join(of));
            fs_err::write(&left.0, b"half").unwrap();
            left.keep();
        }
        remove(&path).unwrap();
        let left = names();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(
            left.iter()
                .all(|name| name.to_string_lossy().contains("ab"))
        );
        remove(&dir.path().join("no/such/directory")).unwrap();
    }
}
