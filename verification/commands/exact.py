"""`bilevelrl gradient`, `routes` and `list`: one exact hypergradient, and what there is."""

from __future__ import annotations

import argparse
import json

import numpy as np

from bilevelrl.estimators import ESTIMATORS
from bilevelrl.reference import HYPERGRADIENT_ROUTES, hypergradient
from bilevelrl.reference.storage import software_versions
from bilevelrl.tasks import TASKS, make_task
from bilevelrl.verification.commands.arguments import count
from bilevelrl.verification.commands.places import read_theta

__all__ = ["fill_gradient", "fill_list", "fill_routes"]


def fill_gradient(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `gradient`."""
    add.add_argument("--task", required=True, help="a task of `bilevelrl list`")
    add.add_argument("--route", default="implicit", help="a route of `bilevelrl routes` (default implicit)")
    add.add_argument("--theta", default="zeros", help="a .npy or .csv file, or zeros (default)")
    add.add_argument("--temperature", type=float, help="the follower's β (default: the task's)")
    add.add_argument("--horizon", type=count, help="episodes of so many steps (default: for ever)")
    add.add_argument("--undiscounted", action="store_true", help="undiscounted leader returns; needs --horizon")
    add.add_argument("--json", action="store_true", help="print JSON with all parts")
    add.set_defaults(run=_gradient)


def fill_routes(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `routes`: none."""
    add.set_defaults(run=_routes)


def fill_list(add: argparse.ArgumentParser) -> None:
    """Add the arguments of `list`: none."""
    add.set_defaults(run=_list)


def _gradient(parsed: argparse.Namespace) -> int:
    options = {} if parsed.temperature is None else {"temperature": parsed.temperature}
    problem = make_task(parsed.task, **options)
    theta = read_theta(parsed.theta, problem, parsed.task)
    found = hypergradient(
        problem, theta, route=parsed.route, horizon=parsed.horizon, discounted=not parsed.undiscounted
    )
    if parsed.json:
        record = {
            "task": parsed.task,
            "temperature": problem.temperature,
            "route": found.route,
            "horizon": parsed.horizon,
            "discounted": not parsed.undiscounted,
            "objective": found.objective,
            "norm": float(np.linalg.norm(found.value)),
            "error_bound": found.error_bound if np.isfinite(found.error_bound) else None,
            "residual": found.residual,
            "status": found.status,
            "counters": dict(found.counters),
            "value": found.value.tolist(),
            "parts": {part: value.tolist() for part, value in found.parts.items()},
            "versions": software_versions(),
        }
        print(json.dumps(record, indent=1))
        return 0
    print(f"{parsed.task}, β = {problem.temperature:g}, route {found.route}: {found.status}")
    print(f"J(θ)    {found.objective:.12g}")
    print(f"‖∇J‖    {float(np.linalg.norm(found.value)):.12g}   (each entry known to {found.error_bound:.1g})")
    for part, value in found.parts.items():
        print(f"  {part:<12}{float(np.linalg.norm(value)):.6g}")
    print(np.array2string(found.value, precision=10, max_line_width=100, threshold=10**6))
    return 0


def _routes(parsed: argparse.Namespace) -> int:
    width = max(map(len, HYPERGRADIENT_ROUTES))
    for name, route in HYPERGRADIENT_ROUTES.items():
        print(f"{name:<{width}}  {route.summary}\n{'':<{width}}  family: {route.family}; {route.accuracy}")
    return 0


def _list(parsed: argparse.Namespace) -> int:
    tasks = [(name, task.summary) for name, task in TASKS.items()]
    estimators = [(name, f"{entry.summary} ({entry.level} level)") for name, entry in ESTIMATORS.items()]
    for title, entries in (("Tasks", tasks), ("Estimators", estimators)):
        width = max((len(name) for name, _ in entries), default=0)
        print(title)
        for name, summary in entries:
            print(f"  {name:<{width}}  {summary}")
    return 0
