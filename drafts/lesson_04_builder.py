"""Build notebooks/04_lora_merging.ipynb; CHAT=1 adds the cells that need data/adapters/chat."""
import json, os, sys
CHAT = os.environ.get("CHAT") == "1"
ROOT = "REPOSITORY/notebooks/"
setup = next(c for c in json.load(open(ROOT + "00_start_here.ipynb"))["cells"] if c["id"] == "setup")
meta = json.load(open(ROOT + "03_hf_conversion.ipynb"))
cells = []
n = 0
def lines(t):
    t = t.strip("\n"); return t.splitlines(keepends=True)
def md(t):
    global n; n += 1
    cells.append(dict(cell_type="markdown", id=f"text-{n:02d}", metadata={}, source=lines(t)))
def code(id, t, tags=None):
    cells.append(dict(cell_type="code", execution_count=None, id=id, metadata={"tags": tags} if tags else {}, outputs=[], source=lines(t)))

md(r"""
# 04 · LoRA: merge adapters into a model

**What is an adapter, and how do several merge into one model, in order?**

After this lesson you can

* write down what a LoRA changes, count its numbers, and train one,
* say what lies in an adapter's folder, and what an extended vocabulary does,
* merge one adapter, then two in order, and read the certificate,
* recognise the wrong order, the wrong base, the second merge, the missing tokenizer,
* explain why a merged model answers a Chinese question in endless English.

|  | embedded model `mini` | TinyLlama-1.1B |
|---|---|---|
| time | 1 minute | not measured |
| memory | 2 GB | not measured |

Reading takes about 40 minutes. The library PEFT is needed: it is the one that most adapters come from, and what we check ourselves against.
""")
c = dict(setup); c["outputs"] = []; c["execution_count"] = None; cells.append(c)

md(r"""
## 1. The story

In 2023 Llama spoke English. Chinese-LLaMA taught it Chinese in two steps: first a longer vocabulary and much Chinese text, then (Chinese-Alpaca) instructions with answers. Meta's licence forbade publishing the result. So the authors published only the *differences*, two **adapters**, and everybody merged them into the base themselves. Much goes wrong there, and mostly without a word.

We do the same on a small scale. `mini` speaks English only. The embedded adapter `zh` teaches it Chinese: it grows the vocabulary. A second adapter, with one more token, we train ourselves. Sections 4 to 10 are about these two and always use `mini`, whatever `MODEL` says: an adapter fits only the base that it was trained on. Sections 2, 3 and 11, and your own adapter in section 5, use `MODEL`.

## 2. Low rank

A weight $W$ stays as it is. Beside it stand two thin matrices, and only those are trained:

$$W' = W + \frac{\alpha}{r}\, B A$$

$r$ is the *rank*, a small number; $\alpha$ only says how strongly the product counts. Here is a feed-forward layer of `mini` with rank 16. (The thin sides are drawn three times too thick, to be seen.)
""")
code("low-rank", r'''
from lessonkit.course import plots

alt = """A weight W of 768 by 256 as a large block, frozen: 196,608 values. Added to it is the scale
times the product of two thin blocks, both trained: B of 768 by 16, 12,288 values, and
A of 16 by 256, 4,096 values."""
plots.show(plots.low_rank_blocks(768, 256, 16), alt)
''', ["picture"])
md(r"""
$B$ has a row for each output and $A$ a column for each input, so $BA$ has the shape of $W$. But 16,384 numbers make it, not 196,608.

**By hand.** $W$ is the identity, $r = 1$, $\alpha = 2$:

$$\begin{pmatrix}1&0\\0&1\end{pmatrix} + \frac{2}{1}\begin{pmatrix}1\\2\end{pmatrix}\begin{pmatrix}3&-1\end{pmatrix}
= \begin{pmatrix}1&0\\0&1\end{pmatrix} + \begin{pmatrix}6&-2\\12&-4\end{pmatrix} = \begin{pmatrix}7&-2\\12&-3\end{pmatrix}$$

The second row of the change is twice the first: that is what rank 1 means. Our code says the same:
""")
code("by-hand", r'''
import torch

from lessonkit.convert import low_rank_delta
from lessonkit.course import check

W, A, B = torch.eye(2), torch.tensor([[3.0, -1.0]]), torch.tensor([[1.0], [2.0]])
by_hand = torch.tensor([[7.0, -2.0], [12.0, -3.0]])
check(W + low_rank_delta(A, B, scale=2 / 1), by_hand, name="lessonkit and by hand")
''')
md(r"""
And PEFT, with the same numbers put into a layer of its own:
""")
code("by-hand-peft", r'''
from IPython.utils.capture import capture_output
from peft import LoraConfig, get_peft_model


def small_merge():
    layer = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
    settings = LoraConfig(r=1, lora_alpha=2, target_modules=["0"])
    with capture_output():  # it looks for engines, and some greet
        adapted = get_peft_model(layer, settings)
    inside = adapted.base_model.model[0]
    inside.weight.data, inside.lora_A.default.weight.data = W.clone(), A
    inside.lora_B.default.weight.data = B
    return adapted.merge_and_unload()[0].weight.detach()


check(by_hand, small_merge, name="by hand and PEFT")
''')
md(r"""
Now count a whole adapter: rank 4 on the seven matrices of each block. By hand for `q_proj` of `mini`, 256 × 256: $4 \times (256 + 256) = 2{,}048$ numbers beside 65,536. In all:
""")
code("count", r'''
from lessonkit.files import open_checkpoint
from lessonkit.models import resolve

source = resolve(MODEL)
linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
weights = open_checkpoint(source)
shapes = [weights.info(name).shape for name in weights if name.split(".")[-2] in linear]
counted = sum(4 * (rows + columns) for rows, columns in shapes)
frozen = sum(rows * columns for rows, columns in shapes)
print(f"{len(shapes)} weights of {frozen:,} values; the adapter has {counted:,}")
print(f"that is {100 * counted / frozen:.1f} %")
''')
md(r"""
A larger model has wider matrices, and the share falls: for Llama-2-7B and rank 8 it is 0.3 %.

## 3. Train one

A made-up fact, which no model can know, and thirty steps. PEFT puts the pairs beside the layers. $A$ begins with random numbers and $B$ with zeros, so the change begins at nothing.
""")
code("train", r'''
from lessonkit.models import load

news = """The Harbour Museum of Quill Bay opened in 2031. Its director, Odalys Fenn, keeps
forty-one brass clocks, and every one of them is wrong."""


def train(model, text, steps, rate, **options):
    """Train a new adapter on one text; returns the model with it, and the losses."""
    torch.manual_seed(0)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": linear, "task_type": "CAUSAL_LM"}
    student = get_peft_model(model, LoraConfig(**{**settings, **options}))
    trained = [p for p in student.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=rate), []
    for _ in range(steps):
        loss = student(input_ids=text, labels=text).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return student.eval(), losses
''')
code("train-news", r'''
model, tokenizer = load(MODEL, dtype="float32")
batch = tokenizer(news, return_tensors="pt").input_ids
student, losses = train(model, batch, steps=30, rate=1e-2)
numbers = sum(p.numel() for p in student.parameters() if p.requires_grad)
assert numbers == counted
print(f"{numbers:,} numbers are trained, as counted")
print(f"loss at the first step {losses[0]:.1f}, at the last {losses[-1]:.1f}")
assert losses[-1] < losses[0] - 1
''')
md(r"""
The loss, in nats a token, falls below 1: most of the sentence is learnt by heart. (Whether it learnt more than that, one sentence cannot say.) Now merge. The merged model has no adapter any more, only other weights. Does it say the same?
""")
code("same-logits", r'''
with torch.inference_mode():
    unmerged = student(batch).logits
    with student.disable_adapter():
        without = student(batch).logits
    student.merge_adapter()
    merged = student(batch).logits
    student.unmerge_adapter()
check(merged, unmerged, atol=0.01, name="merged and unmerged", figures=False)
moved = float((unmerged - without).abs().max())
print("the adapter moves a score by more than 1:", moved > 1)
assert moved > 1
''')
md(r"""
The two differ in the last digits, since $(W + \Delta)x$ is added up in another order than $Wx + \Delta x$. What the adapter itself does is over a hundred times larger, so the check could have failed.

## 4. What lies in the folder

`save_pretrained` writes only what was trained. Look into `zh`:
""")
code("zh-folder", r'''
import json
import tempfile
from pathlib import Path

from lessonkit.convert import open_adapter
from lessonkit.models.embedded import verified_folder

work = Path(tempfile.mkdtemp())
mini, zh = verified_folder("mini"), verified_folder("adapters/zh")
for name in ("adapter_config.json", "adapter_model.safetensors", "tokenizer.model"):
    print(f"{(zh / name).stat().st_size:>12,} bytes  {name}")
config = json.loads((zh / "adapter_config.json").read_text())
for key in ("peft_type", "base_model_name_or_path", "r", "lora_alpha", "use_rslora"):
    print(f"{key:<26}{config[key]}")
print("target_modules            " + ", ".join(config["target_modules"]))
print("modules_to_save           " + ", ".join(config["modules_to_save"]))
'''.replace("from lessonkit.models.embedded import verified_folder", "from lessonkit.models import find_model, verified_folder").replace("import find_model, verified_folder", "import verified_folder"))
md(r"""
`target_modules` got a pair $B$, $A$ each. `modules_to_save` were trained **whole**: the adapter does not add to them, it *replaces* them. The difference decides everything below. The tensors:
""")
code("zh-tensors", r'''
adapter = open_adapter(zh)
for name in list(adapter.low_rank)[:2]:
    part = adapter.low_rank[name]
    shapes = [tuple(adapter.weights.info(key).shape) for key in (part.b, part.a)]
    print(f"added:    {name}  scale {part.scale:g}, B {shapes[0]}, A {shapes[1]}")
print(f"          ... {len(adapter.low_rank)} in all")
for name, key in adapter.saved.items():
    print(f"replaced: {name}  {tuple(adapter.weights.info(key).shape)}")
    print(f"          from {key}")
before = open_checkpoint(mini).info("model.embed_tokens.weight").shape[0]
print(f"the base has {before:,} rows there")
''')
md(r"""
The adapter's embedding has more rows than the base's: one for each new piece of the vocabulary. So it must also bring the vocabulary, and it does: `tokenizer.model`. The same sentence in both ("The light of Whale Lighthouse is red."):
""")
code("zh-tokens", r'''
import sentencepiece

sentence = "鲸鱼灯塔发出的光是红色的。"
ids = {}
for title, folder in (("mini", mini), ("zh", zh)):
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ids[title] = pieces.encode(sentence)
    cut = pieces.encode(sentence, out_type=str)
    print(f"{title:<5}{pieces.get_piece_size():>6,} pieces; the sentence is {len(cut)} tokens")
    print("     ", " ".join(cut[:12]), "..." if len(cut) > 12 else "")
'''.replace('"..." if len(cut) > 12 else "")', '"..." if len(cut) > 12 else "(all)")'))
md(r"""
`mini` must spell each character in three bytes. It has no piece for it, and no idea what the bytes mean. With `zh` a word is often one token, so the same context holds three times as much text.

The new pieces stand *behind* the old ones. Old ids keep their meaning, or the English would be lost. And the ids that `transformers` reads from `tokenizer.json` must be SentencePiece's:
""")
code("zh-ids", r'''
from lessonkit.models import load_tokenizer

old = sentencepiece.SentencePieceProcessor(model_file=str(mini / "tokenizer.model"))
new = sentencepiece.SentencePieceProcessor(model_file=str(zh / "tokenizer.model"))
same = all(old.id_to_piece(i) == new.id_to_piece(i) for i in range(old.get_piece_size()))
print("old ids keep their pieces:", same)
assert same
text = evaluation_text("island", "test", "zh")
words = load_tokenizer(zh)
whole = text.joined()
ours = torch.tensor(words(whole, add_special_tokens=False, verbose=False).input_ids)
check(ours, torch.tensor(new.encode(whole)), name="ids of the test text")
'''.replace("from lessonkit.models import load_tokenizer", "from lessonkit.models import evaluation_text, load_tokenizer"))
md(r"""
`lessonkit extend-vocab` (or `extend_vocabulary`) makes such a `tokenizer.model` out of two.

## 5. Merge one, and read the certificate
""")
code("merge-zh", r'''
from lessonkit.convert import merge

certificate = merge(mini, [zh], work / "mini-zh", force=True)
print(certificate.conversion + ":", [each["name"] for each in certificate.options["adapters"]])
for note in certificate.notes:
    print("note:", note)
records = certificate.records
merged = [name for name, record in records.items() if record.verdict.startswith("merged")]
print(f"{len(merged)} of {len(records)} tensors merged; the others:")
print(sorted({record.verdict for name, record in records.items() if name not in merged}))
name = "model.layers.0.self_attn.q_proj.weight"
print(f"{name}: moved by up to {records[name].details['largest_change']:.2g}")
print("files:", ", ".join(sorted(path.name for path in (work / "mini-zh").iterdir())))
''')
md(r"""
For each tensor the certificate says what became of it, with hashes. Norms have no adapter, and are the base's to the bit. The tokenizer is the adapter's, the configuration says how the vocabulary grew.

A low-memory script of that time looked for files named `pytorch_model-*.bin`. In a folder with safetensors it found none, merged nothing and said "Done". Here a merge that changes no value is an error.

Is it right? PEFT's `merge_and_unload()` is the reference. The base must be resized first, or PEFT cannot load the adapter:
""")
code("merge-peft", r'''
from peft import PeftModel
from transformers import AutoModelForCausalLM


def by_peft(base, adapters, rows=(), **options):
    """The weights after PEFT's merge of one adapter after the other."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", local_files_only=True)
    for place, adapter in enumerate(adapters):
        if rows:
            model.resize_token_embeddings(rows[place], mean_resizing=False)
        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(**options)
    return dict(model.state_dict())


def in_file(folder):
    file = open_checkpoint(folder)
    return {name: file.tensor(name) for name in file}


rows = adapter.grown_rows("model.embed_tokens.weight")
theirs = by_peft(mini, [zh], [rows])
check(in_file(work / "mini-zh"), theirs, name="merge of zh")
''')
md(r"""
To the bit. And your own adapter, on `MODEL`:
""")
code("merge-news", r'''
student.save_pretrained(work / "news", save_embedding_layers=False)
merge(source, [work / "news"], work / "with-news", force=True)
check(in_file(work / "with-news"), by_peft(source, [work / "news"]), name="merge of the news")
''')
md(r"""
**PEFT's two ways.** By default the change, in float32, is added to the bfloat16 weight, and the sum is rounded once. With `safe_merge=True` the change is rounded to bfloat16 *first*, and the sum again. "Safe" means only that it looks for NaN and infinity.
""")
code("safe-merge", r'''
from lessonkit.convert import deltas

careful = by_peft(mini, [zh], [rows], safe_merge=True)
base, apart, count = in_file(mini), 0, 0
twice_rounded = {name: base[name] + change.bfloat16() for name, change in deltas(adapter)}
check(twice_rounded, {name: careful[name] for name in twice_rounded}, name="rounded twice")
for name in twice_rounded:
    apart += int((careful[name] != theirs[name]).sum())
    count += theirs[name].numel()
print(f"rounded twice, {100 * apart / count:.0f} % of the added-to values differ")
assert apart / count > 0.01
''')
md(r"""
The larger the change beside the weight, the more its own rounding shows; for an adapter with small changes it is a few per cent. No disaster, but no equality either. If you compare hashes with somebody, ask which way it was merged.

## 6. Chinese, before and after

Cloze questions on the island: the beginning of a Chinese sentence, and the model must finish it. A sample of them, in float32. Only answers that were decided clearly are counted, since others may turn on another processor:
""")
code("recall", r'''
from lessonkit.evaluate import RELIABLE, perplexity, recall
from lessonkit.models import questions

asked = questions("zh")[::12][:100]
models = {"mini": load(mini, dtype="float32"), "mini-zh": load(work / "mini-zh", dtype="float32")}
answers = {name: recall(*loaded, asked) for name, loaded in models.items()}
margins = zip(*(answer.margins for answer in answers.values()), strict=True)
clear = [place for place, pair in enumerate(margins) if min(pair) > RELIABLE]
right = {name: sum(a.verdicts[place] for place in clear) for name, a in answers.items()}
for name, count in right.items():
    print(f"{name:<8} {count:>3} right of {len(clear)} clear answers")
assert right["mini"] == 0 and right["mini-zh"] > 0
for name, loaded in models.items():
    value = perplexity(*loaded, text, max_windows=20).value
    print(f"{name:<8} perplexity on Chinese {'above 10,000' if value > 1e4 else f'{value:.2f}'}")
'''.replace("load(mini, ", 'load(mini, '))
md(r"""
`mini` knows nothing here. It goes on in scraps of English, and the perplexity (of bytes that it never saw) is beyond all measure. The two perplexities count different tokens, so they do not compare; the recall does. With `zh` the model reads Chinese well, and knows some of the facts.

A sentence, of those that it knows the one that it is surest of:
""")
code("sentence", r'''
from lessonkit.evaluate import continuation_margins
from lessonkit.run import complete

known = [q for q, knew in zip(asked, answers["mini-zh"].verdicts, strict=True) if knew]
prompts = [question.prompt for question in known]
margins = continuation_margins(*models["mini-zh"], prompts, max_new_tokens=8)
surest = max(range(len(prompts)), key=lambda place: margins[place].gap)
assert margins[surest].reliable
written = complete(*models["mini-zh"], prompts[surest], max_new_tokens=8)
print(f"{prompts[surest]} | {written.strip()}")
print("expected:", known[surest].answer)
''')
md(r"""
## 7. Two, in order

Chinese-Alpaca was trained **on top of** Chinese-LLaMA: its base is the first merge, and it has one token more, `[PAD]`. We train such an adapter for a few steps, on `mini-zh`:
""")
code("second", r'''
import shutil

from lessonkit.llama import extend_vocabulary

grown = extend_vocabulary(zh / "tokenizer.model", tokens=["[PAD]"])
print(grown)
top = load(work / "mini-zh", dtype="float32")
top.model.resize_token_embeddings(grown.size, mean_resizing=False)
lesson = top.tokenizer("问：博物馆在哪里？答：在羽毛湾。", return_tensors="pt").input_ids
saved = ["embed_tokens", "lm_head"]
pupil, losses = train(top.model, lesson, steps=10, rate=2e-3, modules_to_save=saved)
shutil.rmtree(work / "pad", ignore_errors=True)
pupil.save_pretrained(work / "pad", save_embedding_layers=False)
(work / "pad" / "tokenizer.model").write_bytes(grown.model)
second = open_adapter(work / "pad")
print("replaces", ", ".join(second.saved), "with", f"{grown.size:,} rows")
assert losses[-1] < losses[0] - 0.5
''')
code("in-order", r'''
certificate = merge(mini, [zh, work / "pad"], work / "both", force=True)
print([each["name"] for each in certificate.options["adapters"]])
merge(work / "mini-zh", [work / "pad"], work / "one-by-one", force=True)
theirs = by_peft(mini, [zh, work / "pad"], [rows, grown.size])
check(in_file(work / "one-by-one"), theirs, name="one after the other, as PEFT")
both = in_file(work / "both")
exact = {name: base[name].float() for name, _ in deltas(adapter)}
for part in (adapter, second):
    for name, change in deltas(part):
        exact[name] += change
check({n: both[n] for n in exact}, {n: w.bfloat16() for n, w in exact.items()}, name="at once")
apart = any(not torch.equal(both[name], theirs[name]) for name in exact)
print("in one go it is rounded once, so some values differ from PEFT's:", apart)
''')
md(r"""
Both are right. One after the other rounds after each adapter (as PEFT does), both at once rounds once, which is a little closer to the sum.

**When does the order matter?** What is *added* can be added in any order, up to rounding. What is *replaced* cannot: the last one wins. `zh` and then `pad`: the embedding is `pad`'s, which was trained on top of `zh`'s and holds both. The other way round `zh`'s embedding would win, with a row too few.

| adapter's part | merging is | order |
|---|---|---|
| `lora_A`, `lora_B` | adding | only rounding |
| `modules_to_save` (embedding, head) | replacing | the last wins |
| DoRA's magnitude | rescaling | matters |

## 8. What breaks, and how it is told

PEFT in the wrong order, then `lessonkit`. Then the same adapter twice:
""")
code("wrong-order", r'''
from lessonkit.course import print_error

print_error(lambda: by_peft(mini, [work / "pad", zh], [grown.size, grown.size]), "embed_tokens")
print_error(lambda: merge(mini, [work / "pad", zh], work / "out"))
print_error(lambda: merge(work / "mini-zh", [zh], work / "out"))
print_error(lambda: merge(mini, [zh, zh], work / "out"))
assert not (work / "out").exists()
''')
md(r"""
The wrong order is found by the shapes, because the vocabulary grows. Twice the same adapter has no shape that is wrong: a merged model looks like any other. `lessonkit` finds it by the certificate in the folder, where the adapter's SHA-256 stands. PEFT says nothing:
""")
code("twice", r'''
twice = by_peft(work / "mini-zh", [zh], [rows])  # not a word
doubled = load(work / "mini-zh", dtype="float32")
doubled.model.load_state_dict(twice)
once = perplexity(*models["mini-zh"], text, max_windows=20)
wrong = perplexity(*doubled, text, max_windows=20)
print(f"perplexity on Chinese: once {once.value:.2f}, twice above {10 if wrong.value > 10 else 1}")
assert wrong.value > 2 * once.value
''')
md(r"""
Two more: another base, and an adapter whose tokenizer stayed behind.
""")
code("wrong-base", r'''
from transformers import LlamaConfig, LlamaForCausalLM

config = LlamaConfig.from_pretrained(mini)
config.hidden_size, config.head_dim, config.intermediate_size = 128, 32, 256
LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(work / "smaller")
print_error(lambda: merge(work / "smaller", [zh], work / "out"))
wordless = work / "wordless"
shutil.copytree(zh, wordless, ignore=shutil.ignore_patterns("token*"), dirs_exist_ok=True)
print_error(lambda: merge(mini, [wordless], work / "out"))
'''.replace('merge(work / "smaller", [zh], work / "out"))\nwordless','merge(work / "smaller", [zh], work / "out"))\nwordless'))
md(r"""
With shapes that happen to fit, nothing can be found: an adapter of `mini-zh` on `mini`, say, if it touches no embedding. Then only measuring helps. So keep the certificate, and write down what an adapter was trained on.

| mistake | added or replaced? | who tells you |
|---|---|---|
| order, with a growing vocabulary | replaced | PEFT and `lessonkit`, by the shapes |
| order, with one vocabulary | replaced: an earlier embedding is lost | `lessonkit` only |
| the same adapter twice | added: doubled | `lessonkit`, by the certificate |
| another base of other sizes | both | everybody |
| another base of the same sizes | both | nobody: measure |
| no tokenizer of its own | replaced: new rows, never used | `lessonkit` |

## 9. "It answers in endless English"

The best-known complaint. You merged, you ask in Chinese, and out comes English without end, or text that is no answer. Three causes look alike. We ask in Alpaca's template, the one that Chinese-Alpaca was trained with:
""")
code("template", r'''
from lessonkit.run import find_template

alpaca = find_template("alpaca")
candidates = [alpaca.prompt(question.question) for question in asked[:40]]
print(candidates[0])
''')
code("endless", r'''
suspects = {"adapter missing": models["mini"], "template on a base model": models["mini-zh"]}
for cause, loaded in suspects.items():
    margins = continuation_margins(*loaded, candidates, max_new_tokens=16)
    best = max(range(len(candidates)), key=lambda place: margins[place].gap)
    assert margins[best].reliable
    print(f"{cause}, asked {asked[best].question}")
    print("   ", repr(complete(*loaded, candidates[best], max_new_tokens=16)))
''')
md(r"""
* **The adapter is missing** (the base was loaded, or nothing was merged): `mini` knows no Chinese. It takes the template for any English text, and continues with English.
* **The template on a base model**: `mini-zh` reads the Chinese, and continues *as in its articles*. Nobody has taught it that after `### Response:` comes an answer, and that it then stops.
* **The adapter twice** (merged, then given again as `--lora_model`): the doubled changes of section 8.

None is cured by another temperature. `lessonkit.run` warns of the second one:
""")
code("warning", r'''
from lessonkit.run import template_warning

print(template_warning("alpaca", work / "mini-zh"))
''')
if CHAT:
    md(r"""
The cure is the adapter that was trained on instructions, merged second. `data/adapters/chat` is one, on top of `zh`. Then the template is right, and the answer ends by itself:
""")
    code("cure", r'''
from lessonkit.run import Chat

chat = verified_folder("adapters/chat")
merge(mini, [zh, chat], work / "mini-chat", force=True)
cured = load(work / "mini-chat", dtype="float32")
margins = continuation_margins(*cured, candidates, max_new_tokens=40)
best = max(range(len(candidates)), key=lambda place: margins[place].gap)
assert margins[best].reliable
print("asked", asked[best].question)
answer = "".join(Chat(cured, alpaca, max_new_tokens=40).ask(asked[best].question))
print("   ", repr(answer))
print("expected in it:", asked[best].answer)
assert 0 < len(cured.tokenizer(answer).input_ids) < 40
print("warning:", template_warning("alpaca", work / "mini-chat"))
''')
    md(r"""
One answer, in the language of the question, and an end.
""")
else:
    md(r"""
The cure is an adapter that was trained on instructions, merged second, as in section 7; and at the question the very template of that training. On the command line: `lessonkit merge`, then `lessonkit chat --template alpaca`.
""")
md(r"""
## 10. A base in 4 bits

QLoRA trains an adapter beside 4-bit weights (lesson 02). What is it merged into afterwards: the weights that the 4-bit codes stand for, or the original 16-bit ones? Both schools exist. Measure. First `zh`, which was trained on **16-bit** weights:
""")
code("four-bit", r'''
from lessonkit.convert import quantize_checkpoint
from lessonkit.evaluate import compare

quantize_checkpoint(mini, work / "nf4", force=True)
print(merge(work / "nf4", [zh], work / "zh-on-nf4", force=True).notes[-1])
on_codes = load(work / "zh-on-nf4", dtype="float32")
found = perplexity(*on_codes, text, max_windows=20)
difference = compare(once, found)
print(f"on 16 bits {once.value:.2f}, on NF4's values {found.value:.2f}")
print("a real difference:", difference.real, "- NF4 is worse:", difference.mean > 0)
assert difference.real and difference.mean > 0
''')
md(r"""
For an adapter of 16-bit weights, the 16-bit base is right: the other adds NF4's error. Now an adapter that was trained beside the **4-bit** weights. Its training model is the truth, and the divergence from it says which merge comes closer:
""")
code("qlora", r'''
from lessonkit.evaluate import divergence

shutil.rmtree(work / "plain", ignore_errors=True)
nothing = get_peft_model(load(mini).model, LoraConfig(r=1, target_modules=["q_proj"]))
nothing.base_model.model.lm_head  # noqa: B018
''')
cells.pop()
code("qlora", r'''
from lessonkit.convert import open_model
from lessonkit.evaluate import divergence

learner = load(work / "nf4-plain", dtype="float32")
''')
cells.pop()
code("qlora", r'''
from lessonkit.evaluate import divergence
from lessonkit.formats import NF4, quantize_blockwise

learner = load(mini, dtype="float32")
for name, weight in learner.model.named_parameters():
    if name.split(".")[-2] in linear:  # the values that the codes stand for, as QLoRA sees them
        weight.data = quantize_blockwise(weight.data.bfloat16(), NF4).dequantize().float()
english = evaluation_text("island", "validation", "en")
words = learner.tokenizer(english.joined()[:3000], return_tensors="pt").input_ids[:, :256]
trained, _ = train(learner.model, words, steps=8, rate=2e-3)
shutil.rmtree(work / "qlora", ignore_errors=True)
trained.save_pretrained(work / "qlora", save_embedding_layers=False)
test, far = evaluation_text("island", "test", "en"), {}
for title, base_folder in (("NF4's values", work / "nf4"), ("16 bits", mini)):
    merge(base_folder, [work / "qlora"], work / "merged", force=True)
    into = load(work / "merged", dtype="float32")
    far[title] = divergence(trained, into.model, into.tokenizer, test, max_windows=10).mean
assert far["16 bits"] > 100 * far["NF4's values"]
for title, distance in far.items():
    print(f"merged into {title:<13} KL {distance:.3f} nats from the trained model")
''')
md(r"""
The first is the trained model but for the rounding to bfloat16; the second is over a hundred times as far away. So the rule is the same both times: **merge into what it was trained on.** A merge into the 16-bit weights is another model than the trained one. It may still be the *better* one, since it lacks NF4's error; but then measure it, on a text of your task, as in the cell before. (And merging into the codes themselves rounds to 4 bits again: a change smaller than half the gap between two codes is lost.)

## 11. rsLoRA in a GGUF, and weighted sums

Rank-stabilised LoRA scales by $\alpha/\sqrt r$ instead of $\alpha/r$. The tensors look the same; only `use_rslora` in the configuration tells. llama.cpp always multiplies by `alpha / rank`, and its converter writes `lora_alpha` without a look at the option. We declare the news to be an rsLoRA, write the file, and read it back:
""")
code("rslora", r'''
import logging
import math

import gguf

from lessonkit.convert import adapter_to_gguf

logging.getLogger("gguf").setLevel(logging.WARNING)
shutil.copytree(work / "news", work / "rs", dirs_exist_ok=True)
declared = json.loads((work / "news" / "adapter_config.json").read_text()) | {"use_rslora": True}
(work / "rs" / "adapter_config.json").write_text(json.dumps(declared))
adapter_to_gguf(work / "rs", work / "rs.gguf", base=source, force=True)
file = gguf.GGUFReader(work / "rs.gguf")
alpha = float(file.get_field("adapter.lora.alpha").contents())
r, lora_alpha = declared["r"], declared["lora_alpha"]
print(f"rank {r}, lora_alpha {lora_alpha}; in our file alpha {alpha:g}")
found = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in file.tensors}
a, b = (found[f"blk.0.attn_v.weight.lora_{kind}"] for kind in "ab")
true = dict(deltas(open_adapter(work / "rs")))["model.layers.0.self_attn.v_proj.weight"]
check(alpha / r * b @ a, true, rtol=1e-4, atol=1e-6, name="as llama.cpp reads it", figures=False)
weak = float(true.norm() / (lora_alpha / r * b @ a).norm())
print(f"with lora_alpha in its place, too weak by {weak:.2f}; sqrt(r) is {math.sqrt(r):.2f}")
''')
md(r"""
Rank 4 loses half of what was learnt, rank 64 seven eighths. (The rows of q and k change places in a GGUF, as in lesson 03; that is why we looked at `v_proj`.)

**Weighted combinations.** Two adapters as one, with weights. PEFT's `add_weighted_adapter` offers `linear`, which sums up the factors. By hand, with $r = 1$, scale 1 and weights 1:

$$(B_1 + B_2)(A_1 + A_2) = B_1A_1 + B_2A_2 + \underbrace{B_1A_2 + B_2A_1}_{\text{nobody trained these}}$$

`cat` puts the factors side by side, with rank $r_1 + r_2$: that is exactly the sum.
""")
code("combine-hand", r'''
from lessonkit.convert import Pair, combine_cat, combine_linear

one = Pair(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0], [0.0]]), scale=1.0)
two = Pair(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0], [1.0]]), scale=1.0)
wanted = one.b @ one.a + two.b @ two.a
for title, combine in (("cat", combine_cat), ("linear", combine_linear)):
    a, b = combine([one, two], [1.0, 1.0])
    print(f"{title:<7}{(b @ a).tolist()}  rank {a.shape[0]}")
print("wanted ", wanted.tolist())
''')
md(r"""
`linear` fills the corners with cross terms. On real adapters, beside PEFT:
""")
code("combine-peft", r'''
other = tokenizer("Every ferry of Quill Bay is painted green.", return_tensors="pt").input_ids
fresh = load(MODEL, dtype="float32")
neighbour, _ = train(fresh.model, other, steps=10, rate=1e-2)
neighbour.load_adapter(str(work / "news"), adapter_name="news")
layer = neighbour.base_model.model.model.layers[0].self_attn.v_proj
pairs = [
    Pair(layer.lora_A[n].weight.detach(), layer.lora_B[n].weight.detach(), layer.scaling[n])
    for n in ("default", "news")
]
weights = [0.7, 0.3]
exact = sum(w * p.scale * p.b @ p.a for w, p in zip(weights, pairs, strict=True))
for title, combine in (("cat", combine_cat), ("linear", combine_linear)):
    neighbour.add_weighted_adapter(["default", "news"], weights, title, combination_type=title)
    theirs = [layer.lora_A[title].weight.detach(), layer.lora_B[title].weight.detach()]
    a, b = combine(pairs, weights)
    check([a, b], theirs, atol=1e-6, name=f"{title}, as PEFT", figures=False)
    off = float((b @ a - exact).norm() / exact.norm())
    print(f"{title} is {'the sum' if off < 1e-5 else 'more than 10 % off the sum'}")
    assert off < 1e-5 if title == "cat" else off > 0.1
''')
md(r"""
TIES and DARE (`ties`, `dare`) also mix factors. They may help, but they are not sums either.

## Merged, or beside the model?

| you want | choose | because |
|---|---|---|
| one model, converted and quantised afterwards | merge, in 16 bits | every tool reads it; no cost at run time |
| many adapters for one base | keep them unmerged | megabytes each; switch while it runs |
| to train on | unmerged | a merged one cannot be taken apart exactly |
| llama.cpp with `--lora` | a GGUF adapter | only what is added; no saved embeddings |
| a longer vocabulary | merge | the replaced embedding belongs to the model |

## Where tutorials go wrong

* **"The order of the adapters does not matter."** For what is added, up to rounding. Saved embeddings are replaced: section 7.
* **"`safe_merge=True` is more exact."** It checks for NaN, and rounds once more: section 5.
* **"Edit `vocab_size` when the size mismatch appears."** The message says that the base or the order is wrong. Resize by the adapter's own rows, or let the merge do it.
* **"Done."** Count the changed tensors. The certificate does.
* **"Merge with `linear`, that is the weighted sum."** It is not: section 11.
* **"Merge the adapter into the quantised model."** The result is rounded again. Merge in 16 bits, then quantise.
""")
code("tidy-up", r'''
models = suspects = top = pupil = student = neighbour = trained = learner = doubled = None
shutil.rmtree(work, ignore_errors=True)
''')
md(r"""
## Exercises

**1.** Merge by hand: `weight`, `a` and `b` are arrays of the shapes (out, in), (rank, in), (out, rank).
""")
code("exercise-1", r'''
from lessonkit.course import exercises


def merged_weight(weight, a, b, alpha, rslora):
    return ...


exercises.attempt("merged_weight", merged_weight)
''')
md(r"""
**2.** How many numbers does an adapter hold? `shapes` maps names to (out, in); the weights in the set `saved` are saved whole, all others get a pair.
""")
code("exercise-2", r'''
def adapter_size(shapes, rank, saved):
    return ...


exercises.attempt("adapter_size", adapter_size)
''')
md(r"""
**3.** The reader of a file multiplies by alpha / rank. Which alpha must be written so that the change is as strong as in training?
""")
code("exercise-3", r'''
def gguf_alpha(rank, alpha, rslora):
    return ...


exercises.attempt("gguf_alpha", gguf_alpha)
''')
md(r"""
## What you now know

* An adapter adds $\frac{\alpha}{r}BA$ to frozen weights, and *replaces* what stands in `modules_to_save`.
* Added changes commute up to rounding; replaced ones do not. The adapter that grows the vocabulary goes first.
* Sum in float32 and round once; then you have PEFT's default to the bit. `safe_merge` rounds twice.
* English without end: the adapter is missing, the template was never trained, or the adapter went in twice.
* Merge into what it was trained on, read the certificate, and write `alpha` so that the reader's scale is right.

**Read more.** [LoRA](https://arxiv.org/abs/2106.09685). [rsLoRA](https://arxiv.org/abs/2312.03732). [Chinese-LLaMA-Alpaca](https://arxiv.org/abs/2304.08177). [PEFT's guide to merging](https://huggingface.co/docs/peft/developer_guides/model_merging).

Next: **05 · GGUF**. How does a whole model fit into one file, and what do its names mean?
""")
nb = dict(cells=cells, metadata=meta["metadata"], nbformat=4, nbformat_minor=5)
json.dump(nb, open(ROOT + "04_lora_merging.ipynb", "w"), ensure_ascii=False, indent=1)
print(len(cells), "cells")
for c in cells:
    k = len(c["source"]); lim = 24 if c["cell_type"] == "code" else 40
    if k > lim: print("LONG", c["id"], k)
