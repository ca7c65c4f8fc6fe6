//! Crashes are real: a child process writes until it is killed.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use refrain_bundle::store::{Listed, Object, ObjectError, When};
use refrain_experiments::record::{Decision, ShownItem};

use super::*;
use crate::metrics::Metrics;

const CHILD: &str = "REFRAIN_TEST_LOG";

fn config() -> LogConfig {
    LogConfig {
        flush_interval_ms: 2,
        roll_bytes: 64 << 10,
        ..LogConfig::default()
    }
}

fn exposure(n: u64) -> Exposure {
    Exposure {
        exposure_id: u128::from(n) << 64 | 7,
        ts_us: 1_790_000_000_000_000,
        unit_id: format!("u{n}"),
        decision: Decision {
            experiment: "e".to_owned(),
            arm: "a".to_owned(),
            reason: "SPLIT",
            weights: vec![0.5, 0.5],
            ..Decision::default()
        },
        items: ["i0", "i1", "i2"]
            .into_iter()
            .enumerate()
            .map(|(at, id)| {
                let propensity = (at == 1).then_some(0.25);
                let shown = ShownItem {
                    propensity,
                    ..ShownItem::default()
                };
                (id, shown)
            })
            .collect(),
        ..Exposure::default()
    }
}

/// Sequence numbers and units in the finished files.
fn rows(log: &Path) -> Vec<(u64, String)> {
    let mut rows = Vec::new();
    for day in fs_err::read_dir(log.join("exposures")).expect("a folder") {
        let day = day.expect("an entry").path();
        if !day.is_dir() {
            continue;
        }
        for file in fs_err::read_dir(&day).expect("a folder") {
            let file = fs_err::File::open(file.expect("an entry").path()).expect("a file");
            let reader = ParquetRecordBatchReaderBuilder::try_new(file.into_file())
                .expect("Parquet")
                .build()
                .expect("readable");
            for batch in reader {
                let batch = batch.expect("readable");
                let seq = batch
                    .column_by_name("seq")
                    .expect("there")
                    .as_primitive::<UInt64Type>();
                let unit = batch
                    .column_by_name("unit_id")
                    .expect("there")
                    .as_string::<i32>();
                for at in 0..batch.num_rows() {
                    rows.push((seq.value(at), unit.value(at).to_owned()));
                }
            }
        }
    }
    rows
}

fn open(log: &Path) -> (Logs, LogMetrics) {
    let metrics = Metrics::new("scalar").log;
    let logs = Logs::open(&config(), log, None, &metrics).expect("opens");
    (logs, metrics)
}

#[test]
fn a_closed_log_has_every_row_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (logs, metrics) = open(folder.path());
    for n in 0..5_000 {
        logs.exposures.record(exposure(n));
    }
    logs.close();
    drop(logs);
    let mut found = rows(folder.path());
    found.sort_unstable();
    assert_eq!(found.len() as u64 + metrics.dropped.get(), 5_000);
    assert_eq!(metrics.dropped.get(), 0);
    assert!(
        found
            .iter()
            .enumerate()
            .all(|(at, (seq, unit))| { *seq == at as u64 && *unit == format!("u{at}") })
    );
    let account = fs_err::read_to_string(folder.path().join("loss.jsonl")).expect("an account");
    assert!(
        account.contains("\"attempted\":5000,\"written\":5000,\"lost\":0"),
        "{account}"
    );
    // Nothing in progress is left behind.
    for entry in fs_err::read_dir(folder.path().join("exposures")).expect("a folder") {
        assert!(entry.expect("an entry").path().is_dir());
    }
}

#[test]
fn one_server_writes_a_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let (logs, _) = open(folder.path());
    let metrics = Metrics::new("scalar").log;
    let error = Logs::open(&config(), folder.path(), None, &metrics).expect_err("in use");
    assert!(error.to_string().contains("another server"), "{error}");
    logs.close();
}

/// The child of the test below; does nothing by itself.
#[test]
fn writes_until_it_is_killed() {
    let Some(log) = std::env::var_os(CHILD) else {
        return;
    };
    let (logs, _) = open(Path::new(&log));
    let mut out = std::io::stdout();
    for n in 0.. {
        logs.exposures.record(exposure(n));
        writeln!(out, "recorded {n}").expect("the parent listens");
        out.flush().expect("the parent listens");
    }
}

