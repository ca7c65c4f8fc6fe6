//! The `cluster` job: tracks fall into a hierarchy of scenes.
//!
//! Recursive embedding and clustering. The rows of a scene are reduced to their own principal axes
//! (`points`), clustered by k-means (`k_means`), and every part that is still large goes the same way,
//! with axes of its own: what tells the kinds of one genre apart is lost among the axes of the whole
//! catalogue. A scene is left whole when it has at most [`ClusterOptions::threshold`] items, at the last
//! level, or when no split stands apart better than one of a cloud without clusters would.
//!
//! The number of parts is the `k` whose mean silhouette exceeds that of such a cloud by most. Parts below
//! [`ClusterOptions::min_items`] are given up, smallest first, and their items go to the nearest part left.
//! A shallow decision tree a split (`tree`) reproduces its parts, and the trees together are the
//! [`SceneRules`] that place items which come later. Tags and artists say what a scene is (`explain`).
//!
//! # Cost
//! `O(levels n (dim axes + restarts passes k axes))`, and `O(rows dim² + dim³)` for the axes of every split
//! of at most 16,384 rows. Memory beside the vectors: `n (axes + 6)` values of four bytes for the rows at
//! hand, of which there are at most `n`; the sample for the number of parts takes some 20 MiB.
//!
//! # Determinism
//! Same vectors, options and seed: same scenes at any number of threads. Ties go to the lower number;
//! scenes are numbered by falling size, equal ones by their first item.

mod explain;
mod k_means;
mod output;
mod points;
mod tree;

use rayon::prelude::*;
use refrain_bundle::Bundle;
use refrain_bundle::bundle::{Branch, SceneRules};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::generate::rng::Rng;
use crate::model::Model;

pub use explain::Distinction;
pub use k_means::Candidate;
pub use output::{ClusterReport, SceneFile, SceneFileError, write_report, write_scene_file};
pub use points::Nearness;

use explain::Counts;
use k_means::{Clusters, candidates, k_means};
use points::{Axes, Points, principal_axes, project};
use tree::{Node, Tree};

/// Most values of a vector: the axes of a scene take `dim³` operations.
pub const MAX_DIM: usize = 512;
/// Levels at most.
pub const MAX_LEVELS: usize = 8;
/// Parts of a scene at most.
pub const MAX_PARTS: usize = 32;

/// How to cluster.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClusterOptions {
    /// A scene with more items than this is split, if it falls apart.
    pub threshold: usize,
    /// Items of a scene at least.
    pub min_items: usize,
    /// Parts that a scene is split into, at most: 2 to [`MAX_PARTS`].
    pub max_parts: usize,
    /// Levels: 1 to [`MAX_LEVELS`].
    pub max_levels: usize,
    /// Runs of k-means, of which the best counts.
    pub restarts: usize,
    /// How much the silhouette of a split must exceed that of a cloud without clusters; -2 asks nothing.
    pub min_gain: f64,
    /// Whether vectors are compared by direction or position; by [`Tracks::nearness`] unless given.
    pub by: Option<Nearness>,
    /// Seed of all that is drawn.
    pub seed: u64,
    /// Threads; 0 means one a core. The result does not depend on it.
    #[serde(skip)]
    pub threads: usize,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            threshold: 1_000,
            min_items: 20,
            max_parts: 8,
            max_levels: 4,
            restarts: 4,
            min_gain: 0.01,
            by: None,
            seed: 42,
            threads: 0,
        }
    }
}

