"""The wire as another language sees it: health, reflection, and the services through generated stubs."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from google.protobuf import descriptor_pool, message_factory

SERVICES = {
    "refrain.v1.RecommendationService",
    "refrain.v1.TasteProfileService",
    "refrain.v1.ExperimentService",
    "refrain.v1.FeedbackService",
    "refrain.v1.IndexService",
}


def listen(stubs, item, second, context=""):
    event = stubs.common.Event(item_id=item, kind=stubs.common.EVENT_KIND_PLAY, context=context)
    event.event_time.FromSeconds(1_700_000_000 + second)
    return event


def popular(stubs, channel, n):
    """Items of the catalogue: what an unknown listener gets."""
    answer = stubs.recommendation_grpc.RecommendationServiceStub(channel).Recommend(
        stubs.recommendation.RecommendRequest(user_id="nobody", page_size=n)
    )
    return [r.item_id for r in answer.results]


def test_health_says_serving(channel):
    health = health_pb2_grpc.HealthStub(channel)
    assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_describes_and_calls_the_services_without_generated_code(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert SERVICES <= set(database.get_services())
    pool = descriptor_pool.DescriptorPool(database)
    method = pool.FindServiceByName("refrain.v1.IndexService").FindMethodByName("GetServing")
    request = message_factory.GetMessageClass(method.input_type)
    response = message_factory.GetMessageClass(method.output_type)
    call = channel.unary_unary(
        "/refrain.v1.IndexService/GetServing",
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=response.FromString,
    )
    answer = call(request())
    assert answer.serving[0].label == "stable"
    assert answer.serving[0].version and not answer.serving[0].refusal
    assert answer.limits.max_page_size == 1000


def test_an_unknown_listener_gets_the_popular_items_and_is_told_so(stubs, channel):
    answer = stubs.recommendation_grpc.RecommendationServiceStub(channel).Recommend(
        stubs.recommendation.RecommendRequest(user_id="nobody", page_size=7)
    )
    assert len(answer.results) == 7
    assert stubs.common.DEGRADED_REASON_FALLBACK_USED in answer.degraded
    assert {r.source for r in answer.results} == {stubs.common.RESULT_SOURCE_POPULAR}


def test_a_listener_hears_something_new_and_an_exclusion_holds_at_once(stubs, channel):
    taste = stubs.taste_grpc.TasteProfileServiceStub(channel)
    recommend = stubs.recommendation_grpc.RecommendationServiceStub(channel).Recommend
    items = popular(stubs, channel, 12)
    appended = taste.AppendEvents(
        stubs.taste.AppendEventsRequest(
            user_id="py-1",
            events=[listen(stubs, item, i, "sleep" if i % 2 else "day") for i, item in enumerate(items)],
        )
    )
    assert appended.appended == len(items) and appended.profile_revision == 1

    def ask():
        return recommend(
            stubs.recommendation.RecommendRequest(
                user_id="py-1",
                page_size=20,
                consistency=stubs.recommendation.Consistency(min_profile_revision=1),
            )
        )

    before = ask()
    assert len(before.results) == 20
    assert not {r.item_id for r in before.results} & set(items), "what was heard does not come back"

    rule = taste.CreateExclusion(
        stubs.taste.CreateExclusionRequest(
            user_id="py-1", exclusion=stubs.taste.Exclusion(scope=stubs.taste.ExclusionScope(context="sleep"))
        )
    )
    excluded = ask()
    assert excluded.profile.events_excluded == len(items) // 2
    assert excluded.served_by.profile_revision == rule.profile_revision == 2
    assert [(r.item_id, r.score) for r in excluded.results] != [(r.item_id, r.score) for r in before.results]

    taste.DeleteExclusion(stubs.taste.DeleteExclusionRequest(user_id="py-1", rule_id=rule.exclusion.rule_id))
    after = ask()
    assert [(r.item_id, r.score) for r in after.results] == [(r.item_id, r.score) for r in before.results]


def test_variants_side_by_side(stubs, channel):
    items = popular(stubs, channel, 3)
    seeds = stubs.recommendation.Seeds(positive=[stubs.recommendation.Seed(item_id=i) for i in items])
    answer = stubs.experiment_grpc.ExperimentServiceStub(channel).CompareVariants(
        stubs.experiment.CompareVariantsRequest(request=stubs.recommendation.RecommendRequest(seeds=seeds, page_size=10))
    )
    assert len(answer.variants) >= 2
    assert answer.variants[0].overlap == 1 and answer.variants[0].rank_biased_overlap == pytest.approx(1)
    assert all(len(v.results) == 10 for v in answer.variants)


def test_assignment_is_the_published_hash(stubs, channel):
    """Units and buckets from the definition: MurmurHash3 x64-128 of `L:ranking:1|<unit>`, multiply-shift."""
    assign = stubs.experiment_grpc.ExperimentServiceStub(channel).Assign
    for unit, bucket in [("u1", 729445), ("u2", 202655), ("u3", 167119), ("roug", 314777), ("élodie", 453305)]:
        answer = assign(stubs.experiment.AssignRequest(unit_id=unit, surface="home"))
        assert answer.assignment.layer == "ranking" and answer.assignment.layer_epoch == 1
        assert answer.assignment.bucket == bucket, unit


def status_of(call, request):
    with pytest.raises(grpc.RpcError) as e:
        call(request)
    return e.value.code(), e.value.details()


def test_wrong_requests_get_real_codes_that_name_the_field(stubs, channel):
    recommend = stubs.recommendation_grpc.RecommendationServiceStub(channel).Recommend
    R = stubs.recommendation.RecommendRequest
    V = stubs.common.Vector
    for request, field in [
        (R(), "subject"),
        (R(user_id="x", page_size=0), "page_size"),
        (R(user_id="x", page_size=1001), "page_size"),
        (R(user_id="x" * 129), "user_id"),
        (R(vector=V(values=[0.5, 0.5])), "vector"),
        (R(vector=V(values=[float("nan")] * 64)), "vector"),
    ]:
        code, details = status_of(recommend, request)
        assert code == grpc.StatusCode.INVALID_ARGUMENT, details
        assert field in details, details
    code, details = status_of(recommend, R(user_id="x", index=stubs.common.IndexSelector(label="no-such-label")))
    assert code == grpc.StatusCode.NOT_FOUND, details
    similar = stubs.recommendation_grpc.RecommendationServiceStub(channel).Similar
    code, details = status_of(similar, stubs.recommendation.SimilarRequest(item_id="no such item"))
    assert code == grpc.StatusCode.NOT_FOUND and "no such item" in details


def test_unknown_seeds_are_skipped_and_named(stubs, channel):
    items = popular(stubs, channel, 1)
    seeds = stubs.recommendation.Seeds(
        positive=[stubs.recommendation.Seed(item_id=items[0]), stubs.recommendation.Seed(item_id="no such item")]
    )
    answer = stubs.recommendation_grpc.RecommendationServiceStub(channel).Recommend(
        stubs.recommendation.RecommendRequest(seeds=seeds, page_size=5)
    )
    assert list(answer.unresolved_seeds) == ["no such item"]
    assert len(answer.results) == 5 and items[0] not in {r.item_id for r in answer.results}
