//! The measures of similarity an index can be built for.

use std::{error::Error, fmt, str::FromStr};

/// How two vectors are compared.
///
/// A *score* under a metric is always better when larger: the dot product for
/// [`Metric::InnerProduct`] and [`Metric::Cosine`] (whose vectors are normalised beforehand), the
/// negated squared Euclidean distance for [`Metric::L2`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Maximum inner product, norms included: what ALS factors are made for.
    InnerProduct,
    /// Inner product of unit vectors.
    Cosine,
    /// Euclidean distance, squared.
    L2,
}

impl Metric {
    /// Every metric, in the order of their codes in files.
    pub const ALL: [Self; 3] = [Self::InnerProduct, Self::Cosine, Self::L2];

    /// The name used in configuration, on the command line and in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InnerProduct => "ip",
            Self::Cosine => "cosine",
            Self::L2 => "l2",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Metric {
    type Err = ParseMetricError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|metric| metric.as_str() == name)
            .ok_or_else(|| ParseMetricError {
                name: name.to_owned(),
            })
    }
}

/// A name that is no metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseMetricError {
    /// What was given.
    pub name: String,
}

impl fmt::Display for ParseMetricError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown metric {:?}: expected ip, cosine or l2",
            self.name
        )
    }
}

impl Error for ParseMetricError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_round() {
        for metric in Metric::ALL {
            assert_eq!(metric.to_string().parse(), Ok(metric));
        }
        let error = "IP".parse::<Metric>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown metric \"IP\": expected ip, cosine or l2"
        );
    }
}