/// Why tracks cannot be clustered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// An option out of range.
    #[error("{option} is {got}, expected {expected}")]
    Option {
        /// Its name on the command line.
        option: &'static str,
        /// Its value.
        got: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Vectors with more values than can be clustered.
    #[error("vectors of {dim} values; at most {MAX_DIM} can be clustered")]
    Dimension {
        /// Values of a vector.
        dim: usize,
    },
    /// There is nothing to cluster.
    #[error("there are no items")]
    Empty,
    /// A vector that is not one.
    #[error("item {item} ({id:?}): value {at} of its vector is not finite")]
    NotFinite {
        /// Which item, from 0.
        item: usize,
        /// Its id.
        id: String,
        /// Which value, from 0.
        at: usize,
    },
    /// The rules of other vectors.
    #[error("the rules place vectors of {rules} values, these have {dim}")]
    Rules {
        /// Values that the rules expect.
        rules: usize,
        /// Values that there are.
        dim: usize,
    },
    /// No threads.
    #[error("cannot start threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// What is clustered: vectors, and what is known of the items.
#[derive(Debug, Clone)]
pub struct Tracks<'a> {
    /// Values of a vector.
    pub dim: usize,
    /// `ids.len() * dim` values, row-major.
    pub vectors: std::borrow::Cow<'a, [f32]>,
    /// Id of each item.
    pub ids: Vec<&'a str>,
    /// How the vectors are compared unless told otherwise.
    pub nearness: Nearness,
    artist_names: Vec<&'a str>,
    artist_of: Vec<u32>,
    tag_names: Vec<&'a str>,
    tag_ends: Vec<usize>,
    tag_of: Vec<u32>,
}

/// No artist.
const NONE: u32 = u32::MAX;

impl<'a> Tracks<'a> {
    /// Of vectors alone.
    #[must_use]
    pub fn new(ids: Vec<&'a str>, dim: usize, vectors: &'a [f32], nearness: Nearness) -> Self {
        Self {
            dim,
            vectors: vectors.into(),
            nearness,
            artist_names: Vec::new(),
            artist_of: vec![NONE; ids.len()],
            tag_names: Vec::new(),
            tag_ends: vec![0; ids.len()],
            tag_of: Vec::new(),
            ids,
        }
    }

    /// The items of a model by the direction of their factors, whose length is a matter of popularity.
    #[must_use]
    pub fn of_model(model: &'a Model) -> Self {
        let ids = model.items.iter().collect();
        let mut this = Self::new(
            ids,
            model.info.rank,
            &model.item_factors,
            Nearness::Direction,
        );
        let (mut artists, mut tags) = (Numbers::default(), Numbers::default());
        for (at, item) in model.attributes.iter().enumerate() {
            if !item.artist.is_empty() {
                this.artist_of[at] = artists.of(&item.artist);
            }
            this.tag_of.extend(item.tags.iter().map(|tag| tags.of(tag)));
            this.tag_ends[at] = this.tag_of.len();
        }
        (this.artist_names, this.tag_names) = (artists.names, tags.names);
        this
    }

    /// The items of a bundle: by direction, but for the metric `l2`. The factors of its model, or else the
    /// vectors of its index, which are then copied.
    #[must_use]
    pub fn of_bundle(bundle: &'a Bundle, index: &refrain_index::Index) -> Self {
        let items = bundle.items();
        let dim = bundle.manifest().dim as usize;
        let vectors: std::borrow::Cow<'a, [f32]> = match bundle.model() {
            Some(model) => model.factors().into(),
            None => (0..items.len())
                .flat_map(|item| index.vector(item).unwrap_or_else(|| vec![0.0; dim]))
                .collect(),
        };
        let nearness = match bundle.manifest().metric.as_str() {
            "l2" => Nearness::Position,
            _ => Nearness::Direction,
        };
        let ids: Vec<&str> = (0..items.len())
            .map(|item| items.id(item).unwrap_or_default())
            .collect();
        let mut tag_of = Vec::new();
        let tag_ends = (0..items.len())
            .map(|item| {
                tag_of.extend(items.tags(item));
                tag_of.len()
            })
            .collect();
        Self {
            dim,
            vectors,
            nearness,
            artist_names: (0..items.artists())
                .map(|at| items.artist_name(at))
                .collect(),
            artist_of: (0..items.len())
                .map(|item| items.artist(item).unwrap_or(NONE))
                .collect(),
            tag_names: (0..items.tag_count())
                .map(|at| items.tag_name(at))
                .collect(),
            tag_ends,
            tag_of,
            ids,
        }
    }

    fn artist(&self, item: u32) -> Option<u32> {
        Some(self.artist_of[item as usize]).filter(|&artist| artist != NONE)
    }

    fn tags(&self, item: u32) -> &[u32] {
        let item = item as usize;
        let start = item
            .checked_sub(1)
            .map_or(0, |before| self.tag_ends[before]);
        &self.tag_of[start..self.tag_ends[item]]
    }

    fn check(&self) -> Result<(), ClusterError> {
        if !(1..=MAX_DIM).contains(&self.dim) {
            return Err(ClusterError::Dimension { dim: self.dim });
        }
        if self.ids.is_empty() {
            return Err(ClusterError::Empty);
        }
        match self.vectors.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let item = at / self.dim;
                Err(ClusterError::NotFinite {
                    item,
                    id: self.ids.get(item).copied().unwrap_or_default().to_owned(),
                    at: at % self.dim,
                })
            }
        }
    }
}

