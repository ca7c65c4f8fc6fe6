//! The lists of the arms beside each other: which items an arm shows more, how far lists for the same
//! seeds agree, and what was computed in the dark.

use std::collections::BTreeMap;
use std::path::Path;

use arrow_array::Array as _;
use rayon::prelude::*;
use refrain_ranking::{PERSISTENCE, overlap, rank_biased_overlap};
use rustc_hash::FxHashMap;

use super::{BELONGS, Belongs, Place, groups, word};
use crate::log::columns::Columns;
use crate::log::files::{LogFile, Needed, SHADOWS};
use crate::log::group::batches;
use crate::log::items::{ITEMS, Items};
use crate::log::{LogError, LogFiles, ReadOptions};
use crate::methods::moments::{Tally, count, length};
use crate::methods::ratio;
use crate::plan::{Kind, Plan};
use crate::verdict::document::{
    ItemShare, ListComparison, ListsResult, SeedExample, ShadowResult, ShownResult,
};

/// Lists that are looked at: enough for shares of items, and bounded in time and memory.
const MOST_LISTS: usize = 200_000;
/// Items named as added or removed.
const NAMED: usize = 10;
/// Seeds shown as examples.
const EXAMPLES: usize = 3;

/// A list of an arm.
struct List {
    arm: usize,
    ts: i64,
    seed: Option<String>,
    items: Vec<String>,
}

/// Looks at the lists of a log; `None` where it has none. At most [`MOST_LISTS`] exposures are read, as
/// many from the start of each row group, so the same log gives the same answer.
///
/// # Errors
/// [`LogError`], with file, row group and row.
pub(crate) fn look(
    root: &Path,
    files: &LogFiles,
    plan: &Plan,
    options: &ReadOptions,
) -> Result<Option<ListsResult>, LogError> {
    let with_lists: Vec<LogFile> = files
        .exposures
        .iter()
        .filter(|file| file.has_column(ITEMS))
        .cloned()
        .collect();
    // Interleaved lists are nobody's own.
    if with_lists.is_empty() || plan.kind == Kind::Interleave {
        return Ok(None);
    }
    let groups = groups(&with_lists);
    let rows: u64 = with_lists.iter().map(LogFile::rows).sum();
    let each = (MOST_LISTS / groups.len().max(1)).max(1);
    let stride = groups.len().div_ceil(MOST_LISTS).max(1);
    let chosen: Vec<(&LogFile, usize)> = groups.into_iter().step_by(stride).collect();
    let pool = crate::log::scan::pool(options.threads)?;
    let parts: Vec<Part> = pool.install(|| {
        chosen
            .par_iter()
            .with_max_len(1)
            .map(|&(file, group)| read(plan, options, file, group, each))
            .collect::<Result<_, _>>()
    })?;
    let mut lists = Vec::new();
    let mut variants = vec![None; plan.arms.len()];
    for part in parts {
        lists.extend(part.lists);
        for (known, found) in variants.iter_mut().zip(part.variants) {
            if known.is_none() {
                *known = found;
            }
        }
    }
    if lists.is_empty() {
        return Ok(None);
    }
    let mut result = summed(plan, &lists);
    result.sampled = usize::try_from(rows).unwrap_or(usize::MAX) > MOST_LISTS;
    // The sides of a holdout are not one variant each.
    if plan.kind != Kind::Holdout {
        result.shadows = shadows(root, plan, &variants, options)?;
    }
    Ok(Some(result))
}

/// What one row group had.
struct Part {
    lists: Vec<List>,
    /// The ranking variant of each arm.
    variants: Vec<Option<String>>,
}

fn read(
    plan: &Plan,
    options: &ReadOptions,
    file: &LogFile,
    group: usize,
    limit: usize,
) -> Result<Part, LogError> {
    let mut lists = Vec::new();
    let mut variants: Vec<Option<String>> = vec![None; plan.arms.len()];
    let wanted = |name: &str| {
        BELONGS.contains(&name)
            || matches!(name, "ts" | "seed_ids_hash" | "ranking_variant" | ITEMS)
    };
    batches(file, group, wanted, Some(limit), &mut |batch, row| {
        let place = Place { file, group, row };
        let belongs = Belongs::new(plan, &place, batch)?;
        let columns = Columns(batch);
        let times = place.column(columns.times("ts"), "ts")?;
        let items = place.column(Items::of(batch), ITEMS)?;
        let seeds = place.column(columns.words("seed_ids_hash").map(Some), "seed_ids_hash")?;
        let named = place.column(
            columns.words("ranking_variant").map(Some),
            "ranking_variant",
        )?;
        for row in 0..batch.num_rows() {
            let Some(arm) = belongs.arm(row) else {
                continue;
            };
            if variants[arm].is_none() {
                variants[arm] = named
                    .as_ref()
                    .and_then(|named| word(named, row))
                    .map(str::to_owned);
            }
            if !times.is_valid(row) || options.until_us.is_some_and(|us| times.value(row) >= us) {
                continue;
            }
            lists.push(List {
                arm,
                ts: times.value(row),
                seed: seeds
                    .as_ref()
                    .and_then(|seeds| word(seeds, row))
                    .map(str::to_owned),
                items: items
                    .row(row)
                    .filter_map(|shown| shown.item)
                    .map(str::to_owned)
                    .collect(),
            });
        }
        Ok(())
    })?;
    Ok(Part { lists, variants })
}