/// `REFRAIN_KILLS=100 cargo test -p refrain-server --lib kills` for as many.
#[test]
fn kills_lose_only_what_was_not_flushed_and_say_how_much() {
    let kills = std::env::var("REFRAIN_KILLS").ok();
    let kills: u64 = kills.and_then(|text| text.parse().ok()).unwrap_or(6);
    let folder = tempfile::tempdir().expect("a folder");
    let (mut truth, mut lost_in_all, mut unsure) = (0, 0, 0);
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "log::tests::writes_until_it_is_killed",
                "--nocapture",
            ])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("runs");
        // From the first row to several files on.
        let enough = kill * 7_919 % 6_000;
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut recorded = 0_u64;
        while let Some(Ok(line)) = lines.next() {
            if line.contains("recorded ") {
                recorded += 1;
                if recorded > enough {
                    child.kill().expect("runs");
                }
            }
        }
        child.wait().expect("ends");
        truth += recorded;
        // The kill may fall between the count of a row and the word of it.
        unsure += 1;
        // What the last child left is brought in order by the next; here by this process.
        let (logs, metrics) = open(folder.path());
        lost_in_all += metrics.lost.get();
        logs.close();
        drop(logs);
        let found = rows(folder.path()).len() as u64;
        let accounted = found + lost_in_all;
        assert!(
            (truth..=truth + unsure).contains(&accounted),
            "{found} rows and {lost_in_all} lost of {truth}"
        );
    }
    let found = rows(folder.path());
    let writers = found.len();
    println!("{kills} kills: {truth} recorded, {writers} found, {lost_in_all} lost");
    assert!(writers > 0);
    // A child numbers its rows from 0: within one, no number comes twice; over all, each at most once a kill.
    let mut times = std::collections::HashMap::new();
    for (seq, unit) in &found {
        assert_eq!(*unit, format!("u{seq}"));
        *times.entry(*seq).or_insert(0_u64) += 1;
    }
    assert!(times.values().all(|&count| count <= kills));
}

#[test]
fn a_torn_or_flipped_spool_gives_its_whole_frames() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool_path = folder.path().join(".spool-w-0-0");
    let mut written = spool::Spool::create(spool_path.clone()).expect("a file");
    let frames = 3;
    for n in 0..frames {
        let batch = Exposure::batch(&[exposure(n)], "w").expect("columns");
        written.append(&batch).expect("room");
    }
    let whole = fs_err::read(&spool_path).expect("bytes");
    let target = folder.path().join("out").join("w-0.parquet");
    let publish = |bytes: &[u8]| {
        fs_err::write(&spool_path, bytes).expect("writable");
        spool::publish::<Exposure>(&spool_path, &target, "w", &[]).expect("publishes")
    };
    assert_eq!(publish(&whole), frames);
    let frame = whole.len() / 3;
    let mut seen = HashSet::new();
    for cut in (0..whole.len()).step_by(97) {
        let rows = publish(&whole[..cut]);
        assert_eq!(rows, (cut / frame) as u64, "{cut}");
        seen.insert(rows);
        let mut flipped = whole.clone();
        flipped[cut] ^= 1;
        assert!(publish(&flipped) <= (cut / frame) as u64, "{cut}");
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn a_file_is_closed_when_it_is_old_enough() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = LogConfig {
        roll_seconds: 1,
        ..config()
    };
    let metrics = Metrics::new("scalar").log;
    let logs = Logs::open(&config, folder.path(), None, &metrics).expect("opens");
    logs.exposures.record(exposure(0));
    let mut looks = 0;
    // Far from large enough, and the log goes on.
    while rows(folder.path()).is_empty() {
        looks += 1;
        assert!(looks < 6_000, "nothing came of its age");
        std::thread::sleep(Duration::from_millis(5));
    }
    logs.exposures.record(exposure(1));
    logs.close();
    assert_eq!(finished(folder.path()).len(), 2);
    let mut found = rows(folder.path());
    found.sort_unstable();
    assert_eq!(found, [(0, "u0".to_owned()), (1, "u1".to_owned())]);
}

/// Objects as files below a folder, failing as often as it is told to.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    failures: std::sync::atomic::AtomicU32,
}

impl Folder {
    fn failed(&self, key: &str, action: &'static str) -> ObjectError {
        ObjectError::Failed {
            key: format!("{}/{key}", self.path.display()),
            action,
            reason: "as it was told to".to_owned(),
        }
    }
}

