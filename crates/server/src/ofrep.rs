//! OFREP: the assignment as any OpenFeature SDK reads it (OpenFeature Remote Evaluation Protocol, 0.3).
//!
//! A flag is a parameter of a layer, `LAYER.PARAMETER`; its value is that of the unit's arm, its variant
//! the arm. The unit is the `targetingKey` of the context, the rest of the context is what targeting
//! reads. Evaluating is not showing: nothing here writes an exposure.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use refrain_engine::Policy;
use refrain_experiments::{ParamValue, hash128};
use refrain_taste::MAX_ID_BYTES;
use serde_json::{Map, Value, json};

use crate::evaluation::{evaluated, reason};

/// Largest request.
const MAX_BYTES: usize = 64 << 10;

/// The endpoints, on the policy in force.
pub(crate) fn router(policy: Arc<ArcSwap<Policy>>) -> Router {
    Router::new()
        .route("/ofrep/v1/evaluate/flags", post(all))
        .route("/ofrep/v1/evaluate/flags/{key}", post(one))
        .layer(DefaultBodyLimit::max(MAX_BYTES))
        .with_state(policy)
}

async fn one(
    State(policy): State<Arc<ArcSwap<Policy>>>,
    Path(key): Path<String>,
    body: Bytes,
) -> Response {
    let wrong = |status: StatusCode, (code, details): Wrong| {
        let body = json!({ "key": key, "errorCode": code, "errorDetails": details });
        answer(status, &body)
    };
    let context = match Context::read(&body) {
        Ok(context) => context,
        Err(error) => return wrong(StatusCode::BAD_REQUEST, error),
    };
    let policy = policy.load();
    let flag = params(&policy).find(|(layer, param)| {
        let rest = key.strip_prefix(layer);
        rest.and_then(|rest| rest.strip_prefix('.')) == Some(*param)
    });
    let evaluated = flag.and_then(|(layer, param)| context.evaluate(&policy, layer, param));
    match evaluated {
        Some(evaluated) => answer(StatusCode::OK, &evaluated),
        None => {
            let details = format!("no layer declares the parameter {key:?}");
            wrong(StatusCode::NOT_FOUND, ("FLAG_NOT_FOUND", details))
        }
    }
}

async fn all(
    State(policy): State<Arc<ArcSwap<Policy>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let context = match Context::read(&body) {
        Ok(context) => context,
        Err((code, details)) => {
            let body = json!({ "errorCode": code, "errorDetails": details });
            return answer(StatusCode::BAD_REQUEST, &body);
        }
    };
    let policy = policy.load();
    let flags: Vec<Value> = params(&policy)
        .filter_map(|(layer, param)| context.evaluate(&policy, layer, param))
        .collect();
    let body = json!({ "flags": flags, "metadata": { "digest": policy.digest() } }).to_string();
    // What it says decides, so a reload that changes nothing for this context changes no tag.
    let tag = format!("\"{:032x}\"", hash128(body.as_bytes()));
    if has_tag(&headers, &tag) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    let kind = "application/json".to_owned();
    ([(header::CONTENT_TYPE, kind), (header::ETAG, tag)], body).into_response()
}

