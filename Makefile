# The developer's face. Each target does all of its own set-up.

PYTHON ?= python3
BIN := .venv/bin
RUN_PARTS := .venv/.run-parts
DEV_PARTS := .venv/.dev-parts

.PHONY: install demo test soak bench lint docs clean

install: $(RUN_PARTS)

demo: install
	@tools/need 'command -v nix-store' nix-bin
	@PYTHONPATH=tests $(BIN)/python demo/demo.py

test: $(DEV_PARTS)
	@tools/need 'command -v nix-store' nix-bin
	@tools/need --wanted 'command -v radosgw' ceph-mon ceph-osd radosgw
	@tools/need --wanted 'command -v strace' strace
	$(BIN)/pytest

# The tests that try chance, at length: an hour or so.
soak: $(DEV_PARTS)
	@tools/need 'command -v nix-store' nix-bin
	@tools/need --wanted 'command -v radosgw' ceph-mon ceph-osd radosgw
	@tools/need --wanted 'command -v strace' strace
	NARPOST_SOAK=20 $(BIN)/pytest tests/fault tests/unit/push

bench: $(DEV_PARTS)
	@tools/need 'command -v nix-store' nix-bin
	@tools/need --wanted 'command -v radosgw' ceph-mon ceph-osd radosgw
	@PYTHONPATH=.:tests $(BIN)/python -m benchmarks --page docs

lint: $(DEV_PARTS)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(DEV_PARTS)
	$(BIN)/python tools/commands_page.py docs/commands.md

clean:
	rm -rf .venv build

$(RUN_PARTS): requirements.lock pyproject.toml
	@tools/venv $(PYTHON) .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(DEV_PARTS): $(RUN_PARTS) requirements-dev.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
