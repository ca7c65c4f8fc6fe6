//! Files: written whole or not at all.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file in the making, at a name of its own beside its place. Dropped before [`WholeFile::keep`], it
/// leaves nothing; a process that is killed leaves `.NAME.tmp-…`, which nothing reads.
#[derive(Debug)]
pub struct WholeFile {
    target: PathBuf,
    staging: PathBuf,
    file: Option<fs_err::File>,
}

impl WholeFile {
    /// Starts a file that will be at `target`.
    ///
    /// # Errors
    /// The staging file cannot be created; the message has the path.
    pub fn create(target: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = target.file_name().ok_or_else(|| {
            let text = format!("{}: is not the name of a file", target.display());
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        let mut staged = std::ffi::OsString::from(".");
        staged.push(name);
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        staged.push(format!(".tmp-{pid}-{number}"));
        let staging = target.with_file_name(staged);
        let file = Some(fs_err::File::create(&staging)?);
        Ok(Self {
            target: target.to_owned(),
            staging,
            file,
        })
    }

    /// A second handle to what is being written.
    ///
    /// # Errors
    /// The system has no more handles.
    pub fn handle(&self) -> io::Result<std::fs::File> {
        match &self.file {
            Some(file) => file.file().try_clone(),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Syncs the file and gives it its name, in place of one that has it.
    ///
    /// # Errors
    /// The file cannot be synced or renamed; then nothing of it is left.
    pub fn keep(mut self) -> io::Result<()> {
        if let Some(file) = self.file.take() {
            file.sync_all()?;
        }
        fs_err::rename(&self.staging, &self.target)?;
        let parent = match self.target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs_err::File::open(parent)?.sync_all()
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.file {
            Some(file) => file.write(bytes),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        // After a rename there is nothing at the staging name, and nothing to remove.
        let _ = fs_err::remove_file(&self.staging);
    }
}

/// Writes a file that appears whole or not at all.
///
/// # Errors
/// The message has the path.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = WholeFile::create(path)?;
    file.write_all(bytes)?;
    file.keep()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page.html");
        let mut dropped = WholeFile::create(&path).unwrap();
        dropped.write_all(b"half").unwrap();
        drop(dropped);
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
        write_whole(&path, b"one").unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"two");
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_whole(&dir.path().join("no/such/folder"), b"x").is_err());
    }
}
