//! A graph that is a chain: from the one input, over what prepares it, to the model, and what normalises it.

use prost::Message as _;
use refrain_ranking::Model;

use crate::ModelError;
use crate::forest::Forest;
use crate::linear::{Linear, Scaler};
use crate::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto};

/// The operators, for people.
pub(crate) const KNOWN: &str = "LinearRegressor, LinearClassifier, TreeEnsembleRegressor, \
     TreeEnsembleClassifier, Scaler, Normalizer, ZipMap, Cast, Identity";

/// Most nodes of a chain.
const MOST_NODES: usize = 16;
/// ONNX' number of single precision.
const FLOAT: i64 = 1;

/// A model, ready to be asked.
#[derive(Debug)]
pub struct OnnxModel {
    width: usize,
    scalers: Vec<Scaler>,
    core: Core,
    /// Divide by the sum of both classes.
    normalised: bool,
}

#[derive(Debug)]
enum Core {
    Linear(Linear),
    Forest(Forest),
}

impl OnnxModel {
    /// Reads a model that takes `width` features.
    ///
    /// # Errors
    /// [`ModelError`]: what is wrong, and where.
    pub fn read(bytes: &[u8], width: usize) -> Result<Self, ModelError> {
        if width == 0 {
            return Err(ModelError::Graph("a model needs a feature".to_owned()));
        }
        let graph = ModelProto::decode(bytes)?.graph;
        let graph = graph.ok_or_else(|| ModelError::Graph("there is no graph".to_owned()))?;
        let chain = chain(&graph)?;
        check_input(&graph, width)?;
        let (mut scalers, mut core, mut normalised) = (Vec::new(), None, false);
        for node in chain {
            match (node.operator(), core.is_some()) {
                ("Scaler", false) => scalers.push(Scaler::read(&node, width)?),
                ("LinearRegressor" | "LinearClassifier", false) => {
                    core = Some(Core::Linear(Linear::read(&node, width)?));
                }
                ("TreeEnsembleRegressor" | "TreeEnsembleClassifier", false) => {
                    core = Some(Core::Forest(Forest::read(&node, width)?));
                }
                ("Normalizer", true) => {
                    if node.text("norm")?.is_some_and(|norm| norm != "L1") {
                        return Err(node.wrong("norm", "only L1 is known after a model"));
                    }
                    normalised = true;
                }
                ("Cast", _) if node.number("to") != Some(FLOAT) => {
                    return Err(node.wrong("to", "only single precision is known"));
                }
                // The same numbers in another wrapping.
                ("Cast" | "Identity", _) | ("ZipMap", true) => {}
                (operator, _) => {
                    return Err(ModelError::Operator {
                        node: node.at,
                        operator: operator.to_owned(),
                    });
                }
            }
        }
        let none = || ModelError::Graph(format!("the graph has none of {KNOWN}"));
        Ok(Self {
            width,
            scalers,
            core: core.ok_or_else(none)?,
            normalised,
        })
    }

    fn one(&self, row: &[f32], scaled: &mut Vec<f32>) -> f32 {
        scaled.clear();
        scaled.extend_from_slice(row);
        for scaler in &self.scalers {
            scaler.apply(scaled);
        }
        let value = match &self.core {
            Core::Linear(linear) => linear.value(scaled),
            Core::Forest(forest) => forest.value(scaled),
        };
        match value {
            Value::One(value) => value,
            Value::Of { first, second } if self.normalised => {
                let sum = first.abs() + second.abs();
                if sum > 0.0 { second / sum } else { second }
            }
            Value::Of { second, .. } => second,
        }
    }
}

impl Model for OnnxModel {
    fn predict(&self, rows: &[f32], out: &mut Vec<f32>) {
        let mut scaled = Vec::with_capacity(self.width);
        out.clear();
        out.extend(
            rows.chunks_exact(self.width)
                .map(|row| self.one(row, &mut scaled)),
        );
    }
}

/// What a model says of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    One(f32),
    /// Of two classes.
    Of {
        first: f32,
        second: f32,
    },
}

/// What becomes of a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transform {
    None,
    Logistic,
    Softmax,
}

impl Transform {
    pub(crate) fn read(node: &Node<'_>) -> Result<Self, ModelError> {
        match node.text("post_transform")? {
            None | Some("NONE") => Ok(Self::None),
            Some("LOGISTIC") => Ok(Self::Logistic),
            Some("SOFTMAX") => Ok(Self::Softmax),
            Some(other) => {
                let problem = format!("{other:?} is none of NONE, LOGISTIC, SOFTMAX");
                Err(node.wrong("post_transform", problem))
            }
        }
    }

    /// Of a sum that stands alone.
    pub(crate) fn one(self, sum: f64) -> Value {
        let value = match self {
            Self::None | Self::Softmax => sum,
            Self::Logistic => logistic(sum),
        };
        Value::One(single(value))
    }

    /// Of the sum that speaks for the second of two classes.
    pub(crate) fn second(self, sum: f64) -> Value {
        let (first, second) = match self {
            Self::None => (1.0 - sum, sum),
            Self::Logistic | Self::Softmax => (logistic(-sum), logistic(sum)),
        };
        Value::Of {
            first: single(first),
            second: single(second),
        }
    }

    /// Of a sum for each of two classes.
    pub(crate) fn both(self, [first, second]: [f64; 2]) -> Value {
        let (first, second) = match self {
            Self::None => (first, second),
            Self::Logistic => (logistic(first), logistic(second)),
            Self::Softmax => (logistic(first - second), logistic(second - first)),
        };
        Value::Of {
            first: single(first),
            second: single(second),
        }
    }
}

