/* In place of nccl*.c where CUDA lacks (the Makefile chooses): then no backend has a stream, and this is not reached.
 */
#include "comm/transport.h"

dc_status dc_nccl_transport_check(const dc_comm *comm)
{
    (void)comm;
    return dc_fail(DC_ERR_INTERNAL, "sums over ranks in a GPU's memory: this program is built without NCCL");
}

dc_status dc_nccl_transport_create(const dc_comm *comm, void *stream, dc_transport **transport)
{
    (void)stream;
    (void)transport;
    return dc_nccl_transport_check(comm);
}
