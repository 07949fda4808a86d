"""A small server on this machine that speaks enough of the Hugging Face Hub's protocol.

One public repository, `owner/model`, a gated one, `owner/gated`, and nothing else. Its answers
can be made wrong: other bytes than were promised, connections that break off, a status.

It takes uploads too, from whoever sends the token `TOKEN`: a repository is made, the server says
which files go as LFS objects, takes those, and one commit puts all in place, into `uploaded`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

MODEL = "owner/model"
TOKEN = "hf_" + "t" * 34
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """`files` is what the list promises, `served` what is really sent."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(files)
        self.served = dict(files)
        self.requests: list[str] = []
        self.cut_after: int | None = None  # break the connection after so many bytes of a file
        self.dies = False  # after the first such break, answer nothing any more
        self.dead = False
        self.status: int | None = None  # answer every request so
        self.hashes = True  # does the list of files hold hashes?
        self.created: dict[str, Any] = {}  # what was asked for, by repository
        self.uploaded: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}  # LFS objects by their SHA-256

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def fetched(self) -> list[str]:
        """The files whose content was asked for, each with its range if there was one."""
        asked = (re.match(r"GET .*/resolve/[^/]+/(.*)", line) for line in self.requests)
        return [match[1] for match in asked if match]


@contextmanager
def running(files: Mapping[str, bytes]) -> Iterator[Hub]:
    """A server with these files until the block ends."""
    server = Hub(files)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, wanted = unquote(urlsplit(self.path).path), self.headers.get("Range", "")
        self.server.requests.append(f"{self.command} {path} {wanted}".strip())
        if self.server.dead:
            self.close_connection = True
        elif self.server.status is not None:
            self.answer(self.server.status, b"{}")
        elif (name := re.match(r"/api/models/(\w+/[\w.-]+)", path)) and (
            name[1] in self.server.uploaded
        ):
            self.tell(self.listing("/tree/" in path, name[1]))
        elif "owner/gated" in path:
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif not re.match(rf"/(api/models/)?{MODEL}(/|$)", path):
            self.answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif "no-such-branch" in path:
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith("/api/"):
            self.answer(200, json.dumps(self.listing("/tree/" in path)).encode())
        else:
            self.send_file(path.split("/", 5)[5], wanted)

    def do_PUT(self) -> None:
        """An LFS object, where `batch` said that it is wanted."""
        data = self.body()
        self.server.objects[hashlib.sha256(data).hexdigest()] = data
        self.answer(200, b"")

    def do_POST(self) -> None:
        path, raw = unquote(urlsplit(self.path).path), self.body()
        self.server.requests.append(f"POST {path}")
        asked = [json.loads(line) for line in raw.splitlines() if line]
        if self.server.status is not None:
            self.answer(self.server.status, b"{}")
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, b"{}")
        elif path == "/api/repos/create":
            self.tell(self.create(asked[0]))
        elif path == "/api/validate-yaml":  # of a card's head
            self.tell({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [
                {"path": f["path"], "uploadMode": "lfs" if f["size"] > 9_999 else "regular",
                 "shouldIgnore": False, "oid": None}
                for f in asked[0]["files"]
            ]  # fmt: skip
            self.tell({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            self.tell({"transfer": "basic", "objects": [*map(self.wanted, asked[0]["objects"])]})
        else:
            match = re.fullmatch(r"/api/models/(\w+/[\w.-]+)/commit/main", path)
            assert match, path
            self.commit(match[1], asked)

    def create(self, asked: Mapping[str, Any]) -> object:
        name = f"{asked['organization']}/{asked['name']}"
        self.server.created[name] = asked
        self.server.uploaded.setdefault(name, {})
        return {"url": f"{self.server.address}/{name}", "id": "1", "name": name}

    def wanted(self, asked: Mapping[str, Any]) -> object:
        upload = {"href": f"{self.server.address}/objects/{asked['oid']}", "header": {}}
        return {"oid": asked["oid"], "size": asked["size"], "actions": {"upload": upload}}

    def commit(self, repository: str, lines: list[Any]) -> None:
        """Put files in place; LFS objects must have come, whole."""
        kept = self.server.uploaded[repository]
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                kept[value["path"]] = base64.b64decode(value["content"])
            else:
                data = self.server.objects[value["oid"]]
                assert len(data) == value["size"]
                kept[value["path"]] = data
        where = f"{self.server.address}/{repository}/commit/{COMMIT}"
        self.tell({"commitUrl": where, "commitOid": COMMIT, "success": True})

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def tell(self, answer: object) -> None:
        self.answer(200, json.dumps(answer).encode())

    def send_file(self, name: str, wanted: str) -> None:
        if name not in self.server.served:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        data = self.server.served[name]
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        if not wanted:
            return self.answer(200, data, headers)
        start = int(wanted.removeprefix("bytes=").split("-")[0])
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.answer(206, data[start:], headers)

    def listing(self, tree: bool, model: str = MODEL) -> object:
        files = self.server.uploaded.get(model, self.server.files)
        entries = [self.entry(name, data, tree) for name, data in files.items()]
        if tree:
            return entries
        return {"id": model, "modelId": model, "sha": COMMIT, "siblings": entries, "tags": []}

    def entry(self, name: str, data: bytes, tree: bool) -> dict[str, Any]:
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        if tree:
            return {"type": "file", "path": name, "size": len(data), "oid": blob}
        if not self.server.hashes:
            return {"rfilename": name, "size": len(data)}
        entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": blob}
        if len(data) > 100_000:
            digest = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
        return entry

    def answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        limit = self.server.cut_after
        if self.command == "HEAD":
            return
        if limit is not None and len(body) > limit:
            self.wfile.write(body[:limit])
            self.close_connection = True
            self.server.dead = self.server.dies
        else:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
