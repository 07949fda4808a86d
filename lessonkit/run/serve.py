"""Serve a model over HTTP as OpenAI's clients expect it: llama.cpp's own server, from a wheel.

The wheel xllamacpp holds llama.cpp's server, compiled; nothing is built here. A model in Hugging
Face's form becomes a temporary GGUF file first, a PEFT adapter a GGUF adapter beside it.

The server listens on this machine alone. On any other interface everybody who can reach it can
use it, so there a key is required. And a web page from elsewhere cannot read what it answers in a
browser: llama.cpp allows any origin by itself, here only the server's own is.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessonkit.convert.adapter_gguf import switchable
from lessonkit.convert.gguf import to_gguf
from lessonkit.convert.gguf_model import is_gguf_model
from lessonkit.errors import LessonkitError
from lessonkit.models.names import find_adapter, find_path
from lessonkit.run.templates import as_jinja, find_template

CACHE_TYPES = ("f16", "q8_0", "q4_0")
"""What keys and values may be stored in."""


@dataclass(frozen=True)
class Served:
    """A running server: its `address`, and its adapters by the number that requests name."""

    address: str
    adapters: tuple[str, ...] = ()

    @property
    def api(self) -> str:
        """Where OpenAI's interface begins, the `base_url` of its clients."""
        return f"{self.address}/v1"

    def __str__(self) -> str:
        lines = [f"chat page   {self.address}", f"OpenAI API  {self.api}"]
        return "\n".join(
            [*lines, *(f"adapter {n}   {name}" for n, name in enumerate(self.adapters))]
        )


@contextmanager
def serving(
    model: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    api_key: str | None = None,
    adapters: Sequence[str | os.PathLike[str]] = (),
    template: str | None = None,
    context: int | None = None,
    cache_type: str = "f16",
    threads: int | None = None,
) -> Iterator[Served]:
    """Serve a model until the block ends.

    Parameters
    ----------
    model:
        A `.gguf` file, a folder in Hugging Face's form, a Hub id, or `mini`. What is no GGUF yet
        becomes one, unchanged, in the folder for temporary files.
    host, port:
        Where to listen; port 0 takes a free one.
    api_key:
        What a client must send ("Authorization: Bearer KEY"); without one, nothing is asked.
    adapters:
        LoRA adapters, in order: PEFT folders, `.gguf` files, or the embedded ones, "zh" and "chat".
        They are on; a request may give each another scale: {"lora": [{"id": 0, "scale": 0.0}]}.
        One that it does not name is off for it. What an adapter replaces (the embedding, for a
        larger vocabulary) stays, whatever a request says.
    template:
        The prompt template of the chat interface; by default the one in the model's file.
    context:
        Tokens of prompt and answer; by default as many as the model was made for.
    cache_type:
        What keys and values are stored in: f16, q8_0 or q4_0. (Its attention rounds f32 to f16.)
    threads:
        Threads that compute; by default as llama.cpp chooses.

    Raises
    ------
    LessonkitError
        The wheel is not installed, the port is taken, another interface without a key, or
        llama.cpp does not take the model.
    """
    library = _library()
    _require_safe(host, api_key)
    _require_free(host, port)
    with tempfile.TemporaryDirectory(prefix="lessonkit-serve-") as scratch:
        file, files = _as_gguf(model, adapters, Path(scratch))
        asked = library.CommonParams()
        asked.model.path = str(file)
        asked.hostnames, asked.port = [host], port
        asked.api_keys = [api_key] if api_key else []
        asked.cors_origins = f"http://{host}:{port}"
        asked.endpoint_slots = False  # it would show one client's prompt to another
        asked.endpoint_metrics = True  # for `_start`
        asked.verbosity = 1  # errors alone
        asked.n_ctx = context or 0
        asked.cache_type_k = asked.cache_type_v = _cache_type(library, cache_type)
        asked.lora_adapters = [_switched_on(library, each) for each in files]
        if threads:
            asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = threads
        if template:
            chosen = find_template(template)
            asked.chat_template, asked.antiprompt = as_jinja(chosen), list(chosen.stops)
        server = _start(library, asked, model)
        try:
            yield Served(server.listening_address, tuple(Path(each).name for each in adapters))
        finally:
            del server  # its destructor closes the port and frees the model


