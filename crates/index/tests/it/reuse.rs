//! An index that starts from another: as good as one built anew, whatever became of the items.

use std::sync::Mutex;

use refrain_index::{
    BuildError, BuiltIndex, Checkpoints, Filter, Hints, Index, Parent, Saved, Saving, Section,
    build_from, build_resumable,
};
use refrain_kernels::Metric;

use crate::common::{
    aligned, exact, factors, graph, index, open, ordinals, params, sections, values,
};

const DIM: usize = 12;
const ITEMS: usize = 1_500;

/// New items by their row in the old one, or new ones made of a seed.
fn next(old: &[f32], origin: &[Option<u32>], seed: u64) -> Vec<f32> {
    let made = factors(seed, origin.len(), DIM);
    let rows = origin.iter().zip(made.chunks_exact(DIM));
    rows.flat_map(|(origin, made)| match origin {
        Some(old_row) => &old[*old_row as usize * DIM..][..DIM],
        None => made,
    })
    .copied()
    .collect()
}

fn from(parent: &Index, origin: &[Option<u32>], vectors: &[f32], metric: Metric) -> BuiltIndex {
    let parent = Parent {
        index: parent,
        origin,
    };
    build_from(&parent, vectors, DIM, &params(metric), &()).expect("fits")
}

fn opened(built: BuiltIndex) -> Index {
    let index = open(&built.into_sections()).expect("just built");
    index.check().expect("sound");
    index
}

/// Recall@10 of the graph alone.
fn recall(index: &Index) -> f64 {
    let queries = values(99, 200 * DIM);
    let found: usize = queries
        .chunks_exact(DIM)
        .map(|query| {
            let truth = ordinals(&exact(index, query, 10, Filter::default()));
            let hits = graph(index, query, 10, 40);
            hits.iter()
                .filter(|hit| truth.contains(&hit.ordinal))
                .count()
        })
        .sum();
    found as f64 / (10 * queries.len() / DIM) as f64
}

/// One in ten gone, one in ten new, one in ten elsewhere, and all at another ordinal.
fn shuffled() -> (Vec<f32>, Vec<Option<u32>>, Vec<f32>) {
    let old = factors(1, ITEMS, DIM);
    let ordinals = (0..u32::try_from(ITEMS).expect("few")).rev();
    let origin: Vec<Option<u32>> = ordinals
        .map(|ordinal| (ordinal % 10 != 3).then_some(ordinal))
        .collect();
    let mut new = next(&old, &origin, 2);
    for (item, row) in new.chunks_exact_mut(DIM).enumerate() {
        if item % 10 == 7 {
            row.iter_mut().for_each(|value| *value = -*value);
        }
    }
    (old, origin, new)
}

#[test]
fn most_links_are_kept_and_as_much_is_found() {
    for metric in Metric::ALL {
        let (old, origin, new) = shuffled();
        let parent = index(&old, DIM, &params(metric));
        let built = from(&parent, &origin, &new, metric);
        let linked = built.stats().linked;
        assert!((200..500).contains(&linked), "{metric}: {linked} linked");
        let (kept, full) = (opened(built), index(&new, DIM, &params(metric)));
        let (ours, theirs) = (recall(&kept), recall(&full));
        assert!(ours >= theirs - 0.01, "{metric}: {ours} after {theirs}");
        let vector = |index: &Index, item| index.vector(item).expect("an item");
        for item in [0, 7, 1_499] {
            assert_eq!(vector(&kept, item), vector(&full, item));
        }
    }
}

/// Cycle after cycle one in fifty is replaced: what is new is linked from others, not tied to what is
/// largest to be reachable at all, and as much is found in the end as by a full build.
#[test]
fn a_graph_that_is_kept_for_long_does_not_wear_out() {
    let metric = Metric::InnerProduct;
    let mut vectors = factors(1, ITEMS, DIM);
    let mut kept = index(&vectors, DIM, &params(metric));
    for cycle in 0..30 {
        let all = 0..u32::try_from(ITEMS).expect("few");
        let origin: Vec<Option<u32>> = all
            .map(|item| (item % 50 != 7 * cycle % 50).then_some(item))
            .collect();
        vectors = next(&vectors, &origin, 10 + u64::from(cycle));
        let built = from(&kept, &origin, &vectors, metric);
        let (new, repaired) = (ITEMS / 50, built.stats().repaired);
        assert!(repaired < ITEMS / 20, "{repaired} repaired, {new} new ones");
        kept = opened(built);
    }
    let (ours, theirs) = (
        recall(&kept),
        recall(&index(&vectors, DIM, &params(metric))),
    );
    assert!(
        ours >= theirs - 0.01,
        "{ours} after 30 cycles, {theirs} anew"
    );
}

