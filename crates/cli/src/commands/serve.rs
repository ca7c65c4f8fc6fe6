//! `refrain serve` and `refrain config`: the server, and what it can be told.

use std::net::SocketAddr;
use std::path::PathBuf;

use refrain_server::{App, Config};
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Serve the labelled version of a store over gRPC
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain serve --store file:///srv/refrain
  refrain serve --config refrain.toml
  refrain serve --store store/ --listen 127.0.0.1:0 --json

Maps and verifies the version that the label points at, watches the label, swaps without dropping a
request, drains on SIGTERM or Ctrl-C (while it starts, ends at once). Flags go before the configuration file. RUST_LOG filters the log.

Environment: REFRAIN_STORE, REFRAIN_PROFILES, RUST_LOG")]
pub(crate) struct Args {
    /// The store: file:///absolute/path, or a path
    #[arg(long, env = "REFRAIN_STORE", value_name = "URL")]
    store: Option<String>,
    /// Configuration file; `refrain config` prints one with all defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address for gRPC; port 0: any
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<SocketAddr>,
    /// Address for metrics and health over HTTP; port 0: any
    #[arg(long, value_name = "HOST:PORT")]
    admin_listen: Option<SocketAddr>,
    /// The taste profiles: a file, or postgres://user:password@host/database that replicas share
    #[arg(
        long,
        env = "REFRAIN_PROFILES",
        hide_env_values = true,
        value_name = "FILE|URL"
    )]
    profiles: Option<String>,
    /// Label to serve and watch; repeat, the first answers by default
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
}

/// Runs `refrain serve`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let config = config(args)?;
    refrain_server::init_tracing(&config.log)?;
    let runtime = refrain_server::runtime(&config)?;
    let ended = runtime.block_on(serve(config, output));
    // A start that was given up may still wait for a store or a database: nobody waits for that.
    runtime.shutdown_background();
    ended
}

/// Serves until a signal. One that comes while the server starts ends the start.
async fn serve(config: Config, output: &Output) -> anyhow::Result<Exit> {
    // Before anything says that the server is there: who has read that may send the signal at once.
    let mut signal = std::pin::pin!(refrain_server::terminated()?);
    let app = tokio::select! {
        started = App::start(config) => started
            .map_err(|error| anyhow::Error::new(error).context(Failure::new("cannot serve")))?,
        () = &mut signal => {
            output.note(format_args!("stopped before it served"));
            return Ok(Exit::Done);
        }
    };
    let ready = json!({
        "listen": app.listen().to_string(),
        "admin": app.admin().map(|admin| admin.to_string()),
        "version": app.version(),
    });
    if output.is_json() {
        output.document_line(&ready);
    } else {
        output.note(format_args!(
            "serving {} at http://{}; Ctrl-C ends it",
            app.version().as_deref().unwrap_or("nothing yet"),
            app.listen()
        ));
    }
    app.run_until(signal).await?;
    Ok(Exit::Done)
}

/// The file, then the flags.
fn config(args: &Args) -> anyhow::Result<Config> {
    let mut config = match &args.config {
        Some(path) => Config::load(path).map_err(|error| {
            anyhow::Error::new(error).context(
                Failure::new("cannot use the configuration")
                    .next("`refrain config` prints one with all defaults"),
            )
        })?,
        None => Config::default(),
    };
    if let Some(store) = &args.store {
        config.store.url = Some(store.clone());
    }
    if config.store.url.is_none() {
        return Err(Failure::usage("which store?")
            .next("give --store URL, $REFRAIN_STORE or [store] url in the configuration")
            .error());
    }
    if let Some(listen) = args.listen {
        config.server.listen = listen;
    }
    if let Some(admin) = args.admin_listen {
        config.server.admin_listen = Some(admin);
    }
    if let Some(profiles) = &args.profiles {
        if profiles.starts_with("postgres://") || profiles.starts_with("postgresql://") {
            config.profiles.url = Some(profiles.clone());
        } else {
            config.profiles.url = None;
            config.profiles.path = PathBuf::from(profiles);
        }
    }
    if !args.label.is_empty() {
        config.server.labels.clone_from(&args.label);
    }
    if let Ok(filter) = std::env::var("RUST_LOG") {
        config.log.filter = filter;
    }
    Ok(config)
}

/// Print the default configuration of the server, with comments
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain config > refrain.toml
  refrain serve --config refrain.toml
  refrain config --schema > refrain.schema.json")]
pub(crate) struct ConfigArgs {
    /// Print the JSON Schema (draft 2020-12) of configurations instead
    #[arg(long)]
    schema: bool,
}

/// Runs `refrain config`.
pub(crate) fn print_config(args: &ConfigArgs, output: &Output) -> anyhow::Result<Exit> {
    if args.schema {
        let schema: serde_json::Value = serde_json::from_str(refrain_server::CONFIG_SCHEMA)?;
        output.result(&schema, |output| {
            output.line(refrain_server::CONFIG_SCHEMA.trim_end());
        });
        return Ok(Exit::Done);
    }
    let text = refrain_server::DEFAULT_TOML;
    output.result(&json!({ "toml": text }), |output| {
        output.line(text.trim_end())
    });
    Ok(Exit::Done)
}