/// Numbers names in the order in which they come.
#[derive(Default)]
struct Numbers<'a> {
    names: Vec<&'a str>,
    known: FxHashMap<&'a str, u32>,
}

impl<'a> Numbers<'a> {
    fn of(&mut self, name: &'a str) -> u32 {
        let next = u32::try_from(self.names.len()).unwrap_or(NONE - 1);
        let number = *self.known.entry(name).or_insert(next);
        if number == next {
            self.names.push(name);
        }
        number
    }
}

/// The scenes of some tracks.
#[derive(Debug, Clone, PartialEq)]
pub struct Hierarchy {
    /// All scenes, parents before their children.
    pub scenes: Vec<Scene>,
    /// For each item the narrowest scene it belongs to, as a place in `scenes`; none for an item whose
    /// vector is zero.
    pub of: Vec<Option<u32>>,
    /// How to place further items.
    pub rules: SceneRules,
    /// Share of the items that the rules place where they are, 0 to 1.
    pub fidelity: f64,
    /// How vectors were compared.
    pub by: Nearness,
}

/// One scene.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// Where it is: `2.1` is the largest part of the second largest scene.
    pub path: String,
    /// Place of the scene that it is a part of.
    pub parent: Option<u32>,
    /// Items, those of its parts included.
    pub items: u64,
    /// Its most distinguishing tags, or artists where there are no tags; empty where nothing is known.
    pub label: String,
    /// Tags that it has more of than the rest, the most distinguishing first.
    pub tags: Vec<Distinction>,
    /// Artists likewise.
    pub artists: Vec<Distinction>,
    /// How it falls apart.
    pub split: Option<Split>,
    /// Why it is left whole; empty where it is not.
    pub whole: String,
}

/// How a scene, or the whole catalogue, falls apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// Parts.
    pub parts: usize,
    /// Principal axes that it was looked at along.
    pub axes: usize,
    /// Share of the variance that they keep, 0 to 1.
    pub variance_kept: f64,
    /// Every number of parts that was tried.
    pub candidates: Vec<Candidate>,
    /// Levels of the decision tree that tells the parts apart.
    pub tree_levels: usize,
    /// Its rules.
    pub tree_rules: usize,
}

/// Told how many items have found their place, of how many.
pub type ClusterProgress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Finds the scenes of `tracks`. Also returns how the catalogue itself falls apart, none where it does not:
/// then it is one scene.
///
/// # Errors
/// See [`ClusterError`].
pub fn cluster(
    tracks: &Tracks<'_>,
    options: &ClusterOptions,
    progress: ClusterProgress<'_>,
) -> Result<(Hierarchy, Option<Split>), ClusterError> {
    options.check()?;
    tracks.check()?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()?;
    pool.install(|| Ok(Job::new(tracks, options, progress).run()))
}