#[test]
fn nothing_moved_nothing_linked() {
    let old = factors(1, ITEMS, DIM);
    let parent = index(&old, DIM, &params(Metric::Cosine));
    let origin: Vec<Option<u32>> = (0..).take(ITEMS).map(Some).collect();
    let built = from(&parent, &origin, &old, Metric::Cosine);
    assert_eq!(built.stats().linked, 0);
    assert!(recall(&opened(built)) >= recall(&parent));
}

#[test]
fn threads_change_nothing() {
    let (old, origin, new) = shuffled();
    let metric = Metric::InnerProduct;
    let parent = index(&old, DIM, &params(metric));
    let bytes = |threads| {
        let parent = Parent {
            index: &parent,
            origin: &origin,
        };
        let mut params = params(metric);
        params.threads = threads;
        let built = build_from(&parent, &new, DIM, &params, &()).expect("fits");
        let sections = built.into_sections().into_iter();
        sections.map(|section| section.bytes).collect::<Vec<_>>()
    };
    assert!(bytes(1) == bytes(5));
}

/// Saves whenever it can, and fails at the save of that number: as if it had been killed there.
#[derive(Default)]
struct Kept {
    saved: Mutex<Option<Saved>>,
    until: usize,
    saves: Mutex<usize>,
}

impl Checkpoints for Kept {
    fn load(&self) -> Option<Saved> {
        self.saved.lock().expect("unbroken").clone()
    }

    fn due(&self) -> bool {
        true
    }

    fn save(&self, state: Saving<'_>) -> std::io::Result<()> {
        let mut saves = self.saves.lock().expect("unbroken");
        *saves += 1;
        if *saves > self.until {
            return Err(std::io::Error::other("killed"));
        }
        *self.saved.lock().expect("unbroken") = Some(Saved {
            linked: state.linked,
            links: state.links.to_vec(),
            nav_links: state.nav_links.to_vec(),
        });
        Ok(())
    }
}

/// Killed after each batch in turn, a build that goes on gives the bytes of one that was left alone.
#[test]
fn a_build_that_was_killed_goes_on() {
    let (old, origin, new) = shuffled();
    for metric in [Metric::InnerProduct, Metric::L2] {
        let earlier = index(&old, DIM, &params(metric));
        let parent = Parent {
            index: &earlier,
            origin: &origin,
        };
        for (parent, vectors) in [(None, &old), (Some(parent), &new)] {
            let bytes = |checkpoints: &dyn Checkpoints| {
                let params = params(metric);
                let hints = Hints {
                    parent,
                    users: &old[..100 * DIM],
                };
                build_resumable(vectors, DIM, &params, hints, &(), checkpoints).map(|built| {
                    let sections = built.into_sections().into_iter();
                    sections.map(|section| section.bytes).collect::<Vec<_>>()
                })
            };
            let undisturbed = bytes(&()).expect("built");
            let mut kept = Kept::default();
            let mut kills = 0;
            let resumed = loop {
                *kept.saves.lock().expect("unbroken") = 0;
                match bytes(&kept) {
                    Ok(bytes) => break bytes,
                    Err(BuildError::Checkpoint { .. }) => kills += 1,
                    Err(other) => panic!("{other}"),
                }
                // The first run dies before it has kept anything, the others a batch further on.
                kept.until = 1;
            };
            assert!(kills > 0, "never killed");
            assert!(resumed == undisturbed);
            // What is of another graph is passed over.
            *kept.saved.lock().expect("unbroken") = Some(Saved {
                linked: 512,
                links: vec![0; 7],
                nav_links: Vec::new(),
            });
            kept.until = usize::MAX;
            assert!(bytes(&kept).expect("built") == undisturbed);
        }
    }
}

