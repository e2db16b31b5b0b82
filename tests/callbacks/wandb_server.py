"""A stand-in for W&B's server, which remembers runs, their history, and who made and who used which artifact.

It answers what W&B's own uploader asks of it, and takes every artifact for complete, so that no file is sent.
"""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StandIn:
    """A server on a free port of this machine.

    Attributes:
        runs: id -> what has been told of it: group, job type, tags.
        history: id -> rows, in order of arrival.
        artifacts: id -> (name, type, digest); one name and digest are one version.
        made: ids of runs and artifacts; of an artifact that its user had to declare no run is the maker.
        used: ids of runs and artifacts.
        views: title -> what a workspace or a report shows.
        graph: all that was asked of it.
    """

    def __init__(self, refuse: bool = False) -> None:
        self.refuse = refuse
        self.runs: dict[str, dict] = {}
        self.history: dict[str, list[dict]] = {}
        self.artifacts: dict[str, tuple[str, str, str]] = {}
        self.made: list[tuple[str, str]] = []
        self.used: list[tuple[str, str]] = []
        self.views: dict[str, dict] = {}
        self.graph: list[tuple[str, dict]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, name: str, given: dict) -> dict:
        """Answer one question of GraphQL."""
        self.graph.append((name, given))
        if name == "RunResumeStatus":
            return {"model": {"id": "p", "name": "p", "entity": _ENTITY, "bucket": self._bucket(given["name"])}}
        if name == "UpsertBucket":
            told = self.runs.setdefault(given["name"], {})
            told |= {key: value for key, value in given.items() if value is not None}
            return {"upsertBucket": {"bucket": self._bucket(given["name"]), "inserted": True}}
        if name == "CreateArtifact":
            return {"createArtifact": {"artifact": self._create(given["input"])}}
        if name == "UseArtifact":
            self.used.append((given["input"]["runName"], given["input"]["artifactID"]))
            return {"useArtifact": {"artifact": {"id": given["input"]["artifactID"]}}}
        if name == "Viewer":
            return {"viewer": {"id": "v", "username": "e", "entity": "e", "flags": "{}", "teams": {"edges": []}}}
        if name in ("UpsertView2", "upsertView"):
            view = {"id": f"view{len(self.views)}", "name": given["name"], **_VIEW}
            self.views[given["displayName"]] = json.loads(given["spec"])
            return {"upsertView": {"view": view, "inserted": True}}
        if name == "GetProjects":
            return {"models": {"pageInfo": {"endCursor": None, "hasNextPage": False}, "edges": [{"node": _PROJECT}]}}
        if name == "ProjectInternalId":
            return {"project": {"id": "p", "internalId": "p"}}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.url}/upload/{file}"} for file in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        return {}

    def _bucket(self, name: str) -> dict | None:
        if name not in self.runs:
            return None
        lines = len(self.history.get(name, []))
        tail = json.dumps([json.dumps(row) for row in self.history.get(name, [])[-1:]])
        return {
            "id": name, "name": name, "displayName": name, "project": {"id": "p", "name": "p", "entity": _ENTITY},
            "config": "{}", "summaryMetrics": "{}", "historyTail": tail, "eventsTail": "[]", "tags": [],
            "historyLineCount": lines, "eventsLineCount": 0, "logLineCount": 0, "wandbConfig": "{}",
        }  # fmt: skip

    def _create(self, given: dict) -> dict:
        content = (given["artifactCollectionName"], given["artifactTypeName"], given["digest"])
        known = {value: key for key, value in self.artifacts.items()}
        identity = known.get(content) or f"artifact{len(self.artifacts)}"
        self.artifacts[identity] = content
        if given["runName"]:
            self.made.append((given["runName"], identity))
        return {"id": identity, "state": "COMMITTED", "artifactSequence": {"latestArtifact": {"id": identity}}}

    def stream(self, path: str, content: dict) -> None:
        """Take lines of a run's files."""
        rows = (content.get("files") or {}).get("wandb-history.jsonl") or {}
        name = path.split("/")[-2]
        self.history.setdefault(name, []).extend(json.loads(line) for line in rows.get("content") or [])


_ENTITY = {"id": "e", "name": "e"}
_PROJECT = {
    "id": "p", "name": "p", "entityName": "e", "createdAt": "2026-01-01T00:00:00", "isBenchmark": False, "user": None
}  # fmt: skip
_VIEW = {"displayName": "", "description": "", "spec": "{}", "project": {"id": "p", "name": "p", "entityName": "e"}}


def _handler(server: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body, data = self.rfile.read(int(self.headers.get("Content-Length") or 0)), {}
            if self.path == "/graphql":
                content = json.loads(body)
                named = re.search(r"(?:query|mutation)\s+(\w+)", content.get("query", ""))
                data = server.answer(named.group(1) if named else "", content.get("variables") or {})
            elif self.path.endswith("/file_stream"):
                server.stream(self.path, json.loads(body))
            body = json.dumps({"data": data}).encode()
            self.send_response(401 if server.refuse else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST

    return Handler