/// The scene of every item of `tracks` by rules that were made before; none for a vector of zero.
///
/// # Errors
/// [`ClusterError::Rules`] for vectors of another dimension, or tracks that are not.
pub fn place(
    tracks: &Tracks<'_>,
    rules: &SceneRules,
    threads: usize,
) -> Result<Vec<Option<u32>>, ClusterError> {
    tracks.check()?;
    if rules.dim as usize != tracks.dim {
        return Err(ClusterError::Rules {
            rules: rules.dim as usize,
            dim: tracks.dim,
        });
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()?;
    Ok(pool.install(|| by_rules(tracks, rules)))
}

fn by_rules(tracks: &Tracks<'_>, rules: &SceneRules) -> Vec<Option<u32>> {
    tracks
        .vectors
        .par_chunks_exact(tracks.dim)
        .map(|vector| rules.scene(vector))
        .collect()
}

impl ClusterOptions {
    fn check(&self) -> Result<(), ClusterError> {
        let range = |option, got: usize, range: std::ops::RangeInclusive<usize>, expected| {
            if range.contains(&got) {
                return Ok(());
            }
            let got = got.to_string();
            Err(ClusterError::Option {
                option,
                got,
                expected,
            })
        };
        range("--threshold", self.threshold, 1..=usize::MAX, "1 or more")?;
        range("--min-items", self.min_items, 1..=usize::MAX, "1 or more")?;
        range("--max-parts", self.max_parts, 2..=MAX_PARTS, "2 to 32")?;
        range("--max-levels", self.max_levels, 1..=MAX_LEVELS, "1 to 8")?;
        range("--restarts", self.restarts, 1..=100, "1 to 100")?;
        if self.min_gain.is_finite() {
            return Ok(());
        }
        Err(ClusterError::Option {
            option: "--min-gain",
            got: self.min_gain.to_string(),
            expected: "a number",
        })
    }
}

/// A scene that is still to be looked at, or the whole catalogue.
struct Open {
    /// Its items, ascending.
    rows: Vec<u32>,
    /// Its place among the scenes; none for the catalogue.
    scene: Option<u32>,
    level: usize,
}

struct Job<'a> {
    tracks: &'a Tracks<'a>,
    options: &'a ClusterOptions,
    progress: ClusterProgress<'a>,
    points: Points<'a>,
    by: Nearness,
    all: Counts,
    scenes: Vec<Scene>,
    of: Vec<Option<u32>>,
    /// The tree of each scene that is split, and of the catalogue, by what it belongs to.
    trees: FxHashMap<Option<u32>, Branches>,
}

/// The decision tree of one split: weights and threshold of each node; leaves are scenes.
struct Branches {
    nodes: Vec<Step>,
}

enum Step {
    To(u32),
    Rule {
        weights: Vec<f32>,
        threshold: f32,
        next: [usize; 2],
    },
}

/// Rows of a scene in parts.
struct Parts {
    /// Rows of each part, ascending; the largest first.
    rows: Vec<Vec<u32>>,
    split: Split,
    tree: Tree,
    /// What each feature of the tree is: weights of a vector, and what they come to at the mean.
    features: Vec<(Vec<f64>, f64)>,
    /// What the tree's thresholds are measured in.
    unit: f64,
}

impl<'a> Job<'a> {
    fn new(
        tracks: &'a Tracks<'a>,
        options: &'a ClusterOptions,
        progress: ClusterProgress<'a>,
    ) -> Self {
        let by = options.by.unwrap_or(tracks.nearness);
        Self {
            tracks,
            options,
            progress,
            points: Points::new(&tracks.vectors, tracks.dim, by),
            by,
            all: Counts::of(tracks, (0u32..).take(tracks.ids.len())),
            scenes: Vec::new(),
            of: vec![None; tracks.ids.len()],
            trees: FxHashMap::default(),
        }
    }

