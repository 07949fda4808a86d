# One command opens the course, `make lab`; one runs all that a change must pass, `make test`.
# Every target first sets up what it needs: `make help` lists them.

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
GPTQ_TRIED := $(VENV)/.gptq-tried
# An environment of its own for the last transformers that has a converter for Meta's files, and for
# AutoGPTQ.
CONVERTER := .interop/transformers-4.47.1
# llama.cpp's quantiser, built from the source package that the script names.
GGML := .interop/ggml
# llama.cpp itself and some of its programs, from the same package.
LLAMA_CPP := .interop/llama-cpp
# lm-eval, beside the course's own torch and transformers.
LM_EVAL := .interop/lm-eval-0.4.13
CODE := lessonkit tools tests benchmarks data/build notebooks conftest.py

# Which Python makes the environment; found below unless given: make lab PYTHON=python3.12
PYTHON ?=
# Which build of torch. Empty: the one that pip chooses (with CUDA, several GB, on Linux).
# make lab TORCH=cpu: a build without CUDA; also cu128 and so on.
TORCH ?=
# More options for JupyterLab: make lab LAB_OPTIONS=--no-browser
LAB_OPTIONS ?=
# How many tests run at once.
WORKERS ?= 2
# For make portable: which stand-ins for other machines; all of them unless given.
SETTINGS ?=
# For make colab and make real: which lessons; all of them unless given.
# make real MODEL=tinyllama LESSONS=notebooks/05_gguf.ipynb
LESSONS ?=
# For make real: a folder or a Hub id. WIKITEXT=FOLDER has wiki.test.raw, wiki.valid.raw and
# wiki.train.raw; without it they come from the Hub, too.
MODEL ?= TinyLlama/TinyLlama-1.1B-Chat-v1.0
WIKITEXT ?=
# For make colab: Colab's list of packages, an address or a file.
FREEZE ?= https://raw.githubusercontent.com/googlecolab/backend-info/main/pip-freeze.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help lab set-up gptq test another portable interop oldest newest colab real soak lint format notebooks texts model adapters card card-check wheel lock clean

help:
	@echo 'make lab        open the course in JupyterLab (the first time: set up, some minutes)'
	@echo 'make test       everything a change must pass: lint, unit tests, every notebook'
	@echo 'make another    every cell of every lesson, twice in a row, on another Llama'
	@echo 'make portable   every notebook again, as other processors and thread counts would run it'
	@echo 'make interop    compare with GPTQModel, and with AutoGPTQ, transformers 4.47.1, llama.cpp, lm-eval in environments of their own'
	@echo 'make oldest     the tests with the lowest versions that pyproject.toml allows (needs the network)'
	@echo 'make newest     the tests with the latest versions that exist (needs the network)'
	@echo 'make colab      every lesson beside the versions that Colab publishes (needs the network)'
	@echo 'make real       every lesson on MODEL=FOLDER, or on TinyLlama from the Hub; minutes and memory'
	@echo 'make soak       hours of harm: commands killed at every call, readers given damaged files'
	@echo 'make lint       code and notebooks: style, types, canonical form'
	@echo 'make format     mend what lint can mend by itself'
	@echo 'make notebooks  run the notebooks again and keep their new outputs'
	@echo 'make texts      write the embedded texts again from their seed'
	@echo 'make model      train the embedded model again (half an hour on two cores; resumable)'
	@echo 'make adapters   train its two adapters again (an hour on two cores; resumable)'
	@echo 'make card       measure model and adapters and write their cards and hashes'
	@echo 'make card-check measure again; fail where a figure of the card differs'
	@echo 'make wheel      build dist/lessonkit-*.whl, with the embedded model and texts inside'
	@echo 'make gptq       try again to install gptqmodel, which needs a C++ compiler'
	@echo 'make set-up     only make the environment, .venv'
	@echo 'make lock       choose versions again for requirements.lock (needs the network)'
	@echo 'make clean      remove the environment and everything built'
	@echo 'variables:      TORCH=cpu (a torch without CUDA)  PYTHON=python3.12  WORKERS=2  LAB_OPTIONS='

# The root is named, or JupyterLab would show the folder of that notebook and nothing above it:
# neither the reader's own copies in my/ nor docs/.
lab: set-up
	$(VENV)/bin/jupyter lab --ip=127.0.0.1 --ServerApp.root_dir=. $(LAB_OPTIONS) notebooks/00_start_here.ipynb

