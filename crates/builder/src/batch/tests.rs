use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, UInt16Type, UInt64Type};
use arrow_array::{ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use refrain_engine::OpenMode;
use refrain_taste::{Event, EventKind};

use super::*;
use crate::build::{BuildOptions, Source, build};
use crate::ingest::{Items, Log, sorted};
use crate::train::{EvaluationPlan, TrainOptions, train};

fn bundle(dir: &Path) -> Version {
    let mut log = Log::default();
    for user in 0..60u32 {
        for at in 0..10u32 {
            let item =
                (user % 3) * 20 + u32::try_from(crate::evaluation::hash(1, user, at) % 20).unwrap();
            log.user
                .push(log.users.insert(&format!("u{user}")).unwrap());
            log.item
                .push(log.items.insert(&format!("i{item}")).unwrap());
            log.count.push(1.0);
        }
    }
    let options = TrainOptions {
        evaluation: EvaluationPlan::Skip,
        ..TrainOptions::default()
    };
    let (model, _) = train(sorted(&log), &Items::default(), &options, &|_, _, _| {}).unwrap();
    let create_time = jiff::Timestamp::from_second(1_795_376_700).unwrap();
    let out = dir.join("bundle");
    build(
        Source::Model(&model),
        &out,
        &BuildOptions::new(create_time),
        &(),
    )
    .unwrap();
    Version::open(&out, OpenMode::Map).unwrap()
}

/// Users up to 60 heard two items of their group; others nothing.
fn profile(user: &str) -> Arc<Profile> {
    let number: u32 = user[1..].parse().unwrap();
    let event = |at: u32| Event {
        time_us: i64::from(at),
        event_id: at.to_string(),
        item: format!("i{}", (number % 3) * 20 + at),
        kind: EventKind::Play,
        played_ms: None,
        context: None,
        session: None,
        count: 1,
    };
    let events = if number < 60 {
        vec![event(1), event(number % 7 + 2)]
    } else {
        Vec::new()
    };
    Arc::new(Profile::new(1, events, Vec::new()))
}

fn write(path: &Path, name: &str, column: ArrayRef) {
    let batch = RecordBatch::try_from_iter([(name, column)]).unwrap();
    let mut writer =
        ArrowWriter::try_new(fs_err::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn users(path: &Path, n: usize) {
    let mut column = StringBuilder::new();
    (0..n).for_each(|user| column.append_value(format!("u{}", user % 70)));
    write(path, "user_id", Arc::new(column.finish()));
}

fn job<'a>(
    version: &'a Version,
    policy: &'a Policy,
    weights: &'a Weights,
    profiles: Profiles<'a>,
) -> Job<'a> {
    Job {
        version,
        policy,
        surface: "home",
        variant: None,
        weights,
        profiles,
        k: 5,
        seen: Seen::Exclude,
        now_us: Some(1_000_000),
        threads: 2,
    }
}

#[test]
fn answers_are_the_engines_bit_for_bit_stopped_in_between_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let version = bundle(dir.path());
    let (policy, weights) = (Policy::built_in().unwrap(), Weights::default());
    let rows = 2 * BLOCK_ROWS + 100;
    users(&at("users.parquet"), rows);
    let known = |user: &str| Ok(profile(user));
    let whole = job(&version, &policy, &weights, &known);
    let report = run(
        &whole,
        &at("users.parquet"),
        &at("whole.parquet"),
        &|_, _| {},
    )
    .unwrap();
    assert_eq!((report.rows, report.resumed_blocks), (rows as u64, 0));
    assert_eq!(report.items, 5 * rows as u64);
    assert!(report.popular > 0 && report.popular < report.rows / 3);

    let file = fs_err::File::open(at("whole.parquet"))
        .unwrap()
        .into_parts()
        .0;
    let mut expected = (0..rows).flat_map(|row| {
        let user = format!("u{}", row % 70);
        let choice = policy.choose("home", &user, None).unwrap();
        let profile = profile(&user);
        let request = Request::new(Subject::Profile { profile: &profile }, 5, 1_000_000);
        let mut scratch = Scratch::default();
        let answer =
            refrain_engine::recommend(&version, &request, choice.variant, &weights, &mut scratch)
                .unwrap();
        let items: Vec<_> = (1u16..)
            .zip(answer.items)
            .map(|(rank, item)| {
                let id = version.items().id(item.ordinal).unwrap().to_owned();
                (row as u64, rank, id, item.score.to_bits())
            })
            .collect();
        items
    });
    for batch in ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap()
    {
        let batch = batch.unwrap();
        for at in 0..batch.num_rows() {
            let found = (
                batch.column(0).as_primitive::<UInt64Type>().value(at),
                batch.column(2).as_primitive::<UInt16Type>().value(at),
                batch.column(3).as_string::<i32>().value(at).to_owned(),
                batch
                    .column(4)
                    .as_primitive::<Float32Type>()
                    .value(at)
                    .to_bits(),
            );
            assert_eq!(Some(found), expected.next());
        }
    }
    assert_eq!(expected.next(), None);

    // Profiles that fail in the second block stop the job; the first is kept.
    let (asked, broken) = (AtomicU64::new(0), AtomicBool::new(true));
    let failing = |user: &str| {
        let asked = asked.fetch_add(1, Ordering::Relaxed);
        if broken.load(Ordering::Relaxed) && asked > BLOCK_ROWS as u64 + 50 {
            return Err("the disk is gone".to_owned());
        }
        Ok(profile(user))
    };
    let stopped = Job {
        threads: 1,
        ..job(&version, &policy, &weights, &failing)
    };
    let error = run(
        &stopped,
        &at("users.parquet"),
        &at("again.parquet"),
        &|_, _| {},
    )
    .unwrap_err();
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    assert!(!at("again.parquet").exists());
    broken.store(false, Ordering::Relaxed);
    let report = run(
        &stopped,
        &at("users.parquet"),
        &at("again.parquet"),
        &|_, _| {},
    )
    .unwrap();
    assert_eq!(report.resumed_blocks, 1);
    assert!(
        fs_err::read(at("again.parquet")).unwrap() == fs_err::read(at("whole.parquet")).unwrap()
    );
    assert!(!at(".again.parquet.parts").exists());

    // Parts of another job are not taken over.
    broken.store(true, Ordering::Relaxed);
    asked.store(0, Ordering::Relaxed);
    assert!(
        run(
            &stopped,
            &at("users.parquet"),
            &at("other.parquet"),
            &|_, _| {}
        )
        .is_err()
    );
    let other = Job { k: 3, ..whole };
    let report = run(
        &other,
        &at("users.parquet"),
        &at("other.parquet"),
        &|_, _| {},
    )
    .unwrap();
    assert_eq!((report.resumed_blocks, report.items), (0, 3 * rows as u64));
}

