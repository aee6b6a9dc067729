"""Where an account on the cluster comes from: a kubeconfig, or the folder that Kubernetes mounts into every pod."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class NoAccountError(Exception):
    """Neither a kubeconfig nor the account of a pod can be read."""


def has_account(kubeconfig: str | Path) -> bool:
    """Tell whether this process has an account: a kubeconfig, or without one that of the pod it runs in."""
    return bool(kubeconfig) or ("KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").exists())


def configuration_of(kubeconfig: str | Path) -> Any:
    """Server, CA and credentials as they are in the files now; without a kubeconfig those of the pod.

    A pod's token is read again every minute. Raises NoAccountError.
    """
    # Imported here: `live` pays for the official client only when somebody asks for a log.
    from kubernetes import client, config
    from kubernetes.config.incluster_config import InClusterConfigLoader

    configuration: Any = client.Configuration()
    try:
        if kubeconfig:
            config.load_kube_config(
                config_file=str(kubeconfig), client_configuration=configuration, persist_config=False
            )
        else:
            token, authority = str(SERVICE_ACCOUNT / "token"), str(SERVICE_ACCOUNT / "ca.crt")
            InClusterConfigLoader(token_filename=token, cert_filename=authority).load_and_set(configuration)
    except (config.ConfigException, OSError) as error:
        where = (
            str(kubeconfig) or "this process: it does not run in a pod with a service account, and no kubeconfig is set"
        )
        raise NoAccountError(f"No account on the cluster in {where} ({error})") from error
    host = urlsplit(configuration.host).hostname or ""
    if not kubeconfig or host.startswith(("127.", "localhost")):
        configuration.proxy = None  # no proxy of the environment leads into the cluster or to this machine
    return configuration
