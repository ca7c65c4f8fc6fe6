//! Copies of finished files in an object store, and what becomes of the files here.
//!
//! What is there already is found by listing, by name and length: nothing has to be remembered over a
//! restart, and a file that another run left behind is brought up as well. An object appears whole, so a
//! copy is whole, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use refrain_bundle::store::{ObjectError, Objects};

use super::recovery;
use crate::metrics::LogMetrics;

/// Between two looks for finished files.
const PAUSE: Duration = Duration::from_secs(5);
/// Between two looks at most, while the store fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How long the last round of a server that ends may take beyond the file that is on its way.
const LAST: Duration = Duration::from_secs(10);

/// The thread that brings files up.
#[derive(Debug)]
pub(super) struct Uploader {
    stop: Sender<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Uploader {
    /// Starts bringing up what is finished below `log`, in `folders`. Files that are there and older than
    /// `keep` are removed here.
    pub(super) fn start(
        log: &Path,
        folders: Vec<&'static str>,
        objects: Arc<dyn Objects>,
        keep: Option<Duration>,
        metrics: &LogMetrics,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let rounds = Rounds {
            log: log.to_owned(),
            folders,
            objects,
            keep,
            metrics: metrics.clone(),
            done: BTreeSet::new(),
        };
        let thread = std::thread::Builder::new()
            .name("log-upload".to_owned())
            .spawn(move || rounds.run(&stopped))?;
        Ok(Self {
            stop,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// One more round, of bounded length, and the end. Blocks.
    pub(super) fn close(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && self.stop.send(()).is_ok()
            && thread.join().is_err()
        {
            tracing::error!("the upload of the log has panicked");
        }
    }
}

struct Rounds {
    log: PathBuf,
    folders: Vec<&'static str>,
    objects: Arc<dyn Objects>,
    keep: Option<Duration>,
    metrics: LogMetrics,
    /// Keys known to be there.
    done: BTreeSet<String>,
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error(transparent)]
    Here(#[from] std::io::Error),
    #[error(transparent)]
    There(#[from] ObjectError),
}

impl Rounds {
    fn run(mut self, stopped: &Receiver<()>) {
        let mut pause = PAUSE;
        loop {
            let ending = stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout);
            let deadline = ending.then(|| Instant::now() + LAST);
            match self.round(deadline) {
                Ok(()) => pause = PAUSE,
                Err(error) => {
                    self.metrics.upload_failures.inc();
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    tracing::warn!(%error, url = self.objects.url(), "a file of the log could not be brought up; it is tried again");
                }
            }
            if ending {
                return;
            }
        }
    }

    fn round(&mut self, deadline: Option<Instant>) -> Result<(), UploadError> {
        for folder in self.folders.clone() {
            for day in fs_err::read_dir(self.log.join(folder))? {
                let day = day?;
                if !day.file_type()?.is_dir() {
                    continue;
                }
                let prefix = format!("{folder}/{}/", day.file_name().to_string_lossy());
                self.day(&day.path(), &prefix, deadline)?;
            }
        }
        Ok(())
    }

    /// Brings up the files of a day that are not there.
    fn day(
        &mut self,
        day: &Path,
        prefix: &str,
        deadline: Option<Instant>,
    ) -> Result<(), UploadError> {
        let mut there: Option<BTreeMap<String, u64>> = None;
        for file in fs_err::read_dir(day)? {
            let path = file?.path();
            if path.extension().is_none_or(|end| end != "parquet") {
                continue;
            }
            let key = format!(
                "{prefix}{}",
                path.file_name().unwrap_or_default().to_string_lossy()
            );
            if !self.done.contains(&key) {
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    // The next server of this log brings it up.
                    return Ok(());
                }
                let there = match &mut there {
                    Some(there) => there,
                    none => none.insert(self.listed(prefix)?),
                };
                let mut source = fs_err::File::open(&path)?;
                if there.get(&key) != Some(&source.metadata()?.len()) {
                    self.objects.upload(&key, &mut source)?;
                    self.metrics.uploaded.inc();
                }
                self.done.insert(key.clone());
            }
            if self.expired(&path)? {
                recovery::forget(&path)?;
                self.done.remove(&key);
            }
        }
        Ok(())
    }

    fn listed(&self, prefix: &str) -> Result<BTreeMap<String, u64>, ObjectError> {
        let listed = self.objects.list(prefix)?;
        Ok(listed.into_iter().map(|at| (at.key, at.bytes)).collect())
    }

    fn expired(&self, path: &Path) -> std::io::Result<bool> {
        let Some(keep) = self.keep else {
            return Ok(false);
        };
        let modified = fs_err::metadata(path)?.modified()?;
        // A clock that was set back makes files young.
        let age = SystemTime::now().duration_since(modified);
        Ok(age.unwrap_or_default() >= keep)
    }
}
