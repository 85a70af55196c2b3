"""Write docs/api.md from the docstrings of what Python's door offers; ``--check`` only compares.

Read from the source, without importing it, so that it is the same on every machine.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "api.md"
# Module, where it is, and what of it is shown; the order is the page's.
PARTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("greenroom", "actors/entry/__init__.py", ("open", "connect", "open_sync", "connect_sync")),
    ("greenroom.actors.room", "actors/room.py", ("Room", "LocalRoom", "Inspection")),
    ("greenroom.actors.handle", "actors/handle.py", ("Agent", "TurnOptions")),
    (
        "greenroom.actors.reply",
        "actors/reply.py",
        ("Reply", "Shaped", "Stream", "AnswerIncomplete", "NoReplyYet"),
    ),
    ("greenroom.actors.scene_handle", "actors/scene_handle.py", ("Scene", "SceneOptions")),
    ("greenroom.runtime.scenario", "runtime/scenario.py", ("Scenario", "Member", "Phase", "Vote")),
    ("greenroom.actors.sync", "actors/sync.py", ("SyncRoom", "SyncAgent", "SyncStream")),
    ("greenroom.actors.tools", "actors/tools.py", ("FunctionTool", "Runnable", "ToolRefusal")),
    (
        "greenroom.actors.toolloop",
        "actors/toolloop.py",
        ("ToolBounds", "ToolRun", "ToolRoundsExceeded"),
    ),
    ("greenroom.actors.shapes", "actors/shapes.py", ("Shape",)),
    ("greenroom.actors.mcp_tools", "actors/mcp_tools.py", ("mcp_tools",)),
    ("greenroom.actors.messenger", "actors/messenger.py", ("messengers",)),
    (
        "greenroom.actors.remote_errors",
        "actors/remote_errors.py",
        ("ServerLost", "ServerFailed", "RemoteMailboxFull"),
    ),
    (
        "greenroom.runtime.records",
        "runtime/records.py",
        (
            "ChatMessage",
            "Sampling",
            "Tool",
            "ToolCall",
            "Usage",
            "Timings",
            "TurnStarted",
            "TurnProgress",
            "TextDelta",
            "TurnDone",
        ),
    ),
    (
        "greenroom.runtime.agent_records",
        "runtime/agent_records.py",
        ("AgentInfo", "LogEntry", "Probe", "Heard", "Forgotten"),
    ),
    ("greenroom.runtime.actor", "runtime/actor.py", ("Actor", "Context")),
    (
        "greenroom.runtime.errors",
        "runtime/errors.py",
        (
            "GreenroomError",
            "InvalidRequest",
            "NotFound",
            "Conflict",
            "SettingsError",
            "ModelUnavailable",
            "Unavailable",
            "MailboxFull",
            "ActorFailed",
            "AskTimeout",
        ),
    ),
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def page() -> str:
    """The whole page."""
    lines = [
        "# Reference: Python's door",
        "",
        "Written from the docstrings by `.ci/reference.py`; [python.md](python.md) is the guide.",
    ]
    for module, path, names in PARTS:
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        found = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef | Function)}
        lines += ["", f"## `{module}`"]
        for name in names:
            lines += _entry(found[name])
    return "\n".join(lines) + "\n"


def _entry(node: ast.ClassDef | Function) -> Iterator[str]:
    if not isinstance(node, ast.ClassDef):
        yield from ("", f"### `{_signature(node)}`", "", _text(node))
        return
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    yield from ("", f"### `class {node.name}({bases})`" if bases else f"### `class {node.name}`")
    yield from ("", _text(node))
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and _is_public(n.target)]
    if fields:
        yield from ("", "```python", *(ast.unparse(field) for field in fields), "```")
    for method in node.body:
        if isinstance(method, Function) and _is_shown(method):
            text = " ".join(_text(method).split("\n"))
            yield from ("", f"- `{_signature(method)}`: {text}")


def _is_public(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) and not target.id.startswith("_")


def _is_shown(method: Function) -> bool:
    overload = any(isinstance(d, ast.Name) and d.id == "overload" for d in method.decorator_list)
    hidden = method.name.startswith("_") and method.name not in ("__init__", "__aiter__")
    return not overload and not hidden and ast.get_docstring(method) is not None


def _signature(node: Function) -> str:
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    answer = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    if any(isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list):
        return f"{node.name}{answer}"
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"{prefix}{node.name}({arguments}){answer}"


def _text(node: ast.ClassDef | Function) -> str:
    return (ast.get_docstring(node) or "").replace("``", "`")


def main() -> None:
    """Write the page, or say that it is not up to date."""
    if "--check" not in sys.argv:
        TARGET.write_text(page(), "utf-8")
    elif TARGET.read_text("utf-8") != page():
        sys.exit("docs/api.md is not what the docstrings say: run python .ci/reference.py")


if __name__ == "__main__":
    main()