def is_loopback(host: str) -> bool:
    """Does the name or address mean this machine alone?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _library() -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise LessonkitError(
            "llama.cpp's server is not installed.",
            where="the package xllamacpp",
            remedy="pip install xllamacpp   (it is prebuilt; nothing is compiled)",
        ) from error
    return xllamacpp


def _require_safe(host: str, api_key: str | None) -> None:
    if not is_loopback(host) and not (api_key or "").strip():
        raise LessonkitError(
            "Whoever can reach this machine could use the model: it would listen beyond the "
            "loopback interface, and ask for no key.",
            where=f"host {host}",
            remedy="Leave the host out, or name a file with a key: --api-key-file FILE.",
        )


def _require_free(host: str, port: int) -> None:
    """Say now, and plainly, that a port is taken; llama.cpp would only fail."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name != "nt":  # there it would let two servers share a port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise LessonkitError(
            f"The server cannot listen here: {error.strerror or error}.",
            where=f"{host}, port {port}",
            remedy="Name another port, or 0 for a free one; the host is an address of this "
            "machine.",
        ) from error


def _as_gguf(
    model: str | os.PathLike[str], adapters: Sequence[str | os.PathLike[str]], scratch: Path
) -> tuple[Path, list[Path]]:
    """The GGUF file of a model, and one for each adapter; what is none yet is made in `scratch`."""
    path = find_path(os.fspath(model))
    found = [_adapter(adapter) for adapter in adapters]
    ready = {each for each in found if each.suffix == ".gguf" and each.is_file()}
    folders = [each for each in found if each not in ready]
    if is_gguf_model(path):
        if folders:
            raise LessonkitError(
                "An adapter in PEFT's form becomes GGUF with its base's sizes at hand, and the "
                "model is a GGUF file.",
                where=folders[0],
                remedy="Serve the base's folder instead, or give the adapter as a .gguf file.",
            )
        return (min(path.glob("*.gguf")) if path.is_dir() else path), found
    base, files = switchable(path, folders, scratch)
    to_gguf(base, scratch / "model.gguf")
    made = iter(files)
    return scratch / "model.gguf", [each if each in ready else next(made) for each in found]


def _adapter(name: str | os.PathLike[str]) -> Path:
    path = Path(name)
    return path if path.is_file() else find_adapter(os.fspath(name))


def _cache_type(library: Any, name: str) -> Any:
    if name not in CACHE_TYPES:
        raise LessonkitError(
            f"Keys and values cannot be stored as {name!r}.",
            where="cache_type",
            remedy=f"Use one of {', '.join(CACHE_TYPES)}.",
        )
    return getattr(library.ggml_type, f"GGML_TYPE_{name.upper()}")


def _switched_on(library: Any, file: Path) -> Any:
    adapter = library.CommonAdapterLoraInfo()
    adapter.path, adapter.scale = str(file), 1.0
    return adapter


def _start(library: Any, asked: Any, model: str | os.PathLike[str]) -> Any:
    try:
        server = library.Server(asked)
        # Answered by the server's work loop, so it is running now. A server that is ended before
        # its loop has begun waits for that loop for ever (xllamacpp 2026.10).
        server.handle_metrics()
        return server
    except RuntimeError as error:
        raise LessonkitError(
            "llama.cpp's server did not start; above stands what it says itself.",
            where=os.fspath(model),
            remedy="Look at the file with `lessonkit info`; where memory is short, use a "
            "smaller --context or a smaller file.",
        ) from error
