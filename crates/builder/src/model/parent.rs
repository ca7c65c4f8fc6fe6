//! What of a model the next training starts from.

use refrain_bundle::Column;

use crate::Dictionary;

/// The users and items of a model and their factors, which stay in its file, mapped: a training reads them once, into its
/// own. [`Parent::load`] has checked all of it.
#[derive(Debug, Clone)]
pub struct Parent {
    pub(super) rank: usize,
    pub(super) items: Dictionary,
    pub(super) users: Dictionary,
    pub(super) item_factors: Column<f32>,
    pub(super) user_factors: Column<f32>,
}

impl Parent {
    /// Factors of one item or user.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Item ids by ordinal.
    pub fn items(&self) -> &Dictionary {
        &self.items
    }

    /// User ids by ordinal.
    pub fn users(&self) -> &Dictionary {
        &self.users
    }

    /// `items * rank` values, row-major.
    pub fn item_factors(&self) -> &[f32] {
        self.item_factors.as_slice()
    }

    /// `users * rank` values, row-major.
    pub fn user_factors(&self) -> &[f32] {
        self.user_factors.as_slice()
    }
}
