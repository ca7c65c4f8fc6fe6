//! `refrain publish`, `versions`, `promote`, `rollback`: versions in a store, and the labels that
//! point at them.

use std::path::PathBuf;
use std::time::Instant;

use refrain_bundle::store::StoreError;
use refrain_bundle::{Label, Manifest, ManifestError, PublishError, Store, VersionInfo};
use serde_json::{Value, json};

use crate::failure::{Exit, Failure};
use crate::output::{self, Column, Output};

/// Where versions live.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StoreArgs {
    /// The store: s3://bucket/prefix, gs://…, az://…, file:///absolute/path, or a path
    #[arg(long = "store", env = "REFRAIN_STORE", value_name = "URL")]
    url: String,
}

impl StoreArgs {
    /// Opens the store.
    pub(crate) fn open(&self) -> anyhow::Result<Store> {
        refrain_objects::open_store(&self.url, None)
            .map_err(|error| failure("cannot use the store", error))
    }
}

/// Put a bundle into a store, verified, and point a label at it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain publish bundle/ --store file:///srv/refrain
  refrain publish bundle/ --label canary
  refrain publish bundle/ --no-label

Environment: REFRAIN_STORE")]
pub(crate) struct PublishArgs {
    /// The bundle, as `refrain build` left it
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
    /// Label to point at the version
    #[arg(long, value_name = "LABEL", default_value = "stable")]
    label: String,
    /// Point no label at it
    #[arg(long, conflicts_with_all = ["label", "etag"])]
    no_label: bool,
    /// Only if the label still has this etag
    #[arg(long, value_name = "ETAG")]
    etag: Option<String>,
}

/// Runs `refrain publish`.
pub(crate) fn publish(args: &PublishArgs, output: &Output) -> anyhow::Result<Exit> {
    let started = Instant::now();
    refuse_stopped(&args.bundle, output)?;
    let store = args.store.open()?;
    let label = (!args.no_label).then_some(args.label.as_str());
    let published = {
        let _progress = output.progress("copy, sync and verify");
        store
            .publish(&args.bundle, label, args.etag.as_deref(), &actor())
            .map_err(|error| publish_failure(&args.bundle, error))?
    };
    let took = started.elapsed();
    let document = json!({
        "version": published.version,
        "path": published.path,
        "new": published.new,
        "label": published.label.as_ref().map(label_document),
        "seconds": took.as_secs_f64(),
    });
    output.result(&document, |output| {
        let verb = if published.new {
            "published"
        } else {
            "was there already"
        };
        output.line(format_args!(
            "{} {verb}, in {}",
            published.version,
            output::duration(took)
        ));
        if let Some(label) = &published.label {
            print_label(label, output);
        }
    });
    Ok(Exit::Done)
}

/// What its gate stopped does not meet listeners, unless it was forced, which is said.
fn refuse_stopped(bundle: &std::path::Path, output: &Output) -> anyhow::Result<()> {
    // What cannot be read is told by the publisher.
    let manifest = Manifest::read(bundle).ok();
    let Some(gate) = manifest.as_ref().and_then(Manifest::gate_report) else {
        return Ok(());
    };
    if gate["passed"] != false {
        return Ok(());
    }
    let Some(reason) = gate["forced"]["reason"].as_str() else {
        return Err(Failure::refused("the gate stopped this bundle")
            .next("refrain evaluate BUNDLE --gate FILE says why; --force REASON lets it pass, with a mark")
            .error());
    };
    let by = gate["forced"]["by"].as_str().unwrap_or_default();
    output.note(format_args!(
        "FORCED through its gate by {}: {}",
        output::clip(by, 100),
        output::clip(reason, 400)
    ));
    Ok(())
}

/// Versions in a store, newest first, and the labels that point at them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain versions --store file:///srv/refrain
  refrain versions --json | jq -r '.versions[0].version'

Environment: REFRAIN_STORE")]
pub(crate) struct VersionsArgs {
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs `refrain versions`.
pub(crate) fn versions(args: &VersionsArgs, output: &Output) -> anyhow::Result<Exit> {
    let store = args.store.open()?;
    let fail = |error| failure("cannot list the versions", error);
    let mut versions = store.versions().map_err(fail)?;
    versions.reverse();
    let labels = store.labels().map_err(fail)?;
    let mut deltas = Vec::with_capacity(versions.len());
    for info in &versions {
        deltas.push(store.delta_count(&info.manifest.version).map_err(fail)?);
    }
    let documents = versions.iter().zip(&deltas);
    let documents = documents.map(|(info, &delta)| version_document(info, delta, &labels));
    let document = json!({
        "versions": documents.collect::<Vec<_>>(),
        "labels": labels.iter().map(label_document).collect::<Vec<_>>(),
    });
    output.result(&document, |output| {
        print_versions(&versions, &deltas, &labels, output)
    });
    Ok(Exit::Done)
}

/// Point a label at a version; servers that watch the label swap to it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain promote v20261122T194500Z-1a2b3c4d --store file:///srv/refrain
  refrain promote v20261122T194500Z-1a2b3c4d --label canary

Environment: REFRAIN_STORE")]
pub(crate) struct PromoteArgs {
    /// The version
    #[arg(value_name = "VERSION")]
    version: String,
    #[command(flatten)]
    target: LabelArgs,
}

/// Point a label back at the version before
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain rollback --store file:///srv/refrain
  refrain rollback --label canary

Environment: REFRAIN_STORE")]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    target: LabelArgs,
}

/// Which label of which store.
#[derive(Debug, Clone, clap::Args)]
struct LabelArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The label
    #[arg(long, value_name = "LABEL", default_value = "stable")]
    label: String,
    /// Only if the label still has this etag
    #[arg(long, value_name = "ETAG")]
    etag: Option<String>,
}

