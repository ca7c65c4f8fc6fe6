//! Files that are not what they should be: the place is named, and nothing is left half-written.

use std::path::Path;
use std::process::Command;

use crate::support::{Made, arg, fails, ok, run};

/// Trains on a file that must not train: `words` are said and no model is left.
fn refuses(file: &Path, more: &[&str], words: &[&str]) {
    let home = tempfile::tempdir().expect("temporary folder");
    let out = home.path().join("model");
    let args = [&["train", "--listens", arg(file), "--out", arg(&out)], more].concat();
    fails(&args, 1, words);
    let left: Vec<_> = home.path().read_dir().expect("folder").collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Compresses a file with the gzip of the system.
fn gzip(file: &Path) {
    let done = Command::new("gzip")
        .arg("-n")
        .arg(file)
        .status()
        .expect("gzip runs");
    assert!(done.success());
}

#[test]
fn logs_that_cannot_be_read_name_the_place() {
    let home = tempfile::tempdir().expect("temporary folder");
    let write = |name: &str, bytes: &[u8]| {
        let file = home.path().join(name);
        fs_err::write(&file, bytes).expect("written");
        file
    };
    let nowhere = home.path().join("nowhere.csv");
    refuses(&nowhere, &[], &["nowhere.csv"]);
    refuses(&write("empty.csv", b""), &[], &["empty.csv"]);
    refuses(
        &write("header.csv", b"user_id,item_id\n"),
        &[],
        &["header.csv"],
    );
    refuses(
        &write("columns.csv", b"user_id,colour\na,b\n"),
        &[],
        &["columns.csv", "item"],
    );
    let plain = write("map.csv", b"user_id,item_id\na,b\n");
    refuses(&plain, &["--map", "item=song"], &["map.csv", "song"]);

    let mut rows = String::from("user_id,item_id,count\n");
    for row in 0..1_000 {
        rows.push_str(&format!("u{},i{},{}\n", row % 50, row % 70, row % 5 + 1));
        if row == 500 {
            rows.push_str("u1,i2,many\n");
        }
    }
    gzip(&write("bad-row.csv", rows.as_bytes()));
    let bad = home.path().join("bad-row.csv.gz");
    refuses(&bad, &[], &["bad-row.csv.gz:503", "many"]);
    // Tolerated when asked for, and counted.
    let out = home.path().join("tolerant");
    let small = ["--rank", "4", "--iterations", "2", "--max-bad-rows", "1"];
    let ran = run(&[
        &["train", "--listens", arg(&bad), "--out", arg(&out)],
        &small[..],
    ]
    .concat());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("bad-row.csv.gz:503"), "{}", ran.stderr);

    let whole = fs_err::read(&bad).expect("gzip");
    refuses(
        &write("cut.csv.gz", &whole[..whole.len() / 2]),
        &[],
        &["cut.csv.gz", "truncated"],
    );
}

#[test]
fn vectors_that_cannot_be_read_name_the_place() {
    let home = tempfile::tempdir().expect("temporary folder");
    let vectors = home.path().join("v.fvecs");
    let row = |values: [f32; 2]| {
        let mut bytes = 2_i32.to_le_bytes().to_vec();
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    };
    let out = home.path().join("bundle");
    let args = [
        "build",
        "--vectors",
        arg(&vectors),
        "--metric",
        "l2",
        "--out",
        arg(&out),
    ];

    fs_err::write(&vectors, [row([1.0, 2.0]), row([f32::NAN, 0.0])].concat()).expect("written");
    fails(&args, 1, &["v.fvecs", "row 1", "not finite"]);
    let mut cut = [row([1.0, 2.0]), row([3.0, 4.0])].concat();
    cut.pop();
    fs_err::write(&vectors, cut).expect("written");
    fails(&args, 1, &["v.fvecs"]);
    fs_err::write(&vectors, [row([1.0, 2.0]), row([3.0, 4.0])].concat()).expect("written");
    let ids = home.path().join("ids.txt");
    fs_err::write(&ids, "one\n").expect("written");
    fails(
        &[&args[..], &["--ids", arg(&ids)]].concat(),
        1,
        &["ids.txt"],
    );
    assert!(!out.exists());
    ok(&args);
    ok(&["verify", arg(&out)]);
}

