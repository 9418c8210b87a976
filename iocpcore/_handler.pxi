# Handlers: what is done with a session's data, natively or by callbacks in Python; and the settings of sessions.

cdef class Handler:
    """What is done with a session's data, natively: ECHO, DISCARD or a Load. It never takes the GIL."""
    cdef NativeHandler native
    cdef str name

    def __init__(self):
        raise TypeError("native handlers are iocpcore.ECHO and iocpcore.DISCARD; others are objects with callbacks")

    def __repr__(self):
        return f"<iocpcore.{self.name}>"


cdef Handler native_handler(int kind, str name):
    cdef Handler handler = Handler.__new__(Handler)
    handler_init(&handler.native, kind)
    handler.name = name
    return handler


ECHO = native_handler(ECHO_KIND, "ECHO")            # sends back what it receives
DISCARD = native_handler(DISCARD_KIND, "DISCARD")   # receives and forgets
cdef Handler nobody = native_handler(DISCARD_KIND, "nobody")    # of a session whose handler was told that it is closed


# ---- callbacks ----

CALLBACKS = {"on_connect": CALL_CONNECT, "on_receive": CALL_RECEIVE, "on_drain": CALL_DRAIN, "on_end": CALL_END,
             "on_shutdown": CALL_SHUTDOWN, "on_close": CALL_CLOSE}


cdef class Callbacks(Handler):
    """A user's handler: its callbacks as they were when it was given to us."""
    cdef object on_connect, on_receive, on_drain, on_end, on_shutdown, on_close
    cdef str kind       # the name of its type, for errors: its repr() is the user's code


def _warn_of_misspelt(handler):
    for name in dir(handler):
        if name in CALLBACKS or not name.startswith("on") or not callable(getattr(handler, name, None)):
            continue
        for meant in difflib.get_close_matches(name, CALLBACKS, 1, 0.8):
            if "disconnect" in name.lower():    # nearest to its opposite
                meant = "on_close"
            warnings.warn(f"{handler!r} has {name}, which nobody will call: is {meant} meant?", stacklevel=1)


cdef Callbacks python_handler(object handler):
    """TypeError if it has no callback at all, or one that cannot be called, or would do nothing when called."""
    cdef Callbacks made = Callbacks.__new__(Callbacks)
    if isinstance(handler, type):
        raise TypeError(f"the handler must be an object, not the class {handler.__name__} itself")
    handler_init(&made.native, PYTHON_KIND)
    for name, bit in CALLBACKS.items():
        callback = getattr(handler, name, None)
        if callback is None:
            continue
        wrong = why_useless(callback)
        if wrong is not None:
            raise TypeError(f"{name} of the handler {handler!r} {wrong}")
        made.native.wants |= bit
    _warn_of_misspelt(handler)
    if not made.native.wants:
        raise TypeError(f"the handler {handler!r} has none of the callbacks {', '.join(CALLBACKS)}")
    made.on_connect = getattr(handler, "on_connect", None)
    made.on_receive = getattr(handler, "on_receive", None)
    made.on_drain = getattr(handler, "on_drain", None)
    made.on_end = getattr(handler, "on_end", None)
    made.on_shutdown = getattr(handler, "on_shutdown", None)
    made.on_close = getattr(handler, "on_close", None)
    made.kind = type(handler).__name__
    made.native.callbacks = <void *> made
    made.name = f"handler {handler!r}"
    return made


# ---- settings ----

cdef uint64_t seconds_or_never(dict options, str name, uint64_t otherwise) except? 1:
    """Nanoseconds, 0 for None; the default if it is not among the options."""
    value = options.pop(name, options)
    if value is options:
        return otherwise
    if value is None:
        return 0
    cdef uint64_t time = nanoseconds(name, value)
    if time == 0:
        raise ValueError(f"{name} must be more than 0 seconds, or None: never")
    return time


cdef uint64_t whole_option(dict options, str name, uint64_t otherwise, uint64_t least, uint64_t most) except? 0:
    value = options.pop(name, options)
    return otherwise if value is options else whole(name, value, least, most)


cdef int set_keep_alive(Settings *settings, object value) except -1:
    if value is None:
        return 0
    if not isinstance(value, tuple) or len(value) != 3:
        raise TypeError(f"keep_alive must be None or (idle, interval, probes), not {value!r}")
    settings.keep_alive_idle = whole("keep_alive's idle", value[0], 1, 32767)
    settings.keep_alive_interval = whole("keep_alive's interval", value[1], 1, 32767)
    settings.keep_alive_probes = whole("keep_alive's probes", value[2], 1, 127)
    return 0


cdef int set_settings(Settings *settings, str caller, dict options) except -1:
    """Those named; TypeError for a name that is none of them."""
    settings.idle_timeout = seconds_or_never(options, "idle_timeout", settings.idle_timeout)
    settings.send_timeout = seconds_or_never(options, "send_timeout", settings.send_timeout)
    if "linger" in options:
        settings.linger = nanoseconds("linger", options.pop("linger"))
    set_keep_alive(settings, options.pop("keep_alive", None))
    settings.no_delay = truth("no_delay", options.pop("no_delay", True))
    settings.receive_size = whole_option(options, "receive_size", settings.receive_size, 1, RECEIVE_MOST)
    settings.high_water = whole_option(options, "high_water", settings.high_water, 1, 1 << 40)
    settings.low_water = whole_option(options, "low_water", min(settings.low_water, settings.high_water // 4),
                                      0, settings.high_water)
    if options.get("send_limit", 1) is None:
        options.pop("send_limit")
        settings.send_limit = 0
    settings.send_limit = whole_option(options, "send_limit", settings.send_limit, 1, 1 << 40)
    if options:
        raise TypeError(f"{caller}() got an unexpected keyword argument {next(iter(options))!r}")
    return 0


cdef Handler handler_for(object handler, str caller, dict options):
    """One that sessions can refer to, with these settings."""
    cdef Handler made
    if isinstance(handler, Load):
        raise TypeError("a Load connects by itself: see Load.start()")
    if isinstance(handler, Callbacks) or not isinstance(handler, Handler):
        made = python_handler(handler)
    else:
        made = native_handler((<Handler> handler).native.kind, (<Handler> handler).name)
    set_settings(&made.native.settings, caller, options)
    return made
