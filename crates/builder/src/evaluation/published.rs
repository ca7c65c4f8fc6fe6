//! The evaluator against figures that others computed on public splits. An evaluator that does not
//! reproduce a known popularity baseline to four places has no business judging a model.

use super::{
    Catalogue, LIST_LENGTH, Quality, by_user, evaluate, listeners, measure, rank_by_popularity,
};
use flate2::read::GzDecoder;
use refrain_als::{Hyper, Interactions};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Gowalla, the split of LightGCN; history: train and valid.
#[test]
fn popularity_on_gowalla() {
    let Some(split) = PublishedSplit::read("gowalla") else {
        return;
    };
    assert_four_places(split.popularity(), 0.0416, 0.0317);
}

/// Last.fm of HetRec 2011, the split of LightGCN++; history: train and valid.
#[test]
fn popularity_on_lastfm() {
    let Some(split) = PublishedSplit::read("hetrec2011-lastfm-2k/lightgcnpp_split") else {
        return;
    };
    assert_four_places(split.popularity(), 0.1077, 0.1011);
}

/// The trainer at its defaults, on the smaller split: more than twice as good as popularity, and the
/// same at any number of threads.
#[test]
fn factors_beat_popularity_on_lastfm() {
    let Some(split) = PublishedSplit::read("hetrec2011-lastfm-2k/lightgcnpp_split") else {
        return;
    };
    let hyper = Hyper::default().scaled_to(&split.history);
    let factors = refrain_als::train(&split.history, &hyper, 2, &()).unwrap();
    let judge = |threads| {
        let options = super::EvaluateOptions {
            threads,
            ..Default::default()
        };
        evaluate(&split.history, &split.test, &factors, &options).unwrap()
    };
    let evaluation = judge(1);
    assert_eq!(evaluation, judge(2));
    let popularity = split.popularity();
    assert_eq!(
        (
            evaluation.popularity.recall_at_20,
            evaluation.popularity.ndcg_at_20
        ),
        (popularity.recall_at_20, popularity.ndcg_at_20)
    );
    assert!(evaluation.model.recall_at_20 > 2.0 * evaluation.popularity.recall_at_20);
    assert!(evaluation.model.ndcg_at_20 > 2.0 * evaluation.popularity.ndcg_at_20);
}

fn assert_four_places(quality: Quality, recall: f64, ndcg: f64) {
    assert!(
        (quality.recall_at_20 - recall).abs() <= 0.5e-4,
        "recall {}",
        quality.recall_at_20
    );
    assert!(
        (quality.ndcg_at_20 - ndcg).abs() <= 0.5e-4,
        "ndcg {}",
        quality.ndcg_at_20
    );
}

struct PublishedSplit {
    history: Interactions,
    test: Vec<(u32, u32)>,
}

impl PublishedSplit {
    /// None, and a line that says so, where the data sets are not beside the repository.
    fn read(name: &str) -> Option<Self> {
        let folder = data_sets().join(name);
        if !folder.is_dir() {
            println!("skipped: {} is not there", folder.display());
            return None;
        }
        let mut history = adjacency(&folder.join("train.txt.gz"));
        history.extend(adjacency(&folder.join("valid.txt.gz")));
        let mut test = adjacency(&folder.join("test.txt.gz"));
        test.sort_unstable();
        test.dedup();
        let largest =
            |of: fn(&(u32, u32)) -> u32| history.iter().chain(&test).map(of).max().unwrap();
        let (users, items) = (largest(|pair| pair.0) + 1, largest(|pair| pair.1) + 1);
        let triplets = history
            .into_iter()
            .map(|(user, item)| (user, item, 1.0))
            .collect();
        let history = Interactions::from_triplets(users, items, triplets).unwrap();
        Some(Self { history, test })
    }

    fn popularity(&self) -> Quality {
        let tests = by_user(&self.test);
        let users: Vec<u32> = tests.iter().map(|pairs| pairs[0].0).collect();
        let listeners = listeners(&self.history);
        let lists = rank_by_popularity(&self.history, &listeners, &users, LIST_LENGTH);
        let catalogue = Catalogue {
            size: listeners.iter().filter(|&&count| count > 0).count(),
            listeners: &listeners,
            users: self.history.users() as usize,
            vectors: None,
        };
        measure(&lists, &tests, LIST_LENGTH, &catalogue)
    }
}

fn data_sets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/datasets")
}

/// Lines of `user item item …`, as (user, item) pairs.
fn adjacency(path: &Path) -> Vec<(u32, u32)> {
    let mut text = String::new();
    GzDecoder::new(fs_err::File::open(path).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    text.lines()
        .flat_map(|line| {
            let mut numbers = line
                .split_ascii_whitespace()
                .map(|n| n.parse::<u32>().unwrap());
            let user = numbers.next().unwrap();
            numbers.map(move |item| (user, item))
        })
        .collect()
}
