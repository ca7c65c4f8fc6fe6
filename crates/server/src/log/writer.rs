//! A log: rows go into its queue, the thread behind it makes files of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use refrain_experiments::schema::{DROPPED_KEY, FAILED_KEY};
use tokio::sync::oneshot;

use super::attempts::Attempts;
use super::queue::{Done, Queue};
use super::spool::{Spool, publish};
use super::{LogConfig, Table, day_of, recovery};
use crate::metrics::LogMetrics;

/// Most rows of one frame: what takes the writer some milliseconds, after which it lets another thread run.
const BATCH: usize = 1_024;
/// So many rows that wait call the writer before its time.
const CALL: usize = 4 * BATCH;
/// How often a failing disk is told of in the log.
const COMPLAINT: Duration = Duration::from_secs(10);

/// A log: rows go in without waiting, files come out.
#[derive(Debug)]
pub(crate) struct Log<T: Table> {
    queue: Arc<Queue<T>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    seq: AtomicU64,
    attempts: Attempts,
    /// Rows dropped since the last file.
    dropped: Counted,
    /// Requests that failed since the last file, and so have no row.
    failed: Counted,
    metrics: LogMetrics,
}

impl<T: Table> Log<T> {
    pub(super) fn open(
        config: &LogConfig,
        log: &Path,
        metrics: &LogMetrics,
    ) -> std::io::Result<Self> {
        let folder = log.join(T::FOLDER);
        fs_err::create_dir_all(&folder)?;
        let lost = recovery::recover::<T>(log, &folder)?;
        metrics.lost.inc_by(lost);
        let writer = format!("{:016x}{:08x}", crate::clock::now_us(), std::process::id());
        let shared = Arc::new(Shared {
            seq: AtomicU64::new(0),
            attempts: Attempts::create(&folder.join(format!(".attempts-{writer}")))?,
            dropped: Counted::default(),
            failed: Counted::default(),
            metrics: metrics.clone(),
        });
        let queue = Arc::new(Queue::new(config.queue_rows, CALL));
        let writer = Writer {
            config: config.clone(),
            log: log.to_owned(),
            folder,
            writer,
            files: 0,
            spool: None,
            next_complaint: Instant::now(),
            written: 0,
            shared: Arc::clone(&shared),
            queue: Arc::clone(&queue),
        };
        let thread = std::thread::Builder::new()
            .name(T::FOLDER.to_owned())
            .spawn(move || writer.run())?;
        Ok(Self {
            queue,
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Takes a row, or drops and counts it. Never waits for the disk.
    pub(crate) fn record(&self, mut row: T) {
        row.stamp(self.shared.seq.fetch_add(1, Ordering::Relaxed));
        self.shared.attempts.count(1);
        if let Err(row) = self.queue.put(row) {
            self.shared.drop_rows(&[row]);
        }
    }

    /// Takes rows and answers when they are on disk. `None`: the queue is full.
    pub(crate) fn commit(&self, mut rows: Vec<T>) -> Option<oneshot::Receiver<Result<(), String>>> {
        for row in &mut rows {
            row.stamp(self.shared.seq.fetch_add(1, Ordering::Relaxed));
        }
        self.shared.attempts.count(rows.len() as u64);
        let (done, wait) = oneshot::channel();
        match self.queue.put_and_wait(rows, done) {
            Ok(()) => Some(wait),
            Err(rows) => {
                self.shared.drop_rows(&rows);
                None
            }
        }
    }

    /// Takes note of a request that has no row because it failed by the server's fault, for each
    /// experiment and arm that it was of. The next file tells it.
    pub(crate) fn failed<'a>(&self, arms: impl Iterator<Item = (&'a str, &'a str)>) {
        self.shared.failed.count(arms);
    }

    /// Writes what waits, closes the file and ends the thread. Blocks.
    pub(super) fn close(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.queue.stop();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(log = T::FOLDER, "the writer of the log has panicked");
        }
    }
}

impl Shared {
    fn drop_rows<T: Table>(&self, rows: &[T]) {
        self.metrics.dropped.inc_by(rows.len() as u64);
        self.dropped.count(rows.iter().map(T::arm));
    }
}

/// Counts by experiment and arm.
pub(super) type ByArm = BTreeMap<String, BTreeMap<String, u64>>;

/// What the next file tells beside its rows.
#[derive(Debug, Default)]
struct Counted(Mutex<ByArm>);

impl Counted {
    fn count<'a>(&self, arms: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (experiment, arm) in arms {
            let arms = counts.entry(experiment.to_owned()).or_default();
            *arms.entry(arm.to_owned()).or_default() += 1;
        }
    }

    fn take(&self) -> ByArm {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn give_back(&self, back: ByArm) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (experiment, arms) in back {
            let into = counts.entry(experiment).or_default();
            for (arm, count) in arms {
                *into.entry(arm).or_default() += count;
            }
        }
    }
}

