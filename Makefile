# Everything is reached from here; `make help` lists the targets.
SHELL := bash
.DEFAULT_GOAL := help
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/centra/plasmacloud/cmd/internal/daemon.version=$(VERSION)
ARGS ?=
FUZZTIME ?= 1m

# The programs have no C; with tests built in the same way, nothing is compiled twice.
export CGO_ENABLED := 0

# Debian keeps daemons in /usr/sbin, which is not in every PATH.
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the four binaries into bin/
	@mkdir -p bin
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: demo
demo: ## the whole way, from Nix to BGP route, on this machine (ARGS=--keep goes on serving)
	@.ci/install nix=nix-bin git=git ip=iproute2 unshare=util-linux
	@$(MAKE) --no-print-directory build
	@bin/plasmactl demo --override-input plasmacloud=path:$(CURDIR) $(ARGS)

.PHONY: lab
lab: ## a cluster of real daemons in network namespaces, checked (ARGS="--flake DIR SCENARIO...")
	@.ci/install nix=nix-bin git=git ip=iproute2 unshare=util-linux gobgpd=gobgpd bird=bird2 vtysh=frr nft=nftables
	@$(MAKE) --no-print-directory build
	@bin/plasmactl lab run --override-input plasmacloud=path:$(CURDIR) $(ARGS)

.PHONY: test
test: test-deps test-nix test-go ## all tests; installs what they need

.PHONY: test-deps
test-deps:
	@.ci/install nix=nix-bin git=git bird=bird2 vtysh=frr gobgpd=gobgpd ip=iproute2 etcd=etcd-server python3=python3 networkctl=systemd dbus-daemon=dbus-daemon \
		xorriso=xorriso /usr/lib/ISOLINUX/isolinux.bin=isolinux sgdisk=gdisk mkfs.ext4=e2fsprogs openssl=openssl \
		ovs-vswitchd=openvswitch-switch ovn-northd=ovn-central ovn-controller=ovn-host jq=jq chromium=chromium nft=nftables iptables=iptables strace=strace \
		qemu-system-x86_64=qemu-system-x86 grub-mkrescue=grub-common mformat=mtools cpio=cpio busybox=busybox-static \
		/usr/share/OVMF/OVMF_CODE.fd=ovmf /usr/lib/grub/i386-pc/linux.mod=grub-pc-bin \
		/usr/lib/grub/x86_64-efi/linux.mod=grub-efi-amd64-bin
	@.ci/guest .cache/guest
	@.ci/userland .cache/userland

.PHONY: test-go
test-go: ## Go tests: units, and integration with real daemons (root, or a user namespace)
	.ci/as-root go test ./...

.PHONY: test-nix
test-nix: ## Nix evaluation tests, on Debian's Nix and on a recent one
	nix/tests/run

.PHONY: update-golden
update-golden: ## record anew what nix/tests compares with, and docs/options (PLASMACLOUD_NIXPKGS_LIB=DIR)
	@.ci/install nix=nix-bin
	PLASMACLOUD_NIXPKGS_LIB=$(PLASMACLOUD_NIXPKGS_LIB) NIX=$(or $(NIX),nix) nix/tests/run --update

.PHONY: generate
generate: ## make anew what comes out of deployer/api/v1/deployer.proto
	@.ci/install jq=jq
	.ci/generate

.PHONY: bench-deps
bench-deps: # the peers that the tests have no use for
	@.ci/install exabgp=exabgp

.PHONY: bench
bench: test-deps bench-deps build ## measure, with peers side by side
	go list -deps -modfile=.ci/matchbox/go.mod tool > /dev/null # where it is built there is no network
	.ci/as-root go run ./vmtests/bench $(ARGS)

.PHONY: soak
soak: test-deps ## faults at random points, 10,000 VIPs of which some flap, a deployer killed in storms (ARGS="--time 1h --seed 7")
	.ci/as-root go run ./vmtests/soak $(ARGS)

.PHONY: screenshot
screenshot: ## make the picture of the web page that the documents show
	@.ci/install chromium=chromium
	go run ./vmtests/screenshot docs/images/page.png

.PHONY: fuzz
fuzz: ## every fuzz target, one after the other (FUZZTIME=1m)
	.ci/as-root .ci/fuzz $(FUZZTIME)

.PHONY: lint
lint: ## gofmt, go vet, golangci-lint, checks of generated code, of the Nix and shell files and of the package
	@.ci/install nix=nix-bin shellcheck=shellcheck jq=jq
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run gofmt -w on these"; exit 1; }
	go vet ./...
	go tool -modfile=.ci/lint/go.mod golangci-lint run
	.ci/generate --check
	nix/tests/lint
	nix/update-vendor-hash --check
	nix/tests/package

.PHONY: vulncheck
vulncheck: ## known vulnerabilities in what the programs call (asks https://vuln.go.dev)
	@.ci/install curl=curl
	.ci/vulncheck $(ARGS)

.PHONY: clean
clean: ## remove what was built
	rm -rf bin .cache
