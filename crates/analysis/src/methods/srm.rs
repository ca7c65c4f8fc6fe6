//! Sample-ratio mismatch: do the arms have the shares of units they were promised? A mismatch means
//! that units were lost or moved in a way that may depend on the arm, so no effect can be trusted.

use serde::{Deserialize, Serialize};

use super::error::{MethodError, check_count, check_lengths, check_positive};
use super::moments::count;
use super::special::{chi_square_sf, ln_gamma};

/// Level of the single final look.
pub const FIXED_ALPHA: f64 = 1e-3;
/// Level of the sequential test.
pub const SEQUENTIAL_ALPHA: f64 = 0.01;
/// Total concentration of the sequential test's prior, per arm.
pub const CONCENTRATION_PER_ARM: f64 = 100.0;

/// Pearson's test at one look.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Fixed {
    /// Σ (observed − expected)² / expected.
    pub chi_square: f64,
    /// Arms − 1.
    pub df: u64,
    /// P-value.
    pub p: f64,
}

/// Chi-square test of the counts of units (first exposures) against the planned weights, which need
/// not sum to 1.
///
/// For one look at the end, alarm below [`FIXED_ALPHA`]. Looked at daily it alarms too often: use
/// [`sequential`]. Needs an expected count of five or more in every arm.
///
/// # Errors
/// Fewer than two arms, different lengths, a weight that is not above 0, no units.
pub fn fixed(counts: &[u64], weights: &[f64]) -> Result<Fixed, MethodError> {
    let shares = shares(counts, weights)?;
    let n = count(counts.iter().sum());
    let chi_square = counts
        .iter()
        .zip(&shares)
        .map(|(&observed, share)| {
            let expected = n * share;
            (count(observed) - expected) * (count(observed) - expected) / expected
        })
        .sum();
    let df = counts.len() as u64 - 1;
    Ok(Fixed {
        chi_square,
        df,
        p: chi_square_sf(chi_square, count(df)),
    })
}

/// The test by betting that may be looked at after every unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sequential {
    /// Logarithm of the e-value: the capital of a bettor against the planned weights.
    pub ln_e: f64,
    /// `min(1, 1/e)`: valid at every look. Over looks, keep the smallest.
    pub p: f64,
}

/// Dirichlet–multinomial test of Lindon and Malek (2020): valid however often one looks; alarm below
/// [`SEQUENTIAL_ALPHA`].
///
/// `ln e = lnΓ(A) − lnΓ(A + n) + Σ [lnΓ(aᵢ + nᵢ) − lnΓ(aᵢ)] − Σ nᵢ ln θᵢ`, `a = A θ`,
/// `A =` [`CONCENTRATION_PER_ARM`] `· arms`. Weaker than [`fixed`] at a single look, by design.
///
/// # Errors
/// As [`fixed`].
pub fn sequential(counts: &[u64], weights: &[f64]) -> Result<Sequential, MethodError> {
    let shares = shares(counts, weights)?;
    let n = count(counts.iter().sum());
    let total = CONCENTRATION_PER_ARM * count(counts.len() as u64);
    let mut ln_e = ln_gamma(total) - ln_gamma(total + n);
    for (&observed, share) in counts.iter().zip(&shares) {
        let observed = count(observed);
        let a = total * share;
        ln_e += ln_gamma(a + observed) - ln_gamma(a) - observed * libm::log(*share);
    }
    Ok(Sequential {
        ln_e,
        p: libm::exp(-ln_e).min(1.0),
    })
}

/// Counts of one attribute's value: "platform" = "web", index version = "v12", day = "2026-11-03".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The attribute.
    pub attribute: String,
    /// One of its values.
    pub value: String,
    /// Units an arm, in the order of the weights.
    pub counts: Vec<u64>,
}

/// A cell in the search for the cause of a mismatch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    /// The cell.
    pub cell: Cell,
    /// Its own test.
    pub test: Fixed,
    /// P-value times the number of cells tested (Bonferroni), at most 1.
    pub p_adjusted: f64,
    /// P-value of the test over all *other* units of the same attribute: large where this cell alone
    /// explains the alarm.
    pub p_without: f64,
    /// Units above (or below) plan, an arm.
    pub excess: Vec<f64>,
}

/// Tests every cell of every attribute and ranks them, most suspicious first: where the mismatch is
/// concentrated is usually what caused it. Cells too small for the test (expected count below five)
/// are left out.
///
/// # Errors
/// As [`fixed`], for any cell.
pub fn search_cause(cells: &[Cell], weights: &[f64]) -> Result<Vec<Suspect>, MethodError> {
    let mut tested = Vec::new();
    for cell in cells {
        if cell.counts.iter().all(|&c| c == 0) {
            continue;
        }
        let shares = shares(&cell.counts, weights)?;
        let n = count(cell.counts.iter().sum());
        if shares.iter().any(|s| n * s < 5.0) {
            continue;
        }
        let rest: Vec<u64> = (0..weights.len())
            .map(|arm| {
                cells
                    .iter()
                    .filter(|c| c.attribute == cell.attribute && c.value != cell.value)
                    .filter_map(|c| c.counts.get(arm))
                    .sum()
            })
            .collect();
        let p_without = if rest.iter().sum::<u64>() == 0 {
            1.0
        } else {
            fixed(&rest, weights)?.p
        };
        tested.push(Suspect {
            test: fixed(&cell.counts, weights)?,
            p_adjusted: 1.0,
            p_without,
            excess: cell
                .counts
                .iter()
                .zip(&shares)
                .map(|(&c, s)| count(c) - n * s)
                .collect(),
            cell: cell.clone(),
        });
    }
    let trials = count(tested.len() as u64);
    for suspect in &mut tested {
        suspect.p_adjusted = (suspect.test.p * trials).min(1.0);
    }
    tested.sort_by(|a, b| {
        a.test
            .p
            .total_cmp(&b.test.p)
            .then(b.test.chi_square.total_cmp(&a.test.chi_square))
            .then_with(|| a.cell.attribute.cmp(&b.cell.attribute))
            .then_with(|| a.cell.value.cmp(&b.cell.value))
    });
    Ok(tested)
}

fn shares(counts: &[u64], weights: &[f64]) -> Result<Vec<f64>, MethodError> {
    check_count("arms", 2, counts.len() as u64)?;
    check_lengths("arms and weights", counts.len(), weights.len())?;
    check_count("units", 1, counts.iter().sum())?;
    for &w in weights {
        check_positive("an arm's weight", w)?;
    }
    let total: f64 = weights.iter().sum();
    Ok(weights.iter().map(|w| w / total).collect())
}
