# The one way in. A fresh machine needs Node >=20.19, npm and a C++ compiler; everything else comes from `npm ci`.
#
#   make demo    install, build and run the main job on this checkout
#   make test    every test; the last line is `N passed, N failed, N skipped`
#   make help    the other targets

PREFIX ?= /usr/local
DESTDIR ?=
# What `make test` and `make bench` run: `make test FILES=dist/test/store/layout.test.js`, `make bench NAME=mount-and-fork`.
FILES ?=
NAME ?=
# What `make soak` is told: `make soak SOAK='--runs 200 --seed 7'`; test/crash/soak.ts lists the options.
SOAK ?=
# The tests that need /dev/fuse.
MOUNT_TESTS ?= 'dist/test/fs/**/*.test.js' 'dist/test/cli/**/*.test.js' 'dist/test/conformance/**/*.test.js' 'dist/test/tools/**/*.test.js'

BIN := node_modules/.bin
# npm writes this file last, so an interrupted install is not taken for a finished one.
INSTALLED := node_modules/.package-lock.json

.DEFAULT_GOAL := build
.PHONY: help build check test test-mount soak soak-posix golden fmt demo bench install clean distclean

help:
	@echo 'make build       compile into dist/ (npm ci first, when node_modules is missing or old)'
	@echo 'make check       format, lint, types'
	@echo 'make test        every test, or FILES="dist/test/store/layout.test.js ..."'
	@echo 'make test-mount  the tests that need /dev/fuse'
	@echo 'make soak        kill commands and the server of mounts again and again, race processes; or SOAK="--runs 200 --seed 7"'
	@echo 'make soak-posix  random file operations in forks of both engines; or SOAK="--minutes 10 --seed 7"'
	@echo 'make golden      rewrite the golden files; read the diff'
	@echo 'make fmt         format in place'
	@echo 'make demo        the main job on a copy of this checkout'
	@echo 'make bench       every benchmark, or NAME=mount-and-fork'
	@echo 'make install     link bin/bento into $(PREFIX)/bin'
	@echo 'make clean       remove what was built'

$(INSTALLED): package.json package-lock.json
	npm ci
	@touch $@

# Always asks tsc: it is incremental, and a stamp of ours would miss a source that was deleted.
build: $(INSTALLED)
	@node scripts/prune-dist.js dist
	@$(BIN)/tsc
	@node scripts/bundle.js
	@if [ -f bin/bento ]; then chmod +x bin/bento; fi

check: build
	@$(BIN)/prettier --check --log-level warn .
	@$(BIN)/eslint .

test: build
	@node scripts/test.js $(FILES)

test-mount: build
	@[ -r /dev/fuse ] || { echo 'make test-mount needs /dev/fuse (modprobe fuse)' >&2; exit 1; }
	@node scripts/test.js $(MOUNT_TESTS)

soak: build
	@node dist/test/crash/soak.js $(SOAK)

soak-posix: build
	@node dist/test/conformance/posix/soak.js $(SOAK)

golden: build
	@UPDATE_GOLDEN=1 node scripts/test.js $(FILES)

fmt: $(INSTALLED)
	@$(BIN)/prettier --write --log-level warn .
	@$(BIN)/eslint --fix .

demo: build
	@bash scripts/demo.sh

bench: build
	@node dist/bench/run.js $(NAME)

install: build
	mkdir -p '$(DESTDIR)$(PREFIX)/bin'
	ln -sfn '$(CURDIR)/bin/bento' '$(DESTDIR)$(PREFIX)/bin/bento'
	@'$(DESTDIR)$(PREFIX)/bin/bento' --version

clean:
	rm -rf dist coverage

distclean: clean
	rm -rf node_modules
