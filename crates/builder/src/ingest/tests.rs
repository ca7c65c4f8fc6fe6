//! Every way a file can be written, and every way it can be wrong.

use std::io::Write;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs_err::write(&path, bytes).unwrap();
        path
    }
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn read_with(bytes: impl AsRef<[u8]>, options: &ReadOptions) -> Result<Log, IngestError> {
    let files = Files::new();
    let path = files.write("listens", bytes);
    read_listens(&[path], options, &|_, _| {})
}

fn read(bytes: impl AsRef<[u8]>) -> Result<Log, IngestError> {
    read_with(bytes, &ReadOptions::default())
}

/// `user item count time context` of every listen, one a line.
fn shown(log: &Log) -> String {
    let name = |ordinal: Option<u32>, dictionary: &crate::Dictionary| {
        ordinal
            .and_then(|o| dictionary.get(o))
            .unwrap_or("-")
            .to_owned()
    };
    let lines = log.listens().map(|listen| {
        format!(
            "{} {} {} {} {}",
            name(Some(listen.user), &log.users),
            name(Some(listen.item), &log.items),
            listen.count,
            listen.time_us.map_or("-".to_owned(), |us| us.to_string()),
            name(listen.context, &log.contexts),
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_file_of_many_batches_keeps_its_order_and_the_lines_of_what_is_wrong() {
    const ROWS: usize = 30_000;
    let rows = |bad: usize| -> String {
        let row = |at: usize| match at == bad {
            true => format!("u{at}\n"),
            false => format!("u{at},track number {at},{}\n", at % 7 + 1),
        };
        (0..ROWS).map(row).collect()
    };
    let header = "user,item,count\n";
    let log = read(format!("{header}{}", rows(ROWS))).unwrap();
    let wanted = (0..ROWS).map(|at| (format!("u{at}"), (at % 7 + 1) as f32));
    let got = log.listens().map(|listen| {
        assert_eq!(listen.user, listen.item);
        let user = log.users.get(listen.user).unwrap_or_default();
        (user.to_owned(), listen.count)
    });
    assert!(got.eq(wanted));

    let options = ReadOptions {
        max_bad_rows: 1,
        ..ReadOptions::default()
    };
    let log = read_with(format!("{header}{}", rows(25_000)), &options).unwrap();
    let bad = &log.report.first_bad;
    assert_eq!(
        (log.report.rows, bad.len(), bad[0].line),
        (30_000, 1, 25_002)
    );

    // What comes after many batches that were good is told after them; nothing hangs on it.
    let long = format!("{header}{}{}", rows(ROWS), "x".repeat(2 << 20));
    check_error(&long, &[":30002: ", "longer"]);
    let mut cut = gzip(&long.as_bytes()[..long.len() / 4]);
    cut.truncate(cut.len() - 100);
    check_error(&cut, &["the gzip data is truncated"]);
    // And who has seen enough does not read on.
    let wrong = "user,item\nu1,t1\n".to_owned() + &"u1,t1,more\n".repeat(200_000);
    check_error(&wrong, &["1001 bad rows of 1002"]);
}

#[track_caller]
fn check(text: impl AsRef<[u8]>, expected: &str) {
    assert_eq!(shown(&read(text).unwrap()), expected);
}

#[track_caller]
fn check_error(text: impl AsRef<[u8]>, parts: &[&str]) {
    let message = read(text).unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn headers_delimiters_and_line_ends() {
    let expected = "a x 3 - -\nb y 1 - -";
    check(
        "userID\tartistID\tweight\r\na\tx\t3\r\nb\ty\t1\r\n",
        expected,
    );
    check("user_id,track_id,playcount\na,x,3\nb,y,1", expected);
    check("Listener;Song;Plays\na;x;3\nb;y;1\n", expected);
    check("user|item|count\n\na|x|3\n\nb|y|1\n\n", expected);
    check("user item count\na x 3\nb  y  1\n", expected);
    check("\u{feff}user,item,count\na,x,3\nb,y,1\n", expected);
    check("count,item,skipped,user\n3,x,?,a\n1,y,?,b\n", expected);
    check(
        "\"user\",\"item\",\"count\"\n\"a\",\"x\",\"3\"\n\"b\",\"y\",\"1\"\n",
        expected,
    );
    check("a,x,3\nb,y,1\n", expected);
    check("a\tx\t3\nb\ty\t1\n", expected);
}

#[test]
fn third_column_without_header_is_told_by_its_values() {
    check("a,x,1507174845\n", "a x 1 1507174845000000 -");
    check("a,x,2017-10-05 03:40:45\n", "a x 1 1507174845000000 -");
    check("196\t242\t3\t881250949\n", "196 242 3 881250949000000 -");
    check("a,x,22244\n", "a x 22244 - -");
}

#[test]
fn adjacency_lines() {
    check(
        "0 5 6 7\n1 5\n2 8 9 10 11\n",
        "0 5 1 - -\n0 6 1 - -\n0 7 1 - -\n1 5 1 - -\n2 8 1 - -\n2 9 1 - -\n2 10 1 - -\n2 11 1 - -",
    );
    check_error(
        "0 5 6 7\n1\n2 8 9 10 11\n",
        &["1 bad rows", ":2:", "a user without items"],
    );
}

#[test]
fn quotes_only_where_they_quote() {
    check(
        "user,item\n\"a, b\",\"x \"\"y\"\"\"\n",
        "a, b x \"y\" 1 - -",
    );
    check(
        "user\titem\n1\t\"Weird Al\" Yankovic\n2\tThe \"K\"\n",
        "1 \"Weird Al\" Yankovic 1 - -\n2 The \"K\" 1 - -",
    );
    // A record over two lines would put a line break into an id; the place is where it begins.
    check_error(
        "user,item\na,x\nb,\"y\nz\"\nc,w\n",
        &[":3:", "control character"],
    );
    check_error("user,item\na,x\nb,\"y\nz\n", &[":3:", "never closed"]);
}

#[test]
fn contexts_sessions_and_descriptions() {
    let log = read(
        "ts,user,track_id,title,artist,playlist,session\n\
         1507174845020,a,t1,One,Ann,sleep,s1\n\
         1507174845021,a,t2,Two,,,s1\n",
    )
    .unwrap();
    assert_eq!(
        shown(&log),
        "a t1 1 1507174845020000 sleep\na t2 1 1507174845021000 -"
    );
    assert_eq!(log.sessions.iter().collect::<Vec<_>>(), ["s1"]);
    assert_eq!(log.described.get("t1").unwrap().artist, "Ann");
    assert_eq!(log.described.get("t2").unwrap().title, "Two");
    assert_eq!(log.watermark_us(), Some(1_507_174_845_021_000));
}

#[test]
fn mapped_columns() {
    let mut options = ReadOptions::default();
    options.map_column("user=Who Is It").unwrap();
    options.map_column("item=3").unwrap();
    options.map_column("time=none").unwrap();
    let text = "who_is_it,user,what,ts\na,b,x,5\n";
    assert_eq!(shown(&read_with(text, &options).unwrap()), "a x 1 - -");

    let files = Files::new();
    let toml = files.write(
        "map.toml",
        "max_bad_rows = 2\n[columns]\nuser = \"who\"\nitem = 2\n",
    );
    let options = ReadOptions::from_toml(&toml).unwrap();
    assert_eq!(options.max_bad_rows, 2);
    assert_eq!(
        shown(&read_with("who,what\na,x\n", &options).unwrap()),
        "a x 1 - -"
    );
    let toml = files.write("bad.toml", "[columns]\nusr = \"who\"\n");
    let message = ReadOptions::from_toml(&toml).unwrap_err().to_string();
    assert!(
        message.contains("bad.toml") && message.contains("usr"),
        "{message}"
    );

    let mut options = ReadOptions::default();
    options.map_column("user=nobody").unwrap();
    let message = read_with("who,item\na,x\n", &options)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("no such column") && message.contains("'who', 'item'"),
        "{message}"
    );
    for (argument, part) in [
        ("user", "FIELD=COLUMN"),
        ("usr=a", "the fields are"),
        ("user=0", "position from 1"),
    ] {
        let message = options.map_column(argument).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn bad_input_names_its_place() {
    check_error(
        "user,item,count\na,x,1\na,y,-1\na,z,nan\na,w,2\n",
        &[
            "2 bad rows of 4",
            ":3: the count -1 is negative",
            ":4: the count 'nan' is not a number",
        ],
    );
    check_error(
        "user,item\na,x\na\nb,y\n",
        &[":3:", "1 columns, expected 2"],
    );
    check_error(
        "user,item,ts\na,x,1\na,y,soon\n",
        &[":3:", "'soon' is neither a number nor a date"],
    );
    check_error("user,item\na,\n", &[":2: the item is empty"]);
    check_error("user,item\na,x\u{7}\n", &[":2:", "control character"]);
    check_error(b"user,item\na,x\xff\n", &[":2:", "not valid UTF-8"]);
    check_error(
        format!("user,item\na,{}\n", "x".repeat(129)),
        &[":2:", "129 bytes long"],
    );
    check_error(
        "user,thing\na,x\n",
        &[
            "no column for the item",
            "'user', 'thing'",
            "--column item=",
        ],
    );
    check_error(
        "tagID\ttagValue\r\n1\tmetal\r\n",
        &["no column for the user", "'tagID'"],
    );
    check_error("", &["is empty"]);
    check_error("\u{feff}", &["is empty"]);
    check_error("\n\n\n", &["is empty"]);
    check_error("user,item\n", &["is empty"]);
    check_error("user,item,count\na,x,0\n", &["no listen", "1 with count 0"]);
    check_error("justoneword\nanother\n", &["cannot tell the columns apart"]);
    check_error(b"\xff\xfea\0,\0", &["UTF-16"]);
    check_error(b"PK\x03\x04rest", &["a zip archive"]);
    check_error(
        format!("user,item\na,{}\n", "x".repeat(2 << 20)),
        &[":2: the line is longer than"],
    );
    check_error("x".repeat(3 << 20), &[":1: the line is longer than"]);
    check_error(b"PAR1 but not really", &["listens: row 1:"]);
    check_error(gzip(b""), &["is empty"]);

    let missing = PathBuf::from("not/there.csv");
    let options = ReadOptions::default();
    let message = read_listens(&[missing], &options, &|_, _| {})
        .unwrap_err()
        .to_string();
    assert!(message.contains("not/there.csv"), "{message}");
    assert!(matches!(
        read_listens(&[], &options, &|_, _| {}),
        Err(IngestError::NoFiles)
    ));
}

#[test]
fn bad_rows_are_tolerated_when_asked() {
    let options = ReadOptions {
        max_bad_rows: 1,
        ..ReadOptions::default()
    };
    let log = read_with("user,item,count\na,x,1\na,y,no\na,z,0\n", &options).unwrap();
    assert_eq!(shown(&log), "a x 1 - -");
    assert_eq!(
        (log.report.rows, log.report.bad_rows, log.report.zero_counts),
        (3, 1, 1)
    );
    assert_eq!(log.report.first_bad[0].line, 3);
    // Nothing of a bad or dropped row is kept.
    assert_eq!(log.items.iter().collect::<Vec<_>>(), ["x"]);
}

#[test]
fn truncated_and_corrupt_compression_names_the_line() {
    // Numbers without a pattern, so that the compressed stream is long.
    let mut text = String::from("user,item\n");
    for row in 0..20_000u64 {
        let id = row.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        text.push_str(&format!("u{},i{id}\n", row % 100));
    }
    let whole = gzip(text.as_bytes());
    let message = read(&whole[..whole.len() / 2]).unwrap_err().to_string();
    let line: u64 = message.split(':').nth(1).unwrap().parse().unwrap();
    assert!(message.contains("the gzip data is truncated"), "{message}");
    assert!((9_000..11_000).contains(&line), "{message}");

    let mut flipped = whole.clone();
    let end = flipped.len() - 6;
    flipped[end] ^= 1; // the checksum
    let message = read(&flipped).unwrap_err().to_string();
    assert!(message.contains("the gzip data is corrupt"), "{message}");

    let zstd = zstd::encode_all(text.as_bytes(), 1).unwrap();
    let message = read(&zstd[..zstd.len() / 2]).unwrap_err().to_string();
    assert!(message.contains("the zstd data is truncated"), "{message}");
}

#[test]
fn a_bad_row_in_the_middle_of_a_gzip_file() {
    let mut text = String::from("user,item,count\n");
    for row in 0..5_000 {
        text.push_str(if row == 3_210 {
            "u,i,many\n"
        } else {
            "u,i,2\n"
        });
    }
    check_error(
        gzip(text.as_bytes()),
        &["1 bad rows of 5000", ":3212: the count 'many'"],
    );
}

#[test]
fn several_files_and_gzip_members_are_one_log() {
    let files = Files::new();
    let options = ReadOptions::default();
    let mut members = gzip(b"user,item,ts\na,x,1\n");
    members.extend(gzip(b"b,y,2\n"));
    let first = files.write("first", members);
    let second = files.write("second.csv", "ts\tuser\titem\tplaylist\n3\ta\ty\tp\n");
    let seen = std::cell::RefCell::new(Vec::new());
    let progress = |done, total| seen.borrow_mut().push((done, total));
    let log = read_listens(&[first.clone(), second], &options, &progress).unwrap();
    assert_eq!(
        shown(&log),
        "a x 1 1000000 -\nb y 1 2000000 -\na y 1 3000000 p"
    );
    assert_eq!(log.report.files.len(), 2);
    assert_eq!(
        log.report.files[0].format,
        "gzip, comma separated, with header"
    );
    let seen = seen.into_inner();
    assert!(seen.is_sorted() && seen.last().is_some_and(|(done, total)| done == total));

    let third = files.write("third", "user,item\na,x\n");
    let message = read_listens(&[first, third], &options, &|_, _| {})
        .unwrap_err()
        .to_string();
    assert!(message.contains("third: has no times"), "{message}");
}

#[test]
fn item_attributes() {
    let files = Files::new();
    let path = files.write(
        "items",
        "movieId,title,genres,release_date,duration_ms,blocked\n\
         1,\"Toy, Story\",Adventure|Animation,1995-11-22,4860000,no\n\
         2,Jumanji,Adventure,,,true\n\
         1,Other,Children,,,\n",
    );
    let (items, report) = read_items(&[path], &ReadOptions::default(), &|_, _| {}).unwrap();
    assert_eq!(report.rows, 3);
    let one = items.get("1").unwrap();
    assert_eq!(one.title, "Toy, Story");
    assert_eq!(one.tags, ["Adventure", "Animation", "Children"]);
    assert_eq!(one.release_time_s, Some(816_998_400));
    assert_eq!(one.duration_ms, Some(4_860_000));
    assert!(!one.blocked && items.get("2").unwrap().blocked);

    let path = files.write("ids", "x\ny\nx\n");
    let (ids, _) = read_ids(&[path], &ReadOptions::default(), &|_, _| {}).unwrap();
    assert_eq!(ids.iter().collect::<Vec<_>>(), ["x", "y"]);
}

fn shared(set: &str) -> Option<PathBuf> {
    let root = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/datasets"
    ));
    let path = root.join(set);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not here", path.display());
    None
}

#[track_caller]
fn check_set(files: &[&str], rows: usize, users: usize, items: usize) -> Option<Log> {
    let paths: Option<Vec<PathBuf>> = files.iter().map(|file| shared(file)).collect();
    let log = read_listens(&paths?, &ReadOptions::default(), &|_, _| {}).unwrap();
    assert_eq!(
        (log.len(), log.users.len(), log.items.len()),
        (rows, users, items)
    );
    Some(log)
}

#[test]
fn hetrec_as_it_is() {
    let listens = "hetrec2011-lastfm-2k/user_artists.dat.gz";
    let Some(log) = check_set(&[listens], 92_834, 1_892, 17_632) else {
        return;
    };
    assert!(log.time_us.is_none());
    assert_eq!(
        log.report.files[0].format,
        "gzip, tab separated, with header"
    );
    let path = shared("hetrec2011-lastfm-2k/artists.dat.gz").unwrap();
    let (items, _) = read_items(&[path], &ReadOptions::default(), &|_, _| {}).unwrap();
    assert_eq!(items.len(), 17_632);
    assert_eq!(items.get("1686").unwrap().title, "\"Weird Al\" Yankovic");
    assert!(log.items.iter().all(|id| items.get(id).is_some()));
    let split = ["train", "valid", "test"]
        .map(|part| format!("hetrec2011-lastfm-2k/lightgcnpp_split/{part}.txt.gz"));
    for (file, pairs) in split.iter().zip([64_315, 9_143, 18_321]) {
        let path = shared(file).unwrap();
        let log = read_listens(&[path], &ReadOptions::default(), &|_, _| {}).unwrap();
        assert_eq!(log.len(), pairs);
    }
}

#[test]
fn lastfm_1k_as_it_is() {
    let files =
        ["train", "validation", "test"].map(|part| format!("lastfm-1k-plays/{part}.csv.gz"));
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let rows = 251_873 + 88_929 + 47_309 - 3; // each file has one row with count 0
    let Some(log) = check_set(&files, rows, 668, 2_439) else {
        return;
    };
    assert_eq!(log.report.zero_counts, 3);
    assert!((log.plays() - 10_112_609.0).abs() < 0.5);
    assert!(log.time_us.is_none());
}

#[test]
fn gowalla_as_it_is() {
    let files = [
        "gowalla/train.txt.gz",
        "gowalla/valid.txt.gz",
        "gowalla/test.txt.gz",
    ];
    check_set(&files, 719_081 + 91_047 + 217_242, 29_858, 40_981);
}

#[test]
fn movielens_as_it_is() {
    let Some(log) = check_set(&["ml-latest-small/ratings.csv.gz"], 100_836, 610, 9_724) else {
        return;
    };
    assert!(log.time_us.is_some());
    let path = shared("ml-latest-small/movies.csv.gz").unwrap();
    let (items, _) = read_items(&[path], &ReadOptions::default(), &|_, _| {}).unwrap();
    assert_eq!(items.len(), 9_742);
    assert_eq!(
        items.get("11").unwrap().title,
        "American President, The (1995)"
    );
}

#[test]
fn globo_as_it_is() {
    let log = check_set(
        &["globo-clicks/clicks_core.csv.gz"],
        2_988_181,
        322_897,
        46_033,
    );
    let Some(log) = log else { return };
    assert_eq!(log.sessions.len(), 1_048_594);
    let times = log.time_us.unwrap();
    assert!(
        times
            .iter()
            .all(|us| (1_506_000_000_000_000..1_511_000_000_000_000).contains(us))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn arbitrary_bytes_never_panic(
        magic in prop::sample::select(vec![
            &b""[..], b"user,item,ts\n", b"user\titem\n\"", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd",
            b"PAR1", b"\xef\xbb\xbf",
        ]),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        text in "[a-c0-9,;\t |\"\r\n.-]{0,200}",
    ) {
        let options = ReadOptions { max_bad_rows: 3, ..ReadOptions::default() };
        for body in [&bytes[..], text.as_bytes()] {
            let whole = [magic, body].concat();
            if let Ok(log) = read_with(&whole, &options) {
                prop_assert!(log.report.bad_rows <= 3);
                for listen in log.listens() {
                    prop_assert!(log.users.get(listen.user).is_some());
                    prop_assert!(log.items.get(listen.item).is_some());
                    prop_assert!(listen.count.is_finite() && listen.count > 0.0);
                }
            }
            let compressed = gzip(&whole);
            let _ = read_with(&compressed[..compressed.len() - whole.len() % 9], &options);
        }
    }
}

/// A log as text: the columns that it has, separated and quoted as the `csv` crate does it.
fn delimited(log: &Log, delimiter: u8) -> Vec<u8> {
    let mut csv = csv::WriterBuilder::new()
        .delimiter(delimiter)
        .from_writer(Vec::new());
    csv.write_record(["user", "item", "plays", "ts", "playlist", "session"])
        .unwrap();
    for listen in log.listens() {
        csv.write_record([
            log.users.get(listen.user).unwrap(),
            log.items.get(listen.item).unwrap(),
            &listen.count.to_string(),
            &listen.time_us.unwrap().to_string(),
            listen
                .context
                .map_or("", |context| log.contexts.get(context).unwrap()),
            listen
                .session
                .map_or("", |session| log.sessions.get(session).unwrap()),
        ])
        .unwrap();
    }
    csv.into_inner().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_log_is_the_same_however_it_is_stored(seed in any::<u32>(), users in 1u32..40) {
        use crate::generate::{Format, Preset, generate};
        let preset = Preset {
            seed: seed.into(), users, scenes: 3, artists: 12, tracks: 60, events: users * 20,
            ..Preset::named("small").unwrap()
        };
        let generated = generate(&preset).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let options = ReadOptions::default();
        for format in [Format::Csv, Format::Parquet] {
            let written = generated.write(directory.path(), format).unwrap();
            let log = read_listens(&[written.listens], &options, &|_, _| {}).unwrap();
            prop_assert!(log.same_listens(&generated.log), "{:?}", format);
            let (items, _) = read_items(&[written.items], &options, &|_, _| {}).unwrap();
            prop_assert_eq!(&items, &generated.items);
        }
        for delimiter in [b',', b'\t', b';', b'|'] {
            let plain = delimited(&generated.log, delimiter);
            let crlf = String::from_utf8(plain.clone()).unwrap().replace('\n', "\r\n");
            let zstd = zstd::encode_all(&plain[..], 1).unwrap();
            for bytes in [gzip(&plain), zstd, crlf.into_bytes(), plain] {
                prop_assert!(read(bytes).unwrap().same_listens(&generated.log));
            }
        }
    }

    #[test]
    fn damaged_parquet_is_an_error_or_a_log(
        at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<bool>(),
    ) {
        use crate::generate::{Format, Preset, generate};
        let preset = Preset {
            users: 5, scenes: 2, artists: 4, tracks: 8, events: 60,
            ..Preset::named("small").unwrap()
        };
        let directory = tempfile::tempdir().unwrap();
        let written = generate(&preset).unwrap().write(directory.path(), Format::Parquet).unwrap();
        let mut bytes = fs_err::read(&written.listens).unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
        if let Ok(log) = read(bytes) {
            prop_assert!(log.listens().all(|listen| log.users.get(listen.user).is_some()));
        }
    }
}

#[test]
fn parquet_columns_of_other_types() {
    use arrow_array::{ArrayRef, RecordBatch};
    use std::sync::Arc;

    let parquet = |columns: Vec<(&str, ArrayRef)>| {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut bytes = Vec::new();
        let mut writer =
            parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    };
    let integers = || Arc::new(arrow_array::UInt64Array::from(vec![7, u64::MAX])) as ArrayRef;
    let floats = || Arc::new(arrow_array::Float64Array::from(vec![3.0, 4.5])) as ArrayRef;
    let seconds = Arc::new(arrow_array::Int32Array::from(vec![1_507_174_845, 0])) as ArrayRef;
    let bytes = parquet(vec![
        ("USER", integers()),
        ("item_id", floats()),
        ("time", seconds),
    ]);
    check(
        bytes,
        "7 3 1 1507174845000000 -\n18446744073709551615 4.5 1 0 -",
    );

    let days = Arc::new(arrow_array::Date32Array::from(vec![17_444, 0])) as ArrayRef;
    let nulls = Arc::new(arrow_array::StringArray::from(vec![Some("x"), None])) as ArrayRef;
    let text = Arc::new(arrow_array::LargeStringArray::from(vec!["a", "b"])) as ArrayRef;
    let bytes = parquet(vec![
        ("uid", text.clone()),
        ("track", text),
        ("plays", floats()),
        ("date", days.clone()),
        ("album", nulls.clone()),
    ]);
    check(bytes, "a a 3 1507161600000000 x\nb b 4.5 0 -");

    check_error(
        parquet(vec![("user", integers()), ("item", nulls)]),
        &[":2: the item is empty"],
    );
    check_error(
        parquet(vec![("user", integers()), ("item", days)]),
        &["column 'item' of type Date32 cannot be read as the item"],
    );
    check_error(
        parquet(vec![("user", integers()), ("thing", floats())]),
        &["no column for the item", "'user', 'thing'"],
    );
}
