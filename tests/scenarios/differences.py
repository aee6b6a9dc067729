"""Where the grounds differ, each with its reason. Whatever is not named here has to be the same on both."""

from __future__ import annotations

# Scenarios that only a real control plane can play, by the name of their test.
REAL_ALONE = {
    "test_nobody_asks_for_what_was_not_granted": "lite writes no audit log",
    "test_nobody_aside_asks_for_what_was_not_granted": "lite writes no audit log",
    "test_what_was_granted_was_used": "lite writes no audit log",
    "test_a_webhook_refuses": "lite calls no webhooks: what KServe's refuse, its own admission refuses",
    "test_a_webhook_is_down": "lite calls no webhooks",
    "test_conversion_of_v1alpha1": "lite stores and serves the v1alpha2 of LLMInferenceServices alone",
    "test_etcd_restored_to_an_older_state": "lite keeps its objects in SQLite",
}
# Scenarios whose figures on both grounds are compared: where the real one plays them `lite` does too.
COMPARED = {"test_calls_of_a_reconcile"}
# Kinds that the grounds take from other versions of their project: `lite` from `k8s/crds`, the real one from a module.
OTHER_VERSIONS = {
    "LeaderWorkerSet": "v0.10.0 on lite, v0.9.0 on real, as its controller; but for descriptions they are the same",
}
# Scenarios that `lite` is known to fail, by the name of their test; one that passes there has to leave this list.
LITE_FAILS: dict[str, str] = {}
