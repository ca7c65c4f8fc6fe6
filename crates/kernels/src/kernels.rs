//! The dispatch table: one set of kernels, chosen once.

use std::{fmt, sync::OnceLock};

use crate::{Level, LevelError, Metric, PREFETCH_LINES, scalar};

/// The environment variable that forces a [`Level`].
const FORCE: &str = "REFRAIN_SIMD";

/// A resolved set of kernels: copy it, keep it, call it.
///
/// Slices may start anywhere (no alignment is asked for). Lengths are the caller's to get right;
/// each function says what it asserts.
#[derive(Clone, Copy)]
pub struct Kernels {
    level: Level,
    table: &'static Table,
}

impl Kernels {
    /// The best level of this machine, or the one `REFRAIN_SIMD` asks for
    /// (`scalar`, `avx2`, `avx512`, `avx512vnni`, `neon`). A value that cannot be honoured is ignored here;
    /// programs report it at start through [`Kernels::from_env`].
    pub fn active() -> Self {
        static ACTIVE: OnceLock<Kernels> = OnceLock::new();
        *ACTIVE.get_or_init(|| Self::from_env().unwrap_or_else(|_| Self::best()))
    }

    /// As [`Kernels::active`], but a bad value of `REFRAIN_SIMD` is an error.
    ///
    /// # Errors
    /// [`LevelError`] when the variable names no level, or one this machine lacks.
    pub fn from_env() -> Result<Self, LevelError> {
        match std::env::var_os(FORCE) {
            None => Ok(Self::best()),
            Some(value) => {
                let level: Level = value
                    .to_string_lossy()
                    .parse()
                    .map_err(LevelError::Unknown)?;
                Self::for_level(level).ok_or(LevelError::Unavailable { level })
            }
        }
    }

    /// The kernels of one level, if this machine can run them.
    pub fn for_level(level: Level) -> Option<Self> {
        if !level.is_available() {
            return None;
        }
        let table = match level {
            Level::Scalar => &scalar::TABLE,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => &crate::avx2::TABLE,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx512Vnni => &crate::avx512::TABLE,
            #[cfg(target_arch = "aarch64")]
            Level::Neon => &crate::neon::TABLE,
            _ => return None,
        };
        Some(Self { level, table })
    }

    /// Which level this is.
    pub fn level(&self) -> Level {
        self.level
    }

    /// `Σ aᵢ bᵢ` in the canonical order of the crate.
    ///
    /// # Panics
    /// When the lengths differ.
    #[inline]
    pub fn dot(&self, a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len(), "dot of unlike lengths");
        // SAFETY: the table belongs to a level found available in `for_level`; lengths are equal.
        unsafe { (self.table.dot)(a, b) }
    }

    /// `Σ (aᵢ - bᵢ)²` in the canonical order of the crate.
    ///
    /// # Panics
    /// When the lengths differ.
    #[inline]
    pub fn l2_squared(&self, a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len(), "l2_squared of unlike lengths");
        // SAFETY: as in `dot`.
        unsafe { (self.table.l2_squared)(a, b) }
    }

    /// The score of one pair under a metric; larger is better.
    ///
    /// # Panics
    /// When the lengths differ.
    #[inline]
    pub fn score(&self, metric: Metric, a: &[f32], b: &[f32]) -> f32 {
        match metric {
            Metric::InnerProduct | Metric::Cosine => self.dot(a, b),
            Metric::L2 => -self.l2_squared(a, b),
        }
    }

    /// Scores the rows `ids` of a row-major matrix: `out[j] = score(query, rows[ids[j]])`, larger
    /// is better; the memory of later rows is requested while earlier ones are computed.
    ///
    /// # Panics
    /// When `query.len() != dim`, `out.len() != ids.len()`, or an id is not a whole row.
    #[inline]
    pub fn score_ids(
        &self,
        metric: Metric,
        query: &[f32],
        rows: &[f32],
        dim: usize,
        ids: &[u32],
        out: &mut [f32],
    ) {
        assert_eq!(query.len(), dim, "a query of another dimension");
        assert_eq!(ids.len(), out.len(), "one score an id");
        assert_whole_rows(rows, dim, ids);
        let score = match metric {
            Metric::InnerProduct | Metric::Cosine => self.table.dot_ids,
            Metric::L2 => self.table.l2_ids,
        };
        // SAFETY: the level is available; the query has `dim` values, `out` one place an id, and
        // every id is a whole row of `dim` values inside `rows`.
        unsafe { score(query, rows, ids, out) }
    }

    /// Scores consecutive rows: `out[j] = score(query, rows[j])`, larger is better.
    ///
    /// # Panics
    /// When `query.len() != dim` or `rows.len() != out.len() * dim`.
    #[inline]
    pub fn score_rows(
        &self,
        metric: Metric,
        query: &[f32],
        rows: &[f32],
        dim: usize,
        out: &mut [f32],
    ) {
        assert_eq!(query.len(), dim, "a query of another dimension");
        assert_eq!(
            Some(rows.len()),
            out.len().checked_mul(dim),
            "one score a row"
        );
        let score = match metric {
            Metric::InnerProduct | Metric::Cosine => self.table.dot_rows,
            Metric::L2 => self.table.l2_rows,
        };
        // SAFETY: the level is available; `rows` holds `out.len()` rows as long as the query.
        unsafe { score(query, rows, out) }
    }

    /// `yᵢ ← alpha xᵢ + yᵢ`, each by one fused multiply-add.
    ///
    /// # Panics
    /// When the lengths differ.
    #[inline]
    pub fn axpy(&self, alpha: f32, x: &[f32], y: &mut [f32]) {
        assert_eq!(x.len(), y.len(), "axpy of unlike lengths");
        // SAFETY: the level is available; lengths are equal.
        unsafe { (self.table.axpy)(alpha, x, y) }
    }

    /// Adds the rows `ids` of a row-major matrix, each times its weight: `out ← weights[j] rows[ids[j]] + out`
    /// for every `j` in their order, each value by one fused multiply-add.
    ///
    /// The sums stay in registers while the rows pass by: one call costs far less than as many
    /// [`axpy`](Self::axpy).
    ///
    /// # Panics
    /// When `out.len() != dim`, `weights.len() != ids.len()`, or an id is not a whole row.
    #[inline]
    pub fn add_ids(&self, weights: &[f32], rows: &[f32], dim: usize, ids: &[u32], out: &mut [f32]) {
        assert_eq!(out.len(), dim, "a sum of another dimension");
        assert_eq!(ids.len(), weights.len(), "one weight an id");
        assert_whole_rows(rows, dim, ids);
        // SAFETY: the level is available; `out` has `dim` values, `weights` one an id, and every id is a
        // whole row of `dim` values inside `rows`.
        unsafe { (self.table.add_ids)(weights, rows, ids, out) }
    }

    /// Adds `Σ_p left_p right_pᵀ` to the upper triangle (diagonal included) of consecutive rows of a
    /// row-major `dim × dim` matrix: `A[i][j] ← left_p[i] right_p[j] + A[i][j]` for `j ≥ i`, one fused
    /// multiply-add each, in the order of `p`. With `left_p = w_p right_p` this is a symmetric update.
    ///
    /// `left` and `right` hold rows of `dim`, `upper` the rows of the matrix from row `first` on. What
    /// lies below the diagonal of these rows is scratch: it may be overwritten, by anything.
    ///
    /// Tiles of the matrix stay in registers while `p` runs: many rows a call cost far less than as
    /// many calls.
    ///
    /// # Panics
    /// When `dim` is 0, `left` and `right` differ in length, any of the three is not in whole rows of
    /// `dim`, or `upper` has more rows than `dim - first`.
    #[inline]
    pub fn rank_update(
        &self,
        dim: usize,
        first: usize,
        left: &[f32],
        right: &[f32],
        upper: &mut [f32],
    ) {
        assert_eq!(left.len(), right.len(), "rank_update of unlike lengths");
        assert!(
            left.len().is_multiple_of(dim) && upper.len().is_multiple_of(dim) && dim > 0,
            "rank_update of broken rows"
        );
        assert!(
            first <= dim && upper.len() / dim <= dim - first,
            "more rows than the matrix has"
        );
        // SAFETY: the level is available; the lengths are as asserted.
        unsafe { (self.table.rank_update)(dim, first, left, right, upper) }
    }
}

