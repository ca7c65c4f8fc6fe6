//! What exclusions cost a search, however many and however near.
//!
//! ```console
//! $ cargo run --release -p refrain-index --example exclusions -- METRIC BASE.npy QUERIES.npy [RECALL]
//! ```
//!
//! For each set of what may not come back: the narrowest width whose recall@10 reaches RECALL (0.95) against
//! exact search under the same set, and the time of a query at it. The *nearest* are those of each query: a set
//! of its own, made beforehand. Compiled sets are what a server keeps for a listener or a filter.

#![expect(clippy::print_stdout, reason = "its output is the measurement")]

use std::time::Instant;

mod common;

use common::{npy, opened};
use refrain_index::{BuildParams, Filter, Hit, Index, OrdinalSet, Scratch, SearchParams, build};

const K: usize = 10;
const QUERIES: usize = 100;
const WIDTHS: [usize; 12] = [16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 384, 512];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [metric, base, queries, rest @ ..] = &args[..] else {
        panic!("METRIC BASE.npy QUERIES.npy [RECALL]");
    };
    let aim = rest
        .first()
        .map_or(0.95, |aim| aim.parse().expect("a recall"));
    let ((base, dim), (mut queries, width)) = (npy(base), npy(queries));
    assert_eq!(dim, width, "queries have another dimension");
    queries.truncate(QUERIES * dim);
    let params = BuildParams {
        metric: metric.parse().expect("ip, cosine or l2"),
        ..BuildParams::default()
    };
    let index = opened(build(&base, dim, &params, &()).expect("valid"));
    let n = index.len();
    let queries: Vec<&[f32]> = queries.chunks_exact(dim).collect();
    let mut draw = Draw(7);
    let mut shuffled: Vec<u32> = (0..).take(n).collect();
    for at in (1..n).rev() {
        shuffled.swap(at, draw.below(at + 1));
    }
    let mut scratch = Scratch::new();
    let mut nearest = |query: &[f32], count: usize| -> Vec<u32> {
        let mut hits = Vec::new();
        let all = Filter::default();
        index
            .search_exact(query, count, &all, &mut scratch, &mut hits)
            .expect("fits");
        hits.iter().map(|hit| hit.ordinal).collect()
    };
    println!("{n} x {dim}, {metric}, {QUERIES} queries, recall@{K} of {aim} or more");
    println!("what may not come back      width  recall  us/query  exact answers");
    let mut cases: Vec<(String, Vec<OrdinalSet>)> = Vec::new();
    for count in [0, 10, 1_000, 10_000, 100_000, n - 50] {
        let set = OrdinalSet::from_ordinals(&shuffled[..count.min(n)]);
        cases.push((format!("{count} at random"), vec![set; QUERIES]));
    }
    cases.push(("all".to_owned(), vec![(0..).take(n).collect(); QUERIES]));
    for count in [10, 100, 1_000, 5_000, 10_000, 100_000] {
        let of = |query: &&[f32]| OrdinalSet::from_ordinals(&nearest(query, count.min(n)));
        cases.push((
            format!("the {count} nearest"),
            queries.iter().map(of).collect(),
        ));
    }
    for (name, sets) in &cases {
        println!(
            "{name:26}  {}",
            Case {
                index: &index,
                queries: &queries,
                sets
            }
            .measured(aim)
        );
    }
}

struct Case<'a> {
    index: &'a Index,
    queries: &'a [&'a [f32]],
    sets: &'a [OrdinalSet],
}

impl Case<'_> {
    /// Answers all queries: what each found, and how many of the answers were exact.
    fn answers(&self, width: Option<usize>, out: &mut Vec<Vec<Hit>>) -> usize {
        let mut scratch = Scratch::new();
        out.resize(self.queries.len(), Vec::new());
        let mut exact = 0;
        for ((query, set), hits) in self.queries.iter().zip(self.sets).zip(out) {
            let exclude = [set];
            let params = SearchParams {
                ef_search: width.unwrap_or(K),
                filter: Filter {
                    exclude: &exclude,
                    allow: None,
                },
                ..SearchParams::default()
            };
            let search = match width {
                Some(_) => Index::search,
                None => Index::search_exact_by,
            };
            let stats = search(self.index, query, K, &params, &mut scratch, hits);
            exact += usize::from(stats.expect("fits").exact);
        }
        exact
    }

    fn measured(&self, aim: f64) -> String {
        let (mut truth, mut found) = (Vec::new(), Vec::new());
        self.answers(None, &mut truth);
        let asked: usize = truth.iter().map(Vec::len).sum();
        let mut last = String::new();
        for width in WIDTHS {
            let exact = self.answers(Some(width), &mut found);
            let both = truth.iter().zip(&found);
            let same = |(truth, found): (&Vec<Hit>, &Vec<Hit>)| {
                let known = |hit: &&Hit| truth.iter().any(|other| other.ordinal == hit.ordinal);
                assert_eq!(truth.len(), found.len(), "as many as there can be");
                found.iter().filter(known).count()
            };
            let right: usize = both.map(same).sum();
            let recall = if asked == 0 {
                1.0
            } else {
                right as f64 / asked as f64
            };
            let round = || {
                let start = Instant::now();
                self.answers(Some(width), &mut Vec::new());
                start.elapsed().as_secs_f64() * 1e6 / self.queries.len() as f64
            };
            last = format!("{width:5}  {recall:6.4}");
            if recall >= aim {
                let best = (0..7).map(|_| round()).fold(f64::INFINITY, f64::min);
                return format!("{last}  {best:8.1}  {exact:13}");
            }
        }
        format!("{last}  not reached")
    }
}

struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % n as u64).unwrap_or(0)
    }
}
