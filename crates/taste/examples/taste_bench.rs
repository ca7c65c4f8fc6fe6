//! Timings of the algebra and the store:
//! `cargo run --release -p refrain-taste --example taste_bench -- [DIRECTORY [algebra]]`.
//!
//! The store is made in DIRECTORY (else the system's temporary one): its disk decides what a durable
//! append costs, so a bare redb transaction with the same record and one fsync is timed beside it.

#![expect(clippy::print_stdout, reason = "it is what a benchmark does")]
#![expect(clippy::unwrap_used, reason = "a benchmark may fail loudly")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use refrain_taste::{
    Action, Catalogue, Effect, Event, EventKind, Profile, ProfileStore, RedbStore, Rule, Scope,
    StoreOptions, Weights, Write, resolve,
};

fn main() {
    let directory = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let catalogue = Songs::new(50_000);
    println!("resolve, median of 201:");
    for (events, rules) in [
        (500, 0),
        (500, 1_000),
        (500, 10_000),
        (10_000, 10_000),
        (100_000, 1_000),
    ] {
        let profile = profile(events, rules);
        let time = median(201, || {
            resolve(&profile, 1 << 40, &catalogue, &Weights::default())
        });
        println!("  {events:>7} events, {rules:>6} rules: {time:>10.1?}");
    }
    println!("one scope at a time, 500 events, 1,000 rules of effect LEARN / SERVE / BOTH:");
    for scope in ["item", "context", "session", "artist", "tag", "window"] {
        let times = [Effect::Learn, Effect::Serve, Effect::Both].map(|effect| {
            let mut profile = profile(500, 0);
            profile.rules = (0..1_000)
                .map(|n| rule(n, scope_of(scope, n), effect))
                .collect();
            median(101, || {
                resolve(&profile, 1 << 40, &catalogue, &Weights::default())
            })
        });
        let [learn, serve, both] = times;
        println!("  {scope:>8}: {learn:>10.1?} {serve:>10.1?} {both:>10.1?}");
    }
    if std::env::args().nth(2).as_deref() == Some("algebra") {
        return;
    }
    println!("durable appends of 1 event, beside redb alone with as many records a commit:");
    for writers in [1, 8, 64] {
        let ours = appends(&directory, writers, false);
        let ceiling = bare_redb(&directory, writers);
        println!(
            "  {writers:>3} writers: {ours:>8.0} a second; redb alone {ceiling:>8.0}, {:.2}x as many",
            ceiling / ours
        );
    }
    println!("the same with quick_repair:");
    for writers in [1, 8, 64] {
        let ours = appends(&directory, writers, true);
        println!("  {writers:>3} writers: {ours:>8.0} a second");
    }
    bulk(&directory);
}

fn median<T>(runs: usize, mut work: impl FnMut() -> T) -> Duration {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(work());
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[runs / 2]
}

/// Appends a second.
fn appends(directory: &Path, writers: u64, quick_repair: bool) -> f64 {
    let path = directory.join("taste_bench.redb");
    let options = StoreOptions {
        quick_repair,
        ..StoreOptions::default()
    };
    let store = RedbStore::open(&path, &options).unwrap();
    let per_writer = 3_000 / writers.max(4);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let store = &store;
            scope.spawn(move || {
                for n in 0..per_writer {
                    let events = vec![event(n)];
                    store
                        .write(Write::Append {
                            user: format!("u{writer}"),
                            events,
                        })
                        .unwrap();
                }
            });
        }
    });
    let (time, count) = (start.elapsed(), writers * per_writer);
    drop(store);
    std::fs::remove_file(&path).unwrap();
    count as f64 / time.as_secs_f64()
}

/// The ceiling of group commit: redb alone, so many records of an event's size in each durable commit;
/// records a second.
fn bare_redb(directory: &Path, batch: u64) -> f64 {
    let path = directory.join("taste_bench_bare.redb");
    let table: redb::TableDefinition<'_, (&str, &str), &[u8]> = redb::TableDefinition::new("t");
    let database = redb::Database::create(&path).unwrap();
    let commits = 3_000 / batch.max(4);
    let start = Instant::now();
    for commit in 0..commits {
        let write = database.begin_write().unwrap();
        {
            let mut table = write.open_table(table).unwrap();
            for n in 0..batch {
                let (user, id) = (format!("u{n}"), event(commit).event_id);
                table
                    .insert((user.as_str(), id.as_str()), &[0u8; 80][..])
                    .unwrap();
            }
        }
        write.commit().unwrap();
    }
    let time = start.elapsed();
    drop(database);
    std::fs::remove_file(&path).unwrap();
    (commits * batch) as f64 / time.as_secs_f64()
}

