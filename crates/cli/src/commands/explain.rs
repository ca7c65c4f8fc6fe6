//! `refrain explain`: why an item is, or is not, recommended to a listener.

use refrain::v1::recommendation_service_client::RecommendationServiceClient;
use refrain::v1::{self as pb, recommend_request::Subject};
use serde_json::{Value, json};

use crate::client::{Client, Connection, Selector};
use crate::failure::Exit;
use crate::output::{self, Column, Output};
use crate::wire;

/// Why an item is, or is not, recommended: which listens made its score, which rule or stage removed it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain explain alice track-17
  refrain explain alice track-17 --causes 50 --json
  refrain explain alice track-17 -k 100 --surface home --seen allow

The shares of all listens add up to the similarity. What an excluded listen brings is not there: exclude
the cause with `refrain exclude alice --context …` and ask again.

Environment: REFRAIN_ADDR")]
pub(crate) struct Args {
    /// The listener
    #[arg(value_name = "USER")]
    user: String,
    /// The item
    #[arg(value_name = "ITEM")]
    item: String,
    /// Length of the list that is explained
    #[arg(short, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    k: u32,
    /// How many listens to show, largest share first
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    causes: u32,
    /// Where the list is shown; selects the experiment
    #[arg(long, value_name = "SURFACE", default_value = "")]
    surface: String,
    /// Ranking variant, instead of the one that the experiment assigns
    #[arg(long, value_name = "NAME", default_value = "")]
    variant: String,
    /// What happens to items already heard
    #[arg(long, value_enum, default_value_t = Seen::Exclude)]
    seen: Seen,
    #[command(flatten)]
    selector: Selector,
    #[command(flatten)]
    connection: Connection,
}

/// What happens to items already heard.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Seen {
    /// They do not come back
    Exclude,
    /// They may come back
    Allow,
}

/// Runs `refrain explain`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let seen = match args.seen {
        Seen::Exclude => pb::SeenPolicy::Exclude,
        Seen::Allow => pb::SeenPolicy::Allow,
    };
    let request = pb::ExplainRequest {
        request: Some(pb::RecommendRequest {
            subject: Some(Subject::UserId(args.user.clone())),
            page_size: Some(args.k),
            index: args.selector.to_wire(),
            seen_policy: seen.into(),
            ranking: Some(pb::Ranking {
                surface: args.surface.clone(),
                variant_override: args.variant.clone(),
                ..pb::Ranking::default()
            }),
            ..pb::RecommendRequest::default()
        }),
        item_id: args.item.clone(),
        max_contributions: Some(args.causes),
    };
    let answer = args.connection.run(async |client: Client| {
        let mut service = RecommendationServiceClient::new(client.channel.clone());
        let answer = service.explain(client.request(request)).await;
        client.answer("explain", answer)
    })?;
    output.result(&document(args, &answer), |output| {
        print(args, &answer, output)
    });
    Ok(Exit::Done)
}

fn document(args: &Args, answer: &pb::ExplainResponse) -> Value {
    let contribution = |one: &pb::Contribution| {
        json!({
            "event": one.event.as_ref().map(wire::event),
            "contribution": one.contribution,
            "weight": one.weight,
            "rule_id": one.rule_id,
        })
    };
    json!({
        "user_id": args.user,
        "item_id": args.item,
        "outcome": outcome(answer),
        "rule": answer.rule.as_ref().map(wire::exclusion),
        "position": answer.position,
        "score": answer.score,
        "similarity": answer.similarity,
        "last_score": answer.last_score,
        "explained": answer.explained,
        "contributions": answer.contributions.iter().map(contribution).collect::<Vec<_>>(),
        "contributions_total": answer.contributions_total,
        "profile": wire::profile_use(answer.profile.as_ref()),
        "served_by": wire::served_by(answer.served_by.as_ref()),
    })
}

fn outcome(answer: &pb::ExplainResponse) -> String {
    wire::short(answer.outcome().as_str_name(), "EXPLAIN_OUTCOME_")
}

fn print(args: &Args, answer: &pb::ExplainResponse, output: &Output) {
    let (user, item) = (output::clip(&args.user, 60), output::clip(&args.item, 60));
    let rule = answer.rule.as_ref().map(|rule| {
        let covers = output::clip(&wire::scope_text(rule), 80);
        format!("{covers} (rule {})", output::clip(&rule.rule_id, 36))
    });
    let words = match answer.outcome() {
        pb::ExplainOutcome::Shown => {
            format!("number {} of the list", answer.position.unwrap_or_default())
        }
        pb::ExplainOutcome::Unknown => "not shown: this version does not know it".to_owned(),
        pb::ExplainOutcome::Blocked => "not shown: blocked for everybody".to_owned(),
        pb::ExplainOutcome::Excluded => format!(
            "not shown: excluded by {}",
            rule.as_deref().unwrap_or("a rule")
        ),
        pb::ExplainOutcome::Heard => {
            "not shown: heard already (--seen allow asks otherwise)".to_owned()
        }
        pb::ExplainOutcome::Filtered => "not shown: the request rules it out".to_owned(),
        pb::ExplainOutcome::NotRetrieved => {
            "not shown: it was no candidate, though its score would do".to_owned()
        }
        pb::ExplainOutcome::Outranked => format!(
            "not shown: {} others have a better score than its {:.4}; the last has {:.4}",
            args.k,
            answer.score.unwrap_or_default(),
            answer.last_score.unwrap_or_default()
        ),
        pb::ExplainOutcome::ArtistFull => {
            "not shown: its artist has as many places as allowed".to_owned()
        }
        pb::ExplainOutcome::Fallback => {
            "not shown: nothing is known to search with, and others are more popular".to_owned()
        }
        pb::ExplainOutcome::Unspecified => outcome(answer),
    };
    output.line(format_args!("{item} for {user}: {words}"));
    if answer.outcome() != pb::ExplainOutcome::Excluded
        && let Some(rule) = &rule
    {
        output.line(format_args!("let pass by {rule}"));
    }
    if let (Some(score), Some(similarity)) = (answer.score, answer.similarity) {
        output.line(format_args!(
            "score {score:.4}, similarity {similarity:.4}, of which {:.4} is explained by {} listens",
            answer.explained, answer.contributions_total
        ));
    }
    if answer.contributions.is_empty() {
        return;
    }
    let mut table = output::table(&[
        Column::Number("share"),
        Column::Text("item"),
        Column::Text("kind"),
        Column::Text("time"),
        Column::Text("context"),
        Column::Number("weight"),
        Column::Text("rule"),
    ]);
    for one in &answer.contributions {
        let event = one.event.clone().unwrap_or_default();
        let at = wire::instant(event.event_time.as_ref());
        table.add_row([
            format!("{:+.4}", one.contribution),
            output::clip(&event.item_id, 40),
            wire::kind(&event),
            at.map_or_else(String::new, |at| {
                at.strftime("%Y-%m-%d %H:%M:%S").to_string()
            }),
            output::clip(&event.context, 30),
            format!("{:.2}", one.weight),
            output::clip(&one.rule_id, 36),
        ]);
    }
    output.table(&table);
}
