"""The commands in the order in which a model is worked on, each with an example.

The one place for both: what `lessonkit` alone prints, and the example in every `--help`. A command
that has no line here fails a test.
"""

from __future__ import annotations

STEPS: dict[str, dict[str, str]] = {
    "Get a model, and see what it is": {
        "fetch": "fetch TinyLlama/TinyLlama-1.1B-Chat-v1.0 tinyllama",
        "verify": "verify tinyllama",
        "info": "info tinyllama --tensors",
        "plan": "plan tinyllama --context 2048",
    },
    "Change its form": {
        "to-hf": "to-hf llama-2-7b llama-2-7b-hf",
        "to-meta": "to-meta mini mini-meta --shards 2",
        "compare": "compare mini mini-meta",
    },
    "Teach it": {
        "extend-vocab": "extend-vocab llama.model chinese.model both.model --token '[PAD]'",
        "merge": "merge mini zh chat --out merged",
    },
    "Make it small": {
        "imatrix": "imatrix mini island mini-imatrix.gguf",
        "to-gguf": "to-gguf mini mini-q4.gguf --outtype q4_k_m",
        "explain": "explain mini-q4.gguf --source mini",
        "from-gguf": "from-gguf mini-q4.gguf mini-back",
        "nf4": "nf4 mini mini-nf4 --double-quant",
        "gptq": "gptq mini mini-gptq island --bits 4 --group-size 128",
        "awq": "awq mini mini-awq island --group-size 128",
    },
    "Measure it": {
        "perplexity": "perplexity mini --text island",
        "divergence": "divergence mini-q4.gguf mini",
        "recall": "recall mini --language en",
        "kl-base": "kl-base mini mini.kld",
    },
    "Use it, and pass it on": {
        "chat": "chat mini --adapter zh --adapter chat --template alpaca",
        "serve": "serve mini --port 8080",
        "share": "share mini-q4.gguf you/mini-gguf --base you/mini --dry-run",
    },
    "In the shell": {
        "completion": "completion bash > ~/.local/share/bash-completion/completions/lessonkit",
    },
}


def example_of(command: str) -> str | None:
    """The example of a command, as it is typed."""
    found = next((step[command] for step in STEPS.values() if command in step), None)
    return f"lessonkit {found}" if found else None


def overview(summaries: dict[str, str]) -> str:
    """The journey, a line a command. `summaries` says what each does; others come at the end."""
    placed = {name for step in STEPS.values() for name in step}
    rest = {name: "" for name in summaries if name not in placed}
    lines: list[str] = []
    for title, step in [*STEPS.items(), ("And", rest)]:
        names = [name for name in step if name in summaries]
        if names:
            lines += ["", title, *(f"  {name:13} {summaries[name]}" for name in names)]
    return "\n".join(lines[1:])
