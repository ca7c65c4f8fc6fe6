//! A store of tiny versions, and servers on it in this process.

use std::path::{Path, PathBuf};

use refrain::v1;
use refrain_bundle::bundle::{
    BundleWriter, Draft, GOLDEN_FILE, INDEX_FILE, ITEMS_FILE, write_golden,
};
use refrain_bundle::manifest::IndexInfo;
use refrain_bundle::{Item, SectionSpec, SectionWriter, Store, write_items};
use refrain_index::{BuildParams, Filter, Index, Scratch, build};
use refrain_server::{App, Config, ServeError, Shutdown};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

pub(crate) const ITEMS: usize = 200;
pub(crate) const DIM: usize = 8;

/// A directory with a store and room for profiles.
pub(crate) struct World {
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    /// Publishes a version made from a seed and points `stable` at it.
    pub(crate) fn publish(&self, seed: u64) -> String {
        let bundle = self.dir.path().join(format!("bundle-{seed}"));
        write_bundle(&bundle, seed).expect("a bundle");
        let published = self
            .store()
            .publish(&bundle, Some("stable"), None, "a test");
        published.expect("publishes").version
    }

    pub(crate) fn store(&self) -> Store {
        let path = self.dir.path().join("store");
        Store::open(path.to_str().expect("UTF-8")).expect("a store")
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        config.server.listen = ([127, 0, 0, 1], 0).into();
        config.server.admin_listen = Some(([127, 0, 0, 1], 0).into());
        config.server.poll_interval_ms = 10;
        config.store.url = Some(self.dir.path().join("store").display().to_string());
        config.profiles.path = self.dir.path().join("profiles.redb");
        config
    }

    pub(crate) async fn serve(&self) -> Running {
        Running::start(self.config()).await
    }

    /// The file that [`serve_text`](Self::serve_text) follows.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("refrain.toml")
    }

    /// Writes it, whole at once for whoever reads it meanwhile.
    pub(crate) fn write_text(&self, text: &str) {
        let fresh = self.dir.path().join("fresh.toml");
        fs_err::write(&fresh, text).expect("writable");
        fs_err::rename(&fresh, self.file()).expect("renamed");
    }

    /// Serves with variants, experiments and log of a file, of which the first two may change.
    pub(crate) async fn serve_text(&self, text: &str) -> Running {
        self.write_text(text);
        let read = Config::load(&self.file()).expect("valid");
        let mut config = self.config();
        config.server.labels = read.server.labels;
        config.variants = read.variants;
        config.experiments = read.experiments;
        config.exposures = read.exposures;
        config.file = read.file;
        Running::start(config).await
    }
}

/// A server that runs until it is stopped.
pub(crate) struct Running {
    pub(crate) channel: Channel,
    pub(crate) admin: std::net::SocketAddr,
    shutdown: Shutdown,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    pub(crate) async fn start(config: Config) -> Self {
        let app = App::start(config).await.expect("starts");
        let channel = Channel::from_shared(format!("http://{}", app.listen())).expect("an address");
        let channel = channel.connect().await.expect("connects");
        let admin = app.admin().expect("admin pages");
        let shutdown = app.shutdown();
        let serving = tokio::spawn(app.run_until(std::future::pending()));
        Self {
            channel,
            admin,
            shutdown,
            serving,
        }
    }

    pub(crate) async fn stop(self) -> Result<(), ServeError> {
        self.shutdown.begin();
        self.serving.await.expect("no panic")
    }
}

/// The vector of an item: fixed by seed and item.
pub(crate) fn vector(seed: u64, item: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(1_000_003).wrapping_add(item as u64);
    let mut next = || {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    };
    (0..DIM).map(|_| next()).collect()
}

pub(crate) fn item(ordinal: usize) -> String {
    format!("item-{ordinal:03}")
}

pub(crate) fn play(ordinal: usize, second: i64, context: &str) -> v1::Event {
    v1::Event {
        item_id: item(ordinal),
        event_time: Some(prost_types::Timestamp {
            seconds: 1_700_000_000 + second,
            nanos: 0,
        }),
        kind: v1::EventKind::Play.into(),
        context: context.into(),
        ..v1::Event::default()
    }
}

fn write_bundle(target: &Path, seed: u64) -> Result<(), Box<dyn std::error::Error>> {
    let vectors: Vec<f32> = (0..ITEMS).flat_map(|item| vector(seed, item)).collect();
    let params = BuildParams {
        threads: 1,
        ..BuildParams::default()
    };
    let metric = params.metric.to_string();
    let sections = build(&vectors, DIM, &params, &())?.into_sections();
    let section = |name: &str| {
        sections
            .iter()
            .find(|s| s.name == name)
            .map(|s| s.bytes.clone())
    };
    let index = Index::open(&section)?;
    let (dim, count) = (u32::try_from(DIM)?, u32::try_from(ITEMS)?);

    let writer = BundleWriter::create(target)?;
    writer.add(INDEX_FILE, |path| {
        SectionWriter::write(path, |out| {
            sections.iter().try_for_each(|section| {
                let spec = SectionSpec {
                    hot: section.hot,
                    ..SectionSpec::new(section.name)
                };
                out.add(spec, &section.bytes)
            })
        })
    })?;
    writer.add(ITEMS_FILE, |path| {
        let ids: Vec<String> = (0..ITEMS).map(item).collect();
        let artists: Vec<String> = (0..ITEMS).map(|at| format!("artist {}", at % 20)).collect();
        let rows = ids
            .iter()
            .zip(&artists)
            .enumerate()
            .map(|(at, (id, artist))| Item {
                id,
                title: "a title",
                artist: Some(artist),
                tags: &["a tag"],
                release_time: None,
                popularity: (ITEMS - at) as f32,
                duration_ms: None,
                blocked: at == 0,
            });
        write_items(path, &rows.collect::<Vec<_>>())
    })?;
    let golden = vectors[..5 * DIM].to_vec();
    let (mut ordinals, mut scores, mut hits) = (Vec::new(), Vec::new(), Vec::new());
    for query in golden.chunks(DIM) {
        index.search_exact(
            query,
            10,
            &Filter::default(),
            &mut Scratch::new(),
            &mut hits,
        )?;
        ordinals.extend(hits.iter().map(|hit| hit.ordinal));
        scores.extend(hits.iter().map(|hit| hit.score));
    }
    writer.add(GOLDEN_FILE, |path| {
        write_golden(path, dim, 10, &golden, &ordinals, &scores)
    })?;
    writer.seal(Draft {
        parent: None,
        create_time: jiff::Timestamp::from_second(1_700_000_000 + i64::try_from(seed)?)?,
        items: count,
        users: 0,
        dim,
        metric,
        data_watermark: None,
        exclusion_watermark: None,
        index: IndexInfo {
            m: 16,
            ef_construction: 200,
            ef_search: 100,
            recall_at_10: None,
            calibration: Vec::new(),
        },
        model: None,
        command: "a test".to_owned(),
        seed,
        report: serde_json::Value::Null,
    })?;
    Ok(())
}
