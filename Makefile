# Every command of the course. GNU Make 3.81 (macOS) is enough.
#
# What you set on the command line, as in `make serve PORT=3001`, is in the environment of the commands:
# `python -m course` reads and checks it there. An empty variable counts as not set.

# The first of these that is Python 3.11 or newer.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
            $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# PyTorch's own index of CPU-only builds.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

PY := .venv/bin/python
COURSE := $(PY) -m course
READY := .venv/.ready
RESNET18 := models/resnet18.onnx
# The same model as a program for PyTorch, for one of the images of exercise 08.
PROGRAM := models/resnet18.pt2

# Material for MkDocs otherwise advertises its successor in every build.
export NO_MKDOCS_2_WARNING := 1

NUMBER := $(firstword $(filter 0% 1% 2% 3% 4% 5% 6% 7% 8% 9%,$(MAKECMDGOALS)))
ifneq ($(NUMBER),)
  $(error Did you mean: make $(firstword $(MAKECMDGOALS)) EX=$(if $(filter 1 2 3 4 5 6 7 8 9,$(NUMBER)),0)$(NUMBER))
endif

# Your own files in place of the solutions.
ifneq ($(filter-out 0,$(MINE)),)
  export SUBMISSION := exercises
endif

.DEFAULT_GOAL := help
.PHONY: help setup export serve client netron check try hint progress watch solution reset doctor list benchmark optimize large-model loadtest bento containerize run-container deploy images compare-images docs test grade gradescope grade-benchmark verify-course figures crowd lint format lock docs-build manifest clean

# `name: ## usage | text` is a line of `make help`. A name without a recipe here gets it below the variables.
##@ What you can type

serve: ## make serve | Serve the model; stop with Ctrl-C
client: ## make client | Classify two photographs with that service
list: ## make list | List all exercises
docs: ## make docs | Read the course page in a browser
check: ## make check EX=04 | Check your work; without EX, all that you began
watch: ## make watch | Check each exercise whose file you save
hint: ## make hint EX=04 | Show the next hint
progress: ## make progress | Show how far you are
solution: ## make solution EX=04 | Show the solution, once yours passes

# Any Python will do: .venv may be what is wrong, or no Python is new enough.
doctor: ## make doctor | Find out what is wrong here, and how to fix it
	@for python in "$(PYTHON)" python3 $(PY); do \
	  if "$$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 7))' 2>/dev/null; then \
	    exec "$$python" -I course/student/doctor.py --python "$(PYTHON)" --port "$(or $(PORT),3000)"; fi; done; \
	echo "There is no Python 3 here. Install Python 3.11 or newer, then: make doctor"; exit 1

##@ More for students

try: ## make try EX=04 | Run your own files as the page of the exercise says
help: ## make help EX=04 | Show what an exercise asks for; ALL=1 shows all commands
ifneq ($(EX),)
	@$(MAKE) -s $(READY)
	@$(COURSE) show
else
	@awk -F ' *(##|[|]) *' -v all="$(ALL)" '/^##@/ { if (sections++ && !all) exit; printf "\n%s\n\n", substr($$0, 5) } \
	  /^[a-z-]+:.* ## / { printf "  %-30s %s\n", $$2, $$3 } /^#: / { print substr($$0, 4) }' Makefile
	@echo
	@echo "Begin with: make serve, and in a second terminal: make client"
	@echo "What an exercise asks for: make help EX=04. All commands: make help ALL=1"
endif

setup: $(READY) ## make setup CPU=1 | Make .venv and install what the course needs, once
	@echo "Ready. Next: make serve, and in a second terminal: make client"

export: ## make export MODEL=alexnet | Export the models of the services again, or another one
reset: ## make reset EX=04 | Put the starter back; your own file is kept
netron: ## make netron BROWSER=0 | Look at the graph; with EX=06, also at the optimised one

benchmark: $(READY) $(RESNET18) ## make benchmark QUICK=1 | Compare PyTorch and ONNX Runtime
	@$(PY) $(or $(SUBMISSION),solutions)/ex05_benchmark.py $(if $(QUICK),--quick) $(if $(LIE),--lie "$(LIE)")

optimize: $(READY) $(RESNET18) ## make optimize QUICK=1 | Optimise the graph, and show what changed
	@$(PY) $(or $(SUBMISSION),solutions)/ex06_optimize.py $(if $(QUICK),--quick)

large-model: $(READY) ## make large-model | Make a model over 2 GB, which needs a second file
	@$(PY) -m course.given.large_model

loadtest: ## make loadtest EX=13 | Put services under load, and compare with the cores alone
bento: ## make bento EX=16 | Pack a service with its models: bentoml build
containerize: ## make containerize EX=16 | Build an image of the bento; with BY=hand, without BentoML
run-container: ## make run-container EX=16 | Run that image; stop with Ctrl-C

deploy: $(READY) ## make deploy PROJECT=... | Deploy the image BY=hand to Cloud Run; DRY_RUN=1 only says how
	@$(PY) "$(or $(SUBMISSION),solutions)/ex18_cloud.py" --ex "$(or $(EX),10)" --project "$(PROJECT)" \
	  --region "$(REGION)" --repository "$(REPOSITORY)" $(if $(PUBLIC),--public) $(if $(DRY_RUN),--dry-run)

images: ## make images IMAGES=cpu | Build the images of exercise 08 (needs Docker)
compare-images: ## make compare-images FRESH=0 | Compare images: build time, size, start-up

##@ For instructors

test: $(READY) ## make test SUBMISSION=folder | Run all tests, on solutions/ or on a submission
	@$(PY) -m pytest --numprocesses 2 --dist loadfile $(if $(SUBMISSION),--submission "$(SUBMISSION)")

