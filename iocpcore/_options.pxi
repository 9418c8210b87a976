# The options of a session: their defaults, their bounds, and how they become the C struct.
#
# python/iocpcore/_options.py says what each means, its type and its unit. The defaults are those of handler_init(): a
# native handler has them without Python.

OPTION_BOUNDS = {   # (least, most) of each number
    "keep_alive's idle": (1, 32767),
    "keep_alive's interval": (1, 32767),
    "keep_alive's probes": (1, 127),
    "receive_size": (1, RECEIVE_MOST),
    "high_water": (1, QUEUE_MOST),
    "low_water": (0, QUEUE_MOST),
    "send_limit": (1, QUEUE_MOST),
}


cdef object time_limit_of(uint64_t time):
    return None if time == 0 else time / 1e9


cdef object keep_alive_of(Settings *settings):
    if settings.keep_alive_idle == 0:
        return None
    return settings.keep_alive_idle, settings.keep_alive_interval, settings.keep_alive_probes


def option_defaults():
    """{name: default}, each as a user would give it."""
    cdef Settings *settings = &discard.native.settings
    return {
        "idle_timeout": time_limit_of(settings.idle_timeout),
        "send_timeout": time_limit_of(settings.send_timeout),
        "linger": settings.linger / 1e9,
        "keep_alive": keep_alive_of(settings),
        "no_delay": bool(settings.no_delay),
        "receive_size": settings.receive_size,
        "high_water": settings.high_water,
        "low_water": settings.low_water,
        "send_limit": settings.send_limit or None,
    }


cdef uint64_t time_limit(str name, object value) except? 0:
    """The limit in nanoseconds; 0 for None, which means never."""
    if value is None:
        return 0
    cdef uint64_t time = nanoseconds(name, value)
    if time == 0:
        raise ValueError(f"{name} must be more than 0 seconds, or None: never")
    return time


cdef uint64_t bounded(str name, object value) except? 0:
    least, most = OPTION_BOUNDS[name]
    return whole(name, value, least, most)


cdef int set_keep_alive(Settings *settings, object value) except -1:
    if value is None:
        return 0
    if not isinstance(value, tuple) or len(value) != 3:
        raise TypeError(f"keep_alive must be None or (idle, interval, probes), not {value!r}")
    settings.keep_alive_idle = <unsigned int> bounded("keep_alive's idle", value[0])
    settings.keep_alive_interval = <unsigned int> bounded("keep_alive's interval", value[1])
    settings.keep_alive_probes = <unsigned int> bounded("keep_alive's probes", value[2])
    return 0


cdef int set_settings(Settings *settings, str caller, dict options) except -1:
    """Set the given options, and the defaults for the others. Raises TypeError for an unknown option."""
    wanted = option_defaults()
    for name in options:
        if name not in wanted:
            raise TypeError(f"{caller}() got an unexpected keyword argument {name!r}")
    wanted.update(options)
    settings.idle_timeout = time_limit("idle_timeout", wanted["idle_timeout"])
    settings.send_timeout = time_limit("send_timeout", wanted["send_timeout"])
    settings.linger = nanoseconds("linger", wanted["linger"])
    set_keep_alive(settings, wanted["keep_alive"])
    settings.no_delay = truth("no_delay", wanted["no_delay"])
    settings.receive_size = <unsigned int> bounded("receive_size", wanted["receive_size"])
    settings.high_water = bounded("high_water", wanted["high_water"])
    if "low_water" not in options:
        wanted["low_water"] = min(wanted["low_water"], settings.high_water // 4)
    settings.low_water = whole("low_water", wanted["low_water"], OPTION_BOUNDS["low_water"][0], settings.high_water)
    settings.send_limit = 0 if wanted["send_limit"] is None else bounded("send_limit", wanted["send_limit"])
    return 0
