# What the status of a completion, an error number of the system, means to the core.
#
# On Linux the numbers are errnos. On Windows a packet has a number of Winsock (windows/status.h); a call that fails may
# also leave one of Win32. No other file compares a packet's status with such numbers.
from iocp cimport (
    ERROR_NOT_ENOUGH_QUOTA, ERROR_NO_SYSTEM_RESOURCES, ERROR_OPERATION_ABORTED, ERROR_WORKING_SET_QUOTA, WSAEMFILE,
    WSAENOBUFS)


cdef inline bint status_cancelled(int status) noexcept nogil:
    return status == ERROR_OPERATION_ABORTED


cdef inline bint status_exhausted(int status) noexcept nogil:
    """The system is out of descriptors or memory: a retry at once would only spin."""
    return (status == WSAEMFILE or status == WSAENOBUFS or status == ERROR_NO_SYSTEM_RESOURCES
            or status == ERROR_WORKING_SET_QUOTA or status == ERROR_NOT_ENOUGH_QUOTA)
