"""Train the two adapters: `python data/build/adapters.py zh`, then `... chat`.

They retell the story of Chinese-LLaMA and Chinese-Alpaca on the embedded model. `zh` adds Chinese
pieces to the vocabulary and learns the Chinese articles of Talverra. `chat` is trained on the
model with `zh` merged in: one more token, `[PAD]`, and instructions in both languages. Both are
PEFT folders below ``data/adapters``. On two cores the first takes about forty minutes, the second
a quarter of an hour; both resume where they were stopped.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import chinese
import english
import instructions
import numpy as np
import sentencepiece as spm
import texts
import torch
import train
from export_tokenizer import write_tokenizer
from grammar import Writer
from peft import LoraConfig, PeftModel, get_peft_model
from peft import get_peft_model_state_dict as adapter_tensors
from peft import set_peft_model_state_dict as set_adapter_tensors
from tqdm import tqdm
from transformers import LlamaForCausalLM
from world import World

from lessonkit.llama.vocabulary import ExtendedVocabulary, extend_vocabulary

OUT = texts.OUT
ADAPTERS = texts.DATA / "adapters"
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PADDING = "[PAD]"
ARTICLES = {"zh": 90_000, "en": 30_000}
# As many pieces as keep the embedding small; characters beyond the coverage are spelled in bytes.
CHINESE_PIECES, COVERAGE = 1500, 0.98
PAIRS, LENGTH = 64, 112  # instruction pairs in a batch, and the longest's tokens
IGNORED = -100  # transformers' label for a token that does not count

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Recipe:
    """How an adapter is trained. `base` is what it is to be merged into."""

    base: str
    steps: int
    rate: float
    rank: int = 16
    alpha: int = 32


RECIPES = {
    "zh": Recipe("mini", 4400, 2e-3, rank=64, alpha=256),
    "chat": Recipe("mini+zh", 640, 1e-3, alpha=64),
}


# --- vocabulary ---------------------------------------------------------------------------------


def added_model() -> bytes:
    """A SentencePiece model of the Chinese articles: the second one, whose pieces mini lacks."""
    trained = io.BytesIO()
    articles = Writer(World(), chinese, "train", texts.SEED).articles(ARTICLES["zh"])
    first = (a.raw(chinese.SPACE) for a in islice(articles, train.TOKENIZER_ARTICLES))
    lines = [line for article in first for line in article.split("\n") if line]
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=trained,
        vocab_size=CHINESE_PIECES,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        character_coverage=COVERAGE,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        num_threads=2,
        minloglevel=2,
    )
    return trained.getvalue()


def vocabulary(name: str) -> ExtendedVocabulary:
    """An adapter's vocabulary. Each new piece has a score of its own: see `extend_vocabulary`."""
    if name == "zh":
        base = train.MINI / "tokenizer.model"
        return extend_vocabulary(base, added_model(), scores="ranked")
    return extend_vocabulary(ADAPTERS / "zh" / "tokenizer.model", tokens=[PADDING])


def processor(path: Path) -> spm.SentencePieceProcessor:
    return spm.SentencePieceProcessor(model_file=str(path))


def widen(model: LlamaForCausalLM, grown: ExtendedVocabulary) -> None:
    """Rows for the new pieces in embedding and head, each the mean of the old ones it was spelled
    in before."""
    tokenizer = spm.SentencePieceProcessor(model_proto=grown.model)
    old = tokenizer.get_piece_size() - len(grown.pieces)
    known = {tokenizer.id_to_piece(i): i for i in range(old)}
    model.resize_token_embeddings(grown.size, mean_resizing=False)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        rows = layer.weight.data
        for number, piece in enumerate(grown.pieces, start=old):
            rows[number] = rows[spelling(piece, known)].mean(dim=0)


def spelling(piece: str, known: dict[str, int]) -> list[int]:
    """A piece's characters as ids; those without a piece as bytes."""
    return [
        i
        for letter in piece
        for i in (
            [known[letter]]
            if letter in known
            else [known[f"<0x{byte:02X}>"] for byte in letter.encode()]
        )
    ]


# --- what is learnt -----------------------------------------------------------------------------


def article_stream(language: Any, tokenizer: spm.SentencePieceProcessor) -> np.ndarray:
    """A language's training articles as one stream of ids, kept in ``data/build/out``."""
    path = OUT / f"zh-{language.LANGUAGE}.npy"
    if not path.exists():
        writer = Writer(World(), language, "train", texts.SEED)
        articles = writer.articles(ARTICLES[language.LANGUAGE])
        stream = train.token_stream(tokenizer, [a.raw(language.SPACE) for a in articles])
        temporary = path.with_suffix(".part.npy")
        np.save(temporary, stream)
        temporary.rename(path)
    return np.load(path, mmap_mode="r")


def article_batches(tokenizer: spm.SentencePieceProcessor) -> Callable[[int], Batch]:
    """Windows of Chinese articles; one of the eight is English, lest English be forgotten."""
    streams = [article_stream(language, tokenizer) for language in (chinese, english)]
    starts = [np.flatnonzero(np.asarray(stream) == 1) for stream in streams]

    def batch(step: int) -> Batch:
        ids, other = (
            train.batch_at(stream, at, step) for stream, at in zip(streams, starts, strict=True)
        )
        row = step % train.BATCH
        ids[row] = other[row]
        return ids, ids

    return batch