fn summed(plan: &Plan, lists: &[List]) -> ListsResult {
    let arms = plan.arms.len();
    let mut counts: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut of_arm = vec![0_u64; arms];
    let mut places = vec![0_u64; arms];
    for list in lists {
        of_arm[list.arm] += 1;
        places[list.arm] += list.items.len() as u64;
        for item in &list.items {
            counts.entry(item).or_insert_with(|| vec![0; arms])[list.arm] += 1;
        }
    }
    let shown = plan.arms.iter().enumerate().map(|(arm, declared)| {
        let mut of: Vec<u64> = counts.values().map(|counts| counts[arm]).collect();
        of.sort_unstable();
        let items = of.iter().filter(|n| **n > 0).count();
        ShownResult {
            arm: declared.name.clone(),
            items: items as u64,
            coverage: length(items) / length(of.len()).max(1.0),
            gini: gini(&of),
            length: count(places[arm]) / count(of_arm[arm]).max(1.0),
        }
    });
    let comparisons = (1..arms)
        .filter(|arm| of_arm[0] > 0 && of_arm[*arm] > 0)
        .map(|arm| {
            let mut shares: Vec<ItemShare> = counts
                .iter()
                .map(|(item, counts)| ItemShare {
                    item: (*item).to_owned(),
                    control: count(counts[0]) / count(places[0]).max(1.0),
                    treatment: count(counts[arm]) / count(places[arm]).max(1.0),
                })
                .collect();
            let gain = |share: &ItemShare| share.treatment - share.control;
            // Stable: items that change alike stay in the order of their names.
            shares.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
            let added: Vec<ItemShare> = shares
                .iter()
                .take(NAMED)
                .filter(|share| gain(share) > 0.0)
                .cloned()
                .collect();
            let removed: Vec<ItemShare> = shares
                .iter()
                .rev()
                .take(NAMED)
                .filter(|share| gain(share) < 0.0)
                .cloned()
                .collect();
            compare_seeds(plan, lists, arm, added, removed)
        });
    ListsResult {
        comparisons: comparisons.collect(),
        arms: shown.collect(),
        lists: of_arm,
        sampled: false,
        shadows: Vec::new(),
    }
}

/// The last list of each arm for every seed that both were asked for.
fn compare_seeds(
    plan: &Plan,
    lists: &[List],
    arm: usize,
    added: Vec<ItemShare>,
    removed: Vec<ItemShare>,
) -> ListComparison {
    let mut seeds: BTreeMap<&str, [Option<&List>; 2]> = BTreeMap::new();
    for list in lists {
        let (Some(seed), at) = (&list.seed, usize::from(list.arm != 0)) else {
            continue;
        };
        if list.arm != 0 && list.arm != arm {
            continue;
        }
        let known = &mut seeds.entry(seed).or_default()[at];
        if known.is_none_or(|known| known.ts <= list.ts) {
            *known = Some(list);
        }
    }
    let pairs: Vec<(&str, &List, &List)> = seeds
        .iter()
        .filter_map(|(seed, pair)| Some((*seed, pair[0]?, pair[1]?)))
        .collect();
    let mean = |of: &dyn Fn(&List, &List) -> f64| {
        (!pairs.is_empty())
            .then(|| pairs.iter().map(|(_, c, t)| of(c, t)).sum::<f64>() / length(pairs.len()))
    };
    // In the order of their hashes, which nobody chose.
    let mut by_hash = pairs.clone();
    by_hash.sort_by_key(|(seed, _, _)| xxhash_rust::xxh3::xxh3_64(seed.as_bytes()));
    ListComparison {
        arm: plan.arms[arm].name.clone(),
        seeds: pairs.len() as u64,
        overlap: mean(&|c, t| overlap(&c.items, &t.items)),
        rank_biased_overlap: mean(&|c, t| rank_biased_overlap(&c.items, &t.items, PERSISTENCE)),
        added,
        removed,
        examples: by_hash
            .into_iter()
            .take(EXAMPLES)
            .map(|(seed, control, treatment)| SeedExample {
                seed: seed.to_owned(),
                control: control.items.iter().take(NAMED).cloned().collect(),
                treatment: treatment.items.iter().take(NAMED).cloned().collect(),
            })
            .collect(),
    }
}

