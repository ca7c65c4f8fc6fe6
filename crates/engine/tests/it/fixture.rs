//! Builds versions: a catalogue with artists, tags, release times and blocked items, and factors
//! trained on listens that follow scenes.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use refrain_als::{Hyper, Interactions, gram, train};
use refrain_bundle::bundle::{
    BundleWriter, Draft, GOLDEN_FILE, INDEX_FILE, ITEMS_FILE, MODEL_FILE, NewModel, write_golden,
    write_model,
};
use refrain_bundle::manifest::{IndexInfo, ModelInfo};
use refrain_bundle::{Item, SectionSpec, SectionWriter, write_items};
use refrain_engine::{Answer, OpenMode, Request, Scratch, Version, recommend};
use refrain_index::{BuildParams, Filter, Index, build};
use refrain_kernels::Metric;
use refrain_ranking::{Variant, Variants};
use refrain_taste::{Event, EventKind, Weights};

/// The instant of all requests, in microseconds: 2025-01-01.
pub(crate) const NOW_US: i64 = 1_735_689_600_000_000;

pub(crate) const ITEMS: u32 = 400;

/// What goes into a version.
#[derive(Clone)]
pub(crate) struct Blueprint {
    pub(crate) metric: Metric,
    pub(crate) dim: usize,
    pub(crate) vectors: Vec<f32>,
    pub(crate) items: Vec<NewItem>,
    /// Factors of which the model is; `None`: no model.
    pub(crate) model: Option<(Hyper, Vec<f32>)>,
    /// Added to every expected golden score.
    pub(crate) golden_error: f32,
}

#[derive(Clone, Default)]
pub(crate) struct NewItem {
    pub(crate) artist: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) release_time: Option<i64>,
    pub(crate) popularity: f32,
    pub(crate) blocked: bool,
}

/// 400 items of 40 artists, the first of whom has a third of them; every 7th item has no artist,
/// every 29th is blocked. Trained on 300 listeners of 4 scenes.
pub(crate) fn music() -> &'static Blueprint {
    static MUSIC: OnceLock<Blueprint> = OnceLock::new();
    MUSIC.get_or_init(|| {
        let mut random = Random(7);
        let items = (0..ITEMS)
            .map(|i| {
                let artist = if i % 3 == 0 { 0 } else { 1 + random.below(39) };
                NewItem {
                    artist: (i % 7 != 0).then(|| format!("artist {artist}")),
                    tags: vec![
                        format!("scene {}", i % 4),
                        format!("mood {}", random.below(5)),
                    ],
                    release_time: (i % 5 != 0)
                        .then(|| NOW_US / 1_000_000 - 86_400 * i64::from(random.below(1000))),
                    popularity: (1000 / (i + 1)) as f32,
                    blocked: i % 29 == 0,
                }
            })
            .collect();
        let mut listens = Vec::new();
        for user in 0..300 {
            for _ in 0..25 {
                // Scenes are items alike modulo 4; within one, low numbers are popular.
                let depth = random.below(10) * random.below(10);
                listens.push((user, (depth * 4 + user % 4) % ITEMS, 1.0));
            }
        }
        let interactions = Interactions::from_triplets(300, ITEMS, listens).expect("in range");
        let hyper = Hyper {
            rank: 16,
            iterations: 4,
            ..Hyper::default()
        };
        let factors = train(&interactions, &hyper, 1, &()).expect("trains").items;
        Blueprint {
            metric: Metric::InnerProduct,
            dim: 16,
            vectors: factors.clone(),
            items,
            model: Some((hyper, factors)),
            golden_error: 0.0,
        }
    })
}

/// The version of [`music`], opened once.
pub(crate) fn music_version() -> &'static Version {
    static VERSION: OnceLock<Version> = OnceLock::new();
    VERSION.get_or_init(|| music().open())
}

