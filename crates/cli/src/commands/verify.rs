//! `refrain verify` and `refrain inspect`: is a bundle what it says, and what is in it?

use std::path::{Path, PathBuf};
use std::time::Instant;

use refrain_bundle::bundle::OpenError as BundleError;
use refrain_bundle::{Bundle, ManifestError, OpenMode, SectionFile};
use refrain_engine::{OpenError, VerifyError, Version};
use serde_json::{Value, json};

use crate::failure::{Exit, Failure};
use crate::output::{self, Column, Output};

/// Which bundle.
#[derive(Debug, Clone, clap::Args)]
struct BundleArgs {
    /// The bundle: its directory, or a version or label of --store
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    /// Store that the version or label is looked up in: s3://…, file:///absolute/path, or a path
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

impl BundleArgs {
    fn dir(&self) -> anyhow::Result<PathBuf> {
        let Some(url) = &self.store else {
            return Ok(PathBuf::from(&self.bundle));
        };
        let find = || {
            let store = refrain_objects::open_store(url, None)?;
            match store.label(&self.bundle) {
                Ok(Some(label)) => store.path(&label.version),
                // A version id is no label name.
                Ok(None) | Err(_) => store.path(&self.bundle),
            }
        };
        find().map_err(|error| {
            let next = Failure::new(format!("cannot find {}", output::clip(&self.bundle, 80)))
                .next("`refrain versions` lists versions and labels");
            anyhow::Error::new(error).context(next)
        })
    }
}

/// Check every byte of a bundle: checksums, structure, agreement; exit 3 when it is damaged
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain verify bundle/
  refrain verify stable --store file:///srv/refrain")]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    bundle: BundleArgs,
}

/// Runs `refrain verify`.
pub(crate) fn verify(args: &VerifyArgs, output: &Output) -> anyhow::Result<Exit> {
    let dir = args.bundle.dir()?;
    let started = Instant::now();
    let (version, files, bytes) = {
        let _progress = output.progress("verify");
        check(&dir)?
    };
    let took = started.elapsed();
    let document = json!({
        "bundle": dir,
        "version": version,
        "ok": true,
        "files": files,
        "bytes": bytes,
        "seconds": took.as_secs_f64(),
    });
    output.result(&document, |output| {
        output.line(format_args!(
            "{version} is whole: {files} files, {}, checked in {}",
            output::bytes(bytes),
            output::duration(took)
        ));
    });
    Ok(Exit::Done)
}

/// Checks all of the bundle at `dir`: version, files and bytes that were read.
pub(crate) fn check(dir: &Path) -> anyhow::Result<(String, usize, u64)> {
    let damaged = || {
        Failure::refused(format!("{} is damaged", dir.display()))
            .next("do not serve it; build it again, or copy it again from where it was whole")
    };
    let version = Version::open(dir, OpenMode::Map).map_err(|error| {
        let failure = if is_damage(&error) {
            damaged()
        } else {
            no_bundle(dir)
        };
        anyhow::Error::new(error).context(failure)
    })?;
    let report = version.verify().map_err(|error| {
        let io = matches!(
            error,
            VerifyError::Bundle(refrain_bundle::VerifyError::Io(_))
        );
        let failure = if io {
            Failure::new("cannot read the bundle")
        } else {
            damaged()
        };
        anyhow::Error::new(error).context(failure)
    })?;
    Ok((version.id().to_owned(), report.files, report.bytes))
}

/// Whether the bundle is there but not what it should be.
fn is_damage(error: &OpenError) -> bool {
    let OpenError::Bundle(error) = error else {
        return true;
    };
    match error {
        BundleError::Manifest(ManifestError::Io(_)) => false,
        // Listed in the manifest and gone: that is damage, unlike a disk that does not answer.
        BundleError::Section(refrain_bundle::OpenError::Io(source)) => {
            source.kind() == std::io::ErrorKind::NotFound
        }
        _ => true,
    }
}

fn no_bundle(dir: &Path) -> Failure {
    Failure::new(format!("cannot open the bundle {}", dir.display()))
        .next("give a directory that `refrain build` made, or --store URL and a version")
}

fn open(dir: &Path) -> anyhow::Result<Bundle> {
    Bundle::open(dir, OpenMode::Map)
        .map_err(|error| anyhow::Error::new(error).context(no_bundle(dir)))
}

/// What is in a bundle: its manifest, files, index, model, and the most popular items
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain inspect bundle/
  refrain inspect stable --store file:///srv/refrain --json
  refrain inspect bundle/ --item track-17")]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    bundle: BundleArgs,
    /// Also all that is known of this item; repeat
    #[arg(long = "item", value_name = "ITEM")]
    items: Vec<String>,
}

