"""Train the embedded model: `python data/build/train.py`. Resumes where it was stopped.

A small Llama learns the English articles of Talverra: tokenizer, then model, then
export to ``data/mini`` as bf16 safetensors. About half an hour on two cores.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import shutil
from pathlib import Path

import english
import numpy as np
import sentencepiece as spm
import texts
import torch
from grammar import Writer
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM
from world import World

OUT = texts.OUT
MINI = texts.DATA / "mini"
SEED = 7
TOKENIZER_ARTICLES = 12_000  # the first so many
STOP_SHARE = 0.3  # of the articles that end a text; the others are followed by one more
WINDOW, BATCH = 512, 8
PEAK_RATE, WARMUP, DECAY = 2e-3, 100, 0.35  # the last 35 % of the steps cool down to 0

CONFIG = LlamaConfig(
    vocab_size=4096,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=5,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=WINDOW,
    rope_theta=10000.0,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
    initializer_range=0.02,
    attn_implementation="sdpa",
)


def train_articles() -> list[str]:
    """The training articles, the same on every run."""
    writer = Writer(World(), english, "train", texts.SEED)
    return [
        article.raw(english.SPACE)
        for article in writer.articles(texts.TRAIN_COUNTS[english.LANGUAGE])
    ]


def train_tokenizer(articles: list[str]) -> Path:
    """A SentencePiece BPE model in Llama's manner: byte fallback, split digits, <s> and </s>."""
    trained = io.BytesIO()  # not a file: its name would become a part of the model
    first = articles[:TOKENIZER_ARTICLES]
    lines = [line for article in first for line in article.split("\n") if line]
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=trained,
        vocab_size=CONFIG.vocab_size,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=2,
        minloglevel=2,
    )
    path = OUT / "tokenizer.model"
    path.write_bytes(trained.getvalue())
    return path


def token_stream(tokenizer: spm.SentencePieceProcessor, articles: list[str]) -> np.ndarray:
    """All articles as one stream of token ids.

    Runs of articles are joined by a blank line and encoded as one text, as the test text is:
    encoded one by one, each would begin with the space that SentencePiece puts before a text, and
    the model would be sure, and wrong, at every title of the test text. A run ends with </s> and
    the next begins with <s>, so that the model learns both to stop and to start.
    """
    rng = np.random.default_rng(SEED)
    ends = np.flatnonzero(rng.random(len(articles)) < STOP_SHARE) + 1
    runs = ["\n\n".join(run) for run in np.split(np.array(articles, dtype=object), ends)]
    stream: list[int] = []
    for ids in tokenizer.encode([run for run in runs if run], num_threads=2):
        stream += [1, *ids, 2]
    return np.array(stream, dtype=np.uint16)


def prepare() -> np.ndarray:
    """Tokenizer and token stream, made once and kept in ``data/build/out``."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "train.npy"
    if not path.exists():
        articles = train_articles()
        tokenizer = spm.SentencePieceProcessor(model_file=str(train_tokenizer(articles)))
        temporary = OUT / "train.part.npy"
        np.save(temporary, token_stream(tokenizer, articles))
        temporary.rename(path)
    return np.load(path, mmap_mode="r")


def batch_at(stream: np.ndarray, starts: np.ndarray, step: int) -> torch.Tensor:
    """The batch of a step: half of its windows begin at a <s>, half anywhere in the text.

    `starts` are the places of <s> in the stream. The batch depends on the step alone, so a resumed
    run sees what an unbroken one would.
    """
    rng = np.random.default_rng((SEED, step))
    last = len(stream) - WINDOW
    places = np.concatenate(
        [
            rng.choice(starts[starts <= last], BATCH // 2),
            rng.integers(0, last, BATCH - BATCH // 2, endpoint=True),
        ]
    )
    return torch.from_numpy(np.stack([stream[p : p + WINDOW] for p in places]).astype(np.int64))


def learning_rate(step: int, steps: int) -> float:
    """Warm up, hold, then fall linearly to zero."""
    cool = int(steps * DECAY)
    return PEAK_RATE * min(1.0, (step + 1) / WARMUP, (steps - step) / cool)


def optimizer_for(model: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW; only matrices decay."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98), eps=1e-8)


def save_state(path: Path, **state: object) -> None:
    """Written whole or not at all."""
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    temporary.rename(path)


def validation_loss(model: LlamaForCausalLM, windows: int = 24) -> float:
    """Mean loss over the first windows of the validation text."""
    tokenizer = spm.SentencePieceProcessor(model_file=str(OUT / "tokenizer.model"))
    text = (texts.DATA / "texts" / "en" / "validation.txt").read_text(encoding="utf-8")
    ids = torch.tensor([1, *tokenizer.encode(text)])[: windows * WINDOW].view(-1, WINDOW)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return float(np.mean([model(row[None], labels=row[None]).loss.item() for row in ids]))


def train(steps: int) -> LlamaForCausalLM:
    """Train for `steps` steps, saving the state every 100."""
    stream = prepare()
    starts = np.flatnonzero(np.asarray(stream) == 1)
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(CONFIG)
    compiled = torch.compile(model)  # 1.6 times as fast; needs a C++ compiler
    optimizer = optimizer_for(model)
    state, first = OUT / "state.pt", 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    bar = tqdm(range(first, steps), initial=first, total=steps, mininterval=5)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        ids = batch_at(stream, starts, step)
        with torch.autocast("cpu", torch.bfloat16):
            loss = compiled(ids, labels=ids).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % 100 == 0 or step + 1 == steps:
            save_state(
                state, model=model.state_dict(), optimizer=optimizer.state_dict(), step=step + 1
            )
        if (step + 1) % 400 == 0 or step + 1 == steps:
            value = validation_loss(model)
            bar.write(
                f"step {step + 1}: validation loss {value:.4f}, perplexity {math.exp(value):.3f}"
            )
    return model


def export(model: LlamaForCausalLM) -> None:
    """The model in ``data/mini``: bf16 safetensors and the tokenizer in both forms."""
    from export_tokenizer import write_tokenizer

    part = MINI.with_name("mini.part")
    shutil.rmtree(part, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(part)
    write_tokenizer(OUT / "tokenizer.model", part)
    config = json.loads((part / "config.json").read_text())
    # Where readers of Llama's own configuration, older than transformers 5, look for them.
    config |= {"rope_theta": CONFIG.rope_parameters["rope_theta"], "torch_dtype": "bfloat16"}
    (part / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for file in part.iterdir():
        file.chmod(0o644)
    shutil.rmtree(MINI, ignore_errors=True)
    part.rename(MINI)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3200, help=f"of {WINDOW * BATCH} tokens each")
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    export(train(arguments.steps))


if __name__ == "__main__":
    main()