fn bulk(directory: &Path) {
    let path = directory.join("taste_bench.redb");
    let store = RedbStore::open(&path, &StoreOptions::default()).unwrap();
    let users = 2_000;
    let log = (0..users).map(|user| (format!("u{user}"), (0..500).map(event).collect()));
    let start = Instant::now();
    let report = store.import(log).unwrap();
    let time = start.elapsed();
    let bytes = std::fs::metadata(&path).unwrap().len();
    println!(
        "import: {} events in {time:.1?}, {:.0} events/s, {} bytes an event in the file",
        report.appended,
        report.appended as f64 / time.as_secs_f64(),
        bytes / report.appended
    );
    let mut user = 0;
    let cold = median(501, || {
        user += 1;
        store.profile(&format!("u{user}")).unwrap()
    });
    let warm = median(501, || store.profile("u7").unwrap());
    println!("profile of 500 events: {cold:.1?} from the file, {warm:.1?} from the cache");
    drop(store);
    for (name, verify_on_open) in [("as it is", false), ("verified", true)] {
        let start = Instant::now();
        let options = StoreOptions {
            verify_on_open,
            ..StoreOptions::default()
        };
        drop(RedbStore::open(&path, &options).unwrap());
        println!(
            "open and close {bytes} bytes, {name}: {:.1?}",
            start.elapsed()
        );
    }
    std::fs::remove_file(&path).unwrap();
}

fn event(n: u64) -> Event {
    Event {
        event_id: format!("e{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        item: format!("track-{}", n.wrapping_mul(7_919) % 50_000),
        time_us: i64::try_from(n).unwrap() * 1_000_000,
        kind: EventKind::ALL[usize::try_from(n % 11).unwrap().min(6)],
        played_ms: Some(180_000),
        context: Some(format!("playlist-{}", n % 40)),
        session: Some(format!("session-{}", n / 20)),
        count: 1,
    }
}

/// Mostly rules on items, as people make them, some of every other scope.
fn profile(events: u64, rules: u64) -> Profile {
    let kinds = [
        "item", "item", "item", "item", "item", "context", "session", "artist", "tag", "window",
    ];
    let rules = (0..rules).map(|n| {
        let scope = scope_of(kinds[usize::try_from(n % 10).unwrap()], n);
        rule(
            n,
            scope,
            [Effect::Learn, Effect::Serve, Effect::Both][usize::try_from(n % 3).unwrap()],
        )
    });
    Profile::new(1, (0..events).map(event).collect(), rules.collect())
}

fn scope_of(kind: &str, n: u64) -> Scope {
    match kind {
        "item" => Scope::Item(format!("track-{}", n * 31 % 50_000)),
        "context" => Scope::Context(format!("playlist-{n}")),
        "session" => Scope::Session(format!("session-{n}")),
        "artist" => Scope::Artist(format!("artist-{n}")),
        "tag" => Scope::Tag(format!("tag-{n}")),
        _ => {
            let start_us = i64::try_from(n).unwrap() * 3_000_000;
            Scope::Window {
                start_us: Some(start_us),
                end_us: Some(start_us + 2_000_000),
            }
        }
    }
}

fn rule(n: u64, scope: Scope, effect: Effect) -> Rule {
    Rule {
        rule_id: format!("r{n:06}"),
        scope,
        strength: 1.0,
        effect,
        action: if n % 8 == 7 {
            Action::Include
        } else {
            Action::Exclude
        },
        create_time_us: i64::try_from(n).unwrap(),
        expire_time_us: None,
        note: String::new(),
    }
}

/// A catalogue with ten tracks an artist and three of 1,000 tags a track.
struct Songs {
    ordinals: HashMap<String, u32>,
    artists: HashMap<String, Vec<u32>>,
    artist_names: Vec<String>,
    tags: HashMap<String, Vec<u32>>,
    tag_names: Vec<String>,
}

fn tags(track: u32) -> [usize; 3] {
    [1, 7, 31].map(|step| (track as usize * step) % 1_000)
}

impl Songs {
    fn new(tracks: u32) -> Self {
        let name = |prefix: &'static str| move |n| format!("{prefix}-{n}");
        let mut tagged: HashMap<String, Vec<u32>> = HashMap::new();
        for track in 0..tracks {
            for tag in tags(track) {
                tagged.entry(format!("tag-{tag}")).or_default().push(track);
            }
        }
        Self {
            ordinals: (0..tracks)
                .map(|track| (format!("track-{track}"), track))
                .collect(),
            artists: (0..tracks / 10)
                .map(|artist| {
                    (
                        format!("artist-{artist}"),
                        (artist * 10..artist * 10 + 10).collect(),
                    )
                })
                .collect(),
            artist_names: (0..tracks / 10).map(name("artist")).collect(),
            tags: tagged,
            tag_names: (0..1_000).map(name("tag")).collect(),
        }
    }
}

impl Catalogue for Songs {
    fn items(&self) -> u32 {
        u32::try_from(self.ordinals.len()).unwrap()
    }

    fn ordinal(&self, item: &str) -> Option<u32> {
        self.ordinals.get(item).copied()
    }

    fn artist_of(&self, ordinal: u32) -> Option<&str> {
        self.artist_names
            .get(ordinal as usize / 10)
            .map(String::as_str)
    }

    fn for_each_tag(&self, ordinal: u32, f: &mut dyn FnMut(&str)) {
        tags(ordinal)
            .into_iter()
            .for_each(|tag| f(&self.tag_names[tag]));
    }

    fn for_each_of_artist(&self, artist: &str, f: &mut dyn FnMut(u32)) {
        self.artists
            .get(artist)
            .into_iter()
            .flatten()
            .for_each(|&track| f(track));
    }

    fn for_each_with_tag(&self, tag: &str, f: &mut dyn FnMut(u32)) {
        self.tags
            .get(tag)
            .into_iter()
            .flatten()
            .for_each(|&track| f(track));
    }
}