grade: ## make grade SUBMISSIONS=folder | Grade a class: points and reports; one submission: SUBMISSION
gradescope: ## make gradescope EX="04 07" | Build the archive that Gradescope grades with
grade-benchmark: ## make grade-benchmark | Measure what grading costs; the grader is killed halfway

##@ For maintainers

verify-course: $(READY) ## make verify-course | Test the tests and the grader
	@$(PY) -m pytest verify --numprocesses 3

figures: ## make figures | Measure start-up, memory, agreement, faults; write docs/figures.toml
crowd: ## make crowd | Send 500 photographs at once to exercises 09 and 10

lint: $(READY) ## make lint | Run Ruff's checks, and check its format
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: $(READY) ## make format | Format the code with Ruff
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

docs-build: $(READY) ## make docs-build | Build the page into site/; a broken link fails
	@$(PY) -m mkdocs build --strict --quiet

# The libraries of CUDA are left out: PyTorch itself pins them, and CPU=1 installs none.
lock: ## make lock | Write requirements.lock: every package with its version (needs uv)
	@uv pip compile requirements.txt --universal --python-version 3.11 --no-annotate --quiet \
	  --custom-compile-command "make lock" --output-file requirements.lock >/dev/null
	@sed -i.old -E '/^(cuda-|nvidia-[^m]|triton)/d' requirements.lock && rm requirements.lock.old

manifest: ## make manifest | Write README's table and the digests of the starters

clean: ## make clean | Remove .venv, models, reports, site
	rm -rf .venv site reports .pytest_cache .ruff_cache *.egg-info models/*.onnx models/*.pt2 models/*.data models/.export-* models/.large-* models/.optimize-* models/benchmark
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Variables

#:   EX                 the number of an exercise; check, grade and gradescope take several: EX="04 07"
#:   PORT               the port of the service (3000)
#:   IMAGE              image files for client (data/cat.png data/coffee.png)
#:   MODEL              another classifier, for export, serve and loadtest: efficientnet_lite0, or one of torchvision
#:   WEIGHTS            of what is exported: imagenet (default), random, or a checkpoint file
#:   MINE=1             your own files in place of the solutions: for serve, client, netron, benchmark, optimize,
#:                      loadtest, bento, containerize, images
#:   SUBMISSION         a folder to use instead of solutions/, such as exercises; for grade also an archive
#:   FORCE=1, DIFF=1    solution: before your own passes; only what differs from yours
#:   BROWSER=0          netron prints the address and opens no browser
#:   QUICK=1            a short benchmark or optimize
#:   LIE                make one mistake in the benchmark: warmup, autograd or together
#:   SERVICES           what loadtest compares: "10 13:WORKERS=4,THREADS=0"
#:   PAYLOAD            what each request contains: image, json or npy
#:   USERS, DURATION    how many requests at a time (32), seconds for each service (10)
#:   ROUNDS             how often each service or image has its turn (2; 5 for compare-images)
#:   BY                 who builds the image: bento (default) or hand
#:   IMAGES             only container images whose names contain one of these words: "cpu", "onnx:cuda"
#:   FRESH=0            compare-images does not build without cache
#:   PROJECT, REGION, REPOSITORY  of Google Cloud, for deploy; PUBLIC=1 lets everybody in
#:   SUBMISSIONS        a folder of submissions to grade
#:   JOBS, TIME         how many exercises to grade at a time (1), seconds for each (600)
#:   ISOLATION          what submitted code runs in: process (default), docker, limits or none
#:   PRIVATE, OUTPUT    a folder of extra tests; where the reports go
#:   SIZE, HOSTILE      of grade-benchmark: submissions in the class (30), how many are hostile (5)
#:   PYTHON             the Python for setup, 3.11 or newer
#:   CPU=1              setup installs PyTorch without CUDA: 5 GB less on Linux
#:   BASE_IMAGE, PIP_INDEX_URL, TORCH_INDEX  mirrors, for images and setup

RUN = trap : INT TERM HUP; $(COURSE) $@

serve client list docs watch hint progress solution export reset netron loadtest bento containerize run-container \
  grade gradescope grade-benchmark figures crowd manifest: $(READY)
	@$(RUN)

# In a terminal, a check that failed has said why. So make ends as by Ctrl-C, and adds no `*** Error 1`.
check try: $(READY)
	@$(RUN) || { code=$$?; [ -t 2 ] && kill -INT $$PPID || exit $$code; }

images compare-images: $(READY) $(PROGRAM)
	@$(RUN)

# The stamp is written last: an interrupted setup continues where pip stopped.
# uv, where it is installed, takes a third of the time. Both install the versions of requirements.lock.
INSTALL = $(if $(shell command -v uv 2>/dev/null),uv pip install --python $(PY),$(PY) -m pip install)

$(READY): requirements.lock
	@$(check_python)
	@echo "Setting up .venv: a few minutes, once."
	@"$(PYTHON)" -m venv .venv
	@if [ -n "$(CPU)" ]; then \
	  $(INSTALL) --index-url $(TORCH_INDEX) $$(grep -Eo '^torch(vision)?==[0-9.]+' requirements.lock); fi
	@$(INSTALL) -r requirements.lock
	@$(INSTALL) --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(RESNET18): | $(READY)
	@$(COURSE) export --model resnet18

$(PROGRAM): $(RESNET18) | $(READY)
	@$(PY) -m course.given.export_program $(RESNET18) $@

check_python = "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
  { echo "PYTHON=$(PYTHON): Python 3.11 or newer is needed. Install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
