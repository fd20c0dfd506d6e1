# Every target is one command that also works without make.

# Where Go's own installer puts it, and where programs like nginx are, for shells
# whose PATH has neither.
export PATH := $(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin

# A directory of cmd with Go files is a command; cmd/internal has none of its own.
COMMANDS := $(sort $(patsubst cmd/%/,%,$(dir $(wildcard cmd/*/*.go))))

PREFIX   ?= /usr/local
FUZZTIME ?= 5m
SOAKTIME ?= 1h
KILLTIME ?= 5m
export DESTDIR PREFIX

# As the commands are built, so that both share what is compiled, and no C
# compiler is needed. The race detector does need one.
build test run bench: export CGO_ENABLED = 0

.PHONY: help build check test run bench fuzz soak lint-mirrors install setup

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## build every command into bin/
	go build -trimpath -o bin/ $(addprefix ./cmd/,$(COMMANDS))

test: setup ## install what the tests need, and run all of them
	go run ./cmd/internal/runtests test

check: setup ## the quick tests with the race detector, gofmt and vet: before a commit
	go run ./cmd/internal/runtests test -race -short

run: setup ## a whole small network on this machine, with a dnf line to paste
	go build -o bin/demo ./cmd/demo && exec bin/demo

bench: setup ## ratios against other programs; exit 1 where one is missed
	go run ./cmd/bench

fuzz: ## every fuzz target in turn, FUZZTIME=5m each
	go run ./cmd/internal/runtests fuzz -time $(FUZZTIME)

soak: ## all tests for SOAKTIME=1h, and kills at random moments for KILLTIME=5m of each round
	go run ./cmd/internal/runtests soak -time $(SOAKTIME) -kills $(KILLTIME)

lint-mirrors: ## what is wrong with network.yml and mirrors.d
	go run ./cmd/checker lint -network network.yml $(wildcard mirrors.d/*.yml)

install: build ## install meridian-*, units and example settings below DESTDIR and PREFIX=/usr/local
	deploy/install

# What is installed depends on the target that asked: bench and check need more.
setup: ## install the programs that tests and benchmarks use (Debian, EL)
	@.ci/setup $(filter bench check,$(MAKECMDGOALS))