    fn run(mut self) -> (Hierarchy, Option<Split>) {
        let rows = self.points.placeable();
        let total = rows.len() as u64;
        let mut settled = 0;
        let mut root = None;
        // Depth first, so that parents come before their children and memory holds one path.
        let mut open = vec![Open {
            rows,
            scene: None,
            level: 0,
        }];
        while let Some(one) = open.pop() {
            (self.progress)(settled, total);
            let found = match one.rows.is_empty() {
                true => Err("no item has a vector".to_owned()),
                false => self.split(&one),
            };
            let parts = match found {
                Ok(parts) => parts,
                Err(why) => {
                    settled += one.rows.len() as u64;
                    self.leave_whole(one, why);
                    continue;
                }
            };
            let Parts {
                rows,
                split,
                tree,
                features,
                unit,
            } = parts;
            let children: Vec<u32> = (1..)
                .zip(&rows)
                .map(|(number, rows)| self.add(one.scene, number, rows))
                .collect();
            self.trees
                .insert(one.scene, branches(&tree, &features, unit, &children));
            match one.scene {
                Some(scene) => self.scenes[scene as usize].split = Some(split),
                None => root = Some(split),
            }
            let next = rows.into_iter().zip(children).map(|(rows, scene)| Open {
                rows,
                scene: Some(scene),
                level: one.level + 1,
            });
            open.extend(next.rev());
        }
        (self.progress)(total, total);
        (self.finish(total), root)
    }

    /// Adds a scene and says what it is.
    fn add(&mut self, parent: Option<u32>, number: usize, rows: &[u32]) -> u32 {
        let counts = Counts::of(self.tracks, rows.iter().copied());
        let told = explain::explain(self.tracks, &counts, &self.all);
        let path = match parent {
            None => number.to_string(),
            Some(parent) => format!("{}.{number}", self.scenes[parent as usize].path),
        };
        self.scenes.push(Scene {
            path,
            parent,
            items: rows.len() as u64,
            label: told.label,
            tags: told.tags,
            artists: told.artists,
            split: None,
            whole: String::new(),
        });
        u32::try_from(self.scenes.len() - 1).unwrap_or(NONE)
    }

    fn leave_whole(&mut self, one: Open, why: String) {
        let scene = match one.scene {
            Some(scene) => scene,
            // A catalogue that does not fall apart is one scene.
            None if one.rows.is_empty() => return,
            None => self.add(None, 1, &one.rows),
        };
        self.scenes[scene as usize].whole = why;
        for row in one.rows {
            self.of[row as usize] = Some(scene);
        }
    }

    /// The parts of a scene, or why it is left whole.
    fn split(&self, one: &Open) -> Result<Parts, String> {
        let options = self.options;
        let n = one.rows.len();
        if n <= options.threshold {
            return Err(format!(
                "{n} items, at most {} are wanted",
                options.threshold
            ));
        }
        if one.level == options.max_levels {
            return Err(format!("the last of {} levels", options.max_levels));
        }
        let most = options.max_parts.min(n / options.min_items);
        if most < 2 {
            return Err(format!(
                "two parts would have less than {} items",
                options.min_items
            ));
        }
        let axes = principal_axes(&self.points, &one.rows, options.threads);
        let axes = axes.ok_or_else(|| "all vectors are alike".to_owned())?;
        let width = axes.variances.len();
        let rows = project(&self.points, &one.rows, &axes);
        // Streams of different scenes are independent, and do not depend on what came before.
        let purpose = one.scene.map_or(1, |scene| u64::from(scene) + 2);
        let mut rng = Rng::new(options.seed, purpose);
        let candidates = candidates(
            &rows,
            width,
            &axes.variances,
            most,
            options.restarts,
            &mut rng,
        );
        let best = candidates
            .iter()
            .fold(None, |best: Option<Candidate>, &one| match best {
                Some(best) if best.gain() >= one.gain() => Some(best),
                _ => Some(one),
            })
            .filter(|best| best.gain() >= options.min_gain)
            .ok_or_else(|| "no split stands apart better than one of a cloud would".to_owned())?;
        let found = k_means(&rows, width, best.k, options.restarts, &mut rng);
        let found = without_small(found, &rows, width, options.min_items);
        let parts = found.centres.len() / width;
        if parts < 2 {
            return Err(format!(
                "but for parts of less than {} items",
                options.min_items
            ));
        }
        Ok(self.parts(one, &rows, axes, candidates, found))
    }

