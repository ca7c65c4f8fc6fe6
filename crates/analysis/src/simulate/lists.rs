//! Lists of a simulated log: ranked, drafted by two arms, or drawn at random.

use refrain_ranking::draft;

use super::Rng;

/// Items that every request has.
pub const CANDIDATES: usize = 20;
/// Seeds that requests are made for.
const SEEDS: usize = 40;

/// What lists are like.
#[derive(Debug, Clone, PartialEq)]
pub struct Lists {
    /// Items a list, at most [`CANDIDATES`].
    pub length: usize,
    /// How they come about.
    pub show: Show,
}

/// How lists come about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Show {
    /// Each arm ranks; the treatment moves some items up.
    Ranked,
    /// Both arms draft one list. An item of the second is chosen so much more often than its place
    /// deserves.
    Drafted {
        /// 0 for rankers that are equally good, 0.1 for a tenth more.
        preference: f64,
    },
    /// Drawn without replacement, each order equally likely; the log has the probabilities.
    Drawn,
}

/// A shown item.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    pub(super) item: String,
    pub(super) team: Option<i8>,
    pub(super) propensity: Option<f64>,
}

/// A shown list.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    pub(super) seed: Option<String>,
    pub(super) items: Vec<Item>,
    /// Places that were chosen.
    pub(super) chosen: Vec<usize>,
}

/// Chance that a drawn item is chosen, wherever it stands.
#[must_use]
pub fn quality(item: usize) -> f64 {
    0.4 * number(item) / number(CANDIDATES)
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn number(n: usize) -> f64 {
    n as f64
}

impl Lists {
    pub(super) fn draw(&self, arm: usize, rng: &mut Rng) -> Shown {
        let seed = rng.below(SEEDS);
        let name = |item: u32| format!("t{item}");
        let mut items = Vec::with_capacity(self.length);
        match self.show {
            Show::Ranked => {
                let list = ranking(seed, arm);
                items.extend(list.into_iter().take(self.length).map(|item| Item {
                    item: name(item),
                    team: None,
                    propensity: None,
                }));
            }
            Show::Drafted { .. } => {
                let lists = [0, 1].map(|arm| ranking(seed, arm));
                let mut drafted = Vec::new();
                draft(
                    &lists[0],
                    &lists[1],
                    self.length,
                    rng.next(),
                    &mut |_| true,
                    &mut drafted,
                );
                items.extend(drafted.into_iter().map(|drafted| {
                    let team = drafted.team.map(refrain_ranking::Team::index);
                    Item {
                        item: name(lists[team.unwrap_or(0)][drafted.position]),
                        team: team.and_then(|team| i8::try_from(team).ok()),
                        propensity: None,
                    }
                }));
            }
            Show::Drawn => {
                let mut left: Vec<u32> = candidates().collect();
                for _ in 0..self.length.min(left.len()) {
                    let propensity = 1.0 / number(left.len());
                    let item = left.remove(rng.below(left.len()));
                    items.push(Item {
                        item: name(item),
                        team: None,
                        propensity: Some(propensity),
                    });
                }
            }
        }
        let chosen = (0..items.len())
            .filter(|&place| {
                let chance = match self.show {
                    Show::Ranked => 0.2 / number(place + 1),
                    Show::Drafted { preference } => {
                        let more = if items[place].team == Some(1) {
                            1.0 + preference
                        } else {
                            1.0
                        };
                        more * 0.2 / number(place + 1).sqrt()
                    }
                    Show::Drawn => items[place].item[1..].parse().map_or(0.0, quality),
                };
                rng.unit() < chance
            })
            .collect();
        Shown {
            seed: Some(format!("{seed:04x}")),
            items,
            chosen,
        }
    }
}

fn candidates() -> impl Iterator<Item = u32> {
    (0..).take(CANDIDATES)
}

/// The candidates as an arm ranks them for a seed: half of the treatment's score is its own.
fn ranking(seed: usize, arm: usize) -> Vec<u32> {
    let score =
        |item: u32, salt: u64| Rng::new(salt, ((seed as u64) << 32) | u64::from(item)).unit();
    let mut scored: Vec<(f64, u32)> = candidates()
        .map(|item| {
            let own = if arm == 0 { 0.0 } else { score(item, 2) };
            (score(item, 1) + own, item)
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().map(|(_, item)| item).collect()
}
