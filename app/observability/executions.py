"""Who watches the statements of an engine is called before and after each execution, at little cost.

SQLAlchemy has events for that, `before_cursor_execute` and `after_cursor_execute`. But with the first
listener to any event of an engine, each use of a connection looks for the listeners of seven events anew,
which costs more than most listeners do. The events of its dialect, `do_execute` and its like, are looked for
once. They stand for the execution itself: whoever listens may execute the statement in another way. So the
one listener here calls the watchers, then those who also listen, and executes as SQLAlchemy would if none of
them has.
"""

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import Engine, event

Watcher = Callable[[Any, Any, str, Any, Any, bool], object]
"""Is given the connection, the DBAPI's cursor, the statement, its parameters, the ExecutionContext, and
whether many sets of parameters were given. What it returns does not matter."""

_EVENTS: Final = ("do_execute", "do_executemany", "do_execute_no_params")
_ATTRIBUTE: Final = f"watchers_{__name__}"
"""Where an engine keeps its own: one that is gone leaves nobody behind with a dialect that others share."""


def watch_executions(
    engine: Engine, *, before: Watcher | None = None, after: Watcher | None = None
) -> None:
    """Have them called before and after each execution of a statement through `engine`.

    Where it fails, `after` is not called: listen to SQLAlchemy's `handle_error`. As with SQLAlchemy's own
    events, what `engine.execution_options()` returns is watched with the engine, and what SQLAlchemy asks of
    a database before its first use is left out. A listener to `do_execute` of all engines (of the class) that
    executes statements hides them.
    """
    for name in _EVENTS:
        listeners = getattr(engine.dialect.dispatch, name)
        if not any(isinstance(listener, _Execution) for listener in listeners):
            event.listen(engine, name, _Execution(name))
            # Of an engine's listeners the first is asked first. (`insert=True` does nothing for these.)
            getattr(engine.dialect.dispatch, name).listeners.rotate(1)
    watchers: _Watchers = getattr(engine, _ATTRIBUTE, _NOBODY)
    own = _Watchers(
        watchers.before + ((before,) if before else ()),
        watchers.after + ((after,) if after else ()),
    )
    setattr(engine, _ATTRIBUTE, own)


class _Watchers(NamedTuple):
    """Those of one engine."""

    before: tuple[Watcher, ...]
    after: tuple[Watcher, ...]


_NOBODY: Final = _Watchers((), ())


def _watchers_of(engine: Any) -> _Watchers:
    own: _Watchers = getattr(engine, _ATTRIBUTE, _NOBODY)
    made_of = getattr(engine, "_proxied", None)
    if made_of is None:
        return own
    inherited = _watchers_of(made_of)
    if own is _NOBODY:
        return inherited
    return _Watchers(own.before + inherited.before, own.after + inherited.after)


class _Execution:
    """Listens to one event of a dialect, which several engines may share."""

    def __init__(self, event_name: str) -> None:
        self._event = event_name

    def __call__(self, cursor: Any, statement: str, *rest: Any) -> Literal[True] | None:
        """Execute the statement, between the watchers."""
        # To Sentry and pytest, what fails was executed by the function that has called this one.
        __tracebackhide__ = True
        parameters, context = rest if len(rest) == 2 else ((), rest[0])  # noqa: PLR2004
        if context is None:
            return None
        connection = context.root_connection
        watchers = _watchers_of(connection.engine)
        if watchers is _NOBODY or not connection._allow_autobegin:
            return None  # nobody watches, or SQLAlchemy asks for itself
        dialect, many = context.dialect, context.executemany
        for before in watchers.before:
            before(connection, cursor, statement, parameters, context, many)
        listeners = iter(getattr(dialect.dispatch, self._event))
        for listener in listeners:
            if listener is self:
                break  # those before have been asked
        for listener in listeners:
            if listener(cursor, statement, *rest):
                break
        else:
            getattr(dialect, self._event)(cursor, statement, *rest)
        for after in watchers.after:
            after(connection, cursor, statement, parameters, context, many)
        return True