impl Objects for Folder {
    fn url(&self) -> &str {
        "folder://"
    }

    fn get(&self, key: &str, _: u64) -> Result<Option<Object>, ObjectError> {
        Err(self.failed(key, "read"))
    }

    fn read(
        &self,
        key: &str,
        _: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<bool, ObjectError> {
        Err(self.failed(key, "read"))
    }

    fn put(&self, key: &str, _: &[u8], _: When<'_>) -> Result<(), ObjectError> {
        Err(self.failed(key, "write"))
    }

    fn upload(&self, key: &str, source: &mut dyn std::io::Read) -> Result<(), ObjectError> {
        use std::sync::atomic::Ordering::SeqCst;
        let left = self.failures.load(SeqCst);
        if left > 0 {
            self.failures.store(left - 1, SeqCst);
            return Err(self.failed(key, "write"));
        }
        let target = self.path.join(key);
        fs_err::create_dir_all(target.parent().expect("a folder"))?;
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes)?;
        assert!(!target.exists(), "{key} was there already");
        fs_err::write(target, bytes)?;
        Ok(())
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        let Ok(entries) = fs_err::read_dir(self.path.join(prefix)) else {
            return Ok(Vec::new());
        };
        let listed = entries.map(|entry| {
            let entry = entry?;
            Ok(Listed {
                key: format!("{prefix}{}", entry.file_name().to_string_lossy()),
                bytes: entry.metadata()?.len(),
                modified: jiff::Timestamp::UNIX_EPOCH,
            })
        });
        Ok(listed.collect::<std::io::Result<_>>()?)
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        Err(self.failed(key, "remove"))
    }
}

/// The finished files below a folder, by their path there.
fn finished(folder: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for day in fs_err::read_dir(folder.join("exposures"))
        .into_iter()
        .flatten()
    {
        let day = day.expect("an entry").path();
        for file in fs_err::read_dir(&day).into_iter().flatten() {
            let path = file.expect("an entry").path();
            let key = path
                .strip_prefix(folder)
                .expect("below")
                .display()
                .to_string();
            found.insert(key, fs_err::read(&path).expect("a file"));
        }
    }
    found
}

#[test]
fn finished_files_are_copied_once_whatever_fails() {
    let (log, remote) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let objects = Arc::new(Folder {
        path: remote.path().to_owned(),
        failures: 1.into(),
    });
    let run = |first: u64, failed: u64| {
        let metrics = Metrics::new("scalar").log;
        let objects = Arc::clone(&objects) as Arc<dyn Objects>;
        let logs = Logs::open(&config(), log.path(), Some(objects), &metrics).expect("opens");
        (first..first + 3_000).for_each(|n| logs.exposures.record(exposure(n)));
        logs.close();
        assert_eq!(metrics.upload_failures.get(), failed);
    };
    // The store fails while the first server ends; the second finds what it left, and its own.
    run(0, 1);
    assert!(finished(remote.path()).is_empty());
    run(3_000, 0);
    let copies = finished(remote.path());
    assert!(copies.len() >= 2, "{:?}", copies.keys());
    assert_eq!(copies, finished(log.path()));
    // Nothing is copied twice: the folder would have complained.
    run(6_000, 0);
    assert_eq!(finished(remote.path()), finished(log.path()));
}

#[test]
fn what_was_copied_and_removed_still_counts_as_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path();
    let (logs, _) = open(log);
    (0..3_000).for_each(|n| logs.exposures.record(exposure(n)));
    logs.close();
    drop(logs);
    // As if that writer had died, long after its files were copied.
    let files = finished(log);
    let writer = files
        .keys()
        .next()
        .expect("a file")
        .rsplit_once('/')
        .expect("a day")
        .1;
    let (writer, _) = writer.rsplit_once('-').expect("a number");
    let attempts = attempts::Attempts::create(&log.join(format!("exposures/.attempts-{writer}")));
    attempts.expect("a file").count(3_000);
    for key in files.keys() {
        recovery::forget(&log.join(key)).expect("removed");
    }
    assert!(finished(log).is_empty());
    let (logs, metrics) = open(log);
    assert_eq!(metrics.lost.get(), 0);
    logs.close();
    let left = fs_err::read_dir(log.join("exposures")).expect("a folder");
    assert_eq!(left.count(), 0);
}
