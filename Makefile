# dcanas: see README.md.
#
#: make             builds build/dcanas
#: make demo        the whole job on Fashion-MNIST, two ranks: installs what is missing, builds, runs input/demo.ini
#: make test        installs what is missing, builds, runs all tests
#: make test-long   the tests in their long form, and every fuzzer for a minute
#: make asan        the tests under the address and undefined behaviour sanitizers
#: make faults      every call that can fail fails once, and some hundred kills (an hour)
#: make fuzz        the fuzzers, FUZZ_SECONDS (60) each
#: make lint        layering, format, static analysis, shell scripts
#: make test-gpu    the tests that are about GPUs, on this machine's real ones (REQUIRE_GPU=1: having none is an error)
#: make gpu-report  registers, spills and shared memory of each GPU kernel, by architecture
#: make unit, make emulated, make mpi, make program, make slurm    one kind of tests
#: make bench       speed and memory of steps, set-up, checkpoints and ranks, beside PyTorch where PYTHONS="python3 ..." have
#:                  it; the kernels of a GPU beside the bandwidth of its memory
#: make bench-data  the loader beside torchvision's (Debian: python3-torchvision), a part of make bench
#: make bench-profile    where those steps spend their time, by operation
#: make bench-kernels    each kernel beside the machine's ceilings
#: make study       whether derived sizes follow their targets, with both estimates (twenty minutes)
#: make format      formats the sources
#: make deps        installs what is missing (Debian and its kin; elsewhere it says what to load)
#: make clean       removes all builds; output/ stays
#:
#: Where nvcc, cuDNN and NCCL are found (CUDA_HOME, CUDNN_HOME, NCCL_HOME, or ..._PATH, ..._ROOT and EBROOT... of modules;
#: nvcc on the PATH; /usr/local/cuda), the program is built for GPUs too, for CUDA_ARCHS (80 90 100); make CUDA=0 builds for the CPU alone.
#:
#: make V=1 shows the commands; make CC=clang BUILD=build-clang takes another compiler; make -j builds in parallel.

BUILD  ?= build
MPICC  ?= mpicc
MPICXX ?= mpicxx
MPIRUN ?= mpirun --oversubscribe --bind-to none
OPT    ?= -O3
# For sanitizers and the like: more flags, and an object that every program is linked with.
EXTRA  ?=
LINKED ?=

MAKEFLAGS += --no-print-directory

# MPI's compiler wrapper calls the compiler that is asked for, Open MPI's and MPICH's by these.
ifneq ($(origin CC),default)
export OMPI_CC  := $(CC)
export MPICH_CC := $(CC)
endif
# Open MPI asks root (in a container, say) whether it is meant.
ifeq ($(shell id -u),0)
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
endif
# A sub-make builds in parallel where nobody has said how.
PARALLEL = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc 2>/dev/null || echo 2))

# ---- what we build with ------------------------------------------------------------------------------------------
# Libraries are found by pkg-config; HDF5, where it knows nothing of it, at HDF5_DIR or beside h5cc. All else: set
# DEP_CFLAGS and DEP_LIBS.
HDF5_PC  := $(shell for p in hdf5-serial hdf5; do pkg-config --exists $$p 2>/dev/null && echo $$p && break; done)
HDF5_DIR ?= $(if $(HDF5_PC),,$(patsubst %/bin/h5cc,%,$(shell command -v h5cc)))
LIBS_PC  := $(HDF5_PC) inih libcjson libxxhash libjpeg libpng libarchive zlib
DEP_CFLAGS := $(subst -I,-isystem ,$(shell pkg-config --cflags $(LIBS_PC) 2>/dev/null))
DEP_LIBS   := $(shell pkg-config --libs $(LIBS_PC) 2>/dev/null)
ifneq ($(HDF5_DIR),)
DEP_CFLAGS += -isystem $(HDF5_DIR)/include
DEP_LIBS   += -L$(HDF5_DIR)/lib -Wl,-rpath,$(HDF5_DIR)/lib -lhdf5
endif

# CUDA: nvcc on the PATH or below CUDA_HOME, with cuDNN and NCCL beside it, in homes of their own, by whatever name
# modules give them, or in the system's. Conda has headers and libraries below targets/ alone.
CUDA_ARCHS ?= 80 90 100
CUDA_HOME  ?= $(or $(patsubst %/bin/,%,$(dir $(realpath $(shell command -v nvcc)))),$(CUDA_PATH),$(CUDA_ROOT),$(EBROOTCUDA),/usr/local/cuda)
CUDNN_HOME ?= $(or $(CUDNN_PATH),$(CUDNN_ROOT),$(EBROOTCUDNN))
NCCL_HOME  ?= $(or $(NCCL_PATH),$(NCCL_ROOT),$(EBROOTNCCL))
NVCC       ?= $(CUDA_HOME)/bin/nvcc
CUDA_ROOTS := $(CUDA_HOME) $(if $(wildcard $(CUDA_HOME)/include/cuda_runtime_api.h),,$(wildcard $(CUDA_HOME)/targets/*-linux)) \
              $(CUDNN_HOME) $(NCCL_HOME) /usr
# $(call root_of,FILES): the first root that has one of them.
root_of     = $(firstword $(foreach root,$(CUDA_ROOTS),$(if $(wildcard $(1:%=$(root)/%)),$(root))))
cuda_lacks := $(if $(shell command -v $(lastword $(NVCC))),,nvcc) \
              $(if $(call root_of,include/cublasLt.h),,cuBLASLt) \
              $(if $(call root_of,include/cudnn.h include/*-linux-gnu/cudnn.h),,cuDNN) \
              $(if $(call root_of,include/nccl.h),,NCCL)
CUDA_LACKS := $(if $(filter 0,$(CUDA)),CUDA=0 was given,$(if $(strip $(cuda_lacks)),not found: $(strip $(cuda_lacks))))
comma      := ,
space      := $(subst ,, )
ifeq ($(CUDA_LACKS),)
CUDA_INCLUDES := $(patsubst %,-isystem %/include,$(filter-out /usr,$(CUDA_ROOTS)))
DEP_CFLAGS += $(CUDA_INCLUDES) -DDC_CUDA
CUDA_LIBS  := $(foreach root,$(filter-out /usr,$(CUDA_ROOTS)),$(foreach lib,$(wildcard $(root)/lib64 $(root)/lib),\
                  -L$(lib) -Wl$(comma)-rpath$(comma)$(lib))) -lcudnn -lcublasLt -lnccl -lcudart -lstdc++
else
DEP_CFLAGS += -DDC_CUDA_LACKS=$(subst $(space),_,$(CUDA_LACKS))
endif

# Debian packages, each with what shows that it is there: a command, a pkg-config module or a file.
FASHION_MNIST := /usr/share/datasets/fashion-mnist
BUILD_NEEDS := build-essential:cc libc6-dev:/usr/include/stdio.h pkg-config:pkg-config openmpi-bin:mpirun \
               libopenmpi-dev:mpicc libhdf5-dev:h5cc libinih-dev:inih libcjson-dev:libcjson libxxhash-dev:libxxhash \
               libjpeg-dev:libjpeg libpng-dev:libpng libarchive-dev:libarchive zlib1g-dev:zlib
DEMO_NEEDS  := dataset-fashion-mnist:$(FASHION_MNIST)
TEST_NEEDS  := libcmocka-dev:cmocka perl:prove hdf5-tools:h5dump clang-format:clang-format cppcheck:cppcheck \
               shellcheck:shellcheck $(DEMO_NEEDS)
SLURM_NEEDS := slurmctld:/usr/sbin/slurmctld slurmd:/usr/sbin/slurmd slurm-client:sbatch munge:/usr/sbin/munged

WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wpointer-arith -Wundef -Wformat=2
CFLAGS   := -std=c11 -D_GNU_SOURCE -g $(OPT) -fno-math-errno -fno-trapping-math $(WARNINGS) -fopenmp -pthread \
            -Isrc -Ikernels -I. $(DEP_CFLAGS) $(EXTRA)
LDLIBS   := $(LINKED) $(DEP_LIBS) -lm -ldl

# ---- sources -----------------------------------------------------------------------------------------------------
# Each kernel source is compiled once per instruction set that this machine's architecture has.
ARCH := $(shell uname -m)
ifeq ($(ARCH),x86_64)
ISAS := avx512_bf16 avx512 avx2 portable
else
ISAS := portable
endif
# -std=c11 turns contraction off: without it no multiply-add is fused.
KERNEL_FLAGS       := -ffp-contract=fast
ISA_FLAGS_avx512   := -march=x86-64-v4 -mprefer-vector-width=512 -DDCK_ISA=avx512 -DDCK_VECTOR=16
ISA_FLAGS_avx512_bf16 := -march=x86-64-v4 -mavx512bf16 -mprefer-vector-width=512 -DDCK_ISA=avx512_bf16 -DDCK_VECTOR=16
ISA_FLAGS_avx2     := -march=x86-64-v3 -DDCK_ISA=avx2 -DDCK_VECTOR=8
ISA_FLAGS_portable := -DDCK_ISA=portable -DDCK_VECTOR=4

# What is for GPUs alone is left out where CUDA lacks: the CUDA backend, NCCL (for which without_nccl.c stands in),
# kernels/*.cu.
KERNELS     := $(filter-out kernels/dispatch.c,$(wildcard kernels/*.c))
GPU_SOURCES := $(wildcard src/backend/cuda/*.c src/comm/nccl*.c)
SOURCES     := $(filter-out src/app/main.c $(if $(CUDA_LACKS),$(GPU_SOURCES),src/comm/without_nccl.c),$(wildcard src/*/*.c src/*/*/*.c)) \
               kernels/dispatch.c
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o) $(foreach isa,$(ISAS),$(KERNELS:%.c=$(BUILD)/%.$(isa).o))
LIBRARY := $(BUILD)/libdcanas.a
PROGRAM := $(BUILD)/dcanas