/// Runs `refrain promote`.
pub(crate) fn promote(args: &PromoteArgs, output: &Output) -> anyhow::Result<Exit> {
    let LabelArgs { store, label, etag } = &args.target;
    let moved = store
        .open()?
        .set_label(label, &args.version, etag.as_deref(), &actor())
        .map_err(|error| failure("cannot promote", error))?;
    print_moved(&moved, output);
    Ok(Exit::Done)
}

/// Runs `refrain rollback`.
pub(crate) fn rollback(args: &RollbackArgs, output: &Output) -> anyhow::Result<Exit> {
    let LabelArgs { store, label, etag } = &args.target;
    let moved = store
        .open()?
        .rollback(label, etag.as_deref(), &actor())
        .map_err(|error| failure("cannot roll back", error))?;
    print_moved(&moved, output);
    Ok(Exit::Done)
}

fn print_moved(label: &Label, output: &Output) {
    output.result(&json!({ "label": label_document(label) }), |output| {
        print_label(label, output)
    });
}

fn print_label(label: &Label, output: &Output) {
    let before = label.previous.as_ref();
    let before = before.map_or_else(String::new, |previous| format!(" (before: {previous})"));
    output.line(format_args!(
        "label {} points at {}{before}",
        label.name, label.version
    ));
}

fn print_versions(versions: &[VersionInfo], deltas: &[u64], labels: &[Label], output: &Output) {
    if versions.is_empty() {
        output.line("no versions yet: `refrain publish BUNDLE` adds one");
        return;
    }
    let mut table = output::table(&[
        Column::Text("version"),
        Column::Text("built"),
        Column::Number("items"),
        Column::Number("delta"),
        Column::Number("dim"),
        Column::Text("metric"),
        Column::Number("size"),
        Column::Number("recall@10"),
        Column::Text("labels"),
    ]);
    for (info, delta) in versions.iter().zip(deltas) {
        let VersionInfo {
            manifest, bytes, ..
        } = info;
        let recall = manifest.index.recall_at_10;
        table.add_row([
            manifest.version.clone(),
            output::instant(manifest.create_time),
            output::count(manifest.items),
            delta.to_string(),
            manifest.dim.to_string(),
            manifest.metric.clone(),
            output::bytes(*bytes),
            recall.map_or_else(String::new, |recall| format!("{recall:.3}")),
            labels_of(&manifest.version, labels).join(", "),
        ]);
    }
    output.table(&table);
}

fn version_document(info: &VersionInfo, delta: u64, labels: &[Label]) -> Value {
    let manifest = &info.manifest;
    json!({
        "version": manifest.version,
        "parent": manifest.parent,
        "create_time": manifest.create_time.to_string(),
        "items": manifest.items,
        "delta": delta,
        "users": manifest.users,
        "dim": manifest.dim,
        "metric": manifest.metric,
        "bytes": info.bytes,
        "recall_at_10": manifest.index.recall_at_10,
        "labels": labels_of(&manifest.version, labels),
        "path": info.path,
    })
}

fn label_document(label: &Label) -> Value {
    json!({
        "name": label.name,
        "version": label.version,
        "previous": label.previous,
        "etag": label.etag,
        "update_time": label.update_time.to_string(),
        "actor": label.actor,
    })
}

fn labels_of<'a>(version: &str, labels: &'a [Label]) -> Vec<&'a str> {
    let here = labels.iter().filter(|label| label.version == version);
    here.map(|label| label.name.as_str()).collect()
}

/// Who moves a label, for the audit log: the user of this process.
pub(crate) fn actor() -> String {
    let name = ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let name = name.unwrap_or_else(|| "unknown".to_owned());
    format!("cli:{}", output::clip(&name, 60))
}

pub(super) fn failure(what: &str, error: StoreError) -> anyhow::Error {
    let failure = match &error {
        StoreError::Scheme { .. }
        | StoreError::BadUrl { .. }
        | StoreError::Unusable { .. }
        | StoreError::BadLabel { .. } => Failure::usage(what),
        StoreError::Objects(_) => Failure::new(what).next(
            "labels point at what they pointed at before; repeat, it goes on where it stopped",
        ),
        StoreError::NoStore { .. } => Failure::new(what)
            .next("is it mounted? `refrain publish BUNDLE --store URL` makes a new one"),
        StoreError::NoVersion { .. } | StoreError::NoLabel { .. } => {
            Failure::new(what).next("`refrain versions` lists versions and labels")
        }
        StoreError::Conflict { .. } => {
            Failure::new(what).next("look with `refrain versions`, then repeat")
        }
        _ => Failure::new(what),
    };
    anyhow::Error::new(error).context(failure)
}

fn publish_failure(bundle: &std::path::Path, error: PublishError) -> anyhow::Error {
    let what = format!("cannot publish {}", bundle.display());
    match error {
        PublishError::Store(error) => failure(&what, error),
        PublishError::Manifest(ManifestError::Io(error)) => {
            anyhow::Error::new(error).context(Failure::new(what))
        }
        error @ (PublishError::Corrupt(_) | PublishError::Open(_) | PublishError::Manifest(_)) => {
            let failure = Failure::refused(what)
                .next("the store is as it was; build the bundle again, or copy it again");
            anyhow::Error::new(error).context(failure)
        }
        error @ PublishError::Label { .. } => {
            let failure = Failure::new(what).next("move the label with `refrain promote VERSION`");
            anyhow::Error::new(error).context(failure)
        }
        error => anyhow::Error::new(error).context(Failure::new(what)),
    }
}
