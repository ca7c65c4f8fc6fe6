//! What a training takes of memory, counted by the allocator: a test program of its own, for nothing else
//! may allocate beside it.
#![expect(unsafe_code, reason = "a global allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use refrain_als::Hyper;
use refrain_builder::ingest::{Items, ReadOptions, Room, read_sorted};
use refrain_builder::model::Model;
use refrain_builder::train::{EvaluationPlan, TrainOptions, TrainReport, train};

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

fn grown(by: usize) {
    let held = HELD.fetch_add(by, Ordering::Relaxed) + by;
    PEAK.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: hands everything on to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        grown(size);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const USERS: usize = 20_000;
const ITEMS: usize = 5_000;
const RANK: usize = 32;

/// Eighty listens of each user to 75 items, in an order that is none.
fn write_log(dir: &Path) -> (PathBuf, usize) {
    let rows = USERS * 80;
    let mut text = String::from("user,item,count,time\n");
    for at in 0..rows {
        // A step prime to the number of rows visits each of them.
        let row = at * 7_919 % rows;
        let (user, nth) = (row / 80, row % 80 % 75);
        let item = (user * 37 + nth * nth * 3 + nth) % ITEMS;
        let (count, time) = (1 + (user + nth) % 9, 1_500_000_000 + row * 31 % 9_000_000);
        writeln!(text, "u{user},i{item},{count},{time}").expect("no fault");
    }
    let path = dir.join("log.csv");
    fs_err::write(&path, text).expect("no fault");
    (path, rows)
}

fn run(
    log: &Path,
    bytes: usize,
    evaluation: EvaluationPlan,
    threads: usize,
) -> (Model, TrainReport) {
    let room = Room {
        bytes,
        dir: log.parent().expect("no fault").to_owned(),
    };
    let read = ReadOptions::default();
    let log = read_sorted(&[log.to_owned()], &read, false, room, &|_, _| {}).expect("no fault");
    let options = TrainOptions {
        hyper: Hyper {
            rank: RANK,
            iterations: 2,
            ..Hyper::default()
        },
        evaluation,
        max_evaluated_users: 500,
        threads,
        ..TrainOptions::default()
    };
    train(log, &Items::default(), &options, &|_, _, _| {}).expect("no fault")
}

/// What comes on top of the factors and one and a half times the compressed matrix: the listens that are
/// sorted in memory and as much again to merge them, the names, and what threads and passes take.
#[test]
fn training_takes_factors_and_one_and_a_half_matrices() {
    const ROOM: usize = 1 << 20;
    const REST: usize = 2 << 20;
    let dir = tempfile::tempdir().expect("no fault");
    let (log, rows) = write_log(dir.path());
    let mut trained = Vec::new();
    for (evaluation, threads) in [(EvaluationPlan::Skip, 1), (EvaluationPlan::Auto, 2)] {
        let before = HELD.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let (model, report) = run(&log, ROOM, evaluation, threads);
        let peak = PEAK.load(Ordering::Relaxed) - before;
        assert_eq!((model.users.len(), report.counts.listens), (USERS, rows));
        let listeners = model.item_listeners.iter();
        let pairs: usize = listeners.map(|&users| users as usize).sum();
        let factors = (model.user_factors.len() + model.item_factors.len()) * 4;
        let matrix = pairs * 8 + (USERS + 1) * 8;
        let names = (USERS + ITEMS) * 48;
        println!("peak {peak}: factors {factors}, matrix {matrix}, {pairs} pairs");
        let most = factors + matrix * 3 / 2 + 2 * ROOM + names + REST;
        assert!(peak <= most, "{peak} bytes, at most {most}: {evaluation:?}");
        trained.push((model, report));
    }
    assert_eq!(trained[0].0.item_factors, trained[1].0.item_factors);
    // All in memory, at another number of threads: the same in everything.
    assert!(run(&log, 1 << 30, EvaluationPlan::Auto, 3) == trained[1]);
}
