//! An index and its answers are the same on every instruction set.
//!
//! The set is chosen once a process, so each gets a process of its own: this test runs itself
//! again, with `REFRAIN_SIMD` set, and compares what the copies print.

use std::process::Command;

use refrain_index::{BuildParams, Index, Scratch, SearchParams, build};
use refrain_kernels::{Kernels, Level, Metric};

const CHILD: &str = "REFRAIN_TEST_DIGEST";

#[test]
fn every_instruction_set_builds_and_answers_alike() {
    if std::env::var_os(CHILD).is_some() {
        println!("digest {} {:?}", Kernels::active().level(), digest());
        return;
    }
    let own = std::env::current_exe().expect("this test");
    for level in Level::available() {
        let output = Command::new(&own)
            .args([
                "--exact",
                "every_instruction_set_builds_and_answers_alike",
                "--nocapture",
            ])
            .env(CHILD, "1")
            .env("REFRAIN_SIMD", level.as_str())
            .output()
            .expect("this test runs again");
        let printed = String::from_utf8_lossy(&output.stdout);
        let expected = format!("digest {level} {:?}", digest());
        assert!(
            printed.contains(&expected),
            "{level}: expected {expected:?} in {printed}"
        );
    }
}

/// All bytes of the indexes and of what they answer, as one number (FNV-1a): walked whole, and by nibbles.
fn digest() -> (u64, u64) {
    (digest_of(37), digest_of(70))
}

fn digest_of(dim: usize) -> u64 {
    let value = |i: u32| f32::from(u16::try_from(i * 7919 % 65_521).expect("small")) / 65_521.0;
    let width = u32::try_from(dim).expect("small");
    let vectors: Vec<f32> = (0..1500 * width)
        .map(|i| value(i) - value(i / width))
        .collect();
    let mut state = 0xCBF2_9CE4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    };
    for metric in Metric::ALL {
        let params = BuildParams {
            metric,
            m: 6,
            ef_construction: Some(40),
            seed: 3,
            threads: 2,
        };
        let sections = build(&vectors, dim, &params, &())
            .expect("valid")
            .into_sections();
        sections.iter().for_each(|section| add(&section.bytes));
        let get = |name: &str| {
            sections
                .iter()
                .find(|s| s.name == name)
                .map(|s| s.bytes.clone())
        };
        let index = Index::open(&get).expect("just built");
        let mut hits = Vec::new();
        for query in vectors.chunks_exact(dim).step_by(50) {
            let search = SearchParams {
                ef_search: 20,
                ..SearchParams::default()
            };
            let mut scratch = Scratch::new();
            index
                .search_graph(query, 10, &search, &mut scratch, &mut hits)
                .expect("fits");
            for hit in &hits {
                add(&hit.ordinal.to_le_bytes());
                add(&hit.score.to_le_bytes());
            }
        }
    }
    state
}
