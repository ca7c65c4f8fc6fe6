//! `refrain health`: is a server ready to answer? For a container's health check.

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::client::{Client, Connection};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Ask a server whether it is ready: exit 0 when it serves, 1 when it does not
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain health
  refrain health --addr http://10.0.0.7:7700 --timeout 1s
  refrain health --service refrain.v1.RecommendationService

Environment: REFRAIN_ADDR")]
pub(crate) struct Args {
    /// Service to ask about [default: the server as a whole]
    #[arg(long, value_name = "SERVICE", default_value = "")]
    service: String,
    #[command(flatten)]
    connection: Connection,
}

/// Runs `refrain health`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let status = args.connection.run(async |client: Client| {
        let mut service = HealthClient::new(client.channel.clone());
        let request = HealthCheckRequest {
            service: args.service.clone(),
        };
        let answer = service.check(client.request(request)).await;
        Ok(client.answer("health", answer)?.status())
    })?;
    if status != ServingStatus::Serving {
        return Err(Failure::new(format!(
            "{} answers {}",
            args.connection.addr,
            status.as_str_name()
        ))
        .next("it is loading its first version or draining; `refrain versions` shows the store")
        .error());
    }
    let document = serde_json::json!({ "status": "SERVING", "addr": args.connection.addr });
    output.result(&document, |output| {
        output.line(format_args!("{} is serving", args.connection.addr));
    });
    Ok(Exit::Done)
}
