# Every command of the course. GNU Make 3.81 (macOS) is enough.

# The first of these that is Python 3.11 or newer.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
            $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PORT ?= 3000
IMAGE ?= data/cat.png data/coffee.png
EX ?=
MODEL ?=
SUBMISSION ?=
SUBMISSIONS ?=
JOBS ?=
ISOLATION ?=
PRIVATE ?=
OUTPUT ?=
TIME ?=
SIZE ?= 30
HOSTILE ?= 5
CPU ?=
USERS ?=
DURATION ?=
ROUNDS ?=
SERVICES ?=
PAYLOAD ?=
QUICK ?=
LIE ?=
BROWSER ?=
# PyTorch's own index of CPU-only builds.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

PY := .venv/bin/python
READY := .venv/.ready
RESNET18 := models/resnet18.onnx
# What EX serves.
SERVED := $(if $(filter 15 16,$(EX)),models/model_a.onnx models/model_b.onnx,$(if $(MODEL),,$(RESNET18)))
OPTIMIZED := models/resnet18.optimized.onnx

# Material for MkDocs advertises its successor at every build otherwise.
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help setup export serve client netron check list benchmark optimize large-model loadtest docs test grade gradescope grade-benchmark lint format docs-build manifest figures crowd clean

##@ For students

help: ## What you can type; with EX, what an exercise asks for             | make help EX=04
ifeq ($(EX),)
	@awk -F ' *## | *\\| *' '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { split($$1, name, ":"); printf "  %-16s %-62s %s\n", name[1], $$2, $$3 }' Makefile
	@echo
	@echo "Variables: EX       an exercise's number, such as 04"
	@echo "           PORT     where the service listens (3000)"
	@echo "           IMAGE    image files for the client (data/cat.png data/coffee.png)"
	@echo "           MODEL    another of torchvision's classifiers, for export, serve and loadtest (resnet18)"
	@echo "           BROWSER=0  netron only says where to look, and opens no browser"
	@echo "           PYTHON   the Python, 3.11 or newer, that setup builds .venv with"
	@echo "           CPU=1    setup takes PyTorch's CPU-only builds: 5 GB less on Linux"
	@echo "           QUICK=1  a short benchmark; LIE=warmup, autograd or together: a wrong one"
	@echo "           USERS, DURATION, ROUNDS  of the load test: how many ask at a time (32), seconds (10), turns (2)"
	@echo "           SERVICES  what it loads: '10 13:WORKERS=4,THREADS=0'; PAYLOAD  image, json or npy"
	@echo "           SUBMISSION  a folder of solutions other than solutions/; to grade also an archive"
	@echo "           SUBMISSIONS, JOBS, PRIVATE, OUTPUT  to grade a class: its folder, how many at a time (1),"
	@echo "                       a folder of extra tests, where reports go; ISOLATION=none, TIME=600 (seconds)"
	@echo
	@echo "Begin with: make serve, and in a second terminal: make client"
else
	@$(MAKE) -s $(READY)
	@$(PY) -m course show "$(EX)"
endif

setup: $(READY) ## Make .venv and install what the course needs, once             | make setup CPU=1
	@echo "Ready. Next: make serve, and in a second terminal: make client"

export: $(READY) ## Export what the services serve into models/, or one MODEL    | make export MODEL=alexnet
ifeq ($(MODEL),)
	@$(PY) solutions/ex01_export.py
	@$(PY) solutions/ex01_export.py --architecture resnet18 --output models/model_a.onnx
	@$(PY) solutions/ex01_export.py --architecture resnet34 --output models/model_b.onnx
else
	@$(PY) solutions/ex01_export.py --architecture "$(MODEL)"
endif

serve: $(READY) $(SERVED) ## Serve the model; stop with Ctrl-C                     | make serve PORT=3001
	@$(check_port)
	@$(PY) -m course serve --ex "$(or $(EX),10)" --port $(PORT) --folder "$(or $(SUBMISSION),solutions)"

client: $(READY) ## Classify photographs with the running service                | make client IMAGE=data/cat.png
	@$(check_port)
	@$(check_image)
	@$(PY) solutions/ex10_client.py $(IMAGE) --url http://localhost:$(PORT)

netron: $(READY) $(RESNET18) ## Look at the graph; EX=06: and at the optimised one  | make netron BROWSER=0
	@$(check_netron)
	@$(PY) solutions/ex03_visualize.py $(RESNET18) $(if $(filter 6 06,$(EX)),$(OPTIMIZED)) $(if $(filter 0,$(BROWSER)),--no-browser)

check: $(READY) $(RESNET18) ## Check your own work in exercises/, all or one          | make check EX=04
	@$(PY) -m course check $(EX)

list: $(READY) ## All exercises                                                   | make list
	@$(PY) -m course list

benchmark: $(READY) $(RESNET18) ## PyTorch against ONNX Runtime; QUICK=1 is a minute | make benchmark QUICK=1
	@$(PY) solutions/ex05_benchmark.py $(if $(QUICK),--quick) $(if $(LIE),--lie "$(LIE)")

