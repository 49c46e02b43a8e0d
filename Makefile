# make demo [ONCE=1]   the article's setup on this machine, until Ctrl-C (ONCE=1: ends by itself, status 0 or 1;
#                      FRONT=uwsgi: with uWSGI's HTTP router in front though nginx is there)
# make test            every test;  TEST_ARGS="-k cheap" goes to pytest
# make quick           the tests that take less than a minute together
# make check           ruff, mypy, import-linter
# make docs            the documentation, as pages to read in build/docs
# make matrix          the quick tests on every other supported Python that is found
# make bench           beside the real fastrouter;  BENCH_ARGS goes to the benchmark
#
# Each sets everything up itself, in .venv; a Debian or Ubuntu with Python 3.11 or newer is enough.
# As root, make test installs nginx, gcc, iproute2, knot, systemd, etcd-server, libssl-dev and python3-dev with apt-get
# where they are missing, unpacks consul, and compiles a uWSGI with TLS; otherwise tests without them skip.

.PHONY: demo test quick check docs matrix bench clean peers
.NOTPARALLEL:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# More than processors: many tests wait.
JOBS ?= 5
OTHERS = $(wildcard $(HOME)/.pyenv/versions/3.1[123].*/bin/python) $(foreach v,3.11 3.12 3.13,$(shell command -v python$(v)))

# $(call apt,PACKAGES,WHAT FOR): installs as root on Debian and Ubuntu, else says what to install, and fails.
# RUNLEVEL=1 keeps a package from starting its service where there is no systemd.
apt = if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing $(1) for $(2)"; \
		apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(1) >/dev/null; \
	else echo "$(2): $(1) is missing. As root: apt-get install $(1)"; false; fi

demo: $(VENV)/.demo
	@ONCE=$(ONCE) FRONT=$(FRONT) $(BIN)/python contrib/demo.py

test: $(VENV)/.test peers
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(TEST_ARGS)

quick: $(VENV)/.test peers
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow" $(TEST_ARGS)

check: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.docs
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --quiet --strict

# One virtual environment a minor version; the one of .venv has had its turn in `make test`.
matrix: $(VENV)/.test
	@seen=" $$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])') "; \
	for python in $(OTHERS); do \
		version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
		case "$$seen" in *" $$version "*) continue;; esac; seen="$$seen$$version "; \
		echo "Python $$version ($$python)"; \
		$(MAKE) --no-print-directory quick PYTHON=$$python VENV=.venv-$$version || exit 1; \
	done; \
	echo "tested:$$seen"

bench: $(VENV)/.test peers
	$(BIN)/python tests/bench/bench.py $(BENCH_ARGS)

clean:
	rm -rf .venv .venv-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What the suite uses beside Python. Failing to get it is no error here: its tests skip, and say so.
peers:
	@PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || { $(call apt,nginx,the tests with a real front); } || true
	@command -v cc >/dev/null || { $(call apt,gcc libc6-dev,the load tools of the benchmark); } || true
	@PATH="$$PATH:/usr/sbin" command -v ip >/dev/null || { $(call apt,iproute2,the tests in a network of their own); } || true
	@PATH="$$PATH:/usr/sbin" command -v knotd >/dev/null || { $(call apt,knot,the tests with a DNS server); } || true
	@command -v systemd-analyze >/dev/null || { $(call apt,systemd,the tests of its units and sockets); } || true
	@command -v etcd >/dev/null || { $(call apt,etcd-server,the tests with etcd); } || true
	@test -x build/peers/consul || sh tests/get_consul.sh build/peers/consul || true
	@test -e /usr/include/openssl/ssl.h || { $(call apt,libssl-dev,the tests with signed announcements); } || true
	@test -e "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || { $(call apt,python3-dev,the tests with signed announcements); } || true
	@test -x build/peers/uwsgi/bin/uwsgi || $(PIP) --no-deps --target build/peers/uwsgi uwsgi==2.0.31 || true
	@test -d build/peers/py-consul || $(PIP) --no-deps --target build/peers/py-consul py-consul || true

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "gfrouter needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try make PYTHON=python3.12"; false; }
	@$(PYTHON) -c 'import ensurepip, venv; ensurepip.version()' 2>/dev/null || { $(call apt,python3-venv,a virtual environment); }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); false; }

$(VENV)/.demo: setup.cfg pyproject.toml | $(BIN)/python
	@echo "setting up $(VENV)"
	@$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.docs: $(VENV)/.demo
	@$(PIP) --editable '.[docs]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@$(PIP) --editable '.[test]'
	@touch $@