#[test]
fn seeds_are_answered_and_bad_rows_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let version = bundle(dir.path());
    let (policy, weights) = (Policy::built_in().unwrap(), Weights::default());
    let known = |user: &str| Ok(profile(user));
    let job = job(&version, &policy, &weights, &known);
    let mut lists = ListBuilder::new(StringBuilder::new());
    for seeds in [vec!["i1", "i2"], vec!["i41"]] {
        seeds
            .iter()
            .for_each(|seed| lists.values().append_value(seed));
        lists.append(true);
    }
    write(&at("seeds.parquet"), "seeds", Arc::new(lists.finish()));
    let report = run(&job, &at("seeds.parquet"), &at("out.parquet"), &|_, _| {}).unwrap();
    assert_eq!((report.rows, report.items), (2, 10));

    let mut column = StringBuilder::new();
    column.append_value("u1");
    column.append_null();
    write(&at("null.parquet"), "user", Arc::new(column.finish()));
    let error = run(&job, &at("null.parquet"), &at("bad.parquet"), &|_, _| {})
        .unwrap_err()
        .to_string();
    assert!(error.contains("row 2: an id is missing"), "{error}");
    let mut column = arrow_array::builder::Float32Builder::new();
    column.append_value(1.0);
    write(&at("floats.parquet"), "user", Arc::new(column.finish()));
    let error = run(&job, &at("floats.parquet"), &at("bad.parquet"), &|_, _| {})
        .unwrap_err()
        .to_string();
    assert!(error.contains("no column of users"), "{error}");
    assert!(!at("bad.parquet").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_damaged_input_is_rows_or_an_error(
        cut in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.parquet");
        users(&path, 50);
        let mut bytes = fs_err::read(&path).unwrap();
        for (at, value) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if changes.is_empty() {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs_err::write(&path, bytes).unwrap();
        if let Ok(mut input) = Input::open(&path) {
            while let Ok(Some(_)) = input.next_block(7) {}
        }
    }
}
