//! The methods of the server, told apart by path once per request.

/// A method, or a group of them that needs no telling apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Recommend,
    Similar,
    Explain,
    StreamRecommend,
    AppendEvents,
    StreamEvents,
    CreateExclusion,
    DeleteExclusion,
    ListExclusions,
    PreviewExclusion,
    GetProfile,
    ExportProfile,
    DeleteProfile,
    ExportExclusions,
    ListExperiments,
    Assign,
    CompareVariants,
    ReportOutcomes,
    ListVersions,
    GetServing,
    SetLabel,
    Rollback,
    /// `grpc.health.v1`.
    Health,
    /// `grpc.reflection.v1` and `v1alpha`.
    Reflection,
    /// Anything else: UNIMPLEMENTED.
    Unknown,
}

impl Method {
    /// All of them, in the order of their discriminants.
    pub(crate) const ALL: [Self; 25] = [
        Self::Recommend,
        Self::Similar,
        Self::Explain,
        Self::StreamRecommend,
        Self::AppendEvents,
        Self::StreamEvents,
        Self::CreateExclusion,
        Self::DeleteExclusion,
        Self::ListExclusions,
        Self::PreviewExclusion,
        Self::GetProfile,
        Self::ExportProfile,
        Self::DeleteProfile,
        Self::ExportExclusions,
        Self::ListExperiments,
        Self::Assign,
        Self::CompareVariants,
        Self::ReportOutcomes,
        Self::ListVersions,
        Self::GetServing,
        Self::SetLabel,
        Self::Rollback,
        Self::Health,
        Self::Reflection,
        Self::Unknown,
    ];

    /// The method of a request path such as `/refrain.v1.IndexService/GetServing`.
    pub(crate) fn of_path(path: &str) -> Self {
        let Some(ours) = path.strip_prefix("/refrain.v1.") else {
            return if path.starts_with("/grpc.health.v1.Health/") {
                Self::Health
            } else if path.starts_with("/grpc.reflection.") {
                Self::Reflection
            } else {
                Self::Unknown
            };
        };
        match ours {
            "RecommendationService/Recommend" => Self::Recommend,
            "RecommendationService/Similar" => Self::Similar,
            "RecommendationService/Explain" => Self::Explain,
            "RecommendationService/StreamRecommend" => Self::StreamRecommend,
            "TasteProfileService/AppendEvents" => Self::AppendEvents,
            "TasteProfileService/CreateExclusion" => Self::CreateExclusion,
            "TasteProfileService/DeleteExclusion" => Self::DeleteExclusion,
            "TasteProfileService/ListExclusions" => Self::ListExclusions,
            "TasteProfileService/GetProfile" => Self::GetProfile,
            "TasteProfileService/StreamEvents" => Self::StreamEvents,
            "TasteProfileService/PreviewExclusion" => Self::PreviewExclusion,
            "TasteProfileService/ExportProfile" => Self::ExportProfile,
            "TasteProfileService/DeleteProfile" => Self::DeleteProfile,
            "TasteProfileService/ExportExclusions" => Self::ExportExclusions,
            "ExperimentService/ListExperiments" => Self::ListExperiments,
            "ExperimentService/Assign" => Self::Assign,
            "ExperimentService/CompareVariants" => Self::CompareVariants,
            "FeedbackService/ReportOutcomes" => Self::ReportOutcomes,
            "IndexService/ListVersions" => Self::ListVersions,
            "IndexService/GetServing" => Self::GetServing,
            "IndexService/SetLabel" => Self::SetLabel,
            "IndexService/Rollback" => Self::Rollback,
            _ => Self::Unknown,
        }
    }

    /// Name in metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Recommend => "Recommend",
            Self::Similar => "Similar",
            Self::Explain => "Explain",
            Self::StreamRecommend => "StreamRecommend",
            Self::AppendEvents => "AppendEvents",
            Self::StreamEvents => "StreamEvents",
            Self::PreviewExclusion => "PreviewExclusion",
            Self::ExportProfile => "ExportProfile",
            Self::DeleteProfile => "DeleteProfile",
            Self::ExportExclusions => "ExportExclusions",
            Self::CreateExclusion => "CreateExclusion",
            Self::DeleteExclusion => "DeleteExclusion",
            Self::ListExclusions => "ListExclusions",
            Self::GetProfile => "GetProfile",
            Self::ListExperiments => "ListExperiments",
            Self::Assign => "Assign",
            Self::CompareVariants => "CompareVariants",
            Self::ReportOutcomes => "ReportOutcomes",
            Self::ListVersions => "ListVersions",
            Self::GetServing => "GetServing",
            Self::SetLabel => "SetLabel",
            Self::Rollback => "Rollback",
            Self::Health => "health",
            Self::Reflection => "reflection",
            Self::Unknown => "unknown",
        }
    }

    /// Whether deadline and concurrency limit hold for it. Health must answer an overloaded server's
    /// orchestrator, and both it and reflection have streams that live long. Of the other streams each
    /// message has a deadline of its own.
    pub(crate) fn is_bounded(self) -> bool {
        !matches!(self, Self::Health | Self::Reflection) && !self.is_stream()
    }

    /// Whether either side sends any number of messages.
    pub(crate) fn is_stream(self) -> bool {
        matches!(
            self,
            Self::StreamRecommend
                | Self::StreamEvents
                | Self::ExportProfile
                | Self::ExportExclusions
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    #[test]
    fn every_method_of_the_contract_is_known() {
        let files = prost_types::FileDescriptorSet::decode(refrain::v1::FILE_DESCRIPTOR_SET)
            .expect("descriptor set")
            .file;
        let mut seen = BTreeSet::new();
        for service in files.iter().flat_map(|file| &file.service) {
            for method in &service.method {
                let path = format!("/refrain.v1.{}/{}", service.name(), method.name());
                let found = Method::of_path(&path);
                assert_eq!(found.name(), method.name(), "{path}");
                let streams = method.client_streaming() || method.server_streaming();
                assert_eq!(found.is_stream(), streams, "{path}");
                assert_eq!(found.is_bounded(), !streams, "{path}");
                assert!(seen.insert(found.name()));
            }
        }
        // All but health, reflection and unknown.
        assert_eq!(seen.len(), Method::ALL.len() - 3);
    }

    #[test]
    fn order_is_that_of_the_discriminants() {
        for (index, method) in Method::ALL.into_iter().enumerate() {
            assert_eq!(method as usize, index);
        }
    }

    #[test]
    fn other_paths_are_told_apart() {
        assert_eq!(
            Method::of_path("/grpc.health.v1.Health/Check"),
            Method::Health
        );
        assert_eq!(
            Method::of_path("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
            Method::Reflection
        );
        for path in [
            "",
            "/",
            "/refrain.v1.",
            "/refrain.v1.IndexService/Nothing",
            "/a/b",
        ] {
            assert_eq!(Method::of_path(path), Method::Unknown, "{path}");
        }
    }
}
