//! Ensembles of trees.

use std::collections::HashMap;

use crate::ModelError;
use crate::graph::{Node, Transform, Value};

/// Trees whose leaves are added up.
#[derive(Debug)]
pub(crate) struct Forest {
    nodes: Vec<Branch>,
    /// Position of the root of each tree.
    roots: Vec<usize>,
    base: [f64; 2],
    kind: Kind,
    aggregate: Aggregate,
    transform: Transform,
}

/// What leaves hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A value.
    Value,
    /// What speaks for the second class.
    Second,
    /// One number for each class.
    Classes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Average,
    Least,
    Most,
}

#[derive(Debug, Clone, Copy)]
struct Branch {
    feature: usize,
    test: Test,
    threshold: f32,
    /// Where a value that is not a number goes.
    missing: bool,
    yes: usize,
    no: usize,
    leaf: [f64; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Leaf,
    LessEqual,
    Less,
    GreaterEqual,
    Greater,
    Equal,
    NotEqual,
}

impl Test {
    fn read(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"LEAF" => Self::Leaf,
            b"BRANCH_LEQ" => Self::LessEqual,
            b"BRANCH_LT" => Self::Less,
            b"BRANCH_GTE" => Self::GreaterEqual,
            b"BRANCH_GT" => Self::Greater,
            b"BRANCH_EQ" => Self::Equal,
            b"BRANCH_NEQ" => Self::NotEqual,
            _ => return None,
        })
    }

    fn holds(self, value: f32, threshold: f32) -> bool {
        match self {
            Self::Leaf => false,
            Self::LessEqual => value <= threshold,
            Self::Less => value < threshold,
            Self::GreaterEqual => value >= threshold,
            Self::Greater => value > threshold,
            Self::Equal => value == threshold,
            Self::NotEqual => value != threshold,
        }
    }
}

impl Forest {
    pub(crate) fn read(node: &Node<'_>, width: usize) -> Result<Self, ModelError> {
        node.check_classes()?;
        node.check_single(&[
            "base_values_as_tensor",
            "nodes_values_as_tensor",
            "class_weights_as_tensor",
            "target_weights_as_tensor",
        ])?;
        let mut forest = Self {
            nodes: Vec::new(),
            roots: Vec::new(),
            base: [0.0; 2],
            kind: Kind::Value,
            aggregate: aggregate(node)?,
            transform: Transform::read(node)?,
        };
        let places = forest.read_nodes(node, width)?;
        forest.read_leaves(node, &places)?;
        let base = node.floats("base_values")?;
        forest.base = match (base, forest.kind) {
            ([], _) => [0.0; 2],
            ([one], Kind::Value | Kind::Second) => [0.0, f64::from(*one)],
            // Of one score for two classes the second is meant.
            ([_, one], Kind::Second) => [0.0, f64::from(*one)],
            ([first, second], Kind::Classes) => [f64::from(*first), f64::from(*second)],
            _ => {
                let problem = format!("{} values do not fit the leaves", base.len());
                return Err(node.wrong("base_values", problem));
            }
        };
        Ok(forest)
    }