/// Runs `refrain inspect`.
pub(crate) fn inspect(args: &InspectArgs, output: &Output) -> anyhow::Result<Exit> {
    let dir = args.bundle.dir()?;
    let bundle = open(&dir)?;
    let items = args
        .items
        .iter()
        .map(|id| item_document(&bundle, id))
        .collect::<anyhow::Result<Vec<Value>>>()?;
    let popular = bundle.items().by_popularity().take(10);
    let popular: Vec<Value> = popular.map(|ordinal| item_at(&bundle, ordinal)).collect();
    let document = json!({
        "bundle": dir,
        "manifest": bundle.manifest(),
        "sections": sections(bundle.index_sections()),
        "golden": { "queries": bundle.golden().len(), "k": bundle.golden().k() },
        "artists": bundle.items().artists(),
        "tags": bundle.items().tag_count(),
        "most_popular": popular,
        "items": items,
    });
    output.result(&document, |output| print(&bundle, &popular, &items, output));
    Ok(Exit::Done)
}

fn sections(file: &SectionFile) -> Vec<Value> {
    file.sections()
        .map(|section| {
            json!({
                "name": section.name,
                "offset": section.offset,
                "bytes": section.len,
                "hot": section.hot,
            })
        })
        .collect()
}

fn item_document(bundle: &Bundle, id: &str) -> anyhow::Result<Value> {
    match bundle.items().ordinal(id) {
        Some(ordinal) => Ok(item_at(bundle, ordinal)),
        None => {
            let id = output::clip(id, 128);
            Err(Failure::new(format!("the bundle has no item {id:?}")).error())
        }
    }
}

fn item_at(bundle: &Bundle, ordinal: u32) -> Value {
    let items = bundle.items();
    let tags: Vec<&str> = items.tags(ordinal).map(|tag| items.tag_name(tag)).collect();
    let release = items.release_time(ordinal);
    let release = release.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    json!({
        "item_id": items.id(ordinal),
        "title": items.title(ordinal),
        "artist": items.artist(ordinal).map(|artist| items.artist_name(artist)),
        "tags": tags,
        "popularity": items.popularity(ordinal),
        "release_time": release.map(|at| at.to_string()),
        "duration_ms": items.duration_ms(ordinal),
        "blocked": items.blocked(ordinal),
    })
}

fn print(bundle: &Bundle, popular: &[Value], items: &[Value], output: &Output) {
    let manifest = bundle.manifest();
    let mut facts = output::table(&[Column::Text("bundle"), Column::Text(" ")]);
    let mut fact = |name: &str, value: String| {
        facts.add_row([name.to_owned(), value]);
    };
    fact("version", manifest.version.clone());
    if let Some(parent) = &manifest.parent {
        fact("parent", parent.clone());
    }
    fact("built", output::instant(manifest.create_time));
    if let Some(watermark) = manifest.data_watermark {
        fact("listens until", output::instant(watermark));
    }
    if let Some(watermark) = manifest.exclusion_watermark {
        fact("exclusions until", output::instant(watermark));
    }
    fact(
        "vectors",
        format!(
            "{} x {}, {}",
            output::count(manifest.items),
            manifest.dim,
            manifest.metric
        ),
    );
    fact(
        "index",
        format!(
            "m {}, ef_construction {}, ef_search {}",
            manifest.index.m, manifest.index.ef_construction, manifest.index.ef_search
        ),
    );
    if let Some(recall) = manifest.index.recall_at_10 {
        fact("recall@10", format!("{recall:.4}"));
    }
    if let Some(model) = &manifest.model {
        fact(
            "model",
            format!(
                "rank {}, {} users",
                model.rank,
                output::count(manifest.users)
            ),
        );
        fact("hyper-parameters", model.hyper.to_string());
    }
    fact("artists", output::count(bundle.items().artists()));
    fact("tags", output::count(bundle.items().tag_count()));
    fact(
        "golden queries",
        output::count(bundle.golden().len() as u64),
    );
    fact("seed", manifest.seed.to_string());
    fact("made by", output::clip(&manifest.command, 100));
    output.table(&facts);

    let mut files = output::table(&[
        Column::Text("file"),
        Column::Number("size"),
        Column::Text("digest"),
    ]);
    for (name, file) in &manifest.files {
        files.add_row([
            name.clone(),
            output::bytes(file.bytes),
            file.digest.to_string(),
        ]);
    }
    output.line("");
    output.table(&files);
    output.line("");
    print_items("most popular", popular, output);
    if !items.is_empty() {
        output.line("");
        print_items("item", items, output);
    }
}

fn print_items(heading: &'static str, items: &[Value], output: &Output) {
    let mut table = output::table(&[
        Column::Text(heading),
        Column::Text("title"),
        Column::Text("artist"),
        Column::Text("tags"),
        Column::Number("popularity"),
        Column::Text("blocked"),
    ]);
    let text = |value: &Value| output::clip(value.as_str().unwrap_or_default(), 40);
    for item in items {
        let tags: Vec<&str> = item["tags"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        table.add_row([
            text(&item["item_id"]),
            text(&item["title"]),
            text(&item["artist"]),
            output::clip(&tags.join(", "), 40),
            item["popularity"].to_string(),
            if item["blocked"] == true {
                "yes".to_owned()
            } else {
                String::new()
            },
        ]);
    }
    output.table(&table);
}
