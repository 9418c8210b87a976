/* Maps an operation's NTSTATUS to Winsock's error number, as WSAGetOverlappedResult() does. The core cannot call that
 * function, because the socket may be closed by then. RtlNtStatusToDosError() gives a file system's numbers: 64 for a
 * reset, 68 for too many addresses.
 *
 * The contract's `each_status_has_winsocks_number` compares the map with WSAGetOverlappedResult() on its system.
 * Ownership and threads: no state.
 */
#ifndef IOCPCORE_WINDOWS_STATUS_H
#define IOCPCORE_WINDOWS_STATUS_H

#include <winsock2.h>

/* 0: for this status WSAGetOverlappedResult() has only WSAEINVAL, which tells nothing. The names are from ntstatus.h,
 * which cannot be included beside windows.h. */
static inline int iocp_winsock_error(ULONG status)
{
    switch (status) {
    case 0xC0000008: /* STATUS_INVALID_HANDLE */
    case 0xC0000024: /* STATUS_OBJECT_TYPE_MISMATCH */
        return WSAENOTSOCK;
    case 0xC0000022: /* STATUS_ACCESS_DENIED */
        return WSAEACCES;
    case 0xC0000005: /* STATUS_ACCESS_VIOLATION */
    case 0xC0000023: /* STATUS_BUFFER_TOO_SMALL */
    case 0xC00002C5: /* STATUS_DATATYPE_MISALIGNMENT_ERROR */
        return WSAEFAULT;
    case 0x80000005: /* STATUS_BUFFER_OVERFLOW */
    case 0xC0000206: /* STATUS_INVALID_BUFFER_SIZE */
        return WSAEMSGSIZE;
    case 0xC0000002: /* STATUS_NOT_IMPLEMENTED */
    case 0xC00000BB: /* STATUS_NOT_SUPPORTED */
        return WSAEOPNOTSUPP;
    case 0xC00000A3: /* STATUS_DEVICE_NOT_READY */
    case 0xC00000D0: /* STATUS_REQUEST_NOT_ACCEPTED */
        return WSAEWOULDBLOCK;
    case 0xC0000120: /* STATUS_CANCELLED */
        return WSA_OPERATION_ABORTED;
    case 0xC0000240: /* STATUS_REQUEST_ABORTED */
        return WSAEINTR;

    case 0xC0000007: /* STATUS_PAGEFILE_QUOTA */
    case 0xC0000017: /* STATUS_NO_MEMORY */
    case 0xC0000018: /* STATUS_CONFLICTING_ADDRESSES */
    case 0xC0000044: /* STATUS_QUOTA_EXCEEDED */
    case 0xC0000097: /* STATUS_TOO_MANY_PAGING_FILES */
    case 0xC000009A: /* STATUS_INSUFFICIENT_RESOURCES */
    case 0xC00000A1: /* STATUS_WORKING_SET_QUOTA */
    case 0xC000012D: /* STATUS_COMMITMENT_LIMIT */
    case 0xC000013D: /* STATUS_REMOTE_RESOURCES */
    case 0xC0000209: /* STATUS_TOO_MANY_ADDRESSES */
        return WSAENOBUFS;

    case 0xC0000043: /* STATUS_SHARING_VIOLATION */
    case 0xC000020A: /* STATUS_ADDRESS_ALREADY_EXISTS */
        return WSAEADDRINUSE;
    case 0xC0000141: /* STATUS_INVALID_ADDRESS */
    case 0xC0000207: /* STATUS_INVALID_ADDRESS_COMPONENT */
        return WSAEADDRNOTAVAIL;

    case 0xC000013C: /* STATUS_REMOTE_DISCONNECT */
    case 0xC000013E: /* STATUS_LINK_FAILED */
    case 0xC000020C: /* STATUS_CONNECTION_DISCONNECTED */
    case 0xC000020D: /* STATUS_CONNECTION_RESET */
    case 0xC000023F: /* STATUS_PORT_UNREACHABLE */
        return WSAECONNRESET;
    case 0xC000013B: /* STATUS_LOCAL_DISCONNECT */
    case 0xC000020F: /* STATUS_TRANSACTION_ABORTED */
    case 0xC0000241: /* STATUS_CONNECTION_ABORTED */
        return WSAECONNABORTED;
    case 0xC00000BC: /* STATUS_REMOTE_NOT_LISTENING */
    case 0xC0000236: /* STATUS_CONNECTION_REFUSED */
        return WSAECONNREFUSED;
    case 0xC00000B5: /* STATUS_IO_TIMEOUT */
    case 0xC000013F: /* STATUS_LINK_TIMEOUT */
        return WSAETIMEDOUT;
    case 0xC00000B0: /* STATUS_PIPE_DISCONNECTED */
        return WSAESHUTDOWN;
    case 0xC0000140: /* STATUS_INVALID_CONNECTION */
        return WSAENOTCONN;
    case 0xC000023B: /* STATUS_CONNECTION_ACTIVE */
        return WSAEISCONN;
    case 0xC0000237: /* STATUS_GRACEFUL_DISCONNECT */
        return WSAEDISCON;

    case 0xC000000E: /* STATUS_NO_SUCH_DEVICE */
    case 0xC000000F: /* STATUS_NO_SUCH_FILE */
    case 0xC0000034: /* STATUS_OBJECT_NAME_NOT_FOUND */
    case 0xC000003A: /* STATUS_OBJECT_PATH_NOT_FOUND */
    case 0xC00000BF: /* STATUS_NETWORK_BUSY */
    case 0xC00000C3: /* STATUS_INVALID_NETWORK_RESPONSE */
    case 0xC00000C4: /* STATUS_UNEXPECTED_NETWORK_ERROR */
        return WSAENETDOWN;
    case 0xC00000BE: /* STATUS_BAD_NETWORK_PATH */
    case 0xC000023C: /* STATUS_NETWORK_UNREACHABLE */
    case 0xC000023E: /* STATUS_PROTOCOL_UNREACHABLE */
        return WSAENETUNREACH;
    case 0xC000023D: /* STATUS_HOST_UNREACHABLE */
        return WSAEHOSTUNREACH;
    case 0xC0000350: /* STATUS_HOST_DOWN */
        return WSAEHOSTDOWN;
    default:
        return 0;
    }
}

#endif
