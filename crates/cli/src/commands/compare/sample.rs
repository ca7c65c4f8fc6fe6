//! Two or more variants over a sample of listeners: how far their lists agree, and what one shows that
//! the other does not.

use std::collections::{BTreeMap, HashSet};
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use refrain::v1 as pb;
use refrain::v1::experiment_service_client::ExperimentServiceClient;
use refrain_experiments::hash64;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, Column, Output};

/// Requests that wait for the server at once.
const IN_FLIGHT: usize = 8;
/// Items that are told of each variant.
const TOLD: usize = 10;
/// Largest file of listeners, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// At most `sample` of the listeners in a file, one a line, `-` for standard input: those with the lowest
/// hashes, so the same file gives the same sample, and a larger one holds the smaller.
pub(super) fn listeners(file: &Path, sample: usize) -> anyhow::Result<Vec<String>> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(MAX_BYTES).read_to_string(&mut text)
    } else {
        let opened = fs_err::File::open(file)?;
        opened.take(MAX_BYTES).read_to_string(&mut text)
    };
    read.with_context(|| Failure::new(format!("cannot read listeners from {}", file.display())))?;
    let mut users: Vec<&str> = text.lines().map(str::trim).collect();
    users.retain(|user| !user.is_empty());
    users.sort_by_cached_key(|user| (hash64(format!("C:{user}").as_bytes()), *user));
    users.dedup();
    users.truncate(sample);
    if users.is_empty() {
        return Err(
            Failure::usage(format!("{} names no listener", file.display()))
                .next("give one a line")
                .error(),
        );
    }
    Ok(users.into_iter().map(str::to_owned).collect())
}

/// Asks for every listener; answers in the order of `users`.
pub(super) async fn ask(
    client: &Client,
    users: &[String],
    request: impl Fn(&str) -> pb::CompareVariantsRequest,
    output: &Output,
) -> anyhow::Result<Vec<pb::CompareVariantsResponse>> {
    let bar = output.progress("compare");
    let mut answers = Vec::with_capacity(users.len());
    for chunk in users.chunks(IN_FLIGHT) {
        bar.set(answers.len() as u64, users.len() as u64);
        let mut asked = JoinSet::new();
        for (at, user) in chunk.iter().enumerate() {
            let mut service = ExperimentServiceClient::new(client.channel.clone());
            let request = client.request(request(user));
            asked.spawn(async move { (at, service.compare_variants(request).await) });
        }
        let mut told: BTreeMap<usize, pb::CompareVariantsResponse> = BTreeMap::new();
        while let Some(done) = asked.join_next().await {
            let (at, answer) = done?;
            told.insert(at, client.answer("compare", answer)?);
        }
        answers.extend(told.into_values());
    }
    Ok(answers)
}

/// What the lists of a variant are like, beside those of the first.
#[derive(Debug, Default)]
struct Summary {
    overlap: Vec<f64>,
    rank_biased_overlap: Vec<f64>,
    same: usize,
    empty: usize,
    degraded: usize,
    artists: Mix,
    scenes: Mix,
    items: HashSet<String>,
    /// Lists that have an item which the first variant's lack, and the other way about.
    added: BTreeMap<String, usize>,
    removed: BTreeMap<String, usize>,
    elapsed_us: u64,
}

/// The groups of many lists.
#[derive(Debug, Default)]
struct Mix {
    /// Different groups of each list, added up.
    distinct: usize,
    /// Items of each group in all lists.
    items: BTreeMap<String, u64>,
}

impl Mix {
    fn add(&mut self, groups: &[pb::GroupCount]) {
        self.distinct += groups.len();
        for group in groups {
            *self.items.entry(super::group_name(group)).or_default() += u64::from(group.items);
        }
    }

    /// The largest groups with their shares of the places that any group has.
    fn largest(&self) -> Vec<(&str, f64)> {
        let all: u64 = self.items.values().sum();
        let most = most(&self.items).into_iter();
        most.map(|(group, items)| (group, items as f64 / all.max(1) as f64))
            .collect()
    }
}

impl Summary {
    fn add(&mut self, first: &pb::VariantResult, this: &pb::VariantResult) {
        let ids = |list: &pb::VariantResult| -> Vec<String> {
            list.results.iter().map(|r| r.item_id.clone()).collect()
        };
        let (was, is) = (ids(first), ids(this));
        self.overlap.push(this.overlap);
        self.rank_biased_overlap.push(this.rank_biased_overlap);
        self.same += usize::from(was == is);
        self.empty += usize::from(is.is_empty());
        self.degraded += usize::from(!this.degraded.is_empty());
        self.artists.add(&this.artists);
        self.scenes.add(&this.scenes);
        self.elapsed_us += this.elapsed_us;
        for item in is.iter().filter(|item| !was.contains(item)) {
            *self.added.entry(item.clone()).or_default() += 1;
        }
        for item in was.iter().filter(|item| !is.contains(item)) {
            *self.removed.entry(item.clone()).or_default() += 1;
        }
        self.items.extend(is);
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The value below which a share of the others lies: nearest rank.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in the list"
    )]
    let at = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}

/// The items of most lists, then by name.
fn most<N: Copy + Ord>(counts: &BTreeMap<String, N>) -> Vec<(&str, N)> {
    let mut most: Vec<_> = counts.iter().map(|(item, &n)| (item.as_str(), n)).collect();
    most.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    most.truncate(TOLD);
    most
}

