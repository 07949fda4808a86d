"""What llama.cpp says: run by llama_cpp_library.ask, with llama-cpp-python's bindings.

A request is JSON: `quantise` (source, out, file type), perhaps with `threads`; or `model` (a GGUF
file) with `texts` to tokenise or `ids` to score, and perhaps `adapter` (a GGUF file). The answer is
JSON as well.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

import llama_cpp


def answer(request: dict[str, Any]) -> Any:
    if "quantise" in request:
        source, out, file_type = request["quantise"]
        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.ftype, parameters.nthread = file_type, request.get("threads", 1)
        return llama_cpp.llama_model_quantize(
            source.encode(), out.encode(), ctypes.byref(parameters)
        )
    model = llama_cpp.Llama(
        request["model"], n_ctx=512, n_threads=1, n_threads_batch=1, logits_all=True,
        lora_path=request.get("adapter"), verbose=False,
        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,  # the default is F16
    )  # fmt: skip
    if "texts" in request:
        return [model.tokenize(text.encode(), special=True) for text in request["texts"]]
    model.eval(request["ids"])
    return model.scores[: len(request["ids"])].astype(float).tolist()


if __name__ == "__main__":
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(answer(json.loads(sys.argv[1])), file)
