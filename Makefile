# The commands that a newcomer or a build machine needs; `make` alone lists them. Each target sets up .venv if needed,
# which takes about a minute the first time.

# The first of these that is Python 3.11 or newer is used; to choose another: `make PYTHON=/path/to/python3.12 test`.
PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
KERNELS := $(wildcard mistral_mlx/kernels/src/*.h mistral_mlx/kernels/src/*.cpp mistral_mlx/kernels/src/*/*.h mistral_mlx/kernels/src/*/*.cpp)
SOURCES := pyproject.toml constraints.txt setup.py $(KERNELS) mistral_mlx/kernels/src/CMakeLists.txt
QUESTION := What is the capital of France?

.PHONY: help demo man test fuzz lint format lock wheel test-wheel clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    fetch a small trained model and ask it a question"
	@echo "make man     write the man page, build/man/mistral-mlx.1"
	@echo "make test    run the tests"
	@echo "make fuzz    test the readers of files with damaged files: make fuzz CASES=120000 SEED=1"
	@echo "make lint    ruff, clang-format and mypy"
	@echo "make format  fix and format the code with ruff and clang-format"
	@echo "make lock    update constraints.txt from pyproject.toml (needs the package index)"
	@echo "make wheel   build the sdist and a wheel with the kernels inside, into dist/"
	@echo "make test-wheel   install that wheel where no compiler is, and run the tests of the kernels from there"
	@echo "make clean   remove .venv and all build results"

demo: $(BIN)/.installed
	@$(BIN)/mistral-mlx pull demo
	@echo; echo '$$ mistral-mlx complete -m demo --temperature 0 "$(QUESTION)"'
	@$(BIN)/mistral-mlx complete -m demo --temperature 0 "$(QUESTION)" </dev/null
	@echo; echo 'Start a conversation:        $(BIN)/mistral-mlx chat -m demo'
	@echo 'or see all commands:         $(BIN)/mistral-mlx --help'

man: $(BIN)/.installed
	@$(BIN)/python docs/generate_man.py build/man/mistral-mlx.1
	@echo 'To read it: man -l build/man/mistral-mlx.1; to install it, copy it into a folder man1 of your manpath.'

test: $(BIN)/.installed-test
	@$(BIN)/mistral-mlx pull demo || echo "The demo model could not be fetched: the tests that need it are skipped."
	@$(BIN)/python -m pytest -n 2 --dist loadfile

CASES ?= 120000
SEED ?= 1
fuzz: $(BIN)/.installed-test
	@$(BIN)/python tests/fuzz/run.py --cases $(CASES) --seed $(SEED)

lint: $(BIN)/.installed-dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/clang-format --dry-run --Werror $(KERNELS)
	@$(BIN)/mypy

format: $(BIN)/.installed-dev
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/clang-format -i $(KERNELS)

lock: $(BIN)/python
	@$(BIN)/python -m pip install -qq --disable-pip-version-check uv
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --no-annotate \
	    --custom-compile-command "make lock" --output-file constraints.txt pyproject.toml

# The wheel is built from the sdist, so that both are whole. libmlx is not copied into it: it comes with mlx, whose wheels
# need glibc 2.35, so ours do. Debian 12 makes such wheels; a newer system may make one that runs only where it is as new.
ifeq ($(shell uname),Darwin)
REPAIR := $(BIN)/delocate-wheel --exclude libmlx.dylib --wheel-dir dist
else
REPAIR := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --exclude libmlx.so --wheel-dir dist \
    --only-plat --plat manylinux_2_35_$(shell uname -m)
endif

wheel: $(BIN)/.installed-dev
	@rm -rf dist build/dist
	@echo "Building dist/ (about two minutes) ..."
	@MISTRAL_MLX_REQUIRE_KERNELS=1 $(BIN)/python -m build --quiet --outdir build/dist
	@mkdir dist
	@$(REPAIR) build/dist/*.whl || { echo "The wheel is only for systems like this one."; cp build/dist/*.whl dist/; }
	@mv build/dist/*.tar.gz dist/
	@ls dist

test-wheel:
	@.ci/test_wheel

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: each set of packages is installed once, and again when its sources change. A larger set contains the smaller
# ones.
$(BIN)/.installed: $(BIN)/python $(SOURCES)
	@echo "Installing mistral-mlx into .venv (about a minute) ..."
	@$(INSTALL) -e .
	@touch $@

$(BIN)/.installed-test: $(BIN)/python $(SOURCES)
	@echo "Installing mistral-mlx and the packages of its tests into .venv (about a minute) ..."
	@$(INSTALL) -e '.[test]'
	@touch $(BIN)/.installed $@

$(BIN)/.installed-dev: $(BIN)/python $(SOURCES)
	@echo "Installing mistral-mlx and its development tools into .venv (about a minute) ..."
	@$(INSTALL) -e '.[dev]'
	@touch $(BIN)/.installed $(BIN)/.installed-test $@

# Debian ships Python without ensurepip; there the system's pip installs pip into the environment.
$(BIN)/python:
	@for python in $(PYTHON); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    if "$$python" -c 'import ensurepip' 2>/dev/null; then exec "$$python" -m venv .venv; fi; \
	    "$$python" -m venv --without-pip .venv && \
	        "$$python" -m pip -qq --python $(BIN)/python install pip && exit; \
	    rm -rf .venv; echo "This Python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
	done; \
	echo "mistral-mlx needs Python 3.11 or newer, but none of these is: $(PYTHON)" >&2; \
	echo "Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
	exit 1
