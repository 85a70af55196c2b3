"""Check every architecture of mlx-lm, and write docs/architectures.md.

``python -m tests.sweep`` writes the page, ``python -m tests.sweep NAME…`` prints one JSON line for
each name. Architectures are checked in processes of their own: some upstream code ends the whole
process.
"""

import json
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

# Greenroom before MLX: it loads a fast BLAS, which must come first.
from greenroom import BLAS

# isort: split
import mlx.core as mx
import msgspec
from mlx_lm.models.cache import make_prompt_cache

from greenroom.runtime.spec import StateSpec, extract_spec
from tests.exact import check_all
from tests.menagerie import architectures, config_of
from tests.tiny import prompt
from tests.zoo import build

PAGE = Path(__file__).parent.parent / "docs" / "architectures.md"
_BATCH = 12
_HEAD = """# Architectures

Every module of `mlx_lm.models` that defines a model, as a tiny random one, checked by
`python -m tests.sweep` (mlx-lm {version}, MLX {mlx}, CPU). *Passes* means: with the `float`
codec an agent that goes on hot, one that goes on from disk and a full prefill give the same
tokens, alone and at batch 2 with a mid-decode join; with the default codec hot and from disk give
the same; the next logits are within 1e-4 of the largest. What fails stands with the call that
failed and its error.

"""


class Outcome(msgspec.Struct):
    """One architecture: its kinds of layers, and what went wrong where."""

    name: str
    kinds: str = ""
    call: str = ""
    error: str = ""


def check(name: str) -> Outcome:
    """Build and check one architecture in this process."""
    outcome = Outcome(name)
    try:
        model = build(name, config_of(name))
        spec = extract_spec(model, {"max_position_embeddings": 2048})
        kinds = {"state" if isinstance(c, StateSpec) else c.kind for c in spec.layers}
        outcome.kinds = ", ".join(sorted(kinds)) + (", in lists" if spec.lists else "")
        with tempfile.TemporaryDirectory() as root:
            check_all(model, Path(root))
    except AssertionError as error:
        outcome.call, outcome.error = upstream(model) or ("greenroom", f"tokens differ {error}")
    except (Exception, SystemExit) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        outcome.call = f"{Path(frame.filename).stem}.{frame.name}"
        words = " ".join(str(error).split())
        outcome.error = f"{type(error).__name__}: {words[:160]}"
    return outcome


def upstream(model: Any) -> tuple[str, str] | None:
    """Which use of the plain model and its plain caches, greenroom apart, gives other logits."""
    prompts = [mx.array([prompt(n, n)], dtype=mx.uint32) for n in (30, 21)]
    caches = [make_prompt_cache(model) for _ in prompts]
    whole = [model(p, cache=c)[:, -1] for p, c in zip(prompts, caches, strict=True)]
    pieces = make_prompt_cache(model)
    for at in (slice(0, 24), *(slice(i, i + 1) for i in range(24, 30))):
        last = model(prompts[0][:, at], cache=pieces)[:, -1]
    if not mx.allclose(last, whole[0], atol=1e-3, rtol=1e-3).item():
        return "model(tokens, cache)", "token by token gives other logits than at once (upstream)"
    both = [type(one).merge([one, two]) for one, two in zip(*caches, strict=True)]
    for token in range(5):
        row = mx.array([[token]], dtype=mx.uint32)
        alone = mx.concatenate([model(row, cache=cache)[:, -1] for cache in caches])
        together = model(mx.concatenate([row, row]), cache=both)[:, -1]
        if not mx.allclose(together, alone, atol=1e-3, rtol=1e-3).item():
            return "model(tokens, cache)", "two rows give other logits than each alone (upstream)"
    return None


def check_apart(names: Sequence[str]) -> list[Outcome]:
    """Check architectures in another process; those that end it are found by checking singly."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.sweep", *names],
        check=False,
        capture_output=True,
        text=True,
        cwd=PAGE.parent.parent,
        timeout=1200,
    )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    outcomes = [msgspec.json.decode(line, type=Outcome) for line in lines]
    if ran.returncode and len(names) > 1:
        return [o for name in names for o in check_apart([name])]
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or [""])[-1]
        error = f"ends the process ({ran.returncode}): {last[:120]}"
        return [Outcome(names[0], outcomes[0].kinds if outcomes else "", "the process", error)]
    return outcomes


def sweep() -> list[Outcome]:
    """Check all architectures."""
    names = architectures()
    batches = [names[i : i + _BATCH] for i in range(0, len(names), _BATCH)]
    return [outcome for batch in batches for outcome in check_apart(batch)]


def page(outcomes: Sequence[Outcome]) -> str:
    """The page for ``outcomes``."""
    passed = [o for o in outcomes if not o.error]
    failed = [o for o in outcomes if o.error]
    lines = [f"## {len(passed)} pass", "", "| architecture | layers keep |", "| --- | --- |"]
    lines += [f"| `{o.name}` | {o.kinds} |" for o in passed]
    lines += ["", f"## {len(failed)} do not", ""]
    lines += ["| architecture | layers keep | failing call | error |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{o.name}` | {o.kinds} | `{o.call}` | {o.error.replace('|', '/')} |" for o in failed
    ]
    head = _HEAD.format(version=metadata.version("mlx-lm"), mlx=metadata.version("mlx"))
    return head + "\n".join(lines) + "\n"


def main(names: Sequence[str]) -> int:
    """Write the page, or check ``names``."""
    if not names:
        PAGE.write_text(page(sweep()))
        return 0
    for name in names:
        print(json.dumps(msgspec.to_builtins(check(name))), flush=True)
    return 0


if __name__ == "__main__":
    if BLAS.warning:
        print(BLAS.warning, file=sys.stderr)
    sys.exit(main(sys.argv[1:]))
