/* The I/O completion port calls, wherever we are. The only platform switch of the core.
 *
 * Both headers give the same names: those of the Win32 documentation, used with the meaning they have there, and a
 * few `iocp_...` functions for the places where the two systems differ (each is described in linux/iocp.h).
 */
#ifndef IOCPCORE_IOCP_H
#define IOCPCORE_IOCP_H

#ifdef _WIN32
#include "windows/iocp.h"
#else
#include "linux/iocp.h"
#endif

#endif