    /// Orders the parts and grows their tree.
    fn parts(
        &self,
        one: &Open,
        rows: &[f32],
        axes: Axes,
        candidates: Vec<Candidate>,
        found: Clusters,
    ) -> Parts {
        let width = axes.variances.len();
        let count = found.centres.len() / width;
        let mut members: Vec<(usize, Vec<u32>)> = (0..count).map(|at| (at, Vec::new())).collect();
        for (&row, &of) in one.rows.iter().zip(&found.of) {
            members[of as usize].1.push(row);
        }
        members.sort_by_key(|(_, rows)| (std::cmp::Reverse(rows.len()), rows.first().copied()));
        let mut number_of = vec![0u32; count];
        for (number, (old, _)) in (0u32..).zip(&members) {
            number_of[*old] = number;
        }
        let centres: Vec<&[f32]> = members
            .iter()
            .map(|(old, _)| &found.centres[old * width..][..width])
            .collect();
        let directions = directions(&centres, width);
        // Evenly spaced rows, each by the features.
        let step = one.rows.len().div_ceil(tree::SAMPLE).max(1);
        let sample = || (0..one.rows.len()).step_by(step);
        let of: Vec<u32> = sample()
            .map(|at| number_of[found.of[at] as usize])
            .collect();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rounding to f32 is the point"
        )]
        let features: Vec<f32> = sample()
            .flat_map(|at| {
                let row = &rows[at * width..][..width];
                directions.iter().map(move |direction| {
                    let along: f64 = direction
                        .iter()
                        .zip(row)
                        .map(|(d, &x)| d * f64::from(x))
                        .sum();
                    along as f32
                })
            })
            .collect();
        let tree = Tree::grow(&features, directions.len(), &of, count);
        let dim = self.tracks.dim;
        let features = directions
            .iter()
            .map(|direction| {
                let mut weights = vec![0.0; dim];
                for (along, axis) in direction.iter().zip(axes.axes.chunks_exact(dim)) {
                    weights
                        .iter_mut()
                        .zip(axis)
                        .for_each(|(w, a)| *w += along * a);
                }
                let at_mean: f64 = weights.iter().zip(&axes.mean).map(|(w, m)| w * m).sum();
                (weights, at_mean)
            })
            .collect();
        Parts {
            rows: members.into_iter().map(|(_, rows)| rows).collect(),
            split: Split {
                parts: count,
                axes: width,
                variance_kept: axes.kept,
                candidates,
                tree_levels: tree.levels(),
                tree_rules: tree.nodes.len() / 2,
            },
            tree,
            features,
            unit: axes.unit,
        }
    }

    /// Joins the trees into one list of rules and measures them.
    fn finish(self, placed: u64) -> Hierarchy {
        let mut rules = SceneRules {
            dim: u32::try_from(self.tracks.dim).unwrap_or(u32::MAX),
            by_direction: self.by == Nearness::Direction,
            ..SceneRules::default()
        };
        if let (false, Branch::Scene(scene)) = (
            self.scenes.is_empty(),
            join(&self.trees, None, 0, &mut rules),
        ) {
            // Nothing to tell apart: whatever is compared, it is that scene.
            rules.weights = vec![0.0; self.tracks.dim];
            rules.thresholds = vec![0.0];
            rules.branches = vec![[Branch::Scene(scene); 2]];
        }
        let found = by_rules(self.tracks, &rules);
        let right = found
            .iter()
            .zip(&self.of)
            .filter(|(found, of)| of.is_some() && found == of)
            .count();
        Hierarchy {
            scenes: self.scenes,
            of: self.of,
            rules,
            fidelity: match placed {
                0 => 1.0,
                placed => right as f64 / placed as f64,
            },
            by: self.by,
        }
    }
}