/// Gini coefficient of counts in rising order: `Σ (2 i − n − 1) c_i / (n Σ c)`, 0 where all are alike.
fn gini(counts: &[u64]) -> f64 {
    let n = length(counts.len());
    let total = count(counts.iter().sum());
    if total == 0.0 {
        return 0.0;
    }
    let weighted: f64 = counts
        .iter()
        .enumerate()
        .map(|(at, c)| (2.0 * (length(at) + 1.0) - n - 1.0) * count(*c))
        .sum();
    weighted / (n * total)
}

/// Sums of the comparisons in the dark, of one arm.
#[derive(Default)]
struct Dark {
    lists: u64,
    errors: u64,
    dropped: u64,
    rbo: f64,
    latency: f64,
    served_latency: f64,
    /// By listener: sum of overlaps, and how many.
    units: FxHashMap<String, [f64; 2]>,
}

/// What any shadow experiment computed of a treatment's ranking variant while the control's was served.
fn shadows(
    root: &Path,
    plan: &Plan,
    variants: &[Option<String>],
    options: &ReadOptions,
) -> Result<Vec<ShadowResult>, LogError> {
    let files = LogFiles::table(root, "shadow", SHADOWS)?;
    let mut arms: BTreeMap<usize, Dark> = BTreeMap::new();
    for (file, group) in groups(&files) {
        let wanted = |name: &str| SHADOWS.iter().any(|needed: &Needed| needed.name == name);
        batches(file, group, wanted, None, &mut |batch, row| {
            let place = Place { file, group, row };
            let columns = Columns(batch);
            let dark_variants =
                place.column(columns.words("ranking_variant"), "ranking_variant")?;
            let served_variants =
                place.column(columns.words("served_variant"), "served_variant")?;
            let units = place.column(columns.text("unit_id"), "unit_id")?;
            let times = place.column(columns.times("ts"), "ts")?;
            let number = |name: &str| place.column(columns.numbers(name), name);
            let (overlaps, rbos) = (number("overlap")?, number("rbo")?);
            let (took, served) = (number("latency_us")?, number("served_latency_us")?);
            let errors = place.column(columns.words("error").map(Some), "error")?;
            for row in 0..batch.num_rows() {
                let dark_variant = word(&dark_variants, row);
                let arm = (1..plan.arms.len()).find(|arm| {
                    dark_variant.is_some() && variants[*arm].as_deref() == dark_variant
                });
                let control = variants[0].as_deref() == word(&served_variants, row);
                let Some(arm) = arm.filter(|_| control) else {
                    continue;
                };
                if options.until_us.is_some_and(|us| times.value(row) >= us) {
                    continue;
                }
                let dark = arms.entry(arm).or_default();
                // Rows without a list have no values either.
                if let Some(error) = errors.as_ref().and_then(|errors| word(errors, row)) {
                    match error.starts_with("dropped: ") {
                        true => dark.dropped += 1,
                        false => dark.errors += 1,
                    }
                    continue;
                }
                for (name, of) in [("overlap", &overlaps), ("rbo", &rbos)] {
                    if of.is_null(row) {
                        let problem = "is null, and no `error` says why".to_owned();
                        return Err(place.value(row, name, problem));
                    }
                    if !(0.0..=1.0 + 1e-9).contains(&of.value(row)) {
                        let problem = format!("is {}, not a share from 0 to 1", of.value(row));
                        return Err(place.value(row, name, problem));
                    }
                }
                dark.lists += 1;
                dark.rbo += rbos.value(row);
                dark.latency += took.value(row);
                dark.served_latency += served.value(row);
                let unit = dark.units.entry(units.value(row).to_owned()).or_default();
                unit[0] += overlaps.value(row);
                unit[1] += 1.0;
            }
            Ok(())
        })?;
    }
    Ok(arms
        .into_iter()
        .map(|(arm, dark)| {
            let mut tally = Tally::new(2);
            for sums in dark.units.values() {
                // Shares and counts are finite.
                drop(tally.push(sums));
            }
            let clustered = ratio::arm(&tally.moments().pair(0, 1)).ok();
            let n = count(dark.lists).max(1.0);
            ShadowResult {
                arm: plan.arms[arm].name.clone(),
                lists: dark.lists,
                errors: dark.errors,
                dropped: dark.dropped,
                overlap: clustered.map_or(0.0, |e| e.value),
                overlap_se: clustered.map_or(0.0, |e| e.variance.sqrt()),
                rank_biased_overlap: dark.rbo / n,
                latency_ratio: dark.latency / dark.served_latency.max(1.0),
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E17 of the reference numbers: lists abc, abd, aec over six items.
    #[test]
    fn coverage_and_gini() {
        let mut counts = [3, 2, 2, 1, 1, 0];
        counts.sort_unstable();
        assert!(
            (gini(&counts) - 0.351_852).abs() < 5e-7,
            "{}",
            gini(&counts)
        );
        assert_eq!(gini(&[4, 4, 4]), 0.0);
        assert_eq!(gini(&[0, 0]), 0.0);
    }
}
