"""Counts tokens on a cluster: an external processor of Envoy, by which requests and answers of models pass.

Envoy asks `live` who calls; then each piece of request and answer comes by here. A stream is made to tell what it took,
and keys are charged with it, as the gateway of the sandbox does. It runs as `manage.py meter` (k8s/portal/meter.yaml).
"""
