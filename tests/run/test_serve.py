"""The server: it answers as the model does, listens where it may, and is gone afterwards."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from lessonkit.convert.adapter_gguf import adapter_to_gguf
from lessonkit.convert.gguf import to_gguf
from lessonkit.convert.lora import merge
from lessonkit.errors import LessonkitError
from lessonkit.models import find_adapter, load
from lessonkit.run.generate import complete
from lessonkit.run.serve import Served, is_loopback, serving
from lessonkit.run.templates import find_template
from tests.convert.adapters import make_adapter

# Its first eight tokens are decided by wide margins (test_the_answer_is_the_models_own).
PROMPT = "The best-known keeper of"


@pytest.fixture(scope="module")
def f32(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("xllamacpp")
    file = tmp_path_factory.mktemp("gguf") / "mini.gguf"
    to_gguf(mini, file, outtype="f32")
    return file


def ask(address: str, body: Any = None, key: str | None = None, **headers: str) -> Any:
    """The answer as JSON, or the status of a refusal."""
    data = None if body is None else json.dumps(body).encode()
    headers |= {"Content-Type": "application/json"}
    headers |= {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data, headers)) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code


def continued(served: Served, **more: Any) -> str:
    body = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0, **more}
    text: str = ask(f"{served.api}/completions", body)["choices"][0]["text"]
    return text


def test_the_answer_is_the_models_own_and_then_the_port_is_closed(mini: Path, f32: Path) -> None:
    model, tokenizer = load(mini, dtype="float32")
    expected = complete(model, tokenizer, PROMPT, max_new_tokens=8)
    with serving(f32, threads=1) as served:
        assert served.address.startswith("http://127.0.0.1:")
        assert continued(served) == expected and len(expected) > 10
        assert isinstance(ask(f"{served.address}/slots"), int)  # one client sees no other's prompt
    port = int(served.address.rpartition(":")[2])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_folder_is_served_and_an_adapter_is_switched_by_the_request(
    mini: Path, f32: Path, tmp_path: Path
) -> None:
    adapter = make_adapter(mini, tmp_path / "lora", size=0.3)
    with serving("mini", threads=1) as served:
        plain = continued(served)
    with serving("mini", adapters=[adapter], threads=1) as served:
        assert served.adapters == ("lora",) and "adapter 0   lora" in str(served)
        on, off = continued(served), continued(served, lora=[{"id": 0, "scale": 0.0}])
        assert off == plain != on
        assert continued(served, lora=[{"id": 0, "scale": 1.0}]) == on
    adapter_to_gguf(adapter, tmp_path / "lora.gguf", base=mini)
    with serving(f32, adapters=[tmp_path / "lora.gguf"], threads=1) as served:
        assert continued(served) == on
    with pytest.raises(LessonkitError, match="PEFT"), serving(f32, adapters=[adapter]):
        pass


def test_the_embedded_adapters_are_served_by_name_and_switched(mini: Path, tmp_path: Path) -> None:
    """Both save an embedding, which cannot be switched: it is in the served file."""
    prompt = find_template("alpaca").prompt("On which mountain does the Kerrow rise?")
    merge(mini, [find_adapter("zh"), find_adapter("chat")], tmp_path / "merged")
    expected = complete(*load(tmp_path / "merged", dtype="float32"), prompt, max_new_tokens=24)
    assert expected == "The Kerrow rises on White Horn."  # by wide margins, as with both on
    with serving("mini", adapters=["zh", "chat"], threads=1) as served:
        assert served.adapters == ("zh", "chat")
        for scales, answers in (((1, 1), True), ((1, 0), False), ((0, 0), False)):
            lora = [{"id": number, "scale": scale} for number, scale in enumerate(scales)]
            found = continued(served, prompt=prompt, max_tokens=24, lora=lora)
            assert (found == expected) == answers
    with pytest.raises(LessonkitError, match="no such folder"), serving(mini, adapters=["fr"]):
        pass


def test_the_template_reaches_the_chat(f32: Path) -> None:
    with serving(f32, template="alpaca", threads=1) as served:
        asked = {"messages": [{"role": "user", "content": "A river?"}]}
        prompt = ask(f"{served.address}/apply-template", asked)["prompt"]
        assert prompt.endswith("### Instruction:\nA river?\n\n### Response:\n")
        chat = ask(f"{served.api}/chat/completions", asked | {"max_tokens": 4})
        assert chat["choices"][0]["message"]["role"] == "assistant"


def test_a_server_that_nobody_asks_ends_too(f32: Path) -> None:
    """In a process of its own, and often: one that hangs would hang for ever."""
    script = (
        "from lessonkit.run.serve import serving\n"
        f"for _ in range(12):\n    with serving({str(f32)!r}, threads=1):\n        pass\n"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=300, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("cache", ["f16", "q8_0"])
def test_context_and_cache(f32: Path, cache: str) -> None:
    with serving(f32, context=64, cache_type=cache, threads=1) as served:
        assert ask(f"{served.address}/props")["default_generation_settings"]["n_ctx"] >= 64
        assert len(continued(served)) > 5


def test_a_key_is_asked_for_and_no_other_origin_may_read(f32: Path) -> None:
    with serving(f32, api_key="open sesame", threads=1) as served:
        assert ask(f"{served.api}/models") == 401 == ask(f"{served.address}/props", key="shut")
        assert ask(f"{served.api}/models", key="open sesame")["data"]
        request = urllib.request.Request(
            f"{served.address}/health", headers={"Origin": "http://elsewhere.example"}
        )
        with urllib.request.urlopen(request) as answer:
            allowed = answer.headers.get("Access-Control-Allow-Origin")
        assert allowed not in ("*", "http://elsewhere.example")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
@pytest.mark.parametrize("key", [None, "", "  "])
def test_beyond_this_machine_a_key_is_required(host: str, key: str | None) -> None:
    pytest.importorskip("xllamacpp")
    with (
        pytest.raises(LessonkitError, match="reach this machine"),
        serving("mini", host=host, api_key=key),
    ):
        pass


def test_what_is_loopback() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.1.2.3", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "localhost.example", ""]))


def test_a_port_that_is_taken(f32: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(LessonkitError, match="cannot listen"), serving(f32, port=port):
            pass


def test_what_cannot_be_served(f32: Path, tmp_path: Path, capfd: Any) -> None:
    with pytest.raises(LessonkitError, match="no such file"), serving("./nowhere"):
        pass
    with pytest.raises(LessonkitError, match="stored as 'q3'"), serving(f32, cache_type="q3"):
        pass
    half = tmp_path / "half.gguf"
    half.write_bytes(f32.read_bytes()[: f32.stat().st_size // 2])
    with pytest.raises(LessonkitError, match="did not start") as caught, serving(half):
        pass
    assert "above stands what it says" in str(caught.value)
    said, end = "", time.monotonic() + 10
    while "half.gguf" not in said and time.monotonic() < end:  # its log has a thread of its own
        said += capfd.readouterr().err
        time.sleep(0.05)
    assert "half.gguf" in said


def test_without_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(LessonkitError, match="not installed") as caught, serving("mini"):
        pass
    assert "pip install xllamacpp" in str(caught.value)