/// What a tree may look along: the principal axes, then the lines between every two centres, on which it is
/// seen which of the two is nearer. Rows of `width` values, of unit length.
fn directions(centres: &[&[f32]], width: usize) -> Vec<Vec<f64>> {
    let axis = |at: usize| {
        let mut direction = vec![0.0; width];
        direction[at] = 1.0;
        direction
    };
    let mut all: Vec<Vec<f64>> = (0..width).map(axis).collect();
    for (at, one) in centres.iter().enumerate() {
        for other in &centres[..at] {
            let line: Vec<f64> = one
                .iter()
                .zip(*other)
                .map(|(&a, &b)| f64::from(a) - f64::from(b))
                .collect();
            let length = line.iter().map(|x| x * x).sum::<f64>().sqrt();
            if length > 0.0 {
                all.push(line.into_iter().map(|x| x / length).collect());
            }
        }
    }
    all
}

/// A tree whose features are weighted sums of a vector's values.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the point"
)]
fn branches(tree: &Tree, features: &[(Vec<f64>, f64)], unit: f64, children: &[u32]) -> Branches {
    let nodes = tree.nodes.iter().map(|node| match *node {
        Node::Leaf(part) => Step::To(children[part as usize]),
        Node::Split {
            feature,
            threshold,
            below,
            above,
        } => {
            let (weights, at_mean) = &features[feature];
            Step::Rule {
                weights: weights.iter().map(|&weight| weight as f32).collect(),
                // Values of the largest size may add up to more than there is.
                threshold: (f64::from(threshold) * unit + at_mean)
                    .clamp(f64::from(f32::MIN), f64::from(f32::MAX))
                    as f32,
                next: [below, above],
            }
        }
    });
    Branches {
        nodes: nodes.collect(),
    }
}

/// Adds the rules of a split, those of its parts after them; returns where they begin: at a rule, or at
/// once at a scene.
fn join(
    trees: &FxHashMap<Option<u32>, Branches>,
    of: Option<u32>,
    node: usize,
    rules: &mut SceneRules,
) -> Branch {
    let Some(tree) = trees.get(&of) else {
        return Branch::Scene(of.unwrap_or_default());
    };
    match &tree.nodes[node] {
        Step::To(scene) => join(trees, Some(*scene), 0, rules),
        Step::Rule {
            weights,
            threshold,
            next,
        } => {
            let at = rules.thresholds.len();
            rules.weights.extend_from_slice(weights);
            rules.thresholds.push(*threshold);
            rules.branches.push([Branch::Scene(0); 2]);
            let both = next.map(|next| join(trees, of, next, rules));
            rules.branches[at] = both;
            Branch::Rule(u32::try_from(at).unwrap_or(u32::MAX))
        }
    }
}

/// Gives up clusters below `least` rows, the smallest first, the later of equal ones; their rows go to the
/// nearest of those that are left. One cluster always is.
fn without_small(mut found: Clusters, rows: &[f32], width: usize, least: usize) -> Clusters {
    loop {
        let k = found.centres.len() / width;
        let mut counts = vec![0usize; k];
        found.of.iter().for_each(|&of| counts[of as usize] += 1);
        let smallest = (0..k).rev().min_by_key(|&at| counts[at]);
        let Some(smallest) = smallest.filter(|&at| k > 1 && counts[at] < least) else {
            return found;
        };
        found
            .centres
            .drain(smallest * width..(smallest + 1) * width);
        let (of, distances) = k_means::assign(rows, width, &found.centres);
        found.of = of;
        found.squares = distances.iter().map(|&square| f64::from(square)).sum();
    }
}

#[cfg(test)]
mod tests;