/// Tells of all answers together.
pub(super) fn tell(answers: &[pb::CompareVariantsResponse], output: &Output) {
    let mut summaries: Vec<(String, Summary)> = Vec::new();
    for answer in answers {
        let Some(first) = answer.variants.first() else {
            continue;
        };
        for (at, variant) in answer.variants.iter().enumerate() {
            if summaries.len() <= at {
                summaries.push((variant.variant.clone(), Summary::default()));
            }
            if let Some((_, summary)) = summaries.get_mut(at) {
                summary.add(first, variant);
            }
        }
    }
    let version = answers.first().and_then(|answer| answer.served_by.clone());
    let version = version.unwrap_or_default().version;
    let listeners = answers.len();
    let share = |n: usize| n as f64 / listeners.max(1) as f64;
    let variants: Vec<Value> = summaries
        .iter()
        .map(|(name, s)| {
            let shares = |mix: &Mix| -> Vec<Value> {
                let largest = mix.largest().into_iter();
                largest
                    .map(|(name, share)| json!({ "name": name, "share": share }))
                    .collect()
            };
            let told = |counts: &BTreeMap<String, usize>| -> Vec<Value> {
                let most = most(counts).into_iter();
                most.map(|(item, lists)| json!({ "item": item, "lists": lists }))
                    .collect()
            };
            json!({
                "variant": name,
                "overlap": { "mean": mean(&s.overlap), "p10": quantile(&s.overlap, 0.1), "median": quantile(&s.overlap, 0.5) },
                "rank_biased_overlap": { "mean": mean(&s.rank_biased_overlap), "median": quantile(&s.rank_biased_overlap, 0.5) },
                "identical_share": share(s.same),
                "empty_share": share(s.empty),
                "degraded_share": share(s.degraded),
                "distinct_artists_mean": share(s.artists.distinct),
                "distinct_scenes_mean": share(s.scenes.distinct),
                "artists": shares(&s.artists),
                "scenes": shares(&s.scenes),
                "distinct_items": s.items.len(),
                "elapsed_us_mean": s.elapsed_us as f64 / listeners.max(1) as f64,
                "added": told(&s.added),
                "removed": told(&s.removed),
            })
        })
        .collect();
    let document = json!({ "listeners": listeners, "version": version, "variants": variants });
    output.result(&document, |output| {
        let mut table = output::table(&[
            Column::Text("variant"),
            Column::Number("shared with first"),
            Column::Number("worst tenth"),
            Column::Number("rank-biased overlap"),
            Column::Number("same list"),
            Column::Number("artists a list"),
            Column::Number("scenes a list"),
            Column::Number("items in all"),
            Column::Number("degraded"),
        ]);
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        for (name, s) in &summaries {
            table.add_row([
                name.clone(),
                percent(mean(&s.overlap)),
                percent(quantile(&s.overlap, 0.1)),
                format!("{:.3}", mean(&s.rank_biased_overlap)),
                percent(share(s.same)),
                format!("{:.1}", share(s.artists.distinct)),
                format!("{:.1}", share(s.scenes.distinct)),
                output::count(s.items.len() as u128),
                percent(share(s.degraded)),
            ]);
        }
        output.table(&table);
        for (name, s) in &summaries {
            for (what, mix) in [("artists", &s.artists), ("scenes", &s.scenes)] {
                let largest = mix.largest().into_iter();
                let largest: Vec<String> = largest
                    .map(|(group, share)| format!("{group} {}", percent(share)))
                    .collect();
                if !largest.is_empty() {
                    output.line(format_args!("{name} by {what}: {}", largest.join(", ")));
                }
            }
        }
        for (name, s) in summaries.iter().skip(1) {
            for (what, counts) in [("shows", &s.added), ("drops", &s.removed)] {
                let items = most(counts).into_iter();
                let items: Vec<String> = items.map(|(item, n)| format!("{item} ({n})")).collect();
                if !items.is_empty() {
                    output.line(format_args!(
                        "{name} most often {what}: {}",
                        items.join(", ")
                    ));
                }
            }
        }
        output.line(format_args!("{listeners} listeners, answered by {version}"));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_depends_on_the_listeners_alone_and_grows() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("users");
        let names: Vec<String> = (0..100).map(|n| format!("u{n}")).collect();
        fs_err::write(&file, names.join("\n") + "\n\n u7 \n").expect("writable");
        let few = listeners(&file, 10).expect("read");
        let many = listeners(&file, 1_000).expect("read");
        assert_eq!((few.len(), many.len()), (10, 100));
        assert_eq!(few, many[..10]);
        let reversed: Vec<&str> = names.iter().rev().map(String::as_str).collect();
        fs_err::write(&file, reversed.join("\n")).expect("writable");
        assert_eq!(listeners(&file, 10).expect("read"), few);
        fs_err::write(&file, "\n").expect("writable");
        assert!(listeners(&file, 10).is_err());
    }

    #[test]
    fn a_summary_counts_what_came_and_went() {
        let list = |items: &str, overlap| pb::VariantResult {
            results: items
                .chars()
                .map(|item| pb::Result {
                    item_id: item.into(),
                    ..Default::default()
                })
                .collect(),
            overlap,
            ..Default::default()
        };
        let mut summary = Summary::default();
        summary.add(&list("abc", 1.0), &list("abd", 2.0 / 3.0));
        summary.add(&list("xy", 1.0), &list("xy", 1.0));
        assert_eq!(most(&summary.added), [("d", 1)]);
        assert_eq!(most(&summary.removed), [("c", 1)]);
        assert_eq!((summary.same, summary.items.len()), (1, 5));
        assert!((mean(&summary.overlap) - 5.0 / 6.0).abs() < 1e-12);
        assert!((quantile(&[3.0, 1.0, 2.0], 0.5) - 2.0).abs() < 1e-12);
    }
}