test: lint
	$(PY) -m pytest -n $(WORKERS) --dist loadfile --durations=15 \
	    --ignore=tests/interop --ignore=tests/another_llama

# What holds for any Llama and any run, on one smaller than mini that counts as large.
another: set-up
	$(PY) -m pytest -n $(WORKERS) tests/another_llama

# The variable turns "not compared" into a failure.
# make portable SETTINGS=avx2: one of those in lessonkit/testing/portable.py.
portable: set-up
	$(PY) -m lessonkit.testing portable --workers $(WORKERS) $(SETTINGS:%=--setting %) notebooks

interop: set-up $(CONVERTER)/.ready $(GGML)/.ready $(LLAMA_CPP)/.ready $(LM_EVAL)/.ready
	LESSONKIT_INTEROP=required $(PY) -m pytest -n $(WORKERS) --dist loadfile tests/interop --durations=5

# Each in an environment of its own. That outputs are equal to the digit is promised for
# requirements.lock only, so notebooks run here without comparison; gptqmodel, which wants versions
# of its own, is left out.
oldest newest: export LESSONKIT_REQUIRE_ENGINES = 0
oldest newest: | $(PY)
	$(PY) -m pip install --disable-pip-version-check uv
	$(PY) -m venv --clear .interop/$@
	$(PY) -m uv pip install --python .interop/$@/bin/python --no-config $(TORCH:%=--torch-backend=%) \
	    --upgrade --resolution $(if $(filter oldest,$@),lowest-direct,highest) --editable '.[lab,engines,test]'
	.interop/$@/bin/python -m pytest -n $(WORKERS) --dist loadfile --durations=15 tests --ignore=tests/interop \
	    --deselect tests/test_house.py::test_the_installed_versions_are_those_of_the_lock
	.interop/$@/bin/python -m pytest -n $(WORKERS) --dist loadfile --nbval-lax notebooks

# Needs uv's or the system's own Python 3.13, which Colab has.
colab: | $(PY)
	$(PY) -m pip install --disable-pip-version-check build uv
	$(PY) -m tools.colab $(FREEZE) .interop/colab $(TORCH:%=--torch-backend=%) $(LESSONS)