optimize: $(READY) $(RESNET18) ## Optimise the graph, show what became of it; QUICK=1 | make optimize QUICK=1
	@$(PY) solutions/ex06_optimize.py $(if $(QUICK),--quick)

large-model: $(READY) ## Why big models are two files: one over 2 GB, made now    | make large-model
	@$(PY) -m course.large_model

loadtest: $(READY) $(SERVED) ## Services under load, beside the bare cores; EX=13  | make loadtest EX=13
	@$(PY) -m course loadtest --ex "$(EX)" --services "$(SERVICES)" --payload "$(PAYLOAD)" --users "$(USERS)" \
	  --duration "$(DURATION)" --rounds "$(ROUNDS)" --folder "$(or $(SUBMISSION),solutions)"

docs: $(READY) ## Read the course page in a browser                               | make docs
	@$(PY) -m course docs

##@ For instructors

test: $(READY) ## All tests, on solutions/ or on a submission                     | make test SUBMISSION=path/to/folder
	@$(PY) -m pytest --numprocesses 2 --dist loadfile $(if $(SUBMISSION),--submission "$(SUBMISSION)")

grade: $(READY) ## Points and reports, of one submission or a class    | make grade SUBMISSIONS=folder JOBS=2
	@$(PY) -m course grade --submission "$(SUBMISSION)" --submissions "$(SUBMISSIONS)" --ex "$(EX)" --jobs "$(JOBS)" \
	  --isolation "$(ISOLATION)" --private "$(PRIVATE)" --limit "$(TIME)" --output "$(OUTPUT)"

gradescope: $(READY) ## The archive that Gradescope's machines grade with    | make gradescope EX="04 07"
	@$(PY) -m course gradescope --ex "$(EX)" --private "$(PRIVATE)" --isolation "$(ISOLATION)" --jobs "$(JOBS)" --limit "$(TIME)"

grade-benchmark: $(READY) ## What grading costs; a class whose grader is killed  | make grade-benchmark EX="04 07"
	@$(PY) -m course grade-benchmark --ex "$(EX)" --size "$(SIZE)" --hostile "$(HOSTILE)" --jobs "$(or $(JOBS),2)" \
	  --isolation "$(or $(ISOLATION),process)" --limit "$(or $(TIME),600)"

##@ For maintainers

figures: $(READY) $(RESNET18) models/model_a.onnx models/model_b.onnx ## Start-up, memory, agreement, faults | make figures
	@$(PY) -m course figures

crowd: $(READY) $(RESNET18) ## 500 photographs at once, to exercises 09 and 10   | make crowd
	@$(PY) -m course crowd

lint: $(READY) ## Ruff's checks, and its format                                   | make lint
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: $(READY) ## Bring the code into ruff's format                             | make format
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

docs-build: $(READY) ## Build the page into site/; a broken link fails            | make docs-build
	@$(PY) -m mkdocs build --strict --quiet

manifest: $(READY) ## Write README's table and the starters' digests               | make manifest
	@$(PY) -m course manifest

clean: ## Remove everything that is made: .venv, models, site                    | make clean
	rm -rf .venv site reports .pytest_cache .ruff_cache *.egg-info models/*.onnx models/*.data models/.export-* models/.large-* models/.optimize-* models/benchmark
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: an interrupted setup is taken up again where pip left it.
$(READY): requirements.txt requirements-serving.txt
	@$(check_python)
	@echo "Setting up .venv: a few minutes, once."
	@"$(PYTHON)" -m venv .venv
	@if [ -n "$(CPU)" ]; then \
	  $(PY) -m pip install --index-url $(TORCH_INDEX) $$(grep -Eo '^torch(vision)?==[0-9.]+' requirements.txt); fi
	@$(PY) -m pip install -r requirements.txt
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(RESNET18): | $(READY)
	@$(PY) solutions/ex01_export.py

# The two models of exercises 15 and 16.
models/model_a.onnx: | $(READY)
	@$(PY) solutions/ex01_export.py --architecture resnet18 --output $@
models/model_b.onnx: | $(READY)
	@$(PY) solutions/ex01_export.py --architecture resnet34 --output $@

check_python = "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
  { echo "PYTHON=$(PYTHON): Python 3.11 or newer is needed. Install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
check_port = case "$(PORT)" in *[!0-9]*|""|0*) false;; *) [ $(PORT) -le 65535 ];; esac || \
  { echo "PORT=$(PORT): a port is a number from 1 to 65535."; exit 1; }
check_netron = case "$(EX)" in ""|3|03|6|06) ;; *) \
  echo "EX=$(EX): there are graphs to look at for EX=03, the exported model, and EX=06, beside it the optimised one."; exit 1;; esac
check_image = [ -n "$(strip $(IMAGE))" ] || { echo "IMAGE=: name an image file, or several."; exit 1; }; for image in $(IMAGE); do [ -f "$$image" ] || \
  { echo "IMAGE=$(IMAGE): there is no file $$image."; exit 1; }; done
