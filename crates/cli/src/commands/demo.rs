//! `refrain demo`: the whole road on this machine, from a listening log to answers that honour an
//! exclusion.
//!
//! Nothing here is staged: the jobs are those of `train`, `build` and `publish`, the server is that of
//! `serve` in this process, and every question goes over gRPC through the loopback.

mod cast;
mod road;
mod steps;
mod tour;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use refrain_server::{App, Config};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::cast::Cast;
use self::road::Road;
use self::steps::Steps;
use self::tour::Tour;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::ingest::ReadArgs;
use crate::output::{self, Output};

/// The whole road in one command: log, train, build, gate, publish, serve, answers, an exclusion
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain demo --once                                   on a generated log
  refrain demo --listens plays.csv.gz --items tracks.csv
  refrain demo --listens clicks.parquet --once --json | jq .model

Exit 3 when a check of the tour fails: recall of the index, the exclusion taking effect, its result
equal bit for bit to a profile that never had the events, its undo. Without --once the server stays
up afterwards.")]
pub(crate) struct Args {
    /// Your own listening log instead of a generated one; repeat, or several
    #[arg(long, value_name = "FILE", num_args = 1..)]
    listens: Vec<PathBuf>,
    /// Files that say more about items: title, artist, tags, release time
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "listens")]
    items: Vec<PathBuf>,
    /// As --map, for the files of --items: a column by name or position; repeat
    #[arg(long, value_name = "FIELD=COLUMN", requires = "items")]
    map_items: Vec<String>,
    /// Directory for model, bundle, store and profiles; new or empty [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Exit after the tour instead of staying up
    #[arg(long)]
    once: bool,
    /// Seed of the generated log, the model and the index [default: the same each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Address of the server [default: 127.0.0.1:7700, with --once any free port]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<SocketAddr>,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    read: ReadArgs,
}

/// The recall@10 that the index must have against exact search.
const LEAST_RECALL: f64 = 0.95;

/// Runs `refrain demo`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let workshop = Workshop::new(args.dir.as_deref())?;
    let config = config(args, &workshop.path);
    // Before minutes of work: a port in use would only be found when they are over.
    drop(
        std::net::TcpListener::bind(config.server.listen).map_err(|error| {
            let what = format!("cannot listen at {}", config.server.listen);
            let failure = Failure::new(what).next("give another --listen, or --listen 127.0.0.1:0");
            anyhow::Error::new(error).context(failure)
        })?,
    );
    let mut steps = Steps::new(output);
    let road = road::travel(args, &workshop.path, &mut steps)?;
    let cast = cast::choose(&road)?;

    let runtime = refrain_server::runtime(&config)?;
    runtime.block_on(async {
        steps.begin("serve", "start the server on the published version");
        let app = App::start(config).await.map_err(|error| {
            anyhow::Error::new(error).context(
                Failure::new("cannot serve").next("give another --listen, or --listen 127.0.0.1:0"),
            )
        })?;
        let addr = format!("http://{}", app.listen());
        steps.say(format_args!(
            "{} answers at {addr}",
            app.version().as_deref().unwrap_or("no version")
        ));
        steps.end();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let terminated = refrain_server::terminated()?;
        let server = tokio::spawn(app.run_until(async move {
            tokio::select! {
                () = terminated => (),
                // The sender goes away when the tour fails: that ends the server, too.
                _ = stopped => (),
            }
        }));

        let client = Client::connect(&addr, std::time::Duration::from_secs(30)).await?;
        let tour = tour::guide(&client, &road, &cast, &mut steps).await?;
        let checks = checks(&road, &tour);
        output.document(&document(&road, &cast, &tour, &checks, &steps));
        let exit = conclude(&checks, &steps, output);
        if args.once {
            drop(stop);
        } else {
            invite(&addr, &cast, &workshop, output);
        }
        server.await??;
        Ok(exit)
    })
}

/// Where the demo keeps its files.
struct Workshop {
    path: PathBuf,
    /// Removed with its files when the demo ends.
    _temporary: Option<TempDir>,
}

impl Workshop {
    fn new(dir: Option<&Path>) -> anyhow::Result<Self> {
        let Some(dir) = dir else {
            let temporary = tempfile::Builder::new().prefix("refrain-demo-").tempdir()?;
            return Ok(Self {
                path: temporary.path().to_owned(),
                _temporary: Some(temporary),
            });
        };
        fs_err::create_dir_all(dir)?;
        if fs_err::read_dir(dir)?.next().is_some() {
            return Err(Failure::new(format!("{} is not empty", dir.display()))
                .next("give a new --dir, or none for a temporary one")
                .error());
        }
        Ok(Self {
            path: dir.to_owned(),
            _temporary: None,
        })
    }
}