/// Code and details of a refusal.
type Wrong = (&'static str, String);

/// Who asks, and what is known of them.
struct Context {
    unit: String,
    attributes: HashMap<String, String>,
}

impl Context {
    fn read(body: &[u8]) -> Result<Self, Wrong> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| ("PARSE_ERROR", format!("the body is not JSON: {error}")))?;
        let missing = || {
            let details = "context.targetingKey names the listener and is not set".to_owned();
            ("TARGETING_KEY_MISSING", details)
        };
        let Value::Object(mut body) = body else {
            return Err(("PARSE_ERROR", "the body is not an object".to_owned()));
        };
        let context = match body.remove("context") {
            None | Some(Value::Null) => return Err(missing()),
            Some(Value::Object(context)) => context,
            Some(_) => {
                return Err(("INVALID_CONTEXT", "context is not an object".to_owned()));
            }
        };
        let unit = match context.get("targetingKey") {
            None | Some(Value::Null) => return Err(missing()),
            Some(Value::String(unit)) if unit.is_empty() => return Err(missing()),
            Some(Value::String(unit)) if unit.len() <= MAX_ID_BYTES => unit.clone(),
            Some(_) => {
                let details =
                    format!("context.targetingKey is not a text of 1 to {MAX_ID_BYTES} bytes");
                return Err(("INVALID_CONTEXT", details));
            }
        };
        Ok(Self {
            unit,
            attributes: attributes(context),
        })
    }

    /// A flag as OFREP tells it.
    fn evaluate(&self, policy: &Policy, layer: &str, param: &str) -> Option<Value> {
        let (value, assignment) =
            policy
                .experiments()
                .param(layer, param, &self.unit, &self.attributes)?;
        evaluated(param, &self.unit, &assignment, policy.digest());
        let value = match value {
            ParamValue::Bool(value) => json!(value),
            ParamValue::Integer(value) => json!(value),
            ParamValue::Number(value) => json!(value),
            ParamValue::Text(value) => json!(value),
        };
        let mut metadata = json!({
            "layer": assignment.layer,
            "layer_epoch": assignment.layer_epoch,
            "bucket": assignment.bucket,
            "reason": assignment.reason.as_str(),
            "digest": policy.digest(),
        });
        if let (Some(experiment), Some(metadata)) =
            (assignment.experiment, metadata.as_object_mut())
        {
            metadata.insert("experiment".to_owned(), json!(experiment));
            metadata.insert("epoch".to_owned(), json!(assignment.experiment_epoch));
        }
        Some(json!({
            "key": format!("{layer}.{param}"),
            "value": value,
            "variant": assignment.arm.unwrap_or("default"),
            "reason": reason(&assignment),
            "metadata": metadata,
        }))
    }
}

/// What targeting can compare: texts, numbers and truth. The rest of a context is for others.
fn attributes(context: Map<String, Value>) -> HashMap<String, String> {
    let plain = context.into_iter().filter_map(|(name, value)| {
        let value = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        };
        (name != "targetingKey").then_some((name, value))
    });
    plain.collect()
}

fn params(policy: &Policy) -> impl Iterator<Item = (&str, &str)> {
    policy.experiments().params()
}

/// Whether `If-None-Match` names a tag (RFC 9110, section 13.1.2: compared weakly).
fn has_tag(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Context, Wrong> {
        Context::read(body.as_bytes())
    }

    #[test]
    fn a_context_that_names_nobody_is_refused_with_its_code() {
        let long = format!(
            r#"{{"context":{{"targetingKey":"{}"}}}}"#,
            "u".repeat(MAX_ID_BYTES + 1)
        );
        for (body, code) in [
            ("", "PARSE_ERROR"),
            ("[]", "PARSE_ERROR"),
            ("{\"context\":", "PARSE_ERROR"),
            ("{}", "TARGETING_KEY_MISSING"),
            (r#"{"context":null}"#, "TARGETING_KEY_MISSING"),
            (r#"{"context":{"country":"SE"}}"#, "TARGETING_KEY_MISSING"),
            (
                r#"{"context":{"targetingKey":""}}"#,
                "TARGETING_KEY_MISSING",
            ),
            (r#"{"context":3}"#, "INVALID_CONTEXT"),
            (r#"{"context":{"targetingKey":3}}"#, "INVALID_CONTEXT"),
            (&long, "INVALID_CONTEXT"),
        ] {
            let wrong = read(body).err().map(|(wrong, _)| wrong);
            assert_eq!(wrong, Some(code), "{body}");
        }
    }

    #[test]
    fn targeting_reads_the_plain_values_of_a_context() {
        let context = read(r#"{"context":{"targetingKey":"u1","country":"SE","age":30,"paying":true,"more":{"x":1},"none":null}}"#)
            .unwrap_or_else(|(code, details)| panic!("{code}: {details}"));
        assert_eq!(context.unit, "u1");
        let mut read: Vec<_> = context.attributes.into_iter().collect();
        read.sort();
        let wanted = [("age", "30"), ("country", "SE"), ("paying", "true")];
        assert_eq!(
            read,
            wanted.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn tags_are_compared_weakly_in_a_list() {
        let mut headers = HeaderMap::new();
        assert!(!has_tag(&headers, "\"a\""));
        for (value, has) in [
            ("\"b\"", false),
            ("\"b\", W/\"a\"", true),
            ("\"a\"", true),
            ("*", true),
        ] {
            headers.insert(header::IF_NONE_MATCH, value.parse().expect("a header"));
            assert_eq!(has_tag(&headers, "\"a\""), has, "{value}");
        }
    }
}
