/* Checks for programs of several ranks: the first that fails ends the job, so that no rank waits for another. */
#ifndef DC_TESTS_MPI_CHECK_H
#define DC_TESTS_MPI_CHECK_H

#include <string.h>

#include "comm/comm.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            dc_comm_abort(dc_fail_within(DC_ERR_INTERNAL, "%s:%d: not so: %s", __FILE__, __LINE__, #condition));       \
    } while (0)

#define CHECK_OK(expression) CHECK((expression) == DC_OK)
#define CHECK_MESSAGE(part)  CHECK(strstr(dc_status_message(), part) != NULL)

#endif
