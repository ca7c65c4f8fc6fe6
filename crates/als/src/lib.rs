//! Implicit-feedback matrix factorisation by alternating least squares: training, Gram matrix and
//! user fold-in.
//!
//! # Model
//! For user `u` with events `(i, r)` the vector `x_u` minimises, the item vectors `y_i` fixed,
//!
//! ```text
//! Σ_{i ∈ events(u)} c(r_ui) (p_ui − x·y_i)²  +  w0 Σ_{i ∈ all items} (x·y_i)²  +  λ_u |x|²
//! λ_u = λ (n_u + w0 |I|)^ν
//! ```
//!
//! and symmetrically for items. This is Hu, Koren and Volinsky, "Collaborative filtering for
//! implicit feedback datasets" (ICDM 2008, §4), in the parametrisation of Rendle et al.,
//! "Revisiting the performance of iALS on item recommendation benchmarks" (2021, §3): an explicit
//! weight `w0` for what was not observed, and a regularisation that grows with the number of
//! observations `n_u`. The preference `p` is 1 for what was heard; fold-in also takes negative
//! evidence, `p` = 0 with a confidence of its own (a skip).
//!
//! The minimiser solves `A x = b` with `A = w0 YᵀY + Σ c y yᵀ + λ_u I` and `b = Σ c p y`. Training
//! approaches it pass by pass with conjugate gradients, `O(n d)` a step, each row from where the last pass
//! left it. Fold-in solves it exactly: by a dense Cholesky factorisation of `A`, `O(n d² + d³)` a row, or
//! for rows of few events by Woodbury's identity in the eigenbasis of `YᵀY`, `O(n² d + n³ + d²)`.
//! [`train()`] ends with the users solved exactly by the same code, so a trained user vector equals, bit
//! for bit, the fold-in of that user's history.
//!
//! # Determinism
//! Every row is solved on its own, the Gram matrix is summed over chunks whose bounds depend on the
//! number of rows only, and every kernel gives the same bits at every SIMD level. Same data, same
//! [`Hyper`], same bytes: at any thread count.

mod align;
mod cholesky;
mod conjugate;
mod dual;
mod eigen;
mod fold_in;
mod gram;
mod half_step;
mod hyper;
mod interactions;
mod normal;
mod parent;
mod progress;
mod random;
mod rotated;
mod train;

pub use align::{Rotation, rotation};
pub use eigen::{Eigen, eigen};
pub use fold_in::{FoldIn, FoldInError, FoldInScratch};
pub use gram::gram;
pub use hyper::{Confidence, Hyper, HyperError, MAX_RANK};
pub use interactions::{Interactions, InteractionsError, MAX_STRENGTH, Rows, Strengths};
pub use parent::{ParentFactors, ParentRows};
pub use progress::Progress;
pub use train::{Factors, TrainError, Trainer, train};
