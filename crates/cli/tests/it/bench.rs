//! `refrain bench` as the peer benchmark calls it.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{arg, fails, ok};

const ROWS: usize = 600;
const DIM: usize = 8;

/// Vectors as .npy, from a small generator of its own.
fn npy(path: &Path, rows: usize, mut state: u64) {
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {DIM}), }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).expect("short").to_le_bytes());
    bytes.extend(header.as_bytes());
    for _ in 0..rows * DIM {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let value = (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0;
        bytes.extend(value.to_le_bytes());
    }
    fs_err::write(path, bytes).expect("written");
}

#[test]
fn every_phase_answers_under_the_protocol() {
    let home = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| home.path().join(name);
    npy(&at("base.npy"), ROWS, 1);
    npy(&at("query.npy"), 50, 2);
    let common = json!({
        "protocol": 1, "base": at("base.npy"), "query": at("query.npy"), "metric": "l2",
        "n": ROWS, "d": DIM, "index_dir": at("index"), "work_dir": home.path(),
        "result": at("result.json"),
    });
    let config = |more: Value| -> Value {
        let mut config = common.clone();
        for (key, value) in more.as_object().expect("an object") {
            config[key] = value.clone();
        }
        fs_err::write(at("config.json"), config.to_string()).expect("written");
        config
    };
    let call = |more: Value| -> Value {
        config(more);
        ok(&["bench", arg(&at("config.json")), arg(&at("result.json"))]);
        let result = fs_err::read(at("result.json")).expect("written");
        serde_json::from_slice(&result).expect("JSON")
    };
    let info = call(json!({ "phase": "info" }));
    assert_eq!(info["can_filter"], true);
    let built = call(json!({ "phase": "build", "threads": 2 }));
    assert!(built["build_seconds"].as_f64() > Some(0.0), "{built}");
    let loaded = call(json!({ "phase": "load" }));
    assert!(
        loaded["first_query_seconds"].as_f64() >= loaded["load_seconds"].as_f64(),
        "{loaded}"
    );

    // Odd ids alone, and more threads than share the queries evenly.
    let bits = vec![0b1010_1010_u8; ROWS.div_ceil(8)];
    fs_err::write(at("allow.bits"), bits).expect("written");
    let sweep = json!([{ "ef": 32 }, { "ef": 256 }]);
    let found = call(json!({
        "phase": "search", "k": 10, "threads": 3, "nq": 50, "offset": 0, "sweep": sweep,
        "write_ids": true, "allow_bits": at("allow.bits"),
    }));
    for (point, setting) in found["points"]
        .as_array()
        .expect("points")
        .iter()
        .zip([32, 256])
    {
        assert_eq!(point["param"]["ef"], setting);
        assert!(point["qps"].as_f64() > Some(0.0));
        let ids = fs_err::read(point["ids_file"].as_str().expect("a path")).expect("ids");
        let ids: Vec<i32> = ids
            .chunks_exact(4)
            .map(|id| i32::from_le_bytes(id.try_into().expect("4")))
            .collect();
        assert_eq!(ids.len(), 50 * 10);
        assert!(
            ids.iter().all(|id| id % 2 == 1),
            "an id that is not allowed came back"
        );
    }
    let latency = call(json!({ "phase": "latency", "k": 10, "nq": 50, "sweep": [{ "ef": 64 }] }));
    let point = &latency["points"][0];
    assert!(
        point["p50_us"].as_f64() <= point["p99_us"].as_f64(),
        "{point}"
    );

    let refuse = |more: Value, word: &str| {
        config(more);
        fails(
            &["bench", arg(&at("config.json")), arg(&at("result.json"))],
            1,
            &[word],
        );
    };
    refuse(json!({ "phase": "info", "protocol": 2 }), "protocol 2");
    refuse(json!({ "phase": "dance" }), "config.json");
    refuse(json!({ "phase": "load", "n": ROWS + 1 }), "saved index");
    refuse(
        json!({ "phase": "latency", "k": 0, "nq": 1, "sweep": [] }),
        "k = 0",
    );
    refuse(
        json!({ "phase": "build", "threads": 1, "d": DIM + 1 }),
        "base.npy",
    );
    refuse(
        json!({ "phase": "build", "threads": 1, "metric": "dot" }),
        "dot",
    );
}
