//! A damaged index: refused, or answering wrongly at worst. Never a fault, an endless loop, or an
//! ordinal that is out of range or ruled out.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use refrain_fuzz::damage;
use refrain_index::{
    BuildParams, Filter, Index, OrdinalSet, Scratch, SearchParams, Section, build,
};
use refrain_kernels::Metric;

/// One of each metric, those of l2 long enough for nibbles, of cosine for sketches.
fn sound() -> &'static [Vec<Section>] {
    static SOUND: OnceLock<Vec<Vec<Section>>> = OnceLock::new();
    SOUND.get_or_init(|| {
        let made = |(metric, dim, n): (Metric, usize, usize)| {
            let mut state = 1_u32;
            let values: Vec<f32> = (0..n * dim)
                .map(|at| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / 16_777_216.0 - 0.5 + (at / dim % 7) as f32
                })
                .collect();
            let params = BuildParams {
                metric,
                m: 4,
                ef_construction: Some(16),
                threads: 1,
                ..BuildParams::default()
            };
            build(&values, dim, &params, &()).expect("sound").into_sections()
        };
        [
            (Metric::InnerProduct, 8, 300),
            (Metric::Cosine, 132, 540),
            (Metric::L2, 70, 300),
        ]
        .map(made)
        .into()
    })
}

fuzz_target!(|input: &[u8]| {
    let [which, section, script @ ..] = input else {
        return;
    };
    let mut sections = sound()[usize::from(*which) % 3].clone();
    let section = usize::from(*section) % sections.len();
    let mut bytes = sections[section].bytes.to_vec();
    damage(&mut bytes, script);
    sections[section].bytes = aligned(&bytes);
    let found = |name: &str| {
        let found = sections.iter().find(|section| section.name == name);
        found.map(|section| section.bytes.clone())
    };
    let Ok(index) = Index::open(&found) else {
        return;
    };
    let _ = index.check();
    let mut scratch = Scratch::new();
    let mut hits = Vec::new();
    let query: Vec<f32> = (0..index.dim()).map(|at| (at % 3) as f32 - 0.8).collect();
    let (heard, few): (OrdinalSet, OrdinalSet) =
        ((0..100).collect(), (0..60).map(|at| at * 7 % 311).collect());
    let exclude = [&heard];
    for filter in [
        Filter::default(),
        Filter {
            exclude: &exclude,
            ..Filter::default()
        },
        Filter {
            allow: Some(&few),
            ..Filter::default()
        },
    ] {
        let params = SearchParams {
            ef_search: 24,
            filter,
            deadline: None,
            debias: None,
            cap: None,
        };
        for run in [Index::search, Index::search_graph] {
            run(&index, &query, 10, &params, &mut scratch, &mut hits).expect("the query fits");
            assert!(hits.len() <= 10);
            let sound = |ordinal: u32| (ordinal as usize) < index.len() && filter.allows(ordinal);
            assert!(hits.iter().all(|hit| sound(hit.ordinal)));
        }
    }
});

/// As a mapped file gives them: at a multiple of 64 bytes.
fn aligned(bytes: &[u8]) -> bytes::Bytes {
    let mut room = vec![0_u8; bytes.len() + 64];
    let start = room.as_ptr().align_offset(64);
    room[start..start + bytes.len()].copy_from_slice(bytes);
    bytes::Bytes::from_owner(room).slice(start..start + bytes.len())
}