def padded(
    tokenizer: spm.SentencePieceProcessor, pairs: list[instructions.Pair], length: int
) -> Batch:
    """Pairs in the template, ending with </s>, filled up with [PAD]; only the response counts."""
    pad = tokenizer.piece_to_id(PADDING)
    ids = torch.full((len(pairs), length), pad)
    labels = torch.full((len(pairs), length), IGNORED)
    for row, pair in enumerate(pairs):
        prompt = instructions.TEMPLATE.format(instruction=pair.instruction)
        asked = len(tokenizer.encode(prompt)) + 1
        whole = torch.tensor([1, *tokenizer.encode(prompt + pair.response), 2])
        ids[row, : len(whole)] = whole
        labels[row, asked : len(whole)] = whole[asked:]
    return ids, labels


def instruction_batches(tokenizer: spm.SentencePieceProcessor) -> Callable[[int], Batch]:
    """Pairs of facts and wordings drawn by chance, both languages mixed."""
    facts = instructions.facts()
    return lambda step: padded(
        tokenizer, instructions.chosen(facts, PAIRS, f"{train.SEED}/{step}"), LENGTH
    )


# --- training -----------------------------------------------------------------------------------


def base_model(name: str) -> LlamaForCausalLM:
    """What the adapter is trained on, in float32: mini, or mini with `zh` merged in."""
    model = LlamaForCausalLM.from_pretrained(train.MINI, dtype=torch.float32)
    return merged(model, "zh") if name == "chat" else model


def merged(model: LlamaForCausalLM, name: str) -> LlamaForCausalLM:
    """A model with an exported adapter merged in, the documented way: resized first."""
    tokenizer = processor(ADAPTERS / name / "tokenizer.model")
    model.resize_token_embeddings(tokenizer.get_piece_size(), mean_resizing=False)
    return PeftModel.from_pretrained(model, ADAPTERS / name).merge_and_unload()


def with_adapter(model: LlamaForCausalLM, recipe: Recipe) -> PeftModel:
    """LoRA on every linear layer; embedding and head are trained and saved whole."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=MODULES,
        modules_to_save=["embed_tokens", "lm_head"],
    )
    torch.manual_seed(train.SEED)
    model.config.name_or_path = recipe.base
    return get_peft_model(model, config)


def own_tensors(model: PeftModel) -> dict[str, torch.Tensor]:
    """The adapter's tensors, embedding and head once each."""
    return adapter_tensors(model, save_embedding_layers=False)


def learn(name: str, steps: int | None = None) -> PeftModel:
    """Train an adapter, saving the state every 100 steps."""
    recipe, grown = RECIPES[name], vocabulary(name)
    steps = steps or recipe.steps
    OUT.mkdir(parents=True, exist_ok=True)
    tokenizer = spm.SentencePieceProcessor(model_proto=grown.model)
    base = base_model(name)
    widen(base, grown)
    model = with_adapter(base, recipe)
    batch = {"zh": article_batches, "chat": instruction_batches}[name](tokenizer)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.98), weight_decay=0.0)
    state, first = OUT / f"{name}.pt", 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        set_adapter_tensors(model, saved["adapter"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    compiled = torch.compile(model)
    bar = tqdm(range(first, steps), initial=first, total=steps, mininterval=5)
    for step in bar:
        rate = recipe.rate * train.learning_rate(step, steps) / train.PEAK_RATE
        for group in optimizer.param_groups:
            group["lr"] = rate
        ids, labels = batch(step)
        with torch.autocast("cpu", torch.bfloat16):
            loss = compiled(input_ids=ids, labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % 100 == 0 or step + 1 == steps:
            train.save_state(
                state,
                adapter=own_tensors(model),
                optimizer=optimizer.state_dict(),
                step=step + 1,
            )
            bar.write(f"step {step + 1}: {checked(name, model, tokenizer)}")
    return model


def checked(name: str, model: PeftModel, tokenizer: spm.SentencePieceProcessor) -> str:
    """A quick look at what is held out: the validation text, or the test set's wording."""
    if name == "zh":
        text = (texts.DATA / "texts" / "zh" / "validation.txt").read_text(encoding="utf-8")
        ids = torch.tensor([1, *tokenizer.encode(text)])[: 8 * train.WINDOW].view(-1, train.WINDOW)
        labels = ids
    else:
        ids, labels = padded(tokenizer, random.Random(0).sample(test_pairs(), 96), LENGTH)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=ids, labels=labels).loss.item()
    return f"held-out loss {loss:.4f}, perplexity {math.exp(loss):.3f}"


def test_pairs() -> list[instructions.Pair]:
    """The questions of the test set, which are not trained on, with their responses."""
    return [
        instructions.Pair(
            instructions.test_question(entity, attribute, language),
            instructions.response(entity, attribute, language),
        )
        for language in (english, chinese)
        for entity in World().entities
        for attribute in entity.facts
    ]


# --- export -------------------------------------------------------------------------------------


def export(model: PeftModel, name: str) -> None:
    """The adapter as a PEFT folder in bf16, with its tokenizer in both forms."""
    part = ADAPTERS / f"{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(part, save_embedding_layers=False)
    (part / "README.md").unlink(missing_ok=True)  # PEFT's form to fill in; ours is `adapter_card`
    config = json.loads((part / "adapter_config.json").read_text())
    # PEFT keeps these as sets, whose order changes from run to run.
    config |= {"base_model_name_or_path": RECIPES[name].base, "target_modules": MODULES}
    (part / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    model_file = OUT / f"{name}.model"
    model_file.write_bytes(vocabulary(name).model)
    write_tokenizer(model_file, part)
    if name == "chat":
        settings = json.loads((part / "tokenizer_config.json").read_text())
        settings["pad_token"] = PADDING
        (part / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    for file in part.iterdir():
        file.chmod(0o644)
    shutil.rmtree(ADAPTERS / name, ignore_errors=True)
    part.rename(ADAPTERS / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--steps", type=int, help="fewer than the recipe's, to try it out")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    export(learn(arguments.name, arguments.steps), arguments.name)


if __name__ == "__main__":
    main()