#[test]
fn whatever_becomes_of_the_items() {
    let metric = Metric::InnerProduct;
    let old = factors(1, 400, DIM);
    let parent = index(&old, DIM, &params(metric));
    let one = Some(3);
    let copies: Vec<Option<u32>> = (0..200).map(|item| Some(item % 5)).collect();
    let cases: [&[Option<u32>]; 5] = [&[], &[None], &[one], &[one, one, None, one], &copies];
    for origin in cases {
        let new = next(&old, origin, 5);
        let index = opened(from(&parent, origin, &new, metric));
        assert_eq!(index.len(), origin.len());
        let hits = exact(&index, &old[..DIM], 10, Filter::default());
        assert_eq!(hits.len(), origin.len().min(10));
    }
    // From nothing, and from ordinals that are not there.
    let empty = index(&[], DIM, &params(metric));
    let index = opened(from(&empty, &[Some(0), None], &old[..2 * DIM], metric));
    assert_eq!(index.len(), 2);
}

#[test]
fn a_parent_of_another_kind_is_refused() {
    let old = factors(1, 50, DIM);
    let parent = index(&old, DIM, &params(Metric::L2));
    let refusal = |origin: &[Option<u32>], dim, metric| {
        let parent = Parent {
            index: &parent,
            origin,
        };
        let built = build_from(&parent, &old, dim, &params(metric), &());
        built.err().map(|error| error.to_string())
    };
    let all = vec![None; 50];
    assert_eq!(refusal(&all, DIM, Metric::L2), None);
    for (refused, what) in [
        (refusal(&all[1..], DIM, Metric::L2), "origins of items"),
        (refusal(&vec![None; 100], DIM / 2, Metric::L2), "dimensions"),
        (refusal(&all, DIM, Metric::Cosine), "metric"),
    ] {
        let message = refused.expect("refused");
        assert!(message.starts_with(what), "{message}");
    }
    // Another m is no reason to refuse: all is linked anew.
    let mut wider = params(Metric::L2);
    wider.m = 8;
    let parent = Parent {
        index: &parent,
        origin: &all,
    };
    let built = build_from(&parent, &old, DIM, &wider, &());
    assert!(matches!(built, Ok(built) if built.stats().linked == 50));
}

/// What comes of a damaged parent may find less, but it is an index.
#[test]
fn a_damaged_parent_does_no_harm() {
    let old = factors(1, 300, DIM);
    let origin: Vec<Option<u32>> = (0..300)
        .map(|item| (item % 7 != 0).then_some(item))
        .collect();
    let new = next(&old, &origin, 3);
    for metric in Metric::ALL {
        let sound = sections(&old, DIM, &params(metric));
        for (at, seed) in (0..sound.len()).flat_map(|at| [(at, 1_u64), (at, 2), (at, 3)]) {
            let mut damaged: Vec<Section> = sound.clone();
            let mut bytes = damaged[at].bytes.to_vec();
            let len = bytes.len().max(1);
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            for _ in 0..20 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let place = usize::try_from(state >> 16).expect("64 bits") % len;
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= state.to_le_bytes()[7];
                }
            }
            damaged[at].bytes = aligned(&bytes);
            let Ok(parent) = open(&damaged) else { continue };
            if parent.dim() == DIM && parent.metric() == metric {
                opened(from(&parent, &origin, &new, metric));
            }
        }
    }
}

#[test]
fn errors_are_of_the_build_that_failed() {
    let parent = index(&factors(1, 50, DIM), DIM, &params(Metric::L2));
    let parent = Parent {
        index: &parent,
        origin: &[None],
    };
    let mut row = vec![0.0; DIM];
    row[5] = f32::NAN;
    let built = build_from(&parent, &row, DIM, &params(Metric::L2), &());
    assert!(matches!(
        built,
        Err(BuildError::NotFinite {
            what: "item",
            ordinal: 0,
            dimension: 5
        })
    ));
}
