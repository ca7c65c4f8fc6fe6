//! The two bulk lanes: events in, recommendations out. One message that is refused does not end a stream.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use refrain::v1;
use refrain::v1::stream_recommend_request::Message as Asked;
use refrain::v1::stream_recommend_response::Message as Told;
use refrain_engine::Version;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::recommendation::wanted;
use super::{Handler, State, offload};
use crate::method::Method;
use crate::refusal::Refusal;
use crate::stack::Call;
use crate::validate::Check;

/// What a handler of a stream returns.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Appends of one stream that wait for the disk: with 1,000 events each, half of what the store lets
/// wait, so that a second stream and everybody else still get in.
const APPENDS_IN_FLIGHT: usize = 32;

/// Requests of one stream that are read before the first is answered.
const REQUESTS_IN_FLIGHT: u32 = 64;

/// Appends the events of a stream. They are handed over in the order in which they come, so those of one
/// listener take effect in that order; each is answered once it is durable.
pub(super) fn events(
    state: Arc<State>,
    mut asked: Streaming<v1::StreamEventsRequest>,
) -> Answers<v1::StreamEventsResponse> {
    let (answers, told) = mpsc::channel(APPENDS_IN_FLIGHT);
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(APPENDS_IN_FLIGHT));
        let mut stop = state.stop.subscribe();
        while let Some(request) = next(&mut asked, &mut stop, &answers).await {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let v1::StreamEventsRequest {
                key,
                user_id,
                events,
            } = request;
            let append = named(&key)
                .and_then(|()| state.append(v1::AppendEventsRequest { user_id, events }));
            let answers = answers.clone();
            tokio::spawn(async move {
                let outcome = match append {
                    Ok(append) => append.await,
                    Err(refusal) => Err(refusal),
                };
                let outcome = match outcome {
                    Ok(done) => v1::stream_events_response::Outcome::Appended(done),
                    Err(refusal) => v1::stream_events_response::Outcome::Failure(failure(refusal)),
                };
                let outcome = Some(outcome);
                // A client that is gone wants no answer.
                drop(
                    answers
                        .send(Ok(v1::StreamEventsResponse { key, outcome }))
                        .await,
                );
                drop(place);
            });
        }
    });
    Box::pin(ReceiverStream::new(told))
}

/// Answers the requests of a stream from one version.
pub(super) fn recommend(
    handler: Handler,
    mut asked: Streaming<v1::StreamRecommendRequest>,
) -> Answers<v1::StreamRecommendResponse> {
    let (answers, told) = mpsc::channel(REQUESTS_IN_FLIGHT as usize);
    tokio::spawn(async move {
        let mut stop = handler.0.stop.subscribe();
        let Some(first) = next(&mut asked, &mut stop, &answers).await else {
            return;
        };
        let version = match first.message {
            Some(Asked::Open(open)) => handler.0.versions.select(wanted(open.index.as_ref())),
            Some(Asked::Item(_)) | None => Err(Refusal::field(
                "message",
                "is not `open`, which begins a stream",
            )),
        };
        let version = match version {
            Ok(version) => version,
            Err(refusal) => return drop(answers.send(Err(refusal.into())).await),
        };
        let ready = Told::Ready(v1::StreamReady {
            version: version.id().to_owned(),
            max_in_flight: REQUESTS_IN_FLIGHT,
        });
        if answers.send(Ok(message(ready))).await.is_err() {
            return;
        }
        let room = Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT as usize));
        let mut received = 0;
        while let Some(request) = next(&mut asked, &mut stop, &answers).await {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let Some(Asked::Item(item)) = request.message else {
                let refusal = Refusal::field("message", "is not `item`: the stream is open");
                return drop(answers.send(Err(refusal.into())).await);
            };
            received += 1;
            let (handler, version, answers) =
                (handler.clone(), Arc::clone(&version), answers.clone());
            tokio::spawn(async move {
                let key = item.key.clone();
                let told = match handler.answer_item(item, version).await {
                    Ok(response) => Told::Result(v1::StreamResult {
                        key,
                        response: Some(response),
                    }),
                    Err(refusal) => Told::Failure(v1::StreamItemFailure {
                        key,
                        failure: Some(failure(refusal)),
                    }),
                };
                drop(answers.send(Ok(message(told))).await);
                drop(place);
            });
        }
        if *stop.borrow() {
            let draining = Told::Draining(v1::StreamDraining { received });
            drop(answers.send(Ok(message(draining))).await);
        }
    });
    Box::pin(ReceiverStream::new(told))
}

impl Handler {
    async fn answer_item(
        &self,
        item: v1::StreamItem,
        version: Arc<Version>,
    ) -> Result<v1::RecommendResponse, Refusal> {
        named(&item.key)?;
        let request = item
            .request
            .ok_or_else(|| Refusal::field("request", "is not set"))?;
        if request.index.is_some() {
            let refusal = "is set, but the stream has one version for all";
            return Err(Refusal::field("request.index", refusal));
        }
        let Ok(_turn) = self.0.bulk.acquire().await else {
            return Err(Refusal::Internal {
                message: "the bulk lane is closed".to_owned(),
            });
        };
        let limit = Duration::from_millis(self.0.limits.default_deadline_ms);
        let call = Call {
            method: Method::StreamRecommend,
            deadline: Instant::now() + limit,
        };
        let state = Arc::clone(&self.0);
        let answer = async {
            let question = self.question(request, call).await?;
            offload(move || state.recommend_from(&question, &version)).await
        };
        answer.await.map_err(|refusal| refusal.within("request"))
    }
}

/// The next message; `None` at the end of the stream, when it breaks, which is told, or when the server
/// stops.
async fn next<T, U>(
    asked: &mut Streaming<T>,
    stop: &mut watch::Receiver<bool>,
    answers: &mpsc::Sender<Result<U, Status>>,
) -> Option<T> {
    let message = tokio::select! {
        _ = stop.wait_for(|&stop| stop) => return None,
        () = answers.closed() => return None,
        message = asked.message() => message,
    };
    match message {
        Ok(message) => message,
        Err(status) => {
            drop(answers.send(Err(status)).await);
            None
        }
    }
}

fn named(key: &str) -> Result<(), Refusal> {
    let mut check = Check::default();
    check.optional_id("key", key);
    check.finish()
}

fn failure(refusal: Refusal) -> v1::StreamFailure {
    let status = Status::from(refusal);
    v1::StreamFailure {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: status.details().to_vec(),
    }
}

fn message(told: Told) -> v1::StreamRecommendResponse {
    v1::StreamRecommendResponse {
        message: Some(told),
    }
}
