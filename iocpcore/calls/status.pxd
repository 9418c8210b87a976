# A completion's status: the system's error number, and what it means for whoever waited for it.
#
# The numbers are errnos on Linux. On Windows a packet's are Winsock's (windows/status.h), a call that fails may leave
# Win32's too. Only these functions compare them.
from iocp cimport (
    ERROR_NOT_ENOUGH_QUOTA, ERROR_NO_SYSTEM_RESOURCES, ERROR_OPERATION_ABORTED, ERROR_WORKING_SET_QUOTA, WSAEMFILE,
    WSAENOBUFS)


cdef inline bint status_cancelled(int status) noexcept nogil:
    return status == ERROR_OPERATION_ABORTED


cdef inline bint status_exhausted(int status) noexcept nogil:
    """The system lacks descriptors or memory: trying again at once would only spin."""
    return (status == WSAEMFILE or status == WSAENOBUFS or status == ERROR_NO_SYSTEM_RESOURCES
            or status == ERROR_WORKING_SET_QUOTA or status == ERROR_NOT_ENOUGH_QUOTA)
