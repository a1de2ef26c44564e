"""Blocks of a report as Markdown, and as one HTML page without other files."""

from __future__ import annotations

import base64
import html
from typing import Any

Block = tuple[str, Any]  # (kind, content)

STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0"
    " 1em}img{max-width:100%}table{border-collapse:collapse;margin:1em 0}td,th{border-bottom:1px"
    " solid #ccc;padding:.2em .8em;text-align:left}"
)


def markdown(blocks: list[Block]) -> str:
    """Headings (the first the title), texts, tables (rows, the first a head),
    figures (PNG files by name).
    """
    parts = []
    for number, (kind, content) in enumerate(blocks):
        if kind == "table":
            head, *rows = content
            lines = [head, ["---"] * len(head), *rows]
            parts.append("\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in lines))
        else:
            start, text = "#" if number == 0 else "##", _inline(content)
            parts.append(
                {
                    "heading": f"{start} {text}",
                    "text": text,
                    "figure": f"![{content}]({content}.png)",
                }[kind]
            )
    return "\n\n".join(parts) + "\n"


def _inline(text: str) -> str:
    """Text that Markdown shows as it is: one line, no HTML."""
    return html.escape(" ".join(text.split()), quote=False)


def _cell(text: str) -> str:
    return _inline(text).replace("|", "\\|")


def page(blocks: list[Block], pictures: dict[str, bytes]) -> str:
    """The blocks, with their pictures inside."""
    parts = []
    for number, (kind, content) in enumerate(blocks):
        if kind == "table":
            head, *rows = content
            lines = [_row(head, "th"), *(_row(row, "td") for row in rows)]
            parts.append(f"<table>{''.join(lines)}</table>")
        elif kind == "figure":
            data = base64.b64encode(pictures[content]).decode()
            parts.append(f'<img alt="{html.escape(content)}" src="data:image/png;base64,{data}">')
        else:
            tag = {"heading": "h1" if number == 0 else "h2", "text": "p"}[kind]
            parts.append(f"<{tag}>{html.escape(content)}</{tag}>")
    title = html.escape(str(blocks[0][1]))
    body = "\n".join(parts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{STYLE}</style>"
        f"</head><body>\n{body}\n</body></html>\n"
    )


def _row(cells: tuple[str, ...], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
