//! What is said of a scene: the tags and artists that it has more of than the rest.

use serde::{Deserialize, Serialize};

use super::Tracks;

/// Tags, and artists, told of a scene.
const TOLD: usize = 5;
/// Of a label.
const IN_LABEL: usize = 2;
/// Standard errors from no difference that are asked for.
const LEAST_Z: f64 = 1.96;

/// A tag or artist that a scene has more of than the rest of the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distinction {
    /// The tag or artist.
    pub name: String,
    /// Items of the scene that have it.
    pub items: u64,
    /// Share of the scene's items that have it, 0 to 1.
    pub share: f64,
    /// Share of the other items that have it, 0 to 1.
    pub share_of_rest: f64,
    /// Log-odds ratio in standard errors.
    pub z: f64,
}

/// How often each tag and artist occurs.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    items: u64,
    tags: Vec<u64>,
    artists: Vec<u64>,
}

impl Counts {
    pub(super) fn of(tracks: &Tracks<'_>, items: impl Iterator<Item = u32>) -> Self {
        let mut counts = Self {
            items: 0,
            tags: vec![0; tracks.tag_names.len()],
            artists: vec![0; tracks.artist_names.len()],
        };
        for item in items {
            counts.items += 1;
            for &tag in tracks.tags(item) {
                counts.tags[tag as usize] += 1;
            }
            if let Some(artist) = tracks.artist(item) {
                counts.artists[artist as usize] += 1;
            }
        }
        counts
    }
}

/// What distinguishes a scene.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Told {
    pub(super) label: String,
    pub(super) tags: Vec<Distinction>,
    pub(super) artists: Vec<Distinction>,
}

/// What a scene has more of than the rest of `all`.
pub(super) fn explain(tracks: &Tracks<'_>, scene: &Counts, all: &Counts) -> Told {
    let items = (scene.items, all.items);
    let tags = distinctions(&tracks.tag_names, &scene.tags, &all.tags, items);
    let artists = distinctions(&tracks.artist_names, &scene.artists, &all.artists, items);
    let of = if tags.is_empty() { &artists } else { &tags };
    let names: Vec<&str> = of
        .iter()
        .take(IN_LABEL)
        .map(|one| one.name.as_str())
        .collect();
    // A bundle holds labels of at most 1,024 bytes.
    let label = names.join(", ");
    let end = (0..=label.len().min(1_000))
        .rev()
        .find(|&end| label.is_char_boundary(end))
        .unwrap_or_default();
    Told {
        label: label[..end].to_owned(),
        tags,
        artists,
    }
}

/// The names with the largest z-score of the log-odds ratio between scene and rest, under a prior of the
/// frequencies in all (Monroe, Colaresi and Quinn, "Fightin' words", Political Analysis 2008, §3.4; here of
/// two outcomes, an item has a tag or not): what is rare in the scene is not taken for typical of it. Only
/// what the scene has significantly more of. `O(names)`.
fn distinctions(
    names: &[&str],
    scene: &[u64],
    all: &[u64],
    (items, total): (u64, u64),
) -> Vec<Distinction> {
    let rest = total - items;
    if items == 0 || rest == 0 {
        return Vec::new();
    }
    let mut found: Vec<(usize, f64)> = (0..names.len())
        .filter(|&at| scene[at] > 0)
        .filter_map(|at| {
            let (inside, outside) = (scene[at] as f64, (all[at] - scene[at]) as f64);
            // One item's worth of evidence that the share is the same everywhere.
            let prior = (all[at] as f64 / total as f64).clamp(1e-9, 1.0 - 1e-9);
            let odds = |with: f64, of: u64| {
                let (with, without) = (with + prior, of as f64 - with + 1.0 - prior);
                ((with / without).ln(), 1.0 / with + 1.0 / without)
            };
            let ((inside, of_inside), (outside, of_outside)) =
                (odds(inside, items), odds(outside, rest));
            let z = (inside - outside) / (of_inside + of_outside).sqrt();
            // What a platform's logarithm does in its last bits decides nothing.
            let z = (z * 1e4).round() / 1e4;
            (z >= LEAST_Z).then_some((at, z))
        })
        .collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| names[a.0].cmp(names[b.0])));
    found.truncate(TOLD);
    found
        .into_iter()
        .map(|(at, z)| Distinction {
            name: names[at].to_owned(),
            items: scene[at],
            share: scene[at] as f64 / items as f64,
            share_of_rest: (all[at] - scene[at]) as f64 / rest as f64,
            z,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_frequent_here_and_rare_elsewhere_comes_first() {
        let names = ["everywhere", "typical", "once", "elsewhere"];
        let found = distinctions(&names, &[90, 60, 1, 2], &[900, 80, 1, 500], (100, 1_000));
        let told: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(told, ["typical"], "{found:?}");
        let one = &found[0];
        assert!(
            (one.share - 0.6).abs() < 1e-12 && (one.share_of_rest - 20.0 / 900.0).abs() < 1e-12
        );
        // ln(60.08/40.92) - ln(20.08/880.92), by hand.
        let log_odds = (60.08f64 / 40.92).ln() - (20.08f64 / 880.92).ln();
        let error = (1.0 / 60.08 + 1.0 / 40.92 + 1.0 / 20.08 + 1.0 / 880.92f64).sqrt();
        assert!((one.z - log_odds / error).abs() < 1e-3, "{}", one.z);
        assert!(distinctions(&names, &[1; 4], &[1; 4], (9, 9)).is_empty());
    }
}