#[test]
fn a_damaged_bundle_is_refused_by_file_section_and_offset() {
    let made = Made::shared();
    let home = tempfile::tempdir().expect("temporary folder");
    let store = home.path().join("store");
    for name in ["index.rfs", "items.rfs", "model.rfs", "golden.rfs"] {
        let whole = fs_err::read(made.at("bundle").join(name)).expect("file");
        let (half, _) = whole.split_at(whole.len() / 2);
        let mut flipped = whole.clone();
        flipped[half.len()] ^= 1;
        for (how, bytes) in [("flipped", &flipped[..]), ("truncated", half)] {
            let copy = home.path().join(format!("{name}-{how}"));
            made.copy_of_bundle(&copy);
            fs_err::write(copy.join(name), bytes).expect("damaged");
            fails(&["verify", arg(&copy)], 3, &[name, "offset"]);
            fails(&["publish", arg(&copy), "--store", arg(&store)], 3, &[name]);
        }
    }
    let listed = ok(&["versions", "--store", arg(&store)]);
    assert!(listed.contains("no versions"), "{listed}");

    let copy = home.path().join("manifest");
    made.copy_of_bundle(&copy);
    fs_err::write(copy.join("manifest.json"), "{").expect("damaged");
    fails(&["verify", arg(&copy)], 3, &["manifest.json"]);
    let nowhere = home.path().join("nowhere");
    fails(&["verify", arg(&nowhere)], 1, &["nowhere"]);
    fails(
        &["publish", arg(&nowhere), "--store", arg(&store)],
        1,
        &["nowhere"],
    );
}

#[test]
fn a_store_that_vanished_and_a_port_in_use_are_named() {
    let home = tempfile::tempdir().expect("temporary folder");
    let store = home.path().join("store");
    let profiles = home.path().join("profiles.redb");
    fails(
        &["versions", "--store", arg(&store)],
        1,
        &[arg(&store), "next:"],
    );
    fails(&["promote", "v", "--store", arg(&store)], 1, &[arg(&store)]);

    ok(&[
        "publish",
        arg(&Made::shared().at("bundle")),
        "--store",
        arg(&store),
    ]);
    fs_err::remove_dir_all(&store).expect("gone");
    fails(&["versions", "--store", arg(&store)], 1, &[arg(&store)]);
    let serve = [
        "serve",
        "--store",
        arg(&store),
        "--profiles",
        arg(&profiles),
    ];
    fails(
        &[&serve[..], &["--listen", "127.0.0.1:0"]].concat(),
        1,
        &[arg(&store)],
    );

    ok(&[
        "publish",
        arg(&Made::shared().at("bundle")),
        "--store",
        arg(&store),
    ]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("address").to_string();
    let more = ["--listen", &address, "--admin-listen", "127.0.0.1:0"];
    fails(&[&serve[..], &more].concat(), 1, &[&address]);
    // The tour says so before it trains, not after.
    fails(
        &["demo", "--listen", &address],
        1,
        &["cannot listen", &address],
    );
}

#[test]
fn models_and_folders_that_are_something_else_are_named() {
    let home = tempfile::tempdir().expect("temporary folder");
    let out = home.path().join("bundle");
    let model = home.path().join("model");
    fails(
        &["build", "--model", arg(&model), "--out", arg(&out)],
        1,
        &[arg(&model)],
    );
    fs_err::create_dir(&model).expect("folder");
    fs_err::write(model.join("model.json"), "{}").expect("written");
    fails(
        &["build", "--model", arg(&model), "--out", arg(&out)],
        1,
        &[arg(&model)],
    );
    assert!(!out.exists());
    fails(&["demo", "--once", "--dir", arg(&model)], 1, &["not empty"]);
    let nowhere = home.path().join("nowhere.csv");
    fails(
        &["demo", "--once", "--listens", arg(&nowhere)],
        1,
        &["nowhere.csv"],
    );
}
