# The commands of README.md over CMake. Bare `make` builds; `make help` lists the rest.

JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60

# Many ranks share few cores: threads that wait must not spin for long. To sleep at once would make
# small pictures on several threads up to five times slower, where waking a core takes long.
QUIET_THREADS = OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=1000
# A test that hangs fails with its name, and does not take the whole run with it. Many tests wait for
# starts and ends of processes half of their time: one more than there are cores goes at once.
CTEST = ctest -j $$(($(JOBS) + 1)) --output-on-failure --timeout 900
# What a build says of targets that it leaves as they are.
NO_NEWS = /^\[ *[0-9]+%\] Built target|^Consolidate compiler generated dependencies|^Scanning dependencies/d
# Left to `make test`: what measures resident memory, which the sanitizers use themselves, and what
# runs the same code on more ranks or for longer, and would take them most of an hour.
ASAN_LEAVES = 'checkpoint/test_load_drop|comm/start|bench/links|backend/reproducible_builds|parallel/(map_pictures-[13]|reproducible-[34]|hybrids-4|generate-4|pipeline_pictures-[348]|patches-[34]|patch_pictures|displaced-8|quality.*|autoencoder-(3|8|large)|plan-bytes.*|command|pipelines-command)|conformance-([34]|step-cache-4|weights-[34]|delay|pipefusion-([234]|8.*))|docs$$|docs-contributing|cli/(budgets|maps|published|latency|binding|ranks)|examples/auraflow|parity'

PACKAGES = cmake gcc procps pkg-config xz-utils libdnnl-dev libcjson-dev libutf8proc-dev libpng-dev libjpeg-dev libwebp-dev libtiff-dev libgif-dev liblapacke-dev libopenmpi-dev openmpi-bin libcurl4-openssl-dev libssl-dev libgnutls28-dev libmicrohttpd-dev
# For the test of reproducible arithmetic on aarch64, which is skipped without them.
CROSS_PACKAGES = gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
# For the test of completions, which skips the shells that are not there.
SHELL_PACKAGES = zsh fish
# For the test of the page of `tessera report`, which skips the browser where there is none.
BROWSER_PACKAGES = chromium
LINT_PACKAGES = cppcheck clang-format
CLANG_PACKAGES = clang libclang-rt-14-dev libomp-dev

.PHONY: all help demo demo-multiparty test soak test-hybrids bench quality asan tsan fuzz lint cuda cross shells browser install packages clean

all: packages  ## build build/tessera
	@tools/forget-moved-build.sh build
	@cmake -S . -B build -DCMAKE_INSTALL_PREFIX=$(PREFIX) > build-configure.log 2>&1 || { cat build-configure.log; exit 1; }
	@rm -f build-configure.log build/failed
	@{ cmake --build build -j $(JOBS) || touch build/failed; } | sed -u -E '$(NO_NEWS)'; test ! -e build/failed

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

packages:
	@tools/install-packages.sh $(PACKAGES)

demo: all  ## build, then make a picture from a prompt with the embedded model
	build/tessera generate --prompt "a lion on a blue background" --seed 2 -o lion.png

demo-multiparty: all  ## make a picture through workers of which one lies, and convict it (docs/strangers.md)
	@sh examples/multiparty.sh build/tessera build/tests/lying_worker

test: all  ## run every test but the long ones of make soak
	cd build && $(QUIET_THREADS) $(CTEST) -LE soak

soak: all  ## run the long tests: the same code on more ranks and for longer
	cd build && $(QUIET_THREADS) $(CTEST) -L soak

test-hybrids: all  ## every exact hybrid of up to 8 ranks against one rank, for every denoiser family
	cmake --build build --target run_hybrids

bench: all  ## time the kernels and the phases of a picture, as shares of this machine's peak
	build/bench/bench_kernels
	build/bench/bench_phases models/emoji

quality: all  ## quality of the trained U-Net's pictures for every setting: docs/quality.csv, quality/report.html (hours; goes on where it was stopped)
	bench/quality_grid.sh docs/quality.csv quality

# Debian 12's oneDNN (2.6.3) reads past an array of its own while dnnl_primitive_create writes some
# bfloat16 convolutions for AMX, and AddressSanitizer ends the program there. So oneDNN does without
# AMX here; our own kernels use it all the same.
asan: packages  ## run the tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@tools/forget-moved-build.sh build-asan
	@cmake -S . -B build-asan -DTESSERA_SANITIZE=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo
	@cmake --build build-asan -j $(JOBS)
	cd build-asan && $(QUIET_THREADS) ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 LSAN_OPTIONS=suppressions=$(CURDIR)/tests/lsan.supp $(CTEST) -LE soak -E $(ASAN_LEAVES)

tsan: packages  ## run tests with threads (of comm/, of workers, of programs with several models, of two ranks) under ThreadSanitizer
	@tools/install-packages.sh $(CLANG_PACKAGES)
	@tools/forget-moved-build.sh build-tsan
	@CC=clang cmake -S . -B build-tsan -DTESSERA_TSAN=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo
	@cmake --build build-tsan -j $(JOBS) --target tests_comm comm_rank tests_hub tessera test_threads test_server test_server_queue test_remote test_worker cases
	cd build-tsan && $(QUIET_THREADS) $(CTEST) -R '^comm/|test_hub$$|^tsan/|^split/test_(server|server_queue|remote|worker)$$' -E '^comm/start'

fuzz: packages  ## fuzz every parser of outside data for FUZZ_SECONDS each
	@tools/install-packages.sh $(CLANG_PACKAGES)
	@tools/forget-moved-build.sh build-fuzz
	@CC=clang cmake -S . -B build-fuzz -DTESSERA_FUZZ=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo
	@cmake --build build-fuzz -j $(JOBS) --target fuzz
	fuzz/run.sh build-fuzz/fuzz $(FUZZ_SECONDS) $(JOBS)

lint:  ## look for mistakes with cppcheck, and at the form of the lines that you changed
	@tools/install-packages.sh $(LINT_PACKAGES)
	@tools/lint.sh

cross:  ## install the compiler and the emulator that `make test` tests aarch64 with, if they are there
	@tools/install-packages.sh $(CROSS_PACKAGES)

shells:  ## install the shells whose completions `make test` tests, if they are there
	@tools/install-packages.sh $(SHELL_PACKAGES)

browser:  ## install the browser that `make test` opens the page of `tessera report` in, if it is there
	@tools/install-packages.sh $(BROWSER_PACKAGES)

cuda:  ## the CUDA backend (not written yet)
	@echo "make cuda: there is no CUDA backend yet; the CPU backend is built by make" >&2; exit 1

install: all  ## install the program, the library, man pages and the embedded model below PREFIX
	@cmake --install build

clean:
	rm -rf build build-asan build-tsan build-fuzz
	find models assets tests -name '*.recipe' -o -name '*.xz' | sed -E 's/\.(recipe|xz)$$//' | xargs rm -f
