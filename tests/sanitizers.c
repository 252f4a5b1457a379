/* Linked into every program of `make asan`: what the leak sanitizer must know about libraries that are not ours. */

const char *__lsan_default_options(void);
const char *__lsan_default_suppressions(void);
int dlclose(void *handle);

const char *__lsan_default_options(void)
{
    return "print_suppressions=0";
}

/* Open MPI and what it loads keep some memory to the end. A test may have a list of its own in place of this. */
__attribute__((weak)) const char *__lsan_default_suppressions(void)
{
    return "leak:libmpi.so\nleak:libopen-pal.so\nleak:libopen-rte.so\nleak:libhwloc.so\nleak:libpmix.so\nleak:mca_\n"
           "leak:libevent\nleak:vasprintf\n";
}

/* Libraries stay loaded, so that a leak is known by the name of its library. */
int dlclose(void *handle)
{
    (void)handle;
    return 0;
}