# What the same objects are linked with: for a real device nvcc's kernels and NVIDIA's libraries, for the emulated one
# of the tests the kernels as compiled by a C++ compiler and the emulator of all that they and the backend call.
GPU_KERNELS := $(if $(CUDA_LACKS),,$(wildcard kernels/*.cu))
GPU         := $(if $(GPU_KERNELS),$(BUILD)/libgpu.a)
EMULATED    := $(if $(GPU_KERNELS),$(BUILD)/emulated/libgpu.a)
EMULATOR    := $(wildcard tests/emulator/*.cpp)

# An archive: a program takes what it uses of it, and only that needs cmocka.
TEST_SUPPORT := $(BUILD)/libtests.a
TEST_SOURCES := $(wildcard tests/*/*.c)
UNIT_TESTS   := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(filter tests/unit/test_%,$(TEST_SOURCES)))
MPI_TESTS    := $(patsubst tests/mpi/%.c,$(BUILD)/mpi-tests/%,$(filter-out $(if $(CUDA_LACKS),tests/mpi/test_nccl.c),\
                    $(filter tests/mpi/test_%,$(TEST_SOURCES))))
BENCHES      := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(filter-out $(if $(CUDA_LACKS),tests/bench/bench_gpu_kernels.c),\
                    $(filter tests/bench/bench_%,$(TEST_SOURCES))))
# tests/cuda/ is about the GPU's code; the others named here are about every device that there is, and the emulator's own.
# Not emulated: cuDNN itself plans, without a GPU.
PLAN_TESTS     := $(if $(GPU),$(BUILD)/gpu-tests/test_cudnn_plans)
EMULATED_TESTS := $(if $(EMULATED),$(addprefix $(BUILD)/emulated/unit/,test_conformance test_golden) \
                      $(patsubst %,$(BUILD)/emulated/tests/%,$(filter-out $(notdir $(PLAN_TESTS)),\
                      $(patsubst tests/cuda/%.c,%,$(filter tests/cuda/test_%,$(TEST_SOURCES))))) \
                      $(patsubst tests/emulator/%.c,$(BUILD)/emulator-tests/%,$(filter tests/emulator/test_%,$(TEST_SOURCES))))
EMULATED_MPI_TESTS := $(if $(EMULATED),$(addprefix $(BUILD)/emulated/mpi-tests/,test_nccl test_train_parallel))
FUZZERS      := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(filter tests/fuzz/%,$(TEST_SOURCES)))

ifeq ($(V),1)
say =
else
.SILENT:
say = printf '  %-5s %s\n' $(1) $(2);
endif

.PHONY: all help deps demo test test-long test-gpu gpu-report unit emulated mpi program slurm asan fuzz lint format study bench bench-data bench-profile bench-kernels \
        faults clean test-programs run-demo run-tests run-sanitized run-fuzzers
all: $(PROGRAM)

help:
	sed -n 's/^#: \{0,1\}//p' Makefile

