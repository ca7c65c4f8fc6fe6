//! Taking a profile out, and taking it away.

use std::ops::ControlFlow;
use std::sync::Arc;

use prost::Message as _;
use refrain::v1;
use refrain::v1::export_profile_response::Part;
use refrain_taste::{Erased, Profile, Write};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Handler;
use super::stream::Answers;
use crate::refusal::{Refusal, Resource};
use crate::validate::{Check, timestamp};
use crate::wire;

/// Events or rules in one part: at their largest, some 300 KB.
const PART: usize = 500;

impl Handler {
    pub(super) async fn export(
        &self,
        request: v1::ExportProfileRequest,
    ) -> Result<Answers<v1::ExportProfileResponse>, Refusal> {
        let mut check = Check::default();
        check.id("user_id", &request.user_id);
        check.finish()?;
        let (user, revision) = (&request.user_id, request.min_profile_revision);
        let deadline = std::time::Instant::now() + crate::limits::REVISION_WAIT;
        let profile = match revision {
            0 => self.0.profiles.read(user).await?,
            _ => {
                let profiles = &self.0.profiles;
                profiles.read_at_least(user, revision, deadline).await?
            }
        };
        let parts = Parts::new(request.user_id, profile);
        Ok(Box::pin(tokio_stream::iter(parts.map(Ok))))
    }

    pub(super) fn export_rules(&self) -> Answers<v1::ExportExclusionsResponse> {
        let (out, told) = mpsc::channel(4);
        let profiles = self.0.profiles.clone();
        tokio::spawn(async move {
            let now_us = crate::clock::now_us();
            let part = |listeners| v1::ExportExclusionsResponse {
                watermark: Some(timestamp(now_us)),
                listeners,
            };
            // Tells the watermark even where nobody has a rule.
            if out.send(Ok(part(Vec::new()))).await.is_err() {
                return;
            }
            let (found, mut listeners) = mpsc::channel(PART);
            let visit = profiles.for_each(move |user, profile| {
                let in_force: Vec<_> = profile
                    .rules
                    .iter()
                    .filter(|rule| rule.in_force(now_us))
                    .map(wire::rule_to_wire)
                    .collect();
                for exclusions in in_force.chunks(PART) {
                    let listener = v1::ListenerExclusions {
                        user_id: user.to_owned(),
                        exclusions: exclusions.to_vec(),
                    };
                    if found.blocking_send(listener).is_err() {
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            });
            let forward = async {
                let (mut batch, mut rules) = (Vec::new(), 0);
                while let Some(listener) = listeners.recv().await {
                    rules += listener.exclusions.len();
                    batch.push(listener);
                    if rules >= PART {
                        rules = 0;
                        if out
                            .send(Ok(part(std::mem::take(&mut batch))))
                            .await
                            .is_err()
                        {
                            // Nobody listens: what is left of the visit ends with its channel.
                            listeners.close();
                        }
                    }
                }
                batch
            };
            let (visited, last) = tokio::join!(visit, forward);
            let end = match visited {
                Ok(()) if last.is_empty() => return,
                Ok(()) => Ok(part(last)),
                Err(refusal) => Err(refusal.into()),
            };
            drop(out.send(end).await);
        });
        Box::pin(ReceiverStream::new(told))
    }

    pub(super) async fn erase(
        &self,
        request: v1::DeleteProfileRequest,
    ) -> Result<v1::DeleteProfileResponse, Refusal> {
        let user = request.user_id;
        let write = Write::Erase { user: user.clone() };
        let erased = self.0.profiles.write(write).await?.erased;
        let Erased {
            revision,
            events,
            rules,
        } = erased.unwrap_or_default();
        let erase_time = Some(timestamp(crate::clock::now_us()));
        self.0.tastes.forget(&user);
        let residual_records = self.0.profiles.residue(&user, revision).await?;
        if residual_records > 0 {
            return Err(Refusal::Internal {
                message: format!("{residual_records} records of the listener are still there"),
            });
        }
        if revision == 0 && !request.allow_missing {
            return Err(Refusal::NotFound {
                kind: Resource::Profile,
                name: user,
            });
        }
        Ok(v1::DeleteProfileResponse {
            existed: revision > 0,
            events_erased: events.into(),
            exclusions_erased: rules.into(),
            last_revision: revision,
            erase_time,
            residual_records,
            residual_space: revision > 0,
        })
    }
}

/// The parts of an export, made one at a time.
struct Parts {
    user: String,
    profile: Arc<Profile>,
    next: Next,
    checksum: u32,
}

enum Next {
    Header,
    Events(usize),
    Rules(usize),
    Footer,
    Nothing,
}

impl Parts {
    fn new(user: String, profile: Arc<Profile>) -> Self {
        Self {
            user,
            profile,
            next: Next::Header,
            checksum: 0,
        }
    }

    fn header(&mut self) -> Part {
        Part::Header(v1::ExportHeader {
            user_id: std::mem::take(&mut self.user),
            profile_revision: self.profile.revision,
            events: self.profile.events.len() as u64,
            exclusions: self.profile.rules.len() as u64,
            export_time: Some(timestamp(crate::clock::now_us())),
        })
    }
}

impl Iterator for Parts {
    type Item = v1::ExportProfileResponse;

    fn next(&mut self) -> Option<Self::Item> {
        let profile = Arc::clone(&self.profile);
        let part = loop {
            match self.next {
                Next::Header => {
                    self.next = Next::Events(0);
                    break self.header();
                }
                Next::Events(at) => {
                    let Some(events) = chunk(&profile.events, at) else {
                        self.next = Next::Rules(0);
                        continue;
                    };
                    self.next = Next::Events(at + PART);
                    let events = events.iter().map(wire::event_to_wire).collect();
                    break Part::Events(v1::ExportedEvents { events });
                }
                Next::Rules(at) => {
                    let Some(rules) = chunk(&profile.rules, at) else {
                        self.next = Next::Footer;
                        continue;
                    };
                    self.next = Next::Rules(at + PART);
                    let exclusions = rules.iter().map(wire::rule_to_wire).collect();
                    break Part::Exclusions(v1::ExportedExclusions { exclusions });
                }
                Next::Footer => {
                    self.next = Next::Nothing;
                    let checksum = self.checksum;
                    break Part::Footer(v1::ExportFooter { checksum });
                }
                Next::Nothing => return None,
            }
        };
        let part = v1::ExportProfileResponse { part: Some(part) };
        self.checksum = crc32c::crc32c_append(self.checksum, &part.encode_to_vec());
        Some(part)
    }
}

/// The next [`PART`] of a list from a place, `None` at its end.
fn chunk<T>(list: &[T], at: usize) -> Option<&[T]> {
    let left = list.get(at..).filter(|left| !left.is_empty())?;
    Some(left.get(..PART).unwrap_or(left))
}
