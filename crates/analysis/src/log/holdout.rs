//! What the column `holdouts` of the exposures says of one holdout: `NAME|EPOCH|held` or
//! `NAME|EPOCH|slice`, several parted by `||`. Holdouts draw independently of each other.

use std::collections::BTreeSet;

use arrow_array::DictionaryArray;
use arrow_array::types::Int32Type;

use super::columns::key_at;
use crate::plan::{HOLDOUT_ARMS, Plan};

/// Name of the column.
pub(crate) const HOLDOUTS: &str = "holdouts";

/// Where the unit of a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Held out or in the slice, as an arm of the plan.
    Arm(u32),
    /// The same of another epoch of this holdout.
    OtherEpoch,
    /// Another holdout holds it, so it does not live like its side of this one. Both sides lose the same
    /// share of units to that.
    HeldElsewhere,
    /// On neither side.
    Outside,
}

/// The column of a batch, each word looked at once.
pub(crate) struct Holdouts {
    words: DictionaryArray<Int32Type>,
    standings: Vec<Standing>,
}

impl Holdouts {
    pub(crate) fn new(plan: &Plan, words: DictionaryArray<Int32Type>) -> Self {
        Self {
            standings: super::rows::strings(&words)
                .map(|text| standing(plan, text))
                .collect(),
            words,
        }
    }

    pub(crate) fn row(&self, row: usize) -> Standing {
        key_at(&self.words, row).map_or(Standing::Outside, |key| self.standings[key])
    }

    /// Holdouts and epochs that the batch has, for the message that none was the right one.
    pub(crate) fn known(&self) -> BTreeSet<(&str, i64)> {
        super::rows::strings(&self.words)
            .flat_map(memberships)
            .map(|(name, epoch, _)| (name, epoch))
            .collect()
    }
}

/// Name, epoch and side of each holdout that a text names.
fn memberships(text: &str) -> impl Iterator<Item = (&str, i64, &str)> {
    text.split("||").filter_map(|one| {
        let mut parts = one.split('|');
        let found = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        parts.next().is_none().then_some(found)
    })
}

fn standing(plan: &Plan, text: &str) -> Standing {
    let [held, _] = HOLDOUT_ARMS;
    let mine = |name: &str| plan.holdout.as_deref() == Some(name);
    let mut standing = Standing::Outside;
    for (name, epoch, side) in memberships(text) {
        if !mine(name) {
            if side == held {
                return Standing::HeldElsewhere;
            }
        } else if epoch != i64::from(plan.epoch) {
            standing = Standing::OtherEpoch;
        } else if let Some((arm, _)) = (0..).zip(HOLDOUT_ARMS).find(|(_, arm)| *arm == side) {
            standing = Standing::Arm(arm);
        }
    }
    standing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_stands_where_its_holdout_says_unless_another_holds_it() {
        let text = "[experiment.value]\nkind = \"holdout\"\nholdout = \"2026 q4\"\nepoch = 3\n\
             design = { method = \"always_valid\" }\n\
             [[experiment.value.metric]]\nname = \"minutes\"\nrole = \"success\"\nwindow = \"closed(0d,7d)\"\n";
        let plan = Plan::from_toml(text, None).expect("valid");
        let names: Vec<&str> = plan.arms.iter().map(|arm| arm.name.as_str()).collect();
        assert_eq!(names, HOLDOUT_ARMS);
        for (text, wanted) in [
            ("", Standing::Outside),
            ("2026 q4|3|held", Standing::Arm(0)),
            ("2026 q4|3|slice", Standing::Arm(1)),
            ("2026 q4|2|held", Standing::OtherEpoch),
            ("2026 q1|3|slice", Standing::Outside),
            ("2026 q1|3|slice||2026 q4|3|held", Standing::Arm(0)),
            ("2026 q1|1|held||2026 q4|3|held", Standing::HeldElsewhere),
            ("2026 q4|3|slice||a,b: c|9|held", Standing::HeldElsewhere),
            ("2026 q4|3|unheard of", Standing::Outside),
            ("nonsense||2026 q4|3|slice|x", Standing::Outside),
        ] {
            assert_eq!(standing(&plan, text), wanted, "{text}");
        }
    }
}