# ---- building ----------------------------------------------------------------------------------------------------
$(PROGRAM): $(BUILD)/src/app/main.o $(LIBRARY) $(GPU) | $(LINKED)
	$(call say,LD,$@)$(MPICC) $(CFLAGS) -o $@ $^ $(LDLIBS) $(CUDA_LIBS)

$(BUILD)/emulated/dcanas: $(BUILD)/src/app/main.o $(LIBRARY) $(EMULATED)
	$(call say,LD,$@)$(MPICC) $(CFLAGS) -o $@ $^ $(LDLIBS) -lstdc++

$(LIBRARY): $(OBJECTS)
$(TEST_SUPPORT): $(patsubst %.c,$(BUILD)/%.o,$(filter tests/support/%,$(TEST_SOURCES)))
$(BUILD)/libbench.a: $(patsubst %.c,$(BUILD)/%.o,$(filter-out tests/bench/bench_%,$(filter tests/bench/%,$(TEST_SOURCES))))
$(BUILD)/libgpu.a: $(GPU_KERNELS:kernels/%.cu=$(BUILD)/kernels/%.cuda.o)
$(BUILD)/emulated/libgpu.a: $(GPU_KERNELS:%.cu=$(BUILD)/emulated/%.o) $(EMULATOR:%.cpp=$(BUILD)/emulated/%.o)
$(BUILD)/emulated/libplanted.a: $(BUILD)/tests/emulator/cases.o $(BUILD)/emulated/tests/emulator/planted.o \
    $(EMULATOR:%.cpp=$(BUILD)/emulated/%.o)
$(BUILD)/libreaders.a: $(filter $(addprefix $(BUILD)/src/,base/% graph/% data/% space/% nn/%),$(OBJECTS))
$(BUILD)/%.a:
	rm -f $@
	$(call say,AR,$@)ar rcs $@ $^

# nvcc: warnings are errors, and so is a register that is spilled; what ptxas reports is kept in NAME.ptxas. Not
# compressed, so that tests/ptx.sh can read what PTX is in it.
NVCC_FLAGS     := -std=c++17 -O3 -lineinfo -Xcompiler -Wall,-Wextra,-fPIC -Werror all-warnings -Xptxas -v,-warn-spills -no-compress -Ikernels \
                  $(foreach arch,$(CUDA_ARCHS),-gencode arch=compute_$(arch)$(comma)code=sm_$(arch)) \
                  -gencode arch=compute_$(lastword $(CUDA_ARCHS))$(comma)code=compute_$(lastword $(CUDA_ARCHS))
# A GPU faults where a vector is not aligned, a CPU does not.
EMULATED_FLAGS := -std=c++17 -g -O1 -fsanitize=alignment -fsanitize-undefined-trap-on-error -Wall -Wextra -Werror \
                  -Ikernels -Itests/emulator $(CUDA_INCLUDES) $(EXTRA)

# A change of flags or compiler rebuilds everything.
FLAGS_STAMP := $(BUILD)/flags
FLAGS_TEXT  := $(shell $(MPICC) --version 2>/dev/null | head -1) $(MPICC) $(CFLAGS) $(LDLIBS) $(KERNEL_FLAGS) \
               $(foreach i,$(ISAS),$(ISA_FLAGS_$(i))) $(CUDA_LIBS) $(NVCC_FLAGS) $(EMULATED_FLAGS)
$(shell mkdir -p $(BUILD); echo '$(FLAGS_TEXT)' | cmp -s - $(FLAGS_STAMP) || echo '$(FLAGS_TEXT)' > $(FLAGS_STAMP))

define isa_rule
$(BUILD)/kernels/%.$(1).o: kernels/%.c $(FLAGS_STAMP)
	mkdir -p $$(@D)
	$$(call say,CC,$$@)$(MPICC) $(CFLAGS) $(KERNEL_FLAGS) $(ISA_FLAGS_$(1)) -MMD -MP -c -o $$@ $$<
endef
$(foreach isa,$(ISAS),$(eval $(call isa_rule,$(isa))))

$(BUILD)/%.o: %.c $(FLAGS_STAMP)
	mkdir -p $(@D)
	$(call say,CC,$@)$(MPICC) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/kernels/%.cuda.o: kernels/%.cu $(FLAGS_STAMP)
	mkdir -p $(@D)
	$(call say,NVCC,$@)$(NVCC) $(NVCC_FLAGS) -MD -MP -MF $(@:.o=.d) -c -o $@ $< > $(@:.o=.ptxas) 2>&1 || \
	    { cat $(@:.o=.ptxas) >&2; rm -f $@; exit 1; }

