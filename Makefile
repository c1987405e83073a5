# make demo      set up, simulate a small data set, train on it, evaluate, show the results
# make test      set up and run the tests (make test-slow: those that take minutes)
# make lint      ruff, check and format
# make setup     only create .venv

PYTHON ?= python3
BIN = .venv/bin
WITH_ROOMS = $(addprefix tests/test_, attribution.py benchmark.py golden_evaluation.py)

.PHONY: setup demo test test-commands test-rooms test-slow lint format clean

setup: .venv/done

.venv/done: requirements.txt requirements-dev.txt constraints.txt
	@echo "setting up .venv (a minute or more)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt \
		-r requirements.txt -r requirements-dev.txt
	touch $@

demo: setup
	$(BIN)/python -m datasets.synthetic --out data/demo --preset demo \
		--train 12 --test 4 --frames 60 --size 64 --seed 0
	$(BIN)/python train.py --config configs/demo.yaml

# Both halves at once; each shows what it has to say when it is done.
test: setup
	@echo "testing, which takes a few minutes"
	@$(MAKE) --no-print-directory -j2 --output-sync=target test-commands test-rooms

test-commands: setup
	$(BIN)/python -m pytest $(filter-out $(WITH_ROOMS), $(wildcard tests/test_*.py))

test-rooms: setup
	$(BIN)/python -m pytest tests/*/ $(WITH_ROOMS)

test-slow: setup
	$(BIN)/python -m pytest -m slow -o faulthandler_timeout=3600

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv data