/// By libm, which gives the same bits everywhere.
fn logistic(value: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-value))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "scores are computed in single precision"
)]
fn single(value: f64) -> f32 {
    value as f32
}

/// A node and its place in the graph.
pub(crate) struct Node<'a> {
    pub(crate) at: usize,
    proto: &'a NodeProto,
}

impl<'a> Node<'a> {
    pub(crate) fn operator(&self) -> &'a str {
        &self.proto.op_type
    }

    pub(crate) fn is_classifier(&self) -> bool {
        self.operator().ends_with("Classifier")
    }

    pub(crate) fn wrong(&self, attribute: &'static str, problem: impl Into<String>) -> ModelError {
        ModelError::Attribute {
            node: self.at,
            operator: self.operator().to_owned(),
            attribute,
            problem: problem.into(),
        }
    }

    fn get(&self, name: &str) -> Option<&'a AttributeProto> {
        let mut attributes = self.proto.attribute.iter();
        attributes.find(|attribute| attribute.name == name)
    }

    pub(crate) fn floats(&self, name: &'static str) -> Result<&'a [f32], ModelError> {
        let floats = self.get(name).map_or(&[][..], |found| &found.floats);
        match floats.iter().position(|value| !value.is_finite()) {
            None => Ok(floats),
            Some(at) => Err(self.wrong(name, format!("value {at} is not finite"))),
        }
    }

    pub(crate) fn ints(&self, name: &str) -> &'a [i64] {
        self.get(name).map_or(&[][..], |found| &found.ints)
    }

    pub(crate) fn texts(&self, name: &str) -> &'a [Vec<u8>] {
        self.get(name).map_or(&[][..], |found| &found.strings)
    }

    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        self.get(name).map(|found| found.i)
    }

    pub(crate) fn text(&self, name: &'static str) -> Result<Option<&'a str>, ModelError> {
        let text = self.get(name).map(|found| str::from_utf8(&found.s));
        text.transpose()
            .map_err(|_| self.wrong(name, "is not UTF-8"))
    }

    /// Two classes, or none where the operator has no classes.
    pub(crate) fn check_classes(&self) -> Result<(), ModelError> {
        for labels in [
            "classlabels_ints",
            "classlabels_int64s",
            "classlabels_strings",
        ] {
            let count = self.ints(labels).len().max(self.texts(labels).len());
            if count > 0 && count != 2 {
                let problem = format!("{count} classes, a re-ranker has two");
                return Err(self.wrong("classlabels", problem));
            }
        }
        Ok(())
    }

    /// That a parameter of doubles does not hide what is read in floats.
    pub(crate) fn check_single(&self, names: &[&'static str]) -> Result<(), ModelError> {
        match names.iter().find(|name| self.get(name).is_some()) {
            Some(name) => Err(self.wrong(name, "double precision is not read")),
            None => Ok(()),
        }
    }
}

/// The nodes between the graph's input and its last output, in order: a classifier's outputs are the label and
/// what is wanted.
fn chain(graph: &GraphProto) -> Result<Vec<Node<'_>>, ModelError> {
    let bad = |problem: String| ModelError::Graph(problem);
    let [input] = graph.input.as_slice() else {
        let count = graph.input.len();
        return Err(bad(format!(
            "the graph has {count} inputs, not one for all features"
        )));
    };
    let output = graph.output.last();
    let mut wanted = &output
        .ok_or_else(|| bad("the graph has no output".to_owned()))?
        .name;
    let mut chain = Vec::new();
    while *wanted != input.name {
        let mut nodes = graph.node.iter().enumerate();
        let found = nodes.find(|(_, node)| node.output.contains(wanted));
        let (at, proto) = found.ok_or_else(|| bad(format!("nothing gives {wanted:?}")))?;
        let node = Node { at, proto };
        // A classifier's first output is the label.
        if node.is_classifier() && proto.output.last() != Some(wanted) {
            return Err(bad(format!(
                "{wanted:?} is a label; the last output must be the probabilities"
            )));
        }
        let [before] = proto.input.as_slice() else {
            // What takes several inputs is none of those that are known.
            return Err(ModelError::Operator {
                node: at,
                operator: node.operator().to_owned(),
            });
        };
        wanted = before;
        chain.push(node);
        if chain.len() > MOST_NODES {
            return Err(bad(format!("more than {MOST_NODES} nodes in a row")));
        }
    }
    chain.reverse();
    Ok(chain)
}

/// One row of so many numbers in single precision for each candidate.
fn check_input(graph: &GraphProto, width: usize) -> Result<(), ModelError> {
    let kind = graph.input.first().and_then(|input| input.kind.as_ref());
    let Some(tensor) = kind.and_then(|kind| kind.tensor.as_ref()) else {
        return Err(ModelError::Graph("the input is no tensor".to_owned()));
    };
    if i64::from(tensor.element) != FLOAT {
        return Err(ModelError::Graph(
            "the input is not in single precision (float)".to_owned(),
        ));
    }
    let dims = tensor.shape.as_ref().map_or(&[][..], |shape| &shape.dim);
    let Some(takes) = dims.get(1).and_then(|dim| dim.value) else {
        return Ok(());
    };
    match usize::try_from(takes) {
        Ok(takes) if takes == width => Ok(()),
        takes => Err(ModelError::Width {
            takes: takes.unwrap_or(0),
            given: width,
        }),
    }
}