$(BUILD)/emulated/%.o: %.cu $(FLAGS_STAMP)
	mkdir -p $(@D)
	$(call say,CXX,$@)$(CXX) -x c++ $(EMULATED_FLAGS) -ffp-contract=off -include device.h -MMD -MP -c -o $@ $<

# MPI's C++ wrapper: NCCL is emulated over MPI.
$(BUILD)/emulated/tests/emulator/%.o: tests/emulator/%.cpp $(FLAGS_STAMP)
	mkdir -p $(@D)
	$(call say,CXX,$@)$(MPICXX) $(EMULATED_FLAGS) -MMD -MP -c -o $@ $<

# $(call test_rule,KIND OF PROGRAM,ITS SOURCES' FOLDER,LIBRARIES)
define test_rule
$(BUILD)/$(1)/%: $(BUILD)/tests/$(2)/%.o $(3) | $(LINKED)
	mkdir -p $$(@D)
	$$(call say,LD,$$@)$(MPICC) $(CFLAGS) -o $$@ $$^ $(4) $(LDLIBS) $(if $(filter emulat%,$(1)),-lstdc++,$(CUDA_LIBS))
endef
$(eval $(call test_rule,tests,unit,$(TEST_SUPPORT) $(LIBRARY) $(GPU),-lcmocka))
$(eval $(call test_rule,mpi-tests,mpi,$(TEST_SUPPORT) $(LIBRARY) $(GPU)))
$(eval $(call test_rule,bench,bench,$(BUILD)/libbench.a $(LIBRARY) $(GPU)))
$(eval $(call test_rule,gpu-tests,cuda,$(TEST_SUPPORT) $(LIBRARY) $(GPU),-lcmocka))
$(eval $(call test_rule,emulated/bench,bench,$(BUILD)/libbench.a $(LIBRARY) $(EMULATED)))
$(eval $(call test_rule,emulated/unit,unit,$(TEST_SUPPORT) $(LIBRARY) $(EMULATED),-lcmocka))
$(eval $(call test_rule,emulated/tests,cuda,$(TEST_SUPPORT) $(LIBRARY) $(EMULATED),-lcmocka))
$(eval $(call test_rule,emulated/mpi-tests,mpi,$(TEST_SUPPORT) $(LIBRARY) $(EMULATED)))
$(eval $(call test_rule,emulator-tests,emulator,$(BUILD)/emulated/libplanted.a,-lcmocka))
$(BUILD)/emulator-tests/test_emulator_dense: $(LIBRARY) $(EMULATED)
$(eval $(call test_rule,fuzz,fuzz,$(BUILD)/libreaders.a,-fsanitize=fuzzer))