struct Writer<T: Table> {
    config: LogConfig,
    log: PathBuf,
    folder: PathBuf,
    writer: String,
    files: u64,
    spool: Option<Open>,
    next_complaint: Instant,
    written: u64,
    shared: Arc<Shared>,
    queue: Arc<Queue<T>>,
}

struct Open {
    spool: Spool,
    since: Instant,
    day: i32,
}

impl<T: Table> Writer<T> {
    fn run(mut self) {
        loop {
            let found = self.queue.take(self.patience());
            self.flush(&found.rows, found.done);
            let full = self.spool.as_ref().is_some_and(|open| {
                open.spool.bytes >= self.config.roll_bytes
                    || open.since.elapsed().as_secs() >= self.config.roll_seconds
            });
            if found.stop || full {
                self.roll();
            }
            if found.stop {
                self.finish();
                return;
            }
        }
    }

    /// How long rows may wait, and the file that is open.
    fn patience(&self) -> Duration {
        let roll = self.spool.as_ref().map(|open| {
            Duration::from_secs(self.config.roll_seconds).saturating_sub(open.since.elapsed())
        });
        let flush = self.config.flush_interval();
        roll.map_or(flush, |roll| flush.min(roll))
            .max(Duration::from_millis(1))
    }

    /// Brings rows to disk, frame by frame, and tells those who wait for it.
    fn flush(&mut self, rows: &[T], waiting: Vec<Done>) {
        let mut outcome = Ok(());
        for rows in rows.chunks(BATCH) {
            match self.append(rows) {
                Ok(()) => {
                    self.written += rows.len() as u64;
                    self.shared.metrics.written.inc_by(rows.len() as u64);
                }
                Err(error) => {
                    self.shared.drop_rows(rows);
                    self.complain("rows were dropped", &error);
                    outcome = Err(error);
                }
            }
            std::thread::yield_now();
        }
        for done in waiting {
            let told = outcome.as_ref().copied().map_err(ToString::to_string);
            // Whoever asked may be gone.
            let _ = done.send(told);
        }
    }

    fn append(&mut self, rows: &[T]) -> std::io::Result<()> {
        let day = rows.first().map_or(0, |row| day_of(row.ts_us()));
        if self.spool.as_ref().is_some_and(|open| open.day != day) {
            self.roll();
        }
        let batch = T::batch(rows, &self.writer).map_err(std::io::Error::other)?;
        let open = match &mut self.spool {
            Some(open) => open,
            none => {
                let name = format!(".spool-{}-{}-{day}", self.writer, self.files);
                none.insert(Open {
                    spool: Spool::create(self.folder.join(name))?,
                    since: Instant::now(),
                    day,
                })
            }
        };
        open.spool.append(&batch)
    }

    /// Closes the spool and makes a file of it. When that fails the spool goes on and is tried again.
    fn roll(&mut self) {
        let Some(open) = &mut self.spool else {
            return;
        };
        let counted = [
            (DROPPED_KEY, self.shared.dropped.take()),
            (FAILED_KEY, self.shared.failed.take()),
        ];
        let target = recovery::target(&self.folder, &self.writer, self.files, open.day);
        match publish::<T>(&open.spool.path, &target, &self.writer, &counted) {
            Ok(_) => {
                // A spool beside its finished file is known as such at the next start.
                let _ = fs_err::remove_file(&open.spool.path);
                self.spool = None;
                self.files += 1;
            }
            Err(error) => {
                let [(_, dropped), (_, failed)] = counted;
                self.shared.dropped.give_back(dropped);
                self.shared.failed.give_back(failed);
                open.since = Instant::now();
                self.complain("a file could not be closed; it is tried again", &error);
            }
        }
    }

    /// The account of this writer, in one line.
    fn finish(&mut self) {
        if self.spool.is_some() {
            // The next start makes a file of it, and the account.
            return;
        }
        let attempted = self.shared.attempts.total();
        let account = recovery::Account {
            log: T::FOLDER,
            writer: self.writer.clone(),
            attempted,
            written: self.written,
            lost: attempted.saturating_sub(self.written),
            crashed: false,
        };
        match account.append(&self.log) {
            Ok(()) => {
                let _ = fs_err::remove_file(self.folder.join(format!(".attempts-{}", self.writer)));
            }
            Err(error) => self.complain("the account of the log could not be written", &error),
        }
    }

    fn complain(&mut self, what: &str, error: &std::io::Error) {
        let now = Instant::now();
        if now >= self.next_complaint {
            self.next_complaint = now + COMPLAINT;
            tracing::warn!(log = T::FOLDER, %error, dropped = self.shared.metrics.dropped.get(), "{what}");
        }
    }
}
