# Handlers: what is done with a session's data, natively or by callbacks in Python.

cdef class Handler:
    """A native handler: ECHO, DISCARD or a Load. It never takes the GIL.

    It is not a base class for handlers in Python. Those are objects of any class that have some of the callbacks that
    Session describes.
    """
    cdef NativeHandler native
    cdef void (*init)(NativeHandler *) noexcept nogil   # makes another one like it; NULL: neither ECHO nor DISCARD
    cdef str name

    def __init__(self):
        raise TypeError("the native handlers are iocpcore.ECHO and iocpcore.DISCARD; any other handler is an object "
                        "with callbacks")

    def __repr__(self):
        return f"<iocpcore.{self.name}>"


# Python must not subclass it: an instance of such a class would be taken for a native handler. Cython's `final` would
# forbid the subclasses below too.
(<TypeObject *> Handler).tp_flags &= ~Py_TPFLAGS_BASETYPE


cdef Handler native_handler(void (*init)(NativeHandler *) noexcept nogil, str name):
    cdef Handler handler = Handler.__new__(Handler)
    init(&handler.native)
    handler.init = init
    handler.name = name
    return handler


cdef Handler echo = native_handler(echo_init, "ECHO")           # sends back what it receives
cdef Handler discard = native_handler(handler_init, "DISCARD")  # receives and forgets
ECHO = echo
DISCARD = discard
cdef Handler nobody = native_handler(handler_init, "nobody")    # the handler of a session from its on_close on


cdef Handler as_native(object handler):
    """If it is ECHO or DISCARD, or a copy made for a listener: the original, which lives as long as the module. Else
    None."""
    if type(handler) is not Handler or (<Handler> handler).init == NULL:
        return None
    return echo if (<Handler> handler).init == echo_init else discard


# ---- callbacks ----

CALLBACKS = {"on_connect": CALL_CONNECT, "on_receive": CALL_RECEIVE, "on_drain": CALL_DRAIN, "on_end": CALL_END,
             "on_shutdown": CALL_SHUTDOWN, "on_close": CALL_CLOSE}

# The arguments of each.
cdef tuple ALONE = ("session",)
ARGUMENTS = {**dict.fromkeys(CALLBACKS, ALONE), "on_receive": ("session", "data"), "on_close": ("session", "error")}


@cython.final
cdef class Callbacks(Handler):
    """A user's handler: its callbacks as they were when it was passed to listen(), connect() or adopt()."""
    cdef object on_connect, on_receive, on_drain, on_end, on_shutdown, on_close
    cdef str kind       # the name of its type, for errors: its repr() is the user's code


def _warn_of_misspelt(handler):
    for name in dir(handler):
        if name in CALLBACKS or not name.startswith("on") or not callable(getattr(handler, name, None)):
            continue
        for meant in difflib.get_close_matches(name, CALLBACKS, 1, 0.8):
            if "disconnect" in name.lower():    # nearest to its opposite
                meant = "on_close"
            warnings.warn(f"the handler {type(handler).__name__} has {name}, which is never called: did you mean "
                          f"{meant}?", stacklevel=1)


cdef bint takes(object function, Py_ssize_t count):
    """Is it a function or method in Python that takes that many arguments?"""
    cdef Py_ssize_t least
    if PyMethod_Check(function):
        function = <object> PyMethod_Function(function)
        count += 1
    if not PyFunction_Check(function):
        return False
    code = <object> PyFunction_GetCode(function)
    if code.co_kwonlyargcount > 0:
        return False    # they may have defaults: inspect.signature() tells
    least = code.co_argcount
    if PyFunction_GetDefaults(function) != NULL:
        least -= len(<object> PyFunction_GetDefaults(function))
    return least <= count and (count <= code.co_argcount or code.co_flags & inspect.CO_VARARGS)


cdef str why_refuses(object callback, tuple arguments):
    """Why it cannot be called with these arguments, or None: it can, or its signature is unknown.

    Of a decorated function the wrapper's signature counts, because the wrapper is what is called.
    """
    if takes(callback, len(arguments)):
        return None
    try:
        signature = inspect.signature(callback, follow_wrapped=False)
    except Exception:
        return None
    try:
        signature.bind(*arguments)
    except TypeError as error:
        return f"is called with ({', '.join(arguments)}), which it does not take: {error}"
    return None


cdef dict callbacks_of(object handler):
    """{name: callback}; each attribute is read once. TypeError for a callback that cannot be called with its arguments,
    or that would run nothing."""
    found = {}
    for name in CALLBACKS:
        callback = getattr(handler, name, None)
        if callback is None:
            continue
        wrong = why_useless(callback) or why_refuses(callback, ARGUMENTS[name])
        if wrong is not None:
            raise TypeError(f"{name} of the handler {type(handler).__name__} {wrong}")
        found[name] = callback
    return found


cdef Callbacks python_handler(object handler):
    """Make the Callbacks of a user's handler. TypeError if it has no callback, or a useless one. Messages name its type
    and not its repr(), which may be long or raise."""
    cdef Callbacks made = Callbacks.__new__(Callbacks)
    kind = type(handler).__name__
    if isinstance(handler, type):
        raise TypeError(f"the handler must be an object, not the class {handler.__name__} itself")
    python_init(&made.native)
    found = callbacks_of(handler)
    if not found and hasattr(handler, "connection_made"):
        raise TypeError(f"the handler {kind} is an asyncio protocol, which iocpcore does not call: see the guide "
                        "\"Beside another server\", docs/guide/embedding.md")
    _warn_of_misspelt(handler)
    if not found:
        raise TypeError(f"the handler {kind} has none of the callbacks {', '.join(CALLBACKS)}")
    for name in found:
        made.native.wants |= CALLBACKS[name]
    made.on_connect = found.get("on_connect")
    made.on_receive = found.get("on_receive")
    made.on_drain = found.get("on_drain")
    made.on_end = found.get("on_end")
    made.on_shutdown = found.get("on_shutdown")
    made.on_close = found.get("on_close")
    made.kind = kind
    made.native.callbacks = <void *> made
    made.name = f"handler {kind}"
    return made


cdef Handler handler_for(object handler, str caller, dict options):
    """Make the Handler that sessions refer to, with these options. caller: the method that an error names."""
    cdef Handler made
    if isinstance(handler, Load):
        raise TypeError("a Load connects by itself: see Load.start()")
    made = as_native(handler)
    made = python_handler(handler) if made is None else native_handler(made.init, made.name)
    set_settings(&made.native.settings, caller, options)
    return made
