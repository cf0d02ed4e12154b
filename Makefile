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
FORCE ?=
DIFF ?=
LIE ?=
BROWSER ?=
BY ?= bento
PROJECT ?=
REGION ?=
REPOSITORY ?=
PUBLIC ?=
DRY_RUN ?=
IMAGES ?=
FRESH ?= 1
# PyTorch's own index of CPU-only builds.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

PY := .venv/bin/python
READY := .venv/.ready
RESNET18 := models/resnet18.onnx
# What EX serves.
SERVED := $(if $(filter 15 16,$(EX)),models/model_a.onnx models/model_b.onnx,$(if $(MODEL),,$(RESNET18)))
OPTIMIZED := models/resnet18.optimized.onnx
# The same model as a program for PyTorch, which one of the images of exercise 08 holds.
PROGRAM := models/resnet18.pt2

# Material for MkDocs advertises its successor at every build otherwise.
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help setup export serve client netron check hint progress watch solution reset doctor list benchmark optimize large-model loadtest bento containerize run-container deploy images compare-images docs test grade gradescope grade-benchmark verify-course figures crowd lint format docs-build manifest clean

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
	@echo "           FORCE=1  the solution before your own passes; DIFF=1  what differs from yours"
	@echo "           PYTHON   the Python, 3.11 or newer, that setup builds .venv with"
	@echo "           CPU=1    setup takes PyTorch's CPU-only builds: 5 GB less on Linux"
	@echo "           QUICK=1  a short benchmark; LIE=warmup, autograd or together: a wrong one"
	@echo "           USERS, DURATION, ROUNDS  of the load test: how many ask at a time (32), seconds (10), turns (2)"
	@echo "           SERVICES  what it loads: '10 13:WORKERS=4,THREADS=0'; PAYLOAD  image, json or npy"
	@echo "           BY=hand  the image of dockerfiles/bentoml_service.dockerfile instead of BentoML's"
	@echo "           PROJECT, REGION, REPOSITORY  of Google's cloud, for deploy; PUBLIC=1  open to everybody"
	@echo "           BASE_IMAGE, PIP_INDEX_URL  a mirror's, for images"
	@echo "           IMAGES   only those whose names hold one of these words: 'cpu', 'onnx:cuda'"
	@echo "           FRESH=0  compare-images takes the images that are there, and builds none without cache"
	@echo "           SUBMISSION  a folder of solutions other than solutions/; to grade also an archive"
	@echo "           SUBMISSIONS, JOBS, PRIVATE, OUTPUT  to grade a class: its folder, how many at a time (1),"
	@echo "                       a folder of extra tests, where reports go; TIME=600 (seconds)"
	@echo "           ISOLATION  of graded code: process (the default), docker (in containers), limits or none"
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

hint: $(READY) ## The next hint of an exercise                                   | make hint EX=04
	@$(PY) -m course hint $(EX)

progress: $(READY) ## How far along you are                                       | make progress
	@$(PY) -m course progress

watch: $(READY) $(RESNET18) ## Check each exercise whose file you save, until Ctrl-C | make watch
	@$(PY) -m course watch

solution: $(READY) ## The solution, once yours passes, or FORCE=1; DIFF=1        | make solution EX=04
	@$(PY) -m course solution $(EX) $(if $(FORCE),--force) $(if $(DIFF),--diff)

reset: $(READY) ## The starter back; your own file is kept aside                  | make reset EX=04
	@$(PY) -m course reset $(EX)

# Any Python will do: what is wrong may be .venv, or that there is no newer one.
doctor: ## What is wrong here, and the command that mends it                      | make doctor
	@for python in "$(PYTHON)" python3 $(PY); do \
	  if "$$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 7))' 2>/dev/null; then \
	    exec "$$python" -I course/student/doctor.py --python "$(PYTHON)" --port "$(PORT)"; fi; done; \
	echo "There is no Python 3 here. Install Python 3.11 or newer, then: make doctor"; exit 1

list: $(READY) ## All exercises                                                   | make list
	@$(PY) -m course list

benchmark: $(READY) $(RESNET18) ## PyTorch against ONNX Runtime; QUICK=1 is a minute | make benchmark QUICK=1
	@$(PY) solutions/ex05_benchmark.py $(if $(QUICK),--quick) $(if $(LIE),--lie "$(LIE)")

optimize: $(READY) $(RESNET18) ## Optimise the graph, show what became of it; QUICK=1 | make optimize QUICK=1
	@$(PY) solutions/ex06_optimize.py $(if $(QUICK),--quick)

large-model: $(READY) ## Why big models are two files: one over 2 GB, made now    | make large-model
	@$(PY) -m course.given.large_model

loadtest: $(READY) $(SERVED) ## Services under load, beside the bare cores; EX=13  | make loadtest EX=13
	@$(PY) -m course loadtest --ex "$(EX)" --services "$(SERVICES)" --payload "$(PAYLOAD)" --users "$(USERS)" \
	  --duration "$(DURATION)" --rounds "$(ROUNDS)" --folder "$(or $(SUBMISSION),solutions)"

bento: $(READY) $(SERVED) ## Pack a service with its model: bentoml build            | make bento EX=10
	@$(PY) -m course bento --ex "$(or $(EX),10)" --folder "$(or $(SUBMISSION),solutions)"

containerize: $(READY) $(SERVED) ## Make an image of the bento, or BY=hand              | make containerize EX=10
	@$(PY) -m course containerize --ex "$(or $(EX),10)" --by "$(BY)" --folder "$(or $(SUBMISSION),solutions)"

run-container: $(READY) ## Run that image; stop with Ctrl-C                       | make run-container EX=10
	@$(check_port)
	@$(PY) -m course run-container --ex "$(or $(EX),10)" --by "$(BY)" --port $(PORT)

deploy: $(READY) ## The image BY=hand on Cloud Run; DRY_RUN=1 only says how       | make deploy PROJECT=...
	@$(PY) "$(or $(SUBMISSION),solutions)/ex18_cloud.py" --ex "$(or $(EX),10)" --project "$(PROJECT)" \
	  --region "$(REGION)" --repository "$(REPOSITORY)" $(if $(PUBLIC),--public) $(if $(DRY_RUN),--dry-run)

images: $(READY) $(PROGRAM) ## Build the images of exercise 08; needs Docker      | make images IMAGES=cpu
	@$(PY) -m course images --images "$(IMAGES)" --folder "$(or $(SUBMISSION),.)/dockerfiles"

compare-images: $(READY) $(PROGRAM) ## Images: build time, size, start-up; FRESH=0 | make compare-images IMAGES=cpu
	@$(PY) -m course compare-images --images "$(IMAGES)" $(if $(ROUNDS),--rounds "$(ROUNDS)") $(if $(filter 0,$(FRESH)),--no-fresh)

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

verify-course: $(READY) ## Is the course itself right? Starters earn nothing ...  | make verify-course
	@$(PY) -m pytest verify --numprocesses 3

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
	rm -rf .venv site reports .pytest_cache .ruff_cache *.egg-info models/*.onnx models/*.pt2 models/*.data models/.export-* models/.large-* models/.optimize-* models/benchmark
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

$(PROGRAM): $(RESNET18) | $(READY)
	@$(PY) -m course.given.export_program $(RESNET18) $@

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