impl Blueprint {
    /// Builds, opens, and removes the files: what is mapped stays.
    pub(crate) fn open(&self) -> Version {
        let dir = tempfile::tempdir().expect("a directory");
        let path = self.write(dir.path()).expect("a bundle");
        Version::open(&path, OpenMode::Map).expect("opens")
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
        let target = dir.join("bundle");
        let dim = u32::try_from(self.dim)?;
        let count = u32::try_from(self.items.len())?;
        let params = BuildParams {
            metric: self.metric,
            threads: 1,
            ..BuildParams::default()
        };
        let sections = build(&self.vectors, self.dim, &params, &())?.into_sections();
        let index = Index::open(&|name| {
            sections
                .iter()
                .find(|section| section.name == name)
                .map(|s| s.bytes.clone())
        })?;

        let writer = BundleWriter::create(&target)?;
        writer.add(INDEX_FILE, |path| {
            SectionWriter::write(path, |out| {
                for section in &sections {
                    let spec = SectionSpec {
                        hot: section.hot,
                        ..SectionSpec::new(section.name)
                    };
                    out.add(spec, &section.bytes)?;
                }
                Ok(())
            })
        })?;
        writer.add(ITEMS_FILE, |path| {
            let ids: Vec<String> = (0..count).map(id).collect();
            let tags: Vec<Vec<&str>> = self
                .items
                .iter()
                .map(|i| i.tags.iter().map(String::as_str).collect())
                .collect();
            let rows: Vec<Item<'_>> = self
                .items
                .iter()
                .zip(&ids)
                .zip(&tags)
                .map(|((item, id), tags)| Item {
                    id,
                    title: "a title",
                    artist: item.artist.as_deref(),
                    tags,
                    release_time: item.release_time,
                    popularity: item.popularity,
                    duration_ms: None,
                    blocked: item.blocked,
                })
                .collect();
            write_items(path, &rows)
        })?;
        let golden: Vec<f32> = self.vectors.iter().take(5 * self.dim).copied().collect();
        let (mut expected, mut scores, mut hits) = (Vec::new(), Vec::new(), Vec::new());
        let k = 10.min(self.items.len());
        for query in golden.chunks(self.dim) {
            let mut scratch = refrain_index::Scratch::new();
            index.search_exact(query, k, &Filter::default(), &mut scratch, &mut hits)?;
            expected.extend(hits.iter().map(|hit| hit.ordinal));
            scores.extend(hits.iter().map(|hit| hit.score + self.golden_error));
        }
        let k = u32::try_from(k)?;
        writer.add(GOLDEN_FILE, |path| {
            write_golden(path, dim, k, &golden, &expected, &scores)
        })?;
        let mut info = None;
        if let Some((hyper, factors)) = &self.model {
            let hyper_json = serde_json::to_value(hyper)?;
            writer.add(MODEL_FILE, |path| {
                let gram = gram(factors, hyper.rank, 1);
                let hyper = &hyper_json;
                let model = NewModel {
                    rank: dim,
                    items: count,
                    gram: &gram,
                    factors,
                    user_gram: None,
                    hyper,
                };
                write_model(path, &model)
            })?;
            info = Some(ModelInfo {
                rank: dim,
                hyper: hyper_json,
            });
        }
        writer.seal(Draft {
            parent: None,
            create_time: jiff::Timestamp::from_second(NOW_US / 1_000_000)?,
            items: count,
            users: 300,
            dim,
            metric: self.metric.to_string(),
            data_watermark: None,
            exclusion_watermark: None,
            index: IndexInfo {
                m: 16,
                ef_construction: 200,
                ef_search: 100,
                recall_at_10: Some(0.99),
                calibration: Vec::new(),
            },
            model: info,
            command: "a test".to_owned(),
            seed: 0,
            report: serde_json::Value::Null,
        })?;
        Ok(target)
    }
}

/// The vectors of all items as the index holds them.
pub(crate) fn rows(version: &Version) -> Vec<f32> {
    let index = version.index();
    (0..version.items().len())
        .flat_map(|ordinal| index.vector(ordinal).expect("an item"))
        .collect()
}

pub(crate) fn id(ordinal: u32) -> String {
    format!("item {ordinal}")
}

/// The variant declared by these lines.
pub(crate) fn variant(lines: &str) -> Variant {
    let text = format!("[variant.v]\n{lines}\n");
    Variants::from_toml(&text)
        .expect("valid")
        .get("v")
        .expect("declared")
        .clone()
}

pub(crate) fn plain() -> Variant {
    variant("score = 'similarity'")
}

/// Answers with fresh memory.
pub(crate) fn answer(version: &Version, request: &Request<'_>, variant: &Variant) -> Answer {
    recommend(
        version,
        request,
        variant,
        &Weights::default(),
        &mut Scratch::default(),
    )
    .expect("a valid request")
}

pub(crate) fn ordinals(answer: &Answer) -> Vec<u32> {
    answer.items.iter().map(|item| item.ordinal).collect()
}

/// A play of an item, the `n`-th event of its listener.
pub(crate) fn play(n: i64, item: &str, context: &str) -> Event {
    Event {
        time_us: NOW_US - 1_000_000_000 + n * 1_000_000,
        event_id: format!("e{n}"),
        item: item.to_owned(),
        kind: EventKind::Play,
        played_ms: None,
        context: Some(context.to_owned()),
        session: None,
        count: 1,
    }
}

/// SplitMix64: the tests' own randomness, the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound)).expect("below a u32")
    }
}
