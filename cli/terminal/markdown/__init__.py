"""Writes Markdown on a terminal while it arrives: styled, wrapped, append-only.

`blocks` reads how a line begins, `inline` the spans in a paragraph, `table` draws a table when it ends, and `stream`
puts them on the terminal. The rules are those of CommonMark 0.31.2, and of GFM for tables, `~~` and task lists.
"""

from .stream import MarkdownStream

__all__ = ["MarkdownStream"]
