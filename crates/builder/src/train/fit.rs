//! Learning factors from one part of a log: by ALS, from nothing or from a parent, with checkpoints; or by
//! counting listeners.

use refrain_als::{Factors, Hyper, Interactions, ParentFactors, ParentRows, Trainer as Als};

use super::checkpoint::{self, Checkpoints};
use super::{Stage, StageProgress, TrainJobError, TrainOptions, Trainer};
use crate::model::Parent;

/// Factors, and the hyper-parameters that a fold-in needs to agree with them.
pub(super) struct Fitted {
    pub(super) hyper: Hyper,
    pub(super) factors: Factors,
}

/// What a parent knows of a log.
pub(super) struct Known<'a> {
    pub(super) parent: &'a Parent,
    /// For each of the log's items its place in the parent.
    pub(super) items: Vec<Option<u32>>,
    /// The same for its users.
    pub(super) users: Vec<Option<u32>>,
    /// Whether listens were taken out of the log that it may have learned from.
    pub(super) has_exclusions: bool,
}

impl Known<'_> {
    pub(super) fn items_known(&self) -> usize {
        self.items.iter().flatten().count()
    }

    /// The parent's factors in the order of the log's users and items.
    fn factors(&self) -> ParentFactors<'_> {
        ParentFactors {
            users: ParentRows::new(&self.users, self.parent.user_factors()),
            items: ParentRows::new(&self.items, self.parent.item_factors()),
        }
    }

    /// All that is known, in that order: users, then items; none for who is new.
    pub(super) fn all(&self) -> impl Iterator<Item = Option<&[f32]>> {
        let (ParentFactors { users, items }, rank) = (self.factors(), self.parent.rank());
        users.iter(rank).chain(items.iter(rank))
    }
}

/// A training from a parent is done when a pass moved the items by no more than this share of their norm.
///
/// Gowalla's log, grown by so much, Recall@20 of one pass and of passes down to 0.1 (ten from nothing: 0.1460):
/// 5 % 0.1457 and 0.1455, 8 % 0.1461 and 0.1455, 20 % 0.1459 and 0.1458, the first pass having moved the items by 0.10, 0.12
/// and 0.20. Grown by 120 % (0.49): 0.1431 and 0.1451.
const ARRIVED: f64 = 0.15;

pub(super) fn fit(
    data: &Interactions,
    start: Option<&Known<'_>>,
    options: &TrainOptions,
    stage: Stage,
    progress: StageProgress<'_>,
) -> Result<Fitted, TrainJobError> {
    struct AtStage<'a>(Stage, StageProgress<'a>);
    impl refrain_als::Progress for AtStage<'_> {
        fn advance(&self, done: u64, total: u64) {
            self.1(self.0, done, total);
        }
    }
    if options.trainer == Trainer::Popularity {
        return Ok(by_popularity(data, &options.hyper));
    }
    let hyper = if options.scale_confidence {
        options.hyper.scaled_to(data)
    } else {
        options.hyper
    };
    let progress = AtStage(stage, progress);
    let mut als = match start {
        Some(known) => {
            let warm = Als::warm(data, &hyper, options.threads, &known.factors())?;
            // What is held out was taken away as well.
            match known.has_exclusions || stage == Stage::FitTrainingPart {
                true => warm.forgetting(),
                false => warm,
            }
        }
        None => Als::new(data, &hyper, options.threads)?,
    };
    let checkpoints = match options.checkpoints.as_deref() {
        Some(dir) => {
            let digest = checkpoint::digest(data, &hyper, start);
            Some(Checkpoints::new(dir, stage, digest)?)
        }
        None => None,
    };
    let saved = checkpoints
        .as_ref()
        .and_then(|checkpoints| checkpoints.load(als.factors()));
    if let Some(saved) = saved {
        als.resume(saved.iteration, saved.users, saved.items)?;
    }
    while als.iteration() < hyper.iterations {
        als.step(&progress)?;
        // From a parent, passes are only needed until the log's news has arrived everywhere.
        if start.is_some() && als.moved() <= ARRIVED {
            break;
        }
        if let Some(checkpoints) = &checkpoints
            && als.iteration() < hyper.iterations
        {
            checkpoints.save(als.iteration(), als.factors())?;
        }
    }
    Ok(Fitted {
        // As many as were made.
        hyper: Hyper {
            iterations: als.iteration(),
            ..hyper
        },
        factors: als.finish(start.map(|known| known.factors().items), &progress)?,
    })
}

/// One dimension: an item's factor grows with its listeners, a user's is 1. So every user, and every
/// fold-in of listens, ranks what is popular first, through the same index and the same engine.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the point"
)]
fn by_popularity(data: &Interactions, hyper: &Hyper) -> Fitted {
    let listeners = crate::evaluation::listeners(data);
    let users = (0..data.users()).map(|user| f32::from(u8::from(!data.user(user).0.is_empty())));
    Fitted {
        hyper: Hyper { rank: 1, ..*hyper },
        factors: Factors {
            rank: 1,
            users: users.collect(),
            items: listeners
                .iter()
                .map(|&count| f64::from(count).ln_1p() as f32)
                .collect(),
        },
    }
}
