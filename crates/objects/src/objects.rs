//! The calls, made blocking and bounded.

use std::future::Future;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, ClientConfigKey, Error, GetOptions, ObjectStore, ObjectStoreExt as _,
    ObjectStoreScheme, PutMode, PutOptions, PutPayload, RetryConfig, UpdateVersion,
};
use refrain_bundle::StoreError;
use refrain_bundle::store::{Listed, Object, ObjectError, Objects, Tag, When};
use tokio::runtime::Runtime;

use crate::Options;

/// Bytes of one request.
const PIECE_BYTES: usize = 16 << 20;
/// Requests at a time while an object is read or written.
const AT_ONCE: usize = 4;
/// What a call may take beyond its requests and their pauses.
const SLACK: Duration = Duration::from_secs(5);
/// Pages of a listing and the like: several requests one after another.
const MANY: u32 = 8;

/// An object store in the network.
pub struct Cloud {
    url: String,
    prefix: Key,
    store: Arc<dyn ObjectStore>,
    /// Longest time that a request and its repetitions take.
    patience: Duration,
    /// Taken on drop only.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No more than that: builders hold credentials.
        f.debug_struct("Cloud")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Cloud {
    /// The store at `url`, with credentials and settings from the environment. Talks to no one yet.
    ///
    /// # Errors
    /// [`StoreError::Unusable`]: the URL is of no known kind, or a setting cannot be.
    pub fn open(url: &str, options: &Options) -> Result<Self, StoreError> {
        let unusable = |reason: String| StoreError::Unusable {
            url: url.to_owned(),
            reason,
        };
        // Who comes second finds it done.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let parsed = url::Url::parse(url).map_err(|error| unusable(error.to_string()))?;
        let (scheme, prefix) =
            ObjectStoreScheme::parse(&parsed).map_err(|error| unusable(error.to_string()))?;
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(5),
                base: 2.0,
            },
            max_retries: options.max_retries,
            retry_timeout: options.request_timeout * 2,
        };
        let timeouts = [
            (ClientConfigKey::Timeout, options.request_timeout),
            (
                ClientConfigKey::ConnectTimeout,
                options.request_timeout.min(Duration::from_secs(5)),
            ),
        ]
        .map(|(key, timeout)| (key, format!("{}s", timeout.as_secs().max(1))));
        // Three builders alike in everything but their types.
        macro_rules! built {
            ($builder:ty, $key:ident) => {{
                let mut builder = <$builder>::from_env().with_url(url).with_retry(retry);
                for (key, value) in timeouts {
                    builder = builder.with_config($key::Client(key), value);
                }
                for (key, value) in &options.settings {
                    let key: $key = key
                        .parse()
                        .map_err(|error: Error| unusable(chain(&error)))?;
                    builder = builder.with_config(key, value);
                }
                builder.build().map(|store| Arc::new(store) as _)
            }};
        }
        let store: Result<Arc<dyn ObjectStore>, Error> = match scheme {
            ObjectStoreScheme::AmazonS3 => built!(AmazonS3Builder, AmazonS3ConfigKey),
            ObjectStoreScheme::GoogleCloudStorage => {
                built!(GoogleCloudStorageBuilder, GoogleConfigKey)
            }
            ObjectStoreScheme::MicrosoftAzure => built!(MicrosoftAzureBuilder, AzureConfigKey),
            _ => return Err(unusable("it is no s3://, gs:// or az:// URL".to_owned())),
        };
        let store = store.map_err(|error| unusable(chain(&error)))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("objects")
            .enable_all()
            .build()?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            prefix,
            store,
            patience: options.request_timeout * 3 + SLACK,
            runtime: Some(runtime),
        })
    }

    fn key(&self, key: &str) -> Key {
        Key::from_iter(self.prefix.parts().chain(Key::from(key).parts()))
    }

    /// Runs a call to its end, or gives it up.
    fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        key: &str,
        patience: Duration,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<Result<T, Error>, ObjectError> {
        let failed = |reason: String| ObjectError::Failed {
            key: format!("{}/{key}", self.url),
            action,
            reason,
        };
        let Some(runtime) = &self.runtime else {
            return Err(failed("the runtime has ended".to_owned()));
        };
        let (done, answer) = mpsc::sync_channel(1);
        let task = runtime.spawn(async move {
            // Nobody waits any more: then nobody needs it.
            let _ = done.send(call.await);
        });
        match answer.recv_timeout(patience) {
            Ok(answer) => Ok(answer),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                task.abort();
                Err(failed(format!("no answer within {} s", patience.as_secs())))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(failed("the call panicked".to_owned()))
            }
        }
    }

    fn failed(&self, action: &'static str, key: &str, error: &Error) -> ObjectError {
        ObjectError::Failed {
            key: format!("{}/{key}", self.url),
            action,
            reason: chain(error),
        }
    }

    /// One object in several pieces at a time.
    fn upload_pieces(
        &self,
        key: &str,
        first: Vec<u8>,
        source: &mut dyn Read,
    ) -> Result<(), ObjectError> {
        let (store, at) = (Arc::clone(&self.store), self.key(key));
        let begun = self.run("write", key, self.patience, async move {
            store.put_multipart(&at).await
        })?;
        let mut upload = begun.map_err(|error| self.failed("write", key, &error))?;
        let mut pieces = vec![first];
        let mut send = || -> Result<(), ObjectError> {
            loop {
                while pieces.len() < AT_ONCE {
                    let piece = piece_of(source)?;
                    if piece.is_empty() {
                        break;
                    }
                    pieces.push(piece);
                }
                if pieces.is_empty() {
                    return Ok(());
                }
                let parts: Vec<_> = pieces
                    .drain(..)
                    .map(|piece| upload.put_part(PutPayload::from(piece)))
                    .collect();
                let sent = self.run("write", key, self.patience, try_join_all(parts))?;
                sent.map_err(|error| self.failed("write", key, &error))?;
            }
        };
        let sent = send();
        let end = self.run("write", key, self.patience, async move {
            match sent {
                Ok(()) => upload.complete().await.map(|_| Ok(())),
                // What is not aborted costs money until the bucket's own rule removes it.
                Err(error) => upload.abort().await.map(|()| Err(error)),
            }
        })?;
        end.map_err(|error| self.failed("write", key, &error))?
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        // May happen on a thread of another runtime, where waiting for this one is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Objects for Cloud {
    fn url(&self) -> &str {
        &self.url
    }

    fn get(&self, key: &str, limit: u64) -> Result<Option<Object>, ObjectError> {
        let (store, at) = (Arc::clone(&self.store), self.key(key));
        let got = self.run("read", key, self.patience, async move {
            let got = store.get(&at).await?;
            if got.meta.size > limit {
                return Ok(None);
            }
            let tag = Tag {
                e_tag: got.meta.e_tag.clone(),
                version: got.meta.version.clone(),
            };
            Ok(Some((tag, got.bytes().await?)))
        })?;
        match got {
            Ok(Some((tag, bytes))) => Ok(Some(Object {
                bytes: bytes.to_vec(),
                tag,
            })),
            Ok(None) => Err(ObjectError::TooLong {
                key: format!("{}/{key}", self.url),
                limit,
            }),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", key, &error)),
        }
    }

    fn read(
        &self,
        key: &str,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<bool, ObjectError> {
        let (store, at) = (Arc::clone(&self.store), self.key(key));
        let head = self.run(
            "read",
            key,
            self.patience,
            async move { store.head(&at).await },
        )?;
        let head = match head {
            Ok(head) => head,
            Err(Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(self.failed("read", key, &error)),
        };
        let step = PIECE_BYTES as u64;
        let starts: Vec<u64> = (0..head.size.div_ceil(step))
            .map(|piece| piece * step)
            .collect();
        for starts in starts.chunks(AT_ONCE) {
            let pieces = starts.iter().map(|&start| {
                let (store, at) = (Arc::clone(&self.store), self.key(key));
                let options = GetOptions {
                    // All pieces of one and the same object.
                    if_match: head.e_tag.clone(),
                    range: Some((start..(start + step).min(head.size)).into()),
                    ..GetOptions::default()
                };
                async move { store.get_opts(&at, options).await?.bytes().await }
            });
            let pieces: Vec<_> = pieces.collect();
            let got = self.run("read", key, self.patience, try_join_all(pieces))?;
            let got: Vec<Bytes> = got.map_err(|error| self.failed("read", key, &error))?;
            for piece in got {
                sink(&piece)?;
            }
        }
        Ok(true)
    }

    fn put(&self, key: &str, bytes: &[u8], when: When<'_>) -> Result<(), ObjectError> {
        let mode = match when {
            When::Absent => PutMode::Create,
            When::Is(tag) => PutMode::Update(UpdateVersion {
                e_tag: tag.e_tag.clone(),
                version: tag.version.clone(),
            }),
        };
        let (store, at) = (Arc::clone(&self.store), self.key(key));
        let payload = PutPayload::from(bytes.to_vec());
        let put = self.run("write", key, self.patience, async move {
            let options = PutOptions {
                mode,
                ..PutOptions::default()
            };
            store.put_opts(&at, payload, options).await
        })?;
        match put {
            Ok(_) => Ok(()),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                Err(ObjectError::Condition {
                    key: format!("{}/{key}", self.url),
                })
            }
            // What was to be replaced is gone.
            Err(Error::NotFound { .. }) if matches!(when, When::Is(_)) => {
                Err(ObjectError::Condition {
                    key: format!("{}/{key}", self.url),
                })
            }
            Err(error) => Err(self.failed("write", key, &error)),
        }
    }

    fn upload(&self, key: &str, source: &mut dyn Read) -> Result<(), ObjectError> {
        let first = piece_of(source)?;
        if first.len() == PIECE_BYTES {
            return self.upload_pieces(key, first, source);
        }
        let (store, at) = (Arc::clone(&self.store), self.key(key));
        let put = self.run("write", key, self.patience, async move {
            store.put(&at, PutPayload::from(first)).await
        })?;
        put.map(drop)
            .map_err(|error| self.failed("write", key, &error))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        let (store, at) = (Arc::clone(&self.store), self.key(prefix));
        let listed = self.run("list", prefix, self.patience * MANY, async move {
            store.list(Some(&at)).try_collect::<Vec<_>>().await
        })?;
        let listed = match listed {
            Ok(listed) => listed,
            Err(Error::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(self.failed("list", prefix, &error)),
        };
        let own = format!("{}/", self.prefix);
        let mut objects: Vec<Listed> = listed
            .into_iter()
            .filter_map(|meta| {
                let key = meta.location.as_ref();
                let key = if self.prefix.as_ref().is_empty() {
                    key
                } else {
                    key.strip_prefix(&own)?
                };
                let seconds = meta.last_modified.timestamp();
                Some(Listed {
                    key: key.to_owned(),
                    bytes: meta.size,
                    modified: jiff::Timestamp::from_second(seconds).unwrap_or_default(),
                })
            })
            .collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let (store, at) = (Arc::clone(&self.store), self.key(key));
        let gone = self.run("remove", key, self.patience, async move {
            store.delete(&at).await
        })?;
        match gone {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("remove", key, &error)),
        }
    }
}

/// The next piece of the source, full but for the last; empty at its end.
fn piece_of(source: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut piece = Vec::new();
    source.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some print their cause themselves.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.replace('\n', " ")
}
