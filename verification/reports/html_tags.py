"""HTML built so that nothing enters it unescaped but what was built here."""

from __future__ import annotations

import html
from typing import Any

__all__ = ["Html", "tag"]

_VOID = frozenset({"br", "meta"})


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: str | None) -> Html:
    """Return an element; what is not `Html` is escaped.

    Parameters
    ----------
    name
        Of the element.
    children
        Contents in order: `Html`, lists of contents, None for nothing, and anything else as text.
    attributes
        Values are escaped too; None leaves one out, `class_` is `class`.

    Examples
    --------
    >>> tag("p", "a < b ", tag("b", "&"), [None, 1], class_='"x"')
    '<p class="&quot;x&quot;">a &lt; b <b>&amp;</b>1</p>'
    """
    given = [(key.rstrip("_"), value) for key, value in attributes.items() if value is not None]
    opened = " ".join([name, *(f'{key}="{html.escape(value, quote=True)}"' for key, value in given)])
    return Html(f"<{opened}>" if name in _VOID else f"<{opened}>{_contents(children)}</{name}>")


def _contents(child: Any) -> str:
    if child is None:
        return ""
    if isinstance(child, (list, tuple)):
        return "".join(map(_contents, child))
    return str(child) if isinstance(child, Html) else html.escape(str(child), quote=True)
