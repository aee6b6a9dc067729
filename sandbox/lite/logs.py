"""Container logs, fetched from the node agent that runs the pod."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx

from sandbox.lite import errors
from sandbox.lite.cluster import Cluster
from sandbox.lite.replies import Reply
from sandbox.lite.requests import Request
from sandbox.lite.resources import Resource

Obj = dict[str, Any]

_PASSED_ON = ("follow", "tailLines", "previous", "timestamps", "sinceSeconds", "sinceTime", "limitBytes")
_PORT = 10250


class Logs:
    """One connection pool to all node agents."""

    def __init__(self) -> None:
        # As kube-apiserver without --kubelet-certificate-authority: kubelets sign their own certificates.
        self._http = httpx.AsyncClient(verify=False, trust_env=False, timeout=httpx.Timeout(10.0, read=None))  # noqa: S501

    async def read(self, cluster: Cluster, resource: Resource, request: Request) -> Reply:
        """GET of a pod's log. 400 while there is none, 500 when the node cannot be reached."""
        pod = cluster.require(resource, request.namespace, request.name).obj
        container = _container(pod, request.query.get("container", ""))
        node = pod["spec"].get("nodeName")
        if not node:
            raise errors.bad_request(f"pod {request.name} does not have a host assigned")
        base = _agent(cluster, pod, node)
        query = {key: request.query[key] for key in _PASSED_ON if key in request.query}
        url = f"{base}/containerLogs/{request.namespace}/{request.name}/{container}"
        outgoing = self._http.build_request("GET", url, params=query)
        try:
            answer = await self._http.send(outgoing, stream=True)
        except httpx.HTTPError as error:
            text = f'Get "{url}": {error or type(error).__name__}'
            raise errors.internal(text) from None
        if answer.status_code >= 400:
            text = (await answer.aread()).decode(errors="replace").strip()
            await answer.aclose()
            raise errors.StatusError(answer.status_code, "BadRequest", text)
        return Reply(200, content_type="text/plain", stream=_pieces(answer))

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()


async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    except httpx.HTTPError:
        return  # the node agent went away in the middle: the log ends here, as it does in a real cluster
    finally:
        await answer.aclose()


def _container(pod: Obj, asked: str) -> str:
    spec = pod["spec"]
    names = [c["name"] for c in spec.get("containers") or ()]
    init = [c["name"] for c in spec.get("initContainers") or ()]
    name = pod["metadata"]["name"]
    if asked:
        if asked not in names + init:
            raise errors.bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    default = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    if default in names:
        return str(default)
    if len(names) == 1:
        return str(names[0])
    choices = f"[{' '.join(names)}]" + (f" or one of the init containers: [{' '.join(init)}]" if init else "")
    raise errors.bad_request(f"a container name must be specified for pod {name}, choose one of: {choices}")


def _agent(cluster: Cluster, pod: Obj, node_name: str) -> str:
    node = cluster.read("/nodes", "", node_name)
    if node is None:
        raise errors.not_found("", "nodes", node_name)
    status = node.get("status") or {}
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port", _PORT)
    internal = (a["address"] for a in status.get("addresses") or () if a["type"] == "InternalIP")
    host = (pod.get("status") or {}).get("hostIP") or next(internal, "127.0.0.1")
    return f"https://{host}:{port}"