fn config(args: &Args, dir: &Path) -> Config {
    let mut config = Config::default();
    config.store.url = Some(dir.join("store").display().to_string());
    config.profiles.path = dir.join("profiles.redb");
    if let Some(listen) = args.listen {
        config.server.listen = listen;
    } else if args.once {
        config.server.listen.set_port(0);
    }
    config.server.admin_listen = None;
    config
}

/// What the tour must have shown, and whether it did.
fn checks(road: &Road, tour: &Tour) -> Vec<(&'static str, bool)> {
    vec![
        ("recall", road.recall() >= LEAST_RECALL),
        ("list_changed", tour.exclusion.list_changed()),
        ("bit_equal", tour.exclusion.bit_equal()),
        ("undo_identical", tour.exclusion.undo_identical()),
    ]
}

fn document(
    road: &Road,
    cast: &Cast,
    tour: &Tour,
    checks: &[(&'static str, bool)],
    steps: &Steps<'_>,
) -> Value {
    let quality = |quality: Option<&refrain_builder::evaluation::Quality>| {
        json!({
            "recall_at_20": quality.map(|quality| quality.recall_at_20),
            "ndcg_at_20": quality.map(|quality| quality.ndcg_at_20),
            "map_at_20": quality.map(|quality| quality.map_at_20),
            "coverage_at_20": quality.map(|quality| quality.coverage_at_20),
        })
    };
    let exclusion = &tour.exclusion;
    json!({
        "source": road.source,
        "steps": steps.document(),
        "counts": {
            "users": road.log.users.len(),
            "items": road.log.items.len(),
            "events": road.log.len(),
        },
        "index": {
            "version": road.manifest.version,
            "recall_at_10": road.recall(),
            "ef_search": road.manifest.index.ef_search,
            "golden_recall_at_10": road.golden_recall,
        },
        "protocol": road.report.protocol,
        "model": quality(road.report.model.as_ref()),
        "popularity": quality(road.report.popularity.as_ref()),
        "listeners": tour.listeners,
        "latency": tour.latency,
        "exclusion": {
            "user": cast.lead.id,
            "context": cast.lead.context,
            "planted": cast.lead.planted_from.is_some(),
            "list_changed": exclusion.list_changed(),
            "bit_equal": exclusion.bit_equal(),
            "undo_identical": exclusion.undo_identical(),
            "before": exclusion.before.ids(),
            "after": exclusion.after.ids(),
        },
        "variants": tour.variants,
        "checks": checks.iter().map(|&(name, held)| (name.to_owned(), json!(held)))
            .collect::<serde_json::Map<_, _>>(),
    })
}

/// Says whether the checks held, and which did not.
fn conclude(checks: &[(&'static str, bool)], steps: &Steps<'_>, output: &Output) -> Exit {
    let failed: Vec<&str> = checks
        .iter()
        .filter(|(_, held)| !held)
        .map(|(name, _)| *name)
        .collect();
    output.line("");
    if failed.is_empty() {
        output.line(format_args!(
            "All of it in {}; every check held.",
            output::duration(steps.total())
        ));
        return Exit::Done;
    }
    output.note(format_args!("check failed: {}", failed.join(", ")));
    Exit::Refused
}

/// Prints the three commands to try next.
fn invite(addr: &str, cast: &Cast, workshop: &Workshop, output: &Output) {
    let addr = if addr == "http://127.0.0.1:7700" {
        String::new()
    } else {
        format!(" --addr {addr}")
    };
    let user = shell_word(&cast.lead.id);
    let context = shell_word(&cast.lead.context);
    output.line("");
    output.line(format_args!(
        "The server stays up, with its files in {}. Try in another terminal:",
        workshop.path.display()
    ));
    output.line(format_args!("  refrain recommend {user}{addr}"));
    output.line(format_args!(
        "  refrain exclude {user} --context {context}{addr}"
    ));
    output.line(format_args!("  refrain compare {user}{addr}"));
    output.line("Ctrl-C ends it.");
}

/// A word that a shell takes as it is.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@,+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(shell_word("playlist:sleep"), "playlist:sleep");
        assert_eq!(shell_word("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(shell_word(""), "''");
    }
}