    /// The nodes by tree and number. Every node has a place, and trees are trees.
    fn read_nodes(
        &mut self,
        node: &Node<'_>,
        width: usize,
    ) -> Result<HashMap<(i64, i64), usize>, ModelError> {
        let modes = node.texts("nodes_modes");
        let count = modes.len();
        if count == 0 {
            return Err(node.wrong("nodes_modes", "there are no nodes"));
        }
        let ints = |name: &'static str| match node.ints(name) {
            ints if ints.len() == count => Ok(ints),
            ints => Err(node.wrong(name, format!("{} values for {count} nodes", ints.len()))),
        };
        let (trees, numbers) = (ints("nodes_treeids")?, ints("nodes_nodeids")?);
        let (yes, no) = (ints("nodes_truenodeids")?, ints("nodes_falsenodeids")?);
        let features = ints("nodes_featureids")?;
        let values = node.floats("nodes_values")?;
        if values.len() != count {
            let problem = format!("{} values for {count} nodes", values.len());
            return Err(node.wrong("nodes_values", problem));
        }
        let missing = node.ints("nodes_missing_value_tracks_true");
        let mut places = HashMap::with_capacity(count);
        for (at, key) in trees
            .iter()
            .copied()
            .zip(numbers.iter().copied())
            .enumerate()
        {
            if places.insert(key, at).is_some() {
                let problem = format!("tree {} has node {} twice", key.0, key.1);
                return Err(node.wrong("nodes_nodeids", problem));
            }
        }
        let mut parents = vec![0_u32; count];
        for at in 0..count {
            let test = Test::read(&modes[at]).ok_or_else(|| {
                let mode = String::from_utf8_lossy(&modes[at]);
                node.wrong("nodes_modes", format!("node {at} is {mode:?}"))
            })?;
            let mut branch = Branch {
                feature: 0,
                test,
                threshold: values[at],
                missing: missing.get(at) == Some(&1),
                yes: at,
                no: at,
                leaf: [0.0; 2],
            };
            if test != Test::Leaf {
                let feature = usize::try_from(features[at]).ok();
                branch.feature = feature.filter(|&one| one < width).ok_or_else(|| {
                    let problem = format!("node {at} asks for {} of {width}", features[at]);
                    node.wrong("nodes_featureids", problem)
                })?;
                for (name, number, child) in [
                    ("nodes_truenodeids", yes[at], &mut branch.yes),
                    ("nodes_falsenodeids", no[at], &mut branch.no),
                ] {
                    *child = *places.get(&(trees[at], number)).ok_or_else(|| {
                        let problem = format!("tree {} has no node {number}", trees[at]);
                        node.wrong(name, problem)
                    })?;
                    parents[*child] += 1;
                }
            }
            self.nodes.push(branch);
        }
        self.roots = (0..count).filter(|&at| parents[at] == 0).collect();
        let mut of_trees: Vec<i64> = trees.to_vec();
        of_trees.sort_unstable();
        of_trees.dedup();
        // One root a tree and one parent each: what is not reached then hangs in a circle.
        if parents.iter().any(|&count| count > 1)
            || self.roots.len() != of_trees.len()
            || self.reached() != count
        {
            return Err(node.wrong("nodes_treeids", "the nodes do not form trees"));
        }
        Ok(places)
    }

    /// How many nodes there are below the roots, and the roots.
    fn reached(&self) -> usize {
        let mut left = self.roots.clone();
        let mut reached = 0;
        while let Some(at) = left.pop() {
            reached += 1;
            if let Some(branch) = self.nodes.get(at).filter(|one| one.test != Test::Leaf) {
                left.extend([branch.yes, branch.no]);
            }
        }
        reached
    }

    fn read_leaves(
        &mut self,
        node: &Node<'_>,
        places: &HashMap<(i64, i64), usize>,
    ) -> Result<(), ModelError> {
        let names = match node.is_classifier() {
            true => [
                "class_ids",
                "class_treeids",
                "class_nodeids",
                "class_weights",
            ],
            false => [
                "target_ids",
                "target_treeids",
                "target_nodeids",
                "target_weights",
            ],
        };
        let [ids, trees, numbers, weights] = names;
        let values = node.floats(weights)?;
        let ints = |name: &'static str| match node.ints(name) {
            ints if ints.len() == values.len() => Ok(ints),
            ints => {
                let problem = format!("{} values for {} weights", ints.len(), values.len());
                Err(node.wrong(name, problem))
            }
        };
        let (of, trees, numbers) = (ints(ids)?, ints(trees)?, ints(numbers)?);
        let first = of.first().copied().unwrap_or(0);
        let (most, kind) = match node.is_classifier() {
            false => (0, Kind::Value),
            true if of.iter().all(|&id| id == first) => (1, Kind::Second),
            true => (1, Kind::Classes),
        };
        self.kind = kind;
        for (at, (&id, &weight)) in of.iter().zip(values).enumerate() {
            if !(0..=most).contains(&id) {
                return Err(node.wrong(ids, format!("value {at} is {id}, not 0 to {most}")));
            }
            let key = (trees[at], numbers[at]);
            let place = places
                .get(&key)
                .and_then(|&place| self.nodes.get_mut(place));
            let Some(leaf) = place.filter(|one| one.test == Test::Leaf) else {
                let problem = format!("value {at}: node {} of tree {} is no leaf", key.1, key.0);
                return Err(node.wrong(weights, problem));
            };
            let class = usize::from(kind != Kind::Classes || id == 1);
            leaf.leaf[class] += f64::from(weight);
        }
        Ok(())
    }

    pub(crate) fn value(&self, row: &[f32]) -> Value {
        let mut sums = [0.0_f64; 2];
        for (tree, &root) in self.roots.iter().enumerate() {
            let leaf = self.leaf(root, row);
            for (sum, leaf) in sums.iter_mut().zip(leaf) {
                *sum = match self.aggregate {
                    Aggregate::Sum | Aggregate::Average => *sum + leaf,
                    Aggregate::Least if tree > 0 => sum.min(leaf),
                    Aggregate::Most if tree > 0 => sum.max(leaf),
                    Aggregate::Least | Aggregate::Most => leaf,
                };
            }
        }
        if self.aggregate == Aggregate::Average {
            sums = sums.map(|sum| sum / self.roots.len() as f64);
        }
        let sums = [sums[0] + self.base[0], sums[1] + self.base[1]];
        match self.kind {
            Kind::Value => self.transform.one(sums[1]),
            Kind::Second => self.transform.second(sums[1]),
            Kind::Classes => self.transform.both(sums),
        }
    }

    fn leaf(&self, root: usize, row: &[f32]) -> [f64; 2] {
        let mut at = root;
        loop {
            let branch = &self.nodes[at];
            if branch.test == Test::Leaf {
                return branch.leaf;
            }
            let value = row[branch.feature];
            let yes = match value.is_nan() {
                true => branch.missing,
                false => branch.test.holds(value, branch.threshold),
            };
            at = if yes { branch.yes } else { branch.no };
        }
    }
}

fn aggregate(node: &Node<'_>) -> Result<Aggregate, ModelError> {
    if node.is_classifier() {
        return Ok(Aggregate::Sum);
    }
    let targets = node.number("n_targets").unwrap_or(1);
    if targets != 1 {
        return Err(node.wrong(
            "n_targets",
            format!("{targets} values, a re-ranker gives one"),
        ));
    }
    match node.text("aggregate_function")? {
        None | Some("SUM") => Ok(Aggregate::Sum),
        Some("AVERAGE") => Ok(Aggregate::Average),
        Some("MIN") => Ok(Aggregate::Least),
        Some("MAX") => Ok(Aggregate::Most),
        Some(other) => {
            let problem = format!("{other:?} is none of SUM, AVERAGE, MIN, MAX");
            Err(node.wrong("aggregate_function", problem))
        }
    }
}