-include $(wildcard $(BUILD)/kernels/*.cuda.d $(BUILD)/emulated/kernels/*.d $(BUILD)/emulated/tests/emulator/*.d)
-include $(OBJECTS:.o=.d) $(BUILD)/src/app/main.d $(TEST_SOURCES:%.c=$(BUILD)/%.d)
.SECONDARY:

# ---- packages ----------------------------------------------------------------------------------------------------
NEEDS = $(BUILD_NEEDS) $(TEST_NEEDS)
APT_OPTIONS = --no-install-recommends
deps:
	missing=; \
	for need in $(NEEDS); do \
	    sign=$${need#*:}; \
	    case $$sign in \
	    /*) [ -e $$sign ] ;; \
	    *) command -v $$sign || pkg-config --exists $$sign ;; \
	    esac >/dev/null 2>&1 || missing="$$missing $${need%%:*}"; \
	done; \
	[ "$$missing" ] || exit 0; \
	if ! command -v apt-get >/dev/null; then \
	    echo "Not found, by the names of their Debian packages:$$missing."; \
	    echo "Load or install what corresponds to them (environment modules, Spack, ...); see README.md."; exit 0; \
	fi; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	echo "Installing$$missing"; \
	install="$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q $(APT_OPTIONS)$$missing"; \
	$$install || { $$sudo apt-get update -q && $$install; }

# ---- the demo ----------------------------------------------------------------------------------------------------
# Packages may appear on the way, so that the steps are makes of their own.
DEMO_DATA     := output/data/fashion-mnist.h5

demo:
	$(MAKE) deps NEEDS='$(BUILD_NEEDS) $(DEMO_NEEDS)'
	$(MAKE) $(PARALLEL) all
	$(MAKE) run-demo

$(DEMO_DATA): | $(PROGRAM)
	mkdir -p $(@D)
	$(PROGRAM) data import idx $(FASHION_MNIST) $@

run-demo: $(DEMO_DATA)
	sed -n '/^#/!q; s/^# \{0,1\}//p' input/demo.ini
	echo; echo 'Four to eight minutes on two cores. It may be stopped (Ctrl-C) at any time: make demo goes on from there.'; echo
	$(MPIRUN) -np 2 $(PROGRAM) run input/demo.ini

# ---- tests -------------------------------------------------------------------------------------------------------
export BUILD
PROVE := OMP_WAIT_POLICY=passive CMOCKA_MESSAGE_OUTPUT=TAP prove --nocolor --timer -e ''
PROGRAM_TESTS := $(filter-out %/common.sh,$(wildcard tests/program/*.sh))
SLURM_TESTS   := $(filter-out %/common.sh %/cluster.sh,$(wildcard tests/slurm/*.sh))

test:
	$(MAKE) deps NEEDS='$(BUILD_NEEDS) $(TEST_NEEDS)'
	$(MAKE) deps NEEDS='$(SLURM_NEEDS)' || echo 'Slurm cannot be installed: jobs in its queue are not tested.'
	$(MAKE) $(PARALLEL) test-programs
	$(MAKE) run-tests

test-programs: $(PROGRAM) $(UNIT_TESTS) $(MPI_TESTS) $(EMULATED_TESTS) $(EMULATED_MPI_TESTS) $(PLAN_TESTS) $(BENCHES) \
               $(EMULATED:%/libgpu.a=%/dcanas)

run-tests:
	$(PROVE) tests/lint.sh tests/layers.sh tests/toolkit.sh $(UNIT_TESTS) tests/mpi/run.sh $(PROGRAM_TESTS) $(SLURM_TESTS)
	$(if $(EMULATED),$(PROVE) tests/ptx.sh,:)
	$(if $(EMULATED),$(MAKE) emulated,echo "GPU code is not tested: $(CUDA_LACKS)")

# On the emulated device only what is the GPU's: the CPU is tested without it.
emulated: $(EMULATED_TESTS) $(PLAN_TESTS)
	DCANAS_TEST_DEVICE=cuda $(PROVE) $(EMULATED_TESTS) $(PLAN_TESTS)

# The same as on the emulated device, where there is a real one.
REAL_GPU_TESTS := $(if $(GPU),$(addprefix $(BUILD)/tests/,test_conformance test_golden) \
                      $(patsubst tests/cuda/%.c,$(BUILD)/gpu-tests/%,$(filter tests/cuda/test_%,$(TEST_SOURCES))))
test-gpu: $(PROGRAM) $(REAL_GPU_TESTS) $(if $(GPU),$(EMULATED_MPI_TESTS:$(BUILD)/emulated/%=$(BUILD)/%))
	tests/test_gpu.sh $(REAL_GPU_TESTS)

gpu-report: $(GPU)
	$(if $(GPU),tests/gpu_report.sh $(GPU_KERNELS:kernels/%.cu=$(BUILD)/kernels/%.cuda.ptxas),echo "no GPU code: $(CUDA_LACKS)")

unit: $(UNIT_TESTS)
	$(PROVE) $(UNIT_TESTS)

mpi: $(MPI_TESTS) $(EMULATED_MPI_TESTS)
	$(PROVE) tests/mpi/run.sh

program: $(PROGRAM)
	$(PROVE) $(PROGRAM_TESTS)

# On a cluster of three nodes that they start on this machine.
slurm: $(PROGRAM)
	$(PROVE) $(SLURM_TESTS)

test-long:
	DCANAS_LONG=1 $(MAKE) test
	for seed in $(if $(EMULATED_TESTS),2 3 4 5); do EMULATOR_SEED=$$seed $(MAKE) emulated || exit 1; done
	$(MAKE) fuzz

faults: $(PROGRAM)
	DCANAS_LONG=1 prove --nocolor --timer -v -e '' tests/program/faults.sh tests/program/campaign.sh tests/slurm/campaign.sh

lint:
	$(PROVE) tests/lint.sh tests/layers.sh

format:
	git ls-files '*.[ch]' '*.cu' '*.cuh' '*.[ch]pp' | xargs clang-format -i

# Under sanitizers GCC sees truncations that cannot be.
SANITIZED := BUILD=build-asan CUDA=0 OPT=-O1 LINKED=build-asan/tests/sanitizers.o \
             EXTRA='-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -rdynamic \
                    -Wno-format-truncation' \
             KERNEL_FLAGS='$(KERNEL_FLAGS) -O2'  # golden values have little room for another rounding
asan:
	$(MAKE) deps NEEDS='$(BUILD_NEEDS) $(TEST_NEEDS)'
	$(MAKE) $(PARALLEL) $(SANITIZED) test-programs
	$(MAKE) $(SANITIZED) run-sanitized

run-sanitized:
	$(PROVE) $(UNIT_TESTS) tests/mpi/run.sh $(PROGRAM_TESTS)

FUZZ_SECONDS ?= 60
FUZZED := BUILD=build-fuzz CUDA=0 CC=clang OPT=-O1 EXTRA='-fno-openmp -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all'
fuzz:
	$(MAKE) deps NEEDS='$(BUILD_NEEDS) clang:clang' APT_OPTIONS=  # clang only recommends its run-time libraries
	$(MAKE) $(PARALLEL) $(FUZZED) run-fuzzers

run-fuzzers: $(FUZZERS)
	for fuzzer in $(FUZZERS); do \
	    echo "$$fuzzer, $(FUZZ_SECONDS) s"; \
	    $$fuzzer -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -print_final_stats=1 -verbosity=0 \
	        -artifact_prefix=$$fuzzer- || exit 1; \
	done

# ---- benchmarks --------------------------------------------------------------------------------------------------
# Pythons to look for PyTorch in, and how often it and dcanas are measured in turns.
PYTHON      ?= python3
PYTHONS     ?= $(PYTHON)
BENCH_PAIRS ?= 5
BENCH_FLAGS ?=# --no-compile: without torch.compile, which takes minutes a row
export MPIRUN

bench: $(BENCHES) $(PROGRAM)
	$(BUILD)/bench/bench_steps
	$(BUILD)/bench/bench_setup
	$(if $(GPU),for type in float bf16; do $(BUILD)/bench/bench_gpu_kernels $$type || exit 1; done; \
	    if $(PROGRAM) --version | grep -q '; [0-9]* GPUs\{0,1\}$$'; then for type in float tf32 bf16; do \
	        $(BUILD)/bench/bench_steps --device cuda --precision $$type || exit 1; done; \
	    else echo "************ no GPU here: its steps are not timed ************"; fi,\
	    echo "************ GPU kernels are not timed: $(CUDA_LACKS) ************")
	$(BUILD)/bench/bench_checkpoint $(BUILD)
	$(PYTHON) tests/bench/bench_ranks.py $(BUILD)
	pythons=; \
	for python in $(PYTHONS); do \
	    $$python -c 'import torch' 2>/dev/null && pythons="$$pythons $$python"; \
	done; \
	if [ "$$pythons" ]; then \
	    $(PYTHON) tests/bench/beside_pytorch.py $(BUILD)/bench/bench_steps --pairs $(BENCH_PAIRS) $(BENCH_FLAGS) \
	        --pythons $$pythons; \
	else \
	    echo 'No PyTorch to compare with (PYTHONS="..." names Pythons that have it).'; \
	fi
	$(MAKE) bench-data

# Debian's python3-torchvision belongs to its own Python.
bench-data: $(PROGRAM)
	for python in $(PYTHONS) /usr/bin/python3; do \
	    if $$python -c 'import torchvision' 2>/dev/null; then \
	        exec $$python tests/bench/beside_torchvision.py $(PROGRAM) --pairs $(BENCH_PAIRS); \
	    fi; \
	done; \
	echo 'SKIPPED: no torchvision to compare the loader with (Debian: python3-torchvision).'

bench-profile: $(BENCHES)
	$(BUILD)/bench/bench_steps --profile

bench-kernels: $(BENCHES)
	$(BUILD)/bench/bench_kernels

# ---- studies ------------------------------------------------------------------------------------------------------
study: $(DEMO_DATA)
	for estimate in derived soft; do \
	    $(MPIRUN) -np 2 $(PROGRAM) lug tests/study/constraint.ini --set constraint.estimate=$$estimate \
	        --set run.name=constraint-$$estimate || exit 1; \
	done

clean:
	rm -rf build $(BUILD) build-asan build-fuzz
