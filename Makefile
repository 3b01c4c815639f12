# Shortcuts for the README's commands.
.DEFAULT_GOAL := help
.PHONY: help install run test test-slurm lint format docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## Install everything that development needs
	python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[dev]'

run: ## Install, and train the default agent
	python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e . && .venv/bin/python run.py

test: ## Install, and run the tests
	python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[test]' && .venv/bin/python -m pytest -n 2

test-slurm: ## Run the tests with a real SLURM, which they start, and those that start new processes (after make install)
	.venv/bin/python -m pytest -m "processes or slurm"

lint: ## Check the format, the code and the types (after make install)
	.venv/bin/ruff format --check && .venv/bin/ruff check && .venv/bin/mypy

format: ## Format the code (after make install)
	.venv/bin/ruff format && .venv/bin/ruff check --fix

docs: ## Build the documentation into docs/_build/html; broken links are errors (after make install)
	.venv/bin/python -m sphinx -q -W --keep-going docs docs/_build/html

clean: ## Delete caches and build files; outputs/ and .venv/ stay
	rm -rf build dist docs/_build docs/reference/c*.md *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -path ./.venv -prune -o -path ./outputs -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
