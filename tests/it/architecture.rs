//! Holds the lines of `ARCHITECTURE.md`: which crate may use which.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Who may use whom among our own crates. A crate that is missing here fails the test: a new crate
/// states its place first.
const MAY_USE: &[(&str, &[&str])] = &[
    ("refrain", &[]),
    ("refrain-kernels", &[]),
    ("refrain-bundle", &[]),
    ("refrain-experiments", &[]),
    // Files in Parquet come from outside: one place that reads them without believing them.
    ("refrain-tables", &[]),
    ("refrain-ranking", &[]),
    // ONNX is protobuf, and files: a crate of its own keeps both out of all that rank.
    ("refrain-models", &["refrain-ranking"]),
    (
        "refrain-analysis",
        &["refrain-experiments", "refrain-ranking", "refrain-tables"],
    ),
    // Object stores take tokio, HTTP and TLS: a crate of its own keeps them out of all below the server.
    ("refrain-objects", &["refrain-bundle"]),
    ("refrain-index", &["refrain-kernels"]),
    ("refrain-als", &["refrain-kernels"]),
    ("refrain-taste", &["refrain-als"]),
    (
        "refrain-engine",
        &[
            "refrain-als",
            "refrain-bundle",
            "refrain-experiments",
            "refrain-index",
            "refrain-kernels",
            "refrain-ranking",
            "refrain-taste",
        ],
    ),
    (
        "refrain-builder",
        &[
            "refrain-als",
            "refrain-bundle",
            "refrain-engine",
            "refrain-index",
            "refrain-kernels",
            "refrain-ranking",
            "refrain-tables",
            "refrain-taste",
        ],
    ),
    (
        "refrain-server",
        &[
            "refrain",
            "refrain-bundle",
            "refrain-engine",
            "refrain-experiments",
            "refrain-index",
            "refrain-kernels",
            "refrain-models",
            "refrain-objects",
            "refrain-ranking",
            "refrain-tables",
            "refrain-taste",
        ],
    ),
    ("refrain-cli", &["*"]),
];

/// Crates that speak gRPC or run an async runtime; everything else must not.
const ONLINE: &[&str] = &[
    "refrain",
    "refrain-objects",
    "refrain-server",
    "refrain-cli",
];
const ONLINE_ONLY: &[&str] = &[
    "tokio",
    "tonic",
    "tonic-prost",
    "prost",
    "prost-types",
    "axum",
    "tower",
    "hyper",
    "object_store",
    "reqwest",
    "rustls",
];
/// Files in ONNX are protobuf; no wire.
const NO_WIRE_AFTER_ALL: (&str, &str) = ("refrain-models", "prost");

/// Crates that may touch files. `index` never opens one.
const NO_FILES: &[&str] = &[
    "refrain-kernels",
    "refrain-index",
    "refrain-als",
    "refrain-ranking",
    "refrain-experiments",
];
/// Anonymous memory in large pages while an index is built, worth 15 % of its time; no file.
const NO_FILE_AFTER_ALL: (&str, &str) = ("refrain-index", "memmap2");
const FILE_CRATES: &[&str] = &["fs-err", "memmap2", "tempfile", "object_store", "parquet"];

/// Normal dependencies (not dev, not build) of every workspace member.
fn members() -> BTreeMap<String, BTreeSet<String>> {
    let out = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).expect("valid JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|p| {
            let dependencies = p["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter()
                .filter(|d| d["kind"].is_null())
                .map(|d| d["name"].as_str().expect("name").to_owned())
                .collect();
            (p["name"].as_str().expect("name").to_owned(), dependencies)
        })
        .collect()
}

#[test]
fn crates_use_only_what_lies_below_them() {
    let rules: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for (name, dependencies) in members() {
        let Some(allowed) = rules.get(name.as_str()) else {
            wrong.push(format!("{name} has no line in MAY_USE"));
            continue;
        };
        for d in dependencies.iter().filter(|d| d.starts_with("refrain")) {
            if !allowed.contains(&"*") && !allowed.contains(&d.as_str()) {
                wrong.push(format!("{name} must not use {d}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_edge_speaks_grpc_and_async() {
    let mut wrong = Vec::new();
    for (name, dependencies) in members() {
        if ONLINE.contains(&name.as_str()) {
            continue;
        }
        for d in dependencies
            .iter()
            .filter(|d| ONLINE_ONLY.contains(&d.as_str()))
        {
            if (name.as_str(), d.as_str()) != NO_WIRE_AFTER_ALL {
                wrong.push(format!("{name} must not use {d}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_crates_open_no_files() {
    let members = members();
    let mut wrong = Vec::new();
    for name in NO_FILES {
        for d in members[*name]
            .iter()
            .filter(|d| FILE_CRATES.contains(&d.as_str()))
        {
            if (*name, d.as_str()) != NO_FILE_AFTER_ALL {
                wrong.push(format!("{name} must not use {d}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_stays_in_its_two_places() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    let mut stack = vec![root.join("crates"), root.join("src"), root.join("tests")];
    while let Some(dir) = stack.pop() {
        for entry in dir.read_dir().expect("readable folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                stack.push(path);
                continue;
            }
            if path.extension().is_none_or(|e| e != "rs") {
                continue;
            }
            let place = path
                .strip_prefix(root)
                .expect("inside")
                .to_string_lossy()
                .into_owned();
            let allowed = place.starts_with("crates/kernels/")
                || place == "crates/bundle/src/map.rs"
                // A counting allocator is an unsafe trait; it proves that search allocates nothing.
                || place.starts_with("crates/index/tests/")
                // The same, for what a training takes.
                || place == "crates/builder/tests/memory.rs";
            let text = fs_err::read_to_string(&path).expect("source");
            let opens = text.lines().any(|l| {
                let l = l.trim_start();
                !l.starts_with("//")
                    && (l.contains("unsafe {")
                        || l.contains("unsafe fn")
                        || l.contains("unsafe impl"))
            });
            if opens && !allowed && !place.ends_with("it/architecture.rs") {
                wrong.push(place);
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "unsafe code outside its places: {}",
        wrong.join(", ")
    );
}