impl Kernels {
    fn best() -> Self {
        let levels = Level::available();
        levels
            .into_iter()
            .rev()
            .find_map(Self::for_level)
            .unwrap_or(Self {
                level: Level::Scalar,
                table: &scalar::TABLE,
            })
    }
}

/// Asserts that every id is a row of `dim` values inside `rows`.
#[inline]
fn assert_whole_rows(rows: &[f32], dim: usize, ids: &[u32]) {
    let Some(largest) = ids.iter().copied().max() else {
        return;
    };
    let end = (largest as usize + 1).checked_mul(dim);
    assert!(
        end.is_some_and(|end| end <= rows.len()),
        "id {largest} is past the last row"
    );
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernels")
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

/// Asks for the memory of a slice (its first lines) to be brought near. Never faults, changes
/// nothing that can be observed but time.
#[inline]
pub fn prefetch<T>(slice: &[T]) {
    let bytes = size_of_val(slice);
    let start = slice.as_ptr().cast::<u8>();
    for line in 0..bytes.div_ceil(64).min(PREFETCH_LINES) {
        prefetch_line(start.wrapping_add(line * 64));
    }
}

/// Asks for the line of one element; past the end it asks for what nobody needs.
#[inline(always)]
pub fn prefetch_at<T>(slice: &[T], at: usize) {
    prefetch_line(slice.as_ptr().wrapping_add(at).cast());
}

/// Asks for one cache line.
#[inline(always)]
pub(crate) fn prefetch_line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it is defined for any address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: `prfm` is a hint; it is defined for any address and touches no register of ours.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{address}]",
            address = in(reg) address,
            options(nostack, preserves_flags, readonly)
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// The functions of one level. Each is unsafe to call: the level must be available and the
/// lengths as the callers above assert them.
pub(crate) struct Table {
    pub(crate) dot: unsafe fn(&[f32], &[f32]) -> f32,
    pub(crate) l2_squared: unsafe fn(&[f32], &[f32]) -> f32,
    pub(crate) dot_ids: ScoreIds,
    pub(crate) l2_ids: ScoreIds,
    pub(crate) dot_rows: unsafe fn(&[f32], &[f32], &mut [f32]),
    pub(crate) l2_rows: unsafe fn(&[f32], &[f32], &mut [f32]),
    pub(crate) axpy: unsafe fn(f32, &[f32], &mut [f32]),
    pub(crate) add_ids: AddIds,
    pub(crate) rank_update: unsafe fn(usize, usize, &[f32], &[f32], &mut [f32]),
}

/// Query, rows, ids, scores.
type ScoreIds = unsafe fn(&[f32], &[f32], &[u32], &mut [f32]);

/// Weights, rows, ids, sums.
type AddIds = unsafe fn(&[f32], &[f32], &[u32], &mut [f32]);

#[cfg(test)]
mod tests;
