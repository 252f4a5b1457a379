# dcanas: see README.md. The targets a user needs: make, make demo, make test, make help.

BUILD   ?= build
CC      ?= cc
MPICC   ?= mpicc
OPT     ?= -O3
# Sanitizers and the like: make asan sets it.
EXTRA   ?=
NPROC   := $(shell nproc 2>/dev/null || echo 2)

# ---- what we build with ------------------------------------------------------------------------------------------
HDF5_PC    := $(shell for p in hdf5-serial hdf5; do pkg-config --exists $$p 2>/dev/null && echo $$p && break; done)
LIBS_PC    := $(HDF5_PC) inih libcjson libxxhash zlib
DEP_CFLAGS := $(shell pkg-config --cflags $(LIBS_PC) 2>/dev/null | sed 's/-I/-isystem /g')
DEP_LIBS   := $(shell pkg-config --libs $(LIBS_PC) 2>/dev/null)

WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wpointer-arith -Wundef -Wformat=2
CFLAGS   := -std=c11 -D_GNU_SOURCE -g $(OPT) -fno-math-errno -fno-trapping-math $(WARNINGS) -fopenmp -pthread \
            -Isrc -Ikernels -I. $(DEP_CFLAGS) $(EXTRA)
LDLIBS   := $(DEP_LIBS) -lm -ldl

# ---- sources -----------------------------------------------------------------------------------------------------
# Each kernel source is compiled once per instruction set that this machine's architecture has.
ARCH := $(shell uname -m)
ifeq ($(ARCH),x86_64)
ISAS := avx512 avx2 portable
else
ISAS := portable
endif
# -std=c11 turns contraction off: without it no multiply-add is fused.
KERNEL_FLAGS       := -ffp-contract=fast
ISA_FLAGS_avx512   := -march=x86-64-v4 -mprefer-vector-width=512 -DDCK_ISA=avx512 -DDCK_VECTOR=16
ISA_FLAGS_avx2     := -march=x86-64-v3 -DDCK_ISA=avx2 -DDCK_VECTOR=8
ISA_FLAGS_portable := -DDCK_ISA=portable -DDCK_VECTOR=4

KERNELS := $(filter-out kernels/dispatch.c,$(wildcard kernels/*.c))
SOURCES := $(wildcard src/*/*.c src/*/*/*.c)
OBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(filter-out src/app/main.c,$(SOURCES)) kernels/dispatch.c) \
           $(foreach isa,$(ISAS),$(patsubst %.c,$(BUILD)/%.$(isa).o,$(KERNELS)))
LIBRARY := $(BUILD)/libdcanas.a
PROGRAM := $(BUILD)/dcanas

# An archive: a program takes what it uses of it, and only that needs cmocka.
TEST_SUPPORT := $(BUILD)/libtests.a
UNIT_TESTS   := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))
MPI_TESTS    := $(patsubst tests/mpi/%.c,$(BUILD)/mpi-tests/%,$(wildcard tests/mpi/test_*.c))
BENCHES      := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/*.c))

# make V=1 shows the commands.
ifeq ($(V),1)
say =
else
.SILENT:
say = printf '  %-5s %s\n' $(1) $(2);
endif

.PHONY: all demo test test-long unit mpi bench bench-kernels asan lint format deps clean help
all: $(PROGRAM)

help:
	@sed -n 's/^#: //p' Makefile

$(PROGRAM): $(BUILD)/src/app/main.o $(LIBRARY)
	$(call say,LD,$@)$(MPICC) $(CFLAGS) -o $@ $^ $(LDLIBS)

$(LIBRARY): $(OBJECTS)
	@rm -f $@
	$(call say,AR,$@)ar rcs $@ $(OBJECTS)

$(BUILD)/libtests.a: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/support/*.c))
	@rm -f $@
	$(call say,AR,$@)ar rcs $@ $^

# A change of flags or compiler rebuilds everything.
FLAGS_STAMP := $(BUILD)/flags
FLAGS_TEXT  := $(MPICC) $(CFLAGS) $(LDLIBS) $(KERNEL_FLAGS) $(foreach i,$(ISAS),$(ISA_FLAGS_$(i)))
$(shell mkdir -p $(BUILD); echo '$(FLAGS_TEXT)' | cmp -s - $(FLAGS_STAMP) || echo '$(FLAGS_TEXT)' > $(FLAGS_STAMP))

define isa_rule
$(BUILD)/kernels/%.$(1).o: kernels/%.c $(FLAGS_STAMP)
	@mkdir -p $$(@D)
	$$(call say,CC,$$@)$(MPICC) $(CFLAGS) $(KERNEL_FLAGS) $(ISA_FLAGS_$(1)) -MMD -MP -c -o $$@ $$<
endef
$(foreach isa,$(ISAS),$(eval $(call isa_rule,$(isa))))

$(BUILD)/%.o: %.c $(FLAGS_STAMP)
	@mkdir -p $(@D)
	$(call say,CC,$@)$(MPICC) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/tests/%: $(BUILD)/tests/unit/%.o $(TEST_SUPPORT) $(LIBRARY)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(MPICC) $(CFLAGS) -o $@ $^ -lcmocka $(LDLIBS)

$(BUILD)/mpi-tests/%: $(BUILD)/tests/mpi/%.o $(TEST_SUPPORT) $(LIBRARY)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(MPICC) $(CFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/bench/%: $(BUILD)/tests/bench/%.o $(TEST_SUPPORT) $(LIBRARY)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(MPICC) $(CFLAGS) -o $@ $^ -lcmocka $(LDLIBS)

unit: $(UNIT_TESTS)
	OMP_WAIT_POLICY=passive CMOCKA_MESSAGE_OUTPUT=TAP prove --nocolor -e '' $(UNIT_TESTS)

mpi: $(MPI_TESTS)
	BUILD=$(BUILD) prove --nocolor -e sh tests/mpi/run.sh

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
.SECONDARY:
