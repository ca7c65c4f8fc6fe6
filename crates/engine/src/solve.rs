//! A listener's profile made into what a search needs: the fold-in of their taste.

use std::sync::Arc;

use refrain_als::{FoldInError, FoldInScratch};
use refrain_index::OrdinalSet;
use refrain_ranking::MAX_INTERESTS;
use refrain_taste::{Profile, Taste, Weights, resolve};

use crate::answer::ProfileUse;
use crate::interests::{self, Interest, Kept};
use crate::query::{Mean, is_zero};
use crate::recommend::Scratch;
use crate::version::Version;

/// Why a profile cannot be folded in: the version is damaged.
pub type FoldError = FoldInError;

/// What a profile means to one version at one instant, with the vector solved.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SolvedTaste {
    /// The taste: evidence, heard and forbidden items.
    pub taste: Taste,
    /// The listener's vector in the space of the version; all zeros when nothing speaks for anything.
    pub vector: Vec<f32>,
    version: Arc<str>,
    delta: u64,
    revision: u64,
    solved_us: i64,
    heard: OrdinalSet,
    forbidden: OrdinalSet,
    interests: Kept,
}

impl SolvedTaste {
    /// Version that folded it in.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Delta of that version, which knew these items.
    #[must_use]
    pub fn delta(&self) -> u64 {
        self.delta
    }

    /// Revision of the profile behind it.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether it is what folding the same profile in at `now_us` would give: no rule has expired
    /// since, nor was one still in force before.
    #[must_use]
    pub fn is_valid_at(&self, now_us: i64) -> bool {
        self.solved_us <= now_us && self.taste.valid_until_us.is_none_or(|until| now_us < until)
    }

    /// What there is to report about it.
    #[must_use]
    pub fn profile_use(&self) -> ProfileUse {
        ProfileUse::new(self.revision, &self.taste, !is_zero(&self.vector))
    }

    pub(crate) fn heard(&self) -> &OrdinalSet {
        &self.heard
    }

    pub(crate) fn forbidden(&self) -> &OrdinalSet {
        &self.forbidden
    }

    /// The listener's interests, at most `most`; empty where the profile as a whole is the one there is.
    /// Kept for the number that was asked for last.
    pub(crate) fn interests(
        &self,
        version: &Version,
        most: usize,
        scratch: &mut FoldInScratch,
    ) -> Result<Arc<[Interest]>, FoldError> {
        self.interests.get_or(most, || {
            interests::interests(version, &self.taste, most, scratch)
        })
    }

    /// Approximate bytes in memory, for the bound of a cache.
    pub(crate) fn bytes(&self) -> u64 {
        let Taste {
            evidence,
            heard,
            forbidden,
            ..
        } = &self.taste;
        // The sets hold a table of at most four slots a member beside the sorted lists.
        let ordinals = (heard.len() + forbidden.len()) * 5 * size_of::<u32>();
        // As if all that can be asked for of interests were there: the evidence once more, a vector each.
        let evidence = 2 * evidence.len() * size_of::<(u32, f32)>();
        let vectors = (1 + MAX_INTERESTS) * self.vector.len() * size_of::<f32>();
        let rest = evidence + vectors;
        (size_of::<Self>() + ordinals + rest) as u64
    }
}

/// Resolves a profile's rules at an instant and solves its vector.
///
/// The vector is the implicit-ALS fold-in of the remaining evidence: exactly what training would have
/// given such a listener. A version without a model has nothing to solve with; there it is the
/// weighted mean of the items with positive evidence less that of those with negative evidence.
/// O(events log events + evidence · rank² + rank³).
///
/// # Errors
/// [`FoldError`] when the version's factors are damaged.
pub fn fold_in(
    version: &Version,
    profile: &Profile,
    now_us: i64,
    weights: &Weights,
    scratch: &mut Scratch,
) -> Result<SolvedTaste, FoldError> {
    let taste = resolve(profile, now_us, &version.catalogue(), weights);
    let vector = solve(version, &taste.evidence, &mut scratch.fold_in)?;
    Ok(SolvedTaste {
        heard: taste.heard.iter().copied().collect(),
        forbidden: taste.forbidden.iter().copied().collect(),
        interests: Kept::default(),
        taste,
        vector,
        version: Arc::clone(version.shared_id()),
        delta: version.delta(),
        revision: profile.revision,
        solved_us: now_us,
    })
}

/// Factors and strengths of evidence, whether its items are of the base or of a delta.
pub(crate) fn rows(version: &Version, evidence: &[(u32, f32)]) -> (Vec<f32>, Vec<f32>) {
    let mut rows = Vec::with_capacity(evidence.len() * version.index().dim());
    let mut strengths = Vec::with_capacity(evidence.len());
    for &(ordinal, strength) in evidence {
        if let Some(row) = version.factor(ordinal) {
            rows.extend_from_slice(&row);
            strengths.push(strength);
        }
    }
    (rows, strengths)
}

/// The vector of evidence that is ascending by ordinal.
pub(crate) fn solve(
    version: &Version,
    evidence: &[(u32, f32)],
    scratch: &mut FoldInScratch,
) -> Result<Vec<f32>, FoldError> {
    let mut vector = Vec::new();
    if let Some((fold_in, factors)) = version.model() {
        if evidence
            .iter()
            .all(|&(ordinal, _)| !version.is_of_delta(ordinal))
        {
            fold_in.solve(factors, evidence, scratch, &mut vector)?;
            return Ok(vector);
        }
        let (rows, strengths) = rows(version, evidence);
        fold_in.solve_rows(&rows, &strengths, scratch, &mut vector)?;
        return Ok(vector);
    }
    let mean = |wanted: fn(f32) -> bool| {
        let mut mean = Mean::new(version.index().dim());
        for &(ordinal, strength) in evidence.iter().filter(|(_, strength)| wanted(*strength)) {
            if let Some(values) = version.vector(ordinal) {
                mean.add(&values, strength.abs());
            }
        }
        mean
    };
    mean(|strength| strength > 0.0).less(&mean(|strength| strength < 0.0), &mut vector);
    Ok(vector)
}
