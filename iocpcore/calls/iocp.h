/* The I/O completion port calls on this platform. This is the core's only platform switch.
 *
 * Both headers define the same names: those of Win32, with the meaning that its documentation gives them, and a few
 * `iocp_...` functions where the two systems differ. linux/iocp.h describes each of those.
 */
#ifndef IOCPCORE_IOCP_H
#define IOCPCORE_IOCP_H

#ifdef _WIN32
#include "windows/iocp.h"
#else
#include "linux/iocp.h"
#endif

#endif