# Outputs differ from mini's, so they are not compared: every cell must run, and every assertion hold.
real: set-up
	LESSONKIT_MODEL=$(or $(realpath $(MODEL)),$(MODEL)) LESSONKIT_WIKITEXT=$(abspath $(WIKITEXT)) \
	    $(PY) -m lessonkit.testing measure $(or $(LESSONS),$(sort $(wildcard notebooks/*.ipynb)))

# What `make test` does in a sample of seconds, at length: see tests/faults and tests/hostile.
soak: set-up
	LESSONKIT_SOAK=1 $(PY) -m pytest -n $(WORKERS) --dist loadgroup --durations=15 tests/faults tests/hostile

lint: set-up
	$(PY) -m ruff check $(wildcard $(CODE))
	$(PY) -m ruff format --check $(wildcard $(CODE))
	$(PY) -m mypy
	$(PY) -m lessonkit.testing lint notebooks
	@if PATH="$(VENV)/bin:$$PATH" command -v actionlint >/dev/null; \
	then PATH="$(VENV)/bin:$$PATH" actionlint .github/workflows/*.yml; \
	else echo 'actionlint is not installed: the workflows were not checked'; fi

format: set-up
	$(PY) -m ruff check --fix $(wildcard $(CODE))
	$(PY) -m ruff format $(wildcard $(CODE))
	$(PY) -m lessonkit.testing lint --fix notebooks

notebooks: set-up
	$(PY) -m lessonkit.testing refresh notebooks
	$(PY) -m tools.lessons

texts: set-up
	$(PY) data/build/texts.py

model: set-up
	$(PY) data/build/train.py

adapters: set-up
	$(PY) data/build/adapters.py zh
	$(PY) data/build/adapters.py chat

card: set-up
	$(PY) data/build/card.py

card-check: set-up
	$(PY) data/build/card.py --check

wheel: set-up
	$(PY) -m build --no-isolation

# --- the environment ------------------------------------------------------------------------

set-up: $(READY) $(GPTQ_TRIED)

# Prints the first suitable Python: $(PYTHON) where given, else python3, else a newer or older one.
define FIND_PYTHON
for name in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
    if "$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
    then echo "$$name"; break; fi; \
done
endef

$(PY):
	@python="$$($(FIND_PYTHON))"; \
	if [ -z "$$python" ]; then \
	    echo '$(or $(PYTHON),Here) is no Python 3.11, 3.12 or 3.13.' >&2; \
	    echo 'Install one, or name one: make lab PYTHON=/path/to/python3.12' >&2; exit 1; fi; \
	echo "making $(VENV) with $$python"; \
	"$$python" -m venv $(VENV) || { rm -rf $(VENV); \
	    echo 'On Debian or Ubuntu, install the package python3-venv, then run this again.' >&2; exit 1; }

# Made again whenever the lock or pyproject.toml is newer: then pip changes only what differs.
# The last line makes matplotlib list the fonts now, not in the first lesson.
$(READY): requirements.lock pyproject.toml | $(PY)
ifneq ($(TORCH),)
	$(PY) -m pip install --disable-pip-version-check uv
	$(PY) -m uv pip install --python $(PY) --torch-backend=$(TORCH) "$$(grep '^torch==' requirements.lock)"
endif
	$(PY) -m pip install --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(PY) -c 'import matplotlib.font_manager'
	@touch $@

# Made again whenever what it asks for is newer. The same torch as above, so that pip's cache has it.
$(CONVERTER)/.ready: tests/interop/requirements.txt tests/interop/requirements-auto-gptq.txt | $(PY)
	$(PY) -m venv $(CONVERTER)
ifneq ($(TORCH),)
	$(CONVERTER)/bin/python -m pip install --disable-pip-version-check uv
	$(CONVERTER)/bin/python -m uv pip install --python $(CONVERTER)/bin/python --torch-backend=$(TORCH) \
	    "$$(grep '^torch==' $<)"
endif
	$(CONVERTER)/bin/python -m pip install --disable-pip-version-check -r $<
	BUILD_CUDA_EXT=0 $(CONVERTER)/bin/python -m pip install --disable-pip-version-check --no-deps \
	    --no-build-isolation -r tests/interop/requirements-auto-gptq.txt
	@touch $@

$(GGML)/.ready: tests/interop/ggml_library.py | $(PY)
	$(PY) tests/interop/ggml_library.py $(GGML)
	@touch $@

$(LLAMA_CPP)/.ready: tests/interop/llama_cpp_library.py $(GGML)/.ready
	$(PY) tests/interop/llama_cpp_library.py
	@touch $@

# A virtual environment does not see the packages of another one, unless a .pth file names them.
$(LM_EVAL)/.ready: tests/interop/requirements-lm-eval.txt $(READY)
	$(PY) -m venv --clear $(LM_EVAL)
	$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    > "$$($(LM_EVAL)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/course.pth"
	$(LM_EVAL)/bin/python -m pip install --disable-pip-version-check --no-deps -r $<
	@touch $@

# Tried once for each lock, so that nothing is fetched later; `make gptq` tries again.
$(GPTQ_TRIED): requirements-gptq.lock $(READY)
	@if command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null; then \
	    $(PY) -m pip install --disable-pip-version-check --no-deps -r requirements-gptq.lock || \
	    echo 'gptqmodel could not be installed: lessons 06 and 07 show "not compared" in its place. Try again: make gptq'; \
	else \
	    echo 'no C++ compiler, so no gptqmodel: lessons 06 and 07 show "not compared" in its place'; fi
	@touch $@

gptq: $(READY)
	@rm -f $(GPTQ_TRIED)
	@$(MAKE) --no-print-directory $(GPTQ_TRIED)

# CUDA packages are left out: torch names them itself. The rest of sed shortens uv's conditions.
lock: set-up
	$(PY) -m pip install --disable-pip-version-check uv
	$(PY) -m uv pip compile pyproject.toml --extra lab --extra engines --extra test --universal --fork-strategy fewest \
	    --python-version 3.11 --upgrade --no-header --no-annotate --output-file $(VENV)/all.lock
	grep '^#' requirements.lock > $(VENV)/new.lock
	grep -vE "^(nvidia-|cuda-|triton)|== 'emscripten'" $(VENV)/all.lock | sed -E \
	    -e "s/python_full_version < '3.14' and //; s/ and python_full_version < '3.14'//" \
	    -e "s/ ; python_full_version < '3.14'//" >> $(VENV)/new.lock
	mv $(VENV)/new.lock requirements.lock

clean:
	rm -rf $(VENV) .interop dist build .pytest_cache .mypy_cache .ruff_cache
	find lessonkit tools tests benchmarks data -name __pycache__ -prune -exec rm -rf {} +
