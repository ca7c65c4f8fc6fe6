//! Linear models, and the scaling before them.

use crate::ModelError;
use crate::graph::{Node, Transform, Value};

/// `(value - offset) * scale`, a feature at a time.
#[derive(Debug)]
pub(crate) struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

impl Scaler {
    pub(crate) fn read(node: &Node<'_>, width: usize) -> Result<Self, ModelError> {
        let values = |name, absent: f32| {
            let values = node.floats(name)?;
            match values.len() {
                // One for all, or none.
                0 => Ok(vec![absent; width]),
                1 => Ok(vec![values[0]; width]),
                count if count == width => Ok(values.to_vec()),
                count => Err(node.wrong(name, format!("{count} values for {width} features"))),
            }
        };
        Ok(Self {
            offset: values("offset", 0.0)?,
            scale: values("scale", 1.0)?,
        })
    }

    pub(crate) fn apply(&self, row: &mut [f32]) {
        for ((value, offset), scale) in row.iter_mut().zip(&self.offset).zip(&self.scale) {
            *value = (*value - offset) * scale;
        }
    }
}

#[derive(Debug)]
pub(crate) struct Linear {
    /// For each sum a weight a feature, and the intercept.
    sums: Vec<(Vec<f32>, f32)>,
    is_classifier: bool,
    transform: Transform,
}

impl Linear {
    pub(crate) fn read(node: &Node<'_>, width: usize) -> Result<Self, ModelError> {
        node.check_classes()?;
        let coefficients = node.floats("coefficients")?;
        let is_classifier = node.is_classifier();
        let most = if is_classifier { 2 } else { 1 };
        let targets = node.number("targets").unwrap_or(1);
        if !is_classifier && targets != 1 {
            return Err(node.wrong(
                "targets",
                format!("{targets} values, a re-ranker gives one"),
            ));
        }
        let rows = coefficients.chunks(width);
        let count = rows.len();
        if coefficients.is_empty() || coefficients.len() % width != 0 || count > most {
            let problem = format!(
                "{} values, not {width} features times 1{}",
                coefficients.len(),
                if is_classifier { " or 2" } else { "" }
            );
            return Err(node.wrong("coefficients", problem));
        }
        let intercepts = node.floats("intercepts")?;
        if !intercepts.is_empty() && intercepts.len() != count {
            let problem = format!("{} values, not {count}", intercepts.len());
            return Err(node.wrong("intercepts", problem));
        }
        let intercepts = intercepts.iter().copied().chain(std::iter::repeat(0.0));
        Ok(Self {
            sums: rows.map(<[f32]>::to_vec).zip(intercepts).collect(),
            is_classifier,
            transform: Transform::read(node)?,
        })
    }

    pub(crate) fn value(&self, row: &[f32]) -> Value {
        let sum = |(weights, intercept): &(Vec<f32>, f32)| {
            let products = weights.iter().zip(row);
            let products = products.map(|(&weight, &value)| f64::from(weight) * f64::from(value));
            products.sum::<f64>() + f64::from(*intercept)
        };
        match self.sums.as_slice() {
            [first, second] => self.transform.both([sum(first), sum(second)]),
            [one] if self.is_classifier => self.transform.second(sum(one)),
            sums => self.transform.one(sums.first().map_or(0.0, sum)),
        }
    }
}
